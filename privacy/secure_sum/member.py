"""One data holder among the members of a run's secure sums: it masks, and it helps to take masks off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from privacy.errors import RefusalCode, RefusalError
from privacy.grid import Words
from privacy.secure_sum.keys import Introduction, agreed
from privacy.secure_sum.locks import locked_entries, view_digest
from privacy.secure_sum.masks import cohort_digest, pair_mask, self_mask


@dataclass(frozen=True, slots=True)
class Reveal:
    """What one holder reveals about the members of a cohort, `locks.ENTRY_BYTES` bytes about each.

    Of a member in the sum a share of its seed, of another a share of its key: never both.
    """

    seeds: Mapping[str, bytes]
    keys: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Dealt:
    """The shares that one member dealt to one holder, by release."""

    keys: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OwnSecrets:
    """What a holder keeps for itself, of one run."""

    keys: tuple[bytes, ...]  # X25519, one a release
    seeds: tuple[bytes, ...]  # of its own mask, one a release
    locks: bytes
    channels: Mapping[str, bytes]  # secret with each other who joined

    def __repr__(self) -> str:
        return "OwnSecrets(...)"


class Member:
    """One data holder with the shares that every member dealt it.

    A release is masked for one cohort, and its masks come off one sum. That the first answer is the only one is for
    the caller to keep durable before it leaves: what is remembered here, of what was revealed, ends with the process.
    """

    __slots__ = ("_dealt", "_holder", "_introduction", "_own", "_told")

    def __init__(self, introduction: Introduction, holder: str, own: OwnSecrets, dealt: Mapping[str, Dealt]) -> None:
        self._introduction, self._holder, self._own, self._dealt = introduction, holder, own, dealt
        self._told: dict[int, bytes] = {}  # release -> what this holder was told about it

    def mask(self, stage: int, cohort: Sequence[str], length: int) -> Words:
        """What is added modulo 2^64 to the `length` words of release `stage` (from 1), shape (length,).

        `cohort` names the members, sorted, whose masks it has to cancel with. MalformedError if it is not lawful
        or leaves this holder out, RefusalError if it is below the threshold. Words are to be sent under one mask only.
        """
        self._introduction.require_stage(stage)
        self._introduction.require(cohort, among=self._dealt, having=self._holder)
        bound = cohort_digest(self._introduction.digest, stage, cohort)
        mask = self_mask(self._own.seeds[stage - 1], bound, holder=self._holder, length=length).copy()
        for other in cohort:
            if other != self._holder:
                agreement = agreed(self._own.keys[stage - 1], self._introduction.joined[other].stages[stage - 1])
                mask += pair_mask(agreement, bound, holder=self._holder, other=other, length=length)
        return mask

    def reveal(self, stage: int, cohort: Sequence[str], survivors: Sequence[str]) -> Reveal:
        """Shares of the survivors' seeds and of the others' keys, locked to this release, cohort and survivors.

        Both lists are sorted; this holder masked for this `cohort` and is a survivor itself. MalformedError or
        RefusalError as for `mask`; RefusalError (replay) if it has answered about other survivors or cohorts.
        """
        introduction = self._introduction
        introduction.require_stage(stage)
        introduction.require(cohort, among=self._dealt, having=self._holder)
        # A holder that is told it is not in the sum must not help: with its help, a coordinator that tells it so
        # could take the masks off a sum of too few (see the package).
        introduction.require(survivors, among=cohort, having=self._holder)
        view = view_digest(cohort_digest(introduction.digest, stage, cohort), survivors)
        if self._told.setdefault(stage, view) != view:
            raise RefusalError(
                f"this data holder has helped with another sum of release {stage}, and two sums of different sets "
                "would give an update away; the coordinator should repeat what it asked first.",
                RefusalCode.REPLAY,
            )
        surviving = set(survivors)
        shares = {
            name: (self._dealt[name].seeds if name in surviving else self._dealt[name].keys)[stage - 1]
            for name in cohort
        }
        entries = locked_entries(
            shares,
            holder=self._holder,
            view=view,
            secret=self._own.locks,
            channels=self._own.channels,
            points=introduction.points,
            threshold=introduction.threshold,
        )
        return Reveal(
            seeds={name: entry.to_bytes() for name, entry in entries.items() if name in surviving},
            keys={name: entry.to_bytes() for name, entry in entries.items() if name not in surviving},
        )
