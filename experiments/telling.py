"""From a finished run to what the report says: the baselines beside it, the figures, the applicants."""

import math
from collections import Counter
from importlib.metadata import version
from platform import python_version

import numpy as np

from experiments import baselines
from experiments.applicants import score_people, shown
from experiments.chance import random_bytes
from experiments.evaluation import Scores, average, evaluate, fairness, scores_of
from experiments.federation import Federation
from experiments.plans import STEPS
from experiments.report.values import (
    ApplicantScore,
    ConsentResult,
    DataSource,
    DemoResult,
    EpsilonSpent,
    Evaluation,
    Evaluations,
    HolderResult,
    PrivacyStatement,
    ScorecardLine,
    ScorecardTable,
    ScoreScale,
)
from experiments.sample import permitted_sample, refusals_of
from experiments.session import Session
from federated.encoder import Encoder
from federated.model import Model
from federated.plan import recipe_of
from federated.scorecard import Scorecard
from privacy.accounting import epsilon_of, mu_of
from privacy.consent.record import Purpose
from privacy.errors import MalformedError
from privacy.noise import SecureNoise, SeededNoise
from server.coordinator import Outcome
from server.rounds import Progress

CUT_OFF = 600.0
APPLICANT_QUANTILES = (0.05, 0.3, 0.6, 0.95)
PACKAGES = ("fedcredit", "flwr", "numpy", "cryptography", "opacus", "torch", "scikit-learn")

TRUST_MODEL = (
    "Each data holder adds its part of one common noise to whole numbers and masks them with keys agreed with every "
    "other data holder, so the coordinator sees sums over all of them only. This holds against a coordinator that is "
    "curious but follows the protocol, and as long as no data holder shows it masks. If a data holder leaves, the "
    "run ends."
)


def tell(
    federation: Federation, session: Session, outcome: Outcome, *, seed: int | None, progress: Progress
) -> DemoResult:
    """Everything that can be said after one run; what comes later (a withdrawal, the replay, the time) is unknown."""
    card = outcome.scorecard
    if card is None or outcome.released is None:
        raise MalformedError("The demo needs a recipe that gives a scorecard.")
    teller = _Teller(federation, session, outcome, card, progress)
    schema, privacy = federation.data.schema, outcome.plan.privacy
    scores = teller.held_out.of_each([card.score(table) for table in teller.held_out.tables])
    private = evaluate(scores, teller.held_out.bad, card)
    evaluations = teller.evaluations(private, seed)
    middles = (outcome.released.edges[:-1] + outcome.released.edges[1:]) / 2
    return DemoResult(
        title="A credit scorecard from data that nobody pooled",
        data=DataSource(
            schema.source.title, f"{schema.source.attribution}. {schema.source.origin}", schema.source.licence
        ),
        rows=len(federation.data.lines),
        holders=teller.holders(),
        rounds=len(outcome.releases) - 1,
        recipe="centred fixed Hessian",
        privacy=PrivacyStatement(
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            excludes=teller.excludes(),
            trust_model=TRUST_MODEL,
        ),
        not_private=outcome.plan.seed is not None,
        consent=teller.consent(),
        evaluations=evaluations,
        released=Evaluation.of(outcome.released, card.probability_of_bad(middles)),
        scorecard=_table(card),
        applicants=teller.applicants(scores, seed),
        epsilon_spent=teller.epsilon_spent(),
        withdrawal=None,
        fairness=fairness(scores, teller.held_out, schema, card, CUT_OFF),
        seconds=0.0,
        versions={"python": python_version()} | {package: version(package) for package in PACKAGES},
        digests={"plan": outcome.plan_digest, "schema": schema.digest, "run": outcome.run},
    )


