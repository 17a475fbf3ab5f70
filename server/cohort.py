"""The beginning of a run: who joins, the shares they deal each other, and who its sums are made with."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

from federated.channel import Act, Channel
from federated.messages import Introduction, Joined, Letter, SumKeys
from federated.plan import TrainingPlan
from privacy.errors import FedcreditError, RefusalCode, RefusalError
from server.answers import SILENT, Absence, Answers, claimed_by, code_of, told
from server.delivery import Deliveries
from server.exchange import Exchange
from server.memory import BegunRun, Dealing, LedgerMarks, Members, Opened

OTHER_KEYS = Absence("its keys are others than those that the run was begun with", RefusalCode.INTEGRITY)


@dataclass(frozen=True, slots=True)
class Cohort:
    """The data holders of a run.

    `joined` by id, sorted; `members` are those whose updates its sums are made of, sorted; `absent` says of everybody
    else in the roster why not. No sum is made of fewer than `threshold`. `deliveries` are None where nothing is masked.
    """

    run: str
    joined: Mapping[str, Joined]
    members: tuple[str, ...]
    absent: Mapping[str, Absence]
    threshold: int
    deliveries: Deliveries | None


class _Nobody:
    """A channel without nodes."""

    def nodes(self) -> list[int]:
        return []

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:  # noqa: ARG002 (a channel's)
        return {}


@dataclass(frozen=True, slots=True)
class Beginning:
    """Opens one run of `stages` releases: nobody's answer, however odd, keeps the others from beginning.

    A run that was begun before goes on with those who were in it then, as many of them as it needs.
    """

    plan: TrainingPlan
    stages: int
    answers: Answers
    begun: BegunRun
    marks: LedgerMarks

    def open(self, opening: Letter, channel: Channel, *, deadline_s: float) -> tuple[Cohort, Exchange]:
        """Who takes part in the run, and the way to them.

        RefusalError if too few join, deal or receive; nothing was charged then, unless the run was begun before.
        """
        given = dict.fromkeys(channel.nodes(), opening)
        answers = channel.ask(given, act=Act.QUERY, deadline_s=deadline_s)
        nodes, here, away = self._joined(answers)
        opened = self.begun.opened()
        if opened is None:
            self._require(len(here), self.plan.minimum_holders, "joined the run", away)
            opened = Opened(here, away)
            self.begun.keep_opened(opened)
        for holder in [holder for holder, header in here.items() if not _is_same(header, opened.joined.get(holder))]:
            del nodes[holder]
            away[holder] = OTHER_KEYS
        away = {holder: absence for holder, absence in away.items() if holder in opened.joined}
        nodes = {holder: node for holder, node in nodes.items() if holder in opened.joined}
        masked = self.plan.trust.is_masked
        threshold = len(opened.joined) - self.plan.dropouts_tolerated if masked else self.plan.minimum_holders
        self._require(len(nodes), threshold, "are here of those who joined the run", away)
        return self._of(opened, Exchange(channel, nodes, deadline_s=deadline_s, away=away), threshold)

    def kept(self) -> tuple[Cohort, Exchange]:
        """Who takes part in a run whose every sum is kept, without asking anybody; the way leads to nobody.

        RefusalError if it is not known who they are.
        """
        opened = self.begun.opened()
        if opened is None:
            raise RefusalError(
                "Who joined the run is not known any more, so it cannot be ended. The coordinator should restore its "
                "directory from a copy.",
                RefusalCode.INTERNAL,
            )
        masked = self.plan.trust.is_masked
        threshold = len(opened.joined) - self.plan.dropouts_tolerated if masked else self.plan.minimum_holders
        return self._of(opened, Exchange(_Nobody(), {}, deadline_s=0, away={}), threshold)

    def _of(self, opened: Opened, exchange: Exchange, threshold: int) -> tuple[Cohort, Exchange]:
        members, absent, deliveries = sorted(opened.joined), dict(opened.absent), None
        if self.plan.trust.is_masked:
            deliveries = self._shared(exchange, opened.joined, threshold, absent)
            members = list(deliveries.members)
        cohort = Cohort(
            run=self.answers.run,
            joined=opened.joined,
            members=tuple(members),
            absent=dict(sorted(absent.items())),
            threshold=threshold,
            deliveries=deliveries,
        )
        return cohort, exchange

    def _joined(self, answers: Mapping[int, Letter]) -> tuple[dict[str, int], dict[str, Joined], dict[str, Absence]]:
        """Nodes and headers of those who joined, and why the rest of the roster did not.

        An answer in nobody's name counts as silence of whoever it was, and so does one in another's name, for joining
        is signed: it puts nobody out.
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
        """The data holder of `cohort` whose key has signed this answer of a new node, with the keys it had; or None."""
        holder = claimed_by(answer.header)
        if holder is None or holder not in cohort.joined:
            return None
        try:
            header = self._read(answer, holder)
        except FedcreditError:
            return None
        return holder if _is_same(header, cohort.joined[holder]) else None

    def _shared(
        self, exchange: Exchange, joined: Mapping[str, Joined], threshold: int, absent: dict[str, Absence]
    ) -> Deliveries:
        """Have secrets dealt and delivered; who dealt well are the members. Adds to `absent` who is none, and why."""
        dealing = self.begun.dealing()
        if dealing is None:
            dealing = self._dealt(exchange, joined)
            self._require(
                len(dealing.dealt), threshold, "dealt the others shares of their masks' secrets", dealing.absent
            )
            self.begun.keep_dealing(dealing)
        absent |= dealing.absent
        deliveries = Deliveries(self.answers.run, dealing.dealt, sorted(dealing.dealt), exchange, self.answers)
        kept = self.begun.members()
        if kept is None:
            kept = self._delivered(deliveries, threshold)
        elif kept.absent:
            deliveries.without(kept.absent)
        absent |= kept.absent
        return deliveries

    def _delivered(self, deliveries: Deliveries, threshold: int) -> Members:
        """Bring everybody its shares; once more, without those whose shares do not open, if there are any.

        Whoever could open theirs, and so holds shares of more than the members, needs no others.
        """
        members = self._members(deliveries, deliveries.bring())
        self._require(len(members.members), threshold, "dealt shares that open", members.absent)
        self.begun.keep_members(members)
        if members.absent:
            deliveries.without(members.absent)
            deliveries.bring()
        # Whoever is silent now may have its shares all the same: it stays a member, and each stage will tell.
        received = len(deliveries.members) - len(deliveries.missing)
        self._require(received, threshold, "received the shares", deliveries.missing)
        return members

    def _dealt(self, exchange: Exchange, joined: Mapping[str, Joined]) -> Dealing:
        keys = {holder: theirs for holder, header in joined.items() if (theirs := header.keys) is not None}
        introduction = Letter(Introduction(self.answers.run, keys))
        read = partial(self.answers.dealt, joined=keys, stages=self.stages)
        return Dealing(*exchange.ask(dict.fromkeys(keys, introduction), act=Act.QUERY, read=read))

    def _members(self, deliveries: Deliveries, accused: Mapping[str, Collection[str]]) -> Members:
        """Everybody but those whose shares do not open for more data holders than may lie together."""
        faulty = {
            dealer: Absence(f"the shares that it dealt do not open, say {', '.join(sorted(by))}", RefusalCode.INTEGRITY)
            for dealer, by in accused.items()
            if len(by) > self.plan.dropouts_tolerated
        }
        return Members([holder for holder in deliveries.members if holder not in faulty], faulty)

    def _require(self, found: int, needed: int, did: str, absent: Mapping[str, Absence]) -> None:
        if found < needed:
            charged = (
                "The run was begun before: what was charged stays charged, and what was released is not asked again."
                if self.begun.is_repeated
                else "Nothing was released or charged."
            )
            raise RefusalError(
                f"{found} data holders {did} and the plan needs {needed} ({told(absent)}). {charged} The coordinator "
                "should ask their operators, then run the same plan again, or write a plan that fits.",
                code_of(absent),
            )


def _is_same(header: Joined, before: Joined | None) -> bool:
    """Whether who joins has the keys it had; whoever was not in the run then is no other."""
    return before is None or header.keys == before.keys


def _twins(keys: Mapping[str, SumKeys | None]) -> list[str]:
    """Data holders with a public key that another one has too: of a pair, nobody knows who is the thief."""
    owners: dict[bytes, set[str]] = {}
    for holder, theirs in keys.items():
        for key in () if theirs is None else (theirs.channel, *theirs.stages, *theirs.seeds):
            owners.setdefault(key, set()).add(holder)
    return sorted(set[str]().union(*(names for names in owners.values() if len(names) > 1)))
