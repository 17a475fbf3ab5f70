"""The coordinator's run: it takes nothing unsigned, sees sums only, and says who left and why."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.session import DEADLINE_S, Session
from federated.channel import Act, Channel
from federated.messages import Joined, Letter, Refused, ScoreAnswers, Update
from federated.model import LinearModel
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError
from server.coordinator import Coordinator, Outcome
from server.relay import relay_scores
from server.rounds import _told, no_progress
from tests.ready import ASTER, BIRCH, HOLDERS, Ready

Change = Callable[[Letter], Letter | None]


class Meddling:
    """A channel on which answers of one act are changed, or lost, on their way."""

    def __init__(self, channel: Channel, act: Act, changes: Mapping[int, Change], *, from_question: int = 1) -> None:
        self.channel, self.act, self.changes, self.wait = channel, act, changes, from_question

    def nodes(self) -> list[int]:
        return self.channel.nodes()

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
        answers = self.channel.ask(letters, act=act, deadline_s=deadline_s)
        if act is not self.act:
            return answers
        self.wait -= 1
        if self.wait > 0:
            return answers
        changed = {
            node: self.changes[node](letter) if node in self.changes else letter for node, letter in answers.items()
        }
        return {node: letter for node, letter in changed.items() if letter is not None}


def run(session: Session, ready: Ready, act: Act, changes: Mapping[str, Change], *, from_question: int = 1) -> Outcome:
    by_node = {session.nodes[name]: change for name, change in changes.items()}
    channel = Meddling(session.channel, act, by_node, from_question=from_question)
    return Coordinator(ready.federation.coordinator_directory).run(channel, no_progress, deadline_s=DEADLINE_S)


def silent(letter: Letter) -> None:
    return None


def refusing(name: str, code: RefusalCode = RefusalCode.BUDGET) -> Change:
    return lambda _: Letter(Refused(name, code))


def bit_flipped(letter: Letter) -> Letter:
    words = np.array(letter.arrays["masked"])
    words[0] ^= np.uint64(1)
    return Letter(letter.header, {"masked": words})


def cut(letter: Letter) -> Letter:
    return Letter(letter.header, {"masked": letter.arrays["masked"][:-1]})


def floats(letter: Letter) -> Letter:
    return Letter(letter.header, {"masked": letter.arrays["masked"].astype(np.float64)})


def header_changed(letter: Letter, **changes: object) -> Letter:
    assert isinstance(letter.header, Update | Joined)
    return Letter(msgspec.structs.replace(letter.header, **changes), letter.arrays)


def no_model_of(ready: Ready) -> bool:
    return not list(ready.federation.coordinator_directory.glob("runs/*"))


MEDDLING: dict[str, Change] = {
    "silence": silent,
    "a flipped bit": bit_flipped,
    "a word less": cut,
    "other numbers": floats,
    "no numbers": lambda letter: Letter(letter.header),
    "another commitment": lambda letter: header_changed(letter, commitment=bytes(32)),
    "another's name": lambda letter: header_changed(letter, holder=BIRCH),
    "another release": lambda letter: header_changed(letter, release="0" * 32 + "/1"),
    "no signature": lambda letter: header_changed(letter, signature=bytes(64)),
    "something else": lambda _: Letter(ScoreAnswers(ASTER, [])),
    "a refusal": refusing(ASTER, RefusalCode.LANE),
}


@pytest.mark.parametrize(("act", "question"), [(Act.TRAIN, 1), (Act.TRAIN, 3), (Act.EVALUATE, 1)])
def test_whatever_one_holder_sends_wrong_ends_the_run_with_its_name_and_without_a_model(
    ready: Ready, act: Act, question: int
) -> None:
    with ready.session() as session:
        for what, change in MEDDLING.items():
            with pytest.raises(RefusalError, match=ASTER) as caught:
                run(session, ready, act, {ASTER: change}, from_question=question)
            if what == "a refusal":
                assert caught.value.code is RefusalCode.LANE
                assert "lane" in str(caught.value)
        assert no_model_of(ready)
        # Releases that were made are repeated: the same plan run again ends well, and charges nobody twice.
        charged = {name: len(holder.ledger.releases()) for name, holder in session.holders.items()}
        outcome = run(session, ready, act, {})
        assert len(outcome.releases) == 5
        assert set(charged.values()) <= {question if act is Act.TRAIN else 5}
        assert {len(holder.ledger.releases()) for holder in session.holders.values()} == {5}


def test_silence_at_the_opening_leaves_a_smaller_cohort(ready: Ready) -> None:
    with ready.session() as session:
        outcome = run(session, ready, Act.QUERY, {ASTER: silent})
    assert set(outcome.holders) == {BIRCH, HOLDERS[2]}
    assert isinstance(outcome.model, LinearModel)


def test_too_few_joining_is_a_refusal_that_names_holders_and_codes(ready: Ready) -> None:
    changes = {ASTER: refusing(ASTER), BIRCH: refusing(BIRCH, RefusalCode.POLICY)}
    with ready.session() as session, pytest.raises(RefusalError) as caught:
        run(session, ready, Act.QUERY, changes)
    assert f"{ASTER}: budget, {BIRCH}: policy" in str(caught.value)
    with ready.session() as session, pytest.raises(RefusalError, match="silence"):
        run(session, ready, Act.QUERY, dict.fromkeys(HOLDERS, silent))
    assert no_model_of(ready)
    for name in HOLDERS:
        with ready.holder(name) as holder:
            assert holder.ledger.releases() == ()


def other_key(letter: Letter) -> Letter:
    """A mask key put in by somebody who can sign, but not as the data holder."""
    assert isinstance(letter.header, Joined)
    thief = SigningKey.from_seed(bytes(32))
    key = msgspec.structs.replace(letter.header.mask_key, signature=thief.sign(PayloadType.MASK_KEY, b"anything"))
    return header_changed(letter, mask_key=key)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (other_key, TamperingError),
        (lambda letter: header_changed(letter, run="0" * 32), MalformedError),
        (lambda letter: header_changed(letter, holder="stranger"), MalformedError),
        (lambda letter: header_changed(letter, holder=BIRCH), TamperingError),
        (lambda _: Letter(ScoreAnswers(ASTER, [])), MalformedError),
    ],
)
def test_an_opening_answered_wrong_is_noticed(ready: Ready, change: Change, error: type[FedcreditError]) -> None:
    with ready.session() as session, pytest.raises(error):
        run(session, ready, Act.QUERY, {ASTER: change})
    assert no_model_of(ready)


def test_the_coordinator_sees_no_single_update(ready: Ready) -> None:
    """What travels is uniform to the eye: about half the bits of a masked vector are set, whoever sends it."""
    seen: list[NDArray[np.uint64]] = []

    def look(letter: Letter) -> Letter:
        seen.append(np.array(letter.arrays["masked"]))
        return letter

    with ready.session() as session:
        run(session, ready, Act.TRAIN, dict.fromkeys(HOLDERS, look))
    bits = np.unpackbits(np.concatenate(seen).view(np.uint8))
    assert len(bits) > 50_000
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(bits))


def test_scores_are_relayed_by_who_was_asked(ready: Ready) -> None:
    with ready.session() as session:
        card = run(session, ready, Act.TRAIN, {}).scorecard
        assert card is not None
        sealed = {ASTER: [b"unreadable"], BIRCH: [b"unreadable"] * 2}

        def relay(changes: Mapping[str, Change]) -> dict[str, list[bytes]]:
            by_node = {session.nodes[name]: change for name, change in changes.items()}
            channel = Meddling(session.channel, Act.QUERY, by_node)
            return relay_scores(channel, session.nodes, card, sealed, deadline_s=DEADLINE_S)

        assert {name: len(answers) for name, answers in relay({}).items()} == {ASTER: 1, BIRCH: 2}
        assert relay({ASTER: silent}).keys() == {BIRCH}
        with pytest.raises(RefusalError, match=f"{ASTER}.*policy"):
            relay({ASTER: refusing(BIRCH, RefusalCode.POLICY)})
        for lie in (ScoreAnswers(ASTER, []), ScoreAnswers(BIRCH, [b"x"])):
            with pytest.raises(MalformedError, match=ASTER):
                relay({ASTER: partial(replace, header=lie)})


def test_of_many_refusals_the_first_few_are_named() -> None:
    told = _told({f"holder-{k:02}": RefusalCode.COHORT for k in range(14)})
    assert told.startswith("holder-00: cohort, holder-01: cohort")
    assert told.endswith("holder-09: cohort and 4 more")
    assert _told({}) == "silence"
