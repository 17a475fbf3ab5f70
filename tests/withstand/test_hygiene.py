"""Logs, exceptions, stderr and responses never hold a handle, a key, a tag or a purpose: whole scenes, and a grep.

What a person's own wallet prints for that person, and the files that it writes, are not looked at here.
"""

import asyncio
import logging
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from msgspec import structs

from clients.holder.desk import Desk
from clients.holder.init import make_directory
from clients.holder.keys import HolderKeys
from clients.holder.side_door import side_door_app
from clients.registry_client import RegistryClient
from clients.wallet import book
from clients.wallet.state import Written
from clients.wallet.vault import Cost, Vault
from federated import cli
from federated.rate_limit import RateLimit
from privacy.consent.canonical import base64url
from privacy.consent.lane import Stub
from privacy.consent.linking import RegistryAddress
from privacy.consent.record import encode_record, key_id
from privacy.consent.sealing import seal
from privacy.consent.signing import PayloadType, SigningKey
from privacy.consent.submission import Submission, frame
from privacy.consent.view import Entry
from privacy.errors import RefusalError
from tests.clients.holder.desk_scene import CATEGORIES, LANE, SCHEMA, START
from tests.clients.wallet.parties import PASSPHRASE, Done, FakeRegistry, Person
from tests.registry_process import RegistryProcess, make_registry, serving
from tests.withstand.beds import handed_in, under_its_hash
from tests.withstand.ear import PURPOSES, Ear, forms, listening, quoted


def test_the_ear_hears_every_form_and_the_grep_finds_it() -> None:
    """The check that cannot fail is the commonest fault: here it is made to."""
    secret = bytes(range(100, 132))
    for written in forms(secret):
        ear = Ear()
        ear.hear("logs", b"before " + written + b" after")
        assert ear.leaks({"the key": forms(secret)}) == ["the key in logs"]
    with listening() as ear:
        logging.getLogger("another.package").debug("sealed for %s", secret.hex())
        try:
            try:
                raise KeyError(secret)
            except KeyError as error:
                raise ValueError("no such thing") from error
        except ValueError as error:
            ear.hear_error(error)
            logging.getLogger("fedcredit").exception("it failed")
        assert ear.leaks({"the key": forms(secret)}) == ["the key in logs", "the key in exceptions"]
        assert not ear.leaks({"another": forms(bytes(range(1, 33)))})
    ear.hear("responses", b'{"purpose":"train"}')
    assert ear.leaks({"a purpose": quoted("train")}, "responses") == ["a purpose in responses"]


class Online(Person):
    """A person whose wallet asks a registry in another process; what its commands say on stderr is heard."""

    ear: Ear

    @contextmanager
    def connect(self, address: RegistryAddress) -> Iterator[RegistryClient]:  # type: ignore[override]
        with RegistryClient(address.url, ca=address.ca) as client:
            yield client

    def run(self, *arguments: str | Path) -> Done:
        self.at = int(time.time())
        try:
            done = super().run(*arguments)
        except Exception as error:
            self.ear.hear_error(error)
            raise
        self.ear.hear("stderr", done.err)
        return done


class Office:
    """The data holder at the command line; all that it prints is heard."""

    def __init__(
        self, directory: Path, ear: Ear, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.directory, self._ear, self._capsys, self._monkeypatch = directory, ear, capsys, monkeypatch

    def __call__(self, name: str, *arguments: object) -> int:
        line = ["fedcredit", "holder", name, *map(str, arguments), "--directory", str(self.directory)]
        self._monkeypatch.setattr(sys, "argv", line)
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            cli.main()
        if exited.value.__context__ is not None:
            self._ear.hear_error(exited.value.__context__)
        said = self._capsys.readouterr()
        self._ear.hear("stderr", said.err)
        self._ear.hear("the desk's output", said.out)
        assert isinstance(exited.value.code, int)
        return exited.value.code


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ear]:
    """Logs, and every answer that a registry gives to a client of ours."""
    monkeypatch.setattr(book, "Vault", partial(Vault, cost=Cost(memory_kib=8192, passes=1, lanes=1)))
    exchange = RegistryClient._exchange
    with listening() as ear:

        def heard(self: RegistryClient, *arguments: object) -> tuple[int, bytes]:
            status, body = exchange(self, *arguments)  # type: ignore[arg-type]
            ear.hear("responses", body)
            if status >= 400:
                ear.hear("refusing responses", body)
            return status, body

        monkeypatch.setattr(RegistryClient, "_exchange", heard)
        yield ear


