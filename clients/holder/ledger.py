"""The privacy ledger of one data holder: what every person has spent, durable before anything is released.

Nothing is ever refunded. Beside charges it holds what may be answered once only, such as who is in a sum.
`ledger_budget` does the sums; `ledger_chain` keeps it all on disk and notices whoever changes it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.holder.ledger_budget import Histories
from clients.holder.ledger_chain import Entry, LedgerChain, LedgerHead, broken
from clients.holder.ledger_charge import HANDLE_BYTES, Charge, Floats, parse_charge, spend_to_plain
from federated.coverage import is_coverage
from privacy.accounting import GaussianSpend, Spend, at_share
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError

_FIELDS = {
    "charge": {"kind", "new", "people", "release", "spend"},
    "keep": {"kind", "release"},
    "pin": {"kind", "name"},
}
_PIN = "pin "
"""What the names of pinned contents begin with beside the chain; no release's name has a space."""


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
        self._gaussian: Floats = np.zeros(0)  # each person's sum of mu² over Gaussian releases of runs
        self._counted: Floats = np.zeros(0)  # and over counts of people, which have a budget of their own
        self._releases: dict[str, ReleaseRecord] = {}
        self._positions: dict[str, int] = {}
        self._sampled: list[Charge] = []
        self._kept: dict[str, tuple[bytes, int]] = {}  # SHA-256, and the position of the entry
        self._pinned: dict[str, bytes] = {}  # SHA-256

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

    def require_extends(self, head: LedgerHead) -> None:
        """TamperingError unless this ledger goes on from `head`, which somebody outside this house kept."""
        with self._looking():
            self._chain.require_extends(head, "the head that the coordinator kept")

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
        known = np.append(self._whole, 0.0)[np.minimum(charge.numbers, len(self._whole))]  # the new have spent nothing
        people = max(len(self._gaussian), int(charge.numbers.max(initial=0)) + 1)
        sampled = tuple((other.spend, other.dense(people)[charge.numbers]) for other in self._sampled)
        after = Histories(known, sampled).plus(charge.spend, charge.shares)
        return int(np.count_nonzero(after.pass_allowance(allowed, delta)))

    def spends(self, handle: bytes) -> list[tuple[Spend, float]]:
        """What this person was charged: (cost at share 1, share), oldest first."""
        return [(charge.spend, share) for charge, share in self._charges_of(handle)]

    def paid(self, handle: bytes) -> list[tuple[str, Spend]]:
        """What this person paid at the share they had: (release id, cost), oldest first."""
        return [(charge.release_id, at_share(charge.spend, share)) for charge, share in self._charges_of(handle)]

    def _charges_of(self, handle: bytes) -> list[tuple[Charge, float]]:
        with self._looking():
            number = self._people.get(handle)
            found: list[tuple[Charge, float]] = []
            if number is None:
                return found
            for release_id in self._releases:
                charge = self._charged(release_id)
                at = int(np.searchsorted(charge.numbers, number))
                if at < len(charge.numbers) and charge.numbers[at] == number:
                    found.append((charge, float(charge.shares[at])))
            return found

    def spent_mu_squared(self, handles: Sequence[bytes], *, delta: float | None = None) -> Floats:
        """mu² spent by each of `handles`, shape (len(handles),); 0 for the unknown. `delta` as in `charge`."""
        with self._looking():
            return self._histories(handles, self._whole, self._sampled).totals(delta)

    def counted_mu_squared(self, handles: Sequence[bytes]) -> Floats:
        """mu² spent by each of `handles` on being counted alone (`federated.coverage`); 0 for the unknown."""
        with self._looking():
            return self._histories(handles, self._counted, ()).gaussian

    def spent_outside(self, run: str, handles: Sequence[bytes], *, delta: float) -> Floats:
        """mu² spent by each of `handles` in all runs but the one named, shape (len(handles),); counts are no runs.

        A run that is resumed must see the same budgets as when it began.
        """
        with self._looking():
            return self._outside(run, handles).totals(delta)

    def would_pass(
        self,
        name: str,
        handles: Sequence[bytes],
        planned: Sequence[tuple[Spend, Floats]],
        allowance: Floats,
        *,
        delta: Floats | float,
        reserved: Floats,
    ) -> NDArray[np.bool_]:
        """Whether each of `handles` would pass the mu² in `allowance` once everything `planned` were charged too.

        `planned` are costs at share 1 with everybody's shares; like `allowance` and the result, those have shape
        (len(handles),). `name` is a run or one release: what it was charged before does not count, because it is
        among what is planned. `reserved` mu² stands for all that being counted has cost and may cost yet.
        """
        with self._looking():
            histories = self._outside(name, handles).plus_mu_squared(reserved)
        for spend, shares in planned:
            histories = histories.plus(spend, shares)
        return histories.pass_allowance(allowance, delta)

    def most_spent(self, *, delta: float) -> float:
        """The mu² of the person who has spent most; 0 as long as nobody was charged."""
        with self._looking():
            handles = list(self._people)
            return float(self._histories(handles, self._whole, self._sampled).totals(delta).max(initial=0.0))

    @property
    def _whole(self) -> Floats:
        return self._gaussian + self._counted

    def _outside(self, name: str, handles: Sequence[bytes]) -> Histories:
        def inside(release_id: str) -> bool:
            return release_id == name or release_id.startswith(f"{name}/")

        spent = self._gaussian.copy()
        for release in self._releases.values():
            if isinstance(release.spend, GaussianSpend) and inside(release.release_id):
                charge = self._charged(release.release_id)
                spent[charge.numbers] -= (release.spend.mu * charge.shares) ** 2
        sampled = [charge for charge in self._sampled if not inside(charge.release_id)]
        return self._histories(handles, np.maximum(spent, 0.0), sampled)

    def _histories(self, handles: Sequence[bytes], gaussian: Floats, sampled: Sequence[Charge]) -> Histories:
        # The number -1 of the unknown points to the zero appended.
        numbers = np.array([self._people.get(handle, -1) for handle in handles], dtype=np.int64)
        people = len(gaussian)
        return Histories(
            np.append(gaussian, 0.0)[numbers],
            tuple((charge.spend, np.append(charge.dense(people), 0.0)[numbers]) for charge in sampled),
        )

    def subjects_of(self, release_id: str) -> list[bytes]:
        """The handles charged for a release, for an audit; empty if there was no such release."""
        with self._looking():
            if release_id not in self._releases:
                return []
            handles = list(self._people)
            return [handles[number] for number in self._charged(release_id).numbers.tolist()]

    def has_charged(self, release_id: str) -> bool:
        """Whether a release was charged, whether or not it was sent."""
        with self._looking():
            return release_id in self._releases

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
            if release_id not in self._kept:
                self._chain.put_content(release_id, content)
                self._chain.append({"kind": "keep", "release": release_id}, sha256)
            elif self._kept[release_id][0] != sha256:
                raise TamperingError(
                    "other bytes were already kept for this release; a second answer would cost a second budget: the "
                    "data holder must send the first ones"
                )

    def kept(self, release_id: str) -> bytes | None:
        """The bytes kept for this release, or None. Raises TamperingError if they are not the ones kept."""
        with self._looking():
            sha256, _ = self._kept.get(release_id, (None, 0))
            return self._content(release_id, sha256)

    def kept_at(self, release_id: str) -> LedgerHead:
        """The ledger's head when the bytes of this release were kept; KeyError if there are none."""
        with self._looking():
            return self._chain.head_at(self._kept[release_id][1])

    def pin(self, name: str, content: bytes) -> bytes:
        """What stands under `name`, durable on return: `content`, unless something was pinned there before.

        The first content wins, whatever comes later.
        """
        with self._writing():
            if name not in self._pinned:
                self._chain.put_content(_PIN + name, content)
                self._chain.append({"kind": "pin", "name": name}, hashlib.sha256(content).digest())
        pinned = self.pinned(name)
        return content if pinned is None else pinned

    def pinned(self, name: str) -> bytes | None:
        """What was pinned under `name`, or None. Raises TamperingError if it is not what was pinned."""
        with self._looking():
            return self._content(_PIN + name, self._pinned.get(name))

    def _content(self, name: str, sha256: bytes | None) -> bytes | None:
        content = self._chain.content(name)
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
        kind = entry.header["kind"]
        if entry.header.keys() != _FIELDS[str(kind)]:
            raise ValueError("other fields than an entry of its kind has")
        if kind == "pin":
            self._pinned[str(entry.header["name"])] = entry.body
            return
        release_id = str(entry.header["release"])
        if kind == "keep":
            self._kept[release_id] = entry.body, entry.position
            return
        if kind != "charge" or release_id in self._releases:
            raise ValueError("no new charge, no bytes kept and nothing pinned")
        new, charge = parse_charge(entry)
        for handle in new:
            self._people[handle] = len(self._people)
        nothing = np.zeros(len(new))
        self._gaussian, self._counted = np.append(self._gaussian, nothing), np.append(self._counted, nothing)
        if isinstance(charge.spend, GaussianSpend):
            paid = self._counted if is_coverage(release_id) else self._gaussian
            paid[charge.numbers] += (charge.spend.mu * charge.shares) ** 2
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
