"""The beginning of a run: who joins, the shares they deal each other, and who its sums are made with."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

from federated.channel import Act, Channel
from federated.messages import Dealt, Delivery, Introduction, Joined, Letter, SumKeys
from federated.plan import TrainingPlan
from privacy.errors import FedcreditError, RefusalCode, RefusalError
from server.answers import SILENT, Absence, Answers, claimed_by, code_of, told
from server.exchange import Exchange
from server.memory import BegunRun, LedgerMarks, left_over

BEGUN_WITHOUT = Absence("the run was begun without it", RefusalCode.REPLAY)


@dataclass(frozen=True, slots=True)
class Cohort:
    """The data holders of a run.

    `joined` by id, sorted; `members` are those whose updates its sums are made of, sorted; `absent` says of everybody
    else in the roster why not. No sum is made of fewer than `threshold`.
    """

    run: str
    joined: Mapping[str, Joined]
    members: tuple[str, ...]
    absent: Mapping[str, Absence]
    threshold: int


@dataclass(frozen=True, slots=True)
class Beginning:
    """Opens one run of `stages` releases: nobody's answer, however odd, keeps the others from beginning."""

    plan: TrainingPlan
    stages: int
    answers: Answers
    begun: BegunRun
    marks: LedgerMarks

    def open(self, opening: Letter, channel: Channel, *, deadline_s: float) -> tuple[Cohort, Exchange]:
        """Who takes part in the run, and the way to them.

        RefusalError if too few join, deal or receive; nothing was charged then.
        """
        given = dict.fromkeys(channel.nodes(), opening)
        answers = channel.ask(given, act=Act.QUERY, deadline_s=deadline_s)
        nodes, joined, absent = self._joined(answers)
        self._require(len(joined), self.plan.minimum_holders, "joined the run", absent)
        chosen = self.begun.choose("opening", joined)
        absent |= dict.fromkeys(left_over(joined, chosen), BEGUN_WITHOUT)
        exchange = Exchange(channel, {holder: nodes[holder] for holder in chosen}, deadline_s=deadline_s)
        members, threshold = chosen, self.plan.minimum_holders
        keys = {holder: theirs for holder in chosen if (theirs := joined[holder].keys) is not None}
        if self.plan.trust.is_masked:
            threshold = len(chosen) - self.plan.dropouts_tolerated
            members = self._share(exchange, keys, threshold, absent)
        return (
            Cohort(
                run=self.answers.run,
                joined={holder: joined[holder] for holder in chosen},
                members=members,
                absent=dict(sorted(absent.items())),
                threshold=threshold,
            ),
            exchange,
        )

    def _joined(self, answers: Mapping[int, Letter]) -> tuple[dict[str, int], dict[str, Joined], dict[str, Absence]]:
        """Nodes and headers of those who joined, and why the rest of the roster did not.

        An answer in nobody's name counts as silence of whoever it was. Where nothing is masked, joining is not signed:
        whoever joins in another's name comes no further than its first update, which is.
        """
        found: dict[str, list[tuple[int, Joined]]] = {}
        absent = dict.fromkeys(self.answers.identities, SILENT)
        for node, answer in sorted(answers.items()):
            holder = claimed_by(answer.header)
            if holder is None or holder not in absent:
                continue
            try:
                header = self._read(answer, holder)
            except FedcreditError as error:
                absent[holder] = Absence.of(error)
                continue
            found.setdefault(holder, []).append((node, header))
        for holder in _twins({holder: header.keys for holder, ((_, header), *_) in found.items()}):
            del found[holder]
            absent[holder] = Absence("its keys are another data holder's too", RefusalCode.INTEGRITY)
        for holder in [holder for holder, theirs in found.items() if len(theirs) > 1]:
            del found[holder]
            absent[holder] = Absence("two nodes answer for it; its operator should stop one", RefusalCode.INTEGRITY)
        nodes = {holder: node for holder, ((node, _),) in sorted(found.items())}
        joined = {holder: header for holder, ((_, header),) in sorted(found.items())}
        return nodes, joined, {holder: absence for holder, absence in absent.items() if holder not in joined}

    def _read(self, answer: Letter, holder: str) -> Joined:
        header = self.answers.joined(answer, holder, stages=self.stages if self.plan.trust.is_masked else None)
        self.marks.require_growth(holder, header.ledger)
        return header

    def owner_of(self, answer: Letter, cohort: Cohort) -> str | None:
        """The data holder of `cohort` that has answered an opening from a new node, with the keys it had; or None."""
        holder = claimed_by(answer.header)
        if holder is None or holder not in cohort.joined:
            return None
        try:
            header = self._read(answer, holder)
        except FedcreditError:
            return None
        return holder if header.keys == cohort.joined[holder].keys else None

    def _share(
        self, exchange: Exchange, keys: Mapping[str, SumKeys], threshold: int, absent: dict[str, Absence]
    ) -> tuple[str, ...]:
        """Have secrets dealt and delivered; who dealt are the members. Adds to `absent` who did not deal."""
        run = self.answers.run
        introduction = Letter(Introduction(run, dict(keys)))
        dealt, missing = exchange.ask(
            dict.fromkeys(keys, introduction), act=Act.QUERY, read=partial(self.answers.dealt, joined=keys)
        )
        absent |= missing
        self._require(len(dealt), threshold, "dealt the others shares of their masks' secrets", absent)
        members = self.begun.choose("dealing", dealt)
        absent |= dict.fromkeys(left_over(dealt, members), BEGUN_WITHOUT)
        deliveries = {holder: Letter(_delivery(run, holder, members, dealt)) for holder in members}
        # Whoever is silent now may have its shares all the same: it stays a member, and each stage will tell.
        received, missing = exchange.ask(deliveries, act=Act.QUERY, read=self.answers.received)
        self._require(len(received), threshold, "received the shares", missing)
        return members

    def _require(self, found: int, needed: int, did: str, absent: Mapping[str, Absence]) -> None:
        if found < needed:
            raise RefusalError(
                f"{found} data holders {did} and the plan needs {needed} ({told(absent)}). Nothing was released or "
                "charged. The coordinator should ask their operators, then run the same plan again, or write a plan "
                "that fits.",
                code_of(absent),
            )


def _delivery(run: str, holder: str, members: Collection[str], dealt: Mapping[str, Dealt]) -> Delivery:
    sealed = {dealer: dealt[dealer].sealed[holder] for dealer in members if dealer != holder}
    return Delivery(run, sorted(members), sealed)


def _twins(keys: Mapping[str, SumKeys | None]) -> list[str]:
    """Data holders with a public key that another one has too: of a pair, nobody knows who is the thief."""
    owners: dict[bytes, set[str]] = {}
    for holder, theirs in keys.items():
        for key in () if theirs is None else (theirs.channel, *theirs.stages, *theirs.seeds):
            owners.setdefault(key, set()).add(holder)
    return sorted(set[str]().union(*(names for names in owners.values() if len(names) > 1)))
