"""From a finished run to what the report says: the baselines beside it, the figures, the applicants."""

import math
from collections import Counter
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import cache
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
from federated.exclusions import exclusions
from federated.loss_distribution import total_epsilon_pld
from federated.model import Model
from federated.plan import recipe_of
from federated.recipes.base import RecipeName
from federated.rows import EncodedRows
from federated.schema import Schema
from federated.scorecard import Scorecard
from federated.trust import TrustModel, told
from privacy.accounting import epsilon_of
from privacy.consent.record import Purpose
from privacy.errors import MalformedError
from privacy.noise import SecureNoise, SeededNoise
from server.coordinator import Outcome
from server.rounds import Progress

CUT_OFF = 600.0
RECIPE_TITLES = {
    RecipeName.FIXED_HESSIAN: "centred fixed Hessian",
    RecipeName.UNCENTRED_FIXED_HESSIAN: "uncentred fixed Hessian",
    RecipeName.GRADIENT_DESCENT: "full-batch gradient descent",
    RecipeName.SUFFICIENT_STATISTICS: "one-shot sufficient statistics",
    RecipeName.HISTOGRAM_SCORECARD: "additive histogram scorecard",
    RecipeName.LOCAL_SGD: "local DP-SGD",
    RecipeName.OPACUS_FEDAVG: "FedAvg of local DP-SGD with Opacus",
}
APPLICANT_QUANTILES = (0.05, 0.3, 0.6, 0.95)
PACKAGES = ("fedcredit", "flwr", "numpy", "cryptography", "opacus", "torch", "scikit-learn")


def train_usual(parts: list[EncodedRows], schema: Schema, *, epsilon: float, delta: float, seed: int | None) -> Model:
    """The usual Opacus + FedAvg settings over the data holders' rows; it takes a while and can run elsewhere."""
    chance = SecureNoise() if seed is None else SeededNoise(seed, "usual opacus")
    return baselines.usual_opacus(parts, schema, epsilon=epsilon, delta=delta, chance=chance)


