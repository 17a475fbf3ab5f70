"""The classic recipe through the whole federation: consent, ledger, masks and messages as for the default one."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from experiments.plans import DELTA
from experiments.session import Session
from federated.model import LinearModel, NetworkModel
from federated.plan import SignedPlan, read_plan
from federated.recipes.opacus_fedavg import OpacusFedAvgSettings
from federated.recipes.registry import settings_to_dict
from privacy.accounting import SampledSpend, at_share, total_epsilon
from server.coordinator import Outcome
from server.rounds import no_progress
from tests.small_federation import small_federation

AT = 1_793_491_200
ROUNDS = 3
CLASSIC = OpacusFedAvgSettings(
    hidden=(), learning_rate=0.5, batch_size=16, local_epochs=1, rounds=ROUNDS, clipping_norm=1.0, epsilon=1.0,
    delta=DELTA,
)  # fmt: skip


def _run(directory: Path, settings: OpacusFedAvgSettings) -> tuple[Outcome, list[float]]:
    """The outcome, and for each person charged in training the epsilon of all their charges there together."""
    federation, registry = small_federation(directory, at=AT)
    signed = msgspec.json.decode((federation.coordinator_directory / "plan.json").read_bytes(), type=SignedPlan)
    plan = read_plan(signed, federation.coordinator_key.public)
    federation.write_plan(msgspec.structs.replace(plan, recipe=settings_to_dict(settings)))
    with closing(registry), Session(directory, lambda: AT, registry) as session:
        outcome = session.run(no_progress)
        spent = []
        for holder in session.joined(outcome):
            people = holder.ledger.subjects_of(outcome.releases[0].name)
            for spends in {tuple(holder.ledger.spends(handle)) for handle in people}:
                assert len(spends) == ROUNDS  # each round's steps are charged, not the first round's alone
                assert all(isinstance(spend, SampledSpend) for spend, _ in spends)
                spent.append(total_epsilon([at_share(spend, share) for spend, share in spends], DELTA))
    return outcome, spent


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, list[float]]:
    return _run(tmp_path_factory.mktemp("classic") / "federation", CLASSIC)


def test_logistic_regression_by_fedavg_ends_as_a_scorecard(classic: tuple[Outcome, list[float]]) -> None:
    outcome, _ = classic
    assert isinstance(outcome.model, LinearModel)
    assert np.abs(outcome.model.coefficients).max() > 0
    assert outcome.scorecard is not None
    assert len(outcome.releases) == ROUNDS + 1


def test_the_accountant_is_carried_over_the_rounds(classic: tuple[Outcome, list[float]]) -> None:
    _, spent = classic
    assert max(spent) <= 1.0
    assert max(spent) > 0.9  # all rounds together use the budget up; a fresh accountant a round would spend it thrice


def test_a_network_has_a_model_document_and_no_scorecard(tmp_path: Path) -> None:
    outcome, _ = _run(tmp_path / "federation", replace(CLASSIC, hidden=(4,)))
    assert isinstance(outcome.model, NetworkModel)
    assert outcome.scorecard is None
    (written,) = (tmp_path / "federation" / "coordinator" / "runs").iterdir()
    document = json.loads((written / "model.json").read_text(encoding="utf-8"))
    assert document["kind"] == "network"
    assert len(document["layers"]) == 2
    assert not (written / "scorecard.json").exists()
