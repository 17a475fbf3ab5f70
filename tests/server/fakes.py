"""Data holders in a few lines, with real keys, masks and signatures, and a recipe that only adds."""

# ruff: noqa: ARG002 (a recipe that only adds needs few of the arguments that recipes are given)

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np

from federated.messages import (
    Dealt,
    Delivery,
    Header,
    Instruction,
    Introduction,
    Joined,
    LedgerMark,
    Letter,
    Measurement,
    Opening,
    Received,
    Refused,
    Revealed,
    SumKeys,
    Unmasking,
    Update,
)
from federated.model import LinearModel
from federated.plan import PrivacyTerms, RosterEntry, SignedPlan, TrainingPlan, run_id
from federated.recipes.base import Arrays, RecipeName, round_of
from federated.releases import (
    dealing_statement,
    joined_statement,
    release_name,
    reveal_statement,
    sum_keys_statement,
    update_statement,
)
from federated.rows import EncodedRows
from federated.trust import Aggregation, TrustModel
from privacy.accounting import GaussianSpend
from privacy.consent.signing import PayloadType, SigningKey
from privacy.discrete import discrete_gaussian
from privacy.errors import FedcreditError, RefusalCode, RefusalError
from privacy.grid import Words, add_words
from privacy.noise import NoiseSource, SeededNoise, Vector
from privacy.secure_sum.keys import PublicKeys
from privacy.secure_sum.member import Member
from privacy.secure_sum.secrets import Secrets
from server.stage import Stage

ROUNDS = 3
LENGTH = 4
BANDS = 3
LAST = ROUNDS + 1
PEOPLE = 1000


@dataclass
class AddingRecipe:
    """Three rounds of plain sums of `LENGTH` numbers; it notes what it was given."""

    seen: list[tuple[Vector, int]] = field(default_factory=list)
    name: RecipeName = RecipeName.GRADIENT_DESCENT
    rounds: int = ROUNDS
    is_private: bool = True
    accountant: str = "exact Gaussian DP"

    def start(self) -> Arrays:
        return {"round": np.ones(1)}

    def instruction(self, state: Arrays) -> Arrays:
        return {"round": state["round"]}

    def length(self, round_number: int) -> int:
        return LENGTH

    def reach(self, round_number: int, *, people: int, holders: int) -> float:
        return float(people)

    def sensitivity(self, round_number: int) -> float:
        return 1.0

    def mu(self, round_number: int) -> float:
        return 0.5

    def spend(self, round_number: int, rows: int) -> GaussianSpend:
        return GaussianSpend(0.5)

    def contribution(self, round_number: int, instruction: Arrays, rows: EncodedRows, *, chance: NoiseSource) -> Vector:
        return np.zeros(LENGTH)

    def advance(self, state: Arrays, total: Vector, *, contributors: int) -> Arrays:
        self.seen.append((total, contributors))
        return {"round": state["round"] + 1}

    def model(self, state: Arrays) -> LinearModel:
        assert round_of(state) == ROUNDS + 1
        return LinearModel("0" * 64, np.zeros(1), np.ones(1), 0.0, None)

    def excludes(self) -> tuple[str, ...]:
        return ()


def identity_of(name: str) -> SigningKey:
    return SigningKey.from_seed(hashlib.sha256(name.encode()).digest())


def names(count: int) -> tuple[str, ...]:
    return tuple(f"holder-{number}" for number in range(count))


def plan_of(
    holders: int,
    *,
    trust: TrustModel = TrustModel.SHARED_NOISE,
    aggregation: Aggregation = Aggregation.SUM,
    dropouts: int = 1,
    minimum: int | None = None,
    seed: int | None = None,
) -> TrainingPlan:
    return TrainingPlan(
        version=1,
        name="fake",
        coordinator="coordinator",
        schema_digest="0" * 64,
        recipe={},
        reason="It adds.",
        trust=trust,
        aggregation=aggregation,
        dropouts_tolerated=dropouts,
        privacy=PrivacyTerms(epsilon=4.0, delta=1e-5, measurement_epsilon=4.0, releases_per_window=1),
        roster=[RosterEntry(name, identity_of(name).public) for name in names(holders)],
        minimum_holders=3 * dropouts + 1 if minimum is None else minimum,
        minimum_people=1,
        most_people=PEOPLE,
        not_before=0,
        ends=1,
        point_scale={
            "base_score": 600.0,
            "base_good_bad_odds": 4.0,
            "points_to_double_odds": 50.0,
            "minimum": 300.0,
            "maximum": 850.0,
        },
        measurement_bands=BANDS,
        seed=seed,
    )


