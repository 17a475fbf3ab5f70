"""What both sides must compute alike about one release: its name, what is signed about it, and its integer grid."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import assert_never

import msgspec
import numpy as np
from numpy.typing import NDArray

from federated.messages import Joined, LedgerMark, encode_header
from federated.plan import TrainingPlan
from federated.recipes.base import Recipe
from federated.scorecard import PointScale
from federated.trust import TrustModel
from privacy.accounting import GaussianSpend
from privacy.discrete import float_slack, mu_on_grid, noise_variance, share_on_grid
from privacy.errors import MalformedError
from privacy.grid import Grid


def release_name(run: str, stage: int) -> str:
    """One release of one run; no two releases share a name, and a repeated one is the same bytes."""
    return f"{run}/{stage}"


def measurement_stage(recipe: Recipe) -> int:
    """The measurement's place among the releases of a run: after the last training round."""
    return recipe.rounds + 1


def joined_statement(joined: Joined) -> bytes:
    """What a data holder signs about taking part in a run: all of its answer but the signature."""
    unsigned = msgspec.structs.replace(joined, signature=b"")
    return _canonical({"joined_sha256": hashlib.sha256(encode_header(unsigned)).hexdigest(), "run": joined.run})


def sum_keys_statement(run: str, holder: str, channel: bytes, stages: Sequence[bytes], seeds: Sequence[bytes]) -> bytes:
    """What a data holder signs about its keys of a run, so that nobody in between can replace them."""
    statement = {
        "channel": channel.hex(),
        "holder": holder,
        "run": run,
        "seeds": [seed.hex() for seed in seeds],
        "stages": [stage.hex() for stage in stages],
    }
    return _canonical(statement)


