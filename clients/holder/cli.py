"""`fedcredit holder`: the data holder's desk, its lane and its keys. What it prints stays in the house."""

import json
import time
from pathlib import Path
from typing import Any

import click

from clients.holder.cli_join import join
from clients.holder.cli_policy import check, preview
from clients.holder.cli_serve import serve, status
from federated.logs import LogForm, log_format_option, setup
from privacy.consent.record import Purpose
from privacy.errors import UsageError

PATH = click.Path(path_type=Path)
# The certificates and a large notice fit into 64 KiB; nothing that a person hands in is larger.
_MOST_BYTES = 1 << 16

directory_option = click.option(
    "--directory", type=PATH, default=Path(), show_default=True, help="The data holder's directory."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group(epilog="Example: fedcredit holder sync --directory aster-bank --watch")
def holder() -> None:
    """A data holder: its desk, its lane, its node, and what leaves the house."""


for _command in (join, check, preview, serve, status):
    holder.add_command(_command)


@holder.command(
    epilog="Example: fedcredit holder init aster-bank --holder aster-bank --registry-url https://registry.example "
    "--registry-key HEX --coordinator open-scoring --coordinator-key HEX --contact 'Box 1, Aster'"
)
@click.argument("directory", type=PATH)
@click.option("--holder", "name", required=True, help="This data holder's id, such as aster-bank.")
@click.option("--registry-url", required=True, help="Where the consent registry serves, without a final slash.")
@click.option("--registry-key", required=True, help="The registry's public key, 64 hexadecimal digits.")
@click.option("--registry-ca", type=PATH, default=None, help="Its certificates in PEM; else the system's own trust.")
@click.option("--coordinator", required=True, help="The coordinator's name, as plans and records have it.")
@click.option("--coordinator-key", required=True, help="The key that signs its plans, 64 hexadecimal digits.")
@click.option(
    "--jurisdiction", default="EU", show_default=True, help="Country code of the law that consents are under."
)
@click.option("--language", default="en", show_default=True, help="Language of the notice.")
@click.option("--contact", default="", help="Whom people turn to, for the notice; else you fill it in there.")
@click.option("--side-door", default="", help="URL where the side door will be reached; empty is nowhere.")
@json_option
def init(
    directory: Path, name: str, registry_url: str, registry_key: str, registry_ca: Path | None, coordinator: str,
    coordinator_key: str, jurisdiction: str, language: str, contact: str, side_door: str, as_json: bool,
) -> None:  # fmt: skip
    """Make a data holder's DIRECTORY: keys, commented settings, a notice to finish. Nothing is overwritten."""
    from clients.holder.init import Start, make_directory
    from privacy.consent.linking import fingerprint

    start = Start(
        holder=name, registry_url=registry_url, registry_key=registry_key, registry_ca=registry_ca,
        coordinator=coordinator, coordinator_key=coordinator_key, jurisdiction=jurisdiction, language=language,
        contact=contact, side_door=side_door,
    )  # fmt: skip
    identity = make_directory(directory, start).public
    facts = {"holder": name, "identity": identity.hex(), "fingerprint": fingerprint(identity)}
    _tell(
        as_json,
        facts,
        f"Data holder {name} is in {directory}. Keep a copy of {directory / 'keys'} in a safe place: a lost key is a "
        "lost lane.",
        f"identity     {identity.hex()}\nfingerprint  {facts['fingerprint']}",
        f"The registry's operator needs the identity for [lanes.{name}]; compare the fingerprint by telephone. Finish "
        f"{directory / 'notice.txt'} and the settings, put the schema and the tables there, then: "
        f"fedcredit holder sync --directory {directory}",
    )


@holder.command("publish-keys", epilog="Example: fedcredit holder publish-keys --directory aster-bank")
@directory_option
@json_option
def publish_keys(directory: Path, as_json: bool) -> None:
    """Publish the keys that people seal their records to, signed, for 30 days. `sync` renews them in time."""
    from clients.holder.desk import Desk, registry_of
    from clients.holder.epochs import publish

    with Desk.open(directory) as desk, registry_of(desk) as registry:
        _tell_keys(as_json, publish(desk, registry, at=_now()))


@holder.command(
    epilog="Example: fedcredit holder link 4711 --out offer.json; fedcredit holder link --answer answer.json"
)
@click.argument("customers", metavar="[CUSTOMER]...", nargs=-1)
@click.option("--out", type=PATH, default=None, help="File for one offer, or directory for several.")
@click.option("--answer", type=PATH, default=None, help="A wallet's answer to an offer.")
@click.option("--replace", is_flag=True, help="The person stands at the desk and has lost the old wallet.")
@directory_option
@json_option
def link(
    customers: tuple[str, ...], out: Path | None, answer: Path | None, replace: bool, directory: Path, as_json: bool
) -> None:
    """Offer CUSTOMERs a link to their wallets, then take each wallet's answer.

    An offer holds a random handle and never the customer number; it is good for one answer within 30 days. Hand it over
    so that only that customer gets it. Several offers lie in the order of the customers: offer-1.json, offer-2.json.
    """
    if answer is not None:
        if customers or out is not None:
            raise UsageError("--answer takes one wallet's answer: give neither customers nor --out with it.")
        _take_answer(directory, answer, replace=replace, as_json=as_json)
    elif not customers or out is None or replace:
        raise UsageError(
            "Give customers and --out to make offers, or --answer (with --replace if need be) to take an answer."
        )
    else:
        _offer(directory, customers, out, as_json=as_json)


@holder.command(epilog="Example: fedcredit holder sync --directory aster-bank --watch --every 15")
@click.option("--watch", is_flag=True, help="Sync again and again, until SIGTERM or Ctrl-C.")
@click.option("--every", type=click.IntRange(1, 86_400), default=None,
              help="Seconds between two syncs of --watch; else policy.sync_every_s.")  # fmt: skip
@directory_option
@json_option
def sync(watch: bool, every: int | None, directory: Path, as_json: bool) -> None:
    """Download what is new in this data holder's lane, verify it, and renew the published keys when it is time.

    With --watch a registry that fails is asked again; one that contradicts its signed history ends it (exit code 5).
    """
    from clients.holder.desk import Desk
    from clients.holder.watch import Failure, Syncer, Watch, bell

    def told(text: str, facts: dict[str, Any]) -> None:
        if as_json:
            click.echo(json.dumps(facts))
        else:
            click.echo(text)

    if every is not None and not watch:
        raise UsageError("--every goes with --watch; give both or neither.")
    with Syncer(Desk.open(directory), _now) as syncer:
        if not watch:
            syncer.once(told)
            return

        def failed(error: Failure) -> None:
            click.echo(f"{_utc_now()} {type(error).__name__.removesuffix('Error')}: {error}", err=True)

        interval = syncer.desk.settings.policy.sync_every_s if every is None else every
        with bell() as stop:
            Watch(lambda: syncer.once(told), failed, interval).run(stop)


@holder.command(epilog="Example: fedcredit holder consents --purpose train --to open-scoring --directory aster-bank")
@click.argument("customer", required=False)
@click.option("--purpose", type=click.Choice([purpose.value for purpose in Purpose]), default=None,
              help="Only this purpose; with --to.")  # fmt: skip
@click.option("--to", "recipient", default=None, help="Only this recipient; with --purpose.")
@directory_option
@json_option
def consents(customer: str | None, purpose: str | None, recipient: str | None, directory: Path, as_json: bool) -> None:
    """What linked customers allow at this instant, by purpose and recipient; or what one CUSTOMER said last.

    As of the last sync, with what came through the side door. These figures stay in the house: two of them, a day
    apart, tell who withdrew.
    """
    from clients.holder.consents import targets_of
    from clients.holder.consents_told import tell_counts, tell_one
    from clients.holder.desk import Desk

    asked = targets_of(purpose, recipient)
    with Desk.open(directory) as desk:
        facts, lines = (
            tell_counts(desk, asked, at=_now()) if customer is None else tell_one(desk, customer, asked, at=_now())
        )
    _tell(as_json, facts, *lines)


@holder.command(epilog="Example: fedcredit holder ledger --customer 4711 --directory aster-bank")
@click.option("--customer", default=None, help="What was spent of this linked customer's cap, for the person to know.")
@directory_option
@json_option
def ledger(customer: str | None, directory: Path, as_json: bool) -> None:
    """What every release has cost, and whom it cost how much: the privacy ledger.

    Without --customer each release with its cost as mu and epsilon, how that was accounted for and what it does not
    cover. Nothing is ever refunded. No output holds a handle; counts of people stay in the house.
    """
    from clients.holder.desk import Desk
    from clients.holder.ledger_told import ledger_of, tell_person, tell_releases

    with Desk.open(directory) as desk, ledger_of(desk) as opened:
        facts, lines = tell_releases(desk, opened) if customer is None else tell_person(desk, opened, customer)
    _tell(as_json, facts, *lines)


@holder.command(epilog="Example: fedcredit holder rotate --directory aster-bank")
@click.option("--destroy", type=click.IntRange(min=1), default=None, metavar="EPOCH",
              help="Destroy this old epoch's key instead, once nothing can be sealed to it any more.")  # fmt: skip
@directory_option
@json_option
def rotate(destroy: int | None, directory: Path, as_json: bool) -> None:
    """Make a new key for records and publish it; old ones keep opening what was sealed to them.

    `holder serve` and `sync --watch` take the new key up by themselves. A side door that runs must be started again:
    with the old keys alone it refuses to take records.
    """
    from clients.holder import epochs, lane_epochs
    from clients.holder.desk import Desk, registry_of

    with Desk.open(directory) as desk:
        if destroy is not None:
            epochs.destroy(desk, destroy, at=_now())
            _tell(
                as_json,
                {"destroyed": destroy},
                f"The key of epoch {destroy} is destroyed: overwritten and emptied. What it opened stays in the lane "
                "copy; what it did not open never will be. Copies of the key are yours to destroy. An SSD or a "
                "snapshot may keep the old blocks until it reuses them: only a disk encrypted as a whole ends that.",
            )
            return
        with registry_of(desk) as registry:
            lane_epochs.announce(desk.lane, epochs.new_epoch(desk, at=_now()))
            _tell_keys(as_json, epochs.publish(desk, registry, at=_now()))
        if not as_json:
            click.echo("Start the side door again if you run one, and copy the new key to where the others are kept.")


@holder.command(epilog="Example: fedcredit holder erase 4711 --directory aster-bank")
@click.argument("customer")
@directory_option
@json_option
def erase(customer: str, directory: Path, as_json: bool) -> None:
    """Erase all that consent has left about CUSTOMER: the link, every record here and at the registry.

    If it breaks off, nothing about the person is used from then on, and the same command finishes it. The rows in this
    data holder's own tables are not touched.
    """
    from clients.holder.desk import Desk, registry_of
    from clients.holder.erasure import erase as erase_customer

    with Desk.open(directory) as desk, registry_of(desk) as registry:
        done = erase_customer(desk, customer, registry, at=_now())
    _tell(
        as_json,
        {"forgotten": done.forgotten, "tombstones": done.tombstones, "waiting": done.waiting},
        f"Erased; {done.tombstones} records got their tombstone"
        + (f"; {done.waiting} are in no signed head yet: sync within an hour." if done.waiting else "."),
        "What remains: in the log one random-looking entry for each record and its tombstone; in the privacy ledger "
        "what was spent, under a random number; in backups what they hold. Models trained before are not undone.",
    )


@holder.command(epilog="Example: fedcredit holder take direct.bin --directory aster-bank")
@click.argument("file", type=PATH)
@directory_option
@json_option
def take(file: Path, directory: Path, as_json: bool) -> None:
    """Take records that a wallet wrote to FILE (--direct-out), without the registry. They can only restrict."""
    from clients.holder.desk import Desk
    from clients.holder.direct import take_file

    with Desk.open(directory) as desk:
        taken = take_file(desk, file, at=_now())
    _tell(
        as_json,
        {"taken": taken.new, "known": taken.known, "refused": taken.refused},
        f"{taken.new} taken, {taken.known} known already, {taken.refused} not a linked person's. What they forbid is "
        "forbidden from now on; what they grant counts once the registry has them.",
    )


@holder.command("side-door", epilog="Example: fedcredit holder side-door --host 0.0.0.0 --port 8443 "
                "--certificate tls.pem --key tls.key")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8443, show_default=True, help="0 takes a free one.")
