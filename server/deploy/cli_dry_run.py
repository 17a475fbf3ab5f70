"""`fedcredit coordinator dry-run`: who would take part in a run of a plan, and what the run would cost."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from privacy.errors import RefusalCode, RefusalError

if TYPE_CHECKING:
    from server.deploy.dry_run import DryRuns
    from server.deploy.settings import Home


@click.command("dry-run", epilog="Example: fedcredit coordinator dry-run --directory open-scoring")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default=True,
    help="The coordinator's directory.",
)
@click.option("--plan", "digest", default=None, help="Digest of a signed plan; else the current one.")
@click.option(
    "--deadline", type=click.FloatRange(0.1, 86_400), default=None,
    help="Seconds to wait for answers; else run.answer_deadline_s.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def dry_run(directory: Path, digest: str | None, deadline: float | None, as_json: bool) -> None:
    """Ask every data holder about a signed plan, and print what a run of it would be.

    Who would take part, with about how many people (with noise, within two deviations); who refuses, what that means
    and whose task it is; what a run would cost a person, in epsilon, and everybody, in bytes and time. No run is begun
    and nobody trains. It is not free: each answer costs the people counted a little of a budget that is set aside for
    being counted, and counts as one of the openings that a data holder allows a day. Asking again about the same plan
    over the same lanes costs nothing more.

    Exit code 3 if too few data holders for the plan would take part.
    """
    from server.deploy.dry_run_told import tell
    from server.deploy.settings import Home

    asked = _dry_runs(Home.open(directory)).ask(plan=digest, deadline_s=deadline)
    facts, lines = tell(asked)
    click.echo(json.dumps(facts, indent=2) if as_json else "\n".join(lines))
    needed = facts["minimum_holders"]
    if not needed["met"]:
        raise RefusalError(
            f"{needed['found']} data holders would take part and the plan needs {needed['needed']}: a run would end "
            "before it begins. Ask the operators of the others, then ask again, or write a plan that fits.",
            RefusalCode.COHORT,
        )


def _dry_runs(home: "Home") -> "DryRuns":
    from server.deploy.dry_run import DryRuns
    from server.deploy.flower_run import over_flower

    return DryRuns(home, over_flower, time.monotonic, lambda what: click.echo(f"{what} ...", err=True), time.time)
