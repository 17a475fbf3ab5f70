"""Every letter that leaves a data holder in one run of a plan, in order, with the sizes that they will have.

The letters are real but for their content: names, lengths and types are the plan's, and every secret is zeros.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO

import numpy as np

from clients.holder.run import Run
from federated.coverage import DEVIATION
from federated.messages import (
    Coverage,
    Dealt,
    Header,
    Joined,
    LedgerMark,
    Letter,
    Received,
    Revealed,
    SumKeys,
    Update,
    encode_header,
)
from federated.nonces import NONCE_BYTES, woven_size
from federated.releases import measurement_stage, release_name, stages_of
from privacy.consent.limits import KEY_BYTES, SIGNATURE_BYTES
from privacy.secure_sum.locks import ENTRY_BYTES
from privacy.secure_sum.secrets import sealed_bytes

_KEY, _SIGNATURE = bytes(KEY_BYTES), bytes(SIGNATURE_BYTES)
_SHA256_BYTES = 32


class Kind(StrEnum):
    """What a letter is, by the name of its header."""

    JOINED = "joined"
    DEALT = "dealt"
    RECEIVED = "received"
    UPDATE = "update"
    REVEALED = "revealed"


@dataclass(frozen=True, slots=True)
class Leaving:
    """One letter: at which release of the run (None before the first), how many numbers, how many bytes in all."""

    kind: Kind
    stage: int | None
    numbers: int
    size: int


def letters_of(run: Run, holder: str, *, ledger_size: int) -> list[Leaving]:
    """All letters of a run in which everybody in the roster takes part to its end.

    `ledger_size` is how many entries the privacy ledger has before; its growth is told in the letters.
    """
    return [
        Leaving(kind, stage, sum(array.size for array in letter.arrays.values()), size_of(letter))
        for kind, stage, letter in _letters(run, holder, ledger_size)
    ]


def answer_to_enquiry(run: Run, holder: str, *, ledger_size: int) -> int:
    """About how many bytes the answer has to the question, before a run, with how many people we would take part."""
    mark = _mark(ledger_size + 2)  # the charge, and the count that was kept
    return size_of(_letter(Coverage(holder, run.name, round(DEVIATION), DEVIATION, mark, _SIGNATURE)))


def size_of(letter: Letter) -> int:
    """The bytes of a letter's content as it travels: its header, each array with its description, and the nonces."""
    size = len(encode_header(letter.header)) + NONCE_BYTES
    for array in letter.arrays.values():
        described = BytesIO()
        np.save(described, array)
        size += woven_size(described.tell())
    return size


def _letters(run: Run, holder: str, entries: int) -> Iterator[tuple[Kind, int | None, Letter]]:
    masked, stages = run.plan.trust.is_masked, stages_of(run.recipe)
    everybody = sorted({*run.identities, holder})
    keys = SumKeys(_KEY, [_KEY] * stages, [bytes(_SHA256_BYTES)] * stages, _SIGNATURE) if masked else None
    yield Kind.JOINED, None, _letter(Joined(holder, run.name, keys, _mark(entries), _SIGNATURE))
    if masked:
        entries += 1  # who was introduced
        sealed = {name: bytes(sealed_bytes(stages)) for name in everybody if name != holder}
        yield Kind.DEALT, None, _letter(Dealt(holder, run.name, sealed, _SIGNATURE))
        entries += 1  # what was delivered
        yield Kind.RECEIVED, None, _letter(Received(holder, run.name, []))
    for stage in range(1, measurement_stage(run.recipe) + 1):
        name = release_name(run.name, stage)
        entries += 2  # the charge, and the bytes that were kept
        words = np.zeros(run.shape(stage).length, dtype=np.uint64)
        update = Update(holder, name, bytes(_SHA256_BYTES), _SIGNATURE, _mark(entries))
        yield Kind.UPDATE, stage, Letter(update, {"words": words})
        if masked:
            entries += 1  # who is in the sum
            yield Kind.REVEALED, stage, _letter(_revealed(holder, name, everybody))


def _revealed(holder: str, release: str, everybody: Sequence[str]) -> Revealed:
    return Revealed(holder, release, {name: bytes(ENTRY_BYTES) for name in everybody}, {}, _SIGNATURE)


def _mark(entries: int) -> LedgerMark:
    return LedgerMark(entries, bytes(_SHA256_BYTES))


def _letter(header: Header) -> Letter:
    return Letter(header)
