"""A data holder's desk with a registry in memory, and people who answer offers and write records without a wallet."""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

from clients import registry_client
from clients.holder.ceremony import link_answer, make_offers
from clients.holder.desk import Desk
from clients.holder.init import Start, make_directory
from federated import cli
from privacy.consent.canonical import base64url, from_base64url
from privacy.consent.lane import Head, Stub, write_checkpoint
from privacy.consent.linking import LinkOffer, read_offer, write_answer
from privacy.consent.merkle import leaf_hash, root_of
from privacy.consent.promise import Promise, write_promise
from privacy.consent.record import (
    ConsentRecord,
    Grant,
    Purpose,
    Signer,
    TrainingBudget,
    Uses,
    encode_record,
    key_id,
    payload_digest,
)
from privacy.consent.sealing import LanePublicKey, seal
from privacy.consent.signing import PayloadType, SigningKey
from privacy.consent.submission import Submission
from privacy.consent.tombstone import read_tombstone, tombstone_stub
from privacy.consent.view import Entry
from privacy.errors import RefusalCode, RefusalError

AT = 1_793_491_200
DAY_S = 86_400
LANE, COORDINATOR, LENDER = "aster-bank", "open-scoring", "harbour-lending"
REGISTRY_KEY = SigningKey.from_seed(sha256(b"registry").digest())
SCHEMA = Path(__file__).parents[3] / "experiments" / "data" / "taiwan_default" / "schema.toml"
START = Start(
    holder=LANE,
    registry_url="https://registry.example",
    registry_key=REGISTRY_KEY.public.hex(),
    registry_ca=None,
    coordinator=COORDINATOR,
    coordinator_key=bytes(range(32)).hex(),
    jurisdiction="AT",
    language="en",
    contact="Box 1, Aster",
    side_door="",
)


@dataclass
class LittleRegistry:
    """A registry that keeps everything in a list. `broken` counts calls that still fail; `refuse` is what they say."""

    entries_: list[Entry] = field(default_factory=list)
    key_sets: list[bytes] = field(default_factory=list)
    erased: list[bytes] = field(default_factory=list)
    fails: list[str] = field(default_factory=list)  # names of methods; each fails once
    shown: int | None = None  # how many entries the signed head covers; None is all

    def _may_fail(self, method: str) -> None:
        if method in self.fails:
            self.fails.remove(method)
            raise RefusalError("The registry cannot be reached. Try again.", RefusalCode.LANE)

    def checkpoint(self, lane: str) -> str:
        self._may_fail("checkpoint")
        assert lane == LANE
        leaves = [leaf_hash(entry.stub.leaf()) for entry in self.entries_[: self.shown]]
        return write_checkpoint(Head(len(leaves), root_of(leaves)), f"fedcredit/{LANE}", REGISTRY_KEY)

    def entries(self, lane: str, start: int, stop: int) -> Sequence[Entry]:
        assert lane == LANE
        return self.entries_[start:stop]

    def append(self, *submissions: Submission) -> None:
        self.entries_ += [Entry(submission.stub, submission.ciphertext) for submission in submissions]

    def key_set(self, lane: str) -> bytes:
        assert lane == LANE
        self._may_fail("key_set")
        if not self.key_sets:
            raise RefusalError("No key set was published in this lane.", RefusalCode.LANE)
        return self.key_sets[-1]

    def publish_key_set(self, lane: str, data: bytes) -> None:
        self._may_fail("publish_key_set")
        assert lane == LANE
        self.key_sets.append(data)

    def erase(self, lane: str, envelope: bytes) -> bytes:
        self._may_fail("erase")
        statement = read_tombstone(envelope, identity=self.identity, lane=lane)
        stub = tombstone_stub(envelope, statement)
        found = [position for position, entry in enumerate(self.entries_) if entry.stub.tag == stub.tag]
        if found and self.entries_[found[0]].stub != stub:
            raise RefusalError("This tag is taken by another entry.", RefusalCode.REPLAY)
        if not found:
            old = self.entries_[statement.position]
            assert leaf_hash(old.stub.leaf()) == statement.leaf_hash
            self.entries_[statement.position] = Entry(old.stub, None)
            self.entries_.append(Entry(stub, envelope))
            self.erased.append(envelope)
        position = found[0] if found else len(self.entries_) - 1
        self._may_fail("erase answer")
        leaf = base64url(leaf_hash(stub.leaf()))
        promise = Promise(lane=lane, leaf=leaf, position=position, received_at=AT, merge_by=AT + 60)
        return write_promise(promise, REGISTRY_KEY)

    identity: bytes = b""

    def close(self) -> None:
        pass

    def __enter__(self) -> "LittleRegistry":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Person:
    """A customer with a key of the wallet's for this data holder."""

    def __init__(self, customer: str, *, wallet: str = "") -> None:
        self.customer = customer
        self.key = SigningKey.from_seed(sha256(f"wallet {wallet} of {customer}".encode()).digest())
        self.offer: LinkOffer | None = None
        self.previous: str | None = None
        self.seq = 0

    @property
    def handle(self) -> bytes:
        assert self.offer is not None
        return from_base64url(self.offer.sub, size=32)

    def answer(self, envelope: bytes, *, at: int = AT) -> bytes:
        self.offer = read_offer(envelope, at=at)
        if self.offer.newest is not None:
            self.seq, self.previous = self.offer.newest.seq, self.offer.newest.digest
        return write_answer(self.offer, self.key, at=at)

    def says(
        self, *grants: Grant, to: LanePublicKey, epoch: int = 1, frozen: bool = False, at: int = AT,
        sealed_as: int | None = None,
    ) -> Submission:  # fmt: skip
        """The next record, sealed to `to`; `sealed_as` is the epoch that the seal and the log claim, if another."""
        assert self.offer is not None
        self.seq += 1
        record = ConsentRecord(
            aud=LANE,
            aud_kid=epoch,
            sub=self.offer.sub,
            kid=key_id(self.key.public),
            seq=self.seq,
            prev=self.previous,
            iat=at,
            frozen=frozen,
            grants=tuple(sorted(grants, key=lambda grant: (grant.purpose.value, grant.to))),
            terms=self.offer.notice.terms,
            jur=self.offer.notice.jur,
            signer=Signer.SELF,
        )
        payload = encode_record(record)
        self.previous = payload_digest(payload)
        claimed = epoch if sealed_as is None else sealed_as
        rho = sha256(b"rho" + payload).digest()
        sealed = seal(
            payload, self.key.sign(PayloadType.CONSENT, payload), to=to, lane=LANE, epoch=claimed, rho=rho
        )  # fmt: skip
        return Submission(Stub.of(sealed, tag=sha256(b"tag" + rho).digest()[:16], epoch=claimed), sealed.ciphertext)


