"""People, records and lanes to test with; every key comes from a name, so nothing depends on chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from privacy.consent.canonical import base64url
from privacy.consent.lane import Head, Stub
from privacy.consent.merkle import TreeHead, leaf_hash
from privacy.consent.record import (
    ConsentRecord,
    Grant,
    Purpose,
    Signer,
    Terms,
    TrainingBudget,
    Uses,
    encode_record,
    key_id,
)
from privacy.consent.sealing import LaneKey, Suite, seal
from privacy.consent.signing import PayloadType, SigningKey
from privacy.consent.tombstone import TombstoneStatement, tombstone_stub, write_tombstone
from privacy.consent.view import Entry, LaneView, Link, project

NOW = 1_800_000_000
DAY = 86_400
HOLDER = LANE = "holder-01"
COORDINATOR = "coordinator"
LENDER = "lender-1"
EPOCH = 1
CATEGORIES = ("capacity", "credit_history")

LANE_KEY = LaneKey.from_bytes(b"\x02" + sha256(b"a").digest() + sha256(b"b").digest() + sha256(b"c").digest())
SMALL_LANE_KEY = LaneKey.from_bytes(b"\x01" + sha256(b"d").digest())
LANE_KEYS = {Suite.MLKEM768_X25519: LANE_KEY, Suite.X25519: SMALL_LANE_KEY}
KEYS = {EPOCH: LANE_KEY}


def digest(name: str) -> bytes:
    return sha256(name.encode()).digest()


IDENTITY = SigningKey.from_seed(digest("identity of holder-01"))
REGISTRY = SigningKey.from_seed(digest("registry"))


@dataclass(frozen=True)
class Person:
    name: str

    @property
    def handle(self) -> bytes:
        return digest(f"handle of {self.name}")

    @property
    def key(self) -> SigningKey:
        return SigningKey.from_seed(digest(f"key of {self.name}"))

    def link(self, at_size: int = 0) -> Link:
        return Link(self.handle, self.key.public, at_size)


def budget(**changes: int) -> TrainingBudget:
    settings = {"share_milli": 500, "eps_milli": 1000, "delta_log10": -5, "window_s": 365 * DAY}
    return TrainingBudget(**(settings | changes))


def grant(purpose: Purpose = Purpose.TRAIN, **changes: Any) -> Grant:
    statistics = purpose in {Purpose.TRAIN, Purpose.VALIDATE}
    settings: dict[str, Any] = {
        "purpose": purpose,
        "to": COORDINATOR if statistics else LENDER,
        "data": CATEGORIES,
        "nbf": NOW - 10 * DAY,
        "exp": NOW + 300 * DAY,
        "reconfirm_by": NOW + 200 * DAY,
        "retain_s": 30 * DAY,
        "dp": budget() if statistics else None,
        "uses": None if statistics else Uses(n=3, per_s=DAY),
    }
    return Grant(**(settings | changes))


def record(person: Person, *grants: Grant, seq: int = 1, **changes: Any) -> ConsentRecord:
    settings: dict[str, Any] = {
        "aud": HOLDER,
        "aud_kid": EPOCH,
        "sub": base64url(person.handle),
        "kid": key_id(person.key.public),
        "seq": seq,
        "prev": None if seq == 1 else base64url(digest("the payload before")),
        "iat": NOW - 10 * DAY,
        "frozen": False,
        "grants": grants,
        "terms": Terms(id="notice-1", sha256=base64url(digest("notice")), lang="en"),
        "jur": "TW",
        "signer": Signer.SELF,
    }
    return ConsentRecord(**(settings | changes))


def rewritten(wishes: ConsentRecord, **changes: Any) -> bytes:
    """The record's JSON with some fields overwritten by anything at all, keys sorted, no rule checked."""
    fields = msgspec.to_builtins(wishes)
    return msgspec.json.encode(fields | changes, order="sorted")


def sealed_entry(
    payload: bytes,
    signature: bytes,
    *,
    name: str = "entry",
    lane: str = LANE,
    epoch: int = EPOCH,
    key: LaneKey = LANE_KEY,
) -> Entry:
    sealed = seal(payload, signature, to=key.public, lane=lane, epoch=epoch, rho=digest(f"rho {name}"))
    return Entry(Stub.of(sealed, tag=digest(f"tag {name}")[:16], epoch=epoch), sealed.ciphertext)


def entry(person: Person, wishes: ConsentRecord, **place: Any) -> Entry:
    payload = encode_record(wishes)
    return sealed_entry(payload, person.key.sign(PayloadType.CONSENT, payload), **place)


def garbage(name: str) -> Entry:
    """Bytes of a sealed record's size that nobody sealed."""
    ciphertext = b"\x02" + (digest(name) * 84)[: 1120 + 1536 + 16]
    return Entry(Stub(digest(name)[:16], EPOCH, digest(name), sha256(ciphertext).digest()), ciphertext)


def tombstone(
    erased: Entry, position: int, *, key: SigningKey = IDENTITY, lane: str = LANE, leaf: bytes | None = None
) -> Entry:
    """The entry that erases `erased` at `position`."""
    leaf = leaf_hash(erased.stub.leaf()) if leaf is None else leaf
    statement = TombstoneStatement(lane=lane, position=position, leaf=base64url(leaf), at=NOW)
    envelope = write_tombstone(statement, key)
    return Entry(tombstone_stub(envelope, statement), envelope)


def head_of(entries: Sequence[Entry]) -> Head:
    tree = TreeHead(leaf_hash(entry.stub.leaf()) for entry in entries)
    return Head(tree.size, tree.root)


def view_of(entries: Sequence[Entry], *links: Link, head: Head | None = None, **changes: Any) -> LaneView:
    settings: dict[str, Any] = {
        "identity": IDENTITY.public,
        "keys": KEYS,
        "lane": LANE,
        "holder": HOLDER,
        "links": {link.handle: link for link in links},
    }
    return project(entries, head or head_of(entries), **(settings | changes))
