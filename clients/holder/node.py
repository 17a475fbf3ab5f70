"""The data holder's node: answers the coordinator's letters over its own directory of settings, rows and keys."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.holder.coverage import HeadCount
from clients.holder.freshness import Freshness
from clients.holder.gate import PermittedRows
from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from clients.holder.lane_sync import LaneSource
from clients.holder.ledger import PrivacyLedger
from clients.holder.ledger_chain import LedgerHead
from clients.holder.permits import Permits
from clients.holder.policy import require_hours, require_purpose
from clients.holder.release import Releaser, Task
from clients.holder.replay import Replay
from clients.holder.run import Run, check_sums, decode_opening, encode_opening, run_of
from clients.holder.scoring import ScoringDesk
from clients.holder.settings import load_settings
from clients.holder.sums import Sums
from clients.holder.terms import check_terms
from clients.registry_client import RegistryClient
from federated.encoder import Encoder
from federated.messages import (
    Coverage,
    Delivery,
    Enquiry,
    Instruction,
    Introduction,
    Joined,
    LedgerMark,
    Letter,
    Measurement,
    Opening,
    Refused,
    ScoreAnswers,
    ScoreRequests,
    Unmasking,
)
from federated.releases import (
    BASE_RATE_SCALE,
    measurement_edges,
    measurement_spend,
    measurement_stage,
    measurement_weight,
    scale_of,
)
from federated.rows import EncodedRows
from federated.schema_toml import load_schema
from federated.scorecard import Scorecard
from privacy.consent.record import Purpose
from privacy.discrete import ROWS_PER_BLOCK
from privacy.errors import FedcreditError, RefusalCode, RefusalError, TamperingError
from privacy.noise import NoiseSource, Vector

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
        self._permits = Permits(directory, self._settings, self._schema, self.lane, self.ledger)
        self._sums = Sums(self.name, self._keys, self.ledger, self._remember)
        self._releaser = Releaser(self.name, self._keys, self.ledger, self._sums, self._remember)
        self._head_count = HeadCount(self.name, self._keys, self.ledger, self._permits, self._remember)

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
                case Enquiry() as enquiry:
                    return Letter(self._tell(enquiry, at=at))
                case Introduction() as introduction:
                    return Letter(self._sums.deal(self._due(introduction.run, at=at), introduction))
                case Delivery() as delivery:
                    return Letter(self._sums.receive(self._due(delivery.run, at=at), delivery))
                case Instruction() as instruction:
                    return self._train(self._due(instruction.run, at=at), instruction, letter, at=at)
                case Measurement() as measurement:
                    return self._measure(self._due(measurement.run, at=at), measurement, letter, at=at)
                case Unmasking() as unmasking:
                    run = self._due(unmasking.run, at=at)
                    cohort = self._releaser.cohort_of(run, unmasking.stage)
                    return Letter(self._sums.reveal(run, unmasking, cohort))
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
        """Take part, if ledger, plan, policy, lane and consents allow it; RefusalError says what does not.

        TamperingError, before anything else, if the ledger is older than what the coordinator has seen of it.
        """
        run = self._agreed(opening, at=at)
        if self.lane.kept_run(run.name) is None:
            self.lane.keep_run(run.name, encode_opening(opening))
        head = self.ledger.head
        return self._sums.joined(run, LedgerMark(head.size, head.digest))

    def _tell(self, enquiry: Enquiry, *, at: int) -> Coverage:
        """Everything that joining asks is asked, and nothing of the run is kept: it was not joined."""
        opening = Opening(enquiry.plan, enquiry.plan_signature, enquiry.checkpoints, enquiry.ledgers)
        run = self._agreed(opening, at=at)
        return self._head_count.tell(run, renew=partial(self._freshness.renew, at=at, must=True))

    def _agreed(self, opening: Opening, *, at: int) -> Run:
        """The run that `opening` proposes, once it was held against all that could stand against taking part."""
        if (mark := opening.ledgers.get(self.name)) is not None:
            self.ledger.require_extends(LedgerHead(mark.size, mark.digest))
        run = run_of(opening, self._settings, encoder=self._encoder)
        self._check_terms(run, at=at)
        check_sums(run)
        self._enter_opening(run, at=at)
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
        return run

    def permitted(self, run: Run, purpose: Purpose) -> PermittedRows:
        """The rows that the gate permits in `run`; see `clients.holder.permits`."""
        return self._permits.rows(run, purpose)

    def run_named(self, name: str) -> Run:
        """A run that this data holder has joined; RefusalError for any other."""
        return run_of(self._opening(name), self._settings, encoder=self._encoder)

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

    def _enter_opening(self, run: Run, *, at: int) -> None:
        """Before a look at anybody's decision: whether enough people are permitted is an answer that costs nobody."""
        most = self._settings.policy.most_openings_per_day
        if not self.lane.enter_opening(run.name, at=at, most=most):
            raise RefusalError(
                f"{most} runs were opened here in the last 24 hours, and policy.most_openings_per_day allows no more. "
                "The coordinator should wait, or repeat a run that was opened.",
                RefusalCode.POLICY,
            )

    def _due(self, name: str, *, at: int) -> Run:
        """A run that was joined and may go on now. Asked at every step: policy and plan have their ends."""
        run = self.run_named(name)
        self._check_terms(run, at=at)
        return run

    def _rows_now(self, run: Run, purpose: Purpose, *, at: int, anew: bool) -> PermittedRows:
        self._freshness.renew(at=at, must=anew)
        return self.permitted(run, purpose)

    def _train(self, run: Run, instruction: Instruction, letter: Letter, *, at: int) -> Letter:
        number, recipe = instruction.round_number, run.recipe
        if not 1 <= number <= recipe.rounds:
            raise RefusalError(f"The recipe has rounds 1 to {recipe.rounds}.", RefusalCode.PLAN)

        weights = run.shape(number).weights

        def compute(rows: PermittedRows, chance: NoiseSource) -> Vector:
            encoded = EncodedRows(self._encoder.encode(rows.table), rows.outcome, weights(rows.shares))
            return recipe.contribution(number, letter.arrays, encoded, chance=chance)

        task = Task(
            stage=number,
            cohort=instruction.cohort,
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
        edges, stage = measurement_edges(run.plan), measurement_stage(run.recipe)
        part = run.shape(stage).weights

        def compute(rows: PermittedRows, chance: NoiseSource) -> Vector:
            del chance  # the noise is added to the sum
            scores, weights = scorecard.score(rows.table), measurement_weight(part(rows.shares))
            # The edges are the lowest scores of the bands, and no score is beyond the last.
            bands = np.searchsorted(edges, scores, side="right") - 1
            counts = [_counts(bands, weights * outcome, len(edges) - 1) for outcome in (1 - rows.outcome, rows.outcome)]
            everybody = BASE_RATE_SCALE * np.array([len(rows.handles), rows.outcome.sum()], dtype=np.float64)
            return np.concatenate([*counts, everybody])

        task = Task(
            stage=stage,
            cohort=measurement.cohort,
            rows=partial(self._rows_now, run, Purpose.VALIDATE, at=at, anew=False),
            rows_anew=partial(self._rows_now, run, Purpose.VALIDATE, at=at, anew=True),
            spend=lambda _: measurement_spend(run.plan),
            compute=compute,
        )
        return self._releaser.release(run, letter, task)

    def _score(self, requests: ScoreRequests, *, at: int) -> ScoreAnswers:
        require_hours(self._settings.policy, at=at)
        require_purpose(self._settings.policy, Purpose.SCORE)
        self._freshness.renew(at=at)
        desk = ScoringDesk(self._directory, self._settings, self._encoder, self.lane, self._keys.lane_keys)
        return ScoreAnswers(self.name, desk.answer(Scorecard.from_json(requests.scorecard), requests.sealed, at=at))


def _counts(bands: NDArray[np.int64], weights: Vector, most: int) -> Vector:
    """The sum of `weights` in each of `most` bands, added up in the blocks that `Shape.slack` is for."""
    total = np.zeros(most)
    for start in range(0, len(bands), ROWS_PER_BLOCK):
        block = slice(start, start + ROWS_PER_BLOCK)
        total += np.bincount(bands[block], weights=weights[block], minlength=most)
    return total
