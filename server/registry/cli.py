"""`fedcredit registry`: make, serve, look at and verify a consent registry."""

import json
import logging
import time
from pathlib import Path

import click

from federated.logs import LogForm, log_format_option, setup
from privacy.errors import UsageError
from server.registry.settings import KEY_FILE, SETTINGS_FILE, Home, has_password

_directory = click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(epilog="Example: fedcredit registry init registry --self-signed && fedcredit registry serve registry")
def registry() -> None:
    """The consent registry: append-only lanes of records that it cannot read."""


@registry.command(epilog="Example: fedcredit registry init registry --self-signed --lane aster-bank=$IDENTITY_HEX")
@_directory
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8443, show_default=True, help="0 takes a free one.")
@click.option("--self-signed", is_flag=True, help="Make a certificate that no authority vouches for.")
@click.option("--name", default=None, help="Host name in that certificate, if it is not --host.")
@click.option("--database", default="sqlite:///registry.db", show_default=True,
              help="SQLite or PostgreSQL by URL, without a password: that belongs into ~/.pgpass, or, with all of the "
              "URL, into registry.toml afterwards.")  # fmt: skip
@click.option("--lane", "lanes", multiple=True, metavar="NAME=HEX",
              help="A data holder and its identity key; may be repeated.")  # fmt: skip
def init(
    directory: Path, host: str, port: int, self_signed: bool, name: str | None, database: str, lanes: tuple[str, ...]
) -> None:
    """Make a registry's DIRECTORY: key, settings and, if asked for, a certificate. Nothing is ever overwritten."""
    from server.registry.setup import make_home

    if has_password(database):
        raise UsageError(
            "--database has a password in it, which others on this machine can read while the command runs. Put it "
            "into ~/.pgpass and leave it out here; or leave --database out and write the whole URL into registry.toml "
            "afterwards. Change the password first: it was shown."
        )
    made = make_home(
        directory, host=host, port=port, database=database, lanes=lanes, at=int(time.time()),
        certified_name=(name or host) if self_signed else None,
    )  # fmt: skip
    click.echo(f"registry key (data holders and wallets need it): {made.key().public.hex()}")
    click.echo(f"keep {directory / KEY_FILE} secret, and a copy of it safe", err=True)
    if made.settings.encrypted and not self_signed:
        missing = f"{made.settings.certificate} and {made.settings.private_key}"
        click.echo(f"put {missing} (PEM) into {directory} before you serve", err=True)
    click.echo(f"next: look through {directory / SETTINGS_FILE}, then: fedcredit registry serve {directory}", err=True)


@registry.command(epilog="Example: fedcredit registry lane registry aster-bank=$IDENTITY_HEX")
@_directory
@click.argument("lane", metavar="NAME=HEX")
def lane(directory: Path, lane: str) -> None:
    """Give a data holder a lane at the registry in DIRECTORY: its name, and the identity key that it told you.

    Compare the fingerprint that is shown by telephone. A registry that is serving takes the lane up when it is started
    again.
    """
    from privacy.consent.linking import fingerprint
    from server.registry.setup import add_lane

    name = add_lane(directory, lane)
    identity = Home.open(directory).settings.identities[name]
    click.echo(f"lane {name} is there, for the data holder whose fingerprint is: {fingerprint(identity)}")
    click.echo("start the registry again if it is serving", err=True)


@registry.command(epilog="Example: fedcredit registry serve registry --log-format json")
@_directory
@log_format_option
def serve(directory: Path, log_form: LogForm) -> None:
    """Serve the registry in DIRECTORY until SIGTERM or Ctrl-C; what is queued then is still stored and answered.

    Besides lanes it serves /healthz, and /metrics for Prometheus: counts and durations, no tag and no address. Whoever
    reaches the registry reaches both; the sizes of lanes are public in any case.
    """
    from server.registry.serve import serve as run

    # Warnings and failures. No access log: it would say who asked for what.
    setup(log_form, level=logging.WARNING)
    run(Home.open(directory), listening=lambda address: click.echo(f"listening on {address}"))


@registry.command(epilog="Example: fedcredit registry status https://registry.example:8443 --json")
@click.argument("place", metavar="DIRECTORY|URL")
@click.option("--ca", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=None,
              help="Certificate (PEM) to trust for a URL; without it the system's.")  # fmt: skip
@_json
def status(place: str, ca: Path | None, as_json: bool) -> None:
    """Lanes with their sizes and roots, and whether the registry is well: from its DIRECTORY, or asked over HTTP."""
    from server.registry.status import status_at, status_in

    at_url = place.startswith(("https://", "http://"))
    found = status_at(place, None if ca is None else ca.read_text("utf-8")) if at_url else status_in(Path(place))
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
        return
    click.echo(f"health: {found['health']}")
    for lane, head in found["lanes"].items():
        click.echo(f"{lane}: {head['size']:,} entries, root {head['root']}")


@registry.command(epilog="Example: fedcredit registry verify registry")
@_directory
@_json
def verify(directory: Path, as_json: bool) -> None:
    """Read every lane of the registry in DIRECTORY whole and say exactly what does not hold (exit code 5)."""
    from server.registry.verify import verify_database

    lanes = verify_database(Home.open(directory))
    if as_json:
        told = {
            name: {"entries": lane.entries, "erased": lane.erased, "root": lane.root.hex()}
            for name, lane in lanes.items()
        }
        click.echo(json.dumps({"lanes": told}, indent=2, allow_nan=False))
        return
    for name, lane in lanes.items():
        click.echo(f"{name}: {lane.entries:,} entries hold, {lane.erased:,} of them erased, root {lane.root.hex()}")
    click.echo(f"{len(lanes)} lanes hold")
