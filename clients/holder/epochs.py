"""The epochs of the key that people seal their records to: publishing, rotating, and destroying old ones."""

import os
from pathlib import Path
from typing import Final, Protocol

from clients.holder.desk import Desk
from clients.holder.desk_book import EpochDates
from clients.holder.keys import HolderKeys
from clients.holder.lane_epochs import announce_up_to
from federated.files import write_whole
from privacy.consent.canonical import base64url
from privacy.consent.key_set import EpochKey, KeySet, read_key_set, write_key_set
from privacy.consent.limits import DAY_S, MAX_EPOCHS, MAX_MERGE_DELAY_S
from privacy.consent.sealing import LaneKey
from privacy.errors import RefusalCode, RefusalError, UsageError

KEY_SET_LIFE_S: Final = 30 * DAY_S


class KeyRegistry(Protocol):
    """Where key sets are published: the consent registry."""

    def key_set(self, lane: str) -> bytes:
        """The envelope published last; RefusalError before the first."""
        ...

    def publish_key_set(self, lane: str, data: bytes) -> object:
        """Publish an envelope; RefusalError unless its version is above the one before."""
        ...


def published(desk: Desk) -> KeySet | None:
    """The key set that the registry took last from this desk, expired or not."""
    envelope = desk.book.key_set()
    return None if envelope is None else _read(desk, envelope)


def heed_registry(desk: Desk, registry: KeyRegistry) -> None:
    """Tell the lane copy which epochs this data holder has published: it then refuses to sync without their keys.

    So a directory that was restored without its newest key is noticed also when the desk's notes are gone, too.
    TamperingError if the registry's key set is not signed by this data holder.
    """
    try:
        there = _read(desk, registry.key_set(desk.settings.holder))
    except RefusalError:  # it has none yet; or it cannot be reached, and then the sync says so
        return
    announce_up_to(desk.lane, there.current)


def is_due(desk: Desk, *, at: int) -> bool:
    """Whether a key set must be published: none is, its life is half over, or it no longer says how things are."""
    last = published(desk)
    if last is None or 2 * (at - last.issued_at) >= last.expires - last.issued_at:
        return True
    return (last.current, last.side_door) != (desk.keys.current, desk.settings.desk.side_door or None)


def publish(desk: Desk, registry: KeyRegistry, *, at: int) -> KeySet:
    """Publish a key set with the current epoch, and each older one that a wallet may still take for the current one.

    Its version is one above the registry's and this desk's own. TamperingError if the registry's is not signed by
    this data holder.
    """
    lane = desk.settings.holder
    try:
        there = _read(desk, registry.key_set(lane))
    except RefusalError:  # it has none yet; or it cannot be reached, and then the next call says so
        there = None
    known_sets = (published(desk), there)
    before = max((key_set.version for key_set in known_sets if key_set is not None), default=0)
    known, current, expires = desk.book.epochs(), desk.keys.current, at + KEY_SET_LIFE_S
    # An older epoch without a note (the desk's notes were moved away) may have been current a moment ago.
    until = {epoch: known[epoch].current_until if epoch in known else expires for epoch in desk.keys.lane_keys}
    listed = [epoch for epoch in sorted(until) if epoch == current or at < until[epoch]]
    key_set = KeySet(
        holder=lane,
        version=before + 1,
        issued_at=at,
        expires=expires,
        current=current,
        keys=tuple(
            EpochKey(epoch=epoch, key=base64url(desk.keys.lane_keys[epoch].public.to_bytes())) for epoch in listed
        ),
        side_door=desk.settings.desk.side_door or None,
    )
    envelope = write_key_set(key_set, desk.keys.identity)
    # Before it is published: whatever happens then, no key that it lists is destroyed too early.
    desk.book.note_epochs({
        epoch: EpochDates(expires if epoch == current else until[epoch], expires) for epoch in listed
    })  # fmt: skip
    registry.publish_key_set(lane, envelope)
    desk.book.keep_key_set(envelope)
    return key_set


