"""`fedcredit coordinator serve`: the program that data holders dial in to."""

from pathlib import Path

import click

from federated.logs import LogForm, log_format_option


@click.command(epilog="Example: fedcredit coordinator serve --directory coordinator")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), default=Path(), show_default=True,
              metavar="DIR", help="The coordinator's directory.")  # fmt: skip
@log_format_option
def serve(directory: Path, log_form: LogForm) -> None:
    """Let enrolled data holders connect, until SIGTERM or Ctrl-C. Runs are started by `fedcredit coordinator run`.

    Flower's SuperLink runs as a child of this program, on this machine only; before it stands a door that passes on
    what enrolled nodes ask, and nothing else. Whoever is enrolled or revoked meanwhile is so at once.

    SuperLink does what any program on this machine asks of it, under whatever account: keep the coordinator's machine
    for the coordinator alone.
    """
    from federated.logs import setup
    from server.deploy.serve import serve as run
    from server.deploy.settings import Home

    setup(log_form)
    run(Home.open(directory), listening=lambda address: click.echo(f"listening on {address}"))
