"""A data holder that deals rubbish is named, and where it can be told in time the others go on without it."""

from collections.abc import Collection
from pathlib import Path

import pytest

from federated.messages import Dealt, Letter, Received
from federated.releases import dealing_statement
from privacy.consent.signing import PayloadType
from privacy.errors import RefusalCode, RefusalError
from privacy.secure_sum.secrets import Secrets
from tests.server.fakes import LAST, FakeHolder, plan_of
from tests.server.table import EVERYBODY, Change, Once, Table, check_sums, five, silent, unreachable, without

A, B, C, D, E = EVERYBODY


def rubbish_for(whom: Collection[str]) -> Change:
    def change(holder: FakeHolder, letter: Letter) -> Letter:
        assert isinstance(letter.header, Dealt)
        sealed = {name: bytes(len(s)) if name in whom else s for name, s in letter.header.sealed.items()}
        signature = holder.identity.sign(PayloadType.DEALING, dealing_statement(holder.run, holder.name, sealed))
        return Letter(Dealt(holder.name, holder.run, sealed, signature))

    return change


@pytest.mark.parametrize("whom", [EVERYBODY, (B, C), (C, E)])
def test_who_deals_what_does_not_open_for_more_than_may_lie_is_no_member(tmp_path: Path, whom: tuple[str, ...]) -> None:
    """Those for whom it opened have pinned the longer list, the others the shorter: the sums are the same."""
    made = five(tmp_path)
    run, releases = made.run({("dealing", A): rubbish_for(whom)})
    check_sums(made, releases, dict.fromkeys(range(1, LAST + 1), (A,)))
    assert all(release.left_out == {} for release in releases)
    assert run.cohort.members == without(A)
    accusers = [name for name in whom if name != A]
    assert run.cohort.absent[A].reason == f"the shares that it dealt do not open, say {', '.join(accusers)}"
    again, repeated = made.run()
    assert (repeated, again.cohort.absent) == (releases, run.cohort.absent)


def test_a_run_without_a_dealer_of_rubbish_goes_on_after_it_was_cut_short(tmp_path: Path) -> None:
    made = five(tmp_path)
    changes: dict[tuple[str, str], Change | Once] = {("dealing", A): rubbish_for((B, C)), ("delivery", D): Once(silent)}
    with pytest.raises(RefusalError):
        made.run({**changes, ("update 2", D): silent})
    _, releases = made.run()
    check_sums(made, releases, dict.fromkeys(range(1, LAST + 1), (A,)))


def test_who_was_put_out_stays_out_though_those_who_complained_are_away(tmp_path: Path) -> None:
    made = Table(plan_of(7, dropouts=2), tmp_path)
    first, *_, last = made.holders
    accusers = ("holder-1", "holder-2", "holder-3")
    with pytest.raises(RefusalError, match="round 1"):
        made.run({("dealing", first): rubbish_for(accusers)} | {("update 1", name): unreachable for name in accusers})
    run, releases = made.run({("opening", accusers[0]): silent})
    assert first not in run.cohort.members
    assert {tuple(release.left_out) for release in releases} == {(accusers[0],)}
    assert last in releases[0].updates


def test_as_many_as_may_lie_put_nobody_out(tmp_path: Path) -> None:
    made = five(tmp_path)
    lies: Change = lambda holder, _: Letter(Received(holder.name, holder.run, [A, C]))  # noqa: E731
    run, releases = made.run({("delivery", B): lies})
    check_sums(made, releases, {})
    assert run.cohort.absent == {}


@pytest.mark.parametrize("faulty", [[B], [C, A], [A, A], ["stranger"]])
def test_odd_complaints_are_none(tmp_path: Path, faulty: list[str]) -> None:
    made = five(tmp_path)
    odd: Change = lambda holder, _: Letter(Received(holder.name, holder.run, faulty))  # noqa: E731
    run = made.open({("delivery", B): odd})
    assert run.cohort.absent == {}
    assert run.cohort.deliveries is not None
    assert "complains" in run.cohort.deliveries.missing[B].reason


def test_where_nobody_may_be_missing_one_complaint_ends_the_run_and_names_the_dealer(tmp_path: Path) -> None:
    made = Table(plan_of(3, dropouts=0, minimum=3), tmp_path)
    with pytest.raises(RefusalError, match=rf"2 data holders dealt shares that open.*{A}: .*say {B}") as caught:
        made.run({("dealing", A): rubbish_for([B])})
    assert caught.value.code is RefusalCode.INTEGRITY
    assert "Nothing was released or charged" in str(caught.value)


def wrong_seeds(holder: FakeHolder, letter: Letter) -> Letter:
    """Well sealed shares of other seeds than it committed to."""
    secrets = Secrets(holder.secret, run=holder.run, holder=holder.name, stages=LAST)
    secrets._seeds = tuple(bytes([seed[0] ^ 1]) + seed[1:] for seed in secrets._seeds)
    sealed = secrets.deal(holder._joined, threshold=holder._threshold)
    signature = holder.identity.sign(PayloadType.DEALING, dealing_statement(holder.run, holder.name, sealed))
    return Letter(Dealt(holder.name, holder.run, sealed, signature))


def test_who_deals_shares_of_something_else_is_named_when_it_shows(tmp_path: Path) -> None:
    made = five(tmp_path)
    said = rf"the shares that {A} dealt before the first release do not give what it committed to.*another without"
    with pytest.raises(RefusalError, match=said) as caught:
        made.run({("dealing", A): wrong_seeds})
    assert caught.value.code is RefusalCode.INTEGRITY
    assert "then run the same plan again" not in str(caught.value)


def test_with_nobody_to_spare_whoever_helps_may_have_lied_instead(tmp_path: Path) -> None:
    made = five(tmp_path)
    with pytest.raises(RefusalError, match=rf"{A} dealt .* committed to, unless one of those who helped lies"):
        made.run({("dealing", A): wrong_seeds, ("unmasking 1", B): silent})


def test_a_delivery_that_is_missed_for_good_leaves_out_one(tmp_path: Path) -> None:
    made = five(tmp_path)
    _, releases = made.run({("delivery", B): unreachable})
    check_sums(made, releases, dict.fromkeys(range(1, LAST + 1), (B,)))