class FakeHolder:
    """One data holder: every answer is lawful, made once and repeated after that."""

    def __init__(self, name: str, plan: TrainingPlan, stages: tuple[Stage, ...], *, signed: SignedPlan) -> None:
        self.name, self.plan, self.stages, self._signed = name, plan, stages, signed
        self.identity = identity_of(name)
        self.secret = hashlib.sha256(b"secret" + name.encode()).digest()
        self.ledger = 0
        self.values = {stage.number: self._values(stage) for stage in stages}
        self.words: dict[int, Words] = {}  # what it released, without masks
        self.asked: list[Header] = []
        self._kept: dict[object, tuple[Header, Letter]] = {}
        self._secrets: Secrets | None = None
        self._joined: dict[str, PublicKeys] = {}
        self._threshold = 0
        self._member: Member | None = None
        self._cohorts: dict[int, list[str]] = {}
        self.run = ""

    def _values(self, stage: Stage) -> Vector:
        chance = SeededNoise(stage.number, self.name)
        return np.abs(chance.gaussian(stage.shape.length, 5.0))

    def answer(self, letter: Letter) -> Letter:
        self.asked.append(letter.header)
        try:
            match letter.header:
                case Opening() as opening:
                    return self._join(opening)
                case Introduction() as introduction:
                    return self._once("introduction", letter, lambda: self._deal(introduction))
                case Delivery() as delivery if faulty := self._faulty(delivery):
                    return Letter(Received(self.name, self.run, faulty))
                case Delivery() as delivery:
                    return self._once("delivery", letter, lambda: self._receive(delivery))
                case Instruction(round_number=number, cohort=cohort):
                    return self._once(number, letter, lambda: self._release(number, cohort))
                case Measurement(cohort=cohort):
                    return self._once(LAST, letter, lambda: self._release(LAST, cohort))
                case Unmasking(stage=stage, survivors=survivors):
                    return self._once(("unmasking", stage), letter, lambda: self._reveal(stage, survivors))
                case header:
                    raise AssertionError(header)
        except FedcreditError as error:
            return Letter(Refused(self.name, error.code if isinstance(error, RefusalError) else RefusalCode.INTEGRITY))

    def _once(self, what: object, letter: Letter, make: Callable[[], Letter]) -> Letter:
        if what not in self._kept:
            self._kept[what] = letter.header, make()
        header, answer = self._kept[what]
        if header != letter.header:
            raise RefusalError("another question under one name", RefusalCode.REPLAY)
        return answer

    @property
    def mark(self) -> LedgerMark:
        return LedgerMark(self.ledger, hashlib.sha256(f"{self.name}/{self.ledger}".encode()).digest())

    def _join(self, opening: Opening) -> Letter:
        last = opening.ledgers.get(self.name)
        if last is not None and last.size > self.ledger:
            raise RefusalError("rolled back", RefusalCode.INTEGRITY)
        self.run = run_id(self._signed, opening.checkpoints)
        keys = None
        if self.plan.trust.is_masked:
            self._secrets = Secrets(self.secret, run=self.run, holder=self.name, stages=LAST)
            public = self._secrets.public
            statement = sum_keys_statement(self.run, self.name, public.channel, public.stages, public.seeds)
            signature = self.identity.sign(PayloadType.SUM_KEYS, statement)
            keys = SumKeys(public.channel, list(public.stages), list(public.seeds), signature)
        return Letter(self.signed_joined(Joined(self.name, self.run, keys, self.mark, b"")))

    def signed_joined(self, joined: Joined) -> Joined:
        signature = self.identity.sign(PayloadType.JOINED, joined_statement(joined))
        return msgspec.structs.replace(joined, signature=signature)

    def _deal(self, introduction: Introduction) -> Letter:
        assert self._secrets is not None
        self._joined = {
            name: PublicKeys(keys.channel, tuple(keys.stages), tuple(keys.seeds))
            for name, keys in introduction.joined.items()
        }
        self._threshold = len(self._joined) - self.plan.dropouts_tolerated
        sealed = self._secrets.deal(self._joined, threshold=self._threshold)
        signature = self.identity.sign(PayloadType.DEALING, dealing_statement(self.run, self.name, sealed))
        return Letter(Dealt(self.name, self.run, sealed, signature))

    def _receive(self, delivery: Delivery) -> Letter:
        assert self._secrets is not None
        self._member = self._secrets.member(self._joined, delivery.members, delivery.sealed, threshold=self._threshold)
        return Letter(Received(self.name, self.run, []))

    def _faulty(self, delivery: Delivery) -> list[str]:
        assert self._secrets is not None
        return self._secrets.faulty(self._joined, delivery.sealed, threshold=self._threshold)

    def _release(self, number: int, cohort: list[str]) -> Letter:
        shape = self.stages[number - 1].shape
        members = len(self._joined) if self.plan.trust.is_masked else len(cohort)
        variance = shape.holder_variance(
            self.plan.trust, members=members, dropouts_tolerated=self.plan.dropouts_tolerated
        )
        chance = SeededNoise(99, f"{self.name}/{number}")
        noise = shape.grid.from_steps(discrete_gaussian(shape.length, variance, chance))
        words = self.words[number] = add_words([shape.grid.encode(self.values[number]), noise])
        if self.plan.trust.is_masked:
            if self._member is None:
                raise RefusalError("no shares yet", RefusalCode.PLAN)
            words = words + self._member.mask(number, cohort, shape.length)
        self._cohorts[number] = cohort
        self.ledger += 1
        return self.signed_update(number, words)

    def signed_update(self, number: int, words: Words, *, mark: LedgerMark | None = None) -> Letter:
        name, commitment, ledger = release_name(self.run, number), bytes(32), mark or self.mark
        signature = self.identity.sign(PayloadType.UPDATE, update_statement(name, commitment, words, ledger))
        return Letter(Update(self.name, name, commitment, signature, ledger), {"words": words})

    def _reveal(self, stage: int, survivors: list[str]) -> Letter:
        assert self._member is not None
        reveal = self._member.reveal(stage, self._cohorts[stage], survivors)
        return self.signed_reveal(stage, dict(reveal.seeds), dict(reveal.keys))

    def signed_reveal(self, stage: int, seeds: dict[str, bytes], keys: dict[str, bytes]) -> Letter:
        name = release_name(self.run, stage)
        signature = self.identity.sign(PayloadType.REVEAL, reveal_statement(name, self.name, seeds, keys))
        return Letter(Revealed(self.name, name, seeds, keys, signature))
