"""Every data holder's node in one process, behind Flower messages."""

from collections.abc import Callable, Sequence
from pathlib import Path

from clients.app import app_for
from clients.holder.lane_sync import LaneSource
from clients.holder.node import Holder
from federated.in_process import InProcessGrid
from privacy.errors import MalformedError, UsageError
from server.coordinator import Coordinator, Outcome
from server.grid_channel import GridChannel
from server.rounds import Progress

DEADLINE_S = 600.0


class Session:
    """The data holders of a federation's directory at work; opening it verifies everything they keep."""

    def __init__(self, directory: Path, clock: Callable[[], float], source: LaneSource | None = None) -> None:
        """UsageError if there is no federation in `directory`; whatever a data holder finds broken is raised.

        `source` is where every data holder downloads its lane from; None is the registry that its settings name.
        """
        homes = sorted(home / "holder.toml" for home in (directory / "holders").glob("*") if home.is_dir())
        if not homes:
            raise UsageError(f"{directory} holds no federation; `fedcredit demo` leaves one in runs/demo/federation.")
        self._directory = directory
        self.holders: dict[str, Holder] = {}
        try:
            for home in homes:
                holder = Holder(home.parent, source)
                before = self.holders.setdefault(holder.name, holder)
                if before is not holder:
                    holder.close()
                    raise MalformedError(
                        f"Two directories under {directory / 'holders'} are data holder {holder.name}. Whoever copied "
                        "one should take it away: two nodes of one data holder would release twice."
                    )
        except BaseException:
            self.close()
            raise
        by_directory = {str(home.parent): holder for home, holder in zip(homes, self.holders.values(), strict=True)}
        self.nodes = {name: number for number, name in enumerate(self.holders, start=1)}
        configs = {number: {"holder-directory": home} for number, home in enumerate(by_directory, start=1)}
        self.channel = GridChannel(InProcessGrid(app_for(by_directory.__getitem__, clock), configs))

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give all databases back."""
        for holder in self.holders.values():
            holder.close()

    def run(self, progress: Progress) -> Outcome:
        """Run the coordinator's plan over the lane heads it has pinned."""
        return Coordinator(self._directory / "coordinator").run(self.channel, progress, deadline_s=DEADLINE_S)

    def joined(self, outcome: Outcome) -> Sequence[Holder]:
        """The data holders that took part in a run."""
        return [self.holders[name] for name in outcome.holders]