@click.option(
    "--certificate", type=PATH, default=None, help="Certificate chain in PEM; without one, this machine only."
)
@click.option("--key", type=PATH, default=None, help="The certificate's private key in PEM.")
@directory_option
@log_format_option
def side_door(
    host: str, port: int, certificate: Path | None, key: Path | None, directory: Path, log_form: LogForm
) -> None:
    """Take restricting records over HTTPS (POST /records), for people whose registry fails them.

    Running it is optional: the data holder's node needs no inbound port, and `holder take` does the same by hand.
    Publish its address in holder.toml as desk.side_door. Until SIGTERM or Ctrl-C.
    """
    from clients.holder.desk import Desk
    from clients.holder.side_door import Address, serve, side_door_app, usual_limits

    setup(log_form)
    address = Address(host, port, certificate, key)
    with Desk.open(directory) as desk:
        app = side_door_app(desk.lane, clock=_now, limits=usual_limits())
        serve(app, address, started=lambda url: click.echo(f"listening on {url}"))


def _offer(directory: Path, customers: tuple[str, ...], out: Path, *, as_json: bool) -> None:
    from clients.holder.ceremony import make_offers
    from clients.holder.desk import Desk, new_files, registry_of, write_new
    from clients.holder.doubt import Doubt
    from privacy.consent.linking import fingerprint

    with Desk.open(directory) as desk:
        files = new_files(out, "offer", len(customers))
        if desk.lane.links().keys() & set(customers):
            with registry_of(desk) as registry:  # a recovered wallet goes on after the newest record
                Doubt(desk.lane).sync(registry, at=_now())
        for file, envelope in zip(files, make_offers(desk, customers, at=_now()), strict=True):
            write_new(file, envelope, secret=True)
        print_of_identity = fingerprint(desk.keys.identity.public)
    _tell(
        as_json,
        {"offers": [str(file) for file in files], "fingerprint": print_of_identity},
        *(f"offer written to {file}" for file in files),
        f"The wallet shows this data holder's fingerprint; it must be: {print_of_identity}",
    )


def _take_answer(directory: Path, answer: Path, *, replace: bool, as_json: bool) -> None:
    from clients.holder.ceremony import LINKED_WORDS, link_answer
    from clients.holder.desk import Desk, read_file

    data = read_file(answer, what="a wallet's answer to an offer", most=_MOST_BYTES)
    with Desk.open(directory) as desk:
        done = link_answer(desk, data, replace=replace, at=_now())
    _tell(as_json, {"linked": done.value}, LINKED_WORDS[done])


def _tell_keys(as_json: bool, key_set: Any) -> None:
    from clients.holder.consents import utc

    epochs = [key.epoch for key in key_set.keys]
    _tell(
        as_json,
        {"version": key_set.version, "current": key_set.current, "epochs": epochs, "expires": key_set.expires},
        f"Keys published until {utc(key_set.expires)}, version {key_set.version}: epoch {key_set.current} is current"
        + (f", {', '.join(map(str, epochs[:-1]))} still accepted." if len(epochs) > 1 else "."),
    )


def _tell(as_json: bool, facts: dict[str, Any], *lines: str) -> None:
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for line in lines:
            click.echo(line)


def _now() -> int:
    return int(time.time())


def _utc_now() -> str:
    from clients.holder.consents import utc

    return utc(_now())
