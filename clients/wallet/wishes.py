"""How a person's complete wishes at one data holder change, and whether a change says less or more than before."""

from collections.abc import Sequence
from dataclasses import dataclass

from privacy.consent.record import ConsentRecord, Grant, Purpose


@dataclass(frozen=True, slots=True)
class Wishes:
    """Grants and the freeze, as the next record will say them completely."""

    grants: tuple[Grant, ...] = ()
    frozen: bool = False

    @classmethod
    def of(cls, record: ConsentRecord | None) -> "Wishes":
        """What a record says; nothing granted without one."""
        return cls() if record is None else cls(record.grants, record.frozen)

    def granting(self, grant: Grant) -> "Wishes":
        """With `grant`, which replaces the one for the same purpose and recipient."""
        others = [old for old in self.grants if (old.purpose, old.to) != (grant.purpose, grant.to)]
        return Wishes(_in_order([*others, grant]), self.frozen)

    def without(self, *, purpose: Purpose | None, to: str | None) -> "Wishes":
        """Without the grants that match; None matches every purpose or recipient."""
        return Wishes(tuple(grant for grant in self.grants if not matches(grant, purpose, to)), self.frozen)

    def with_freeze(self, frozen: bool) -> "Wishes":
        """Frozen or not; the grants stay as they are."""
        return Wishes(self.grants, frozen)

    @property
    def permit_nothing(self) -> bool:
        """Whether nothing may be done, whatever was said before."""
        return self.frozen or not self.grants

    def no_wider_than(self, before: "Wishes") -> bool:
        """Whether these wishes permit nothing that `before` did not: a restriction, which no one may keep back."""
        if self.frozen:
            return True
        if before.frozen:
            return not self.grants
        earlier = {(grant.purpose, grant.to): grant for grant in before.grants}
        return all(
            (old := earlier.get((grant.purpose, grant.to))) is not None and _no_wider(grant, old)
            for grant in self.grants
        )

    def renews(self, before: "Wishes") -> bool:
        """Whether the same is asked for as in `before`, only from another instant on."""
        return self.frozen == before.frozen and list(map(_timeless, self.grants)) == list(map(_timeless, before.grants))


def matches(grant: Grant, purpose: Purpose | None, to: str | None) -> bool:
    """Whether the grant is for that purpose and recipient; None stands for any."""
    return purpose in (None, grant.purpose) and to in (None, grant.to)


def _no_wider(new: Grant, old: Grant) -> bool:
    times = old.nbf <= new.nbf and new.exp <= old.exp and new.reconfirm_by <= old.reconfirm_by
    if not times or not set(new.data) <= set(old.data) or new.retain_s > old.retain_s:
        return False
    if new.dp is not None and old.dp is not None:
        budgets = new.dp.share_milli <= old.dp.share_milli and new.dp.eps_milli <= old.dp.eps_milli
        return budgets and new.dp.delta_log10 <= old.dp.delta_log10 and new.dp.window_s >= old.dp.window_s
    if new.uses is not None and old.uses is not None:
        return new.uses.n <= old.uses.n and new.uses.per_s >= old.uses.per_s
    return False


def _in_order(grants: Sequence[Grant]) -> tuple[Grant, ...]:
    return tuple(sorted(grants, key=lambda grant: (grant.purpose.value, grant.to)))


def _timeless(grant: Grant) -> tuple[object, ...]:
    duration, pause = grant.exp - grant.nbf, grant.reconfirm_by - grant.nbf
    return grant.purpose, grant.to, grant.data, duration, pause, grant.retain_s, grant.dp, grant.uses
