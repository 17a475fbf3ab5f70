"""Entry of the command line. Commands are named here and imported only when used, so that help is instant."""

import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from privacy.errors import FedcreditError

# Named, not imported: this room may not import the rooms whose programs it starts.
COMMANDS = {
    "demo": ("experiments.demo_cli", "Run a whole private federation on real data and write a report."),
    "train": (
        "experiments.demo_cli",
        "Run the plan of a federation that the demo left on disk.",
    ),
    "wallet": ("clients.wallet.cli", "A person's own side: keys, consent records, receipts."),
    "holder": ("clients.holder.cli", "A data holder: its desk, its lane, its node, and what leaves the house."),
    "coordinator": ("server.deploy.cli", "Whoever plans a run and combines what data holders release."),
    "registry": ("server.registry.cli", "The consent registry: append-only lanes of records that it cannot read."),
    "audit": ("clients.audit.cli", "Open a run to an auditor; replay every decision; audit what is claimed."),
    "up": ("experiments.up_cli", "A whole federation of real processes on this machine."),
    "down": ("experiments.up_cli", "End what `fedcredit up` has started."),
    "doctor": ("federated.doctor_cli", "What is wrong in a party's directory or around it, and how to mend it."),
    "units": ("federated.doctor_cli", "A systemd unit for the program that serves a party's directory."),
    "schema": ("federated.schema_cli", "Draft a schema from a table; check a table against a schema."),
    "bench": ("experiments.bench_cli", "Measure the figures that the project promises, side by side."),
}

# Packages that only some commands need, and the extra that installs them.
EXTRAS = {
    "dp_accounting": "accounting",
    "lightgbm": "experiments",
    "jinja2": "experiments",
    "matplotlib": "experiments",
    "opacus": "opacus",
    "sklearn": "experiments",
    "fastapi": "registry",
    "httptools": "coordinator",
    "uvloop": "coordinator",
    "prometheus_client": "coordinator",
    "psycopg": "postgresql",
    "pyarrow": "parquet",
    "sqlalchemy": "registry",
    "uvicorn": "coordinator",
    "threadpoolctl": "experiments",
    "torch": "opacus",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """The names of the commands, in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (click's)
        """The command of that name, imported now, or None."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name][0]}.{cmd_name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's)
        """The table of commands, from the texts above: no command is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog="Example: fedcredit demo --out runs/demo")
@click.version_option(package_name="fedcredit", prog_name="fedcredit")
def fedcredit() -> None:
    """A credit score from data nobody pools, using only the sources the person said yes to."""


def main() -> NoReturn:
    """Run the command; a failure that a person can act on is one text and an exit code, never a traceback."""
    # Our matrices are small: on a busy machine a second thread waits many times as long as it works.
    for library in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(library, "1")
    try:
        fedcredit(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo(
            "Stopped. Nothing half-written is left: the same command starts anew, or goes on where it was.", err=True
        )
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        click.echo(f"Usage: this command needs {error.name}, which is not installed; run: "
                   f"pip install 'fedcredit[{extra}]'", err=True)  # fmt: skip
        sys.exit(2)
    except FedcreditError as error:
        click.echo(f"{type(error).__name__.removesuffix('Error')}: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)
