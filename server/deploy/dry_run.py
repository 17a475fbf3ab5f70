"""A dry run: every data holder is asked once about a signed plan, and no run is begun.

At the data holders it counts as an opening of the run that it asks about, and people are charged for being counted.
Here it leaves the ledgers' marks, so that a data holder that loses the count is noticed, and an entry in the round
log, as people may be charged.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum

from federated.channel import Act, Channel
from federated.coverage import DEVIATION, coverage_statement
from federated.lock import alone
from federated.messages import Coverage, Enquiry, Letter, Refused
from federated.plan import LARGEST_PEOPLE, run_id
from federated.round_log import Event
from privacy.consent.limits import DIGEST_BYTES
from privacy.consent.signing import PayloadType, verify
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from server.answers import LONGEST_LEDGER, claimed_by
from server.coordinator import Coordinator, Pinned
from server.deploy.checkpoints import Heads, newest, registry_of
from server.deploy.round_log import RoundLog
from server.deploy.runs import Channels, signed_plan
from server.deploy.settings import Home
from server.deploy.traffic import Traffic, traffic_of
from server.grid_channel import wait_for_nodes
from server.memory import LedgerMarks

_BUSY = (
    "A run or another dry run of this coordinator is under way, and asking now would end it. Wait until `fedcredit "
    "coordinator status` says that it has ended, then ask again."
)


class Stand(StrEnum):
    """Where a data holder of the roster stands."""

    TAKES_PART = "takes part"
    REFUSES = "refuses"
    UNUSABLE = "unusable answer"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Said:
    """What one data holder of the roster said. `count` is noisy, and None unless it takes part."""

    holder: str
    stand: Stand
    count: int | None = None
    code: RefusalCode | None = None
    wrong: str = ""  # about an unusable answer


@dataclass(frozen=True, slots=True)
class DryRun:
    """What came of one question to everybody. `said` is by data holder of the roster, sorted.

    `strangers` are nodes that answered in the name of nobody in the roster; `round_trip_s` is how long the answers
    took, `whole` whether every node that was asked answered in that time.
    """

    coordinator: Coordinator
    run: str
    said: tuple[Said, ...]
    asked: int
    strangers: int
    round_trip_s: float
    whole: bool

    @property
    def takers(self) -> tuple[Said, ...]:
        """Those who would take part."""
        return tuple(one for one in self.said if one.stand is Stand.TAKES_PART)

    def traffic(self) -> Traffic | None:
        """Of a run with those who would take part; None if nobody would."""
        return traffic_of(self.coordinator, [one.holder for one in self.takers]) if self.takers else None


@dataclass(frozen=True)
class DryRuns:
    """The dry runs of the coordinator in `home`. `registry` gives lane heads, `channels` the way to data holders."""

    home: Home
    channels: Channels
    clock: Callable[[], float]  # of seconds that only go on, for how long answers take
    tell: Callable[[str], None]
    now: Callable[[], float]  # UTC seconds
    registry: Callable[[Home], AbstractContextManager[Heads]] = registry_of

    def ask(self, *, plan: str | None = None, deadline_s: float | None = None) -> DryRun:
        """Ask everybody who is online about the plan over the newest lane heads; `plan` is a digest, None the current.

        RefusalError while a run is under way, if the registry cannot be reached, or if no node is online.
        """
        settings = self.home.settings
        with alone(self.home.run_lock, _BUSY):
            signed = signed_plan(self.home, plan)
            blank = Coordinator(self.home.directory, pinned=Pinned(signed, {}), schema=self.home.schema)
            holders = [entry.holder for entry in blank.plan.roster]
            self.tell("asking the registry for the lanes' newest heads")
            with self.registry(self.home) as heads:
                pinned = Pinned(signed, newest(heads, holders, public=settings.registry.public))
            coordinator = Coordinator(self.home.directory, pinned=pinned, schema=self.home.schema)
            log = RoundLog(self.home.round_log, self.home.key())
            with self.channels(self.home, tell=self.tell) as channel:
                self.tell(f"waiting for {len(holders)} nodes")
                wait_for_nodes(channel, len(holders), deadline_s=settings.run.nodes_deadline_s)
                self.tell("asking everybody")
                log.append(Event.ASKED, run=pinned.run, at=int(self.now()), plan=signed.digest)
                return ask_everybody(
                    coordinator,
                    LedgerMarks(self.home.directory),
                    channel,
                    deadline_s=deadline_s or settings.run.answer_deadline_s,
                    clock=self.clock,
                )


def ask_everybody(
    coordinator: Coordinator, marks: LedgerMarks, channel: Channel, *, deadline_s: float, clock: Callable[[], float]
) -> DryRun:
    """Ask every node that is online about the coordinator's plan over the lane heads that it has pinned.

    RefusalError (cohort) if none is.
    """
    opening = coordinator.opening
    enquiry = Enquiry(opening.plan, opening.plan_signature, opening.checkpoints, opening.ledgers)
    letters = dict.fromkeys(channel.nodes(), Letter(enquiry))
    if not letters:
        raise RefusalError(
            "No node is online, so there is nobody to ask. Ask the data holders whether `fedcredit holder serve` runs "
            "and reaches this coordinator, then ask again.",
            RefusalCode.COHORT,
        )
    began = clock()
    answers = channel.ask(letters, act=Act.QUERY, deadline_s=deadline_s)
    took = clock() - began
    run = run_id(coordinator.signed, coordinator.checkpoints)
    identities = {entry.holder: entry.identity for entry in coordinator.plan.roster}
    sorted_out = _Sorting(run, identities)
    for _, answer in sorted(answers.items()):
        sorted_out.take(answer)
    marks.keep({holder: headers[0].ledger for holder, headers in sorted_out.found.items() if len(headers) == 1})
    return DryRun(
        coordinator=coordinator,
        run=run,
        said=tuple(sorted_out.said(holder) for holder in sorted(identities)),
        asked=len(letters),
        strangers=sorted_out.strangers,
        round_trip_s=took,
        whole=answers.keys() == letters.keys(),
    )


class _Sorting:
    """Answers by whose they are. A signed yes counts more than whatever else came in the same name, for no one else can
    sign it; a refusal is not signed."""

    def __init__(self, run: str, identities: Mapping[str, bytes]) -> None:
        self._run, self._identities = run, identities
        self.found: dict[str, list[Coverage]] = {}
        self._refused: dict[str, RefusalCode] = {}
        self._wrong: dict[str, str] = {}
        self.strangers = 0

    def take(self, answer: Letter) -> None:
        """One more answer; an unlawful one is held against whoever it names, unless that one answers itself."""
        holder = claimed_by(answer.header)
        if holder is None or holder not in self._identities:
            self.strangers += 1
            return
        match answer.header:
            case Refused(code=code):
                self._refused.setdefault(holder, code)
            case Coverage() as coverage:
                try:
                    self._require_lawful(coverage, answer)
                    self.found.setdefault(holder, []).append(coverage)
                except (MalformedError, TamperingError) as error:
                    self._wrong.setdefault(holder, str(error))
            case header:
                self._wrong.setdefault(holder, f"it answered with {type(header).__name__} where Coverage was due")

    def said(self, holder: str) -> Said:
        """What is known of `holder` after all answers."""
        match self.found.get(holder, []):
            case [coverage]:
                return Said(holder, Stand.TAKES_PART, count=coverage.count)
            case [_, *_]:
                return Said(holder, Stand.UNUSABLE, wrong="two nodes answer for it; its operator should stop one")
        if holder in self._refused:
            return Said(holder, Stand.REFUSES, code=self._refused[holder])
        if holder in self._wrong:
            return Said(holder, Stand.UNUSABLE, wrong=self._wrong[holder])
        return Said(holder, Stand.SILENT)

    def _require_lawful(self, coverage: Coverage, answer: Letter) -> None:
        if answer.arrays:
            raise MalformedError("its answer carries arrays, and none are due")
        if coverage.run != self._run:
            raise MalformedError("it answered about another run")
        if coverage.deviation != DEVIATION:
            raise MalformedError("its noise has another size than this version's; compare versions with it")
        if abs(coverage.count) > LARGEST_PEOPLE:
            raise MalformedError("it counts more people than any plan has room for")
        mark = coverage.ledger
        if not 0 < mark.size < LONGEST_LEDGER or len(mark.digest) != DIGEST_BYTES:
            raise MalformedError("its ledger's mark is none")
        try:
            identity = self._identities[coverage.holder]
            verify(identity, PayloadType.COVERAGE, coverage_statement(coverage), coverage.signature)
        except TamperingError:
            raise TamperingError("its signature does not fit what it sent") from None