class Teller:
    """One run and the permitted rows behind it, about to be told."""

    def __init__(self, federation: Federation, session: Session, outcome: Outcome, progress: Progress) -> None:
        """MalformedError for a run whose recipe gives no scorecard."""
        if outcome.scorecard is None or outcome.released is None:
            raise MalformedError("The demo needs a recipe that gives a scorecard.")
        self._federation, self._session, self._outcome, self._progress = federation, session, outcome, progress
        self._card, self._released = outcome.scorecard, outcome.released
        self._schema = federation.data.schema
        self._encoder = Encoder(self._schema)
        self._recipe = recipe_of(outcome.plan, self._encoder)
        # Whether noise is added to the sum, and not inside what each data holder computes.
        self._adds_noise = math.isfinite(self._recipe.mu(1))
        self._joined = session.joined(outcome)
        self._training = permitted_sample(self._joined, outcome.run, Purpose.TRAIN, self._encoder)
        self._held_out = permitted_sample(self._joined, outcome.run, Purpose.VALIDATE, self._encoder)
        self._alone: dict[str, Evaluation] = {}

    def usual_opacus(self, pool: Executor) -> Future[Model]:
        """Begin to train the usual Opacus + FedAvg settings on the same rows, in a process of `pool`."""
        privacy = self._outcome.plan.privacy
        return pool.submit(
            train_usual,
            list(self._training.parts),
            self._schema,
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            seed=self._outcome.plan.seed,
        )

    def with_usual_opacus(self, result: DemoResult, model: Model) -> DemoResult:
        """The result with that model among the five."""
        return replace(result, evaluations=replace(result.evaluations, opacus_fedavg=self._evaluated(model)))

    def tell(self) -> DemoResult:
        """Everything that can be said now; what comes later (withdrawal, replay, the slow baseline) is unknown."""
        outcome, schema, privacy = self._outcome, self._schema, self._outcome.plan.privacy
        scores = self._held_out.of_each([self._card.score(table) for table in self._held_out.tables])
        evaluations = self._evaluations(evaluate(scores, self._held_out.bad, self._card))
        return DemoResult(
            title="A credit scorecard from data that nobody pooled",
            data=DataSource(
                schema.source.title, f"{schema.source.attribution}. {schema.source.origin}", schema.source.licence
            ),
            rows=len(self._federation.data.lines),
            holders=self._holders(),
            rounds=self._recipe.rounds,
            recipe=RECIPE_TITLES[self._recipe.name],
            privacy=PrivacyStatement(
                epsilon=privacy.epsilon,
                delta=privacy.delta,
                excludes=self._excludes(),
                trust_model=told(outcome.plan.trust, adds_noise=self._adds_noise),
                reason=outcome.plan.reason,
                accountant=self._recipe.accountant,
                second_epsilon=self._second_epsilon(),
            ),
            not_private=outcome.plan.seed is not None,
            consent=self._consent(),
            evaluations=evaluations,
            released=Evaluation.of(self._released, self._card.probability_of_bad(self._released.midpoints)),
            scorecard=_table(self._card),
            applicants=self._applicants(scores),
            epsilon_spent=self._epsilon_spent(),
            withdrawal=None,
            fairness=fairness(scores, self._held_out, schema, self._card, CUT_OFF),
            seconds=0.0,
            versions={"python": python_version()} | {package: version(package) for package in PACKAGES},
            digests={"plan": outcome.plan_digest, "schema": schema.digest, "run": outcome.run},
        )

    def _second_epsilon(self) -> float:
        """What somebody else's accountant says that the training costs, at the data holder where it is dearest."""
        recipe, delta = self._recipe, self._outcome.plan.privacy.delta
        runs = {
            tuple(recipe.spend(number, len(part)) for number in range(1, recipe.rounds + 1))
            for part in self._training.parts
        }
        return max(total_epsilon_pld(run, delta) for run in runs)

    def _evaluations(self, private: Evaluation) -> Evaluations:
        parts = list(self._training.parts)
        self._progress("baselines", 0, 2)
        pooled = self._evaluated(baselines.pooled(self._training.x, self._training.bad, self._schema.digest))
        federated = baselines.without_noise(parts, self._schema, delta=self._outcome.plan.privacy.delta, steps=STEPS)
        self._progress("baselines", 1, 2)
        alone = []
        for holder, part in zip(self._joined, parts, strict=True):
            model = baselines.alone(part, self._schema.digest)
            if model is not None:
                self._alone[holder.name] = self._evaluated(model)
                alone.append((float(len(part)), self._alone[holder.name]))
        self._progress("baselines", 2, 2)
        return Evaluations(
            pooled=pooled,
            federated=self._evaluated(federated),
            federated_private=private,
            local_only=average(alone),
            opacus_fedavg=None,
        )

    def _holders(self) -> tuple[HolderResult, ...]:
        """Every data holder of the federation, those that sat the run out included."""
        joined = dict(zip(self._outcome.holders, self._training.parts, strict=True))
        found = []
        for name in self._federation.population.holders:
            part, alone = joined.get(name), self._alone.get(name)
            found.append(
                HolderResult(
                    name=name,
                    rows=len(self._federation.population.at(name)),
                    people_permitted=0 if part is None else len(part),
                    auc_alone=None if alone is None else alone.metrics.auc,
                    bad_rate=None if part is None else float(part.bad.mean()),
                )
            )
        return tuple(found)

    def _consent(self) -> ConsentResult:
        """What consent did to the rows of both samples."""
        population = self._federation.population
        permitted = [
            holder.permitted(holder.run_named(self._outcome.run), purpose)
            for purpose in (Purpose.TRAIN, Purpose.VALIDATE)
            for holder in self._joined
        ]
        used = {subject for rows in permitted for subject in rows.table.subjects}
        away = sum(len(population.at(name)) for name in population.holders if name not in self._outcome.holders)
        return ConsentResult(
            subjects=len(population.attitudes),
            people_refused=len(population.attitudes) - len(used),
            rows_held=len(population.memberships),
            rows_permitted=sum(len(rows.handles) for rows in permitted),
            rows_used_without_consent=None,
            refusals=refusals_of(permitted) | ({"cohort": away} if away else {}),
        )

    def _excludes(self) -> tuple[str, ...]:
        """What epsilon and delta do not cover, as whole sentences."""
        return (
            *exclusions(self._outcome.plan, self._recipe, holders=len(self._outcome.holders)),
            "the embedded schemas: their characteristics were chosen on the published rows, held-out people included",
            "the baselines and the exact figures beside the released ones: only public data allow them",
        )

    def _applicants(self, scores: Scores) -> tuple[ApplicantScore, ...]:
        """Held-out people at four quantiles of the score, asked for through their wallets."""
        subjects = [
            subject
            for table, once in zip(self._held_out.tables, self._held_out.once, strict=True)
            for subject, first in zip(table.subjects, once, strict=True)
            if first
        ]
        order = np.argsort(scores, kind="stable")
        chosen = [subjects[order[int(quantile * (len(order) - 1))]] for quantile in APPLICANT_QUANTILES]
        people = {self._federation.customer(person): person for person in range(len(self._federation.data.lines))}
        reports = score_people(
            self._federation,
            self._session,
            [people[subject] for subject in chosen],
            self._card,
            random=random_bytes(self._outcome.plan.seed, "applicants"),
        )
        return tuple(
            shown(f"Applicant {letter}", report, CUT_OFF)
            for letter, report in zip("ABCD", reports, strict=True)
            if report is not None
        )

    def _epsilon_spent(self) -> tuple[EpsilonSpent, ...]:
        """What the ledgers have charged each person, over all data holders."""
        population, delta = self._federation.population, self._outcome.plan.privacy.delta
        held = Counter(place.person for place in population.memberships)
        costs: dict[int, list[float]] = {person: [] for person in held}
        for holder in self._session.holders.values():
            theirs = population.at(holder.name)
            for several in {held[place.person] for place in theirs}:
                some = [place for place in theirs if held[place.person] == several]
                handles = [self._federation.handles[place] for place in some]
                spent = holder.ledger.spent_mu_squared(handles, delta=delta / several)
                for place, mu_squared in zip(some, spent.tolist(), strict=True):
                    costs[place.person].append(math.sqrt(mu_squared))
        together = cache(self._together)  # few budgets, many people
        people = Counter((held[person], round(together(*mus), 9)) for person, mus in costs.items())
        return tuple(EpsilonSpent(places, epsilon, count) for (places, epsilon), count in sorted(people.items()))

    def _together(self, *mus: float) -> float:
        """Epsilon of what one person has spent at several data holders, an upper bound.

        In one sum under one noise, parts of one person add up; under separate noises their squares do. Sampled spends
        have a mu at one delta only, so their epsilons add up, each at its part of delta.
        """
        delta = self._outcome.plan.privacy.delta
        if not self._adds_noise:
            return sum(epsilon_of(mu, delta / len(mus)) for mu in mus)
        own = self._outcome.plan.trust is TrustModel.HOLDER_NOISE
        total = math.hypot(*mus) if own else math.fsum(mus)
        return epsilon_of(total, delta)

    def _evaluated(self, model: Model) -> Evaluation:
        return evaluate(scores_of(model, self._held_out.x, self._card.scale), self._held_out.bad, self._card)


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
        card.base_points,
        lines,
    )
