"""`fedcredit up` and `down`: a whole federation of real programs on this machine, and its end."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import click

from federated.logs import LogForm, log_format_option
from privacy.errors import RefusalCode, RefusalError, UsageError

DATA = Path(__file__).parent / "data" / "taiwan_default"


@click.command(epilog="Example: fedcredit up runs/up --holders 3")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--holders", type=click.IntRange(min=2), default=3, show_default=True, help="How many data holders.")
@click.option("--people", type=click.IntRange(min=300), default=3000, show_default=True,
              help="How many people of the embedded data are spread over them.")  # fmt: skip
@click.option("--epsilon", type=click.FloatRange(min=0.05, max=100), default=1.0, show_default=True,
              help="What one run may cost a person, at delta 1e-5; the coordinator's settings have it.")  # fmt: skip
@log_format_option
def up(directory: Path, holders: int, people: int, epsilon: float, log_form: LogForm) -> None:
    """Run a whole federation in DIRECTORY as real programs, until SIGTERM, Ctrl-C or `fedcredit down`.

    Consent registry, SuperLink behind the coordinator's door, and a node for each data holder, over TLS on addresses of
    this machine. A DIRECTORY that is not there is made first: the embedded data spread over data holders, people who
    consent, everybody enrolled. One that is there is started again as it is.
    """
    from clients.holder.serve import stopped_by_signals
    from experiments.deployment import Deployment
    from federated.logs import setup

    setup(log_form)
    if not directory.exists():
        _make(directory, holders, people, epsilon, lambda text: click.echo(f"{text} ...", err=True))
    deployment = Deployment(directory)
    click.echo(f"starting {len(deployment.programs())} programs; their logs are in {directory}/logs ...", err=True)
    with stopped_by_signals() as stop:
        deployment.run(lambda address: click.echo(f"listening on https://{address}"), stop)


@click.command(epilog="Example: fedcredit down runs/up")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
def down(directory: Path) -> None:
    """End the federation that `fedcredit up` runs in DIRECTORY, and wait until nothing of it is left."""
    from experiments.deployment import DOWN_S, LOCK, PID
    from federated.lock import holder_of, is_held

    lock = directory / LOCK
    if not is_held(lock):
        raise UsageError(f"no federation runs in {directory}, so there is none to end.")
    try:
        pid = int((directory / PID).read_text(encoding="ascii"))
        if not holder_of(lock, pid):  # the directory may be somebody else's making, and the number anybody's
            raise ProcessLookupError
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError) as error:
        raise RefusalError(
            f"The federation in {directory} could not be told to end ({type(error).__name__}). End it where it was "
            "started, with Ctrl-C.",
            RefusalCode.INTERNAL,
        ) from None
    end = time.monotonic() + DOWN_S
    while is_held(lock):
        if time.monotonic() > end:
            raise RefusalError(
                f"The federation was told to end and has not, after {DOWN_S:g} s. Its logs in {directory}/logs may say "
                "why.",
                RefusalCode.INTERNAL,
            )
        time.sleep(0.1)
    click.echo("down; nothing of it is left running")


def _make(directory: Path, holders: int, people: int, epsilon: float, tell: Callable[[str], None]) -> None:
    from dataclasses import replace

    from experiments.demo_cli import replacing
    from experiments.deployment import deploy
    from experiments.federation import Federation, PublicData
    from experiments.people import populate
    from experiments.registry_place import RegistryPlace
    from experiments.workers import workers
    from server.rounds import no_progress

    at = int(time.time())
    with replacing(directory) as building:
        tell("making every party's directory")
        data = PublicData.load(DATA / "schema.toml", DATA / "data.csv.gz")
        data = replace(data, lines=data.lines[:people])
        population = populate(data.outcome(), holders, everybody_agrees=False)
        place = RegistryPlace.on_this_machine(at=at)
        federation = Federation(building, data, population, seed=None, at=at, registry=place)
        federation.write_parties()
        tell(f"letting {people} people write their consents")
        with federation.start_registry() as registry, workers(people) as pool:
            federation.write_consents(registry, no_progress, pool)
            federation.settle(pool, no_progress)
        tell("enrolling the data holders with the coordinator")
        deploy(federation, epsilon=epsilon, at=at)
