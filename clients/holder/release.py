"""One release: compute exactly, round to the grid, add noise, mask, charge, keep the bytes, send.

Charge and bytes are durable before anything leaves. Between computing and charging the consents are looked at once
more, by a lane that was synced at that moment. What somebody is in who has withdrawn meanwhile is thrown away: it was
neither charged nor sent. A repeated instruction gets the kept bytes again, until the plan's end and while everybody in
them is still permitted: whether the first answer ever arrived is not known here. That a release is not sent again thus
tells whoever asks that somebody in it has left; it is charged to nobody, and told among what plans exclude. An
instruction that differs from the first one under the same name is refused: two answers to two questions would be two
releases for one charge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from clients.holder.gate import PermittedRows
from clients.holder.keys import HolderKeys
from clients.holder.ledger import PrivacyLedger
from clients.holder.ledger_chain import LedgerHead
from clients.holder.run import Run
from clients.holder.sums import Sums
from federated.messages import LedgerMark, Letter, Update, digest_of
from federated.releases import Shape, measurement_stage, release_name, update_statement
from privacy.accounting import Spend
from privacy.consent.commitment import commit_to_subjects
from privacy.consent.signing import PayloadType
from privacy.discrete import discrete_gaussian
from privacy.errors import MalformedError, RefusalCode, RefusalError
from privacy.grid import Words
from privacy.noise import NoiseSource, SecureNoise, SeededNoise, Vector

_MOST_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be released: exact numbers over permitted rows, and their cost."""

    stage: int  # number of the round; the measurement comes after the last
    cohort: Sequence[str]
    rows: Callable[[], PermittedRows]  # by a lane that is fresh enough
    rows_anew: Callable[[], PermittedRows]  # as the registry and the side door know them at the moment of the call
    spend: Callable[[int], Spend]  # of a person with share 1, from the number of permitted rows
    compute: Callable[[PermittedRows, NoiseSource], Vector]


class _Kept(msgspec.Struct, frozen=True):
    instruction: bytes  # SHA-256 of the letter that asked
    cohort: list[str]
    commitment: bytes
    words: bytes  # little-endian, as they left


