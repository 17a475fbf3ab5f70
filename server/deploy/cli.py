"""`fedcredit coordinator`: make a coordinator, plan, run, look, stop, go on, publish."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.deploy.cli_dry_run import dry_run
from server.deploy.cli_enrol import certificates, enroll
from server.deploy.cli_serve import serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.deploy.planning import Told
    from server.deploy.runs import Finished, Runs

_directory = click.option(
    "--directory", type=click.Path(path_type=Path, file_okay=False), default=Path(), show_default=True, metavar="DIR",
    help="The coordinator's directory.",
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_deadline = click.option("--deadline", type=click.FloatRange(min=0, min_open=True), default=None, metavar="SECONDS",
                         help="Wait so long for answers, instead of run.answer_deadline_s.")  # fmt: skip
_address = click.option("--address", required=True, metavar="HOST:PORT", help="Where data holders will dial in.")


@click.group(epilog="Example: fedcredit coordinator init open-scoring --help")
def coordinator() -> None:
    """Whoever plans a run and combines what data holders release: it sees no rows."""


for _command in (enroll, certificates, serve, dry_run):
    coordinator.add_command(_command)


@coordinator.command(
    epilog="Example: fedcredit coordinator init coordinator --name open-scoring --address scoring.example:9443 "
    "--schema schema.toml --registry-url https://registry.example:8443 --registry-key $REGISTRY_KEY "
    "--registry-ca registry.pem"
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", required=True, help="Its name, as data holders' policies and people's consents give it.")
@_address
@click.option("--schema", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
              help="The schema that all parties agreed on; it is copied.")  # fmt: skip
@click.option("--registry-url", required=True, help="Where the consent registry serves.")
@click.option("--registry-key", required=True, metavar="HEX", help="The registry's public key.")
@click.option("--registry-ca", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=None,
              help="Certificates (PEM) that vouch for it; without them the system's trust.")  # fmt: skip
@click.option("--host", default=None, help="Address that the proxy listens on; without it that of --address, if that "
              "is this machine alone, and all of them otherwise.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65_535), default=None, help="Its port; without it that of --address.")
@click.option("--superlink-port", type=click.IntRange(1, 65_535), default=9092, show_default=True,
              help="Port of 127.0.0.1 for Flower's SuperLink.")  # fmt: skip
@click.option("--metrics-port", type=click.IntRange(0, 65_535), default=0, show_default=True,
              help="Port of 127.0.0.1 for Prometheus metrics; 0 is none.")  # fmt: skip
@click.option("--epsilon", type=click.FloatRange(0, 100, min_open=True), default=1.0, show_default=True,
              help="What one run may cost a person, at delta 1e-5.")  # fmt: skip
@click.option("--people", type=click.IntRange(min=1), default=10_000, show_default=True,
              help="A public guess at how many people will be trained on.")  # fmt: skip
@click.option("--most-people", type=click.IntRange(min=1), default=1_000_000, show_default=True,
              help="No more people than this are in all data holders' tables; all must agree on it.")  # fmt: skip
@click.option("--minimum-people", type=click.IntRange(min=1), default=30, show_default=True,
              help="The fewest permitted people at a data holder that takes part.")  # fmt: skip
@click.option("--minimum-holders", type=click.IntRange(min=1), default=2, show_default=True,
              help="The fewest data holders of a run.")  # fmt: skip
@click.option("--dropouts-tolerated", type=click.IntRange(min=0), default=0, show_default=True,
              help="How many of them may leave in one round.")  # fmt: skip
@_json
def init(directory: Path, as_json: bool, **start: object) -> None:
    """Make a coordinator's DIRECTORY: key, certificates, settings. Nothing is ever overwritten."""
    from privacy.consent.linking import fingerprint
    from server.deploy.setup import Start, make_home

    home = make_home(directory, Start(**start), at=_now())  # type: ignore[arg-type]  # click has checked each
    public = home.key().public
    if as_json:
        _print({"directory": str(directory), "key": public.hex(), "fingerprint": fingerprint(public)})
    else:
        click.echo(f"coordinator key (data holders need it): {public.hex()}")
        click.echo(f"fingerprint, to compare by telephone: {fingerprint(public)}")
    click.echo(f"keep {directory}/coordinator.key and {directory}/tls/ca.key secret, and copies of them safe", err=True)
    click.echo(
        f"next: look through {directory}/coordinator.toml; take data holders in (fedcredit coordinator enroll); then "
        f"fedcredit coordinator serve --directory {directory}",
        err=True,
    )


