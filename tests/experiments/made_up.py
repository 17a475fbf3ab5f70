"""A result for the report's tests: realistic in shape, and made up in every figure."""

import numpy as np
from numpy.typing import NDArray

from experiments.report.values import (
    ApplicantScore,
    AuditedGroup,
    ConsentResult,
    DataSource,
    DemoResult,
    EpsilonSpent,
    Evaluation,
    Evaluations,
    Fairness,
    HolderResult,
    PrivacyStatement,
    RunState,
    ScorecardLine,
    ScorecardTable,
    ScoreScale,
    Withdrawal,
)
from federated.metrics import Metrics, ScoreHistogram

EDGES = np.arange(350.0, 951.0, 10.0)
HOLDERS = (
    ("Harbour Bank", 9400, 0.774),
    ("Northern Savings", 6100, 0.772),
    ("Cardhouse", 3900, 0.769),
    ("Lakeside Credit Union", 2600, 0.766),
    ("Mill Street Lending", 1500, 0.758),
    ("Kite Finance", 900, 0.751),
    ("Valley Mutual", 420, 0.728),
    ("Corner Shop Credit", 180, 0.701),
    ("Parish Loan Fund", 96, 0.655),
    ("Tiny & Sons <Ltd>", 41, None),
)
SCORECARD: dict[str, dict[str, int]] = {
    "Months late in September": {
        "never used": 31, "paid in full": 38, "revolving": 22, "1 month": -14, "2 months or more": -61,
    },
    "Share of months late": {"none": 29, "up to 1 in 3": -6, "up to 2 in 3": -22, "more": -38},
    "Utilisation of the limit": {
        "up to 10 %": 18, "10 % to 50 %": 9, "50 % to 90 %": -4, "above 90 %": -17, "missing": 0,
    },
    "Limit (NT$)": {"below 50,000": -12, "50,000 to 200,000": 2, "above 200,000": 15},
    "Paid, of the last bill": {"below 5 %": -9, "5 % to 50 %": 4, "above 50 %": 12},
    "Months with nothing paid": {"none": 11, "1 or 2": -3, "3 or more": -13},
}  # fmt: skip


def made_up_evaluation(seed: int, gap: float, noise: float = 0.0) -> Evaluation:
    random = np.random.default_rng(seed)
    bad = random.random(7500) < 0.22
    scores = np.where(bad, random.normal(660 - gap, 74, 7500), random.normal(660, 52, 7500))
    histogram = ScoreHistogram.of(scores, bad, EDGES)
    if noise:
        shape = histogram.goods.shape
        histogram = ScoreHistogram(
            EDGES,
            histogram.goods + random.normal(0, noise, shape),
            histogram.bads + random.normal(0, noise, shape),
        )
    chance: NDArray[np.float64] = 1 / (1 + np.exp((histogram.midpoints - 561) / 42))
    return Evaluation.of(histogram, chance)


def made_up_result() -> DemoResult:
    """Realistic in shape, invented in every figure."""
    return DemoResult(
        title="Demonstration run",
        data=DataSource(
            name="Made-up cards (for tests)",
            citation="Nobody and Nobody Else (2026), A data set that does not exist.",
            licence="Invented for tests; nothing to attribute.",
        ),
        rows=30_000,
        holders=tuple(
            HolderResult(name, size, round(size * 0.86), auc, 0.18 + 0.01 * place)
            for place, (name, size, auc) in enumerate(HOLDERS)
        ),
        rounds=10,
        recipe="fixed_hessian",
        privacy=PrivacyStatement(
            epsilon=1.0,
            delta=1e-5,
            excludes=(
                "The schema's bounds, centres and bin edges: public constants, not learnt from rows.",
                "The exact evaluations in this report: only known because the data are public.",
                "That a person has an account at a data holder: the holder knows its own customers.",
                "Further runs: each is another release and adds to what a person has spent.",
            ),
            second_epsilon=1.0001,
            reason="About 23,000 people are expected, enough for its centre to be worth its cost.",
            trust_model="The coordinator sees sums only. Each data holder sees its own rows and consents. "
            "The consent registry holds sealed records that it cannot read, forge or drop unnoticed.",
        ),
        not_private=False,
        consent=ConsentResult(
            subjects=22_500,
            people_refused=3_412,
            rows_held=25_137,
            rows_permitted=21_618,
            rows_used_without_consent=0,
            refusals={"none": 1204, "purpose": 1688, "time": 311, "frozen": 97, "budget": 219},
        ),
        evaluations=Evaluations(
            pooled=made_up_evaluation(1, 74),
            federated=made_up_evaluation(1, 73.5),
            federated_private=made_up_evaluation(1, 72.5),
            local_only=Evaluation(Metrics(auc=0.7642, ks=0.402, gini=0.5284, brier=0.1421, ece=None)),
            opacus_fedavg=made_up_evaluation(4, 46),
        ),
        released=made_up_evaluation(1, 72.5, noise=2.5),
        scorecard=ScorecardTable(
            ScoreScale(600, 2.5, 40, 350, 950),
            612,
            tuple(
                ScorecardLine(characteristic, attribute, points)
                for characteristic, attributes in SCORECARD.items()
                for attribute, points in attributes.items()
            ),
        ),
        applicants=(
            ApplicantScore("Applicant A", 748, 748, 748, "low risk", ("Limit (NT$): 50,000 to 200,000",)),
            ApplicantScore(
                "Applicant B",
                634,
                611,
                660,
                "medium risk",
                (
                    "Utilisation of the limit: above 90 %",
                    "Paid, of the last bill: below 5 %",
                    "Share of months late: up to 1 in 3",
                ),
            ),
            ApplicantScore(
                "Applicant C",
                487,
                470,
                502,
                "high risk",
                (
                    "Months late in September: 2 months or more",
                    "Share of months late: more",
                    "Utilisation of the limit: above 90 %",
                    "Months with nothing paid: 3 or more",
                ),
            ),
        ),
        epsilon_spent=(
            EpsilonSpent(1, 0.0, 2_900),
            EpsilonSpent(1, 0.25, 2_100),
            EpsilonSpent(1, 0.5, 3_400),
            EpsilonSpent(1, 1.0, 11_463),
            EpsilonSpent(2, 0.0, 212),
            EpsilonSpent(2, 0.5, 704),
            EpsilonSpent(2, 0.98, 1_721),
        ),
        withdrawal=Withdrawal(
            300,
            "Cardhouse",
            RunState(4_012, "9f2c51aa" * 8, 3_354, 3_300, "5d0e77b1" * 8, "run-41c9"),
            RunState(4_312, "03bb8e64" * 8, 3_054, 3_003, "c1f29a40" * 8, "run-9d20"),
        ),
        fairness=Fairness(
            600,
            {
                "Sex": {
                    "female": AuditedGroup(4521, 0.208, 641, 0.771, 0.781),
                    "male": AuditedGroup(2979, 0.242, 632, 0.739, 0.772),
                },
                "Age": {
                    "below 30": AuditedGroup(2410, 0.229, 631, 0.735, 0.770),
                    "30 to 49": AuditedGroup(4420, 0.213, 642, 0.774, 0.779),
                    "50 and above": AuditedGroup(661, 0.249, 630, 0.728, 0.781),
                    "unstated": AuditedGroup(9, None, None, None, None),
                },
            },
        ),
        seconds=24.31,
        versions={"fedcredit": "0.1.0", "python": "3.11.7", "numpy": "2.4.6", "flwr": "1.42.0"},
        digests={"training plan": "c1f29a40" * 8, "schema": "77d1e0c3" * 8, "scorecard": "e5a80b12" * 8},
    )
