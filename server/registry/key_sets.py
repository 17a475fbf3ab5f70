"""The data holders' published key sets, as the registry keeps them: only ever newer ones."""

from functools import lru_cache

from sqlalchemy import Connection, delete, insert, select

from privacy.consent.key_set import read_key_set
from privacy.errors import RefusalCode, RefusalError
from server.registry.lane_log import locked_head
from server.registry.tables import KEY_SETS


def publish(connection: Connection, lane: str, envelope: bytes, *, identity: bytes, at: int) -> None:
    """Store a key set in place of an older one. Its signature, times and version are checked first.

    The same bytes again change nothing. RefusalError for a version that is not above the stored one: a key set that
    was replaced, perhaps because a key was stolen, must not come back.
    """
    key_set = read_key_set(envelope, identity=identity, holder=lane, at=at)
    locked_head(connection, lane)
    stored = connection.execute(select(KEY_SETS).where(KEY_SETS.c.lane == lane)).one_or_none()
    if stored is not None and stored.envelope == envelope:
        return
    if stored is not None and key_set.version <= stored.version:
        raise RefusalError(
            f"The key set has version {key_set.version}, and version {stored.version} is published. The data holder "
            "should publish with a higher version.",
            RefusalCode.REPLAY,
        )
    connection.execute(delete(KEY_SETS).where(KEY_SETS.c.lane == lane))
    connection.execute(insert(KEY_SETS).values(lane=lane, version=key_set.version, envelope=envelope))


def stored_key_set(connection: Connection, lane: str) -> bytes | None:
    """The newest key set of a lane, if its data holder has published one."""
    return connection.execute(select(KEY_SETS.c.envelope).where(KEY_SETS.c.lane == lane)).scalar_one_or_none()


def stored_epochs(connection: Connection, lane: str, identity: bytes) -> frozenset[int] | None:
    """The epochs that records of a lane may be sealed to; None before the first key set.

    TamperingError for a stored key set that its data holder did not sign.
    """
    envelope = stored_key_set(connection, lane)
    return None if envelope is None else _epochs(envelope, identity, lane)


@lru_cache(maxsize=256)
def _epochs(envelope: bytes, identity: bytes, lane: str) -> frozenset[int]:
    # No instant: an expired key set still says which keys its data holder has.
    return frozenset(key.epoch for key in read_key_set(envelope, identity=identity, holder=lane, at=None).keys)
