"""Everything the report says, as frozen values: filled in by whoever ran, read by the page and `report.json`.

`None` is "unknown" everywhere, and is shown as such. No person, handle or key belongs in here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from federated.metrics import CalibrationGroup, Metrics, ScoreHistogram
from privacy.errors import MalformedError


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where the rows come from, and what their licence wants said."""

    name: str
    citation: str
    licence: str


@dataclass(frozen=True, slots=True)
class HolderResult:
    """One data holder; `auc_alone`: held-out AUC of a model trained, without privacy, on its rows alone."""

    name: str
    rows: int
    people_permitted: int
    auc_alone: float | None
    bad_rate: float | None


@dataclass(frozen=True, slots=True)
class PrivacyStatement:
    """The promise of the private run. `excludes`: whole sentences, each one thing the promise leaves out."""

    epsilon: float | None
    delta: float | None
    excludes: tuple[str, ...]
    trust_model: str
    reason: str  # why this recipe
    second_epsilon: float | None  # of the same releases by `second_accountant`
    second_accountant: str = "privacy loss distributions (dp-accounting)"
    unit: str = "person"
    adjacency: str = "add or remove one person"
    accountant: str = "exact Gaussian DP"


@dataclass(frozen=True, slots=True)
class ConsentResult:
    """What consent did to the rows. A person at two data holders has two rows and is one subject.

    `people_refused`: subjects who said no, or nothing, to training at one data holder or more.
    `refusals`: rows left out, by the gate's reason.
    """

    subjects: int
    people_refused: int | None
    rows_held: int
    rows_permitted: int
    rows_used_without_consent: int | None
    refusals: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """One model on the held-out people.

    `probability_of_bad` (k,), one per band, is needed for calibration. `histogram` is `None` for an average
    over several models, where only the figures have a meaning.
    """

    metrics: Metrics
    histogram: ScoreHistogram | None = None
    probability_of_bad: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, histogram: ScoreHistogram, probability_of_bad: NDArray[np.float64] | None) -> "Evaluation":
        """The evaluation whose figures are those of its histogram."""
        return cls(histogram.metrics(probability_of_bad), histogram, probability_of_bad)

    def calibration(self) -> tuple[CalibrationGroup, ...]:
        """Predicted against seen, riskiest first; empty when unknown."""
        if self.histogram is None or self.probability_of_bad is None:
            return ()
        return self.histogram.calibration(self.probability_of_bad)


@dataclass(frozen=True, slots=True)
class Evaluations:
    """The same held-out people, five ways; `None` was not run.

    pooled: the training rows in one place, no privacy. federated: rows stay put, no noise.
    federated_private: the model that is published. local_only: each data holder alone, average by people.
    opacus_fedavg: DP-SGD at each holder and plain averaging, usual example settings, at the same epsilon.
    """

    pooled: Evaluation | None
    federated: Evaluation | None
    federated_private: Evaluation | None
    local_only: Evaluation | None
    opacus_fedavg: Evaluation | None


@dataclass(frozen=True, slots=True)
class ScorecardLine:
    """Points for one attribute of a characteristic; lines of one characteristic stand together."""

    characteristic: str
    attribute: str
    points: int


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """Good:bad odds are `base_good_bad_odds` at `base_score` and double every `points_to_double_odds`."""

    base_score: float
    base_good_bad_odds: float
    points_to_double_odds: float
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class ScorecardTable:
    """The published scorecard, for display."""

    scale: ScoreScale
    base_points: int  # what every score starts from
    lines: tuple[ScorecardLine, ...]


@dataclass(frozen=True, slots=True)
class ApplicantScore:
    """One scored person under a made-up label ("Applicant A"); `reasons`: most costly first, at most four."""

    label: str
    score: int
    low: int
    high: int
    band: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EpsilonSpent:
    """`people` subjects, at `holders` data holders each, spent `epsilon` in all, at the statement's delta."""

    holders: int
    epsilon: float
    people: int


@dataclass(frozen=True, slots=True)
class RunState:
    """A training run and the consent it rested on. `root` and the ids may be long: the page shortens them."""

    lane_size: int
    root: str
    people_permitted: int
    people_used: int
    plan: str
    run: str


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """People who withdrew between two runs, and what changed; `where`: the holder whose lane is shown."""

    people: int
    where: str
    before: RunState
    after: RunState


@dataclass(frozen=True, slots=True)
class AuditedGroup:
    """People of one group of an audit attribute (never an input of the model), at the published scorecard."""

    people: int
    bad_rate: float | None
    mean_score: float | None
    approval_rate: float | None
    auc: float | None


@dataclass(frozen=True, slots=True)
class Fairness:
    """Audit attribute -> group -> figures. Approved is whoever scores `cut_off` or more."""

    cut_off: float
    attributes: Mapping[str, Mapping[str, AuditedGroup]]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """One whole run. `not_private`: noise came from a seed, so nothing here protects anybody.

    `released` is the noisy, charged histogram of the private model that actually left the data holders;
    `evaluations.federated_private` is exact and only an experiment on public data may know it.
    `digests`: name (plan, schema, scorecard, ...) -> hex.
    """

    title: str
    data: DataSource
    rows: int
    holders: tuple[HolderResult, ...]
    rounds: int
    recipe: str
    privacy: PrivacyStatement
    not_private: bool
    consent: ConsentResult
    evaluations: Evaluations
    released: Evaluation | None
    scorecard: ScorecardTable | None
    applicants: tuple[ApplicantScore, ...]
    epsilon_spent: tuple[EpsilonSpent, ...]
    withdrawal: Withdrawal | None
    fairness: Fairness | None
    seconds: float
    versions: Mapping[str, str]
    digests: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.consent.rows_permitted > self.consent.rows_held:
            raise MalformedError("report: more rows permitted than held; whoever filled in the result must count again")
