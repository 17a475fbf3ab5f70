"""The coordinator over its directory: a signed plan in, a model, its scorecard and the record of the run out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import msgspec

from federated.channel import Channel
from federated.encoder import Encoder
from federated.files import make_directory, write_whole
from federated.messages import Opening
from federated.metrics import ScoreHistogram
from federated.model import LinearModel, Model, NetworkModel
from federated.plan import SignedPlan, TrainingPlan, read_plan, recipe_of, run_id
from federated.recipes.base import Recipe
from federated.releases import scale_of
from federated.schema import Schema
from federated.schema_toml import load_schema
from federated.scorecard import PointScale, Scorecard, scorecard_from
from federated.trust import TrustModel
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError, RefusalCode, RefusalError
from privacy.noise import NoiseSource, SecureNoise, SeededNoise
from server.calibration import Calibration, calibration_from
from server.memory import BegunRun, LedgerMarks
from server.plan_checks import checked_stages
from server.rounds import UNOBSERVED, Observer, Plan, Progress, Run
from server.sums import Release

RECORD = "run.json"
MEASURED = "measured.json"


@dataclass(frozen=True, slots=True)
class Pinned:
    """What a run is of: a signed plan, and the lane heads it is pinned to."""

    signed: SignedPlan
    checkpoints: dict[str, str]

    @classmethod
    def current(cls, directory: Path) -> Self:
        """The plan and the checkpoints that lie in the coordinator's directory. MalformedError if they cannot be read.

        Nothing in them is verified yet.
        """
        try:
            signed = msgspec.json.decode((directory / "plan.json").read_bytes(), type=SignedPlan)
            checkpoints = msgspec.json.decode((directory / "checkpoints.json").read_bytes(), type=dict[str, str])
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise _unreadable() from error
        return cls(signed, checkpoints)

    @property
    def run(self) -> str:
        """The run's name."""
        return run_id(self.signed, self.checkpoints)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run gave. `scorecard` and `released` are None for a model that is not a sum over characteristics.

    `refused` says of everybody in the roster who is in no sum why not: a refusal's code, or a few words.
    """

    run: str
    plan: TrainingPlan
    plan_digest: str
    model: Model
    scorecard: Scorecard | None  # of the model, calibrated
    calibration: Calibration | None
    released: ScoreHistogram | None  # noisy, of the held-out people who agreed to be counted, on the card's scores
    deviation: float | None  # standard deviation of the noise in each of its counts
    releases: tuple[Release, ...]
    holders: tuple[str, ...]
    refused: Mapping[str, str]

    @property
    def trust(self) -> TrustModel:
        """Whom one had to trust in this run."""
        return self.plan.trust

    @property
    def reason(self) -> str:
        """Why the plan has this recipe."""
        return self.plan.reason

    @property
    def left_out(self) -> Mapping[str, Mapping[str, str]]:
        """Of each release, by name: who takes part in the run and is not in this sum, and why."""
        return {release.name: release.left_out for release in self.releases}


class Coordinator:
    """One coordinator: its key, the schema, the signed plan and the checkpoints that the next run is pinned to."""

    def __init__(self, directory: Path, *, pinned: Pinned | None = None, schema: Path | None = None) -> None:
        """`pinned` is the run to be made, by default of the plan in the directory; `schema` is the schema's file there.

        MalformedError or TamperingError if a file cannot be read or the plan is not signed by the key. MalformedError
        too for a plan whose sums fit no grid, or whose noise does not cover what it promises.
        """
        self._directory = directory
        try:
            self.key = SigningKey.from_seed((directory / "coordinator.key").read_bytes())
        except (OSError, MalformedError) as error:
            raise _unreadable() from error
        pinned = pinned or Pinned.current(directory)
        self.signed, self.checkpoints = pinned.signed, pinned.checkpoints
        self._marks = LedgerMarks(directory)
        self.schema: Schema = load_schema(schema or directory / "schema.toml")
        self.encoder = Encoder(self.schema)
        self.plan = read_plan(self.signed, self.key.public)
        self.recipe: Recipe = recipe_of(self.plan, self.encoder)
        self._stages = checked_stages(self.recipe, self.plan)

    @property
    def scale(self) -> PointScale:
        """The plan's point scale."""
        return scale_of(self.plan)

    @property
    def opening(self) -> Opening:
        """What the next run begins with."""
        marks = self._marks.of(entry.holder for entry in self.plan.roster)
        return Opening(self.signed.payload, self.signed.signature, self.checkpoints, marks)

    @property
    def is_answered(self) -> bool:
        """Whether an earlier try of the run has kept every sum, so that nobody has to be asked any more.

        Never of a model without a scorecard, which is not measured.
        """
        begun = BegunRun(self._directory, run_id(self.signed, self.checkpoints))
        return all(begun.total(stage.number) is not None for stage in self._stages)

    def run(
        self, channel: Channel | None, progress: Progress, *, deadline_s: float, observer: Observer = UNOBSERVED
    ) -> Outcome:
        """Open, train, publish a scorecard, measure it; write the outcome under `runs/` when all of it is there.

        Without a channel the run must be one that `is_answered`.
        """
        run = Run.open(
            Plan(self.plan, self.signed, self.recipe, self._stages),
            self.checkpoints,
            channel=channel,
            deadline_s=deadline_s,
            begun=partial(BegunRun, self._directory),
            marks=self._marks,
            noise=self._noise,
            observer=observer,
        )
        trained = run.train(progress)
        scorecard, released, deviation, calibration, releases = None, None, None, None, trained.releases
        model = trained.model
        if isinstance(model, LinearModel):
            as_trained = scorecard_from(model, self.encoder, self.scale)
            measured = run.measure(as_trained.to_json())
            releases = (*releases, measured.release)
            deviation = measured.deviation
            calibration = calibration_from(measured.histogram, self.scale, measured.base_rate, deviation=deviation)
            scorecard = scorecard_from(calibration.model(model), self.encoder, self.scale)
            released = calibration.histogram(measured.histogram, self.scale)
        outcome = Outcome(
            run=run.cohort.run,
            plan=self.plan,
            plan_digest=self.signed.digest,
            model=model,
            scorecard=scorecard,
            calibration=calibration,
            released=released,
            deviation=deviation,
            releases=releases,
            holders=run.cohort.members,
            refused={holder: absence.reason for holder, absence in run.cohort.absent.items()},
        )
        self._write(outcome)
        return outcome

    def _noise(self, stage: int) -> NoiseSource:
        if self.plan.seed is None:
            return SecureNoise()
        return SeededNoise(self.plan.seed, f"coordinator/{self.signed.digest}/{stage}")

    def _write(self, outcome: Outcome) -> None:
        record = {
            "run": outcome.run,
            "plan": outcome.plan_digest,
            "checkpoints": self.checkpoints,
            "holders": list(outcome.holders),
            "refused": outcome.refused,
            "releases": [_recorded(release) for release in outcome.releases],
        }
        directory, content = self._directory / "runs" / outcome.run, canonical(record)
        if (directory / RECORD).exists() and (directory / RECORD).read_bytes() != content:
            raise RefusalError(
                f"{RECORD} of this run is there already, says something else, and is left as it is: it may be with "
                "auditors. The coordinator should keep it, or move the run's directory away and run the plan again.",
                RefusalCode.REPLAY,
            )
        make_directory(directory)
        write_whole(directory / "model.json", model_document(outcome.model))
        if outcome.scorecard is not None:
            write_whole(directory / "scorecard.json", outcome.scorecard.to_json())
            write_whole(directory / MEASURED, measured_document(outcome))
        write_whole(directory / RECORD, content)  # last: its presence says that the run is whole


