"""What `fedcredit doctor` looks at in every role, each broken once; and that no check brings the others down."""

import json
import os
import shutil
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from email.utils import formatdate
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated import doctor_house, doctor_net
from federated.doctor import Check, Finding, Place, State, as_plain, examine, gravest, ok, problem, table, warning
from federated.doctor_files import database, program, room, secrets, tables, writable
from federated.doctor_house import flower_programs, house_checks, packages, python, rooms
from federated.doctor_net import ask, clock_of, port
from federated.doctor_tls import certificate, dates
from federated.lock import alone
from privacy.consent.lane import Head, write_checkpoint
from privacy.consent.signing import SigningKey
from privacy.errors import RefusalCode, RefusalError, TamperingError
from tests.federated.doctor_scene import DAY_S, Authority, answering, free_port, taken

NOW = int(time.time())
SECRET = "SECRET-ROW-VALUE"
AUTHORITY = Authority(at=NOW)


def test_a_check_that_fails_is_a_problem_without_its_text_and_the_others_go_on() -> None:
    def fail() -> None:
        raise ValueError(SECRET)

    def refuse() -> None:
        raise RefusalError("The disk is full. Make room.", RefusalCode.INTERNAL)

    findings = examine(
        [Check("one", fail, "mend it"), Check("two", refuse, "really"), Check("three", lambda: ok("fine"), "")]  # type: ignore[arg-type]
    )
    assert [one.state for one in findings] == [State.PROBLEM, State.PROBLEM, State.OK]
    assert findings[0] == Finding("one", State.PROBLEM, "it could not be looked at (ValueError)", "mend it")
    assert findings[1].found == "The disk is full. Make room."


def test_findings_are_told_with_how_to_mend_them_and_their_sum() -> None:
    findings = [Finding("disk", State.OK, "2 GiB free", ""), Finding("keys", State.PROBLEM, "gone", "Restore them.")]
    assert table(findings) == [
        "ok       disk  2 GiB free",
        "problem  keys  gone",
        "               -> Restore them.",
        "2 looked at: 1 ok, 1 problem",
    ]
    told = as_plain("registry", findings)
    assert json.loads(json.dumps(told))["findings"][1] == {
        "what": "keys", "state": "problem", "found": "gone", "mend": "Restore them.",
    }  # fmt: skip
    assert (told["role"], told["problems"], told["warnings"]) == ("registry", 1, 0)


def test_several_verdicts_are_as_grave_as_the_worst() -> None:
    assert gravest([ok("a")], well="all") == ok("all")
    assert gravest([ok("a"), warning("b", "B.")], well="all") == warning("b", "B.")
    assert gravest([warning("b", "B."), problem("c", "C.")], well="all") == problem("b; c", "B. C.")


# The house


def test_this_installation_is_in_order() -> None:
    findings = examine(house_checks(extras=["registry"], programs=["flower-superlink", "flower-supernode", "flwr"]))
    assert [one.what for one in findings] == ["Python", "packages", "our own code", "Flower's programs"]
    assert [one.state for one in findings] == [State.OK] * 4
    assert "flwr 1.4" in findings[1].found


def test_an_old_python_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.10.12")
    assert python().state is State.PROBLEM


@pytest.mark.parametrize(("name", "has"), [("flwr", "1.43.0"), ("flwr", "1.40.2"), ("cryptography", "44.0.0")])
def test_a_package_of_another_version_is_found(name: str, has: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_house, "version", lambda asked: has if asked == name else version(asked))
    verdict = packages()
    assert verdict.state is State.PROBLEM
    assert f"{name} is {has}" in verdict.found


def test_a_package_is_missed_by_those_who_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(asked: str) -> str:
        if asked == "sqlalchemy":
            raise PackageNotFoundError(asked)
        return version(asked)

    monkeypatch.setattr(doctor_house, "version", without)
    assert packages().state is State.OK
    verdict = packages(["registry"])
    assert verdict.state is State.PROBLEM
    assert verdict.mend == "Run: pip install 'fedcredit[registry]'"


def test_rooms_of_another_distribution_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients" / "__init__.py").write_text("")
    assert rooms().state is State.OK
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "clients"]:
        monkeypatch.delitem(sys.modules, name)
    verdict = rooms()
    assert verdict.state is State.PROBLEM
    assert verdict.found.startswith("clients would")