def test_a_whole_scene_leaves_no_handle_key_tag_or_purpose_anywhere(
    tmp_path: Path, ear: Ear, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / LANE
    identity = make_directory(directory, START)
    shutil.copy(SCHEMA, directory / "schema.toml")
    home = make_registry(tmp_path / "registry", {LANE: identity.public}, tls=False)
    office = Office(directory, ear, capsys, monkeypatch)
    person = Online(tmp_path / "person", FakeRegistry())
    person.ear = ear
    junk = tmp_path / "junk"
    with serving(home) as running:
        settings = directory / "holder.toml"
        text = settings.read_text().replace(START.registry_url, running.url)
        settings.write_text(text.replace(START.registry_key, running.public_key.hex()))
        assert office("publish-keys") == 0
        offer, answer = tmp_path / "offer", tmp_path / "answer"
        assert office("link", "KD-4711", "--out", offer) == 0
        person.ok("init")
        person.ok("link", offer, "--out", answer)
        assert office("link", "--answer", answer) == 0
        with person.book() as opened:
            account, wallet = opened.account(LANE), opened.state.wallet()
        handle, key = account.subject_handle, wallet.key_for(LANE)
        assert _grant(person).exit_code == 0
        assert office("sync") == 0
        assert office("consents") == 0
        assert _grant(person, share="0.1").exit_code == 0
        person.ok("freeze")
        person.ok("thaw")
        person.ok("withdraw", LANE)
        person.ok("status")
        assert office("sync") == 0
        with person.book() as opened:
            written = opened.account(LANE).written
        tags = [wallet.tag(LANE, seq) for seq in range(1, len(written) + 2)]
        assert len(written) == 5

        # A record that is the right person's, forged in every way, and plain: each may be quoted by a careless text.
        newest = written[-1]
        payload, sealed = bytes.fromhex(newest.payload), newest.submission
        forged, claimed = flipped(sealed), in_the_name_of(newest, directory)
        bad = {
            "a payload": payload, "a handle": base64url(handle).encode(), "a key": key.public,
            "an answer": answer.read_bytes().replace(b'"', b"'"), "frames": frame([sealed])[:-1],
            "forged frames": frame([forged]), "frames in her name": frame([claimed]),
            "a receipt": payload + bytes.fromhex(newest.signature),
        }  # fmt: skip
        for content in bad.values():
            junk.write_bytes(content)
            assert person.run("link", junk, "--out", tmp_path / "x").exit_code in (2, 3, 4, 5)
            assert person.run("receipts", "--verify", junk).exit_code in (2, 3, 4, 5)
            assert office("link", "--answer", junk) in (2, 3, 4, 5)
            assert office("take", junk) in (2, 3, 4, 5)
        for secret in (handle.hex(), base64url(handle), key.public.hex(), key_id(key.public)):
            # Behind "--", for one in 64 begins with a dash.
            assert office("consents", "--", secret) in (2, 3, 4)
            assert office("erase", "--", secret) in (2, 3, 4)
            assert person.run("withdraw", "--", secret).exit_code in (2, 3, 4)
        _ask_badly(running, ear, [*bad.values()], [handle.hex(), base64url(handle), key.public.hex(), tags[0].hex()])
        _hand_in_badly(directory, ear, [*bad.values(), frame([sealed])], [forged, claimed])
        assert office("sync") == 0  # what was put into the lane in her name, too
        person.passphrase_file.write_text("another passphrase altogether\n")
        assert person.run("status").exit_code in (3, 4, 5)
        person.passphrase_file.write_text(PASSPHRASE + "\n")
        assert running.stop() == 0
        ear.hear("logs", "".join(running.said))
    # The registry is gone.
    assert _grant(person, share="0.2").exit_code == 3
    assert office("sync") == 3
    assert office("erase", "KD-4711") == 3
    (directory / "consent.head").write_text("1 " + "00" * 32)
    assert office("sync") == 5

    secrets = {
        "the handle": forms(handle), "the person's key": forms(key.public), "the person's seed": forms(key.seed),
        "the key id": {key_id(key.public).encode()}, "the passphrase": {PASSPHRASE.encode()},
        "a payload": {payload, payload[:200]},
        "a lane key": {form for path in (directory / "keys").glob("lane-*") for form in forms(path.read_bytes()[1:])},
        "the identity's seed": forms(identity.seed),
    }  # fmt: skip
    assert {"logs", "stderr", "exceptions", "responses", "refusing responses", "the desk's output"} <= set(ear.said)
    assert len(ear.said["exceptions"]) > 20
    assert len(ear.said["refusing responses"]) > 20
    assert not ear.leaks(secrets)
    assert not ear.leaks(PURPOSES, "logs", "responses", "refusing responses", "exceptions")
    # A tag is in the lane's entries, which everybody may read, and in the address that the person's own device asks
    # for, which the HTTP library tells whoever turns its log on there: nowhere else.
    asked = re.compile(rb"httpx: HTTP Request: GET \S+/positions/[0-9a-f]{32} ")
    ear.said["logs"] = [line for line in ear.said["logs"] if not asked.match(line)]
    others = {form for tag in tags for form in forms(tag)}
    elsewhere = ("logs", "stderr", "exceptions", "refusing responses", "the desk's output")
    assert not ear.leaks({"a tag": others}, *elsewhere)


def _grant(person: Person, *, share: str = "0.5") -> Done:
    return person.run(
        "grant", LANE, "--purpose", "train", "--to", "open-scoring", "--data", CATEGORIES[0], "--days", "300",
        "--retain-days", "30", "--epsilon", "1", "--share", share,
    )  # fmt: skip


def in_the_name_of(newest: Written, directory: Path) -> Submission:
    """The person's next record, as a stranger would write it who knows all that is in the one before."""
    payload = encode_record(structs.replace(newest.record, seq=newest.seq + 1))
    signature = SigningKey.from_seed(bytes(range(32))).sign(PayloadType.CONSENT, payload)
    key = HolderKeys.load(directory / "keys").lane_key.public
    sealed = seal(payload, signature, to=key, lane=LANE, epoch=1, rho=bytes(32))
    return Submission(Stub.of(sealed, tag=bytes(16), epoch=1), sealed.ciphertext)


def flipped(sealed: Submission) -> Submission:
    """The ciphertext with one bit flipped, under a stub of its own."""
    changed = sealed.ciphertext[:-1] + bytes([sealed.ciphertext[-1] ^ 1])
    return handed_in(under_its_hash(Entry(sealed.stub, sealed.ciphertext), changed, "flipped"))


def _ask_badly(running: RegistryProcess, ear: Ear, bodies: list[bytes], words: list[str]) -> None:
    """Whatever somebody may send by mistake, sent to the registry; it repeats none of it."""
    with httpx.Client(base_url=running.url, trust_env=False, timeout=20) as web:
        paths = [f"/lanes/{LANE}/{name}" for name in ("records", "tombstones")]
        requests = [web.build_request("POST", path, content=body) for path in paths for body in bodies]
        requests += [web.build_request("PUT", f"/lanes/{LANE}/key-set", content=body) for body in bodies]
        for word in [*words, "train", '"train"']:
            for path in (
                f"/{word}", f"/lanes/{word}/checkpoint", f"/lanes/{LANE}/positions/{word}x",
                f"/lanes/{LANE}/tile/{word}",
                f"/lanes/{LANE}/sealed/{word}", f"/lanes/{LANE}/checkpoint?for={word}",
            ):  # fmt: skip
                requests.append(web.build_request("GET", path))
        requests += [web.build_request("GET", path) for path in ("/metrics", "/openapi.json", "/healthz", "/docs")]
        logging.disable(logging.CRITICAL)  # this client is the test's own, and logs the addresses that it asks for
        try:
            for request in requests:
                response = web.send(request)
                ear.hear("responses", response.content + repr(dict(response.headers)).encode())
                if response.status_code >= 400:
                    ear.hear("refusing responses", response.content)
                assert response.status_code < 500
        finally:
            logging.disable(logging.NOTSET)


def _hand_in_badly(directory: Path, ear: Ear, bodies: list[bytes], refused: list[Submission]) -> None:
    """The same through the side door, in this process, so that its logs are heard at DEBUG."""
    wide = RateLimit(burst=1000, per_s=1000), RateLimit(burst=1000, per_s=1000)
    with Desk.open(directory) as desk:
        app = side_door_app(desk.lane, clock=lambda: int(time.time()), limits=wide)

        async def ask() -> list[httpx.Response]:
            transport = httpx.ASGITransport(app, client=("192.0.2.1", 50_000))
            async with httpx.AsyncClient(transport=transport, base_url="https://door.example") as web:
                return [await web.post("/records", content=body) for body in bodies]

        for answer in asyncio.run(ask()):
            ear.hear("responses", answer.content)
            if answer.status_code >= 400:
                ear.hear("refusing responses", answer.content)
        for submission in refused:
            with pytest.raises(RefusalError) as caught:
                desk.lane.take(submission, at=int(time.time()))
            ear.hear_error(caught.value)
