"""`fedcredit holder check` and `preview`: is everything in order, and what would a plan send out. Both only look."""

import json
import time
from pathlib import Path

import click

from privacy.errors import RefusalCode, RefusalError

PATH = click.Path(path_type=Path)

directory_option = click.option(
    "--directory", type=PATH, default=Path(), show_default=True, help="The data holder's directory."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.command(epilog="Example: fedcredit holder check --directory aster-bank")
@click.option("--offline", is_flag=True, help="Do not ask the registry.")
@directory_option
@json_option
def check(offline: bool, directory: Path, as_json: bool) -> None:
    """Go through everything that this data holder needs before it serves. Nothing is changed.

    Exit code 0 if there is no problem (there may be warnings), 3 if there is. The figures stay in the house. Tables are
    read to their customers' column; what the other cells hold, `fedcredit schema check` looks at.
    """
    from clients.holder.check import findings
    from clients.holder.check_told import facts, lines
    from clients.holder.finding import State

    found = findings(directory, at=int(time.time()), ask_registry=not offline)
    if as_json:
        click.echo(json.dumps(facts(found)))
    else:
        for line in lines(found):
            click.echo(line)
    problems = sum(finding.state is State.PROBLEM for finding in found)
    if problems:
        raise RefusalError(
            f"{problems} of {len(found)} things are not in order; the table says what to do about each. The data "
            "holder should mend them before it serves.",
            RefusalCode.POLICY,
        )


@click.command(epilog="Example: fedcredit holder preview plan.json --checkpoints checkpoints.json "
               "--directory aster-bank")  # fmt: skip
@click.argument("plan", metavar="PLAN.json", type=PATH)
@click.option("--checkpoints", type=PATH, default=None, help="The coordinator's checkpoints.json: the run's name, too.")
@directory_option
@json_option
def preview(plan: Path, checkpoints: Path | None, directory: Path, as_json: bool) -> None:
    """List everything that PLAN.json would make leave the house, and what it costs, before anything leaves.

    Every letter in order, with its bytes; what it is made of; epsilon for one person; and what our policy says to each
    of the plan's terms. Nobody is asked, nothing is charged or written. The plan is the coordinator's signed file.
    """
    from clients.holder.look import looking
    from clients.holder.preview import preview_of, read_checkpoints_file, read_plan_file
    from clients.holder.preview_told import tell

    signed, at = read_plan_file(plan), int(time.time())
    pinned = None if checkpoints is None else read_checkpoints_file(checkpoints)
    with looking(directory) as look:
        told, text = tell(preview_of(look, signed, pinned, at=at), at=at)
    if as_json:
        click.echo(json.dumps(told))
    else:
        for line in text:
            click.echo(line)