@coordinator.command(epilog="Example: fedcredit coordinator plan --directory coordinator --name autumn")
@_directory
@click.option("--name", default="scorecard", show_default=True, help="The plan's name, for people.")
@click.option("--holders", default=None, metavar="A,B,C", help="Some of the data holders enrolled, instead of all.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=None,
              help="Write the signed plan to this file as well.")  # fmt: skip
@click.option("--show", default=None, metavar="DIGEST", help="Show a plan that was signed before; nothing is written.")
@_json
def plan(directory: Path, name: str, holders: str | None, out: Path | None, show: str | None, as_json: bool) -> None:
    """Write and sign the next training plan from coordinator.toml and who is enrolled; it becomes the current one."""
    import msgspec

    from federated.files import write_whole
    from server.deploy.planning import make_plan, shown, sign
    from server.deploy.runs import signed_plan
    from server.deploy.settings import Home

    home = Home.open(directory)
    if show is not None:
        told = shown(home, signed_plan(home, show))
    else:
        chosen = None if holders is None else [one.strip() for one in holders.split(",")]
        at = _now()
        told = sign(home, *make_plan(home, name, holders=chosen, at=at), at=at)
    if out is not None:
        write_whole(out, msgspec.json.encode(told.signed))
    if as_json:
        _print(told.to_dict())
        return
    _tell_plan(told)
    if show is None:
        click.echo("next: fedcredit coordinator dry-run, or fedcredit coordinator run", err=True)


@coordinator.command(epilog="Example: fedcredit coordinator run --directory coordinator")
@_directory
@click.option("--plan", default=None, metavar="DIGEST", help="A plan signed before, instead of the current one.")
@click.option("--abandon", is_flag=True, help="Give up a run that was begun and not finished: what it has charged "
              "stays charged, and is of no use.")  # fmt: skip
@_deadline
@_json
def run(directory: Path, plan: str | None, abandon: bool, deadline: float | None, as_json: bool) -> None:
    """Run the current plan, pinned to the newest heads of the data holders' lanes.

    Ctrl-C, SIGTERM and `fedcredit coordinator stop` end it in order, with exit code 130; `fedcredit coordinator resume`
    goes on, as it does after a crash.
    """
    _carry_out(directory, lambda runs: runs.run(plan=plan, deadline_s=deadline, abandon=abandon), as_json=as_json)


@coordinator.command(epilog="Example: fedcredit coordinator resume --directory coordinator")
@_directory
@_deadline
@_json
def resume(directory: Path, deadline: float | None, as_json: bool) -> None:
    """Go on with the run that was begun and not finished, with its own plan: what was answered is not asked again."""
    _carry_out(directory, lambda runs: runs.resume(deadline_s=deadline), as_json=as_json)


@coordinator.command(epilog="Example: fedcredit coordinator stop --directory coordinator")
@_directory
@_json
def stop(directory: Path, as_json: bool) -> None:
    """End the run that is under way, in order, and wait until it has ended; it can be gone on with."""
    from server.deploy.settings import Home
    from server.deploy.stopping import stop_run

    process = stop_run(Home.open(directory))
    if as_json:
        _print({"stopped": process})
    else:
        click.echo("the run has ended; go on with it: fedcredit coordinator resume")


