"""Every mistake a person can make, through the real command line: an exit code, a text that helps, and no loss.

Whatever the mistake, the text says what was found and what to do next, holds no customer number, handle, key or cell,
and the files are what they were.
"""

import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from federated import cli
from privacy.consent.canonical import base64url
from server.registry.store import Registry
from tests.experiments.small_table import SCHEMA, Lines, customer, small_table
from tests.ready import AT, HOLDERS, Ready, ready_in, state_of

POISON = "Zürich-4711"
FAMILIES = {2: "Usage", 3: "Refusal", 4: "Malformed", 5: "Tampering"}
# What a text must have: somebody who should do something, or at least the line to look at.
ADVICE = re.compile(
    r"(?i)\b(should|must|need(s|ed)?|give|mends?|correct|make room|export|run|write|save|ask|line \d+)\b"
)


@dataclass(frozen=True)
class Told:
    """What a command answered."""

    code: int
    out: str
    err: str


def command(*arguments: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Told:
    """The command in this process, as `fedcredit ...` would run it."""
    monkeypatch.setattr(sys, "argv", ["fedcredit", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exited:
        cli.main()
    captured = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return Told(exited.value.code, captured.out, captured.err)


def in_a_process(*arguments: object) -> Told:
    """The command in a process of its own."""
    code = "from federated.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    return Told(done.returncode, done.stdout, done.stderr)


def assert_helpful(told: Told, code: int, *words: str) -> None:
    text = " ".join(f"{told.out} {told.err}".split())
    assert told.code == code, text
    assert "Traceback" not in text
    last = told.err.strip()
    if code != 2 or "Usage: " not in last:
        assert f"{FAMILIES[code]}: " in last
        assert ADVICE.search(last.partition(f"{FAMILIES[code]}: ")[2]), text
    for word in words:
        assert re.search(word, text), (word, text)
    assert POISON not in text
    assert "KD-" not in text
    assert not re.search(r"\b[0-9a-f]{64}\b", text), text


def out_of_bounds(table: Lines) -> None:
    table[5][1] = "-7"


def without_column_1(table: Lines) -> None:
    for row in table:
        del row[1]


def short_row(table: Lines) -> None:
    del table[6][-1]


def cell(row: int, column: int, text: str = POISON) -> Callable[[Lines], None]:
    def change(table: Lines) -> None:
        table[row][column] = text

    return change


# Each: what is done to the table, and what the text must say.
TABLES: dict[str, tuple[Callable[[Lines], None], tuple[str, ...]]] = {
    "an unknown column": (cell(0, 4), ("table.csv", "number 5", "not in the schema|missing")),
    "a missing column": (without_column_1, ("LIMIT_BAL", "missing")),
    "a value out of bounds": (out_of_bounds, ("LIMIT_BAL", "outside the hard bounds", "row 5")),
    "text for a number": (cell(3, 1), ("LIMIT_BAL", "no number", "row 3")),
    "a code that is not listed": (cell(3, 6, "77"), ("PAY_0", "row 3")),
    "an outcome that is neither": (cell(8, -1, "3"), ("default", "row 8")),
    "a person twice": (cell(9, 0, customer(2)), ("row 9", "earlier row")),
    "a person without a number": (cell(9, 0, ""), ("row 9", "no subject")),
    "a row too short": (short_row, ("row 6", "cells")),
    "no rows": (lambda table: table.__delitem__(slice(1, None)), ("no rows",)),
    "nothing at all": (lambda table: table.clear(), ("empty",)),
}


@pytest.mark.parametrize("program", ["schema check", "demo"])
@pytest.mark.parametrize("mistake", TABLES)
def test_a_table_that_does_not_fit(
    mistake: str, program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words = TABLES[mistake]
    table = small_table(tmp_path / "table.csv", 60, change)
    before = state_of(tmp_path)
    if program == "demo":
        arguments: tuple[object, ...] = ("demo", "--schema", SCHEMA, "--table", table, "--holders", 2)
        arguments = (*arguments, "--out", tmp_path / "demo")
    else:
        arguments = ("schema", "check", SCHEMA, table)
    assert_helpful(command(*arguments, capsys=capsys, monkeypatch=monkeypatch), 4, *words)
    assert state_of(tmp_path) == before


SCHEMAS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "no TOML": ("schema_version = 1", "schema_version = = 1", ("TOML", "line")),
    "an unknown key": ("schema_version = 1", "schema_version = 1\nsecret_sauce = 2", ("secret_sauce",)),
    "a missing key": ("centred_radius", "uncentred_radius", ("centred_radius",)),
    "another version": ("schema_version = 1", "schema_version = 9", ("version",)),
    "people's friends": ('category = "credit_history"', 'category = "social_network"', ("social_network|categor",)),
}


@pytest.mark.parametrize("program", ["schema check", "demo"])
@pytest.mark.parametrize("mistake", SCHEMAS)
def test_a_broken_schema(
    mistake: str, program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad, words = SCHEMAS[mistake]
    assert good in SCHEMA.read_text()
    schema = tmp_path / "schema.toml"
    schema.write_text(SCHEMA.read_text().replace(good, bad))
    table = small_table(tmp_path / "table.csv", 60)
    before = state_of(tmp_path)
    if program == "demo":
        arguments: tuple[object, ...] = ("demo", "--schema", schema, "--table", table, "--out", tmp_path / "demo")
    else:
        arguments = ("schema", "check", schema, table)
    assert_helpful(command(*arguments, capsys=capsys, monkeypatch=monkeypatch), 4, "schema.toml", *words)
    assert state_of(tmp_path) == before


def test_arguments_that_cannot_be_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = small_table(tmp_path / "table.csv", 60)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "report.json").write_text("somebody else's")
    (tmp_path / "foreign" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("mine")
    before = state_of(tmp_path)
    ours = ("--schema", SCHEMA, "--table", table)
    for arguments, word in (
        (("demo", *ours, "--holders", 2, "--out", tmp_path / "foreign"), "another directory"),
        (("demo", *ours, "--holders", 2, "--out", tmp_path / "file"), "file"),
        (("demo", *ours, "--holders", 50, "--out", tmp_path / "demo"), "--holders"),
        (("demo", *ours, "--holders", 1, "--out", tmp_path / "demo"), "--holders"),
        (("demo", *ours, "--epsilon", "nan", "--out", tmp_path / "demo"), "--epsilon"),
        (("demo", *ours, "--epsilon", "inf", "--out", tmp_path / "demo"), "--epsilon"),
        (("demo", *ours, "--epsilon", "0", "--out", tmp_path / "demo"), "--epsilon"),
        (("demo", *ours, "--seed", "9" * 30, "--out", tmp_path / "demo"), "--seed"),
        (("demo", "--schema", SCHEMA, "--out", tmp_path / "demo"), "--table"),
        (("demo", "--schema", tmp_path / "nowhere", "--table", table, "--out", tmp_path / "demo"), "nowhere"),
        (("train", tmp_path / "nowhere"), "nowhere"),
        (("train", tmp_path / "foreign"), "no federation"),
        (("schema", "check", tmp_path / "nowhere", table), "nowhere"),
        (("schema", "check", SCHEMA, tmp_path / "nowhere"), "nowhere"),
    ):
        assert_helpful(command(*arguments, capsys=capsys, monkeypatch=monkeypatch), 2, word)
        assert state_of(tmp_path) == before


def test_a_demo_above_the_holders_policy_is_a_refusal_that_names_holder_and_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = small_table(tmp_path / "table.csv", 400)
    before = state_of(tmp_path)
    arguments = ("demo", "--schema", SCHEMA, "--table", table, "--holders", 2, "--out", tmp_path / "demo")
    told = command(*arguments, "--epsilon", 8.5, capsys=capsys, monkeypatch=monkeypatch)
    # The code travels; what each data holder says about it stands in its own log, above the bars.
    assert_helpful(told, 3, "aster-bank: budget, birch-telecom: budget", "costs epsilon 8.5", "at most 8 at 1e-05")
    assert state_of(tmp_path) == before


def garbage(path: str) -> Callable[[Ready], None]:
    def spoil(ready: Ready) -> None:
        (ready.home() / path).write_bytes(b"no such thing " * 500)

    return spoil


def sql(path: str, statement: str) -> Callable[[Ready], None]:
    def spoil(ready: Ready) -> None:
        database = sqlite3.connect(ready.home() / path)
        with database:
            assert database.execute(statement).rowcount > 0
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()

    return spoil


def rewritten(path: str, pattern: str, by: str, *, who: tuple[str, ...] = HOLDERS) -> Callable[[Ready], None]:
    def spoil(ready: Ready) -> None:
        for name in who:
            text = (ready.home(name) / path).read_text()
            changed, times = re.subn(pattern, by, text, flags=re.MULTILINE)
            assert times > 0
            (ready.home(name) / path).write_text(changed)

    return spoil


def missing(*paths: str) -> Callable[[Ready], None]:
    def spoil(ready: Ready) -> None:
        for path in paths:
            (ready.directory / path).unlink()

    return spoil


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def tail_gone(path: str) -> Callable[[Ready], None]:
    def spoil(ready: Ready) -> None:
        content = (ready.home() / path).read_bytes()
        (ready.home() / path).write_bytes(content[: len(content) // 2])

    return spoil


def in_coordinator(path: str, good: bytes, bad: bytes) -> Callable[[Ready], None]:
    def spoil(ready: Ready) -> None:
        file = ready.federation.coordinator_directory / path
        assert good in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(good, bad, 1))

    return spoil


# Each: what has happened to a federation that has trained once, the exit code, and what the text must say.
BROKEN: dict[str, tuple[Callable[[Ready], None], int, tuple[str, ...]]] = {
    "a corrupted ledger": (garbage("ledger.db"), 5, ("ledger",)),
    "half a ledger": (tail_gone("ledger.db"), 5, ("ledger",)),
    "an edited ledger": (sql("ledger.db", "UPDATE entries SET body = zeroblob(length(body))"), 5, ("ledger",)),
    "a ledger without its last entry": (sql("ledger.db", "DELETE FROM entries WHERE position = 10"), 5, ("ledger",)),
    "a ledger that is gone": (missing("holders/aster-bank/ledger.db"), 5, ("ledger",)),
    "a corrupted lane copy": (garbage("consent.db"), 5, (r"consent\.db",)),
    "half a lane copy": (tail_gone("consent.db"), 5, (r"consent\.db",)),
    "an edited lane copy": (
        sql("consent.db", "UPDATE entries SET payload = NULL WHERE position = 3"), 5, (r"consent\.db",),
    ),
    "a lane copy without an entry": (sql("consent.db", "DELETE FROM entries WHERE position = 3"), 5, ("consent",)),
    "a lane head that is gone": (missing("holders/aster-bank/consent.head"), 5, (r"consent\.head",)),
    "a missing setting": (rewritten("holder.toml", "^clock_skew_s.*$", ""), 4, (r"holder\.toml", "clock_skew_s")),
    "an unknown setting": (rewritten("holder.toml", "^notice_id", "notice_ids"), 4, (r"holder\.toml", "notice_id")),
    "a setting of another kind": (rewritten("holder.toml", "^version = 1", "version = 'one'"), 4, (r"holder\.toml",)),
    "a key that is none": (garbage("keys/identity.key"), 4, ("key",)),
    "a schema that is none": (garbage("schema.toml"), 4, (r"schema\.toml",)),
    "a plan that was changed": (in_coordinator("plan.json", b"payload", b"pay_load"), 4, ("plan",)),
    "a plan by another key": (
        lambda ready: write(ready.federation.coordinator_directory / "coordinator.key", bytes(32)), 5, ("signature",),
    ),
    "checkpoints that are none": (in_coordinator("checkpoints.json", b"{", b"["), 4, ("checkpoints",)),
    "a plan above the policy": (
        rewritten("holder.toml", "^largest_epsilon.*$", "largest_epsilon = 0.5"), 3,
        ("aster-bank: budget", "cedar-power: budget", "costs epsilon 1"),
    ),
    "a recipe that is not allowed": (
        rewritten("holder.toml", "^recipes.*$", 'recipes = ["opacus_fedavg"]'), 3, ("aster-bank: policy",),
    ),
    "a cohort below the minimum": (
        rewritten("holder.toml", "^fewest_people.*$", "fewest_people = 5000"), 3,
        ("aster-bank: cohort", "Fewer than 5000 people"),
    ),
    "tables that no longer fit": (
        rewritten("rows.csv", r"^(\d+),\d+,", rf"\g<1>,{POISON},"), 3,
        ("aster-bank: internal", "LIMIT_BAL", "no number"),
    ),
    "tables that are gone": (
        missing(*(f"holders/{name}/rows.csv" for name in HOLDERS)), 3, ("aster-bank: internal", r"rows\.csv"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    ready = ready_in(tmp_path_factory.mktemp("trained") / "federation")
    ready.run()
    ready.registry.close()
    return ready


@pytest.mark.parametrize("damage", BROKEN)
def test_training_over_something_broken(
    damage: str,
    ready: Ready,
    trained: Ready,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.rmtree(ready.directory)
    shutil.copytree(trained.directory, ready.directory)
    spoil, code, words = BROKEN[damage]
    spoil(ready)
    before = state_of(ready.directory)
    monkeypatch.setattr(time, "time", lambda: float(AT))
    told = command("train", ready.directory, capsys=capsys, monkeypatch=monkeypatch)
    assert_helpful(told, code, *words)
    text = told.out + told.err
    for place, handle in ready.federation.handles.items():
        assert handle.hex() not in text
        assert base64url(handle) not in text
        assert ready.federation.wallet(place.person).key_for(place.holder).public.hex() not in text
    assert state_of(ready.directory) == before


def test_training_again_over_nothing_broken_repeats_the_run(
    trained: Ready, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(trained.directory / "holders")
    monkeypatch.setattr(time, "time", lambda: float(AT))
    told = command("train", trained.directory, capsys=capsys, monkeypatch=monkeypatch)
    assert told.code == 0, told.err
    assert "3 data holders, 5 releases" in " ".join(told.out.split())
    assert state_of(trained.directory / "holders") == before


def test_training_anew_while_the_registry_is_away_releases_nothing_and_says_why(
    ready: Ready, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: float(AT + 60))
    told = command("train", ready.directory, capsys=capsys, monkeypatch=monkeypatch)
    assert_helpful(told, 3, r"aster-bank refuses \(lane\)", "somebody may have withdrawn")
    for name in HOLDERS:
        with ready.holder(name) as holder:
            assert holder.ledger.releases() == ()


def test_a_corrupted_registry_ends_with_exit_code_5(trained: Ready, ready: Ready) -> None:
    path = ready.directory / "registry" / "registry.db"
    ready.registry.close()
    path.write_bytes(b"no registry " * 1000)
    before = state_of(ready.directory)
    with pytest.raises(Exception, match=r"registry\.db") as caught:
        Registry(path, ready.federation.registry_key)
    assert getattr(caught.value, "exit_code", None) == 5
    assert state_of(ready.directory) == before


def test_a_process_of_its_own_says_the_same(ready: Ready, tmp_path: Path) -> None:
    (ready.home() / "ledger.db").write_bytes(b"no ledger " * 1000)
    before = state_of(ready.directory)
    assert_helpful(in_a_process("train", ready.directory), 5, "ledger")
    assert state_of(ready.directory) == before
    table = small_table(tmp_path / "table.csv", 60, cell(3, 1))
    assert_helpful(in_a_process("schema", "check", SCHEMA, table), 4, "LIMIT_BAL", "row 3")


def test_an_expired_plan_is_refused_and_the_text_says_which_holder_said_what(
    ready: Ready, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(ready.directory)
    monkeypatch.setattr(time, "time", lambda: float(AT + 10 * 86_400))
    told = command("train", ready.directory, capsys=capsys, monkeypatch=monkeypatch)
    assert_helpful(told, 3, "aster-bank: plan", "not due now")
    assert state_of(ready.directory) == before
