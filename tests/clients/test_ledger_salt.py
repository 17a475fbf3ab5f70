"""What a ledger's mark tells the coordinator, who keeps it: nothing, whatever it guesses about the entries."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from clients.holder.ledger import PrivacyLedger
from privacy.accounting import GaussianSpend
from privacy.errors import TamperingError

HALF = GaussianSpend(0.5)


def _handle(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


A, B = _handle(0), _handle(1)
PLENTY = {_handle(k): 1e9 for k in range(20)}


def _head_file(path: Path) -> Path:
    return path.with_name(path.name + ".head")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def marks_of(path: Path, *, people: int = 3) -> list[bytes]:
    """The head after each entry of a ledger with a charge, kept bytes and a pin; the same every time."""
    shares = {_handle(k): 1.0 for k in range(people)}
    with PrivacyLedger.open(path) as ledger:
        heads = []
        for enter in (
            lambda: ledger.charge("r/1", HALF, shares, PLENTY),
            lambda: ledger.keep("r/1", b"one"),
            lambda: ledger.pin("r/1/unmasking", b"letter"),
        ):
            enter()
            heads.append(ledger.head.digest)
    return heads


def entries(path: Path) -> list[tuple[bytes, bytes, bytes]]:
    with closing(sqlite3.connect(path)) as base:
        return base.execute("SELECT header, body, digest FROM entries ORDER BY position").fetchall()


def test_the_same_entries_have_another_mark_every_time(tmp_path: Path) -> None:
    ones, others = marks_of(tmp_path / "one.db"), marks_of(tmp_path / "other.db")
    assert all(one != other for one, other in zip(ones, others, strict=True))


def test_a_mark_confirms_no_guess_of_how_many_were_charged(path: Path) -> None:
    marks_of(path)
    with PrivacyLedger.open(path) as ledger:
        before = ledger.head.digest
        ledger.charge("r/2", HALF, dict.fromkeys((A, B), 1.0), PLENTY)
        mark = ledger.head.digest

    def digest(header: bytes, body: bytes) -> bytes:
        sizes = len(header).to_bytes(8, "big") + len(body).to_bytes(8, "big")
        return hashlib.sha256(b"fedcredit/ledger/v1" + before + sizes + header + body).digest()

    header, body, _ = entries(path)[-1]
    assert digest(header, body) == mark  # the guess is made as the chain is
    fields = json.loads(header)
    assert len(bytes.fromhex(fields.pop("salt"))) == 16
    unsalted = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    assert digest(unsalted, body) != mark


def test_every_entry_has_a_salt_of_its_own_which_survives_a_restart(path: Path) -> None:
    last = marks_of(path)[-1]
    salts = [json.loads(header)["salt"] for header, _, _ in entries(path)]
    assert len(set(salts)) == len(salts) == 3
    with PrivacyLedger.open(path) as ledger:
        assert ledger.head.digest == last
        assert ledger.kept("r/1") == b"one"


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("salt"),
        lambda fields: fields.update(salt=""),
        lambda fields: fields.update(salt="0" * 30),
        lambda fields: fields.update(salt="0" * 33),
        lambda fields: fields.update(salt="F" * 32),
        lambda fields: fields.update(salt=7),
        lambda fields: fields.update(more=1),
        lambda fields: fields.pop("kind"),
        lambda fields: fields.update(kind="gift"),
    ],
)
def test_an_entry_without_a_lawful_salt_or_with_other_fields_is_noticed(path: Path, change: object) -> None:
    assert callable(change)
    marks_of(path)
    rows, before = entries(path), bytes(32)
    _head_file(path).unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        for position, (header, body, _) in enumerate(rows, start=1):  # a chain that holds, but for this
            fields = json.loads(header)
            if position == 2:
                change(fields)
            written = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
            sizes = len(written).to_bytes(8, "big") + len(body).to_bytes(8, "big")
            before = hashlib.sha256(b"fedcredit/ledger/v1" + before + sizes + written + body).digest()
            base.execute("UPDATE entries SET header = ?, digest = ? WHERE position = ?", (written, before, position))
    _head_file(path).write_text(f"3 {before.hex()}\n")
    with pytest.raises(TamperingError, match=r"no salt|cannot be read"):
        PrivacyLedger.open(path)
