"""The coordinator over its directory: a signed plan in, a model, its scorecard and the record of the run out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from federated.channel import Channel
from federated.encoder import Encoder
from federated.files import write_whole
from federated.metrics import ScoreHistogram
from federated.model import LinearModel, Model, NetworkModel
from federated.plan import SignedPlan, TrainingPlan, read_plan, recipe_of
from federated.recipes.base import Recipe
from federated.releases import scale_of
from federated.schema import Schema
from federated.schema_toml import load_schema
from federated.scorecard import PointScale, Scorecard, scorecard_from
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError
from server.calibration import Calibration, calibration_from
from server.rounds import Progress, Release, Run


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run gave. `scorecard` and `released` are None for a model that is not a sum over characteristics."""

    run: str
    plan: TrainingPlan
    plan_digest: str
    model: Model
    scorecard: Scorecard | None  # of the model, calibrated
    calibration: Calibration | None
    released: ScoreHistogram | None  # noisy, of the held-out people who agreed to be counted, on the card's scores
    releases: tuple[Release, ...]
    holders: tuple[str, ...]
    refused: Mapping[str, str]


class Coordinator:
    """One coordinator: its key, the schema, the signed plan and the checkpoints that the next run is pinned to."""

    def __init__(self, directory: Path) -> None:
        """MalformedError or TamperingError if a file cannot be read or the plan is not signed by the key."""
        self._directory = directory
        try:
            self.key = SigningKey.from_seed((directory / "coordinator.key").read_bytes())
            self.signed = msgspec.json.decode((directory / "plan.json").read_bytes(), type=SignedPlan)
            self.checkpoints = msgspec.json.decode((directory / "checkpoints.json").read_bytes(), type=dict[str, str])
        except (OSError, ValueError, MalformedError, msgspec.DecodeError) as error:
            raise MalformedError(
                "The coordinator's key, plan or checkpoints cannot be read. The coordinator should write the plan anew."
            ) from error
        self.schema: Schema = load_schema(directory / "schema.toml")
        self.encoder = Encoder(self.schema)
        self.plan = read_plan(self.signed, self.key.public)
        self.recipe: Recipe = recipe_of(self.plan, width=self.encoder.width)

    @property
    def scale(self) -> PointScale:
        """The plan's point scale."""
        return scale_of(self.plan)

    def run(self, channel: Channel, progress: Progress, *, deadline_s: float) -> Outcome:
        """Open, train, publish a scorecard, measure it; write the outcome under `runs/` when all of it is there."""
        run = Run(self.plan, self.signed, self.recipe, channel, deadline_s=deadline_s)
        cohort = run.open(self.checkpoints)
        trained = run.train(cohort, progress)
        scorecard, released, calibration, releases = None, None, None, trained.releases
        model = trained.model
        if isinstance(model, LinearModel):
            as_trained = scorecard_from(model, self.encoder, self.scale)
            counted, measurement = run.measure(cohort, as_trained.to_json())
            releases = (*releases, measurement)
            calibration = calibration_from(counted, self.scale)
            scorecard = scorecard_from(calibration.model(model), self.encoder, self.scale)
            released = calibration.histogram(counted, self.scale)
        outcome = Outcome(
            run=cohort.run,
            plan=self.plan,
            plan_digest=self.signed.digest,
            model=model,
            scorecard=scorecard,
            calibration=calibration,
            released=released,
            releases=releases,
            holders=tuple(cohort.joined),
            refused={holder: code.value for holder, code in sorted(cohort.refused.items())},
        )
        self._write(outcome)
        return outcome

    def _write(self, outcome: Outcome) -> None:
        record = {
            "run": outcome.run,
            "plan": outcome.plan_digest,
            "checkpoints": self.checkpoints,
            "holders": list(outcome.holders),
            "refused": outcome.refused,
            "releases": [
                {
                    "name": release.name,
                    "updates": {
                        holder: {"commitment": update.commitment.hex(), "signature": update.signature.hex()}
                        for holder, update in sorted(release.updates.items())
                    },
                }
                for release in outcome.releases
            ],
        }
        directory = self._directory / "runs" / outcome.run
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(directory / "model.json", model_document(outcome.model))
        if outcome.scorecard is not None:
            write_whole(directory / "scorecard.json", outcome.scorecard.to_json())
        write_whole(directory / "run.json", canonical(record))  # last: its presence says that the run is whole


def canonical(value: object) -> bytes:
    """JSON with sorted keys, one line, ending in a newline."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def model_document(model: Model) -> bytes:
    """The model in canonical JSON, each number in its shortest exact form."""
    if isinstance(model, NetworkModel):
        layers = [{"matrix": matrix.tolist(), "offset": offset.tolist()} for matrix, offset in model.layers]
        return canonical({"kind": "network", "layers": layers, "schema_digest": model.schema_digest})
    return canonical(
        {
            "centre": model.centre.tolist(),
            "centred_radius": model.centred_radius,
            "coefficients": model.coefficients.tolist(),
            "intercept": model.intercept,
            "kind": "log-odds of bad",
            "schema_digest": model.schema_digest,
        }
    )
