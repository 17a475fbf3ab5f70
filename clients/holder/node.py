"""The data holder's node: answers the coordinator's letters over its own directory of settings, rows and keys."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.holder.freshness import Freshness
from clients.holder.gate import Decisions, PermittedRows, Question, decide_all, permitted_rows
from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from clients.holder.lane_sync import LaneSource
from clients.holder.ledger import PrivacyLedger
from clients.holder.ledger_chain import LedgerHead
from clients.holder.release import Releaser, Task
from clients.holder.replay import Replay
from clients.holder.run import Run, check_terms, decode_opening, encode_opening, run_of
from clients.holder.scoring import ScoringDesk
from clients.holder.settings import load_settings
from clients.registry_client import RegistryClient
from federated.encoder import Encoder
from federated.messages import (
    Instruction,
    Joined,
    Letter,
    MaskKey,
    Measurement,
    Opening,
    Refused,
    ScoreAnswers,
    ScoreRequests,
)
from federated.releases import (
    grid_for_measurement,
    grid_for_round,
    mask_key_statement,
    measurement_edges,
    measurement_noise,
    measurement_spend,
    measurement_stage,
    scale_of,
)
from federated.rows import EncodedRows
from federated.schema_toml import load_schema
from federated.scorecard import Scorecard
from privacy.consent.gate import GatePolicy
from privacy.consent.record import Purpose
from privacy.consent.signing import PayloadType
from privacy.errors import FedcreditError, RefusalCode, RefusalError, TamperingError
from privacy.noise import NoiseSource

_LOG = logging.getLogger(__name__)


class Holder:
    """One data holder. Everything it keeps is opened and verified when it starts."""

    def __init__(self, directory: Path, source: LaneSource | None = None) -> None:
        """MalformedError or TamperingError if settings, schema, keys, lane copy or ledger do not hold.

        `source` is where the lane is downloaded from; None is the registry that the settings name.
        """
        self._directory = directory
        self._settings = load_settings(directory / "holder.toml")
        self._trust = self._settings.registry.trust(directory)
        self._schema = load_schema(directory / self._settings.schema)
        self._encoder = Encoder(self._schema)
        self._keys = HolderKeys.load(directory / "keys")
        self._given = source
        self._client: RegistryClient | None = None
        self.lane = LaneCopy(directory / "consent.db", self._settings, self._keys)
        try:
            self.ledger = PrivacyLedger.open(directory / "ledger.db", last_known=self.lane.ledger_head())
        except BaseException:
            self.lane.close()
            raise
        self._freshness = Freshness(self.lane, self._settings, lambda: self.source)
        self._releaser = Releaser(self.name, self._keys, self.ledger, self._remember)
        self._permitted: dict[tuple[str, Purpose], tuple[Decisions, PermittedRows]] = {}

    @property
    def name(self) -> str:
        """This data holder's id."""
        return self._settings.holder

    @property
    def source(self) -> LaneSource:
        """Where the lane is downloaded from: what was given, or the registry that the settings name."""
        if self._given is not None:
            return self._given
        if self._client is None:
            self._client = RegistryClient(self._settings.registry.url, ca=self._trust)
        return self._client

    def close(self) -> None:
        """Give the databases and the connection to the registry back."""
        self.lane.close()
        self.ledger.close()
        if self._client is not None:
            self._client.close()

    def answer(self, letter: Letter, *, at: int) -> Letter:
        """The answer to any letter; a failure becomes a code, and its text stays in this data holder's own log."""
        try:
            match letter.header:
                case Opening() as opening:
                    return Letter(self.join(opening, at=at))
                case Instruction() as instruction:
                    return self._train(self.run_named(instruction.run), instruction, letter, at=at)
                case Measurement() as measurement:
                    return self._measure(self.run_named(measurement.run), measurement, letter, at=at)
                case ScoreRequests() as requests:
                    return Letter(self._score(requests, at=at))
                case header:
                    raise RefusalError(f"{type(header).__name__} is not for a data holder.", RefusalCode.PLAN)
        except RefusalError as error:
            _LOG.warning("%s refuses (%s): %s", self.name, error.code.value, error)
            return Letter(Refused(self.name, error.code))
        except FedcreditError as error:
            _LOG.error("%s: %s: %s", self.name, type(error).__name__, error)
            tampered = isinstance(error, TamperingError)
            return Letter(Refused(self.name, RefusalCode.INTEGRITY if tampered else RefusalCode.INTERNAL))
        except Exception as error:  # the rim: whatever went wrong, a code leaves and nothing else
            # A text that we did not write may quote a row, so not even our own log gets it.
            _LOG.error("%s: %s in its own code; nothing was sent", self.name, type(error).__name__)
            return Letter(Refused(self.name, RefusalCode.INTERNAL))

    def join(self, opening: Opening, *, at: int) -> Joined:
        """Take part, if plan, policy, lane and consents allow it; RefusalError says what does not."""
        run = run_of(opening, self._settings, width=self._encoder.width)
        self._check_terms(run, at=at)
        self._freshness.renew(at=at)
        # A head that is newer than the last sync may be told of by the next; an older one counts if ours extends it.
        if run.pinned.size > self.lane.head.size:
            self._freshness.renew(at=at, must=True)
        if run.pinned.size > self.lane.head.size:
            raise RefusalError(
                "The run is pinned to a longer lane than the registry serves this data holder. The data holder should "
                "sync again, or the coordinator pin the newest checkpoint.",
                RefusalCode.LANE,
            )
        # Both samples, before anything is charged: a holder that cannot measure would end the run for all at its end.
        for purpose in (Purpose.TRAIN, Purpose.VALIDATE):
            self.permitted(run, purpose)
        if self.lane.kept_run(run.name) is None:
            self.lane.keep_run(run.name, encode_opening(opening))
        public = self._keys.mask_key(run.name).public
        signature = self._keys.identity.sign(PayloadType.MASK_KEY, mask_key_statement(run.name, public))
        return Joined(self.name, run.name, MaskKey(public, signature))

    def permitted(self, run: Run, purpose: Purpose) -> PermittedRows:
        """The rows that the gate permits in `run`: by its pinned prefix, less who has withdrawn since."""
        key, measuring = (run.name, purpose), purpose is Purpose.VALIDATE
        links, plan = self.lane.links(), run.plan
        spent = self.ledger.spent_outside(run.name, list(links.values()), delta=plan.privacy.delta)
        question = Question(
            views=(
                partial(self.lane.projection, run.pinned),
                self.lane.projection,
                partial(self.lane.projection, direct=True),
            ),
            links=links,
            plan=plan,
            purpose=purpose,
            categories=self._schema.categories,
            policy=GatePolicy(clock_skew_s=self._settings.policy.clock_skew_s),
            spent=dict(zip(links.values(), spent.tolist(), strict=True)),
        )
        decisions = decide_all(question)
        # The rows are read again whenever anybody's decision has changed, for whatever reason.
        if key not in self._permitted or not self._permitted[key][0].same_as(decisions):
            rows = permitted_rows(
                self._directory / (self._settings.held_out if measuring else self._settings.rows),
                self._schema,
                decisions,
                fewest=self._settings.policy.fewest_people,
            )
            self._permitted[key] = decisions, rows
        return self._permitted[key][1]

    def run_named(self, name: str) -> Run:
        """A run that this data holder has joined; RefusalError for any other."""
        return run_of(self._opening(name), self._settings, width=self._encoder.width)

    def rows_used_without_consent(self, run: str, commitments: Mapping[str, bytes]) -> int:
        """What a replay of this run from the log says; see `clients.holder.replay`."""
        replay = Replay(
            run=self.run_named(run),
            settings=self._settings,
            categories=self._schema.categories,
            keys=self._keys,
            lane=self.lane,
            ledger=self.ledger,
            source=lambda: self.source,
        )
        return replay.rows_used_without_consent(commitments)

    def _opening(self, run: str) -> Opening:
        kept = self.lane.kept_run(run)
        if kept is None:
            raise RefusalError("This run was never opened here; the coordinator should open it.", RefusalCode.PLAN)
        return decode_opening(kept)

    def _remember(self, head: LedgerHead) -> None:
        if self.lane.ledger_head() != head:  # a repeated answer leaves every file as it was
            self.lane.keep_ledger_head(head)

    def _check_terms(self, run: Run, *, at: int) -> None:
        check_terms(run, self._settings, self._schema, identity=self._keys.identity.public, at=at)

    def _rows_now(self, run: Run, purpose: Purpose, *, at: int, anew: bool) -> PermittedRows:
        # Asked for every release, a repeated one too: consents cover the plan's interval and no more.
        self._check_terms(run, at=at)
        self._freshness.renew(at=at, must=anew)
        return self.permitted(run, purpose)

    def _train(self, run: Run, instruction: Instruction, letter: Letter, *, at: int) -> Letter:
        number, recipe = instruction.round_number, run.recipe
        if not 1 <= number <= recipe.rounds:
            raise RefusalError(f"The recipe has rounds 1 to {recipe.rounds}.", RefusalCode.PLAN)

        def compute(rows: PermittedRows, chance: NoiseSource) -> NDArray[np.float64]:
            encoded = EncodedRows(self._encoder.encode(rows.table), rows.outcome, rows.shares)
            share = 1 / len(instruction.cohort)
            return recipe.contribution(number, letter.arrays, encoded, chance=chance, noise_share=share)

        task = Task(
            stage=number,
            cohort=instruction.cohort,
            grid=grid_for_round(recipe, number, run.plan),
            rows=partial(self._rows_now, run, Purpose.TRAIN, at=at, anew=False),
            rows_anew=partial(self._rows_now, run, Purpose.TRAIN, at=at, anew=True),
            spend=lambda people: recipe.spend(number, people),
            compute=compute,
        )
        return self._releaser.release(run, letter, task)

    def _measure(self, run: Run, measurement: Measurement, letter: Letter, *, at: int) -> Letter:
        scorecard = Scorecard.from_json(measurement.scorecard)
        scorecard.require_match(self._encoder)
        if scorecard.scale != scale_of(run.plan):
            raise RefusalError("The scorecard to measure is not on the plan's point scale.", RefusalCode.PLAN)
        edges, holders = measurement_edges(run.plan), len(measurement.cohort)

        def compute(rows: PermittedRows, chance: NoiseSource) -> NDArray[np.float64]:
            scores = scorecard.score(rows.table)
            counts = [
                np.histogram(scores, edges, weights=rows.shares * outcome)[0]
                for outcome in (1 - rows.outcome, rows.outcome)
            ]
            exact = np.concatenate(counts)
            return exact + chance.gaussian(len(exact), measurement_noise(run.plan) / np.sqrt(holders))

        task = Task(
            stage=measurement_stage(run.recipe),
            cohort=measurement.cohort,
            grid=grid_for_measurement(run.plan),
            rows=partial(self._rows_now, run, Purpose.VALIDATE, at=at, anew=False),
            rows_anew=partial(self._rows_now, run, Purpose.VALIDATE, at=at, anew=True),
            spend=lambda _: measurement_spend(run.plan),
            compute=compute,
        )
        return self._releaser.release(run, letter, task)

    def _score(self, requests: ScoreRequests, *, at: int) -> ScoreAnswers:
        self._freshness.renew(at=at)
        desk = ScoringDesk(self._directory, self._settings, self._encoder, self.lane, self._keys.lane_keys)
        return ScoreAnswers(self.name, desk.answer(Scorecard.from_json(requests.scorecard), requests.sealed, at=at))
