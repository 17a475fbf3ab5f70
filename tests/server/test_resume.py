"""A run that was cut short goes on from where it was, without asking again what was answered."""

from pathlib import Path

import pytest

from federated.messages import Letter, Update
from federated.trust import TrustModel
from privacy.errors import RefusalError
from tests.server.fakes import LAST, FakeHolder
from tests.server.table import EVERYBODY, Change, Once, Table, check_sums, five, silent, step_of, unreachable

A, B, C, D, E = EVERYBODY


def _cut_short(made: Table, step: str) -> None:
    with pytest.raises(RefusalError):
        made.run({(step, name): unreachable for name in (A, B)})


@pytest.mark.parametrize("trust", list(TrustModel))
def test_it_goes_on_without_one_that_is_gone_for_good(tmp_path: Path, trust: TrustModel) -> None:
    made = five(tmp_path, trust)
    _cut_short(made, "update 3")
    first = [total.tolist() for total, _ in made.recipe.seen]
    gone = made.holders.pop(E)
    for holder in made.holders.values():
        holder.asked.clear()
    made.noise = lambda stage: made.noise_of(17, stage)
    run, releases = made.run()
    assert run.cohort.members == EVERYBODY
    assert [total.tolist() for total, _ in made.recipe.seen[:2]] == first
    asked = {step_of(header) for holder in made.holders.values() for header in holder.asked}
    assert asked.isdisjoint({"dealing", "update 1", "update 2", "unmasking 1", "unmasking 2"})
    made.holders[E] = gone
    if trust is not TrustModel.COORDINATOR_NOISE:
        check_sums(made, releases, {3: (E,), LAST: (E,)})
    assert releases[2].left_out == {E: "no answer before the deadline, or none that can be read"}


def test_what_came_before_the_masks_were_off_is_not_asked_again(tmp_path: Path) -> None:
    made = five(tmp_path)
    _cut_short(made, "unmasking 2")
    before = {name: len(holder.words) for name, holder in made.holders.items()}
    _, releases = made.run({("update 2", name): unreachable for name in EVERYBODY})
    check_sums(made, releases, {})
    assert before == dict.fromkeys(EVERYBODY, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {("update 2", A): silent, ("unmasking 1", B): unreachable},
        {("dealing", C): silent},
        {("delivery", A): unreachable},
    ],
)
def test_a_run_repeated_gives_the_same_to_the_bit_whoever_was_away(
    tmp_path: Path, changes: dict[tuple[str, str], Change]
) -> None:
    made = five(tmp_path)
    first, releases = made.run(changes)
    again, repeated = made.run({("opening", D): silent})
    assert repeated == releases
    assert again.cohort.absent == first.cohort.absent


def test_a_moment_away_at_the_delivery_costs_no_stage(tmp_path: Path) -> None:
    """One more than may be away of any stage is away for a moment each."""
    made = five(tmp_path)
    _, releases = made.run({("delivery", A): Once(unreachable), ("update 2", B): silent})
    check_sums(made, releases, {2: (B,)})


def test_a_ledger_that_lost_a_release_in_the_middle_of_a_run_is_left_out_and_its_mark_not_kept(tmp_path: Path) -> None:
    made = five(tmp_path)

    def restored(holder: FakeHolder, letter: Letter) -> Letter:
        """Its new ledger goes on from the old one, and in time is longer than it was."""
        assert isinstance(letter.header, Update)
        stage = int(letter.header.release.rpartition("/")[2])
        holder.ledger = 2 if stage == 3 else 9
        return holder.signed_update(stage, letter.arrays["words"])

    _, releases = made.run({("update 3", A): restored, ("update 4", A): restored})
    assert [dict(release.left_out) for release in releases[:2]] == [{}, {}]
    for release in releases[2:]:
        assert release.left_out == {A: "its privacy ledger has lost entries since its last release"}
    assert made.marks.of([A])[A].size == 2
    assert made.marks.of([B])[B].size == LAST


def test_a_lost_ledger_is_remembered_over_a_new_try(tmp_path: Path) -> None:
    made = five(tmp_path)

    def restored(holder: FakeHolder, letter: Letter) -> Letter:
        holder.ledger = 2
        return holder.signed_update(3, letter.arrays["words"])

    with pytest.raises(RefusalError):
        made.run({("update 3", A): restored, ("update 4", B): unreachable, ("update 4", C): unreachable})
    made.holders[A].ledger = 9
    _, releases = made.run()
    for release in releases[2:]:
        assert release.left_out == {A: "its privacy ledger has lost entries since its last release"}
