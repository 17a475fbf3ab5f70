"""The published bundle: signed as one, whole or not there, and enough for somebody else to score alike."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from experiments.federation import Federation
from federated.encoder import Encoder
from federated.files import write_whole
from federated.scorecard import Scorecard
from federated.trust import Aggregation, TrustModel, told
from privacy.consent.signing import PayloadType, verify
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from server import bundle as bundle_module
from server.bundle import MANIFEST, SIGNATURE, write_bundle
from server.coordinator import Outcome
from tests.ready import ready_in

EXCLUDES = ("what it leaves out",)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, Outcome]:
    ready = ready_in(tmp_path_factory.mktemp("bundle") / "federation")
    outcome = ready.run()
    ready.registry.close()
    return ready.federation, outcome


def publish(federation: Federation, outcome: Outcome, directory: Path) -> None:
    encoder = Encoder(federation.data.schema)
    write_bundle(outcome, federation.coordinator_key, directory, encoder=encoder, excludes=EXCLUDES)


@pytest.fixture
def bundle(ran: tuple[Federation, Outcome], tmp_path: Path) -> Path:
    federation, outcome = ran
    publish(federation, outcome, tmp_path)
    return tmp_path


def test_every_file_is_under_one_signature(ran: tuple[Federation, Outcome], bundle: Path) -> None:
    manifest = (bundle / MANIFEST).read_bytes()
    signature = json.loads((bundle / SIGNATURE).read_bytes())
    key = bytes.fromhex(signature["key"])
    assert key == ran[0].coordinator_key.public
    verify(key, PayloadType.BUNDLE, manifest, bytes.fromhex(signature["signature"]))
    with pytest.raises(TamperingError):
        verify(key, PayloadType.BUNDLE, manifest + b" ", bytes.fromhex(signature["signature"]))
    listed = json.loads(manifest)["sha256"]
    assert listed.keys() == {path.name for path in bundle.iterdir()} - {MANIFEST, SIGNATURE}
    for name, digest in listed.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest


def test_the_same_run_gives_the_same_bytes(ran: tuple[Federation, Outcome], bundle: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    publish(*ran, again)
    names = sorted(path.name for path in again.iterdir())
    assert len(names) >= 7
    assert all((again / name).read_bytes() == (bundle / name).read_bytes() for name in names)


def test_what_it_promises_is_what_the_plan_said(ran: tuple[Federation, Outcome], bundle: Path) -> None:
    privacy = json.loads((bundle / "privacy.json").read_bytes())
    terms = ran[1].plan.privacy
    assert (privacy["epsilon"], privacy["delta"], privacy["unit"]) == (terms.epsilon, terms.delta, "person")
    assert privacy["excludes"] == list(EXCLUDES)
    assert privacy["accountant"] == "exact Gaussian DP"
    assert privacy["adjacency"] == "add or remove one person"
    assert (privacy["trust"], privacy["trust_model"]) == (
        "shared_noise",
        told(TrustModel.SHARED_NOISE, adds_noise=True),
    )
    assert privacy["measurement_accountant"] == "exact Gaussian DP"
    assert "share 1" in privacy["about"]
    assert "each data holder" not in privacy["about"]
    assert (privacy["aggregation"], privacy["dropouts_tolerated"]) == ("sum", 0)
    assert (privacy["recipe"], privacy["reason_for_recipe"]) == ("fixed_hessian", ran[1].plan.reason)
    assert privacy["reason_for_recipe"]
    assert privacy["not_private"] is True  # its noise came from a seed
    assert json.loads((bundle / MANIFEST).read_bytes())["not_private"] is True
    no_seed = replace(ran[1], plan=msgspec.structs.replace(ran[1].plan, seed=None))
    other = bundle / "other"
    other.mkdir()
    publish(ran[0], no_seed, other)
    assert json.loads((other / "privacy.json").read_bytes())["not_private"] is False


def test_other_trust_and_aggregation_are_told_as_they_are(ran: tuple[Federation, Outcome], tmp_path: Path) -> None:
    plan = msgspec.structs.replace(ran[1].plan, trust=TrustModel.HOLDER_NOISE, aggregation=Aggregation.MEDIAN)
    publish(ran[0], replace(ran[1], plan=plan), tmp_path)
    assert "releases of each data holder" in json.loads((tmp_path / "privacy.json").read_bytes())["about"]
    assert "that of the plain sum" in json.loads((tmp_path / "metrics.json").read_bytes())["noise"]


@pytest.mark.parametrize("trust", TrustModel)
def test_who_adds_the_noise_is_told_as_it_is(trust: TrustModel) -> None:
    """Where training has its noise in the contributions, the trust model is that of the measurement's noise only."""
    inside, added = told(trust, adds_noise=False), told(trust, adds_noise=True)
    assert inside.endswith("Of the measurement: " + added)
    assert "adds all the noise of the training itself" in inside
    assert ("masks hide single updates" in inside) is trust.is_masked
    assert ("can spoil a sum without being named" in added) is trust.is_masked


def test_parity_vectors_hold_for_somebody_who_only_adds_up(bundle: Path) -> None:
    card = json.loads((bundle / "scorecard.json").read_bytes())
    vectors = json.loads((bundle / "parity.json").read_bytes())["vectors"]
    assert len(vectors) > 5
    low, high = card["scale"]["minimum"], card["scale"]["maximum"]
    for vector in vectors:
        total = card["base_points"]
        for characteristic in card["characteristics"]:
            attribute = characteristic["attributes"][vector["attributes"][characteristic["id"]]]
            total += attribute["points"]
        assert vector["score"] == min(max(total, low), high)


def test_the_figures_come_from_the_released_histogram(ran: tuple[Federation, Outcome], bundle: Path) -> None:
    released = ran[1].released
    assert released is not None
    metrics = json.loads((bundle / "metrics.json").read_bytes())
    histogram = metrics["histogram"]
    # Sensitivity over mu, at epsilon 1 and delta 1e-5 (mu 0.2681): nobody may drop out here, so there is no more noise.
    assert metrics["noise_standard_deviation_of_each_count"] == pytest.approx(math.sqrt(1.02) / 0.2681, rel=1e-3)
    assert histogram["goods"] == pytest.approx(released.goods.tolist(), abs=1e-6)
    assert Scorecard.from_json((bundle / "scorecard.json").read_bytes()) == ran[1].scorecard


def test_nothing_in_it_names_a_person_a_lane_or_a_run(ran: tuple[Federation, Outcome], bundle: Path) -> None:
    text = b"".join(path.read_bytes() for path in bundle.iterdir())
    federation, outcome = ran
    for holder in federation.population.holders:
        assert holder.encode() not in text
    assert outcome.run.encode() not in text
    assert not any(handle.hex().encode() in text for handle in federation.handles.values())


def test_without_a_scorecard_there_is_nothing_to_publish(ran: tuple[Federation, Outcome], tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="scorecard"):
        publish(ran[0], replace(ran[1], scorecard=None), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_cut_short_has_no_signature(
    ran: tuple[Federation, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def full(path: Path, content: bytes) -> None:
        if path.name == MANIFEST:
            raise RefusalError("disk full", RefusalCode.INTERNAL)
        write_whole(path, content)

    monkeypatch.setattr(bundle_module, "write_whole", full)
    with pytest.raises(RefusalError):
        publish(*ran, tmp_path)
    assert not (tmp_path / SIGNATURE).exists()