def test_a_missing_program_of_flowers_is_found(tmp_path: Path) -> None:
    (tmp_path / "flwr").write_text("#!/bin/sh\n")
    (tmp_path / "flwr").chmod(0o755)
    assert flower_programs(["flwr"], tmp_path).state is State.OK
    assert flower_programs(["flwr", "flower-superlink"], tmp_path).state is State.PROBLEM


# Files


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / "one.key").touch(0o600)
    tmp_path.chmod(0o755)
    return tmp_path


def test_secrets_of_their_owner_alone_are_well(house: Path) -> None:
    assert secrets(house, ["keys/*", "missing.key"], ["keys"]) == ok("1 secret files are their owner's alone")


@pytest.mark.parametrize(
    ("name", "mode"), [("keys/one.key", 0o640), ("keys/one.key", 0o604), ("keys", 0o750), (".", 0o775), (".", 0o757)]
)
def test_a_mode_that_lets_others_in_is_found(name: str, mode: int, house: Path) -> None:
    (house / name).chmod(mode)
    verdict = secrets(house, ["keys/*"], ["keys"])
    assert verdict.state is State.PROBLEM
    assert f"mode {mode:04o}" in verdict.found
    right = {"keys/one.key": "600", "keys": "700", ".": "755"}[name]
    assert verdict.mend == f"chmod {right} {house if name == '.' else house / name}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_accounts_file_is_found(house: Path) -> None:
    os.chown(house / "keys" / "one.key", 12345, -1)
    assert secrets(house, ["keys/*"], ["keys"]).state is State.PROBLEM
    os.chown(house / "keys", 12345, -1)
    os.chown(house, 12345, -1)
    verdict = secrets(house, ["keys/*"], ["keys"])
    assert verdict.state is State.WARNING
    assert "another account than the one that looks" in verdict.found


def test_a_directory_that_cannot_be_written_is_found(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert writable(house).state is State.OK

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    verdict = writable(house)
    assert verdict.state is State.PROBLEM
    assert "Read-only file system" in verdict.found


@pytest.mark.parametrize(
    ("free", "databases", "state"),
    [
        (5 << 30, 1 << 20, State.OK),
        ((1 << 30) - 1, 1 << 20, State.WARNING),
        (1 << 29, (1 << 29) + 4096, State.PROBLEM),
        (1 << 20, 0, State.PROBLEM),
    ],
)
def test_little_room_is_found(
    free: int, databases: int, state: State, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (house / "one.db").open("wb") as file:
        file.truncate(databases)  # sparse
    usage = shutil.disk_usage(house)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=free))
    assert room(house, [house / "one.db", house / "missing.db"]).state is state


def _make_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE rows (name TEXT PRIMARY KEY, content BLOB)")
        connection.executemany("INSERT INTO rows VALUES (?, ?)", [(f"row {n}", bytes(500)) for n in range(500)])
        connection.commit()


def test_a_damaged_database_is_found_and_none_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "with space?.db"
    assert database(path, mend="Restore it.") == ok("not made yet")
    assert not path.exists()
    _make_database(path)
    before = path.read_bytes()
    assert database(path, mend="Restore it.") == ok("whole")
    assert path.read_bytes() == before
    path.write_bytes(before[:4096] + bytes(4096 * 3) + before[4 * 4096 :])
    assert database(path, mend="Restore it.").state is State.PROBLEM
    path.write_bytes(SECRET.encode() * 1000)
    verdict = database(path, mend="Restore it.")
    assert verdict == problem(f"{path.name} is damaged", "Restore it.")


def test_what_a_killed_program_left_beside_its_database_is_left_to_it(tmp_path: Path) -> None:
    _make_database(tmp_path / "live.db")
    with closing(sqlite3.connect(tmp_path / "live.db")) as connection:
        connection.execute("INSERT INTO rows VALUES ('one more', x'00')")
        connection.commit()
        for end in ("", "-wal"):
            shutil.copy(tmp_path / f"live.db{end}", tmp_path / f"left.db{end}")
    log = (tmp_path / "left.db-wal").read_bytes()
    assert log
    assert database(tmp_path / "left.db", mend="") == ok("whole")
    assert (tmp_path / "left.db-wal").read_bytes() == log


