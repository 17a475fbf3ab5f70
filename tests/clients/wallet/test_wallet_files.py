"""What lies on the disk, what is printed, and what never is."""

import base64
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from clients.wallet.cli import wallet
from clients.wallet.recovery import read_back, write_down
from clients.wallet.state import State, read_state, write_state
from privacy.consent.canonical import base64url, from_base64url
from privacy.errors import FedcreditError, MalformedError
from tests.clients.wallet.parties import PASSPHRASE, DataHolder, FakeRegistry, Person, digest


def secret_of(person: Person) -> bytes:
    with person.book() as book:
        return from_base64url(book.state.secret, size=32)


def spellings(secret: bytes) -> list[str]:
    return [secret.hex(), base64url(secret), base64.b64encode(secret).decode(), "".join(write_down(secret).split())]


def test_init_shows_the_code_once_and_makes_one_wallet(tmp_path: Path, registry: FakeRegistry) -> None:
    person = Person(tmp_path, registry)
    done = person.ok("init")
    assert read_back(done.out) == secret_of(person)
    assert person.run("init").exit_code == 2
    assert person.run("init", "--recovery-file", tmp_path / "x").exit_code == 2
    assert (person.home / "wallet.vault").stat().st_mode & 0o777 == 0o600
    assert person.home.stat().st_mode & 0o777 == 0o700


def test_typed_at_a_terminal_the_passphrase_is_asked_twice_and_the_last_group_back(
    tmp_path: Path, registry: FakeRegistry
) -> None:
    person = Person(tmp_path, registry)
    code = write_down(person.random(32))
    person = Person(tmp_path, registry)
    typed = f"{PASSPHRASE}\n{PASSPHRASE}\nWRONG\n{code.split()[-1].lower()}\n"
    result = CliRunner().invoke(wallet, ["--wallet", str(person.home), "init"], input=typed, obj=person.world)
    assert result.exit_code == 0, result.exception
    assert "not the last group" in result.stderr
    assert PASSPHRASE not in result.output
    assert person.ok("status").out.startswith("Linked to nobody")


@pytest.mark.parametrize("passphrase", ["", "\n", "too short"])
def test_a_short_passphrase_makes_no_wallet(tmp_path: Path, registry: FakeRegistry, passphrase: str) -> None:
    person = Person(tmp_path, registry)
    person.passphrase_file.write_text(passphrase)
    done = person.run("init")
    assert done.exit_code == 3
    assert not (person.home / "wallet.vault").exists()
    assert done.out == ""


def test_there_is_no_way_to_give_a_passphrase_as_an_argument_or_by_the_environment() -> None:
    for command in (wallet, *wallet.commands.values()):
        for param in command.params:
            assert param.envvar is None
            if "passphrase" in (param.name or ""):
                assert param.opts == ["--passphrase-file"]
    assert wallet.context_settings.get("auto_envvar_prefix") is None


def test_every_command_has_an_example() -> None:
    assert set(wallet.commands) >= {
        "init", "link", "grant", "withdraw", "freeze", "thaw", "status", "receipts", "export"
    }  # fmt: skip
    for name, command in wallet.commands.items():
        shown = CliRunner().invoke(wallet, [name, "--help"])
        assert shown.exit_code == 0
        assert "Example: fedcredit wallet" in re.sub(r"\s+", " ", shown.output)
        assert command.help


def test_without_a_wallet_or_with_the_wrong_passphrase_it_is_said(tmp_path: Path, registry: FakeRegistry) -> None:
    person = Person(tmp_path, registry)
    assert person.run("status").exit_code == 2
    person.ok("init")
    person.passphrase_file.write_text("other words entirely")
    done = person.run("status")
    assert done.exit_code == 3
    assert "nobody can tell which" in done.err


def test_two_commands_at_once_are_not_possible(linked: Person) -> None:
    with linked.book():
        done = linked.run("status")
        assert done.exit_code == 3
        assert "another command" in done.err
    linked.ok("status")


