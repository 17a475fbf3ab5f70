"""`fedcredit holder serve` and `status`: a data holder's programs, run together, and how they are doing."""

import json
from pathlib import Path
from typing import Any

import click

from federated.logs import LogForm, log_format_option

PATH = click.Path(path_type=Path)
directory_option = click.option(
    "--directory", type=PATH, default=Path(), show_default=True, help="The data holder's directory."
)


@click.command(epilog="Example: fedcredit holder serve --directory aster-bank")
@click.option("--sync/--no-sync", default=True, show_default=True,
              help="Also run `holder sync --watch`: withdrawals arrive and keys are published in time.")  # fmt: skip
@directory_option
@log_format_option
def serve(sync: bool, directory: Path, log_form: LogForm) -> None:
    """Answer the coordinator's messages until SIGTERM or Ctrl-C: the one command that a data holder keeps running.

    It dials out and needs no inbound port. Programs that end are started again; what each prints is in serving/*.log.
    Only this installation's own code answers, and only to app bundles that policy.bundles lists.
    """
    from clients.holder.serve import Serving, holder_in, stopped_by_signals
    from clients.holder.serve import serve as run
    from federated.logs import setup

    setup(log_form)
    serving = Serving(directory, holder_in(directory), log_form, sync, click.echo)
    with stopped_by_signals() as stop:
        run(serving, stop)


@click.command(epilog="Example: fedcredit holder status --directory aster-bank --json")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@directory_option
def status(as_json: bool, directory: Path) -> None:
    """Whether this data holder is served, connected and ready; its last answer; its lane and ledger; what to do."""
    import time

    from clients.holder.serve_told import tell_status

    facts, lines = tell_status(directory, at=int(time.time()))
    _tell(as_json, facts, lines)


def _tell(as_json: bool, facts: dict[str, Any], lines: list[str]) -> None:
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for line in lines:
            click.echo(line)