def _recorded(release: Release) -> dict[str, object]:
    return {
        "name": release.name,
        "updates": {
            holder: {
                "commitment": update.commitment.hex(),
                "signature": update.signature.hex(),
                "ledger": update.ledger.digest.hex(),
                "ledger_size": update.ledger.size,
            }
            for holder, update in sorted(release.updates.items())
        },
        "left_out": dict(release.left_out),
        "unhelpful": dict(release.unhelpful),
    }


def _unreadable() -> MalformedError:
    return MalformedError(
        "The coordinator's key, plan or checkpoints cannot be read. The coordinator should write the plan anew."
    )


def measured_document(outcome: Outcome) -> bytes:
    """What was measured of the scorecard, in canonical JSON, each number in its shortest exact form.

    MalformedError for an outcome without a scorecard.
    """
    calibration, released = outcome.calibration, outcome.released
    if calibration is None or released is None or outcome.deviation is None:
        raise MalformedError("Only a scorecard can be measured. The coordinator should choose a recipe that gives one.")
    return canonical(
        {
            "bads": released.bads.tolist(),
            "deviation": outcome.deviation,
            "edges": released.edges.tolist(),
            "goods": released.goods.tolist(),
            "intercept": calibration.intercept,
            "slope": calibration.slope,
        }
    )


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
