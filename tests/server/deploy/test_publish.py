"""A bundle from what a run has left is, to the byte, the bundle of the run itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

import server.deploy.publish
from experiments.session import Session
from federated.encoder import Encoder
from federated.exclusions import exclusions
from federated.plan import recipe_of, sign_plan
from federated.round_log import Event
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError, UsageError
from server.bundle import MANIFEST, write_bundle
from server.coordinator import Coordinator
from server.deploy.publish import publish
from server.deploy.round_log import RoundLog
from server.deploy.settings import Home
from server.rounds import no_progress
from tests.ready import AT, Ready, ready_in
from tests.server.deploy.home import coordinator_home, runs_of


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ready, Home, str]]:
    ready = ready_in(tmp_path_factory.mktemp("publish") / "federation")
    home = coordinator_home(ready)
    yield ready, home, runs_of(ready, home).run().run
    ready.registry.close()


@pytest.fixture
def home(ran: tuple[Ready, Home, str]) -> Home:
    return ran[1]


@contextmanager
def changed(path: Path, content: bytes | None) -> Iterator[None]:
    before = path.read_bytes()
    try:
        path.unlink() if content is None else path.write_bytes(content)
        yield
    finally:
        path.write_bytes(before)


def test_it_is_the_bundle_of_the_run_itself(ran: tuple[Ready, Home, str], tmp_path: Path) -> None:
    ready, home, run = ran
    with Session(ready.directory, lambda: AT, ready.registry) as session:
        outcome = Coordinator(home.directory).run(session.channel, no_progress, deadline_s=10)
    encoder = Encoder(ready.federation.data.schema)
    at_once = tmp_path / "at_once"
    at_once.mkdir()
    excludes = exclusions(outcome.plan, recipe_of(outcome.plan, encoder), holders=len(outcome.holders))
    write_bundle(outcome, home.key(), at_once, encoder=encoder, excludes=excludes)
    published = publish(home, tmp_path / "later", run=None, at=AT)
    names = sorted(path.name for path in at_once.iterdir())
    assert len(names) == 8
    assert names == sorted(path.name for path in published.directory.iterdir())
    for name in names:
        assert (at_once / name).read_bytes() == (published.directory / name).read_bytes(), name
    assert published.run == outcome.run == run
    entry = RoundLog(home.round_log, home.key()).entries[-1]
    assert (entry.event, entry.run, entry.detail) == (Event.PUBLISHED, run, {"manifest": published.manifest})


def test_a_run_is_published_by_its_name_or_not_at_all(ran: tuple[Ready, Home, str], tmp_path: Path) -> None:
    _, home, run = ran
    assert publish(home, tmp_path / "named", run=run, at=AT).run == run
    for name in ("0" * 32, "../runs", run[:-1]):
        with pytest.raises(UsageError, match="no finished run"):
            publish(home, tmp_path / "other", run=name, at=AT)
    assert not (tmp_path / "other").exists()


def test_killed_before_it_is_logged_it_is_completed_the_next_time(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    out, before = tmp_path / "bundle", home.round_log.read_bytes()
    monkeypatch.setattr(server.deploy.publish, "_logged_before", lambda *_: False)  # by the tests before this one
    with monkeypatch.context() as patch:
        patch.setattr(RoundLog, "append", die)
        with pytest.raises(Killed):
            publish(home, out, run=None, at=AT)
    assert home.round_log.read_bytes() == before
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert MANIFEST in files
    (out / "model.json").write_bytes(b"{}")
    with pytest.raises(UsageError, match="left as it is"):
        publish(home, out, run=None, at=AT)
    (out / "model.json").write_bytes(files["model.json"])
    published = publish(home, out, run=None, at=AT)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files
    entry = RoundLog(home.round_log, home.key()).entries[-1]
    assert (entry.event, entry.detail) == (Event.PUBLISHED, {"manifest": published.manifest})
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_that_is_logged_is_there_already(home: Home, tmp_path: Path) -> None:
    publish(home, tmp_path / "bundle", run=None, at=AT)
    before = home.round_log.read_bytes()
    with pytest.raises(UsageError, match="left as it is"):
        publish(home, tmp_path / "bundle", run=None, at=AT)
    assert home.round_log.read_bytes() == before


def test_what_lies_beside_it_is_not_touched(home: Home, tmp_path: Path) -> None:
    beside = tmp_path / ".bundle.building"
    beside.mkdir()
    (beside / "mine").write_text("mine")
    publish(home, tmp_path / "bundle", run=None, at=AT)
    assert (beside / "mine").read_text() == "mine"


def test_what_is_there_is_left_as_it_is(home: Home, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UsageError, match="left as it is"):
            publish(home, out, run=None, at=AT)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (publish(home, empty, run=None, at=AT).directory / MANIFEST).exists()


@pytest.mark.parametrize("name", ["model.json", "scorecard.json", "measured.json", "run.json"])
def test_a_file_that_was_changed_since_is_not_published(
    ran: tuple[Ready, Home, str], tmp_path: Path, name: str
) -> None:
    _, home, run = ran
    path = home.runs / run / name
    with changed(path, path.read_bytes().replace(b"1", b"2", 1)), pytest.raises(TamperingError, match="changed since"):
        publish(home, tmp_path / "bundle", run=run, at=AT)
    with changed(path, None), pytest.raises(RefusalError, match="cannot be read"):
        publish(home, tmp_path / "bundle", run=run, at=AT)
    assert not list(tmp_path.iterdir())


def test_it_is_of_the_runs_own_plan_whatever_was_planned_since(ran: tuple[Ready, Home, str], tmp_path: Path) -> None:
    _, home, run = ran
    other = msgspec.structs.replace(Coordinator(home.directory).plan, name="another")
    content = msgspec.json.encode(sign_plan(other, home.key()))
    with changed(home.plan, content), pytest.raises(UsageError, match="no plan of that digest"):
        publish(home, tmp_path / "bundle", run=run, at=AT)
    digest = Coordinator(home.directory).signed.digest
    home.plans.mkdir()
    (home.plans / f"{digest}.json").write_bytes(home.plan.read_bytes())
    with changed(home.plan, content):
        publish(home, tmp_path / "bundle", run=run, at=AT)
    assert digest.encode() in (tmp_path / "bundle" / MANIFEST).read_bytes()


def test_a_run_that_was_never_finished_has_no_bundle(tmp_path: Path) -> None:
    ready = ready_in(tmp_path / "federation")
    ready.registry.close()
    with pytest.raises(UsageError, match="no finished run"):
        publish(coordinator_home(ready), tmp_path / "bundle", run=None, at=AT)


def test_a_model_without_a_scorecard_has_no_bundle(ran: tuple[Ready, Home, str]) -> None:
    _, home, run = ran
    entry = next(one for one in RoundLog(home.round_log, home.key()).entries if one.event is Event.FINISHED)
    digests = {what: digest for what, digest in entry.detail.items() if what not in {"scorecard", "measured"}}
    with pytest.raises(MalformedError, match="Only a linear model"):
        server.deploy.publish.kept_run(home, run, digests)


def test_a_disk_that_fills_up_leaves_nothing(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RefusalError("MANIFEST.json could not be written", RefusalCode.INTERNAL)

    monkeypatch.setattr(server.deploy.publish, "write_bundle", full)
    before = home.round_log.read_bytes()
    with pytest.raises(FedcreditError):
        publish(home, tmp_path / "bundle", run=None, at=AT)
    assert not list(tmp_path.iterdir())
    assert home.round_log.read_bytes() == before
    with pytest.raises(RefusalError, match="could not be written"):
        publish(home, Path("/proc/nowhere/bundle"), run=None, at=AT)