@coordinator.command(epilog="Example: fedcredit coordinator status --directory coordinator --json")
@_directory
@_json
def status(directory: Path, as_json: bool) -> None:
    """How things stand, what the last run did, whether the round log holds, and what to do next.

    What cannot be relied on is named, with its exit code: 4 for what cannot be read, 5 for what was tampered with.
    """
    from dataclasses import asdict

    from server.deploy.settings import Home
    from server.deploy.status import lines, report

    told, gravest = report(Home.open(directory), at=_now())
    if as_json:
        _print(asdict(told))
    else:
        click.echo("\n".join(lines(told)))
    if gravest is not None:
        sys.exit(gravest.exit_code)  # its text is in the report


@coordinator.command(epilog="Example: fedcredit coordinator publish --directory coordinator --out bundle")
@_directory
@click.option("--run", default=None, metavar="RUN", help="A finished run, instead of the last one.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR",
              help="A new directory for the bundle.")  # fmt: skip
@_json
def publish(directory: Path, run: str | None, out: Path, as_json: bool) -> None:
    """Write the signed bundle of a finished run: scorecard, model, privacy statement, metrics, parity vectors."""
    from server.deploy.publish import publish as write
    from server.deploy.settings import Home

    written = write(Home.open(directory), out, run=run, at=_now())
    if as_json:
        _print({"run": written.run, "directory": str(written.directory), "manifest": written.manifest})
    else:
        click.echo(f"run {written.run} is published in {out}; SHA-256 of its manifest: {written.manifest}")


def _carry_out(directory: Path, what: "Callable[[Runs], Finished]", *, as_json: bool) -> None:
    import time

    from server.deploy.flower_run import over_flower
    from server.deploy.runs import Runs
    from server.deploy.screen import Screen
    from server.deploy.settings import Home
    from server.deploy.stopping import EXIT_CODE, Stopped, stoppable

    home = Home.open(directory)
    try:
        with Screen() as screen, stoppable():
            done = what(Runs(home, over_flower, time.time, tell=screen.show))
    except Stopped:
        click.echo("Stopped. Nothing is lost: fedcredit coordinator resume goes on where it was.", err=True)
        sys.exit(EXIT_CODE)
    if as_json:
        _print(
            {"run": done.run, "plan": done.plan, "directory": str(done.directory), "holders": list(done.holders),
             "refused": done.refused, "was_there": done.was_there}
        )  # fmt: skip
        return
    if done.was_there:
        click.echo("this plan over these lane heads was run before, and nobody was asked anything", err=True)
    click.echo(f"run {done.run} of plan {done.plan[:16]}: {len(done.holders)} data holders; the model is in "
               f"{done.directory}")  # fmt: skip
    for holder, reason in sorted(done.refused.items()):
        click.echo(f"not in it: {holder} ({reason})")
    click.echo("next: fedcredit coordinator publish --out DIR", err=True)


def _tell_plan(told: "Told") -> None:
    from datetime import UTC, datetime

    plan, privacy = told.plan, told.plan.privacy
    ends = datetime.fromtimestamp(plan.ends, UTC)
    click.echo(f"plan {told.signed.digest}")
    click.echo(f"data holders: {', '.join(entry.holder for entry in plan.roster)}; at least {plan.minimum_holders}")
    click.echo(f"recipe: {told.recipe.name.value}. {plan.reason}")
    click.echo(
        f"privacy: epsilon {privacy.epsilon:g} for training and {privacy.measurement_epsilon:g} for the measurement, "
        f"delta {privacy.delta:g}; unit: one person; neighbouring relation: add or remove one person; accountant: "
        f"{told.recipe.accountant}; trust: {plan.trust.value}. It leaves out:"
    )
    for text in told.excludes:
        click.echo(f"  - {text}")
    click.echo(
        f"{told.recipe.rounds} rounds and the measurement, {told.exchanges} exchanges; each data holder sends "
        f"{told.bytes_sent:,} bytes of numbers and shares"
    )
    click.echo(f"good until {ends:%Y-%m-%d %H:%M} UTC")


def _now() -> int:
    import time

    return int(time.time())


def _print(value: object) -> None:
    import json

    click.echo(json.dumps(value, indent=2, allow_nan=False))