def new_epoch(desk: Desk, *, at: int) -> int:
    """The next epoch, with its key on the disk; records are sealed to it once a key set says so.

    A newest epoch that was never published is not followed by another: a rotation that broke off goes on.
    """
    current, dates = desk.keys.current, desk.book.epochs()
    if current in dates:
        if sum(at < date.current_until for date in dates.values()) >= MAX_EPOCHS:
            raise RefusalError(
                f"A key set lists at most {MAX_EPOCHS} epochs, and so many may still be sealed to. The data holder "
                f"should rotate again after {KEY_SET_LIFE_S // DAY_S} days.",
                RefusalCode.POLICY,
            )
        current += 1
        key = LaneKey.generate(desk.keys.lane_key.suite)
        write_whole(_key_file(desk, current), key.to_bytes(), secret=True)
        desk.keys = HolderKeys.load(desk.directory / "keys")
    return current


def destroy(desk: Desk, epoch: int, *, at: int) -> None:
    """Destroy an old epoch's private key: what was sealed to it can never be opened again.

    RefusalError while a wallet may still seal to it, or while a record sealed to it may not be synced yet: that record
    could be a withdrawal.
    """
    path = _key_file(desk, epoch)
    doomed = path.with_suffix(".destroyed")  # stays, empty: without it a missing key is a lost one
    if epoch not in desk.keys.lane_keys:
        if not doomed.exists():
            raise UsageError("There is no key of that epoch here; name one of those in the directory keys.")
        _overwrite(doomed)  # the last time, something may have come between
        return
    if epoch == desk.keys.current:
        raise RefusalError(
            "The current epoch's key is the one that people seal their records to; it cannot be destroyed. Rotate "
            "first: fedcredit holder rotate",
            RefusalCode.POLICY,
        )
    if epoch != (oldest := min(desk.keys.lane_keys)):
        # A lane copy that is built anew opens what its keys open: an old grant without the withdrawal after it.
        raise RefusalError(
            "Keys are destroyed from the oldest on: with an older key and without this one, a grant could be opened "
            f"whose withdrawal could not. The data holder should destroy epoch {oldest} first.",
            RefusalCode.POLICY,
        )
    dates = desk.book.epochs().get(epoch)
    if dates is None:
        raise RefusalError(
            "It is not noted here until when this epoch was published. The data holder should publish its keys first "
            "(fedcredit holder publish-keys), and wait until that key set has expired.",
            RefusalCode.POLICY,
        )
    last = dates.listed_until + desk.settings.policy.clock_skew_s + MAX_MERGE_DELAY_S
    if at < last or desk.lane.synced_at < last:
        raise RefusalError(
            f"A record sealed to this epoch may still arrive until {last} (UTC seconds), and the lane was synced last "
            f"at {desk.lane.synced_at}. A withdrawal among them could not be opened without the key; nothing was "
            "destroyed. The data holder should sync after that instant, then run the command again.",
            RefusalCode.POLICY,
        )
    try:
        # Out of the way first: a key that is half overwritten would keep the node from starting.
        path.replace(doomed)
    except OSError as error:
        raise _kept(path, error) from None
    _overwrite(doomed)
    desk.keys = HolderKeys.load(desk.directory / "keys")


def _overwrite(path: Path) -> None:
    try:
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
            file.truncate(0)
            os.fsync(file.fileno())
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise _kept(path, error) from None


def _kept(path: Path, error: OSError) -> RefusalError:
    return RefusalError(
        f"{path.name} could not be destroyed ({error.strerror}). The data holder should give write permission, then "
        "run the command again.",
        RefusalCode.INTERNAL,
    )


def _key_file(desk: Desk, epoch: int) -> Path:
    return desk.directory / "keys" / f"lane-{epoch}.key"


def _read(desk: Desk, envelope: bytes) -> KeySet:
    return read_key_set(envelope, identity=desk.keys.identity.public, holder=desk.settings.holder, at=None)
