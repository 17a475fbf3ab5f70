"""What leaves a data holder under each trust model: whose noise is in it, and whether it is masked."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest

from clients.holder import release
from clients.holder.node import _counts
from experiments.session import Session
from federated.messages import (
    Delivery,
    Instruction,
    Introduction,
    Joined,
    Letter,
    Measurement,
    Opening,
    Unmasking,
    Update,
)
from federated.plan import sign_plan
from federated.releases import measurement_edges
from federated.trust import TrustModel
from privacy.accounting import epsilon_of
from privacy.consent.record import Purpose
from privacy.discrete import ROWS_PER_BLOCK
from privacy.grid import Words
from privacy.noise import NoiseSource
from server.coordinator import Coordinator
from tests.clients.holder.plain import plain_words
from tests.clients.holder.sum_scene import refused_with
from tests.clients.holder.test_scoring import some_card
from tests.ready import ASTER, AT, BIRCH, HOLDERS, Ready, code_of, first_instruction, joined_by


@dataclass
class Scene:
    """A run under one trust model; everybody has joined."""

    ready: Ready
    session: Session
    letter: Letter
    joined: dict[str, Joined]

    def words(self, name: str = ASTER) -> Words:
        return np.asarray(self.session.holders[name].answer(self.letter, at=AT).arrays["words"])


def opening_under(ready: Ready, trust: TrustModel) -> Opening:
    coordinator = Coordinator(ready.federation.coordinator_directory)
    signed = sign_plan(msgspec.structs.replace(coordinator.plan, trust=trust), coordinator.key)
    return Opening(signed.payload, signed.signature, coordinator.checkpoints, {})


def begun(ready: Ready, trust: TrustModel) -> Iterator[Scene]:
    with ready.session() as session:
        holders, opening = session.holders, opening_under(ready, trust)
        if trust.is_masked:
            joined = joined_by(holders, opening)
        else:
            joined = {name: holder.join(opening, at=AT) for name, holder in holders.items()}
        yield Scene(ready, session, first_instruction(ready, joined), joined)


@pytest.fixture
def visible(ready: Ready) -> Iterator[Scene]:
    yield from begun(ready, TrustModel.HOLDER_NOISE)


@pytest.fixture
def trusting(ready: Ready) -> Iterator[Scene]:
    yield from begun(ready, TrustModel.COORDINATOR_NOISE)


def test_updates_that_may_be_seen_are_in_clear_with_all_the_noise_in_each(visible: Scene) -> None:
    holder = visible.session.holders[ASTER]
    words = visible.words()
    assert np.array_equal(words, plain_words(holder, visible.letter, joined=3))
    assert isinstance(visible.letter.header, Instruction)
    run = holder.run_named(visible.letter.header.run)
    assert holder._sums.noise_variance(run, 1, HOLDERS) == run.shape(1).variance
    # By a closed form: one holder's noise alone is enough for the round's own mu.
    shape, mu = run.shape(1), run.recipe.mu(1)
    deviation = math.ldexp(math.sqrt(shape.variance), shape.grid.step_log2)
    assert run.recipe.sensitivity(1) / deviation <= mu
    assert epsilon_of(run.recipe.sensitivity(1) / deviation, 1e-5) == pytest.approx(epsilon_of(mu, 1e-5), rel=1e-4)


def test_nothing_is_introduced_delivered_or_unmasked_where_nothing_is_masked(visible: Scene) -> None:
    assert [header.keys for header in visible.joined.values()] == [None, None, None]
    visible.words()
    run = visible.joined[ASTER].run
    for header in (
        Introduction(run, {}),
        Delivery(run, list(HOLDERS), {}),
        Unmasking(run, 1, list(HOLDERS)),
    ):
        assert code_of(visible.session.holders[ASTER].answer(Letter(header), at=AT)) == "plan"


@pytest.mark.parametrize("cohort", [[], [ASTER], [BIRCH, ASTER], ["birch-telecom", "cedar-power"], [ASTER, "nobody"]])
def test_a_cohort_in_clear_is_checked_too(visible: Scene, cohort: list[str]) -> None:
    header = msgspec.structs.replace(visible.letter.header, cohort=cohort)
    letter = Letter(header, visible.letter.arrays)
    assert code_of(visible.session.holders[ASTER].answer(letter, at=AT)) in {"plan", "cohort"}
    assert visible.session.holders[ASTER].ledger.releases() == ()


def test_a_coordinator_that_adds_the_noise_gets_exact_sums_under_masks(
    trusting: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(n: int, variance: int, source: NoiseSource) -> None:
        raise AssertionError("a data holder has drawn noise")

    monkeypatch.setattr(release, "discrete_gaussian", never)
    holder = trusting.session.holders[ASTER]
    words, plain = trusting.words(), plain_words(holder, trusting.letter, joined=3)
    assert not np.any(words == plain)
    assert isinstance(trusting.letter.header, Instruction)
    run = holder.run_named(trusting.letter.header.run)
    mask = holder._sums._member(run).mask(1, HOLDERS, len(words))
    assert np.array_equal(words - mask, plain)
    people = len(trusting.ready.agreeing())
    head_count = run.shape(1).grid.decode(plain)
    assert head_count.max() <= people  # exact: no number passes the number of people


def test_the_measurement_counts_people_by_their_weights_and_the_base_rate_by_heads(
    visible: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "discrete_gaussian", lambda n, *_: np.zeros(n, dtype=np.int64))
    holder, card = visible.session.holders[ASTER], some_card(visible.ready)
    header = Measurement(visible.joined[ASTER].run, list(HOLDERS), card.to_json())
    answer = holder.answer(Letter(header), at=AT)
    run = holder.run_named(header.run)
    stage = run.recipe.rounds + 1
    numbers = run.shape(stage).grid.decode(np.asarray(answer.arrays["words"]))

    rows = holder.permitted(run, Purpose.VALIDATE)
    assert len(set(rows.shares.tolist())) > 2
    bands, edges = run.plan.measurement_bands, measurement_edges(run.plan).tolist()
    expected = [0.0] * (2 * bands + 2)
    for score, bad, share in zip(card.score(rows.table).tolist(), rows.outcome, rows.shares.tolist(), strict=True):
        band = max(number for number in range(bands) if edges[number] <= score)
        expected[band + bands * int(bad)] += math.sqrt(share**2 * 1.02 - 0.02)  # heads and bads take 0.1 each
        expected[-2] += 0.1
        expected[-1] += 0.1 * int(bad)
    assert np.allclose(numbers, expected, atol=1e-4)  # rounding to the grid is kept back from small shares
    assert 0 < numbers[-1] < numbers[-2]
    paid = {share for handle in rows.handles for _, share in holder.ledger.spends(handle)}
    assert paid == set(rows.shares.tolist())


def test_a_plan_for_a_trust_model_that_is_not_allowed_is_refused_at_every_step(ready: Ready) -> None:
    path = ready.home() / "holder.toml"
    text = path.read_text()
    for trust in TrustModel:
        others = ", ".join(f'"{other.value}"' for other in TrustModel if other is not trust)
        lines = [
            f"trust_models = [{others}]" if line.startswith("trust_models") else line for line in text.splitlines()
        ]
        path.write_text("\n".join(lines))
        with ready.holder() as holder:
            assert code_of(holder.answer(Letter(opening_under(ready, trust)), at=AT)) == "policy"
            allowed = next(other for other in TrustModel if other is not trust)
            assert refused_with(holder.answer(Letter(opening_under(ready, allowed)), at=AT)) is None
    path.write_text(text)
    with ready.session() as session:
        letter = first_instruction(ready, joined_by(session.holders, opening_under(ready, TrustModel.SHARED_NOISE)))
    path.write_text(text.replace('"shared_noise", ', ""))
    with ready.holder() as holder:  # the policy was narrowed in the middle of a run
        assert code_of(holder.answer(letter, at=AT)) == "policy"
        assert holder.ledger.releases() == ()


def test_no_round_is_answered_after_the_measurement_but_what_was_made_goes_out_again(visible: Scene) -> None:
    holder, card = visible.session.holders[ASTER], some_card(visible.ready)
    first = visible.words()
    header = Measurement(visible.joined[ASTER].run, list(HOLDERS), card.to_json())
    assert isinstance(holder.answer(Letter(header), at=AT).header, Update)
    assert np.array_equal(visible.words(), first)
    assert isinstance(visible.letter.header, Instruction)
    second = msgspec.structs.replace(visible.letter.header, round_number=2)
    assert code_of(holder.answer(Letter(second, visible.letter.arrays), at=AT)) == "replay"
    assert [release.release_id[-1] for release in holder.ledger.releases()] == ["1", str(4 + 1)]


def test_counts_are_added_up_in_blocks_and_no_band_is_lost() -> None:
    random = np.random.default_rng(5)
    bands, weights = random.integers(0, 7, 5000), random.random(5000)
    bands[bands == 5] = 0
    exact = [math.fsum(weights[bands == band]) for band in range(9)]
    counted = _counts(bands, weights, 9)
    assert np.allclose(counted, exact, rtol=1e-13, atol=0)
    assert counted.shape == (9,)
    # Part by part in floats: 1e16 swallows each single 1 within its block, and not the sum of a block of its own.
    ones = np.ones(2 * ROWS_PER_BLOCK)
    ones[0] = 1e16
    assert _counts(np.zeros(len(ones), dtype=np.int64), ones, 1).tolist() == [1e16 + ROWS_PER_BLOCK]
