"""One release: charged once, sent as the same bytes for ever, and never more than its plan says."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from clients.holder.ledger import PrivacyLedger
from clients.holder.permits import Permits
from experiments.people import Attitude
from experiments.session import Session
from federated.encoder import Encoder
from federated.messages import Instruction, Letter, Revealed, Unmasking, Update, encode_header
from federated.recipes.fixed_hessian import FixedHessian
from federated.releases import release_name
from privacy.consent.record import Purpose
from privacy.secure_sum.keys import PublicKeys
from privacy.secure_sum.member import Reveal
from privacy.secure_sum.unmask import Unmasker
from tests.clients.holder.plain import plain_words
from tests.ready import (
    ASTER,
    AT,
    BIRCH,
    CEDAR,
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


def words_of(letter: Letter) -> NDArray[np.uint64]:
    assert isinstance(letter.header, Update), letter.header
    return np.asarray(letter.arrays["words"])


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
        assert words_of(answer).tobytes() == words_of(first).tobytes()
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
        assert how == "at both" or words_of(scene.answer()).tobytes() == words_of(first).tobytes()
    at = AT + 15
    # The code of a changed instruction, not of a consent.
    assert code_of(scene.answer(at=at)) == "replay"
    scene.restart()
    assert code_of(scene.answer(at=at)) == "replay"
    assert scene.charged() == charged
    # Who is in no release of ours takes nothing back.
    assert isinstance(scene.answer(BIRCH, at=at).header, Update)


def test_that_too_few_are_left_for_a_made_release_is_told_by_no_code_of_its_own(scene: Scene) -> None:
    first = scene.answer()
    path, people = scene.ready.home() / "holder.toml", scene.ready.agreeing()
    path.write_text(path.read_text().replace("fewest_people = 5", f"fewest_people = {len(people)}"))
    scene.restart()
    assert words_of(scene.answer()).tobytes() == words_of(first).tobytes()
    scene.ready.federation.withdraw(scene.ready.registry, people[0])
    assert code_of(scene.answer(at=AT + 15)) == "replay"


def test_a_made_release_goes_out_again_whoever_else_has_withdrawn_or_joined(scene: Scene) -> None:
    first = scene.answer()
    held_out, silent = scene.ready.agreeing(held_out=True)[0], scene.ready.with_attitude(Attitude.SILENT)[0]
    scene.ready.federation.withdraw(scene.ready.registry, held_out)
    scene.ready.registry.append(ASTER, [agreement(scene.ready, silent)])
    assert words_of(scene.answer(at=AT + 15)).tobytes() == words_of(first).tobytes()


def test_another_instruction_under_the_same_name_is_refused(scene: Scene) -> None:
    first = scene.answer()
    others = [
        Letter(scene.letter.header, {**scene.letter.arrays, "round": np.array([1.0]), "more": np.zeros(1)}),
        changed(scene.letter, cohort=[ASTER, BIRCH]),
    ]
    for other in others:
        assert code_of(scene.answer(letter=other)) == "replay"
    scene.restart()
    assert code_of(scene.answer(letter=others[1])) == "replay"
    assert words_of(scene.answer()).tobytes() == words_of(first).tobytes()
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
    assert words_of(scene.answer()).size > 0
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
        {"round": np.array([1.0]), "start": np.array([np.nan])},
    ],
)
def test_an_unlawful_instruction_charges_nobody_and_does_not_spoil_the_lawful_one(
    scene: Scene, arrays: dict[str, NDArray[Any]]
) -> None:
    assert code_of(scene.answer(letter=Letter(scene.letter.header, arrays))) == "internal"
    assert scene.charged() == []
    assert words_of(scene.answer()).size > 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308])
def test_numbers_in_a_later_rounds_instruction_that_are_none_charge_nobody(scene: Scene, value: float) -> None:
    width = Encoder(scene.ready.federation.data.schema).width
    lawful = {"round": np.array([2.0]), "centre": np.zeros(width)}
    poisoned = {**lawful, "centre": np.where(np.arange(width) == 3, value, 0.0)}
    letter = changed(scene.letter, round_number=2)
    assert code_of(scene.answer(letter=Letter(letter.header, poisoned))) == "internal"
    assert scene.charged() == []


@pytest.mark.parametrize(
    "numbers",
    [
        lambda length: np.full(length, 1e300),
        lambda length: np.full(length, np.nan),
        lambda length: np.where(np.arange(length) == length - 1, -np.inf, 0.0),
        lambda length: np.zeros(length + 1),
        lambda length: np.zeros((1, length)),
    ],
)
def test_numbers_that_leave_the_grid_or_have_another_shape_are_an_error_and_never_a_clip(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, numbers: Callable[[int], NDArray[np.float64]]
) -> None:
    run = scene.session.holders[ASTER].run_named(scene.run)
    with monkeypatch.context() as patched:
        patched.setattr(FixedHessian, "contribution", lambda *_, **__: numbers(run.recipe.length(1)))
        assert code_of(scene.answer()) == "internal"
    assert scene.charged() == []
    assert scene.session.holders[ASTER].ledger.kept(f"{scene.run}/1") is None
    assert words_of(scene.answer()).size == run.recipe.length(1)


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
        assert fields.keys() == {"kind", "holder", "release", "commitment", "signature", "ledger"}
        assert fields["ledger"].keys() == {"size", "digest"}
        # Introduction, delivery, charge and kept bytes of each run, whoever was charged.
        assert fields["ledger"]["size"] == 4 * (k + 1)
        sizes.append(len(encode_header(header)))
        scene.session.close()
        if k == 0:  # the same again with 1 person fewer
            ready.federation.withdraw(ready.registry, ready.agreeing()[0])
            ready.sync()
    assert sizes[0] == sizes[1]


def test_no_single_update_says_anything_and_their_unmasked_sum_is_the_plain_sum(scene: Scene) -> None:
    holders = scene.session.holders
    answers = {name: words_of(scene.answer(name)) for name in HOLDERS}
    plain = {name: plain_words(holder, scene.letter, joined=3) for name, holder in holders.items()}
    for name in HOLDERS:
        assert not np.any(answers[name] == plain[name])
        others = [answers[other] for other in HOLDERS if other != name]
        assert not np.any(sum(others) == sum(plain[other] for other in HOLDERS if other != name))
    # Nor does the sum of all: their self masks come off only with shares from all of them.
    assert not np.any(sum(answers.values()) == sum(plain.values()))
    reveals = {}
    for name, holder in holders.items():
        header = holder.answer(Letter(Unmasking(scene.run, 1, list(HOLDERS))), at=AT).header
        assert isinstance(header, Revealed)
        reveals[name] = Reveal(header.seeds, header.keys)
    joined = {
        name: PublicKeys(header.keys.channel, tuple(header.keys.stages), tuple(header.keys.seeds))
        for name, header in scene.joined.items()
        if header.keys is not None
    }
    unmasker = Unmasker(joined, HOLDERS, run=scene.run, threshold=3)
    total = unmasker.unmask(1, HOLDERS, answers, reveals).total
    assert np.array_equal(total, sum(plain.values()))


@pytest.mark.parametrize(
    "cohort",
    [
        [],
        [ASTER],
        [BIRCH, CEDAR],
        [ASTER, BIRCH, "stranger"],
        [BIRCH, ASTER, CEDAR],
        [ASTER, ASTER, BIRCH, CEDAR],
    ],
)
def test_a_cohort_without_us_too_small_with_strangers_or_out_of_order_is_refused(
    scene: Scene, cohort: list[str]
) -> None:
    assert code_of(scene.answer(letter=changed(scene.letter, cohort=cohort))) in {"plan", "cohort"}
    assert scene.charged() == []
    assert words_of(scene.answer()).size > 0


def test_releases_have_names_of_their_own() -> None:
    assert len({release_name(run, stage) for run in ("a", "b") for stage in range(1, 4)}) == 6


def test_the_ledger_has_the_last_word(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = scene.session.holders[ASTER]
    run = holder.run_named(scene.run)
    rows = holder.permitted(run, Purpose.TRAIN)
    poorer = replace(rows, allowances=rows.allowances * 0.01)
    monkeypatch.setattr(Permits, "rows", lambda *_: poorer)
    assert code_of(scene.answer()) == "budget"
    assert scene.charged() == []
    assert holder.ledger.kept(f"{scene.run}/1") is None
