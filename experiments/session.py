"""A federation at work in one process: every data holder's node behind Flower messages, and the coordinator."""

from collections.abc import Sequence
from types import TracebackType

from clients.app import app_for
from clients.holder.node import Holder
from experiments.federation import Federation, Progress
from federated.in_process import InProcessGrid
from federated.plan import TrainingPlan
from privacy.errors import FedcreditError
from server.coordinator import Coordinator, Outcome
from server.grid_channel import GridChannel
from server.registry.store import Registry

DEADLINE_S = 600.0


class Session:
    """Everybody's programs, started over the directories that a `Federation` has written."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.registry: Registry = federation.open_registry()
        self.holders: dict[str, Holder] = {}
        try:
            for name in federation.population.holders:
                self.holders[name] = Holder(federation.holder_directory(name))
        except FedcreditError:
            self.close()
            raise
        directories = {name: str(federation.holder_directory(name)) for name in self.holders}
        self.nodes = {name: number for number, name in enumerate(self.holders, start=1)}
        by_directory = {directories[name]: holder for name, holder in self.holders.items()}
        app = app_for(by_directory.__getitem__, lambda: federation.at)
        configs = {number: {"holder-directory": directories[name]} for name, number in self.nodes.items()}
        self.channel = GridChannel(InProcessGrid(app, configs))

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give all databases back."""
        for holder in self.holders.values():
            holder.close()
        self.registry.close()

    def sync(self, progress: Progress) -> None:
        """Let every data holder download and verify its lane, and the coordinator pin the newest heads."""
        for done, holder in enumerate(self.holders.values(), start=1):
            holder.lane.sync(self.registry, at=self.federation.at)
            progress("lanes synced", done, len(self.holders))
        self.federation.pin(self.registry)

    def run(self, plan: TrainingPlan, progress: Progress) -> Outcome:
        """Sign the plan, run it, and return what came of it."""
        self.federation.write_plan(plan)
        coordinator = Coordinator(self.federation.coordinator_directory)
        return coordinator.run(self.channel, progress, deadline_s=DEADLINE_S)

    def joined(self, outcome: Outcome) -> Sequence[Holder]:
        """The data holders that took part in a run."""
        return [self.holders[name] for name in outcome.holders]
