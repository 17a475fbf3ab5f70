"""A registry in memory that can be made to fail or lie, data holders, and a person at the command line."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from clients.wallet.access import World
from clients.wallet.book import Book, opened
from clients.wallet.cli import wallet
from privacy.consent.canonical import base64url
from privacy.consent.key_set import EpochKey, KeySet, write_key_set
from privacy.consent.lane import Head, Stub, write_checkpoint
from privacy.consent.linking import LinkOffer, Newest, Notice, RegistryAddress, notice_digest, write_offer
from privacy.consent.merkle import TreeHead, leaf_hash
from privacy.consent.promise import Promise, write_promise
from privacy.consent.record import ConsentRecord, Terms, parse_record
from privacy.consent.sealing import LaneKey, Sealed, open_sealed
from privacy.consent.signing import SigningKey
from privacy.consent.submission import Submission
from privacy.consent.view import Entry
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError

AT = 1_793_491_200
DAY_S = 86_400
PASSPHRASE = "four words nobody says"
NOTICE_TEXT = "We would like to use your records.\nYou may withdraw at any time.\n"
NOTICE = Notice(
    terms=Terms(id="notice-1", sha256=notice_digest(NOTICE_TEXT), lang="en"), text=NOTICE_TEXT, jur="TW"
)  # fmt: skip
CATEGORIES = ("behaviour", "capacity")


class KilledError(BaseException):
    """Stands for kill -9: nothing of the program runs after it."""


def digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


@dataclass
class FakeRegistry:
    """One registry for all lanes; `down` and the hooks make it break in the ways that a wallet must notice."""

    key: SigningKey = field(default_factory=lambda: SigningKey.from_seed(digest("registry")))
    now: int = AT
    lanes: dict[str, list[Submission]] = field(default_factory=dict)
    key_sets: dict[str, bytes] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)  # lanes that do not answer
    refuses: set[str] = field(default_factory=set)  # lanes that take no records
    submitted: list[tuple[str, bytes]] = field(default_factory=list)  # lane and leaf, also of what was refused
    before_submit: Callable[[], None] = lambda: None
    after_submit: Callable[[], None] = lambda: None
    checkpoint_key: SigningKey | None = None
    hide_newest: int = 0  # heads leave out so many entries
    forged: dict[str, list[bytes]] = field(default_factory=dict)  # leaves of another tree, by lane
    promised_lane: str | None = None
    promise_key: SigningKey | None = None
    epochs: dict[str, set[int]] = field(default_factory=dict)  # of keys that are listed, by lane; else every one is
    silent: set[str] = field(default_factory=set)  # lanes that take records and show nothing

    def leaves(self, lane: str) -> list[bytes]:
        if lane in self.forged:
            return self.forged[lane]
        leaves = [submission.stub.leaf() for submission in self.lanes.get(lane, [])]
        return leaves[: len(leaves) - self.hide_newest]

    def _answers(self, lane: str) -> None:
        if lane in self.down:
            raise RefusalError("The registry cannot be reached.", RefusalCode.LANE)

    def checkpoint(self, lane: str) -> str:
        self._answers(lane)
        if lane in self.silent:
            raise RefusalError("The registry refused (status 503).", RefusalCode.LANE)
        tree = TreeHead(map(leaf_hash, self.leaves(lane)))
        return write_checkpoint(Head(tree.size, tree.root), f"fedcredit/{lane}", self.checkpoint_key or self.key)

    def entries(self, lane: str, start: int, stop: int) -> list[Entry]:
        self._answers(lane)
        return [Entry(submission.stub, submission.ciphertext) for submission in self.lanes[lane][start:stop]]

    def tree(self, lane: str, size: int) -> TreeHead:
        self._answers(lane)
        return TreeHead(map(leaf_hash, self.leaves(lane)[:size]))

    def position(self, lane: str, tag: bytes) -> int | None:
        self._answers(lane)
        tags = [submission.stub.tag for submission in self.lanes.get(lane, [])]
        return tags.index(tag) if tag in tags else None

    def key_set(self, lane: str) -> bytes:
        self._answers(lane)
        return self.key_sets[lane]

    def submit(self, lane: str, submissions: Sequence[Submission]) -> list[bytes]:
        self._answers(lane)
        self.before_submit()
        self.submitted += [(lane, submission.stub.leaf()) for submission in submissions]
        if lane in self.refuses:
            raise RefusalError("The registry refused (status 503).", RefusalCode.LANE)
        known = self.lanes.setdefault(lane, [])
        if not {submission.stub.epoch for submission in submissions} <= self.epochs.get(lane, set(range(100))):
            raise MalformedError("The registry refused (status 400): fetch the key set again.")
        for submission in submissions:
            same = [old for old in known if old.stub.tag == submission.stub.tag]
            if same and same != [submission]:
                raise RefusalError("The registry refused (status 409): tag taken.", RefusalCode.REPLAY)
            if not same:
                known.append(submission)
        self.after_submit()
        return [self._promise(lane, known.index(submission), submission) for submission in submissions]

    def _promise(self, lane: str, position: int, submission: Submission) -> bytes:
        promise = Promise(
            lane=self.promised_lane or lane, leaf=base64url(leaf_hash(submission.stub.leaf())), position=position,
            received_at=self.now, merge_by=self.now + 60,
        )  # fmt: skip
        return write_promise(promise, self.promise_key or self.key)


@dataclass
class DataHolder:
    """One data holder: its identity, lane key and the offers it makes."""

    name: str
    registry: FakeRegistry
    side_door: str | None = None
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.identity = SigningKey.from_seed(digest("identity of " + self.name))
        self.lane_key = LaneKey.from_bytes(b"\x01" + digest("lane key of " + self.name))
        self.handle = digest("handle at " + self.name)
        self.publish(1)

    def publish(self, version: int, *, at: int = AT, epoch: int = 1) -> None:
        key = EpochKey(epoch=epoch, key=base64url(self.lane_key.public.to_bytes()))
        key_set = KeySet(
            holder=self.name, version=version, issued_at=at, expires=at + 90 * DAY_S, current=epoch, keys=(key,),
            side_door=self.side_door,
        )  # fmt: skip
        self.registry.key_sets[self.name] = write_key_set(key_set, self.identity)

    def offer(self, *, at: int = AT, newest: Newest | None = None, notice: Notice = NOTICE) -> LinkOffer:
        return LinkOffer(
            holder=self.name, identity=base64url(self.identity.public), sub=base64url(self.handle),
            nonce=base64url(digest(f"nonce {next(self.numbers)}")), issued_at=at, expires=at + 7 * DAY_S,
            registry=RegistryAddress(
                url="http://127.0.0.1:8440", key=base64url(self.registry.key.public), ca=None
            ),
            notice=notice, categories=CATEGORIES, newest=newest,
        )  # fmt: skip

    def signed_offer(self, offer: LinkOffer | None = None) -> bytes:
        return write_offer(offer or self.offer(), self.identity)

    def opened(self, submission: Submission) -> ConsentRecord:
        sealed = Sealed(submission.stub.commit, submission.ciphertext)
        epoch = submission.stub.epoch
        return parse_record(open_sealed(sealed, self.lane_key, lane=self.name, epoch=epoch).payload)

    def opened_entry(self, entry: Entry) -> ConsentRecord:
        assert isinstance(entry.stub, Stub)
        assert entry.beside is not None
        return self.opened(Submission(entry.stub, entry.beside))

    @property
    def records(self) -> list[ConsentRecord]:
        """What the lane holds for this data holder, in order."""
        return [self.opened(submission) for submission in self.registry.lanes.get(self.name, [])]


@dataclass
class Done:
    """How a command ended."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Person:
    """Somebody with a wallet in a directory, at the command line."""

    def __init__(self, directory: Path, registry: FakeRegistry) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.registry, self.directory = registry, directory
        self.home = directory / "wallet"
        self.passphrase_file = directory / "passphrase"
        self.passphrase_file.write_text(PASSPHRASE + "\n")
        self.at = AT
        self.random_calls = count()
        self.handed: list[tuple[str, bytes]] = []
        self.side_door_open = True

    @contextmanager
    def connect(self, _: RegistryAddress) -> Iterator[FakeRegistry]:
        yield self.registry

    def side_door(self, url: str, _: str | None, frames: bytes) -> None:
        if not self.side_door_open:
            raise RefusalError("the data holder's side door does not answer.", RefusalCode.LANE)
        self.handed.append((url, frames))

    def random(self, size: int) -> bytes:
        return digest(f"{self.directory} {next(self.random_calls)}")[:size]

    @property
    def world(self) -> World:
        return World(self.connect, self.side_door, self.random, lambda: self.at)

    def run(self, *arguments: str | Path) -> Done:
        """A command of `fedcredit wallet`, as federated/cli.py would end it."""
        line = ["--wallet", str(self.home), "--passphrase-file", str(self.passphrase_file), *map(str, arguments)]
        self.registry.now = self.at
        result = CliRunner().invoke(wallet, line, obj=self.world)
        error = result.exception
        if isinstance(error, FedcreditError):
            return Done(error.exit_code, result.stdout, result.stderr + str(error))
        if error is not None and not isinstance(error, SystemExit):
            raise error
        return Done(result.exit_code, result.stdout, result.stderr)

    def ok(self, *arguments: str | Path) -> Done:
        done = self.run(*arguments)
        assert done.exit_code == 0, done
        return done

    def link(self, holder: DataHolder, offer: LinkOffer | None = None) -> Done:
        number = next(self.random_calls)
        path = self.directory / f"offer-{number}.json"
        path.write_bytes(holder.signed_offer(offer))
        return self.run("link", path, "--out", self.directory / f"answer-{number}.json")

    def grant(self, holder: str, *, share: str = "0.5", to: str = "open-scoring", epsilon: str = "1") -> Done:
        return self.run(
            "grant", holder, "--purpose", "train", "--to", to, "--data", "capacity", "--days", "300", "--retain-days",
            "365", "--epsilon", epsilon, "--share", share,
        )  # fmt: skip

    @contextmanager
    def book(self) -> Iterator[Book]:
        """The wallet's insides."""
        with opened(self.home, PASSPHRASE, self.random) as book:
            yield book
