"""A run begins with whoever answers well. Whoever does not is named, and keeps nobody else from beginning."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from federated.messages import Dealt, Header, Joined, LedgerMark, Letter, Received, Refused, ScoreAnswers, SumKeys
from federated.releases import dealing_statement, joined_statement, sum_keys_statement
from federated.trust import TrustModel
from privacy.consent.signing import PayloadType
from privacy.errors import RefusalCode, RefusalError
from server.answers import SILENT
from server.cohort import OTHER_KEYS
from tests.server.fakes import FakeHolder, identity_of, names, plan_of
from tests.server.table import EVERYBODY, Change, Table, five, silent

A, B, C, D, E = EVERYBODY
OTHERS = (B, C, D, E)


def _joined(**changes: object) -> Change:
    def change(holder: FakeHolder, letter: Letter) -> Letter:
        assert isinstance(letter.header, Joined)
        return Letter(holder.signed_joined(msgspec.structs.replace(letter.header, **changes)))

    return change


def _keys(change_keys: Callable[[SumKeys], SumKeys]) -> Change:
    """Keys that are changed before they are signed."""

    def change(holder: FakeHolder, letter: Letter) -> Letter:
        header = letter.header
        assert isinstance(header, Joined)
        assert header.keys is not None
        keys = change_keys(header.keys)
        statement = sum_keys_statement(header.run, holder.name, keys.channel, keys.stages, keys.seeds)
        signed = msgspec.structs.replace(keys, signature=holder.identity.sign(PayloadType.SUM_KEYS, statement))
        return Letter(holder.signed_joined(msgspec.structs.replace(header, keys=signed)))

    return change


def _instead(header: Header) -> Change:
    return lambda _holder, _letter: Letter(header)


def _thief(holder: FakeHolder, letter: Letter) -> Letter:
    """Keys put in by somebody who can sign, but not as the data holder."""
    header = letter.header
    assert isinstance(header, Joined)
    assert header.keys is not None
    statement = sum_keys_statement(header.run, holder.name, header.keys.channel, header.keys.stages, header.keys.seeds)
    forged = msgspec.structs.replace(header.keys, signature=identity_of("thief").sign(PayloadType.SUM_KEYS, statement))
    return Letter(holder.signed_joined(msgspec.structs.replace(header, keys=forged)))


def _unsigned_joining(holder: FakeHolder, letter: Letter) -> Letter:
    assert isinstance(letter.header, Joined)
    return Letter(msgspec.structs.replace(letter.header, ledger=LedgerMark(10**9, bytes(32))))


def _replaced(**changes: object) -> Change:
    return _keys(lambda keys: msgspec.structs.replace(keys, **changes))


def test_what_is_signed_says_all_that_matters() -> None:
    keys = (bytes(32), [bytes([1]) * 32], [bytes([2]) * 32])
    assert sum_keys_statement("run", "a", *keys) != sum_keys_statement("run", "b", *keys)
    joined = Joined("a", "run", None, LedgerMark(1, bytes(32)), b"")
    for change in (
        {"holder": "b"},
        {"run": "other"},
        {"keys": SumKeys(*keys, b"")},
        {"ledger": LedgerMark(2, bytes(32))},
    ):
        assert joined_statement(msgspec.structs.replace(joined, **change)) != joined_statement(joined)
    assert joined_statement(msgspec.structs.replace(joined, signature=b"x")) == joined_statement(joined)


ODD_ANSWERS: dict[str, tuple[Change, str]] = {
    "silence": (silent, "no answer before the deadline"),
    "a refusal": (_instead(Refused(A, RefusalCode.POLICY)), "policy"),
    "another run": (_joined(run="0" * 32), "another run"),
    "no keys": (_joined(keys=None), "none where they are"),
    "a thief's signature": (_thief, "signature"),
    "no signature": (_joined(keys=SumKeys(bytes(32), [], [], b"")), "not lawful"),
    "a short key": (_replaced(channel=bytes([9]) * 31), "not lawful"),
    "a key that shares nothing": (_replaced(channel=bytes(32)), "not lawful"),
    "too few keys": (_keys(lambda k: msgspec.structs.replace(k, stages=k.stages[1:], seeds=k.seeds[1:])), "number"),
    "more keys than seeds": (_keys(lambda k: msgspec.structs.replace(k, seeds=k.seeds[1:])), "not lawful"),
    "one key twice": (_keys(lambda k: msgspec.structs.replace(k, stages=[k.stages[0]] * len(k.stages))), "two are"),
    "a ledger below nothing": (_joined(ledger=LedgerMark(-1, bytes(32))), "ledger's mark"),
    "a mark that it did not sign": (_unsigned_joining, "signature"),
    "a short mark": (_joined(ledger=LedgerMark(0, b"")), "ledger's mark"),
    "something else": (_instead(ScoreAnswers(A, [])), "ScoreAnswers"),
    "a later step": (_instead(Received(A, "0" * 32, [])), "Received"),
    "a stranger's name": (_joined(holder="stranger"), "no answer before the deadline"),
    "arrays": (lambda _, letter: Letter(letter.header, {"words": np.zeros(1)}), "other arrays"),
}


@pytest.mark.parametrize("what", ODD_ANSWERS)
def test_an_odd_answer_to_the_opening_leaves_its_sender_out_and_nobody_else(tmp_path: Path, what: str) -> None:
    change, said = ODD_ANSWERS[what]
    cohort = five(tmp_path).open({("opening", A): change}).cohort
    assert cohort.members == OTHERS
    assert cohort.absent.keys() == {A}
    assert said in cohort.absent[A].reason


def test_two_nodes_of_one_data_holder_are_one_too_many(tmp_path: Path) -> None:
    made = five(tmp_path)
    twin = FakeHolder(A, made.plan, made.stages, signed=made.signed)
    cohort = made.open(extra=[twin]).cohort
    assert cohort.members == OTHERS
    assert "two nodes" in cohort.absent[A].reason


def test_who_says_it_is_another_puts_nobody_out_without_that_ones_key(tmp_path: Path) -> None:
    made = five(tmp_path)
    cohort = made.open({("opening", A): _joined(holder=B)}).cohort
    assert cohort.members == OTHERS
    assert cohort.absent[A] is SILENT


def test_a_false_refusal_in_anothers_name_is_overheard(tmp_path: Path) -> None:
    cohort = five(tmp_path).open({("opening", A): _instead(Refused(B, RefusalCode.BUDGET))}).cohort
    assert cohort.members == OTHERS


def test_keys_that_two_data_holders_have_are_taken_from_neither(tmp_path: Path) -> None:
    made = Table(plan_of(6), tmp_path)
    stolen: list[SumKeys] = []

    def take(holder: FakeHolder, letter: Letter) -> Letter:
        assert isinstance(letter.header, Joined)
        assert letter.header.keys is not None
        stolen.append(letter.header.keys)
        return letter

    copy = _keys(lambda keys: msgspec.structs.replace(keys, channel=stolen[0].channel))
    cohort = made.open({("opening", A): take, ("opening", B): copy}).cohort
    assert cohort.members == names(6)[2:]
    assert {absence.reason for absence in cohort.absent.values()} == {"its keys are another data holder's too"}


def test_keys_where_nothing_is_masked_are_odd(tmp_path: Path) -> None:
    made = five(tmp_path, TrustModel.HOLDER_NOISE)
    keys = SumKeys(bytes(32), [], [], b"")
    cohort = made.open({("opening", A): _joined(keys=keys)}).cohort
    assert cohort.members == OTHERS
    assert "where none are needed" in cohort.absent[A].reason


def test_a_ledger_shorter_than_it_was_is_noticed(tmp_path: Path) -> None:
    made = five(tmp_path)
    made.run()
    other = Table(plan_of(5), tmp_path, ends=1)
    for holder in other.holders.values():
        holder.ledger = 4
    cohort = other.open({("opening", A): _joined(ledger=LedgerMark(3, bytes(32)))}).cohort
    assert cohort.members == OTHERS
    assert "lost entries" in cohort.absent[A].reason
    # And by the data holder itself, which is told how far it had come.
    fresh = Table(plan_of(5), tmp_path, ends=2)
    with pytest.raises(RefusalError, match="holder-0: integrity") as caught:
        fresh.open()
    assert caught.value.code is RefusalCode.INTEGRITY


def _dealt(change_sealed: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Change:
    def change(holder: FakeHolder, letter: Letter) -> Letter:
        header = letter.header
        assert isinstance(header, Dealt)
        sealed = change_sealed(header.sealed)
        signature = holder.identity.sign(PayloadType.DEALING, dealing_statement(header.run, holder.name, sealed))
        return Letter(Dealt(holder.name, header.run, sealed, signature))

    return change


def _unsigned(holder: FakeHolder, letter: Letter) -> Letter:
    assert isinstance(letter.header, Dealt)
    return Letter(
        msgspec.structs.replace(letter.header, sealed=dict.fromkeys(letter.header.sealed, bytes(2 * 33 * 4 + 16)))
    )


def _of_another_run(holder: FakeHolder, letter: Letter) -> Letter:
    assert isinstance(letter.header, Dealt)
    return Letter(msgspec.structs.replace(letter.header, run="0" * 32))


ODD_DEALINGS: dict[str, tuple[Change, str]] = {
    "silence": (silent, "no answer"),
    "a share too few": (_dealt(lambda s: {name: share for name, share in s.items() if name != B}), "everybody"),
    "a share too many": (_dealt(lambda s: {**s, A: s[B]}), "everybody"),
    "shares of twenty megabytes": (_dealt(lambda s: dict.fromkeys(s, bytes(20_000_000))), "another size"),
    "one share longer": (_dealt(lambda s: {**s, B: s[B] + b"x"}), "another size"),
    "unsigned": (_unsigned, "signature"),
    "another run": (_of_another_run, "another run"),
    "a refusal": (_instead(Refused(A, RefusalCode.REPLAY)), "replay"),
    "something else": (_instead(Received(A, "0" * 32, [])), "Received"),
}


@pytest.mark.parametrize("what", ODD_DEALINGS)
def test_an_odd_dealing_leaves_its_dealer_out_and_nobody_else(tmp_path: Path, what: str) -> None:
    change, said = ODD_DEALINGS[what]
    cohort = five(tmp_path).open({("dealing", A): change}).cohort
    assert cohort.members == OTHERS
    assert said in cohort.absent[A].reason


def _odd_receipt(holder: FakeHolder, letter: Letter) -> Letter:
    return Letter(Received(holder.name, "0" * 32, []))


@pytest.mark.parametrize("change", [silent, _odd_receipt, _instead(Received(B, "0" * 32, []))])
def test_an_odd_receipt_leaves_everybody_a_member(tmp_path: Path, change: Change) -> None:
    assert five(tmp_path).open({("delivery", A): change}).cohort.members == (A, *OTHERS)


def test_too_few_joining_is_a_refusal_that_names_holders_and_codes(tmp_path: Path) -> None:
    changes = {(f"{step}", name): _instead(Refused(name, code)) for step, name, code in (
        ("opening", A, RefusalCode.BUDGET), ("opening", B, RefusalCode.POLICY)
    )}  # fmt: skip
    with pytest.raises(RefusalError, match=f"{A}: budget, {B}: policy") as caught:
        five(tmp_path).open(changes)
    assert caught.value.code is RefusalCode.BUDGET
    assert "Nothing was released or charged" in str(caught.value)


def test_who_dealt_too_late_the_first_time_is_delivered_to_nobody(tmp_path: Path) -> None:
    made = five(tmp_path)
    made.run({("dealing", A): silent})
    again, releases = made.run()
    assert again.cohort.members == OTHERS
    assert again.cohort.absent == {A: SILENT}
    assert [tuple(release.updates) for release in releases] == [OTHERS] * 4


def test_a_run_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    made = five(tmp_path)
    first = made.open({("opening", A): silent}).cohort
    again = made.open({("opening", E): silent}).cohort
    assert again.members == first.members == OTHERS
    assert again.absent == first.absent == {A: SILENT}
    changes = {("opening", D): _instead(Refused(D, RefusalCode.CONSENT)), ("opening", E): silent}
    with pytest.raises(RefusalError, match=rf"2 data holders are here.*{D}: consent, {E}: no answer") as caught:
        made.open(changes)
    assert caught.value.code is RefusalCode.CONSENT
    assert "Nothing was" not in str(caught.value)
    assert "what was charged stays charged" in str(caught.value)


def test_whoever_comes_back_with_other_keys_is_out_of_a_run_that_was_begun(tmp_path: Path) -> None:
    made = five(tmp_path)
    made.open()
    made.holders[A].secret = bytes(32)
    _, releases = made.run()
    assert {tuple(release.left_out.items()) for release in releases} == {((A, OTHER_KEYS.reason),)}
