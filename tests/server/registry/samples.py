"""Keys, records and requests that the registry's tests share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from privacy.consent.canonical import base64url
from privacy.consent.key_set import EpochKey, KeySet, write_key_set
from privacy.consent.lane import Stub
from privacy.consent.merkle import leaf_hash
from privacy.consent.sealing import LaneKey
from privacy.consent.signing import SigningKey
from privacy.consent.submission import Submission
from privacy.consent.tombstone import TombstoneStatement, write_tombstone
from server.registry.settings import LaneSettings, LimitSettings, RegistrySettings
from tests.postgres import postgres_database

AT = 1_793_491_200
DAY_S = 86_400
LANE, OTHER = "aster-bank", "birch-telecom"
KEY = SigningKey.from_seed(sha256(b"registry").digest())
HOLDER = SigningKey.from_seed(sha256(b"aster").digest())
OTHER_HOLDER = SigningKey.from_seed(sha256(b"birch").digest())
LANES = {LANE: HOLDER.public, OTHER: OTHER_HOLDER.public}
LIMITS = LimitSettings(records_per_minute=10_000_000, burst=10_000_000)
DATABASES = ("sqlite", "postgresql")


def submission(name: str, *, tag: str | None = None, epoch: int = 1) -> Submission:
    """A record that looks like any other to a registry: bytes that follow from `name`."""
    ciphertext = sha256(name.encode()).digest() * 50
    commit, digest = sha256(b"commit" + ciphertext).digest(), sha256(ciphertext).digest()
    return Submission(Stub(sha256((tag or name).encode()).digest()[:16], epoch, commit, digest), ciphertext)


def tombstone(position: int, erased: Submission, *, key: SigningKey = HOLDER, lane: str = LANE, at: int = AT) -> bytes:
    """The data holder's statement that the record `erased` at `position` is to be erased."""
    leaf = base64url(leaf_hash(erased.stub.leaf()))
    return write_tombstone(TombstoneStatement(lane=lane, position=position, leaf=leaf, at=at), key)


def key_set(version: int, *epochs: int, key: SigningKey = HOLDER, lane: str = LANE, issued_at: int = AT) -> bytes:
    """A signed key set with fresh keys of these epochs."""
    keys = tuple(EpochKey(epoch=epoch, key=base64url(_public(epoch))) for epoch in epochs)
    return write_key_set(
        KeySet(
            holder=lane, version=version, issued_at=issued_at, expires=issued_at + 30 * DAY_S, current=epochs[-1],
            keys=keys, side_door=None,
        ),
        key,
    )  # fmt: skip


def settings(*, limits: LimitSettings = LIMITS) -> RegistrySettings:
    """What a registry for both lanes is served with, within this machine."""
    return RegistrySettings(
        version=1, database="sqlite:///registry.db", host="127.0.0.1", port=0, certificate="", private_key="",
        merge_delay_s=60, limits=limits,
        lanes={lane: LaneSettings(identity=identity.hex()) for lane, identity in LANES.items()},
    )  # fmt: skip


@contextmanager
def database(kind: str, directory: Path) -> Iterator[str]:
    """The URL of an empty database of a kind."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'registry.db'}"
    else:
        with postgres_database() as url:
            yield url


def _public(epoch: int) -> bytes:
    return LaneKey.from_bytes(b"\x02" + sha256(str(epoch).encode()).digest() * 3).public.to_bytes()


def random_submission() -> Submission:
    """A record as large as a sealed one, that no other test has."""
    ciphertext = os.urandom(2673)
    return Submission(Stub(os.urandom(16), 1, os.urandom(32), sha256(ciphertext).digest()), ciphertext)