def test_tables_that_are_missing_or_empty_are_found(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "held.sql.toml").write_text('query = "select 1"\n')
    assert tables(tmp_path, ["rows.csv", "held.sql.toml"]).state is State.OK
    assert tables(tmp_path, ["rows.csv", "other.csv"]).state is State.PROBLEM
    (tmp_path / "held.sql.toml").write_text(SECRET + "\n")
    verdict = tables(tmp_path, ["held.sql.toml"])
    assert verdict.state is State.PROBLEM
    assert SECRET not in verdict.found + verdict.mend
    (tmp_path / "rows.csv").write_text("")
    assert tables(tmp_path, ["rows.csv"]).state is State.PROBLEM


def test_a_program_that_was_killed_is_told_from_one_that_runs(tmp_path: Path) -> None:
    lock = tmp_path / "serve.lock"
    for says_running in (True, False):
        with alone(lock, "held"):
            assert program(lock, lambda says=says_running: says, start="start it") == ok("running")  # type: ignore[misc]
    assert program(lock, lambda: False, start="start it") == ok("not running")
    verdict = program(lock, lambda: True, start="start it")
    assert verdict.state is State.WARNING
    assert "interrupted" in verdict.found
    assert "start it" in verdict.mend


# Certificates


def _look(tmp_path: Path, **changed: object) -> State:
    given: dict[str, object] = {
        "at": NOW, "mend": "Renew it.", "key": tmp_path / "tls.key", "ca": tmp_path / "ca.pem", "host": "127.0.0.1",
    }  # fmt: skip
    return certificate(tmp_path / "tls.pem", **(given | changed)).state  # type: ignore[arg-type]


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    AUTHORITY.issue(tmp_path / "tls", hosts=("127.0.0.1", "fleet.example", "*.wide.example"))
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    return tmp_path


@pytest.mark.parametrize("host", ["127.0.0.1", "fleet.example", "FLEET.example", "a.wide.example", None])
def test_a_good_certificate_is_well(host: str | None, certified: Path) -> None:
    assert _look(certified, host=host) is State.OK


@pytest.mark.parametrize("host", ["127.0.0.2", "example", "other.example", "a.b.wide.example", "wide.example"])
def test_a_certificate_for_another_name_is_found(host: str, certified: Path) -> None:
    assert _look(certified, host=host) is State.PROBLEM


@pytest.mark.parametrize(
    ("begins", "days", "state"), [(-30, 29, State.PROBLEM), (2, 90, State.PROBLEM), (-30, 43, State.WARNING)]
)
def test_a_certificate_out_of_its_time_is_found(begins: int, days: int, state: State, certified: Path) -> None:
    AUTHORITY.issue(certified / "tls", begins=begins, days=days)
    assert _look(certified) is state


def test_a_certificate_of_another_authority_or_key_is_found(certified: Path, tmp_path: Path) -> None:
    other = Authority(at=NOW)
    (tmp_path / "ca.pem").write_bytes(other.pem)
    assert _look(certified) is State.PROBLEM
    (tmp_path / "ca.pem").write_bytes(other.pem + AUTHORITY.pem)  # while the authority is changed
    assert _look(certified) is State.OK
    AUTHORITY.issue(tmp_path / "other")
    assert _look(certified, key=tmp_path / "other.key") is State.PROBLEM
    (tmp_path / "tls.key").write_text("no key")
    assert _look(certified) is State.PROBLEM
    (tmp_path / "tls.pem").write_text("no certificate")
    assert _look(certified) is State.PROBLEM


def test_an_authority_that_has_expired_takes_its_certificates_along(certified: Path) -> None:
    assert _look(certified, at=NOW + 80 * DAY_S) is State.WARNING
    old = Authority(at=NOW - 3300 * DAY_S)  # good for another 15 hours less than its certificate's 90 days
    old.at = NOW
    old.issue(certified / "tls")
    (certified / "ca.pem").write_bytes(old.pem)
    assert _look(certified) is State.PROBLEM