def grant(purpose: Purpose = Purpose.TRAIN, *, until: int = AT + 100 * DAY_S) -> Grant:
    statistics = purpose in (Purpose.TRAIN, Purpose.VALIDATE)
    return Grant(
        purpose=purpose, to=COORDINATOR if statistics else LENDER, data=CATEGORIES, nbf=AT - DAY_S, exp=until,
        reconfirm_by=until, retain_s=0,
        dp=TrainingBudget(share_milli=1000, eps_milli=1000, delta_log10=-5, window_s=DAY_S) if statistics else None,
        uses=None if statistics else Uses(n=1, per_s=DAY_S),
    )  # fmt: skip


class Scene:
    """A data holder's directory as `init` makes it, with the schema put there, and its registry."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.identity = make_directory(directory, START)
        shutil.copy(SCHEMA, directory / "schema.toml")
        self.registry = LittleRegistry(identity=self.identity.public)

    def desk(self) -> Desk:
        return Desk.open(self.directory)

    def link(self, *people: Person, at: int = AT) -> None:
        with self.desk() as desk:
            offers = make_offers(desk, [person.customer for person in people], at=at)
            for person, offer in zip(people, offers, strict=True):
                link_answer(desk, person.answer(offer, at=at), replace=False, at=at)

    def sync(self, *submissions: Submission, at: int = AT) -> None:
        self.registry.append(*submissions)
        with self.desk() as desk:
            desk.lane.sync(self.registry, at=at)

    @property
    def lane_key(self) -> LanePublicKey:
        with self.desk() as desk:
            return desk.keys.lane_key.public


@dataclass(frozen=True)
class Told:
    """What a command answered."""

    code: int
    out: str
    err: str


class Command:
    """`fedcredit holder ...` in this process, at a given instant, with the scene's registry."""

    def __init__(self, scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._scene, self._capsys, self._monkeypatch = scene, capsys, monkeypatch
        self.at = AT
        monkeypatch.setattr(registry_client, "RegistryClient", lambda *_, **__: scene.registry)
        monkeypatch.setattr(time, "time", lambda: float(self.at))

    def __call__(self, name: str, *arguments: object, directory: Path | None = None) -> Told:
        where = [] if name == "init" else ["--directory", str(directory or self._scene.directory)]
        self._monkeypatch.setattr(sys, "argv", ["fedcredit", "holder", name, *map(str, arguments), *where])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            cli.main()
        captured = self._capsys.readouterr()
        assert isinstance(exited.value.code, int)
        return Told(exited.value.code, captured.out, captured.err)


def categories() -> tuple[str, ...]:
    from federated.schema_toml import load_schema

    return tuple(sorted(load_schema(SCHEMA).categories))


CATEGORIES = categories()
