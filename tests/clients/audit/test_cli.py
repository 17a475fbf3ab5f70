"""`fedcredit audit` as it is called: exit codes, reports, help, and mistakes that are told without a traceback."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients.audit.opening import GarbageLine
from clients.registry_client import RegistryClient
from federated import cli
from privacy.consent.receipt import write_receipt
from privacy.errors import RefusalCode, RefusalError
from tests.clients.audit.case import Case, at, usual
from tests.clients.audit.test_replay import hide, newest_withdrawal, used_at
from tests.ready import BIRCH


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> "Command":
    return Command(capsys, monkeypatch)


@dataclass(frozen=True)
class Command:
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: object) -> Told:
        """`fedcredit audit ...` in this process."""
        self.monkeypatch.setattr(sys, "argv", ["fedcredit", "audit", *map(str, arguments)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            cli.main()
        captured = self.capsys.readouterr()
        assert isinstance(exited.value.code, int)
        assert "Traceback" not in captured.err
        return Told(exited.value.code, captured.out, captured.err)


def replay_arguments(case: Case, opening: Path | None = None) -> list[object]:
    return [
        "replay", opening or case.opening, "--run-record", case.record_path, "--schema", case.schema_path,
        "--coordinator-key", case.keys.coordinator.hex(), "--registry-key", case.keys.registry.hex(),
        "--holder-key", case.keys.holder.hex(),
    ]  # fmt: skip


def test_an_honest_run_opened_and_replayed(run: Command, tmp_path: Path) -> None:
    case, out = usual(), tmp_path / "aster.opening"
    opened = run("open", "--directory", case.ready.home(), "--run", case.outcome.run, "--out", out)
    assert opened.code == 0, opened.err
    assert f"{out}: " in opened.out
    assert out.read_bytes() == case.opening.read_bytes()
    told = run(*replay_arguments(case, out))
    assert told.code == 0, told.err
    assert "adds up   every decision and commitment" in told.out
    machine = run(*replay_arguments(case, out), "--json")
    assert machine.code == 0
    assert json.loads(machine.out)["adds_up"] is True
    again = run("open", "--directory", case.ready.home(), "--run", case.outcome.run, "--out", tmp_path / "2", "--json")
    assert json.loads(again.out)["lines"]["opened"] == case.pinned.size


def test_what_does_not_add_up_is_exit_code_5_and_named(run: Command, tmp_path: Path) -> None:
    case = usual()
    position, _ = newest_withdrawal(case)
    receipt = tmp_path / "receipt.json"
    receipt.write_bytes(write_receipt(case.receipt(position)))
    forged = case.forged(hide(position))
    assert run(*replay_arguments(case, forged)).code == 0
    caught = run(*replay_arguments(case, forged), "--receipt", receipt)
    assert caught.code == 5
    assert f"WRONG     entry {position}: it is said to be garbage, but a receipt opens it" in caught.out
    assert "Tampering: 1 things" in caught.err
    machine = run(*replay_arguments(case, forged), "--receipt", receipt, "--receipt", receipt, "--json")
    assert machine.code == 5
    assert json.loads(machine.out)["lane"]["faults"] == [{"count": 1, "fault": "garbage", "positions": [position]}]


def test_nobody_is_named_in_any_output(run: Command) -> None:
    case = usual()
    handle = used_at(case)
    for told in (run(*replay_arguments(case)), run(*replay_arguments(case, case.forged(at(0, hidden))))):
        assert handle.hex() not in told.out + told.err


def hidden(line: object) -> GarbageLine:
    return GarbageLine(getattr(line, "leaf"))  # noqa: B009 (any kind of entry)


def with_option(arguments: list[object], option: str, value: object) -> list[object]:
    place = arguments.index(option) + 1
    return [*arguments[:place], value, *arguments[place + 1 :]]


@pytest.mark.parametrize("option", ["--coordinator-key", "--registry-key", "--holder-key"])
@pytest.mark.parametrize("value", ["", "ab", "x" * 64, "ab" * 31 + " a b", "ab" * 33, "١" * 64])
def test_a_key_that_is_none_is_a_usage_error(run: Command, option: str, value: str) -> None:
    told = run(*with_option(replay_arguments(usual()), option, value))
    assert told.code == 2
    assert option in told.err


def test_mistakes_are_told(run: Command, tmp_path: Path) -> None:
    case = usual()
    arguments = replay_arguments(case)
    nothing, broken = tmp_path / "nothing", tmp_path / "broken"
    broken.write_bytes(b"{}")
    other_record = case.rewritten_record(lambda plain: plain.update(run="0" * 32))
    other_lane = tmp_path / "other.json"
    other_lane.write_bytes(write_receipt(case.receipt(0, lane=BIRCH)))
    home = case.ready.home()
    for code, called in (
        (2, ["replay"]),
        (2, ["open"]),
        (2, ["open", "--directory", home, "--out", nothing]),
        (2, ["replay", nothing, *arguments[2:]]),
        (2, with_option(arguments, "--run-record", nothing)),
        (2, with_option(arguments, "--schema", nothing)),
        (2, [*arguments, "--receipt", nothing]),
        (2, [*arguments, "--receipt", tmp_path]),
        (2, ["open", "--directory", nothing, "--run", case.outcome.run, "--out", tmp_path / "o"]),
        (2, ["open", "--directory", home, "--run", case.outcome.run, "--out", broken]),
        (3, ["open", "--directory", home, "--run", "0" * 32, "--out", tmp_path / "o"]),
        (3, ["open", "--directory", home, "--run", "../../x", "--out", tmp_path / "o"]),
        (3, ["open", "--directory", home, "--run", "epoch 1", "--out", tmp_path / "o"]),
        (3, ["open", "--directory", home, "--run", case.outcome.run.upper(), "--out", tmp_path / "o"]),
        (3, with_option(arguments, "--run-record", other_record)),
        (3, [*arguments, "--receipt", other_lane]),
        (4, ["replay", broken, *arguments[2:]]),
        (4, with_option(arguments, "--run-record", broken)),
        (4, [*arguments, "--receipt", broken]),
        (2, ["open", "--directory", tmp_path, "--run", case.outcome.run, "--out", tmp_path / "o"]),
        (5, with_option(arguments, "--holder-key", "ab" * 32)),
        (5, with_option(arguments, "--registry-key", "ab" * 32)),
    ):
        told = run(*called)
        assert told.code == code, (called, told)
        assert told.err.strip()


def test_the_registry_is_asked_only_when_it_must_be(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """An opening of an honest lane needs no network; one that does says whom it could not reach."""

    def unreachable(*_: object, **__: object) -> None:
        raise RefusalError("The registry does not answer. Its operator should look.", RefusalCode.LANE)

    monkeypatch.setattr(RegistryClient, "__init__", unreachable)
    case = usual()
    out = case.opening.with_name("offline.opening")
    assert run("open", "--directory", case.ready.home(), "--run", case.outcome.run, "--out", out).code == 0


@pytest.mark.parametrize("name", [[], ["open"], ["replay"]])
def test_every_command_has_help_with_an_example(run: Command, name: list[str]) -> None:
    told = run(*name, "--help")
    assert told.code == 0
    assert "Example: fedcredit audit " in told.out


def test_the_help_says_what_the_file_holds_and_what_cannot_be_checked(run: Command) -> None:
    assert "No identity is in it" in " ".join(run("open", "--help").out.split()).replace("No\nidentity", "No identity")
    assert "calls garbage" in " ".join(run("replay", "--help").out.split())
