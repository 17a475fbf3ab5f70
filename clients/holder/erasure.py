"""Erasing a person: the link ends at once, then all records go, and each log entry gets a tombstone for good."""

from dataclasses import dataclass
from typing import Protocol

from clients.holder.desk import Desk
from clients.holder.doubt import Doubt
from clients.holder.lane import LaneSource
from privacy.consent.canonical import base64url
from privacy.consent.merkle import leaf_hash
from privacy.consent.promise import read_promise
from privacy.consent.tombstone import TombstoneStatement, write_tombstone
from privacy.errors import RefusalCode, RefusalError, UsageError


class TombstoneRegistry(LaneSource, Protocol):
    """Where tombstones are sent: the consent registry, which deletes the sealed record in the same step."""

    def erase(self, lane: str, envelope: bytes) -> bytes:
        """Append the tombstone; the same one again changes nothing. Returns the registry's signed promise."""
        ...


@dataclass(frozen=True, slots=True)
class Erased:
    """Whether a person was forgotten now, how many tombstones were promised, and how many no signed head shows yet."""

    forgotten: bool
    tombstones: int
    waiting: int


def erase(desk: Desk, customer: str, registry: TombstoneRegistry, *, at: int) -> Erased:
    """Forget `customer` here, and give every entry of a forgotten person its tombstone.

    From the first step on nothing about the person is used, whatever the registry does. Repeatable: what an earlier
    call began and could not finish is finished by this one. UsageError if there is neither.
    """
    lane = desk.lane
    desk.book.drop_offers(customer)
    if not lane.block(customer) and not lane.blocked() and not lane.forgotten():
        raise UsageError(
            "This customer is not linked, and no earlier erasure waits to be finished; there is nothing to erase. "
            "Check the number."
        )
    # Before the records go, what is new: one that comes later can no longer be told from a stranger's.
    Doubt(lane).sync(registry, at=at)
    blocked = lane.blocked()
    for handle in blocked:
        # The lane copy keeps which entries need a tombstone.
        lane.forget(handle)
    sent = send_tombstones(desk, registry, at=at)
    Doubt(lane).sync(registry, at=at)
    return Erased(bool(blocked), sent, len(lane.forgotten()))


def send_tombstones(desk: Desk, registry: TombstoneRegistry, *, at: int) -> int:
    """Send the tombstones that the lane does not show yet; returns how many."""
    lane, waiting = desk.settings.holder, desk.lane.forgotten()
    written = desk.book.tombstones()
    fresh = {
        position: write_tombstone(
            TombstoneStatement(
                lane=lane, position=position, leaf=base64url(leaf_hash(desk.lane.leaf(position))), at=at
            ),
            desk.keys.identity,
        )
        for position in waiting
        if position not in written
    }
    # Kept before they are sent: one entry has one tombstone, so a second try must send the same bytes.
    desk.book.note_tombstones(fresh, settled=written.keys() - set(waiting))
    key = desk.settings.registry.public
    for position, envelope in desk.book.tombstones().items():
        try:
            promise = read_promise(registry.erase(lane, envelope), registry_key=key)
        except RefusalError as error:
            if error.code is not RefusalCode.REPLAY:
                raise
            continue  # it has its tombstone, sent before the desk's notes were lost; the next sync shows it
        if promise.lane != lane:
            raise RefusalError(
                f"The registry's promise for the tombstone of entry {position} is for another lane. Its operator "
                "should be told; then run the command again.",
                RefusalCode.LANE,
            )
    return len(waiting)
