"""`fedcredit wallet`: a person's own side of consent. Making, linking, looking, taking out."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from clients.wallet.access import Access, World, read_bytes, read_text, show_alarms
from clients.wallet.book import create
from clients.wallet.cli_wishes import freeze, grant, thaw, withdraw
from clients.wallet.export import export_to
from clients.wallet.linking import link as link_to
from clients.wallet.recovery import SECRET_BYTES, read_back, write_down
from clients.wallet.report import day, limits_line, record_line, status_of
from clients.wallet.state import State
from federated.files import write_whole
from privacy.consent.canonical import from_base64url
from privacy.consent.limits import KEY_BYTES
from privacy.consent.linking import fingerprint, read_offer
from privacy.consent.receipt import read_receipt, verify_receipt
from privacy.errors import FedcreditError, TamperingError, UsageError

FILE = click.Path(path_type=Path)
_HEX_KEY = re.compile(r"[0-9a-f]{64}\Z")


@click.group(epilog="Example: fedcredit wallet --wallet ~/my-wallet status")
@click.option("--wallet", "directory", type=FILE, default=Path("~/.fedcredit/wallet"), show_default=True,
              help="Directory of the wallet.")  # fmt: skip
@click.option("--passphrase-file", type=FILE, default=None,
              help="File with the passphrase, instead of typing it unseen.")  # fmt: skip
@click.pass_context
def wallet(context: click.Context, directory: Path, passphrase_file: Path | None) -> None:
    """A person's own side: keys, consent records, receipts.

    The wallet is one file, encrypted under a passphrase. Everything you grant ends by `withdraw`, in one step.
    """
    # It would log every address that is asked for, the tags of the person's records among them.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    world = context.obj if isinstance(context.obj, World) else World()
    context.obj = Access(directory.expanduser(), passphrase_file, world)


@wallet.command(epilog="Example: fedcredit wallet init")
@click.option("--recover", is_flag=True, help="From the code on paper, instead of a new secret.")
@click.option("--recovery-file", type=FILE, default=None, help="File with that code, instead of typing it unseen.")
@click.pass_obj
def init(access: Access, recover: bool, recovery_file: Path | None) -> None:
    """Make a wallet, or make a lost one again from its code on paper.

    The code is shown once. Whoever has it can speak for you; without it a lost wallet stays lost.
    """
    if recovery_file is not None and not recover:
        raise UsageError("--recovery-file goes with --recover; give both to make a lost wallet again.")
    if recover:
        typed = read_text(recovery_file) if recovery_file else str(
            click.prompt("Recovery code, all 12 groups", hide_input=True, err=True)
        )  # fmt: skip
        state = State.of(read_back(typed), recovered=True)
        create(access.directory, access.passphrase(new=True), state, access.world.random)
        click.echo("The wallet is there again. It knows no data holder yet: ask each for an offer, and link.", err=True)
        return
    secret = access.world.random(SECRET_BYTES)
    passphrase = access.passphrase(new=True)
    state = State.of(secret, recovered=False)
    create(access.directory, passphrase, state, access.world.random, first=lambda: _show_code(access, secret))
    click.echo(f"The wallet is in {access.directory}. It never shows the code again.", err=True)


@wallet.command(epilog="Example: fedcredit wallet link offer.json --out answer.json")
@click.argument("offer_file", type=FILE)
@click.option("--out", type=FILE, required=True, help="File for the answer that you hand to the data holder.")
@click.pass_obj
def link(access: Access, offer_file: Path, out: Path) -> None:
    """Link this wallet to the data holder that made OFFER_FILE, and write the answer.

    Compare the fingerprint by phone before you hand the answer over. Linking grants nothing.
    """
    if out.exists():
        raise UsageError(f"{out} exists and is left as it is; name another file with --out.")
    at = access.world.now()
    offer = read_offer(read_bytes(offer_file), at=at)
    with access.opened() as book:
        linked = link_to(book, offer, access.world.connect, at=at)
    write_whole(out, linked.answer, secret=True)
    click.echo(f"data holder  {offer.holder}")
    click.echo(f"fingerprint  {fingerprint(from_base64url(offer.identity, size=KEY_BYTES))}")
    click.echo(f"registry     {offer.registry.url}")
    click.echo(f"categories   {', '.join(offer.categories)}")
    click.echo(f"notice       {offer.notice.terms.id}, {offer.notice.terms.lang}, {offer.notice.jur}\n")
    click.echo(offer.notice.text)
    for remark in linked.remarks:
        click.echo(remark, err=True)
    click.echo(
        f"Answer written to {out}. Call the data holder on a number you know and compare the fingerprint; only then "
        "hand the answer over. Nothing is granted yet.",
        err=True,
    )


@wallet.command(epilog="Example: fedcredit wallet status --json")
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@click.pass_obj
def status(access: Access, as_json: bool) -> None:
    """What is in force where, what was delivered, and whether the registries keep their word.

    Sends what is waiting, fetches receipts and checks them. Exit code 5 after any alarm, 3 when a registry that was
    needed did not answer.
    """
    at = access.world.now()
    failures: list[FedcreditError] = []
    with access.opened() as book:
        before = book.state.alarms
        sender = access.sender(book)
        for account in book.state.accounts:
            delivery = sender.resume(account.holder, at=at)
            if delivery.failure is not None:
                click.echo(f"{account.holder}: {delivery.failure}", err=True)
                failures.append(delivery.failure)
        if book.state.alarms != before:
            show_alarms(book)
        facts = status_of(book.state, at=at)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        _print_status(facts)
    if facts["alarms"]:
        raise TamperingError(
            f"{len(facts['alarms'])} alarms: a registry broke its word. Take the evidence out with "
            "`fedcredit wallet export --out DIR` and give it to the data holder and the auditor."
        )
    if failures:
        raise max(failures, key=lambda error: error.exit_code)


@wallet.command(epilog="Example: fedcredit wallet receipts --verify aster-1.receipt.json")
@click.option("--verify", "file", type=FILE, default=None, help="Check this receipt, asking nobody.")
@click.option("--registry-key", default=None, help="Who has no wallet: the registry's key, 64 hexadecimal digits.")
@click.option("--person-key", default=None, help="Who has no wallet: the person's key, 64 hexadecimal digits.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def receipts(
    access: Access, file: Path | None, registry_key: str | None, person_key: str | None, as_json: bool
) -> None:  # fmt: skip
    """List the receipts that the wallet keeps, or check one of them offline.

    With both keys anybody can check a receipt, without a wallet; `export` writes them into keys.json.
    """
    if file is None:
        if registry_key or person_key:
            raise UsageError("--registry-key and --person-key go with --verify FILE; name the receipt to check.")
        with access.opened() as book:
            listed = [
                {"holder": account.holder, "number": written.seq, "written_at": written.written_at,
                 "position": written.receipt.position}
                for account in book.state.accounts for written in account.written if written.receipt
            ]  # fmt: skip
        if as_json:
            click.echo(json.dumps(listed, indent=2))
        for receipt in [] if as_json else listed:
            click.echo("{holder}: record {number} at position {position}".format(**receipt))
        if not listed:
            click.echo("No receipts yet; `fedcredit wallet status` fetches them.", err=True)
        return
    data = read_bytes(file)
    keys = _stranger_keys(registry_key, person_key) or _own_keys(access, read_receipt(data).lane)
    verified = verify_receipt(read_receipt(data), registry_key=keys[0], person_key=keys[1])
    record = verified.record
    facts = {"holder": record.aud, "number": record.seq, "issued_at": record.iat, "position": verified.position,
             "size": verified.head.size, "frozen": record.frozen, "grants": len(record.grants)}  # fmt: skip
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        wish = "freezes everything" if record.frozen else f"{len(record.grants)} grants"
        click.echo(
            f"The receipt holds: record {record.seq} for {record.aud}, issued {day(record.iat)} ({wish}), stands at "
            f"position {verified.position} of the registry's signed log of {verified.head.size}."
        )


@wallet.command(epilog="Example: fedcredit wallet export --out my-consents")
@click.option("--out", type=FILE, required=True, help="Directory to make; it must not exist, or be empty.")
@click.pass_obj
def export(access: Access, out: Path) -> None:
    """Write everything the wallet knows into plain files: records, receipts, ISO/IEC TS 27560 views, alarms.

    Never the secret. The files are readable by you alone, and say what you granted: keep them so.
    """
    with access.opened() as book:
        count = export_to(book.state, out, at=access.world.now())
    click.echo(f"{count} files in {out}, readable by you alone (mode 0600). They are not encrypted.", err=True)


def _show_code(access: Access, secret: bytes) -> None:
    code = write_down(secret)
    click.echo("Write these 12 groups on paper, and keep the paper where you keep a passport:", err=True)
    click.echo(code)
    while access.passphrase_file is None:
        last = str(click.prompt("Type the last group as you wrote it", err=True))
        if last.strip().upper() == code.split()[-1]:
            return
        click.echo("That is not the last group. Compare the paper with what is shown above.", err=True)


for command in (grant, withdraw, freeze, thaw):
    wallet.add_command(command)


def _stranger_keys(registry_key: str | None, person_key: str | None) -> tuple[bytes, bytes] | None:
    if registry_key is None and person_key is None:
        return None
    if registry_key is None or person_key is None:
        raise UsageError("--registry-key and --person-key go together; give both, or neither to use the wallet's.")
    if not (_HEX_KEY.match(registry_key) and _HEX_KEY.match(person_key)):
        raise UsageError("a key is 64 hexadecimal digits in lower case, as in the keys.json that `export` writes.")
    return bytes.fromhex(registry_key), bytes.fromhex(person_key)


def _own_keys(access: Access, lane: str) -> tuple[bytes, bytes]:
    with access.opened() as book:
        return book.account(lane).registry_key, book.state.wallet().key_for(lane).public


def _print_status(facts: dict[str, Any]) -> None:
    table = Table(show_header=True, header_style="bold")
    for name in ("data holder", "for", "to", "categories", "limits", "state", "until"):
        table.add_column(name)
    lines = []
    for holder in facts["holders"]:
        name = holder["holder"]
        said = "unknown since the wallet was lost; the next command replaces it" if not holder["known"] else "nothing"
        for shown in holder["grants"] or [{"purpose": "", "to": "", "data": [], "state": said, "until": None}]:
            until = "" if shown["until"] is None else day(shown["until"])
            table.add_row(
                name, shown["purpose"], shown["to"], ", ".join(shown["data"]), limits_line(shown), shown["state"], until
            )
        frozen = "FROZEN; " if holder["frozen"] else ""
        outdated = "; OUTDATED, link again with a fresh offer" if holder["outdated"] else ""
        share = holder["share_lent_milli"] / 1000
        lines.append(f"{name}: {frozen}{record_line(holder['record'])}; share lent {share:g}{outdated}")
    console = Console(width=110)
    if lines:
        console.print(table)
        for line in lines:
            click.echo(line)
    else:
        click.echo("Linked to nobody yet. Ask a data holder for an offer, then: fedcredit wallet link --help")
