"""`fedcredit doctor` and `fedcredit units`: is a directory fit to be served, and how would systemd serve it?"""

import json
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from privacy.errors import RefusalCode, RefusalError, UsageError

# By the settings file that a directory has: the role, and the module that knows what to look at. Named, not imported:
# this room may not import the rooms of the roles.
ROLES: Final = {
    "holder.toml": ("data holder", "clients.holder.doctor"),
    "coordinator.toml": ("coordinator", "server.deploy.doctor"),
    "registry.toml": ("registry", "server.registry.doctor"),
}

_directory = click.argument("directory", type=click.Path(path_type=Path, file_okay=False))


@click.command(epilog="Example: fedcredit doctor aster-bank && fedcredit doctor coordinator --json --offline")
@_directory
@click.option("--offline", is_flag=True, help="Ask nobody over the network, and say what was not asked.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(directory: Path, offline: bool, as_json: bool) -> None:
    """Look whether a data holder's, coordinator's or registry's DIRECTORY is fit to be served, and how to mend it.

    Exit code 3 if there is a problem; a warning can wait. The program may be running meanwhile.
    """
    from federated.doctor import Place, State, as_plain, count, examine, table

    role, module = ROLES[settings_file(directory)]
    findings = examine(import_module(module).checks(Place(directory, offline=offline)))
    if as_json:
        click.echo(json.dumps(as_plain(role, findings), indent=2))
    else:
        click.echo("\n".join(table(findings)))
    if problems := count(findings, State.PROBLEM):
        raise RefusalError(
            f"{problems} of {len(findings)} checks of this {role}'s directory found a problem; each says how to mend "
            "it.",
            RefusalCode.INTERNAL,
        )


@click.command(epilog="Example: fedcredit units aster-bank --account aster --out /etc/systemd/system")
@_directory
@click.option("--account", default="fedcredit", show_default=True, help="The account that owns DIRECTORY.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False, exists=True), default=None,
              help="Write the unit to its file there; else it is printed.")  # fmt: skip
def units(directory: Path, account: str, out: Path | None) -> None:
    """Show how systemd would serve a data holder's, coordinator's or registry's DIRECTORY: a commented unit.

    Nothing is started, and no file that is there is overwritten.
    """
    from federated.units import unit_for, write_unit

    role, _ = ROLES[settings_file(directory)]
    unit = unit_for(role, directory, account=account)
    if out is None:
        click.echo(unit.text, nl=False)
        click.echo(f"next: save this as /etc/systemd/system/{unit.name}", err=True)
        return
    click.echo(f"unit written to {write_unit(unit, out)}")
    click.echo(f"next: systemctl daemon-reload && systemctl enable --now {unit.name}", err=True)


def settings_file(directory: Path) -> str:
    """The settings file that says whose directory it is. UsageError if there is none, or more than one."""
    there = [name for name in ROLES if (directory / name).is_file()]
    if len(there) != 1:
        found = " and ".join(there) or "neither of " + ", ".join(ROLES)
        raise UsageError(
            f"{directory} has {found}, so it is not clear whose directory it is. Name the directory of one data "
            "holder, coordinator or registry."
        )
    return there[0]
