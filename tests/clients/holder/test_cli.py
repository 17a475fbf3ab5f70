"""`fedcredit holder`: each command does what it says, and a mistake is one text and an exit code."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from clients.holder import cli as holder_cli
from clients.holder.epochs import KEY_SET_LIFE_S
from clients.holder.settings import load_settings
from clients.holder.watch import Bell, Watch
from privacy.consent.canonical import base64url
from privacy.consent.key_set import read_key_set
from privacy.consent.linking import fingerprint
from privacy.consent.record import Purpose
from privacy.consent.submission import frame
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from tests.clients.holder.desk_scene import AT, DAY_S, LANE, START, Command, Person, Scene, Told, grant

FAMILIES = {2: "Usage", 3: "Refusal", 4: "Malformed", 5: "Tampering"}
ROOT = Path(__file__).parents[3]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / LANE)


@pytest.fixture
def fedcredit(scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(scene, capsys, monkeypatch)


def assert_told(told: Told, code: int, words: str = "") -> None:
    text = told.out + told.err
    assert told.code == code, text
    assert "Traceback" not in text
    assert f"{FAMILIES[code]}: " in told.err or (code == 2 and "Usage: " in told.err)
    assert re.search(words, " ".join(text.split())), text
    assert not re.search(r"\b[0-9a-f]{64}\b", text), text


def linked(scene: Scene, fedcredit: Command, tmp_path: Path, person: Person) -> None:
    """Link a person by commands alone."""
    offer, answer = tmp_path / f"{person.key.public.hex()[:8]}.offer", tmp_path / "answer.json"
    assert fedcredit("link", person.customer, "--out", offer).code == 0
    answer.write_bytes(person.answer(offer.read_bytes()))
    assert fedcredit("link", "--answer", answer).code == 0


def init_arguments(directory: Path, **changes: str) -> list[object]:
    values = {
        "holder": LANE, "registry-url": START.registry_url, "registry-key": START.registry_key,
        "coordinator": START.coordinator, "coordinator-key": START.coordinator_key,
    } | changes  # fmt: skip
    return [directory, *(text for name, value in values.items() for text in (f"--{name}", value))]


def test_init_makes_a_whole_directory_that_only_its_owner_can_use(
    scene: Scene, fedcredit: Command, tmp_path: Path
) -> None:
    directory = tmp_path / "new" / "aster"
    told = fedcredit("init", *init_arguments(directory, contact="Box 1", **{"side-door": "https://door.example"}))
    assert told.code == 0, told.err
    assert sorted(path.name for path in directory.iterdir()) == ["holder.toml", "keys", "notice.txt"]
    for path in (directory / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    settings = load_settings(directory / "holder.toml")
    assert (settings.holder, settings.registry.url, settings.desk.side_door) == (
        LANE, START.registry_url, "https://door.example",
    )  # fmt: skip
    identity = bytes.fromhex(re.findall(r"\b[0-9a-f]{64}\b", told.out)[0])
    assert fingerprint(identity) in told.out
    seeds = [path.read_bytes().hex() for path in (directory / "keys").iterdir()]
    assert not any(seed[2:66] in told.out for seed in seeds)
    as_json = fedcredit("init", *init_arguments(tmp_path / "other"), "--json")
    assert json.loads(as_json.out)["fingerprint"] != fingerprint(identity)
    assert "FILL IN" in (tmp_path / "other" / "notice.txt").read_text(encoding="utf-8")


def test_every_setting_is_explained(scene: Scene) -> None:
    text = (scene.directory / "holder.toml").read_text(encoding="utf-8")
    tables: list[dict[str, object]] = [tomllib.loads(text)]
    keys = [key for table in tables for key, value in table.items() if not isinstance(value, dict)]
    keys += [key for table in tables[0].values() if isinstance(table, dict) for key in table if key != "peers"]
    assert len(keys) > 20
    lines = text.splitlines()
    for key in keys:
        (place,) = [number for number, line in enumerate(lines) if line.startswith(f"{key} =")]
        above = place - 1
        while " = " in lines[above] and not lines[above].startswith("#"):
            above -= 1
        assert lines[above].startswith("#"), key


def test_init_overwrites_nothing(scene: Scene, fedcredit: Command) -> None:
    before = {path: path.read_bytes() for path in scene.directory.rglob("*") if path.is_file()}
    assert_told(fedcredit("init", *init_arguments(scene.directory)), 2, "exists and is left as it is")
    (scene.directory / "holder.toml").unlink()
    assert_told(fedcredit("init", *init_arguments(scene.directory)), 2, "exists and is left as it is")
    del before[scene.directory / "holder.toml"]
    assert {path: path.read_bytes() for path in scene.directory.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("holder", "Aster Bank"), ("holder", "../aster"), ("holder", ""), ("registry-url", "http://registry.example"),
        ("registry-url", "https://registry.example/"), ("registry-url", "ftp://x"), ("registry-url", ""),
        ("registry-key", "ab" * 31), ("registry-key", "AB" * 32), ("coordinator-key", "x"), ("jurisdiction", "Austria"),
        ("language", "English, please"), ("side-door", "http://door.example"), ("registry-ca", "missing.pem"),
        ("coordinator", 'x"\nrows = "y'), ("coordinator", "\x7f"),
    ],
)  # fmt: skip
def test_init_refuses_what_makes_no_settings_and_makes_nothing(
    fedcredit: Command, tmp_path: Path, option: str, value: str
) -> None:
    told = fedcredit("init", *init_arguments(tmp_path / "new", **{option: value}))
    if option == "coordinator" and "rows" in value:  # quoted, it is a strange name and no more
        assert told.code == 0
        assert load_settings(tmp_path / "new" / "holder.toml").policy.coordinator == value
        return
    assert_told(told, 2)
    assert not (tmp_path / "new").exists()


def test_init_takes_certificates_and_nothing_else(fedcredit: Command, tmp_path: Path) -> None:
    from tests.clients.holder.test_side_door import certificate

    pem, key = certificate(tmp_path)
    told = fedcredit("init", *init_arguments(tmp_path / "bad", **{"registry-ca": str(key)}))
    assert_told(told, 4)
    assert not (tmp_path / "bad").exists()
    assert fedcredit("init", *init_arguments(tmp_path / "new", **{"registry-ca": str(pem)})).code == 0
    assert (tmp_path / "new" / "registry-ca.pem").read_bytes() == pem.read_bytes()


def test_the_whole_ceremony_by_commands(scene: Scene, fedcredit: Command, tmp_path: Path) -> None:
    people = [Person(f"KD-47{number}") for number in range(3)]
    out = tmp_path / "offers"
    told = fedcredit("link", *(person.customer for person in people), "--out", out, "--json")
    files = json.loads(told.out)["offers"]
    assert files == [str(out / f"offer-{number}.json") for number in (1, 2, 3)]
    assert json.loads(told.out)["fingerprint"] == fingerprint(scene.identity.public)
    for person, file in zip(people, files, strict=True):
        assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
        answer = tmp_path / "answer.json"
        answer.write_bytes(person.answer(Path(file).read_bytes()))
        assert json.loads(fedcredit("link", "--answer", answer, "--json").out) == {"linked": "new"}
        assert_told(fedcredit("link", "--answer", answer), 3, "answered before")
    with scene.desk() as desk:
        assert desk.lane.links() == {person.customer: person.handle for person in people}
    assert_told(fedcredit("link", "KD-9", "KD-10", "--out", out), 2, "exists")
    assert_told(fedcredit("link", "KD-9", "--out", files[0]), 2, "exists")


def test_a_lost_wallet_is_replaced_at_the_desk(scene: Scene, fedcredit: Command, tmp_path: Path) -> None:
    person, new, answer = Person("KD-4711"), Person("KD-4711", wallet="new"), tmp_path / "answer.json"
    linked(scene, fedcredit, tmp_path, person)
    scene.registry.append(person.says(grant(), to=scene.lane_key))
    offer = tmp_path / "second.json"
    assert fedcredit("link", "KD-4711", "--out", offer).code == 0
    answer.write_bytes(new.answer(offer.read_bytes()))
    assert new.seq == 1  # the record that nobody had synced before is known to the offer
    assert_told(fedcredit("link", "--answer", answer), 3, "--replace")
    assert "replaced" in fedcredit("link", "--answer", answer, "--replace", "--json").out
    assert "no record has arrived" in fedcredit("consents", "KD-4711").out


def test_sync_says_what_is_new_and_publishes_the_keys_in_time(scene: Scene, fedcredit: Command, tmp_path: Path) -> None:
    person = Person("KD-4711")
    linked(scene, fedcredit, tmp_path, person)
    scene.registry.append(person.says(grant(), to=scene.lane_key), person.says(to=scene.lane_key))
    facts = json.loads(fedcredit("sync", "--json").out)
    assert (facts["new"], facts["size"], facts["age_s"]) == (2, 2, 0)
    assert len(scene.registry.key_sets) == 1
    assert "0 new entries; 2 in the lane" in fedcredit("sync").out
    assert len(scene.registry.key_sets) == 1
    fedcredit.at = AT + KEY_SET_LIFE_S // 2
    assert fedcredit("sync").code == 0
    assert len(scene.registry.key_sets) == 2
    scene.registry.shown = 1
    assert_told(fedcredit("sync"), 5, "shorter")
    scene.registry.shown, scene.registry.fails = None, ["checkpoint"]
    assert_told(fedcredit("sync"), 3, "reached")


def test_keys_are_published_rotated_and_destroyed(scene: Scene, fedcredit: Command) -> None:
    facts = json.loads(fedcredit("publish-keys", "--json").out)
    assert facts == {"version": 1, "current": 1, "epochs": [1], "expires": AT + KEY_SET_LIFE_S}
    told = fedcredit("rotate")
    assert "epoch 2 is current, 1 still accepted" in told.out
    assert "Start the side door" in told.out
    key_set = read_key_set(scene.registry.key_sets[-1], identity=scene.identity.public, holder=LANE, at=AT)
    assert key_set.current == 2
    assert_told(fedcredit("rotate", "--destroy", 1), 3, "withdrawal")
    assert_told(fedcredit("rotate", "--destroy", 2), 3, "current")
    assert_told(fedcredit("rotate", "--destroy", 9), 2, "no key")
    fedcredit.at = AT + KEY_SET_LIFE_S + 2 * DAY_S
    assert fedcredit("sync").code == 0
    told = fedcredit("rotate", "--destroy", 1)
    assert (told.code, "SSD" in told.out) == (0, True)
    assert sorted(path.name for path in (scene.directory / "keys").iterdir()) == [
        "identity.key", "lane-1.destroyed", "lane-2.key",
    ]  # fmt: skip
    assert fedcredit("sync").code == 0


def test_consents_are_counted_and_told(scene: Scene, fedcredit: Command, tmp_path: Path) -> None:
    yes, no = Person("KD-1"), Person("KD-2")
    for person in (yes, no):
        linked(scene, fedcredit, tmp_path, person)
    scene.sync(yes.says(grant(), grant(Purpose.SCORE), to=scene.lane_key))
    told = fedcredit("consents")
    assert "2 linked customers" in told.out
    assert "train for open-scoring: 1 allowed" in told.out
    assert "1 not: no record has arrived (none)" in told.out
    assert "stay in the house" in told.out
    facts = json.loads(fedcredit("consents", "--purpose", "score", "--to", "harbour-lending", "--json").out)
    assert facts["consents"] == [
        {"purpose": "score", "to": "harbour-lending", "allowed": 1, "refused": {"none": 1}},
    ]
    told = fedcredit("consents", "KD-1")
    assert re.search(r"train for open-scoring: allowed until 2027-\d\d-\d\d \d\d:\d\d UTC", told.out)
    asked = json.loads(fedcredit("consents", "KD-1", "--purpose", "monitor", "--to", "x", "--json").out)
    assert [(answer["allowed"], answer["reason"]) for answer in asked["answers"]] == [(False, "purpose")]
    assert "no record has arrived" in fedcredit("consents", "KD-2").out
    file = tmp_path / "direct.bin"
    file.write_bytes(frame([yes.says(frozen=True, to=scene.lane_key)]))
    assert fedcredit("take", file).code == 0
    told = fedcredit("consents", "KD-1")
    assert "Frozen by the person" in told.out
    assert "not in the lane yet" in told.out
    assert_told(fedcredit("consents", "KD-3"), 3, "not linked")
    assert_told(fedcredit("consents", "--purpose", "train"), 2, "go together")
    assert_told(fedcredit("consents", "--purpose", "anything", "--to", "x"), 2)


def test_erase_is_finished_by_the_same_command(scene: Scene, fedcredit: Command, tmp_path: Path) -> None:
    person = Person("KD-4711")
    linked(scene, fedcredit, tmp_path, person)
    scene.registry.append(person.says(grant(), to=scene.lane_key), person.says(to=scene.lane_key))  # not synced yet
    scene.registry.fails = ["erase answer"]
    assert_told(fedcredit("erase", "KD-4711"), 3, "reached")
    assert_told(fedcredit("consents", "KD-4711"), 3, "not linked")
    facts = json.loads(fedcredit("erase", "KD-4711", "--json").out)
    assert facts == {"forgotten": False, "tombstones": 1, "waiting": 0}
    assert len(scene.registry.erased) == 2
    assert_told(fedcredit("erase", "KD-4711"), 2, "nothing to erase")


def test_take_restricts_at_once(scene: Scene, fedcredit: Command, tmp_path: Path) -> None:
    person, file = Person("KD-4711"), tmp_path / "direct.bin"
    linked(scene, fedcredit, tmp_path, person)
    scene.sync(person.says(grant(), to=scene.lane_key))
    file.write_bytes(frame([person.says(to=scene.lane_key)]))
    assert json.loads(fedcredit("take", file, "--json").out) == {"taken": 1, "known": 0, "refused": 0}
    assert "Everything was withdrawn" in fedcredit("consents", "KD-4711").out
    assert "train for open-scoring: 0 allowed" in fedcredit("consents").out


def test_nothing_that_is_printed_holds_a_handle_or_a_key(scene: Scene, fedcredit: Command, tmp_path: Path) -> None:
    person = Person("KD-4711")
    file, offer, answer = tmp_path / "direct.bin", tmp_path / "o.json", tmp_path / "a.json"
    told = [fedcredit("link", "KD-4711", "--out", offer)]
    answer.write_bytes(person.answer(offer.read_bytes()))
    told += [fedcredit("link", "--answer", answer), fedcredit("link", "--answer", answer)]
    scene.registry.append(person.says(grant(), to=scene.lane_key))
    told += [fedcredit("sync"), fedcredit("sync", "--json"), fedcredit("consents"), fedcredit("consents", "--json")]
    told += [fedcredit("consents", "KD-4711"), fedcredit("consents", "KD-4711", "--json"), fedcredit("rotate")]
    file.write_bytes(frame([person.says(to=scene.lane_key, epoch=2)]))
    told += [fedcredit("take", file), fedcredit("take", file), fedcredit("erase", "KD-4711"), fedcredit("take", file)]
    told += [fedcredit("erase", "KD-4711"), fedcredit("publish-keys")]
    text = "".join(one.out + one.err for one in told)
    assert [one.code for one in told] == [0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0]
    for secret in (person.handle, person.key.public, scene.registry.entries_[0].stub.tag):
        for spelling in (secret.hex(), base64url(secret), repr(secret)):
            assert spelling not in text
    assert "4711" not in text


def directory_gone(scene: Scene) -> None:
    scene.directory.rename(scene.directory.with_name("elsewhere"))


def in_the_directory(name: str, content: bytes | None) -> Callable[[Scene], None]:
    def spoil(scene: Scene) -> None:
        path = scene.directory / name
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    return spoil


BROKEN: dict[str, tuple[Callable[[Scene], None], int, str]] = {
    "no directory": (directory_gone, 2, "no directory"),
    "no settings": (in_the_directory("holder.toml", None), 2, r"holder\.toml"),
    "settings that are no TOML": (in_the_directory("holder.toml", b"version = ["), 4, r"holder\.toml"),
    "settings that are no text": (in_the_directory("holder.toml", b"\xff\xfe"), 4, r"holder\.toml"),
    "no identity": (in_the_directory("keys/identity.key", None), 4, "keys"),
    "no lane key": (in_the_directory("keys/lane-1.key", None), 4, "keys"),
    "a key cut short": (in_the_directory("keys/lane-1.key", b"\x02abc"), 4, "keys"),
    "notes that are none": (in_the_directory("desk.db", b"no notes " * 1000), 5, r"desk\.db"),
    "a lane copy that is none": (in_the_directory("consent.db", b"no lane " * 1000), 5, r"consent\.db"),
}
COMMANDS: dict[str, tuple[object, ...]] = {
    "publish-keys": (), "link": ("KD-4711", "--out", "{tmp}/offer.json"), "sync": (), "consents": (),
    "rotate": (), "erase": ("KD-4711",), "take": ("{tmp}/direct.bin",), "side-door": ("--port", "0"),
    "ledger": (),
}  # fmt: skip


@pytest.mark.parametrize("damage", BROKEN)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_over_something_broken(
    scene: Scene, fedcredit: Command, tmp_path: Path, name: str, damage: str
) -> None:
    (tmp_path / "direct.bin").write_bytes(b"x")
    scene.desk().close()
    spoil, code, words = BROKEN[damage]
    spoil(scene)
    arguments = [str(argument).format(tmp=tmp_path) for argument in COMMANDS[name]]
    assert_told(fedcredit(name, *arguments), code, words)
    assert scene.registry.key_sets == []
    assert not (tmp_path / "offer.json").exists()


def test_every_command_is_tried_over_something_broken() -> None:
    elsewhere = {"check", "join", "preview", "serve", "status"}  # they do not open the desk
    assert {*COMMANDS, "init", *elsewhere} == set(holder_cli.holder.commands)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("link",), 2), (("link", "KD-1"), 2), (("link", "KD-1", "--out", "{tmp}/none/offer.json"), 2),
        (("link", "--answer", "{tmp}/missing"), 2), (("link", "--answer", "{tmp}"), 2),
        (("link", "--answer", "{tmp}/garbage"), 4), (("link", "KD-1", "--answer", "{tmp}/garbage"), 2),
        (("link", "--replace"), 2), (("link", "--answer", "{tmp}/large"), 4), (("link", "", "--out", "{tmp}/o"), 2),
        (("link", "KD-1", "KD-1", "--out", "{tmp}/o"), 2), (("link", "a", "b", "--out", "{tmp}/garbage"), 2),
        (("take", "{tmp}/missing"), 2), (("take", "{tmp}"), 2), (("take", "{tmp}/garbage"), 4),
        (("take", "{tmp}/empty"), 4), (("take",), 2), (("erase",), 2), (("erase", "KD-1"), 2),
        (("sync", "--every", "5"), 2), (("sync", "--watch", "--every", "0"), 2), (("rotate", "--destroy", "0"), 2),
        (("rotate", "--destroy", "x"), 2), (("side-door", "--host", "192.0.2.1"), 2),
        (("side-door", "--certificate", "{tmp}/garbage"), 2), (("side-door", "--port", "70000"), 2),
        (("side-door", "--certificate", "{tmp}/garbage", "--key", "{tmp}/garbage", "--port", "0"), 4),
        (("side-door", "--host", "no host", "--certificate", "{tmp}/empty", "--key", "{tmp}/empty"), 2),
        (("consents", "a", "b"), 2), (("unknown",), 2),
    ],
)  # fmt: skip
def test_bad_arguments(fedcredit: Command, tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    (tmp_path / "garbage").write_bytes(b"\x00\xff{")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    name, *rest = (argument.format(tmp=tmp_path) for argument in arguments)
    assert_told(fedcredit(name, *rest), code)


def test_every_command_has_an_example_and_a_directory() -> None:
    for name, command in holder_cli.holder.commands.items():
        assert (command.epilog or "").startswith(f"Example: fedcredit holder {name}"), name
        assert command.help, name
        options = {option for parameter in command.params for option in parameter.opts}
        assert name == "init" or "--directory" in options
        assert name in ("serve", "side-door") or "--json" in options, name
        assert all(parameter.help for parameter in command.params if isinstance(parameter, click.Option)), name


def test_a_watch_goes_on_after_failures_and_waits_longer_each_time() -> None:
    watch = Watch(lambda: None, lambda _: None, every_s=15)
    assert [watch.pause_s(failures) for failures in (0, 1, 2, 3, 4, 5, 6, 10_000)] == [15, 1, 2, 4, 8, 15, 15, 15]
    failures: list[Exception] = [RefusalError("x", RefusalCode.LANE), MalformedError("y")]
    told: list[Exception] = []
    synced = 0
    bell = Bell()

    def once() -> None:
        nonlocal synced
        if failures:
            raise failures.pop(0)
        synced += 1
        if synced == 3:
            bell.ring()

    Watch(once, told.append, every_s=0).run(bell)
    bell.close()
    assert (synced, len(told)) == (3, 2)


def test_a_watch_ends_at_once_when_the_registry_deceives() -> None:
    bell, calls = Bell(), []

    def once() -> None:
        calls.append(1)
        raise TamperingError("shorter")

    with pytest.raises(TamperingError):
        Watch(once, lambda _: None, every_s=0).run(bell)
    assert len(calls) == 1
    bell.close()


def test_a_bell_ends_a_long_wait() -> None:
    bell = Bell()
    timer = threading.Timer(0.05, bell.ring)
    timer.start()
    assert bell.wait(60)
    assert bell.wait(0)
    timer.join()
    bell.close()


def test_sync_watch_retries_an_unreachable_registry_and_ends_cleanly_on_sigterm(scene: Scene) -> None:
    settings = scene.directory / "holder.toml"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace("https://registry.example", "http://127.0.0.1:9"), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-c", "from federated.cli import main; main()", "holder", "sync", "--watch", "--directory",
         str(scene.directory)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "NO_PROXY": "*"},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]  # it failed, waited and failed again
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert all("Refusal" in line for line in lines), lines
    assert "Traceback" not in out + err


def test_a_watch_takes_up_a_rotated_key(scene: Scene, fedcredit: Command, tmp_path: Path) -> None:
    from clients.holder.desk import Desk
    from clients.holder.watch import Syncer

    person = Person("KD-4711")
    linked(scene, fedcredit, tmp_path, person)
    with Syncer(Desk.open(scene.directory), lambda: AT) as syncer:
        syncer.once(lambda *_: None)
        assert fedcredit("rotate").code == 0
        scene.registry.append(person.says(grant(), to=scene.lane_key, epoch=2))
        syncer.once(lambda *_: None)
        assert syncer.desk.lane.standing(person.handle) is not None
