"""One charge of the privacy ledger: who pays what, as numbers and as bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from clients.holder.ledger_chain import Entry
from privacy.accounting import GaussianSpend, SampledSpend, Spend, UnprotectedSpend
from privacy.errors import RefusalCode, RefusalError

HANDLE_BYTES = 32

Numbers = NDArray[np.uint32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Charge:
    """`shares` (k,) of one release's cost, paid by the people `numbers` (k,) in the ledger's own numbering."""

    release_id: str
    spend: Spend
    numbers: Numbers  # of the people charged, ascending
    shares: Floats

    def dense(self, people: int) -> Floats:
        """Everybody's share in this release, 0 for those not in it, shape (people,)."""
        shares = np.zeros(people)
        shares[self.numbers] = self.shares
        return shares


def spend_to_plain(spend: Spend) -> list[str | float | int]:
    """A spend as JSON can hold it. RefusalError for a release without noise, which can never be charged."""
    match spend:
        case GaussianSpend(mu):
            return ["gaussian", float(mu)]
        case SampledSpend(noise_multiplier, sampling_rate, steps):
            return ["sampled", float(noise_multiplier), float(sampling_rate), steps]
        case UnprotectedSpend():
            raise RefusalError(
                "a release without noise can never be charged; the coordinator must plan an epsilon, or a researcher "
                "must run it where no people's rows are",
                RefusalCode.BUDGET,
            )
        case _:
            assert_never(spend)


def spend_from_plain(plain: Sequence[object]) -> Spend:
    """The spend that `spend_to_plain` wrote. Raises ValueError."""
    match plain:
        case ["gaussian", float(mu)]:
            return GaussianSpend(mu)
        case ["sampled", float(noise_multiplier), float(sampling_rate), int(steps)]:
            return SampledSpend(noise_multiplier, sampling_rate, steps)
        case _:
            raise ValueError("not a spend")


def parse_charge(entry: Entry) -> tuple[list[bytes], Charge]:
    """(new handles, charge) of an entry. Raises ValueError, KeyError or TypeError."""
    header, body = entry.header, entry.body
    new, people, plain = header["new"], header["people"], header["spend"]
    if not isinstance(new, int) or not isinstance(people, int) or not isinstance(plain, list):
        raise TypeError("counts and a spend were needed")
    if len(body) != HANDLE_BYTES * new + 12 * people:
        raise ValueError("the body has another length")
    start = HANDLE_BYTES * new
    handles = [body[k : k + HANDLE_BYTES] for k in range(0, start, HANDLE_BYTES)]
    numbers = np.frombuffer(body, dtype="<u4", count=people, offset=start)
    shares = np.frombuffer(body, dtype="<f8", offset=start + 4 * people)
    return handles, Charge(str(header["release"]), spend_from_plain(plain), numbers, shares)
