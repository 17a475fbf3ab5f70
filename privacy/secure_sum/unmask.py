"""The coordinator's part: add up the masked words and take the masks off, with what the survivors revealed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from privacy.errors import RefusalCode, RefusalError
from privacy.grid import Words, add_words
from privacy.secure_sum.derivation import KEY_BYTES
from privacy.secure_sum.keys import Introduction, PublicKeys, agreed, commitment_to, public_key_of
from privacy.secure_sum.locks import ENTRY_BYTES, Entry, opened, share_of_lock, view_digest
from privacy.secure_sum.masks import cohort_digest, pair_mask, self_mask
from privacy.secure_sum.member import Reveal
from privacy.secure_sum.recovery import Recovered, recover


@dataclass(frozen=True, slots=True)
class Unmasked:
    """The sum of the survivors' words modulo 2^64, and whose reveals are wrong beyond doubt, in order.

    A member that dealt wrong shares before the first release can make their holders look like liars.
    """

    total: Words
    liars: tuple[str, ...]


class Unmasker:
    """Takes the masks off the sums of one run. It holds no secret."""

    __slots__ = ("_introduction", "_members")

    def __init__(self, joined: Mapping[str, PublicKeys], members: Sequence[str], *, run: str, threshold: int) -> None:
        """`members` are those who joined and dealt, sorted. Errors as for `Introduction`."""
        self._introduction: Final = Introduction(joined, run=run, threshold=threshold)
        self._introduction.require(members, among=joined)
        self._members: Final = tuple(members)

    def unmask(
        self, stage: int, cohort: Sequence[str], masked: Mapping[str, Words], reveals: Mapping[str, Reveal]
    ) -> Unmasked:
        """The sum of release `stage` over the survivors, who are those that `masked` has words of.

        `cohort` is the one they masked for, `reveals` what survivors revealed about exactly these. RefusalError
        if too few right shares came, or (integrity) somebody dealt wrong ones: the masks stay on then.
        """
        introduction = self._introduction
        introduction.require_stage(stage)
        introduction.require(cohort, among=self._members)
        survivors = sorted(masked)
        introduction.require(survivors, among=cohort)
        total = add_words(masked[name] for name in survivors)
        bound = cohort_digest(introduction.digest, stage, cohort)
        entries, liars = _readable(cohort, survivors, reveals)
        shares, locked_out = self._unlocked(view_digest(bound, survivors), cohort, entries)
        secrets = self._secrets(stage, cohort, survivors, shares)
        liars |= locked_out | {holder for holder, names in secrets.wrong.items() if names}
        for name in cohort:
            secret = secrets.secrets[name].to_bytes(KEY_BYTES, "big")
            if name in masked:
                total -= self_mask(secret, bound, holder=name, length=len(total))
            else:
                for other in survivors:
                    agreement = agreed(secret, introduction.joined[other].stages[stage - 1])
                    # What the missing one would have added takes away what each survivor added.
                    total += pair_mask(agreement, bound, holder=name, other=other, length=len(total))
        return Unmasked(total, tuple(sorted(liars)))

    def _unlocked(
        self, view: bytes, cohort: Sequence[str], entries: Mapping[str, Mapping[str, Entry]]
    ) -> tuple[Mapping[str, Mapping[str, int]], set[str]]:
        """By holder, the shares it revealed, of each of the cohort; and whose locks or pads do not fit."""
        contents: dict[str, Mapping[str, int]] = {}

        def opens(name: str, key: int) -> bool:
            content = opened({other: entries[name][other] for other in cohort}, key, holder=name, view=view)
            if content is not None:
                contents[name] = content
            return content is not None

        found = recover(
            {
                locker: {helper: share_of_lock(entries[locker][helper], entries[helper][locker]) for helper in entries}
                for locker in entries
            },
            points=self._introduction.points,
            threshold=self._introduction.threshold,
            is_right=opens,
        )
        # Where a lock's share and its pad do not fit, one of the two holders is wrong, and nobody can tell which. With
        # more of the others than are tolerated to lie, it is this one.
        disputes = {name: set(names) for name, names in found.wrong.items()}
        for helper, lockers in found.wrong.items():
            for locker in lockers:
                disputes[locker].add(helper)
        disputed = {name for name, others in disputes.items() if len(others) > self._introduction.tolerated}
        return contents, disputed | (entries.keys() - contents.keys())

    def _secrets(
        self,
        stage: int,
        cohort: Sequence[str],
        survivors: Sequence[str],
        shares: Mapping[str, Mapping[str, int]],
    ) -> Recovered:
        """The survivors' seeds and the others' keys."""
        introduction, surviving = self._introduction, set(survivors)

        def is_right(name: str, value: int) -> bool:
            if value.bit_length() > 8 * KEY_BYTES:
                return False
            secret, public = value.to_bytes(KEY_BYTES, "big"), introduction.joined[name]
            if name in surviving:
                commitment = commitment_to(secret, run=introduction.run, holder=name, stage=stage)
                return commitment == public.seeds[stage - 1]
            return public_key_of(secret) == public.stages[stage - 1]

        found = recover(
            {name: {holder: revealed[name] for holder, revealed in shares.items()} for name in cohort},
            points=introduction.points,
            threshold=introduction.threshold,
            is_right=is_right,
        )
        lost = [name for name in cohort if name not in found.secrets]
        if 0 < len(lost) <= introduction.tolerated:
            # The others' shares, of the same holders, are right. With so many that the tolerated liars can be spared,
            # these were dealt wrong; with fewer, one liar can make it look so.
            certain = len(shares) >= introduction.threshold + introduction.tolerated
            raise RefusalError(
                f"the shares that {', '.join(lost)} dealt before the first release do not give what it committed to"
                f"{'' if certain else ', unless one of those who helped lies about them'}; the coordinator should plan "
                "a new run without it.",
                RefusalCode.INTEGRITY,
            )
        if lost:
            raise RefusalError(
                f"at least {introduction.threshold} data holders must reveal right shares before the masks of a sum "
                "come off, and fewer did; the round must be aborted and the coordinator should plan a new run.",
                RefusalCode.COHORT,
            )
        return found


def _readable(
    cohort: Sequence[str], survivors: Sequence[str], reveals: Mapping[str, Reveal]
) -> tuple[dict[str, dict[str, Entry]], set[str]]:
    """What can be read of the reveals, by holder and member; and whose reveals are about others or not asked for."""
    seeds, keys = set(survivors), set(cohort) - set(survivors)
    entries, unreadable = {}, set()
    for holder, reveal in reveals.items():
        about = {**reveal.seeds, **reveal.keys}
        sized = all(len(entry) == ENTRY_BYTES for entry in about.values())
        if holder in seeds and reveal.seeds.keys() == seeds and reveal.keys.keys() == keys and sized:
            entries[holder] = {name: Entry.from_bytes(about[name]) for name in cohort}
        else:
            unreadable.add(holder)
    return entries, unreadable
