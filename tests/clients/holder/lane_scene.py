"""A data holder's lane copy with three people in it, and registries that tell the truth or not."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from clients.holder.settings import DeskSettings, HolderPolicy, HolderSettings, RegistrySettings
from clients.wallet.wallet import HolderAddress, SealedRecord, Wallet
from experiments.people import Attitude
from experiments.wishes import records_of
from federated.recipes.base import RecipeName
from federated.trust import TrustModel
from privacy.consent.lane import Head, write_checkpoint
from privacy.consent.merkle import leaf_hash, root_of
from privacy.consent.record import Purpose
from privacy.consent.sealing import LaneKey
from privacy.consent.signing import SigningKey
from privacy.consent.submission import Submission
from privacy.consent.view import Entry, Link

AT = 1_793_491_200
LANE = "aster-bank"
KEY = LaneKey.from_bytes(b"\x01" + sha256(b"lane").digest())
IDENTITY = SigningKey.from_seed(sha256(b"identity").digest())
KEYS = HolderKeys(IDENTITY, {1: KEY})
REGISTRY = SigningKey.from_seed(sha256(b"registry").digest())
SETTINGS = HolderSettings(
    version=1,
    holder=LANE,
    schema="schema.toml",
    rows="rows.csv",
    held_out="held_out.csv",
    registry=RegistrySettings(url="https://registry.example", key=REGISTRY.public.hex(), ca=""),
    desk=DeskSettings(jurisdiction="DE", language="en", notice="notice.txt", notice_id="notice", side_door=""),
    policy=HolderPolicy(
        coordinator="open-scoring",
        coordinator_keys=["00" * 32],
        bundles=[],
        purposes=list(Purpose),
        recipes=[RecipeName.FIXED_HESSIAN],
        trust_models=[TrustModel.SHARED_NOISE],
        largest_epsilon=1.0,
        largest_delta=1e-5,
        peers={},
        fewest_holders=1,
        fewest_people=1,
        most_people=1000,
        most_openings_per_day=10,
        hours="00:00-24:00",
        answer_within_s=300,
        clock_skew_s=120,
        longest_lane_age_s=3600,
        sync_every_s=15,
        accept_seeded_noise=False,
    ),
)
ADDRESS = HolderAddress(LANE, 1, KEY.public)


@dataclass
class Source:
    """A registry that signs whatever head it is told to."""

    entries_: list[Entry]
    key: SigningKey = REGISTRY
    head: Head | None = None
    origin: str = f"fedcredit/{LANE}"
    asked: list[tuple[int, int]] = field(default_factory=list)

    def checkpoint(self, lane: str) -> str:
        assert lane == LANE
        leaves = [leaf_hash(entry.stub.leaf()) for entry in self.entries_]
        return write_checkpoint(self.head or Head(len(leaves), root_of(leaves)), self.origin, self.key)

    def entries(self, lane: str, start: int, stop: int) -> Sequence[Entry]:
        assert lane == LANE
        self.asked.append((start, stop))
        return self.entries_[start:stop]


class Person:
    def __init__(self, name: str) -> None:
        self.customer = name
        self.handle = sha256(name.encode()).digest()
        self.wallet = Wallet(sha256(b"wallet of " + name.encode()).digest())

    def link(self, at_size: int = 0) -> Link:
        return Link(self.handle, self.wallet.key_for(LANE).public, at_size)

    def says(self, attitude: Attitude, address: HolderAddress = ADDRESS) -> list[Entry]:
        return [Entry(record.stub, record.ciphertext) for record in self.writes(attitude, address)]

    def hands_in(self, attitude: Attitude, address: HolderAddress = ADDRESS) -> Submission:
        """The newest of what `writes` gives, for the side door."""
        record = self.writes(attitude, address)[-1]
        return Submission(record.stub, record.ciphertext)

    def writes(self, attitude: Attitude, address: HolderAddress = ADDRESS) -> list[SealedRecord]:
        return records_of(
            attitude, self.wallet, address, handle=self.handle, categories=frozenset({"capacity"}), share_milli=1000,
            cap=1.0, at=AT,
        )  # fmt: skip


class Scene:
    """Three people in a lane of five entries, all synced."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.people = [Person(name) for name in ("yes", "left", "no")]
        self.yes, self.left, self.no = self.people
        self.entries = [*self.yes.says(Attitude.AGREES), *self.left.says(Attitude.WITHDREW)]
        self.entries += self.no.says(Attitude.FROZE)
        with self.copy() as lane:
            lane.link({person.customer: person.link() for person in self.people})
            assert lane.sync(Source(self.entries), at=AT) == 5

    def copy(self, keys: HolderKeys = KEYS) -> "Opened":
        return Opened(LaneCopy(self.directory / "consent.db", SETTINGS, keys))

    def edit(self, statement: str, *values: object, rows: int = 1) -> None:
        """Edit the database behind the copy's back; at least so many rows are changed."""
        database = sqlite3.connect(self.directory / "consent.db")
        with database:
            assert database.execute(statement, values).rowcount >= rows
        database.close()


class Opened:
    def __init__(self, lane: LaneCopy) -> None:
        self.lane = lane

    def __enter__(self) -> LaneCopy:
        return self.lane

    def __exit__(self, *_: object) -> None:
        self.lane.close()