def test_the_secret_is_in_nothing_that_is_written_or_printed(linked: Person, aster: DataHolder, tmp_path: Path) -> None:
    printed = [linked.grant("aster"), linked.ok("freeze"), linked.run("status"), linked.run("status", "--json"),
               linked.ok("receipts"), linked.ok("export", "--out", tmp_path / "out")]  # fmt: skip
    secret = secret_of(linked)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    files += [path for path in linked.directory.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        data = path.read_bytes()
        assert secret not in data
        assert not any(spelling.encode() in data for spelling in spellings(secret))
    with linked.book() as book:
        seed = book.state.wallet().key_for("aster").seed
    for done in printed:
        text = done.out + done.err
        assert not any(spelling in text for spelling in (*spellings(secret), *spellings(seed)))
        assert base64url(aster.handle) not in text
        assert aster.handle.hex() not in text
    assert all(seed.hex().encode() not in path.read_bytes() for path in files)


def test_export_is_for_the_owner_alone_and_says_so(linked: Person, tmp_path: Path) -> None:
    linked.grant("aster")
    linked.at += 1
    linked.ok("withdraw", "aster")
    out = tmp_path / "out"
    assert "0600" in linked.ok("export", "--out", out).err
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"keys.json", "status.json", "alarms.json", "records/aster-1.json", "receipts/aster-2.json",
            "views/aster-1.jsonld", "views/aster-2.jsonld", "sealed/aster-2.bin"} <= names  # fmt: skip
    for path in out.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    view = json.loads((out / "views" / "aster-1.jsonld").read_bytes())
    assert "@context" in view
    assert linked.run("export", "--out", out).exit_code == 2


def test_errors_name_no_handle_key_or_purpose(linked: Person, aster: DataHolder, registry: FakeRegistry) -> None:
    linked.grant("aster")
    said = []
    registry.down = {"aster", "birch"}
    said += [linked.run("withdraw", "aster"), linked.run("freeze"), linked.run("status")]
    registry.down = set()
    registry.forged["aster"] = [digest("another")]
    said += [linked.run("status"), linked.grant("birch", share="0.9"), linked.run("withdraw", "birch", "--to", "x")]
    with linked.book() as book:
        account = book.account("aster")
        hidden = [account.handle, account.subject_handle.hex(), book.state.wallet().key_for("aster").public.hex(),
                  book.state.wallet().tag("aster", 1).hex(), account.identity, "open-scoring", "train"]  # fmt: skip
    for done in said:
        assert done.exit_code != 0 or "aster" in done.out
        assert not any(text in done.err for text in hidden)


def test_state_survives_and_nothing_else_is_read_as_one() -> None:
    state = State.of(digest("secret"), recovered=False)
    assert read_state(write_state(state)) == state
    assert state.secret not in repr(state)
    for data in (b"", b"{}", write_state(state)[:-1], write_state(state) + b" "):
        with pytest.raises(MalformedError):
            read_state(data)


def test_state_with_records_survives_and_a_contradiction_is_noticed(linked: Person) -> None:
    linked.grant("aster")
    with linked.book() as book:
        state = book.state
    data = write_state(state)
    assert read_state(data) == state
    (account,) = [account for account in state.accounts if account.written]
    payload = account.written[0].payload
    for broken in (payload[:-2], payload[:-2] + "zz", payload.upper()):
        with pytest.raises(FedcreditError):
            read_state(data.replace(payload.encode(), broken.encode()))


def test_status_shows_what_is_in_force_paused_and_expired(linked: Person) -> None:
    linked.run(
        "grant", "aster", "--purpose", "train", "--to", "open-scoring", "--data", "capacity", "--days", "20",
        "--reconfirm-days", "10", "--retain-days", "1", "--epsilon", "1", "--share", "0.5",
    )  # fmt: skip
    states = []
    for days in (0, 10, 10):
        linked.at += days * 86_400
        states.append(linked.ok("status", "--json").json["holders"][0]["grants"][0]["state"])
    assert states == ["in force", "paused: grant it again", "expired"]
    shown = linked.ok("status").out
    assert "aster" in shown
    assert "receipt kept" in shown
    assert "share lent 0.5" in shown