@given(begins=st.integers(0, 10**9), length=st.integers(1, 10**9), at=st.integers(0, 3 * 10**9))
def test_a_certificate_is_good_from_its_beginning_until_its_end(begins: int, length: int, at: int) -> None:
    verdict = dates(begins, begins + length, at=at, mend="")
    assert (verdict.state is State.PROBLEM) == (not begins <= at < begins + length)
    if verdict.state is State.OK:
        assert begins + length - at >= 14 * DAY_S


def test_the_last_good_second_of_a_certificate_is_the_one_before_its_end() -> None:
    assert dates(0, 100, at=99, mend="").state is State.WARNING
    assert dates(0, 100, at=100, mend="").state is State.PROBLEM
    assert dates(0, 100, at=-1, mend="").state is State.PROBLEM


# The network


def test_who_answers_is_heard_and_the_clock_is_compared(certified: Path) -> None:
    with answering(lambda path: (200, path.encode()), tls=certified / "tls") as number:
        answer = ask(f"https://127.0.0.1:{number}/health", ca=AUTHORITY.pem.decode(), clock=time.time)
    assert (answer.status, answer.body) == (200, b"/health")
    assert answer.certified is not None
    assert answer.certified[1] - NOW > 80 * DAY_S
    assert clock_of(answer, "the registry", behind_s=120, ahead_s=120).state is State.OK


@pytest.mark.parametrize(("ahead_s", "words"), [(3600, "3600 s behind"), (-3600, "s ahead of")])
def test_a_clock_that_is_an_hour_off_is_found(ahead_s: int, words: str) -> None:
    with answering(lambda _: (200, b""), ahead_s=ahead_s) as number:
        answer = ask(f"http://127.0.0.1:{number}/", ca=None, clock=lambda: float(int(time.time())))
    verdict = clock_of(answer, "the registry", behind_s=120, ahead_s=120)
    assert verdict.state is State.PROBLEM
    assert words in verdict.found
    assert clock_of(answer, "the registry", behind_s=4000, ahead_s=4000).state is State.OK


@given(ahead_s=st.integers(-10_000, 10_000), begun=st.floats(0.5, 10**9), took=st.floats(0, 5))
def test_what_a_date_header_cannot_tell_is_never_held_against_a_clock(ahead_s: int, begun: float, took: float) -> None:
    # The answerer read its clock, `ahead_s` ahead of ours, at some instant of the exchange, and cut off the fraction.
    begun += 100_000
    for instant in (begun, begun + took / 2, begun + took):
        told = formatdate(int(instant + ahead_s), usegmt=True)
        measured = doctor_net._ahead(told, begun, begun + took)
        assert measured is not None
        assert abs(measured) <= abs(ahead_s) + 1e-6
        assert abs(measured) >= abs(ahead_s) - took - 1 - 1e-6


@pytest.mark.parametrize(
    ("ahead_s", "state"),
    [(-6, State.PROBLEM), (-5, State.OK), (0, State.OK), (300, State.OK), (301, State.PROBLEM), (None, State.SKIPPED)],
)
def test_a_clock_may_be_less_ahead_than_behind(ahead_s: float | None, state: State) -> None:
    answer = doctor_net.Answer(200, b"", ahead_s, None)
    assert clock_of(answer, "the coordinator", behind_s=300, ahead_s=5).state is state


def test_no_date_is_no_clock() -> None:
    assert doctor_net._ahead(None, 1, 2) is None
    assert doctor_net._ahead("yesterday", 1, 2) is None


@pytest.mark.parametrize(
    ("hosts", "begins", "days", "words"),
    [
        (("127.0.0.1",), -30, 29, "has expired"),
        (("127.0.0.1",), 2, 90, "not valid yet"),
        (("127.0.0.2",), -1, 90, "another address"),
    ],
)
def test_a_certificate_that_is_not_believed_is_told_why(
    hosts: tuple[str, ...], begins: int, days: int, words: str, tmp_path: Path
) -> None:
    AUTHORITY.issue(tmp_path / "tls", hosts=hosts, begins=begins, days=days)
    with (
        answering(lambda _: (200, b""), tls=tmp_path / "tls") as number,
        pytest.raises(RefusalError, match=words),
    ):
        ask(f"https://127.0.0.1:{number}/", ca=AUTHORITY.pem.decode(), clock=time.time)


