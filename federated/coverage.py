"""Counting the people of a data holder before a run: what is released about them, its noise, and what it costs each.

The count is a release about people's decisions. It is made in whole millionths of a person (2^-20) with noise that was
born on that grid, so that the cost below holds as it does for every other release (`privacy.discrete`), and rounded to
whole people afterwards.
"""

import hashlib
import json
import math
from typing import Final

import msgspec

from federated.messages import Coverage, encode_header
from privacy.accounting import GaussianSpend
from privacy.discrete import discrete_gaussian, noise_variance
from privacy.noise import NoiseSource

COVERAGE_SPEND: Final = GaussianSpend(0.01)
"""What being counted once costs a person, mu; one person more or less changes the count by one at most."""

_STEP_LOG2: Final = -20
VARIANCE: Final = noise_variance(
    sensitivity=1.0, mu=COVERAGE_SPEND.mu, length=1, step_log2=_STEP_LOG2, slack=0.0
)  # fmt: skip
"""Of the noise, in squared steps of 2^-20 of a person."""

DEVIATION: Final = math.ldexp(math.sqrt(VARIANCE), _STEP_LOG2)
"""Standard deviation of the noise in a count, in people: 100 and a little for the rounding to the grid."""

_PREFIX: Final = "coverage/"


def coverage_name(run: str) -> str:
    """What the count for one run is called in the privacy ledger; no release of a run has such a name."""
    return _PREFIX + run


def is_coverage(release: str) -> bool:
    """Whether a release of that name is a count of people."""
    return release.startswith(_PREFIX)


def run_counted_for(release: str) -> str:
    """The run that a count is called after."""
    return release.removeprefix(_PREFIX)


def noisy_count(people: int, chance: NoiseSource) -> int:
    """`people` with fresh noise, a whole number; it may be negative. Requires people >= 0."""
    if people < 0:
        raise ValueError("requires people >= 0")
    steps = (people << -_STEP_LOG2) + int(discrete_gaussian(1, VARIANCE, chance)[0])
    return (steps + (1 << (-_STEP_LOG2 - 1))) >> -_STEP_LOG2


def coverage_statement(coverage: Coverage) -> bytes:
    """What a data holder signs about its answer: all of it but the signature."""
    unsigned = msgspec.structs.replace(coverage, signature=b"")
    statement = {"coverage_sha256": hashlib.sha256(encode_header(unsigned)).hexdigest(), "run": coverage.run}
    return json.dumps(statement, separators=(",", ":"), sort_keys=True).encode()
