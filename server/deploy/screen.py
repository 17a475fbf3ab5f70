"""How far a run is, on stderr: bars for people at a terminal, one line a step for everything else."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Screen:
    """Shows the steps of one run."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: Progress | None = None
        if self._console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                console=self._console,
            )  # fmt: skip
            self._task = self._bars.add_task("beginning", total=None)
        self._told = ""

    def __enter__(self) -> "Screen":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """A step has begun, with `done` of `total` stages behind it; no stages are known while `total` is 0."""
        if self._bars is not None:
            self._bars.update(self._task, description=what, completed=done, total=total or None)
        elif what != self._told:
            self._console.print(f"{what} ({done} of {total} done)" if total else what, highlight=False, soft_wrap=True)
        self._told = what
