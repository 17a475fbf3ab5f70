"""`fedcredit demo`: the whole flow on real data, with progress on stderr and a short table at the end."""

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from federated.recipes.base import RecipeName
from federated.trust import TrustModel
from privacy.errors import RefusalCode, RefusalError, UsageError

AUTO = "auto"
RECIPES = [name.value for name in RecipeName]
TRUST_MODELS = [trust.value for trust in TrustModel]  # the default first
DATA = Path(__file__).parent / "data" / "taiwan_default"
MARK = "report.json"  # a directory that has it, and nothing but what the demo writes, may be replaced by a new demo
WRITTEN = frozenset({MARK, "report.html", "bundle", "federation"})


@click.command(epilog="Example: fedcredit demo --out runs/demo --holders 10 --epsilon 1")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True,
              help="Directory for report.html, report.json, bundle/ and federation/.")  # fmt: skip
@click.option("--holders", type=click.IntRange(min=2), default=10, show_default=True, help="How many data holders.")
@click.option("--epsilon", type=click.FloatRange(min=0.05), default=1.0, show_default=True,
              help="What one run may cost a person, at delta 1e-5.")  # fmt: skip
@click.option("--recipe", type=click.Choice([AUTO, *RECIPES]), default=AUTO, show_default=True,
              help="How to train; auto chooses from public quantities and says why.")  # fmt: skip
@click.option("--trust", type=click.Choice(TRUST_MODELS), default=TRUST_MODELS[0], show_default=True,
              help="Who adds the noise, and so whom people must trust.")  # fmt: skip
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=None,
    help="Repeat the same noise and keys. The result is NOT PRIVATE.",
)
@click.option("--deploy", is_flag=True,
              help="Train over Flower between real programs, one for each party.")  # fmt: skip
@click.option("--schema", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=None,
              help="Schema of another public table, instead of the embedded data.")  # fmt: skip
@click.option("--table", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=None,
              help="That table, CSV or CSV.gz.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print report.json instead of the table.")
