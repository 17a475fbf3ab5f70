"""The shares that data holders have dealt each other, brought to everybody they are for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from federated.channel import Act
from federated.messages import Dealt, Delivery, Letter
from privacy.errors import RefusalCode
from server.answers import Absence, Answers
from server.exchange import Exchange


@dataclass(slots=True)
class Deliveries:
    """Brings everybody the shares of `members`, until it has said that it holds them."""

    run: str
    dealt: Mapping[str, Dealt]
    members: Sequence[str]
    exchange: Exchange
    answers: Answers
    missing: dict[str, Absence] = field(default_factory=dict)
    """Who has not said so, and why."""

    def __post_init__(self) -> None:
        self.missing = dict.fromkeys(self.members, Absence("it was not asked yet", RefusalCode.COHORT))

    def bring(self) -> dict[str, frozenset[str]]:
        """Ask everybody who is `missing` once more; by dealer, who says that its shares do not open."""
        letters = {holder: Letter(self._delivery(holder)) for holder in self.missing}
        if not letters:
            return {}
        read = partial(self.answers.received, members=self.members)
        received, absent = self.exchange.ask(letters, act=Act.QUERY, read=read)
        accused: dict[str, set[str]] = {}
        for holder, header in received.items():
            for dealer in header.faulty:
                accused.setdefault(dealer, set()).add(holder)
            if header.faulty:
                absent[holder] = Absence(
                    f"the shares do not open that it was dealt by {', '.join(header.faulty)}", RefusalCode.INTEGRITY
                )
        # It holds another delivery, and has no use for this one: of more members, who are enough for it, too.
        self.missing = {name: absence for name, absence in absent.items() if absence.code is not RefusalCode.REPLAY}
        return {dealer: frozenset(by) for dealer, by in sorted(accused.items())}

    def without(self, faulty: Mapping[str, Absence]) -> None:
        """Go on with the members but those who are `faulty`; whoever holds all shares keeps them."""
        self.members = [holder for holder in self.members if holder not in faulty]
        self.missing = {holder: absence for holder, absence in self.missing.items() if holder not in faulty}

    def _delivery(self, holder: str) -> Delivery:
        sealed = {dealer: self.dealt[dealer].sealed[holder] for dealer in self.members if dealer != holder}
        return Delivery(self.run, sorted(self.members), sealed)
