"""The coordinator over its directory: what it writes is whole and says nothing about anybody."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from clients.audit.run_record import read_run_record
from federated.files import write_whole
from federated.model import LinearModel
from federated.recipes.base import RecipeName
from federated.scorecard import Scorecard
from federated.trust import TrustModel
from privacy.consent.signing import SigningKey
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError
from server import coordinator as coordinator_module
from server.coordinator import Coordinator
from tests.ready import HOLDERS, Ready, state_of


def test_a_run_leaves_its_model_scorecard_and_record(ready: Ready) -> None:
    outcome = ready.run()
    directory = ready.federation.coordinator_directory / "runs" / outcome.run
    assert {path.name for path in directory.iterdir()} == {"model.json", "scorecard.json", "measured.json", "run.json"}
    model = json.loads((directory / "model.json").read_bytes())
    assert isinstance(outcome.model, LinearModel)
    assert np.array_equal(model["coefficients"], outcome.model.coefficients)
    assert Scorecard.from_json((directory / "scorecard.json").read_bytes()) == outcome.scorecard
    record = json.loads((directory / "run.json").read_bytes())
    assert (record["run"], record["plan"], record["holders"]) == (outcome.run, outcome.plan_digest, list(HOLDERS))
    assert len(record["releases"]) == 5
    assert outcome.plan.recipe["name"] == RecipeName.FIXED_HESSIAN
    assert (outcome.trust, outcome.reason) == (TrustModel.SHARED_NOISE, "Asked for by name.")
    assert [set(left_out) for left_out in outcome.left_out.values()] == [set()] * 5


def test_a_run_repeated_writes_the_same_bytes_and_never_others(ready: Ready) -> None:
    directory = ready.federation.coordinator_directory
    run = ready.run().run
    path = directory / "runs" / run / "run.json"
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    ready.run()
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
    write_whole(path, before[path].replace(b'"left_out":{}', b'"left_out":{"x":"y"}', 1))
    (path.parent / "model.json").unlink()
    changed = path.read_bytes()
    with pytest.raises(RefusalError, match="says something else") as caught:
        ready.run()
    assert caught.value.code is RefusalCode.REPLAY
    assert path.read_bytes() == changed
    assert not (path.parent / "model.json").exists()


def test_the_record_is_what_an_auditor_reads(ready: Ready) -> None:
    outcome = ready.run()
    record = read_run_record(ready.federation.coordinator_directory / "runs" / outcome.run / "run.json")
    for release, recorded in zip(outcome.releases, record.releases, strict=True):
        assert recorded.updates.keys() == release.updates.keys() == set(HOLDERS)
        for holder, update in release.updates.items():
            found = recorded.updates[holder]
            assert (found.commitment, found.signature) == (update.commitment.hex(), update.signature.hex())
            assert (found.ledger, found.ledger_size) == (update.ledger.digest.hex(), update.ledger.size)


def test_the_next_run_begins_with_the_last_marks_of_everybodys_ledger(ready: Ready) -> None:
    directory = ready.federation.coordinator_directory
    assert Coordinator(directory).opening.ledgers == {}
    outcome = ready.run()
    last = outcome.releases[-1].updates
    assert Coordinator(directory).opening.ledgers == {holder: update.ledger for holder, update in last.items()}


def test_nothing_the_coordinator_keeps_names_a_person(ready: Ready) -> None:
    ready.run()
    federation = ready.federation
    kept = b"\n".join(path.read_bytes() for path in federation.coordinator_directory.rglob("*") if path.is_file())
    assert len(kept) > 10_000
    for place, handle in federation.handles.items():
        assert handle not in kept
        assert handle.hex().encode() not in kept
        assert federation.wallet(place.person).key_for(place.holder).public.hex().encode() not in kept
    for keys in federation._holder_keys.values():
        assert keys.identity.seed not in kept
        assert keys.lane_key.to_bytes() not in kept


def test_a_crash_while_writing_leaves_no_run_that_looks_whole(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(path: Path, content: bytes) -> None:
        if path.name == "scorecard.json":
            raise KeyboardInterrupt
        write_whole(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(coordinator_module, "write_whole", crash)
        with pytest.raises(KeyboardInterrupt):
            ready.run()
    assert not list(ready.federation.coordinator_directory.glob("runs/*/run.json"))
    outcome = ready.run()
    assert (ready.federation.coordinator_directory / "runs" / outcome.run / "run.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("coordinator.key", b"short", MalformedError),
        ("coordinator.key", bytes(32), TamperingError),
        ("plan.json", b"", MalformedError),
        ("plan.json", b'{"payload": 1}', MalformedError),
        ("plan.json", b"[" * 5000, MalformedError),
        ("plan.json", b"\xff\xfe", MalformedError),
        ("checkpoints.json", b"[]", MalformedError),
        ("schema.toml", b"title = 'broken", MalformedError),
        ("ledgers.json", b"[]", MalformedError),
    ],
)
def test_a_broken_file_is_told_and_left_as_it_is(
    ready: Ready, name: str, content: bytes, error: type[FedcreditError]
) -> None:
    directory = ready.federation.coordinator_directory
    (directory / name).write_bytes(content)
    before = state_of(ready.directory)
    with pytest.raises(error, match="key, plan or checkpoints" if content == b"short" else None):
        Coordinator(directory)
    assert state_of(ready.directory) == before


@pytest.mark.parametrize("name", ["coordinator.key", "plan.json", "checkpoints.json", "schema.toml"])
def test_a_missing_file_is_told(ready: Ready, name: str) -> None:
    (ready.federation.coordinator_directory / name).unlink()
    with pytest.raises(FedcreditError):
        Coordinator(ready.federation.coordinator_directory)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"recipe": {"epsilon": 1e-9}, "privacy": {"epsilon": 1e-9}}, "training rounds.*not covered"),
        ({"recipe": {}, "privacy": {"measurement_epsilon": 1e-9}}, "measurement.*not covered"),
    ],
)
def test_a_plan_that_does_not_add_up_is_refused_before_any_letter(
    ready: Ready, terms: dict[str, dict[str, object]], said: str
) -> None:
    directory = ready.federation.coordinator_directory
    plan = Coordinator(directory).plan
    ready.federation.write_plan(
        msgspec.structs.replace(
            plan,
            recipe={**plan.recipe, **terms["recipe"]},
            privacy=msgspec.structs.replace(plan.privacy, **terms["privacy"]),
        )
    )
    with pytest.raises(MalformedError, match=said):
        Coordinator(directory)


def test_a_changed_plan_is_tampering(ready: Ready) -> None:
    directory = ready.federation.coordinator_directory
    (directory / "coordinator.key").write_bytes(SigningKey.from_seed(bytes([1]) * 32).seed)
    with pytest.raises(TamperingError):
        Coordinator(directory)
