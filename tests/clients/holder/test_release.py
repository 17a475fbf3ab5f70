"""One release: charged once, sent as the same bytes for ever, and never more than its plan says."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from clients.holder.ledger import PrivacyLedger
from clients.holder.node import Holder
from experiments.people import Attitude
from experiments.session import Session
from federated.encoder import Encoder
from federated.messages import Instruction, Letter, MaskKey, Update, encode_header
from federated.releases import grid_for_round, release_name
from federated.rows import EncodedRows
from privacy.consent.record import Purpose
from privacy.noise import SeededNoise
from tests.ready import (
    ASTER,
    AT,
    BIRCH,
    HOLDERS,
    Ready,
    agreement,
    code_of,
    first_instruction,
    joined_by,
    withdrawal,
)


class Scene:
    """All three data holders have joined; the letter of round 1 lies ready."""

    def __init__(self, ready: Ready) -> None:
        self.ready = ready
        self.session: Session = ready.session()
        self.opening = ready.opening()
        self.joined = joined_by(self.session.holders, self.opening)
        self.letter = first_instruction(ready, self.joined)
        self.run = self.joined[ASTER].run

    def answer(self, name: str = ASTER, letter: Letter | None = None, at: int = AT) -> Letter:
        return self.session.holders[name].answer(letter or self.letter, at=at)

    def restart(self) -> None:
        self.session.close()
        self.session = self.ready.session()

    def charged(self, name: str = ASTER) -> list[tuple[str, int]]:
        return [(release.release_id, release.people) for release in self.session.holders[name].ledger.releases()]


@pytest.fixture
def scene(ready: Ready) -> Iterator[Scene]:
    made = Scene(ready)
    yield made
    made.session.close()


def changed(letter: Letter, **changes: Any) -> Letter:
    header = letter.header
    assert isinstance(header, Instruction)
    return Letter(msgspec.structs.replace(header, **changes), letter.arrays)


def masked(letter: Letter) -> NDArray[np.uint64]:
    assert isinstance(letter.header, Update), letter.header
    return np.asarray(letter.arrays["masked"])


def test_a_release_charges_everybody_used_and_nobody_else(scene: Scene) -> None:
    scene.answer()
    people = scene.ready.agreeing()
    assert scene.charged() == [(f"{scene.run}/1", len(people))]
    handles = {scene.ready.federation.handles[place] for place in people}
    assert set(scene.session.holders[ASTER].ledger.subjects_of(f"{scene.run}/1")) == handles


def test_the_same_instruction_again_gives_the_same_bytes_and_charges_nothing(scene: Scene) -> None:
    first, charged = scene.answer(), scene.charged()
    again = scene.answer()
    scene.restart()
    after = scene.answer()
    for answer in (again, after):
        assert encode_header(answer.header) == encode_header(first.header)
        assert masked(answer).tobytes() == masked(first).tobytes()
    assert scene.charged() == charged


@pytest.mark.parametrize("how", ["in the lane", "by the side door", "unlinked", "at both"])
def test_a_made_release_does_not_go_out_again_once_somebody_in_it_has_withdrawn(scene: Scene, how: str) -> None:
    first, charged = scene.answer(), scene.charged()
    federation, leaver = scene.ready.federation, scene.ready.agreeing()[0]
    lane = scene.session.holders[ASTER].lane
    if how == "unlinked":
        lane.unlink(federation.customer(leaver.person))
    if how in {"by the side door", "at both"}:
        assert lane.take(withdrawal(scene.ready, leaver), at=AT)
    if how in {"in the lane", "at both"}:
        federation.withdraw(scene.ready.registry, leaver)
        # Until the withdrawal is here, the same bytes: nobody is asked before a sync is due.
        assert how == "at both" or masked(scene.answer()).tobytes() == masked(first).tobytes()
    at = AT + 15
    assert code_of(scene.answer(at=at)) == "consent"
    scene.restart()
    assert code_of(scene.answer(at=at)) == "consent"
    assert scene.charged() == charged
    # Who is in no release of ours takes nothing back.
    assert isinstance(scene.answer(BIRCH, at=at).header, Update)


def test_a_made_release_goes_out_again_whoever_else_has_withdrawn_or_joined(scene: Scene) -> None:
    first = scene.answer()
    held_out, silent = scene.ready.agreeing(held_out=True)[0], scene.ready.with_attitude(Attitude.SILENT)[0]
    scene.ready.federation.withdraw(scene.ready.registry, held_out)
    scene.ready.registry.append(ASTER, [agreement(scene.ready, silent)])
    assert masked(scene.answer(at=AT + 15)).tobytes() == masked(first).tobytes()


def test_another_instruction_under_the_same_name_is_refused(scene: Scene) -> None:
    first = scene.answer()
    others = [
        Letter(scene.letter.header, {**scene.letter.arrays, "round": np.array([1.0]), "more": np.zeros(1)}),
        changed(scene.letter, cohort={name: scene.joined[name].mask_key for name in (ASTER, BIRCH)}),
    ]
    for other in others:
        assert code_of(scene.answer(letter=other)) == "replay"
    scene.restart()
    assert code_of(scene.answer(letter=others[1])) == "replay"
    assert masked(scene.answer()).tobytes() == masked(first).tobytes()
    assert len(scene.charged()) == 1


def test_a_crash_between_charge_and_keep_charges_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PrivacyLedger, "keep", crash)
        with pytest.raises(KeyboardInterrupt):
            scene.answer()
    charged = scene.charged()
    assert len(charged) == 1
    scene.restart()
    assert masked(scene.answer()).size > 0
    assert scene.charged() == charged


def test_nothing_leaves_before_the_charge_is_durable(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise OSError("disk")

    with monkeypatch.context() as patched:
        patched.setattr(PrivacyLedger, "charge", crash)
        assert code_of(scene.answer()) == "internal"
    assert scene.charged() == []
    assert scene.session.holders[ASTER].ledger.kept(f"{scene.run}/1") is None


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"round": np.array([2.0])},
        {"round": np.array([np.nan])},
        {"round": np.array([1.0]), "centre": np.zeros(3)},
        {"round": np.array(["1"])},
        {"round": np.array([1.0 + 0j])},
    ],
)
def test_an_unlawful_instruction_charges_nobody_and_does_not_spoil_the_lawful_one(
    scene: Scene, arrays: dict[str, NDArray[Any]]
) -> None:
    assert code_of(scene.answer(letter=Letter(scene.letter.header, arrays))) == "internal"
    assert scene.charged() == []
    assert masked(scene.answer()).size > 0


@pytest.mark.parametrize("number", [0, -1, 5, 10**18])
def test_rounds_that_the_recipe_does_not_have_are_refused(scene: Scene, number: int) -> None:
    assert code_of(scene.answer(letter=changed(scene.letter, round_number=number))) == "plan"
    assert scene.charged() == []


def test_an_update_carries_no_count(ready: Ready) -> None:
    sizes = []
    for k in range(2):
        scene = Scene(ready)
        header = scene.answer().header
        assert isinstance(header, Update)
        fields = json.loads(encode_header(header))
        assert fields.keys() == {"kind", "holder", "release", "commitment", "signature"}
        sizes.append(len(encode_header(header)))
        scene.session.close()
        if k == 0:  # the same again with 1 person fewer
            ready.federation.withdraw(ready.registry, ready.agreeing()[0])
            ready.sync()
    assert sizes[0] == sizes[1]


def test_no_single_update_says_anything_and_the_masked_sum_is_the_plain_sum(scene: Scene) -> None:
    answers = {name: masked(scene.answer(name)) for name in HOLDERS}
    plain = {}
    for name, holder in scene.session.holders.items():
        run = holder.run_named(scene.run)
        rows = holder.permitted(run, Purpose.TRAIN)
        encoded = EncodedRows(Encoder(scene.ready.federation.data.schema).encode(rows.table), rows.outcome, rows.shares)
        chance = SeededNoise(run.plan.seed or 0, f"{name}/{run.digest}/1")
        noisy = run.recipe.contribution(1, scene.letter.arrays, encoded, chance=chance, noise_share=1 / 3)
        plain[name] = grid_for_round(run.recipe, 1, run.plan).encode(noisy)
    assert np.array_equal(sum(answers.values()), sum(plain.values()))
    for name in HOLDERS:
        assert not np.any(answers[name] == plain[name])
        others = [answers[other] for other in HOLDERS if other != name]
        assert not np.any(sum(others) == sum(plain[other] for other in HOLDERS if other != name))


def test_a_coordinator_that_swaps_a_mask_key_is_refused_and_nobody_is_charged(scene: Scene, ready: Ready) -> None:
    cohort = {name: header.mask_key for name, header in scene.joined.items()}
    stranger = MaskKey(bytes([9]) + bytes(31), cohort[BIRCH].signature)
    for key in (stranger, replace_key(cohort[BIRCH], signature=cohort[ASTER].signature), cohort[ASTER]):
        letter = changed(scene.letter, cohort={**cohort, BIRCH: key})
        assert code_of(scene.answer(letter=letter)) == "integrity"
    assert scene.charged() == []


def replace_key(key: MaskKey, **changes: bytes) -> MaskKey:
    return msgspec.structs.replace(key, **changes)


def test_a_mask_key_of_another_run_is_refused(scene: Scene) -> None:
    holder: Holder = scene.session.holders[BIRCH]
    other = holder._keys.mask_key("another run")
    cohort = {name: header.mask_key for name, header in scene.joined.items()}
    cohort[BIRCH] = MaskKey(other.public, cohort[BIRCH].signature)
    assert code_of(scene.answer(letter=changed(scene.letter, cohort=cohort))) == "integrity"


@pytest.mark.parametrize("who", [(), (ASTER,), (BIRCH, "cedar-power"), (ASTER, BIRCH, "stranger")])
def test_a_cohort_without_us_too_small_or_with_strangers_is_refused(scene: Scene, who: tuple[str, ...]) -> None:
    cohort = {name: scene.joined.get(name, scene.joined[BIRCH]).mask_key for name in who}
    assert code_of(scene.answer(letter=changed(scene.letter, cohort=cohort))) in {"plan", "cohort"}
    assert scene.charged() == []


def test_releases_have_names_of_their_own() -> None:
    assert len({release_name(run, stage) for run in ("a", "b") for stage in range(1, 4)}) == 6


def test_the_ledger_has_the_last_word(scene: Scene) -> None:
    holder = scene.session.holders[ASTER]
    run = holder.run_named(scene.run)
    rows = holder.permitted(run, Purpose.TRAIN)
    decisions, _ = holder._permitted[scene.run, Purpose.TRAIN]
    holder._permitted[scene.run, Purpose.TRAIN] = decisions, replace(rows, allowances=rows.allowances * 0.01)
    assert code_of(scene.answer()) == "budget"
    assert scene.charged() == []
    assert holder.ledger.kept(f"{scene.run}/1") is None