def demo(
    out: Path, holders: int, epsilon: float, recipe: str, trust: str, seed: int | None, deploy: bool,
    schema: Path | None, table: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Run a whole private federation on real data and write a report.

    Keys, links, encrypted consent records, training, a scorecard, scores with reasons, a withdrawal and its effect.
    The embedded data are the credit-card clients of Yeh and Lien (2009), CC BY 4.0.
    """
    if (schema is None) != (table is None):
        raise UsageError("--schema and --table go together: give both, or neither for the embedded data.")
    if not math.isfinite(epsilon):
        raise UsageError("--epsilon must be a number above 0; give one, for example 1.")

    if deploy and seed is not None:
        raise UsageError(
            "--seed makes a demo that is repeated on a fixed day, and the programs of --deploy live by the clock. Give "
            "one of them."
        )

    from experiments.demo import DemoSettings, run_demo  # heavy: only when it runs
    from experiments.report.figures import report_json
    from experiments.report.page import write_report

    settings = DemoSettings(
        out=_beside(out, "building"),
        schema=schema or DATA / "schema.toml",
        table=table or DATA / "data.csv.gz",
        holders=holders,
        epsilon=epsilon,
        recipe=None if recipe == AUTO else RecipeName(recipe),
        trust=TrustModel(trust),
        seed=seed,
        deploy=deploy,
    )
    with _Bars() as bars, replacing(out) as building:
        result = run_demo(settings, bars.show)
        bars.show("report", 0, 1)
        write_report(result, building)
        bars.show("report", 1, 1)
    text = report_json(result)
    if as_json:
        click.echo(text, nl=False)
    else:
        _print_table(json.loads(text), out)


@click.command(epilog="Example: fedcredit train runs/demo/federation")
@click.argument("federation", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON.")
def train(federation: Path, as_json: bool) -> None:
    """Run the plan that lies in a federation's directory, in this process.

    What the data holders have released before is repeated byte for byte and charged to nobody again.
    """
    from experiments.session import Session

    with Session(federation, time.time) as session, _Bars() as bars:
        outcome = session.run(bars.show)
    facts = {
        "run": outcome.run,
        "plan": outcome.plan_digest,
        "holders": list(outcome.holders),
        "refused": outcome.refused,
    }
    if as_json:
        click.echo(json.dumps(facts))
    else:
        click.echo(
            f"run {outcome.run} of plan {outcome.plan_digest[:16]}: {len(outcome.holders)} data holders, "
            f"{len(outcome.releases)} releases; the model is in {federation}/coordinator/runs/{outcome.run}"
        )


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """An empty directory beside `out`, which takes its place once the body has ended well.

    An earlier demo in `out` stays whole until then, and comes back if the change is interrupted. UsageError if `out`
    holds anything but a demo; RefusalError if the disk is full or may not be written.
    """
    out, building, before = out.resolve(), _beside(out, "building"), _beside(out, "before")
    try:
        if before.exists() and not out.exists():  # somebody pulled the plug between the two moves below
            before.replace(out)
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out} is a file; give --out a directory.")
        names = {path.name for path in out.iterdir()} if out.exists() else set()
        if names and not {MARK} <= names <= WRITTEN:
            raise UsageError(f"{out} holds something else than a finished demo; give --out another directory.")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True, mode=0o700)
        yield building
        if out.exists():
            shutil.rmtree(before, ignore_errors=True)
            out.replace(before)
        building.replace(out)
    except OSError as error:
        raise RefusalError(
            f"{out} could not be written ({error.strerror}); what was there before is untouched. Make room, or give "
            "--out a directory that may be written.",
            RefusalCode.INTERNAL,
        ) from error
    finally:
        if before.exists() and not out.exists():
            before.replace(out)
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def _beside(out: Path, what: str) -> Path:
    whole = out.resolve()
    if not whole.name:
        raise UsageError(f"{out} is the root of the file system; give --out a directory of its own.")
    return whole.with_name(f".{whole.name}.{what}")


class _Bars:
    """Progress bars on stderr, one for each thing that is under way; what data holders log stands above them."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<38}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=Console(stderr=True),
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        # The data holders' own logs, which on one machine are all ours to see; unhandled they would tear the bars.
        self._log = RichHandler(console=self._progress.console, show_time=False, show_path=False)

    def __enter__(self) -> "_Bars":
        logging.getLogger("clients").addHandler(self._log)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        logging.getLogger("clients").removeHandler(self._log)

    def show(self, what: str, done: int, total: int) -> None:
        """Bring the bar of `what` to `done` of `total`."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)


def _print_table(report: dict[str, Any], out: Path) -> None:
    privacy, consent, metrics = report["privacy"], report["consent"], report["metrics"]
    table = Table(title=None, show_header=True, header_style="bold")
    table.add_column("held-out people, five ways")
    for name in ("AUC", "KS", "Brier"):
        table.add_column(name, justify="right")
    for key, label in (
        ("pooled", "all data in one place, no privacy"),
        ("federated", "federated, no noise"),
        ("federated_private", f"federated and private, epsilon {privacy['epsilon']:g}: the published scorecard"),
        ("local_only", "each data holder alone, no privacy"),
        ("opacus_fedavg", f"usual Opacus + FedAvg settings, epsilon {privacy['epsilon']:g}"),
    ):
        figures = metrics[key]
        table.add_row(label, *(_figure(figures[name]) for name in ("auc", "ks", "brier")))
    console = Console(width=100)
    if report["not_private"]:
        console.print("NOT PRIVATE: the noise of this run came from a seed.", style="bold red")
    console.print(table)
    console.print(
        f"epsilon {privacy['epsilon']:g}, delta {privacy['delta']:g}; unit: {privacy['unit']}; neighbouring relation: "
        f"{privacy['adjacency']}; accountant: {privacy['accountant']}. Leaves out: see the report."
    )
    console.print(
        f"{consent['rows_permitted']:,} of {consent['rows_held']:,} rows permitted; rows used without consent: "
        f"{consent['rows_used_without_consent']}. {report['seconds']:.0f} s."
    )
    for name in ("report.html", "report.json", "bundle/", "federation/"):
        console.print(f"  {out}/{name}")


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