def test_a_stranger_with_a_certificate_of_its_own_is_not_believed(certified: Path) -> None:
    with (
        answering(lambda _: (200, b""), tls=certified / "tls") as number,
        pytest.raises(RefusalError, match="not trusted here"),
    ):
        ask(f"https://127.0.0.1:{number}/", ca=Authority(at=NOW).pem.decode(), clock=time.time)


def test_who_is_away_or_never_ends_is_given_up() -> None:
    with pytest.raises(RefusalError, match="refused"):
        ask(f"http://127.0.0.1:{free_port()}/", ca=None, clock=time.time)
    with taken() as number, pytest.raises(RefusalError, match="nothing came back within"):
        ask(f"http://127.0.0.1:{number}/", ca=None, clock=time.time, seconds=0.2)


def test_who_sends_a_byte_before_every_silence_ends_is_given_up() -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"a")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(RefusalError, match="nothing came back within"):
                ask(f"http://127.0.0.1:{listener.getsockname()[1]}/", ca=None, clock=time.time, seconds=0.3)
        finally:
            stop.set()
            thread.join()


def test_what_is_no_http_is_told_without_a_word_of_it() -> None:
    with answering(lambda _: (200, b"x" * 100_000)) as number:
        assert len(ask(f"http://127.0.0.1:{number}/", ca=None, clock=time.time).body) == doctor_net.MOST_BYTES
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def chat() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"{SECRET}\r\n\r\n".encode())

        thread = threading.Thread(target=chat)
        thread.start()
        with pytest.raises(RefusalError, match="no HTTP") as caught:
            ask(f"http://127.0.0.1:{listener.getsockname()[1]}/", ca=None, clock=time.time)
        thread.join()
    assert SECRET not in str(caught.value)


KEY = SigningKey.from_seed(bytes(32))


def test_a_registry_is_known_by_its_signature() -> None:
    head = Head(3, bytes(range(32)))
    note = write_checkpoint(head, "fedcredit/aster-bank", KEY).encode()
    answer = doctor_net.Answer(200, note, 0.0, None)
    assert doctor_net.head_of(answer, "aster-bank", KEY.public) == head
    with pytest.raises(TamperingError):
        doctor_net.head_of(answer, "aster-bank", SigningKey.from_seed(bytes(31) + b"1").public)
    with pytest.raises(RefusalError, match="no checkpoint of lane"):
        doctor_net.head_of(doctor_net.Answer(404, note, 0.0, None), "aster-bank", KEY.public)


@pytest.fixture
def stranger() -> Iterator[int]:
    with taken() as number:
        yield number


def test_a_port_is_free_or_ours_or_somebody_elses(
    certified: Path, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_net, "PATIENCE_S", 0.5)
    tls, other = certified / "tls", certified / "other"
    AUTHORITY.issue(other)
    assert port("127.0.0.1", 0, certificate=tls).state is State.OK
    assert "free" in port("127.0.0.1", free_port(), certificate=tls.with_suffix(".pem")).found
    with answering(lambda _: (200, b""), tls=tls) as number:
        assert "our own" in port("127.0.0.1", number, certificate=tls.with_suffix(".pem")).found
        assert "our own" in port("0.0.0.0", number, certificate=tls.with_suffix(".pem")).found  # noqa: S104
        assert port("127.0.0.1", number, certificate=other.with_suffix(".pem")).state is State.PROBLEM
    with answering(lambda path: (200 if path == "/healthz" else 404, b"")) as number:
        well = f"http://127.0.0.1:{number}/healthz"
        assert "our own" in port("127.0.0.1", number, certificate=None, url=well).found
        assert port("127.0.0.1", number, certificate=None, url=well + "x").state is State.PROBLEM
    verdict = port("127.0.0.1", stranger, certificate=tls.with_suffix(".pem"))
    assert verdict.state is State.PROBLEM
    assert "held by another program" in verdict.found
    assert port("192.0.2.1", 8443, certificate=None).state is State.PROBLEM  # TEST-NET-1: no address of ours


def test_a_place_says_what_time_it_is(tmp_path: Path) -> None:
    assert Place(tmp_path, clock=lambda: 12.9).now == 12
