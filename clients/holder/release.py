"""One release: compute, draw the noise, mask, charge, keep the bytes, send. Charge and bytes are durable before it.

Between computing and charging the consents are looked at once more, by a lane that was synced at that moment. What
somebody is in who has withdrawn meanwhile is thrown away: it was neither charged nor sent. A repeated instruction gets
the kept bytes again, until the plan's end and while everybody in them is still permitted: whether the first answer
ever arrived is not known here. An instruction that differs from the first one under the same name is refused: two
answers to two questions would be two releases for one charge.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from clients.holder.gate import PermittedRows
from clients.holder.keys import HolderKeys
from clients.holder.ledger import PrivacyLedger
from clients.holder.ledger_chain import LedgerHead
from clients.holder.run import Run
from federated.messages import Letter, MaskKey, Update, digest_of
from federated.releases import release_name, update_statement
from privacy.accounting import Spend
from privacy.consent.commitment import commit_to_subjects
from privacy.consent.signing import PayloadType
from privacy.errors import RefusalCode, RefusalError
from privacy.grid import Grid
from privacy.masks import mask_of, masked
from privacy.noise import NoiseSource, SecureNoise, SeededNoise

_MOST_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be released: noisy numbers over permitted rows, their cost and their grid."""

    stage: int  # number of the round; the measurement comes after the last
    cohort: dict[str, MaskKey]
    grid: Grid
    rows: Callable[[], PermittedRows]  # by a lane that is fresh enough
    rows_anew: Callable[[], PermittedRows]  # as the registry and the side door know them at the moment of the call
    spend: Callable[[int], Spend]  # of a person with share 1, from the number of permitted rows
    compute: Callable[[PermittedRows, NoiseSource], NDArray[np.float64]]


class _Kept(msgspec.Struct, frozen=True):
    instruction: bytes  # SHA-256 of the letter that asked
    header: Update
    masked: bytes  # little-endian words


class Releaser:
    """Makes the releases of one data holder, each of them once."""

    def __init__(
        self, holder: str, keys: HolderKeys, ledger: PrivacyLedger, remember: Callable[[LedgerHead], None]
    ) -> None:
        """`remember` keeps the ledger's head outside the ledger, durable on return."""
        self._holder, self._keys, self._ledger, self._remember = holder, keys, ledger, remember

    def release(self, run: Run, letter: Letter, task: Task) -> Letter:
        """The answer to `letter`: made now, or the one that was made before, byte for byte.

        RefusalError (consent) for one made before if somebody in it is no longer permitted.
        """
        name = release_name(run.name, task.stage)
        before = kept = self._ledger.kept(name)
        if kept is None:
            kept = msgspec.msgpack.encode(self._make(run, letter, task, name))
            self._ledger.keep(name, kept)
        # Also for an answer made before: a crash may have come between the ledger and the memory of its head.
        self._remember(self._ledger.head)
        release = msgspec.msgpack.decode(kept, type=_Kept)
        if release.instruction != digest_of(letter):
            raise RefusalError(
                "This release was made under another instruction, and one answer is all there is. "
                "The coordinator should repeat the instruction it sent first.",
                RefusalCode.REPLAY,
            )
        if before is not None and not set(self._ledger.subjects_of(name)) <= set(task.rows().handles):
            raise RefusalError(
                "This release was made before, and not everybody in it is permitted any more; it was not sent again. "
                "The coordinator should plan a new run.",
                RefusalCode.CONSENT,
            )
        return Letter(release.header, {"masked": np.frombuffer(release.masked, dtype="<u8").astype(np.uint64)})

    def _make(self, run: Run, letter: Letter, task: Task, name: str) -> _Kept:
        # Everything that can be refused is refused before the charge, an unlawful instruction included: there is no
        # refund. What a crash after the charge loses was never sent, so it is made again with fresh noise.
        public_keys = run.mask_keys(self._holder, task.cohort)
        rows, words = self._computed(run, task)
        mask = mask_of(
            self._keys.mask_key(run.name),
            self._holder,
            public_keys,
            run_id=run.name.encode(),
            round_number=task.stage,
            length=len(words),
        )
        integers = masked(words, mask)
        commitment = commit_to_subjects(self._keys.round_salt(name), rows.handles)
        signature = self._keys.identity.sign(PayloadType.UPDATE, update_statement(name, commitment, integers))
        header = Update(self._holder, name, commitment, signature)
        self._ledger.charge(
            name,
            task.spend(len(rows.handles)),
            dict(zip(rows.handles, rows.shares.tolist(), strict=True)),
            dict(zip(rows.handles, rows.allowances.tolist(), strict=True)),
            delta=run.plan.privacy.delta,
        )
        return _Kept(digest_of(letter), header, integers.astype("<u8").tobytes())

    def _computed(self, run: Run, task: Task) -> tuple[PermittedRows, NDArray[np.uint64]]:
        """The noisy words over rows that are still permitted once the computation is done.

        RefusalError (consent) if somebody is lost each time; nothing was charged then.
        """
        rows = task.rows()
        for _ in range(_MOST_TRIES):
            words = task.grid.encode(task.compute(rows, self._chance(run, task.stage)))
            now = task.rows_anew()
            if rows.still_permitted(now):
                return rows, words
            rows = now
        raise RefusalError(
            f"Consents changed during each of {_MOST_TRIES} computations. Nothing was charged or sent; the coordinator "
            "may repeat its instruction.",
            RefusalCode.CONSENT,
        )

    def _chance(self, run: Run, stage: int) -> NoiseSource:
        if run.plan.seed is None:
            return SecureNoise()
        return SeededNoise(run.plan.seed, f"{self._holder}/{run.digest}/{stage}")
