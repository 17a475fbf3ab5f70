"""`fedcredit audit`: open a run to an auditor, replay every decision offline, and audit the privacy of the code."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from privacy.errors import TamperingError, UsageError

if TYPE_CHECKING:
    from clients.holder.lane import LaneSource
    from clients.holder.settings import HolderSettings

PATH = click.Path(path_type=Path)
_HEX_DIGITS = 64


@click.group(
    epilog="Example: fedcredit audit replay aster.opening --run-record run.json --schema schema.toml "
    "--coordinator-key HEX --registry-key HEX --holder-key HEX"
)
def audit() -> None:
    """Open a run to an auditor; replay every decision; audit what is claimed about privacy."""


@audit.command(epilog="Example: fedcredit audit privacy --claims 1,3 --runs 1000")
@click.option("--claims", default="1,3", show_default=True, help="Values of epsilon to hold this installation to.")
@click.option("--runs", type=click.IntRange(100, 100_000), default=1000, show_default=True,
              help="Half the tiny runs of the many-run audit; more show more.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def privacy(claims: str, runs: int, as_json: bool) -> None:
    """Audit what this installation claims about privacy, with made-up rows: nobody's data, keys or ledger are touched.

    The code that makes a data holder's releases is run as an attacker would wish: with the worst rows, against a
    coordinator that lies and knows everybody else. Exit code 0 if no audit shows more epsilon than was claimed, 5 if
    one does. Each statistical audit is wrong once in a thousand times: run it again before you raise an alarm.
    """
    from clients.audit.privacy_audits import all_audits
    from clients.audit.privacy_harness import own_chance
    from clients.audit.privacy_report import PrivacyReport, read_claims

    findings = [
        found for epsilon in read_claims(claims) for found in all_audits(epsilon, runs, own_chance, time.perf_counter)
    ]
    report = PrivacyReport(tuple(findings), runs)
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else report.text())
    report.raise_if_contradicted()


@audit.command("open", epilog="Example: fedcredit audit open --directory aster-bank --run RUN_ID --out aster.opening")
@click.option("--directory", type=PATH, default=Path(), show_default=True, help="The data holder's directory.")
@click.option("--run", required=True, help="The run's name: \"run\" in the coordinator's run.json.")
@click.option("--out", type=PATH, required=True, help="File to write; never over an existing one.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def open_(directory: Path, run: str, out: Path, as_json: bool) -> None:
    """Open the consent records that one run was decided by, for an auditor.

    The file holds every entry of the lane as it was pinned, the records in them, the links and whom the run used. No
    identity is in it: handles and keys are random, and others at every data holder. Still keep it safe and hand it to
    the auditor only: it says what the people behind the handles wanted, and whoever else knows a handle learns that.
    Only its owner can read the file.
    """
    from clients.holder.opening_writer import open_run

    with ExitStack() as stack:

        def connect(settings: "HolderSettings") -> "LaneSource":
            from clients.registry_client import RegistryClient

            registry = settings.registry
            return stack.enter_context(RegistryClient(registry.url, ca=registry.trust(directory)))

        written = open_run(directory, run, out, connect=connect, at=int(time.time()))
    if as_json:
        click.echo(json.dumps({"holder": written.holder, "run": written.run, "lines": dict(written.lines)}))
        return
    shown = ", ".join(f"{count:,} {kind}" for kind, count in written.lines.items())
    click.echo(f"{out}: {shown}")
    click.echo("Hand it to the auditor only, and tell the auditor your identity's public key by another way.", err=True)


@audit.command(
    epilog="Example: fedcredit audit replay aster.opening --run-record run.json --schema schema.toml "
    "--coordinator-key HEX --registry-key HEX --holder-key HEX --receipt one.json --receipt two.json --json"
)
@click.argument("file", type=PATH)
@click.option("--run-record", type=PATH, required=True, help="The coordinator's run.json of the run.")
@click.option("--coordinator-key", required=True, help="The coordinator's public key: 64 hexadecimal digits.")
@click.option("--registry-key", required=True, help="The consent registry's public key.")
@click.option("--holder-key", required=True, help="The public key of the data holder's identity.")
@click.option("--schema", "schema_file", type=PATH, required=True, help="The schema that the plan was written for.")
@click.option("--receipt", "receipts", type=PATH, multiple=True, help="A receipt that somebody gave you; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def replay(
    file: Path, run_record: Path, coordinator_key: str, registry_key: str, holder_key: str, schema_file: Path,
    receipts: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Replay the run that FILE opens: every signature, commitment and decision, without asking anybody.

    Take the three keys from their owners and not from a file of this audit. Exit code 0 if everything adds up, 5 if
    something does not (the report on standard output says what), 3 if the files are of different runs, 4 if one is
    damaged.

    Two things cannot be checked from the data holder's side: that an entry which it calls garbage does not open,
    because showing that takes its private key, and that what it erased was all of a person's. Receipts from people can:
    one that opens such an entry is reported. It then says that the data holder hides a record, or that this person's
    wallet sealed something else than it kept.
    """
    keys = [
        _key(text, option)
        for text, option in (
            (coordinator_key, "--coordinator-key"), (registry_key, "--registry-key"), (holder_key, "--holder-key"),
        )
    ]  # fmt: skip
    from clients.audit.reader import OpeningFile, read_small
    from clients.audit.replay import Audit, TrustedKeys
    from clients.audit.run_record import read_run_record
    from federated.schema_toml import load_schema
    from privacy.consent.receipt import read_receipt

    trusted = TrustedKeys(*keys)
    schema, record = load_schema(schema_file), read_run_record(run_record)
    given = [read_receipt(read_small(path, what="a receipt", most=1 << 16)) for path in receipts]
    report = Audit(OpeningFile.check(file, trusted.holder), record, schema, trusted, given).replay()
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else report.text())
    if not report.adds_up:
        raise TamperingError(
            f"{len(report.complaints())} things in this run do not add up; the report says which. The auditor should "
            "keep all files and ask the data holder and the coordinator to explain them."
        )


def _key(text: str, option: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(text) != _HEX_DIGITS or key.hex() != text.lower():
        raise UsageError(f"{option} must be a public key of {_HEX_DIGITS} hexadecimal digits; ask its owner for it.")
    return key