class Releaser:
    """Makes the releases of one data holder, each of them once."""

    def __init__(
        self,
        holder: str,
        keys: HolderKeys,
        ledger: PrivacyLedger,
        sums: Sums,
        remember: Callable[[LedgerHead], None],
    ) -> None:
        """`remember` keeps the ledger's head outside the ledger, durable on return."""
        self._holder, self._keys, self._ledger = holder, keys, ledger
        self._sums, self._remember = sums, remember

    def release(self, run: Run, letter: Letter, task: Task) -> Letter:
        """The answer to `letter`: made now, or the one that was made before, byte for byte.

        RefusalError (replay) for one made before if somebody in it is no longer permitted, and for a round that was not
        made before the measurement was.
        """
        name = release_name(run.name, task.stage)
        before = self._ledger.kept(name)

        def make() -> bytes:
            self._require_unmeasured(run, task.stage)
            return msgspec.msgpack.encode(self._make(run, letter, task, name))

        kept = made_once(self._ledger, name, make, self._remember)
        release = msgspec.msgpack.decode(kept, type=_Kept)
        if release.instruction != digest_of(letter):
            raise RefusalError(
                "This release was made under another instruction, and one answer is all there is. "
                "The coordinator should repeat the instruction it sent first.",
                RefusalCode.REPLAY,
            )
        if before is not None and not self._still_permitted(name, task):
            raise RefusalError(
                # One code with a changed instruction; that it was refused at all still tells that somebody has left.
                "This release was made before, and not everybody in it is permitted any more; it was not sent again. "
                "The coordinator should plan a new run.",
                RefusalCode.REPLAY,
            )
        return self._letter(name, release)

    def _still_permitted(self, name: str, task: Task) -> bool:
        try:
            return set(self._ledger.subjects_of(name)) <= set(task.rows().handles)
        except RefusalError as error:
            if error.code is RefusalCode.COHORT:  # too few are left, so that somebody is not
                return False
            raise

    def _require_unmeasured(self, run: Run, stage: int) -> None:
        # Rounds are paid for before the measurement: who is let in to be measured is asked by what they have cost.
        measured = measurement_stage(run.recipe)
        if stage < measured and self._ledger.has_charged(release_name(run.name, measured)):
            raise RefusalError(
                "The measurement of this run was made here, and no round comes after it. The coordinator should plan a "
                "new run.",
                RefusalCode.REPLAY,
            )

    def cohort_of(self, run: Run, stage: int) -> list[str] | None:
        """Whom a release was made with; None if it was not made here."""
        kept = self._ledger.kept(release_name(run.name, stage))
        return None if kept is None else msgspec.msgpack.decode(kept, type=_Kept).cohort

    def _letter(self, name: str, release: _Kept) -> Letter:
        words = np.frombuffer(release.words, dtype="<u8").astype(np.uint64)
        # The ledger as it was with these very bytes in it: an older copy of it, which would answer anew, lacks that.
        head = self._ledger.kept_at(name)
        mark = LedgerMark(head.size, head.digest)
        statement = update_statement(name, release.commitment, words, mark)
        signature = self._keys.identity.sign(PayloadType.UPDATE, statement)
        return Letter(Update(self._holder, name, release.commitment, signature, mark), {"words": words})

    def _make(self, run: Run, letter: Letter, task: Task, name: str) -> _Kept:
        # Everything that can be refused is refused before the charge, an unlawful instruction included: there is no
        # refund. What a crash after the charge loses was never sent, so it is made again with fresh noise.
        self._sums.require_cohort(run, task.cohort)
        rows, words = self._computed(run, task)
        commitment = commit_to_subjects(self._keys.round_salt(name), rows.handles)
        masked = self._sums.masked(run, task.stage, task.cohort, words)
        self._ledger.charge(
            name,
            task.spend(len(rows.handles)),
            dict(zip(rows.handles, rows.shares.tolist(), strict=True)),
            dict(zip(rows.handles, rows.allowances.tolist(), strict=True)),
            delta=run.plan.privacy.delta,
        )
        return _Kept(digest_of(letter), list(task.cohort), commitment, masked.astype("<u8").tobytes())

    def _computed(self, run: Run, task: Task) -> tuple[PermittedRows, Words]:
        """The noisy words over rows that are still permitted once the computation is done.

        RefusalError (consent) if somebody is lost each time; nothing was charged then.
        """
        rows = task.rows()
        for _ in range(_MOST_TRIES):
            words = self._noisy(run, task, rows)
            now = task.rows_anew()
            if rows.still_permitted(now):
                return rows, words
            rows = now
        raise RefusalError(
            f"Consents changed during each of {_MOST_TRIES} computations. Nothing was charged or sent; the coordinator "
            "may repeat its instruction.",
            RefusalCode.CONSENT,
        )

    def _noisy(self, run: Run, task: Task, rows: PermittedRows) -> Words:
        """The task's numbers over `rows` as they may leave."""
        shape = run.shape(task.stage)
        label = f"{self._holder}/{run.digest}/{task.stage}"
        exact = task.compute(rows, chance_of(run.plan.seed, f"{label}/contribution"))
        if exact.shape != (shape.length,):
            raise MalformedError(
                f"The recipe gave numbers of shape {exact.shape}, the plan says {shape.length}. Nothing was charged; "
                "the data holder's operator should compare versions with the coordinator."
            )
        variance = self._sums.noise_variance(run, task.stage, task.cohort)
        return noisy_words(shape, exact, variance, chance_of(run.plan.seed, f"{label}/noise"))


def made_once(
    ledger: PrivacyLedger, name: str, make: Callable[[], bytes], remember: Callable[[LedgerHead], None]
) -> bytes:
    """The bytes of the release `name` for ever: those that were kept, else what `make` gives, which must charge them.

    Durable on return, in the ledger and in whatever `remember` keeps its head in.
    """
    kept = ledger.kept(name)
    if kept is None:
        kept = make()
        ledger.keep(name, kept)
    # Also for what was made before: a crash may have come between the ledger and the memory of its head.
    remember(ledger.head)
    return kept


def chance_of(seed: int | None, label: str) -> NoiseSource:
    """Where all chance in a release comes from: the machine's secure randomness unless the plan has a seed.

    With a seed the release is NOT PRIVATE, and `label` keeps the draws of two releases apart.
    """
    return SecureNoise() if seed is None else SeededNoise(seed, label)


def noisy_words(shape: Shape, exact: Vector, variance: int, chance: NoiseSource) -> Words:
    """The `exact` numbers on the public grid, then noise that was born on it: no float's low bits leave."""
    words = shape.grid.encode(exact)
    if not variance:
        return words
    noisy: Words = words + shape.grid.from_steps(discrete_gaussian(shape.length, variance, chance))
    return noisy