class _Teller:
    def __init__(
        self, federation: Federation, session: Session, outcome: Outcome, card: Scorecard, progress: Progress
    ) -> None:
        self.federation, self.session, self.outcome, self.card, self.progress = (
            federation,
            session,
            outcome,
            card,
            progress,
        )
        self.schema = federation.data.schema
        self.encoder = Encoder(self.schema)
        self.joined = session.joined(outcome)
        self.training = permitted_sample(self.joined, outcome.run, Purpose.TRAIN, self.encoder)
        self.held_out = permitted_sample(self.joined, outcome.run, Purpose.VALIDATE, self.encoder)
        self.alone: dict[str, Evaluation] = {}

    def evaluations(self, private: Evaluation, seed: int | None) -> Evaluations:
        """The same held-out people, five ways."""
        privacy, width = self.outcome.plan.privacy, self.encoder.width
        parts, steps = list(self.training.parts), 3
        self.progress("baselines", 0, steps)
        pooled = self._evaluated(baselines.pooled(self.training.x, self.training.bad, self.schema.digest))
        federated = self._evaluated(
            baselines.without_noise(parts, self.schema, width=width, delta=privacy.delta, steps=STEPS)
        )
        self.progress("baselines", 1, steps)
        for holder, part in zip(self.joined, parts, strict=True):
            model = baselines.alone(part, self.schema.digest)
            if model is not None:
                self.alone[holder.name] = self._evaluated(model)
        sizes = {holder.name: float(len(part)) for holder, part in zip(self.joined, parts, strict=True)}
        self.progress("baselines", 2, steps)
        chance = SecureNoise() if seed is None else SeededNoise(seed, "usual opacus")
        usual = baselines.usual_opacus(
            parts, self.schema, width=width, epsilon=privacy.epsilon, delta=privacy.delta, chance=chance
        )
        self.progress("baselines", 3, steps)
        return Evaluations(
            pooled=pooled,
            federated=federated,
            federated_private=private,
            local_only=average([(sizes[name], evaluation) for name, evaluation in self.alone.items()]),
            opacus_fedavg=self._evaluated(usual),
        )

    def holders(self) -> tuple[HolderResult, ...]:
        """Every data holder of the federation, those that sat the run out included."""
        joined = dict(zip(self.outcome.holders, self.training.parts, strict=True))
        found = []
        for name in self.federation.population.holders:
            part, alone = joined.get(name), self.alone.get(name)
            found.append(
                HolderResult(
                    name=name,
                    rows=len(self.federation.population.at(name)),
                    people_permitted=0 if part is None else len(part),
                    auc_alone=None if alone is None else alone.metrics.auc,
                    bad_rate=None if part is None else float(part.bad.mean()),
                )
            )
        return tuple(found)

    def consent(self) -> ConsentResult:
        """What consent did to the rows of both samples."""
        population = self.federation.population
        permitted = [
            holder.permitted(holder.run_named(self.outcome.run), purpose)
            for purpose in (Purpose.TRAIN, Purpose.VALIDATE)
            for holder in self.joined
        ]
        used = {subject for rows in permitted for subject in rows.table.subjects}
        return ConsentResult(
            subjects=len(population.attitudes),
            people_refused=len(population.attitudes) - len(used),
            rows_held=len(population.memberships),
            rows_permitted=sum(len(rows.handles) for rows in permitted),
            rows_used_without_consent=None,
            refusals=refusals_of(permitted),
        )

    def excludes(self) -> tuple[str, ...]:
        """What epsilon and delta do not cover, as whole sentences."""
        privacy = self.outcome.plan.privacy
        mu_of_both = math.sqrt(2) * mu_of(privacy.epsilon, privacy.delta)
        return (
            *recipe_of(self.outcome.plan, width=self.encoder.width).excludes(),
            "each run is a release of its own: after this demo's second run, people used in both have spent up to "
            f"epsilon {epsilon_of(mu_of_both, privacy.delta):.2f}, within the cap of each",
            "the baselines and the exact figures beside the released ones: only public data allow them",
        )

    def applicants(self, scores: Scores, seed: int | None) -> tuple[ApplicantScore, ...]:
        """Held-out people at four quantiles of the score, asked for through their wallets."""
        subjects = [
            subject
            for table, once in zip(self.held_out.tables, self.held_out.once, strict=True)
            for subject, first in zip(table.subjects, once, strict=True)
            if first
        ]
        order = np.argsort(scores, kind="stable")
        chosen = [subjects[order[int(quantile * (len(order) - 1))]] for quantile in APPLICANT_QUANTILES]
        people = {self.federation.customer(person): person for person in range(len(self.federation.data.lines))}
        reports = score_people(
            self.federation,
            self.session,
            [people[subject] for subject in chosen],
            self.card,
            random=random_bytes(seed, "applicants"),
        )
        return tuple(
            shown(f"Applicant {letter}", report, CUT_OFF)
            for letter, report in zip("ABCD", reports, strict=True)
            if report is not None
        )

    def epsilon_spent(self) -> tuple[EpsilonSpent, ...]:
        """What the ledgers charged each person in all, over all data holders, in this run.

        Under shared noise a person at several data holders moves one sum: their roots of mu squared add.
        """
        federation = self.federation
        mu: Counter[int] = Counter()
        places: Counter[int] = Counter()
        for holder in self.session.holders.values():
            theirs = federation.population.at(holder.name)
            spent = holder.ledger.spent_mu_squared([federation.handles[place] for place in theirs])
            for place, mu_squared in zip(theirs, spent.tolist(), strict=True):
                mu[place.person] += mu_squared**0.5
                places[place.person] += 1
        delta = self.outcome.plan.privacy.delta
        people = Counter((places[person], round(mu[person], 9)) for person in places)
        return tuple(
            EpsilonSpent(held, epsilon_of(total, delta) if total > 0 else 0.0, count)
            for (held, total), count in sorted(people.items())
        )

    def _evaluated(self, model: Model) -> Evaluation:
        return evaluate(scores_of(model, self.held_out.x, self.card.scale), self.held_out.bad, self.card)


def _table(card: Scorecard) -> ScorecardTable:
    scale = card.scale
    lines = tuple(
        ScorecardLine(characteristic.title, attribute.title, points)
        for characteristic in card.characteristics
        for attribute, points in zip(characteristic.attributes, characteristic.points, strict=True)
    )
    return ScorecardTable(
        ScoreScale(
            scale.base_score,
            scale.base_good_bad_odds,
            scale.points_to_double_odds,
            int(scale.minimum),
            int(scale.maximum),
        ),
        lines,
    )
