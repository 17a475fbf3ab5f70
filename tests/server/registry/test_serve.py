"""A registry in another process over TLS, on both databases: started, asked, stopped and hindered."""

import json
import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread

import httpx
import pytest

from federated.cli import main
from privacy.consent.lane import read_checkpoint
from privacy.consent.promise import read_promise
from privacy.consent.submission import frame
from privacy.errors import FedcreditError, RefusalError
from server.registry.serve import open_registry
from server.registry.settings import Home
from server.registry.status import status_at
from server.registry.verify import verify_database
from tests.privacy.consent.reference_merkle import mth
from tests.registry_process import make_registry, serving, start
from tests.server.registry.samples import HOLDER, LANE, LANES, OTHER, submission
from tests.server.registry.test_store import edit

ROOT = Path(__file__).parents[3]


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    code = "from federated.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "registry", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the same program says and how it ends, in this process."""
    line, out, err = ["fedcredit", "registry", *arguments], StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            main()
    assert isinstance(ended.value.code, int)
    return subprocess.CompletedProcess(line, ended.value.code, out.getvalue(), err.getvalue())


@pytest.fixture
def home(tmp_path: Path, database_url: str) -> Home:
    return make_registry(tmp_path / "registry", LANES, database=database_url)


@pytest.fixture
def local(tmp_path: Path) -> Home:
    return make_registry(tmp_path / "registry", LANES)


def test_a_registry_over_tls_from_start_to_end(home: Home) -> None:
    some = [submission(f"record {k}") for k in range(5)]
    with serving(home) as registry:
        assert registry.url.startswith("https://127.0.0.1:")
        with registry.client() as client:
            promises = client.submit(LANE, some)
            head = read_checkpoint(client.checkpoint(LANE), f"fedcredit/{LANE}", registry.public_key)
            assert [read_promise(one, registry_key=registry.public_key).position for one in promises] == [0, 1, 2, 3, 4]
            assert head.size == 5
        status = command("status", registry.url, "--ca", str(home.certificate), "--json")
        assert json.loads(status.stdout)["lanes"][LANE] == {"size": 5, "root": head.root.hex()}
        assert registry.stop() == 0
        assert registry.said == []
    assert verify_database(home)[LANE].root == head.root


def test_who_is_not_given_the_certificate_does_not_connect(local: Home) -> None:
    with serving(local) as registry:
        port = int(registry.url.rpartition(":")[2])
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{registry.url}/healthz", verify=ssl.create_default_context(), trust_env=False)
        # Plain HTTP to the TLS port gets no answer that could be taken for one.
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.raises((ssl.SSLError, OSError)), socket.create_connection(("127.0.0.1", port), 10) as plain:
            old.wrap_socket(plain)
        assert registry.stop() == 0
        assert "127.0.0.1" not in "".join(registry.said)


@pytest.mark.parametrize("tls", [True, False])
def test_silent_strangers_do_not_keep_others_out(tmp_path: Path, tls: bool) -> None:
    home = make_registry(tmp_path / "registry", LANES, tls=tls)
    with serving(home) as registry, ExitStack() as silent:
        port = int(registry.url.rpartition(":")[2])
        for _ in range(520):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)))
        with registry.client() as client:
            assert len(client.submit(LANE, [submission("a")])) == 1
        silent.close()
        assert registry.stop() == 0


def test_what_is_queued_when_it_is_told_to_stop_is_still_stored_and_answered(local: Home) -> None:
    bodies = [frame([submission(f"{k}/{n}") for n in range(64)]) for k in range(24)]
    context = ssl.create_default_context(cadata=local.certificate.read_text())
    with serving(local) as registry, httpx.Client(verify=context, trust_env=False, timeout=30) as client:
        client.get(f"{registry.url}/healthz")

        def post(body: bytes) -> int:
            try:
                return len(client.post(f"{registry.url}/lanes/{LANE}/records", content=body).json()["promises"])
            except httpx.HTTPError:
                return 0

        with ThreadPoolExecutor(len(bodies)) as pool:
            answers = [pool.submit(post, body) for body in bodies]
            next(answer for answer in answers).result()
            assert registry.stop() == 0
            acknowledged = [answer.result() for answer in answers]
    assert sum(acknowledged) >= 64
    with closing(open_registry(local)) as stored:
        size = stored.head(LANE).size
        # Every answer is stored; what was stored without an answer was cut off before its wallet could read it.
        for k, answered in enumerate(acknowledged):
            if answered:
                assert stored.position(LANE, submission(f"{k}/0").stub.tag) is not None
    assert size >= sum(acknowledged)
    verify_database(local)