def dealing_statement(run: str, holder: str, sealed: Mapping[str, bytes]) -> bytes:
    """What a data holder signs about the shares it has dealt."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sealed.items()}
    return _canonical({"holder": holder, "run": run, "sealed_sha256": digests})


def reveal_statement(release: str, holder: str, seeds: Mapping[str, bytes], keys: Mapping[str, bytes]) -> bytes:
    """What a data holder signs about the shares it reveals."""
    statement = {
        "holder": holder,
        "keys": {name: share.hex() for name, share in keys.items()},
        "release": release,
        "seeds": {name: share.hex() for name, share in seeds.items()},
    }
    return _canonical(statement)


def update_statement(name: str, commitment: bytes, words: NDArray[np.uint64], ledger: LedgerMark) -> bytes:
    """What a data holder signs about one release."""
    return signed_release(
        name, commitment, hashlib.sha256(np.ascontiguousarray(words, dtype="<u8").tobytes()).digest(), ledger
    )


def signed_release(name: str, commitment: bytes, words_sha256: bytes, ledger: LedgerMark) -> bytes:
    """The same from the digest of the numbers alone (little-endian, 8 bytes each): what an auditor has."""
    statement = {
        "commitment": commitment.hex(),
        "ledger": ledger.digest.hex(),
        "ledger_size": ledger.size,
        "release": name,
        "words_sha256": words_sha256.hex(),
    }
    return _canonical(statement)


def _canonical(statement: Mapping[str, object]) -> bytes:
    return json.dumps(statement, separators=(",", ":"), sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class Shape:
    """What one release is made of: `length` numbers on a public `grid`, whose whole sum carries noise of `variance`.

    `variance` is a whole number of squared grid steps; 0 where no noise is added to the sum. A person with share 1
    adds at most `sensitivity` in L2, and rounding in floats moves no number by more than `slack`.
    """

    length: int
    grid: Grid
    variance: int
    sensitivity: float
    slack: float

    def weights(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """What people's parts are multiplied by, so that each costs at most their share, rounding included."""
        if self.variance == 0:
            return shares
        return share_on_grid(
            shares,
            sensitivity=self.sensitivity,
            length=self.length,
            step_log2=self.grid.step_log2,
            slack=self.slack,
        )

    def holder_variance(self, trust: TrustModel, *, members: int, dropouts_tolerated: int) -> int:
        """What each of `members` data holders adds, so that enough is left whoever leaves."""
        match trust:
            case TrustModel.SHARED_NOISE:
                return -(-self.variance // (members - dropouts_tolerated))
            case TrustModel.HOLDER_NOISE:
                return self.variance
            case TrustModel.COORDINATOR_NOISE:
                return 0
            case _:
                assert_never(trust)


def stages_of(recipe: Recipe) -> int:
    """How many releases a run of `recipe` can have: its rounds and the measurement."""
    return recipe.rounds + 1


def shape_of_round(recipe: Recipe, number: int, plan: TrainingPlan) -> Shape:
    """Of one training round. MalformedError if the sums could overflow every grid."""
    people, holders = plan.most_people, len(plan.roster)
    return _shape(
        recipe.length(number),
        reach=recipe.reach(number, people=people, holders=holders),
        sensitivity=recipe.sensitivity(number),
        mu=recipe.mu(number),
        plan=plan,
    )


def shape_of_measurement(plan: TrainingPlan) -> Shape:
    """Of the released histogram: goods by band, bads by band, then heads and bads counted without shares."""
    return _shape(
        2 * plan.measurement_bands + 2,
        reach=float(plan.most_people),
        sensitivity=MEASUREMENT_SENSITIVITY,
        mu=measurement_spend(plan).mu,
        plan=plan,
    )


def _shape(length: int, *, reach: float, sensitivity: float, mu: float, plan: TrainingPlan) -> Shape:
    if math.isinf(mu):
        return Shape(length, Grid.fit(reach=reach, deviation=0.0), 0, sensitivity, 0.0)
    grid = Grid.fit(reach=reach, deviation=sensitivity / mu)
    slack = float_slack(people=plan.most_people, reach=reach)
    variance = noise_variance(sensitivity=sensitivity, mu=mu, length=length, step_log2=grid.step_log2, slack=slack)
    return Shape(length, grid, variance, sensitivity, slack)


BASE_RATE_SCALE = 0.1
"""What one person adds to the two numbers that are counted without shares, in units of a whole histogram count.

Cautious people weigh less in the histogram, and where they default more often it shows too low a level. These two
numbers, in which everybody weighs the same, set the level right (`server.calibration`)."""

MEASUREMENT_SENSITIVITY = math.sqrt(1 + 2 * BASE_RATE_SCALE**2)


def measurement_weight(allowed: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the fraction of the measurement's mu that each person allows, their weight in the histogram; NaN for too
    little even to be counted in the base rate.

    A person with weight w moves the release by at most sqrt(w^2 + 2 BASE_RATE_SCALE^2), which costs
    allowed x mu exactly.
    """
    left = (np.asarray(allowed, dtype=np.float64) * MEASUREMENT_SENSITIVITY) ** 2 - 2 * BASE_RATE_SCALE**2
    with np.errstate(invalid="ignore"):
        weight: NDArray[np.float64] = np.sqrt(left)
    return np.minimum(weight, 1.0)


def measurement_spend(plan: TrainingPlan) -> GaussianSpend:
    """What the released histogram costs a held-out person with share 1."""
    return GaussianSpend(mu_on_grid(plan.privacy.measurement_epsilon, plan.privacy.delta))


def measurement_noise(plan: TrainingPlan) -> float:
    """Standard deviation of the noise in each number of the summed histogram: sensitivity over mu."""
    return MEASUREMENT_SENSITIVITY / measurement_spend(plan).mu


def measurement_edges(plan: TrainingPlan) -> NDArray[np.float64]:
    """Edges of the score bands of the released histogram, shape (bands + 1,): the scale in equal parts.

    The last band includes the scale's maximum. MalformedError for a plan without a lawful scale.
    """
    scale = scale_of(plan)
    edges = np.linspace(scale.minimum, scale.maximum, plan.measurement_bands + 1)
    edges[-1] = scale.maximum + 1
    return edges


def scale_of(plan: TrainingPlan) -> PointScale:
    """The plan's point scale. MalformedError unless it has every number of one, and lawful ones."""
    wanted = {field.name for field in fields(PointScale)}
    if plan.point_scale.keys() != wanted:
        raise MalformedError(f"The plan's point scale must have {sorted(wanted)}. The coordinator should correct it.")
    return PointScale(**plan.point_scale)
