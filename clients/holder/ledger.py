"""The privacy ledger of one data holder: what every person has spent, durable before anything is released.

The currency is mu². Sampled steps do not add up in it; they are composed with everything else a person has
spent, at the plan's delta, by `privacy.accounting`, and compared with the epsilon of the person's allowance:
an upper bound. Nothing is ever refunded. `ledger_chain` keeps it on disk and notices whoever changes it.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clients.holder.ledger_chain import Entry, LedgerChain, LedgerHead, broken
from clients.holder.ledger_charge import HANDLE_BYTES, Charge, Floats, parse_charge, spend_to_plain
from privacy.accounting import (
    GaussianSpend,
    SampledSpend,
    Spend,
    at_share,
    epsilon_of,
    mu_squared_of,
    total_epsilon,
)
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError

ROUNDING = 1e-9
"""Allowances and costs reach the ledger by different roads of floating-point arithmetic; equal means this close."""


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """One charged release: its id, its cost at share 1, and how many people were charged (stays at the holder)."""

    release_id: str
    spend: Spend
    people: int


class PrivacyLedger:
    """Charges are all or none, idempotent by release id, and durable when `charge` returns. Safe between
    threads and between processes on one file."""

    def __init__(self, chain: LedgerChain) -> None:
        self._chain = chain
        self._people: dict[bytes, int] = {}
        self._gaussian: Floats = np.zeros(0)  # each person's sum of mu² over Gaussian releases
        self._releases: dict[str, ReleaseRecord] = {}
        self._positions: dict[str, int] = {}
        self._sampled: list[Charge] = []
        self._kept: dict[str, bytes] = {}

    @classmethod
    def open(cls, path: Path, *, last_known: LedgerHead | None = None) -> "PrivacyLedger":
        """The ledger at `path`, every entry checked; an empty one if neither it nor its head file exists.

        `last_known` is a head that somebody else kept; the ledger must extend it. Raises TamperingError, or
        RefusalError when the files cannot be read or written.
        """
        chain = LedgerChain.open(Path(path))
        ledger = cls(chain)
        try:
            with chain.guarded():
                with chain.transaction():
                    ledger._catch_up()
                    chain.require_extends(chain.head_on_file(), "its head file")
                chain.require_extends(last_known, "a head kept elsewhere")
                chain.write_head()
        except BaseException:
            chain.close()
            raise
        return ledger

    def close(self) -> None:
        """Let go of the database."""
        self._chain.close()

    def __enter__(self) -> "PrivacyLedger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def head(self) -> LedgerHead:
        """Size and digest now; give it to somebody who will remember it."""
        with self._looking():
            return self._chain.head

    def charge(
        self,
        release_id: str,
        spend: Spend,
        shares: Mapping[bytes, float],
        allowance: Mapping[bytes, float],
        *,
        delta: float | None = None,
    ) -> None:
        """Enter that everybody in `shares` pays `spend` at their share; durable on return, all or none.

        `shares` and `allowance` map 32-byte handles to a share in [0, 1] and to the mu² the person may spend
        in all; a share of 0 is not entered. `delta` is needed once sampled spends are involved. The same
        release again changes nothing. Raises RefusalError (budget) if anybody would pass the allowance,
        TamperingError if the id was charged with other content.
        """
        plain = spend_to_plain(spend)
        charged = sorted((handle, float(share)) for handle, share in shares.items() if share != 0)
        if not release_id or any(len(handle) != HANDLE_BYTES for handle, _ in charged):
            raise MalformedError("a charge needs a release id and handles of 32 bytes; the caller must correct them")
        if any(not 0 < share <= 1 for _, share in charged) or any(h not in allowance for h, _ in charged):
            raise MalformedError(
                "a charge has a share outside 0 to 1 or a subject without an allowance; the caller must decide both "
                "at the gate"
            )
        with self._writing():
            if release_id in self._releases:
                self._require_same(release_id, spend, charged)
            else:
                self._enter_charge(release_id, spend, plain, charged, allowance, delta)

    def _enter_charge(
        self,
        release_id: str,
        spend: Spend,
        plain: list[str | float | int],
        charged: list[tuple[bytes, float]],
        allowance: Mapping[bytes, float],
        delta: float | None,
    ) -> None:
        new = [handle for handle, _ in charged if handle not in self._people]
        numbered = {handle: len(self._people) + k for k, handle in enumerate(new)}
        numbers = np.array([self._people.get(h, numbered.get(h, -1)) for h, _ in charged], dtype="<u4")
        shares = np.array([share for _, share in charged], dtype="<f8")
        allowed = np.array([allowance[handle] for handle, _ in charged], dtype=np.float64)
        order = np.argsort(numbers)
        charge = Charge(release_id, spend, numbers[order], shares[order])
        passed = self._would_pass(charge, allowed[order], delta)
        if passed:
            raise RefusalError(
                f"{passed} of {len(charged)} subjects would pass the privacy budget they consented to; nobody was "
                "charged: the data holder must leave them out, or the coordinator plan a smaller epsilon",
                RefusalCode.BUDGET,
            )
        header = {
            "kind": "charge",
            "new": len(new),
            "people": len(charged),
            "release": release_id,
            "spend": plain,
        }
        body = b"".join(new) + charge.numbers.tobytes() + charge.shares.tobytes()
        self._chain.append(header, body)

    def _would_pass(self, charge: Charge, allowed: Floats, delta: float | None) -> int:
        known = np.zeros(len(charge.numbers))
        inside = charge.numbers < len(self._gaussian)
        known[inside] = self._gaussian[charge.numbers[inside]]
        histories = [*self._sampled, charge] if isinstance(charge.spend, SampledSpend) else self._sampled
        if isinstance(charge.spend, GaussianSpend):
            known = known + (charge.spend.mu * charge.shares) ** 2
        if not histories:
            # `not (<=)` also counts an allowance that is no number.
            return int(np.count_nonzero(~(known <= allowed * (1 + ROUNDING))))
        people = max(len(self._gaussian), int(charge.numbers.max(initial=0)) + 1)
        sampled = [other.dense(people)[charge.numbers] for other in histories]
        groups, members = np.unique(np.column_stack([allowed, known, *sampled]), axis=0, return_inverse=True)
        spends = [other.spend for other in histories]
        over = [_passes(row[0], _history(row[1], spends, row[2:]), delta) for row in groups]
        return int(np.count_nonzero(np.array(over, dtype=bool)[members.reshape(-1)]))

    def spends(self, handle: bytes) -> list[tuple[Spend, float]]:
        """What this person was charged: (cost at share 1, share), oldest first."""
        with self._looking():
            number = self._people.get(handle)
            found: list[tuple[Spend, float]] = []
            if number is None:
                return found
            for release_id in self._releases:
                charge = self._charged(release_id)
                at = int(np.searchsorted(charge.numbers, number))
                if at < len(charge.numbers) and charge.numbers[at] == number:
                    found.append((charge.spend, float(charge.shares[at])))
            return found

    def spent_mu_squared(self, handles: Sequence[bytes], *, delta: float | None = None) -> Floats:
        """mu² spent by each of `handles`, shape (len(handles),); 0 for the unknown. `delta` as in `charge`."""
        with self._looking():
            return self._totals(handles, self._gaussian, self._sampled, delta)

    def _totals(
        self, handles: Sequence[bytes], gaussian: Floats, charges: Sequence[Charge], delta: float | None
    ) -> Floats:
        numbers = np.array([self._people.get(handle, -1) for handle in handles], dtype=np.int64)
        spent = np.where(numbers >= 0, np.append(gaussian, 0.0)[numbers], 0.0)
        if not charges or not (numbers >= 0).any():
            return np.asarray(spent, dtype=np.float64)
        people = len(gaussian)
        sampled = [np.append(charge.dense(people), 0.0)[numbers] for charge in charges]
        groups, members = np.unique(np.column_stack([spent, *sampled]), axis=0, return_inverse=True)
        spends = [charge.spend for charge in charges]
        totals = [_mu_squared(_history(row[0], spends, row[1:]), delta) for row in groups]
        return np.array(totals, dtype=np.float64)[members.reshape(-1)]

    def spent_outside(self, run: str, handles: Sequence[bytes], *, delta: float) -> Floats:
        """mu² spent by each of `handles` in everything but the releases named `run`/..., shape (len(handles),).

        A run that is resumed must see the same budgets as when it began.
        """
        with self._looking():
            people = len(self._gaussian)
            spent = self._gaussian.copy()
            sampled = []
            for charge in map(self._charged, self._releases):
                inside = charge.release_id.startswith(f"{run}/")
                if isinstance(charge.spend, GaussianSpend) and inside:
                    spent -= (charge.spend.mu * charge.dense(people)) ** 2
                elif not isinstance(charge.spend, GaussianSpend) and not inside:
                    sampled.append(charge)
            return self._totals(handles, np.maximum(spent, 0.0), sampled, delta)

    def subjects_of(self, release_id: str) -> list[bytes]:
        """The handles charged for a release, for an audit; empty if there was no such release."""
        with self._looking():
            if release_id not in self._releases:
                return []
            handles = list(self._people)
            return [handles[number] for number in self._charged(release_id).numbers.tolist()]

    def releases(self) -> tuple[ReleaseRecord, ...]:
        """Every charged release, oldest first: what a report may say about this ledger."""
        with self._looking():
            return tuple(self._releases.values())

    def keep(self, release_id: str, content: bytes) -> None:
        """Put the sealed bytes of a charged release aside, so that a retry sends the same ones; durable on
        return.

        Raises RefusalError if the release was not charged, TamperingError if other bytes were kept under this
        id.
        """
        sha256 = hashlib.sha256(content).digest()
        with self._writing():
            if release_id not in self._releases:
                raise RefusalError(
                    "bytes of a release that was never charged cannot be kept for sending; the data holder's program "
                    "must charge first",
                    RefusalCode.BUDGET,
                )
            before = self._kept.get(release_id)
            if before is None:
                self._chain.put_content(release_id, content)
                self._chain.append({"kind": "keep", "release": release_id}, sha256)
            elif before != sha256:
                raise TamperingError(
                    "other bytes were already kept for this release; a second answer would cost a second budget: the "
                    "data holder must send the first ones"
                )

    def kept(self, release_id: str) -> bytes | None:
        """The bytes kept for this release, or None. Raises TamperingError if they are not the ones kept."""
        with self._looking():
            sha256, content = self._kept.get(release_id), self._chain.content(release_id)
            if sha256 is None and content is None:
                return None
            if sha256 is None or content is None or hashlib.sha256(content).digest() != sha256:
                raise broken("the bytes kept for a release are not the ones entered")
            return content

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Everything known that is in the database."""
        with self._chain.guarded(), self._chain.transaction():
            self._catch_up()
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Everything known before, durable and known after, in the database and in the head file."""
        with self._chain.guarded():
            with self._chain.transaction():
                self._catch_up()
                yield
            with self._chain.transaction():
                self._catch_up()
            self._chain.write_head()

    def _catch_up(self) -> None:
        for entry in self._chain.news():
            try:
                self._take_in(entry)
            except (ValueError, KeyError, TypeError):
                raise broken(f"entry {entry.position} cannot be read") from None

    def _take_in(self, entry: Entry) -> None:
        release_id = str(entry.header["release"])
        if entry.header["kind"] == "keep":
            self._kept[release_id] = entry.body
            return
        if entry.header["kind"] != "charge" or release_id in self._releases:
            raise ValueError("neither a new charge nor bytes kept")
        new, charge = parse_charge(entry)
        for handle in new:
            self._people[handle] = len(self._people)
        self._gaussian = np.append(self._gaussian, np.zeros(len(new)))
        if isinstance(charge.spend, GaussianSpend):
            self._gaussian[charge.numbers] += (charge.spend.mu * charge.shares) ** 2
        else:
            self._sampled.append(charge)
        self._releases[release_id] = ReleaseRecord(release_id, charge.spend, len(charge.numbers))
        self._positions[release_id] = entry.position

    def _charged(self, release_id: str) -> Charge:
        return parse_charge(self._chain.read(self._positions[release_id]))[1]

    def _require_same(self, release_id: str, spend: Spend, charged: list[tuple[bytes, float]]) -> None:
        before = self._charged(release_id)
        entered = dict(zip(before.numbers.tolist(), before.shares.tolist(), strict=True))
        if before.spend != spend or entered != {self._people.get(h, -1): share for h, share in charged}:
            raise TamperingError(
                "this release was already charged with another cost or for other subjects; the data holder must send "
                "what it kept, and the coordinator must give a new release a new id"
            )


def _history(mu_squared: float, spends: Sequence[Spend], shares: Floats) -> list[Spend]:
    sampled = [at_share(spend, float(share)) for spend, share in zip(spends, shares, strict=True) if share > 0]
    return [GaussianSpend(math.sqrt(mu_squared)), *sampled]


def _mu_squared(history: Sequence[Spend], delta: float | None) -> float:
    if len(history) == 1:
        return mu_squared_of(history, 0.5)  # Gaussian alone: exact, whatever delta
    return mu_squared_of(history, _required(delta))


def _required(delta: float | None) -> float:
    if delta is None:
        raise ValueError("sampled spends can only be converted at a delta; pass the plan's")
    return delta


def _passes(allowed: float, history: Sequence[Spend], delta: float | None) -> bool:
    if len(history) == 1:
        return not _mu_squared(history, None) <= allowed * (1 + ROUNDING)
    if not allowed >= 0:
        return True
    at = _required(delta)
    return not total_epsilon(history, at) <= epsilon_of(math.sqrt(allowed), at) * (1 + ROUNDING)