@pytest.mark.parametrize("what", ["certificate", "no certificate", "key", "port", "settings", "database", "directory"])
def test_what_keeps_it_from_starting_is_one_text_and_no_traceback(local: Home, what: str) -> None:
    directory, code = local.directory, 3
    settings = directory / "registry.toml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        match what:
            case "certificate":
                local.certificate.write_text("no certificate")
            case "no certificate":
                local.certificate.unlink()
            case "key":
                (directory / "registry.key").write_bytes(b"short")
            case "port":
                settings.write_text(settings.read_text().replace("port = 0", f"port = {taken.getsockname()[1]}"))
            case "settings":
                settings.write_text("version = 1")
                code = 4
            case "database":
                database = "postgresql://me:secret@127.0.0.1:1/name"
                settings.write_text(settings.read_text().replace("sqlite:///registry.db", database))
            case "directory":
                directory = directory / "nowhere"
        done = program("serve", str(directory))
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_a_database_that_becomes_read_only_or_full_refuses_and_loses_nothing(local: Home) -> None:
    with closing(open_registry(local)) as registry:
        registry.append(LANE, [submission("kept")])
        root = registry.head(LANE).root
    database = local.directory / "registry.db"
    with serving(local) as running, running.client() as client:
        # Nobody can write past this page: for the database that is a full disk.
        limit = f"--fsize={database.stat().st_size + 4096}:"
        subprocess.run(["prlimit", f"--pid={running.process.pid}", limit], check=True)
        with pytest.raises(RefusalError, match=r"status 503"):
            client.submit(LANE, [submission(f"record {n}") for n in range(256)])
        read_checkpoint(client.checkpoint(LANE), f"fedcredit/{LANE}", running.public_key)
        subprocess.run(["prlimit", f"--pid={running.process.pid}", "--fsize=unlimited:"], check=True)
        assert client.submit(LANE, [submission("kept")])
        client.submit(LANE, [submission("after")])
        assert running.stop() == 0
    lanes = verify_database(local)
    assert lanes[LANE].entries == 2
    assert root != lanes[LANE].root


def test_the_commands_tell_what_they_made(tmp_path: Path) -> None:
    directory = str(tmp_path / "r")
    lane = f"{LANE}={HOLDER.public.hex()}"
    made = command("init", directory, "--port", "0", "--self-signed", "--lane", lane)
    assert made.returncode == 0, made.stderr
    assert Home.open(Path(directory)).key().public.hex() in made.stdout
    assert command("init", directory).returncode == 3
    told = json.loads(command("status", directory, "--json").stdout)
    assert told == {"health": "ok", "lanes": {LANE: {"size": 0, "root": mth([]).hex()}}}
    assert "1 lanes hold" in command("verify", directory).stdout
    with closing(open_registry(Home.open(Path(directory)))) as registry:
        registry.append(LANE, [submission("a")])
        registry._database.close()
    edit(f"sqlite:///{directory}/registry.db", "DELETE FROM beside")
    verdict = command("verify", directory)
    assert verdict.returncode == 5
    assert "the ciphertext at position 0 is missing without a tombstone" in verdict.stderr
    assert command("status", "https://127.0.0.1:1").returncode == 3


@pytest.mark.parametrize("url", [
    "postgresql://me:hush@127.0.0.1:1/name", "postgresql://127.0.0.1:1/name?user=me&password=hush", "postgresql://me:hush@[x",
])  # fmt: skip
def test_a_password_on_the_command_line_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    done = command("init", str(tmp_path / "r"), "--database", url)
    assert done.returncode == 2
    assert ".pgpass" in done.stderr
    assert "hush" not in done.stderr
    assert not (tmp_path / "r").exists()
    assert command("init", str(tmp_path / "r"), "--database", url.replace("hush", "")).returncode != 0


HOSTILE_METRICS = (
    b"# TYPE fedcredit_registry_lane_entries gauge\nfedcredit_registry_lane_entries 1\n",
    b'fedcredit_registry_lane_entries{lane="../../healthz"} 1\n',
    b'fedcredit_registry_lane_entries{lane="a\\nb"} 1\n',
    b'fedcredit_registry_lane_entries{lane="a"} x\n', b"\xff{", b"{" * 1000, b"fedcredit_registry_lane_entries{",
)  # fmt: skip


@pytest.mark.parametrize("metrics", HOSTILE_METRICS)
def test_status_of_a_hostile_registry_is_told_in_words(metrics: bytes) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(metrics if self.path == "/metrics" else b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            assert status_at(f"http://127.0.0.1:{server.server_port}", None)["lanes"] == {}
        except FedcreditError:
            pass
        finally:
            server.shutdown()
            thread.join()
    assert set(asked) <= {"/healthz", "/metrics", "/lanes/a/checkpoint"}


def test_two_processes_serve_one_database(home: Home, tmp_path: Path) -> None:
    with serving(home) as first, serving(home) as second, first.client() as one, second.client() as two:
        for k in range(4):
            one.submit(LANE, [submission(f"one {k}")])
            two.submit(LANE, [submission(f"two {k}")])
            assert two.submit(LANE, [submission("one 0")]) == one.submit(LANE, [submission("one 0")])
        two.submit(OTHER, [submission("x")])
        names = [entry.beside for entry in one.entries(LANE, 0, 8)]
        assert names == [submission(f"{who} {k}").ciphertext for k in range(4) for who in ("one", "two")]
        assert one.checkpoint(LANE) == two.checkpoint(LANE)


def test_a_registry_that_cannot_start_leaves_no_process(local: Home) -> None:
    local.certificate.unlink()
    with pytest.raises(RuntimeError, match="certificate"):
        start(local)
