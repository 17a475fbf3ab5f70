"""Records that a person hands to the data holder itself, on a file or through the side door."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.holder.desk import Desk, read_file
from clients.holder.lane import LaneCopy
from privacy.consent.submission import MAX_FRAMES_BYTES, Submission, parse_frames
from privacy.errors import RefusalCode, RefusalError


@dataclass(frozen=True, slots=True)
class Taken:
    """How many records came in, how many said nothing new, and how many are nobody's here."""

    new: int
    known: int
    refused: int


def take_all(lane: LaneCopy, submissions: Sequence[Submission], *, at: int) -> Taken:
    """Take every record that is a linked person's; one that is not keeps no other from being taken."""
    # Somebody may have been linked by another process a moment ago.
    lane.refresh()
    new = known = refused = 0
    for submission in submissions:
        try:
            if lane.take(submission, at=at):
                new += 1
            else:
                known += 1
        except RefusalError as error:
            if error.code is not RefusalCode.CONSENT:
                raise
            refused += 1
    return Taken(new, known, refused)


def take_file(desk: Desk, file: Path, *, at: int) -> Taken:
    """Take the records in `file`. RefusalError if none is a linked person's; MalformedError if they are no records."""
    data = read_file(file, what="records that a wallet wrote", most=MAX_FRAMES_BYTES)
    taken = take_all(desk.lane, parse_frames(data), at=at)
    if not taken.new + taken.known:
        raise RefusalError(
            "Nothing was taken: none of this is a record, sealed to this data holder, of somebody who is linked here. "
            "The person should write it again with the wallet that was linked.",
            RefusalCode.CONSENT,
        )
    return taken
