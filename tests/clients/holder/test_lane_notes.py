"""What the lane copy notes besides the lane: uses within their limit, runs, and marks that are no runs."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients.holder.lane_epochs import announce
from privacy.consent.limits import DAY_S
from privacy.consent.record import Uses
from privacy.errors import TamperingError, UsageError
from tests.clients.holder.lane_scene import AT, SETTINGS, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_use_is_entered_once_for_each_request(scene: Scene) -> None:
    handle = scene.yes.handle
    with scene.copy() as lane:
        assert lane.enter_use(handle, "lender", "nonce", at=AT)
        assert not lane.enter_use(handle, "lender", "nonce", at=AT + 1)
        assert lane.enter_use(handle, "other-lender", "nonce", at=AT)
        assert lane.enter_use(handle, "lender", "another", at=AT + 2)
    with scene.copy() as lane:
        assert sorted(lane.past_uses(handle, "lender")) == [AT, AT + 2]


def test_a_limit_of_uses_is_counted_like_the_gate_counts_it(scene: Scene) -> None:
    handle, limit = scene.yes.handle, Uses(n=2, per_s=1000)
    window = 1000 + SETTINGS.policy.clock_skew_s
    with scene.copy() as lane:
        assert lane.enter_use(handle, "lender", "first", at=AT, limit=limit)
        assert lane.enter_use(handle, "lender", "second", at=AT + 1, limit=limit)
        assert not lane.enter_use(handle, "lender", "third", at=AT + window - 1, limit=limit)
        assert lane.enter_use(handle, "other-lender", "third", at=AT + 2, limit=limit)
        assert lane.enter_use(scene.no.handle, "lender", "third", at=AT + 2, limit=limit)
        assert lane.enter_use(handle, "lender", "third", at=AT + window, limit=limit)  # the first is `per_s` old
        assert not lane.enter_use(handle, "lender", "fourth", at=AT + window, limit=limit)
        assert not lane.enter_use(handle, "lender", "fourth", at=AT - 10**6, limit=limit)  # nor by a clock set back
        assert len(lane.past_uses(handle, "lender")) == 3
        assert lane.enter_use(handle, "lender", "fourth", at=AT + window)  # without a limit


def test_two_processes_enter_no_more_uses_than_the_limit_between_them(scene: Scene) -> None:
    limit = Uses(n=5, per_s=1000)
    with scene.copy() as one, scene.copy() as other, ThreadPoolExecutor(4) as threads:
        answers = [
            threads.submit((one, other)[use % 2].enter_use, scene.yes.handle, "lender", str(use), at=AT, limit=limit)
            for use in range(24)
        ]
        assert sum(answer.result() for answer in answers) == 5
        assert len(one.past_uses(scene.yes.handle, "lender")) == 5


USE_EDITS = {
    "at another time": "UPDATE uses SET at = at - 1000000",
    "under another nonce": "UPDATE uses SET nonce = 'another'",
    "for another recipient": "UPDATE uses SET recipient = 'other-lender'",
    "about another person": "UPDATE uses SET handle = zeroblob(32)",
}


@pytest.mark.parametrize("edit", USE_EDITS)
def test_an_edited_use_is_noticed(scene: Scene, edit: str) -> None:
    with scene.copy() as lane:
        lane.enter_use(scene.yes.handle, "lender", "nonce", at=AT)
        scene.edit(USE_EDITS[edit])
        if edit in ("at another time", "under another nonce"):  # the other two look deleted until the next start
            with pytest.raises(TamperingError):
                lane.past_uses(scene.yes.handle, "lender")
    with pytest.raises(TamperingError):
        scene.copy()


def test_an_edited_run_is_noticed(scene: Scene) -> None:
    with scene.copy() as lane:
        lane.keep_run("run", b"first")
        scene.edit("UPDATE runs SET accepted = x'00'")
        with pytest.raises(TamperingError):
            lane.kept_run("run")
    with pytest.raises(TamperingError):
        scene.copy()


def test_a_run_is_kept_as_it_was_first_joined(scene: Scene) -> None:
    with scene.copy() as lane:
        lane.keep_run("run", b"first")
        lane.keep_run("run", b"second")
    with scene.copy() as lane:
        assert lane.kept_run("run") == b"first"
        assert lane.kept_run("other") is None


def test_a_mark_is_no_run_and_a_run_is_no_mark(scene: Scene) -> None:
    with scene.copy() as lane:
        announce(lane, 2)
        lane.keep_mark("doubt 1")
        assert lane.has_mark("doubt 1")
        assert not lane.has_mark("doubt 2")
        for name in ("epoch 2", "mark epoch 2", "doubt 1", "mark doubt 1"):
            assert lane.kept_run(name) is None
            with pytest.raises(UsageError, match="space"):
                lane.keep_run(name, b"x")


def test_openings_are_counted_for_a_day_and_each_run_once(scene: Scene) -> None:
    day = DAY_S + SETTINGS.policy.clock_skew_s
    with scene.copy() as lane:
        assert lane.enter_opening("a", at=AT, most=2)
        assert lane.enter_opening("b", at=AT + 5, most=2)
        assert lane.enter_opening("a", at=AT + 6, most=2)
        assert not lane.enter_opening("c", at=AT + 6, most=2)
    with scene.copy() as lane:
        assert not lane.enter_opening("c", at=AT + day - 1, most=2)
        assert not lane.enter_opening("c", at=AT - 10 * DAY_S, most=2)  # by a clock that was set back
        assert lane.enter_opening("c", at=AT + day, most=2)
        assert not lane.enter_opening("d", at=AT + day, most=2)
        assert lane.enter_opening("a", at=AT + day, most=2)  # opened before: free for ever
        assert lane.kept_run("a") is None
        lane.keep_run("a", b"accepted")
        assert lane.kept_run("a") == b"accepted"


def test_an_edited_opening_is_noticed(scene: Scene) -> None:
    with scene.copy() as lane:
        assert lane.enter_opening("a", at=AT, most=1)
    scene.edit("UPDATE runs SET accepted = zeroblob(8)")
    with pytest.raises(TamperingError):
        scene.copy()


def test_two_processes_open_no_more_runs_than_one(scene: Scene) -> None:
    def enter(number: int) -> bool:
        with scene.copy() as lane:
            return lane.enter_opening(f"run{number}", at=AT, most=3)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(enter, range(8))) == 3
