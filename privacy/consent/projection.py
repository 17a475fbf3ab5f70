"""What the gate needs of every subject at once, as columns: a million decisions in milliseconds."""

from array import array
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.consent.budget import tier_of
from privacy.consent.gate import GatePolicy, Interval, Reason
from privacy.consent.record import ConsentRecord, Grant, Purpose
from privacy.consent.view import Conflict
from privacy.errors import MalformedError

ALLOW: Final = 0
CODES: Final[Mapping[Reason, int]] = MappingProxyType({reason: code for code, reason in enumerate(Reason, start=1)})
REASON_CODES: Final[Mapping[int, Reason]] = MappingProxyType({code: reason for reason, code in CODES.items()})
"""What a code other than 0 (allow) means; a subject without a row is denied with `none`."""

Times = NDArray[np.int64]


class Projection:
    """One row for each standing, in the order given, for one purpose, recipient and set of categories.

    `rows` finds a handle's row. `share_milli`, `eps_milli`, `delta_log10` and `window_s` are the budget of the
    grant asked for, 0 where there is none; they say nothing about whether the row is allowed.
    """

    __slots__ = ("_after", "_before", "_exp", "_nbf", "_reconfirm_by", "delta_log10", "eps_milli", "rows",
                 "share_milli", "window_s")  # fmt: skip

    def __init__(self, rows: dict[bytes, int], codes: tuple[bytearray, bytearray], numbers: "array[int]") -> None:
        self.rows: Final = rows
        # The times decide only where `_before` is 0, and `_after` only where the times have nothing to say:
        # the gate asks in this order.
        self._before, self._after = (np.frombuffer(bytes(code), dtype=np.uint8) for code in codes)
        table = np.frombuffer(numbers, dtype=np.int64).reshape(-1, _COLUMNS)
        columns: list[Times] = [np.ascontiguousarray(table[:, column]) for column in range(_COLUMNS)]
        for column in columns:
            column.flags.writeable = False
        self._nbf, self._exp, self._reconfirm_by = columns[:3]
        self.share_milli, self.eps_milli, self.delta_log10, self.window_s = columns[3:]

    @classmethod
    def of(
        cls,
        standings: Iterable[tuple[bytes, ConsentRecord | Conflict]],
        *,
        purpose: Purpose,
        recipient: str,
        categories: frozenset[str],
    ) -> "Projection":
        """The columns of `standings` (handle, newest record or conflict), each subject once."""
        return cls.of_each(standings, purposes=(purpose,), recipient=recipient, categories=categories)[purpose]

    @classmethod
    def of_each(
        cls,
        standings: Iterable[tuple[bytes, ConsentRecord | Conflict]],
        *,
        purposes: Collection[Purpose],
        recipient: str,
        categories: frozenset[str],
    ) -> "dict[Purpose, Projection]":
        """As `of` for each of `purposes`, with `standings` read once: to verify and parse them is what takes time."""
        rows: dict[bytes, int] = {}
        columns = {purpose: _Columns() for purpose in purposes}
        read = 0
        for handle, standing in standings:
            rows[handle] = read
            read += 1
            for purpose, column in columns.items():
                column.add(_standing(standing, purpose, recipient), categories)
        if len(rows) != read:
            raise MalformedError(
                f"{read - len(rows)} of {read} standings are of a subject that has one already; the gate "
                "needs each subject once. The data holder must sync its lane again."
            )
        return {
            purpose: cls(rows, (column.before, column.after), column.numbers) for purpose, column in columns.items()
        }

    def reasons(self, interval: Interval, policy: GatePolicy) -> NDArray[np.uint8]:
        """For each row 0 to allow, or the code of the reason to deny; shape (n_rows,).

        The same as `gate.decide` with unknown past uses, for which a grant with a limit of uses is denied.
        """
        t_lo = interval.t_lo - policy.clock_skew_s
        t_hi = interval.t_hi + policy.clock_skew_s
        reasons = np.where(t_hi >= self._reconfirm_by, np.uint8(CODES[Reason.RECONFIRM]), self._after)
        in_time = (self._nbf <= t_lo) & (t_hi < self._exp)
        reasons = np.where(in_time, reasons, np.uint8(CODES[Reason.TIME]))
        return np.where(self._before == ALLOW, reasons, self._before)

    def __repr__(self) -> str:
        return f"Projection(rows={len(self.rows)})"


_COLUMNS: Final = 7
_NOTHING: Final = (0,) * _COLUMNS


class _Columns:
    """What `Projection` is made of, row by row."""

    __slots__ = ("after", "before", "numbers")

    def __init__(self) -> None:
        self.before, self.after, self.numbers = bytearray(), bytearray(), array("q")

    def add(self, found: Grant | Reason, categories: frozenset[str]) -> None:
        if isinstance(found, Reason):
            self.before.append(CODES[found])
            self.after.append(ALLOW)
            self.numbers.extend(_NOTHING)
            return
        self.before.append(ALLOW)
        self.after.append(_remainder(found, categories))
        dp = found.dp
        budget = (0, 0, 0, 0) if dp is None else (dp.share_milli, dp.eps_milli, dp.delta_log10, dp.window_s)
        self.numbers.extend((found.nbf, found.exp, found.reconfirm_by, *budget))


def _standing(standing: ConsentRecord | Conflict, purpose: Purpose, recipient: str) -> Grant | Reason:
    if isinstance(standing, Conflict):
        return Reason.CONFLICT
    if standing.frozen:
        return Reason.FROZEN
    for grant in standing.grants:
        if grant.purpose is purpose and grant.to == recipient:
            return grant
    return Reason.PURPOSE


def _remainder(grant: Grant, categories: frozenset[str]) -> int:
    if not categories.issubset(grant.data):
        return CODES[Reason.DATA]
    if grant.uses is not None:
        return CODES[Reason.USES]
    if grant.dp is not None and not _has_tier(grant.dp.eps_milli):
        return CODES[Reason.BUDGET]
    return ALLOW


@cache
def _has_tier(eps_milli: int) -> bool:
    return tier_of(eps_milli / 1000) is not None
