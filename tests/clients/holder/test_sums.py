"""The data holder in a secure sum: a coordinator that lies, repeats itself or changes its mind learns one sum."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from clients.holder import sums
from clients.holder.ledger import PrivacyLedger
from federated.messages import Delivery, Instruction, Introduction, Letter, Received, SumKeys, Unmasking
from federated.releases import sum_keys_statement
from privacy.consent.signing import PayloadType
from privacy.secure_sum.keys import PublicKeys
from privacy.secure_sum.member import Reveal
from privacy.secure_sum.unmask import Unmasker
from tests.clients.holder.plain import plain_words
from tests.clients.holder.sum_scene import (
    DAHLIA,
    FOUR,
    SumScene,
    as_bytes,
    received,
    refused_with,
    revealed,
    run_named,
)
from tests.ready import ASTER, AT, BIRCH, CEDAR, code_of, ready_in

DAY_S = 86_400
STRANGER = "stranger-bank"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[SumScene]:
    ready = ready_in(tmp_path / "federation", holders=4)
    made = SumScene(ready)
    yield made
    made.session.close()
    ready.registry.close()


# --- introductions


def with_signature_of(keys: SumKeys, other: SumKeys) -> SumKeys:
    return msgspec.structs.replace(keys, signature=other.signature)


REPLACED: dict[str, Callable[[dict[str, SumKeys]], dict[str, SumKeys]]] = {
    "somebody else's": lambda keys: {BIRCH: keys[CEDAR]},
    "a channel of the coordinator's own": lambda keys: {
        BIRCH: msgspec.structs.replace(keys[BIRCH], channel=bytes([9]) + bytes(31))
    },
    "two stages swapped": lambda keys: {BIRCH: msgspec.structs.replace(keys[BIRCH], stages=keys[BIRCH].stages[::-1])},
    "another's signature": lambda keys: {BIRCH: with_signature_of(keys[BIRCH], keys[CEDAR])},
    "ours replaced": lambda keys: {ASTER: keys[BIRCH]},
}


@pytest.mark.parametrize("how", REPLACED)
def test_replaced_keys_are_refused_and_leave_nothing_behind(scene: SumScene, how: str) -> None:
    introduction = scene.introduction()
    before = scene.entries()
    forged = Introduction(introduction.run, introduction.joined | REPLACED[how](introduction.joined))
    assert code_of(scene.ask(forged)) == "integrity"
    assert scene.entries() == before
    assert refused_with(scene.ask(introduction)) is None


def test_keys_of_another_run_are_refused(scene: SumScene) -> None:
    introduction = scene.introduction()
    other = scene.holder(BIRCH)
    public = other._sums._secrets_of(other.run_named(introduction.run)).public
    statement = sum_keys_statement("0" * 32, BIRCH, public.channel, public.stages, public.seeds)
    signature = other._keys.identity.sign(PayloadType.SUM_KEYS, statement)
    forged = SumKeys(public.channel, list(public.stages), list(public.seeds), signature)
    joined = introduction.joined | {BIRCH: forged}
    assert code_of(scene.ask(Introduction(introduction.run, joined))) == "integrity"


def test_keys_for_fewer_releases_are_refused_though_their_owner_signed_them(scene: SumScene) -> None:
    introduction = scene.introduction()
    keys, owner = introduction.joined[BIRCH], scene.holder(BIRCH)
    stages, seeds = keys.stages[:-1], keys.seeds[:-1]
    statement = sum_keys_statement(introduction.run, BIRCH, keys.channel, stages, seeds)
    fewer = SumKeys(keys.channel, stages, seeds, owner._keys.identity.sign(PayloadType.SUM_KEYS, statement))
    assert code_of(scene.ask(Introduction(introduction.run, introduction.joined | {BIRCH: fewer}))) == "internal"


@pytest.mark.parametrize(
    ("who", "code"),
    [((), "plan"), ((ASTER,), "cohort"), ((ASTER, BIRCH, CEDAR), "cohort"), ((BIRCH, CEDAR, DAHLIA), "plan")],
)
def test_an_introduction_without_us_or_of_too_few_is_refused(scene: SumScene, who: tuple[str, ...], code: str) -> None:
    introduction = scene.introduction()
    joined = {name: introduction.joined[name] for name in who}
    assert code_of(scene.ask(Introduction(introduction.run, joined))) == code
    stranger = introduction.joined | {STRANGER: introduction.joined[BIRCH]}
    assert code_of(scene.ask(Introduction(introduction.run, stranger))) == "plan"
    assert refused_with(scene.ask(introduction)) is None


def test_shares_are_dealt_to_one_introduction_only(scene: SumScene) -> None:
    introduction = scene.introduction()
    first = scene.ask(introduction)
    # All signed by their owners, and yet not what was introduced first.
    other = Introduction(introduction.run, dict(introduction.joined))
    keys, owner = introduction.joined[BIRCH], scene.holder(BIRCH)
    seeds = keys.seeds[::-1]
    statement = sum_keys_statement(introduction.run, BIRCH, keys.channel, keys.stages, seeds)
    signature = owner._keys.identity.sign(PayloadType.SUM_KEYS, statement)
    other.joined[BIRCH] = SumKeys(keys.channel, keys.stages, seeds, signature)
    for _ in range(2):
        assert code_of(scene.ask(other)) == "replay"
        assert as_bytes(scene.ask(introduction)) == as_bytes(first)
        scene.restart()
    scene.restart()


# --- deliveries


def test_who_dealt_shares_that_do_not_open_is_told_and_nothing_is_pinned(scene: SumScene) -> None:
    introduction = scene.introduction()
    dealt = scene.dealt(introduction)
    honest = scene.delivery(dealt)
    before = scene.entries()
    flipped = bytes([honest.sealed[BIRCH][0] ^ 1]) + honest.sealed[BIRCH][1:]
    for sealed, faulty in (
        (honest.sealed | {BIRCH: flipped}, [BIRCH]),
        (honest.sealed | {BIRCH: honest.sealed[CEDAR], CEDAR: honest.sealed[BIRCH]}, [BIRCH, CEDAR]),
        (honest.sealed | {BIRCH: dealt[BIRCH].sealed[CEDAR]}, [BIRCH]),
        (honest.sealed | {BIRCH: b""}, [BIRCH]),
    ):
        assert received(scene.ask(msgspec.structs.replace(honest, sealed=sealed))).faulty == faulty
    assert scene.entries() == before
    assert received(scene.ask(honest)) == Received(ASTER, introduction.run, [])
    assert scene.entries() == before + 1


def test_who_has_all_shares_and_who_has_those_of_fewer_members_add_up_together(scene: SumScene) -> None:
    """One dealt rubbish to some: those who hold its shares, too, mask and help for the cohort without it."""
    dealt = scene.dealt(scene.introduction())
    three = (ASTER, BIRCH, CEDAR)
    rubbish = {**dealt, DAHLIA: msgspec.structs.replace(dealt[DAHLIA], sealed=dict.fromkeys(FOUR, bytes(50)))}
    for name, told in ((ASTER, dealt), (BIRCH, rubbish), (CEDAR, rubbish)):
        answer = received(scene.ask(scene.delivery(told, to=name), name))
        assert answer.faulty == ([] if name == ASTER else [DAHLIA])
    for name in (BIRCH, CEDAR):
        assert received(scene.ask(scene.delivery(dealt, three, to=name), name)).faulty == []
    assert code_of(scene.ask(scene.delivery(dealt, three))) == "replay"
    run = scene.holder().run_named(dealt[ASTER].run)
    letter = Letter(Instruction(run.name, 1, list(three)), run.recipe.instruction(run.recipe.start()))
    words = {name: scene.words(letter, name) for name in three}
    reveals = {name: revealed(scene.reveal(letter, three, name)) for name in three}
    joined = {
        name: PublicKeys(keys.channel, tuple(keys.stages), tuple(keys.seeds))
        for name, keys in scene.introduction().joined.items()
    }
    unmasked = Unmasker(joined, three, run=run.name, threshold=3).unmask(
        1, three, words, {name: Reveal(header.seeds, header.keys) for name, header in reveals.items()}
    )
    assert np.array_equal(unmasked.total, sum(plain_words(scene.holder(n), letter, joined=4) for n in three))
    assert unmasked.liars == ()


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([ASTER, BIRCH], "cohort"),
        ([BIRCH, CEDAR, DAHLIA], "plan"),
        ([BIRCH, ASTER, CEDAR, DAHLIA], "plan"),
        ([ASTER, ASTER, BIRCH, CEDAR], "plan"),
        ([ASTER, BIRCH, CEDAR, STRANGER], "plan"),
    ],
)
def test_unlawful_members_are_refused(scene: SumScene, members: list[str], code: str) -> None:
    delivery = scene.delivery(scene.dealt(scene.introduction()))
    assert code_of(scene.ask(msgspec.structs.replace(delivery, members=members))) == code
    lacking = {name: share for name, share in delivery.sealed.items() if name != CEDAR}
    assert code_of(scene.ask(msgspec.structs.replace(delivery, sealed=lacking))) == "plan"
    assert refused_with(scene.ask(delivery)) is None


def test_a_second_delivery_of_other_members_is_refused(scene: SumScene) -> None:
    dealt = scene.dealt(scene.introduction())
    honest, fewer = scene.delivery(dealt), scene.delivery(dealt, members=(ASTER, BIRCH, CEDAR))
    first = scene.ask(honest)
    for _ in range(2):
        assert code_of(scene.ask(fewer)) == "replay"
        assert as_bytes(scene.ask(honest)) == as_bytes(first)
        scene.restart()


def test_no_step_can_be_left_out(scene: SumScene) -> None:
    introduction = scene.introduction()
    run = introduction.run
    nothing = Delivery(run, list(FOUR), dict.fromkeys((BIRCH, CEDAR, DAHLIA), b"x"))
    assert code_of(scene.ask(nothing)) == "plan"
    scene.dealt(introduction)
    recipe = scene.holder().run_named(run).recipe
    letter = Letter(Instruction(run, 1, list(FOUR)), recipe.instruction(recipe.start()))
    assert code_of(scene.holder().answer(letter, at=AT)) == "plan"
    assert code_of(scene.ask(Unmasking(run, 1, list(FOUR)))) == "plan"
    assert code_of(scene.ask(Unmasking("0" * 32, 1, list(FOUR)))) == "plan"
    assert scene.holder().ledger.releases() == ()


# --- unmasking


def test_masks_come_off_one_set_of_survivors_whatever_is_asked_later(scene: SumScene) -> None:
    letter = scene.begun()
    scene.update(letter)
    three = (ASTER, BIRCH, CEDAR)
    first = scene.reveal(letter, three)
    assert revealed(first).seeds.keys() == set(three)
    assert revealed(first).keys.keys() == {DAHLIA}  # never both of one
    for _ in range(2):
        for others in (FOUR, (ASTER, BIRCH, DAHLIA), (ASTER, CEDAR, DAHLIA)):
            assert code_of(scene.reveal(letter, others)) == "replay"
        assert as_bytes(scene.reveal(letter, three)) == as_bytes(first)
        scene.restart()


@pytest.mark.parametrize(
    ("survivors", "code"),
    [
        ((), "plan"),
        ((ASTER, BIRCH), "cohort"),
        ((BIRCH, CEDAR, DAHLIA), "plan"),  # a sum that it is told it is not in
        ((ASTER, CEDAR, BIRCH), "plan"),
        ((ASTER, ASTER, BIRCH, CEDAR), "plan"),
        ((ASTER, BIRCH, STRANGER), "plan"),
        ((*FOUR, STRANGER), "plan"),
    ],
)
def test_unlawful_survivors_are_refused_and_pin_nothing(scene: SumScene, survivors: tuple[str, ...], code: str) -> None:
    letter = scene.begun()
    scene.update(letter)
    before = scene.entries()
    assert code_of(scene.reveal(letter, survivors)) == code
    assert scene.entries() == before
    assert refused_with(scene.reveal(letter)) is None


def test_survivors_are_of_the_cohort_that_the_release_was_made_with(scene: SumScene) -> None:
    letter = scene.begun()
    three = [ASTER, BIRCH, CEDAR]
    smaller = Letter(msgspec.structs.replace(letter.header, cohort=three), letter.arrays)
    scene.update(smaller)
    assert code_of(scene.reveal(smaller, FOUR)) == "plan"
    assert code_of(scene.reveal(smaller, (ASTER, BIRCH, DAHLIA))) == "plan"
    assert revealed(scene.reveal(smaller, three)).keys == {}


@pytest.mark.parametrize("stage", [-1, 0, 2, 5, 6, 10**18])
def test_masks_of_a_release_that_was_not_made_stay_on(scene: SumScene, stage: int) -> None:
    letter = scene.begun()
    assert code_of(scene.reveal(letter)) == "plan"  # before the release
    scene.update(letter)
    assert code_of(scene.reveal(letter, stage=stage)) == "plan"
    assert refused_with(scene.reveal(letter)) is None


def test_nothing_comes_off_after_the_plans_end(scene: SumScene) -> None:
    letter = scene.begun()
    scene.update(letter)
    unmasking = Unmasking(run_named(letter), 1, list(FOUR))
    assert code_of(scene.ask(unmasking, at=AT + DAY_S)) == "plan"
    assert refused_with(scene.ask(unmasking)) is None


def test_a_crash_between_pin_and_answer_leaves_the_first_survivors_standing(
    scene: SumScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = scene.begun()
    scene.update(letter)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sums, "reveal_statement", crash)
        with pytest.raises(KeyboardInterrupt):
            scene.reveal(letter)
    scene.restart()
    assert code_of(scene.reveal(letter, (ASTER, BIRCH, CEDAR))) == "replay"
    assert revealed(scene.reveal(letter)).seeds.keys() == set(FOUR)


def test_nothing_is_revealed_before_the_pin_is_durable(scene: SumScene, monkeypatch: pytest.MonkeyPatch) -> None:
    letter = scene.begun()
    scene.update(letter)

    def full(*_: object) -> None:
        raise OSError("disk")

    with monkeypatch.context() as patched:
        patched.setattr(PrivacyLedger, "pin", full)
        assert code_of(scene.reveal(letter)) == "internal"
    assert refused_with(scene.reveal(letter, (ASTER, BIRCH, CEDAR))) is None  # nothing stood against it


def test_with_a_drop_out_the_sum_is_that_of_the_survivors_and_has_all_the_noise_it_needs(scene: SumScene) -> None:
    letter = scene.begun()
    three = [ASTER, BIRCH, CEDAR]
    words = {name: scene.words(letter, name) for name in FOUR}
    reveals = {}
    for name in three:
        header = revealed(scene.reveal(letter, three, name))
        reveals[name] = Reveal(header.seeds, header.keys)
    joined = {
        name: PublicKeys(keys.channel, tuple(keys.stages), tuple(keys.seeds))
        for name, keys in scene.introduction().joined.items()
    }
    unmasker = Unmasker(joined, FOUR, run=run_named(letter), threshold=3)
    total = unmasker.unmask(1, FOUR, {name: words[name] for name in three}, reveals).total
    plain = {name: plain_words(scene.holder(name), letter, joined=4) for name in FOUR}
    assert np.array_equal(total, sum(plain[name] for name in three))
    run = scene.holder().run_named(run_named(letter))
    variance = scene.holder()._sums.noise_variance(run, 1, FOUR)
    assert 3 * variance >= run.shape(1).variance


def test_each_release_has_masks_of_its_own(scene: SumScene) -> None:
    letter = scene.begun()
    run = scene.holder().run_named(run_named(letter))
    member = scene.holder()._sums._member(run)
    masks = [member.mask(stage, FOUR, 8).tobytes() for stage in range(1, run.recipe.rounds + 2)]
    assert len(set(masks)) == len(masks)
