"""Whatever comes back over a grid, the channel hands on at most one letter of each node that was asked."""

from collections.abc import Iterable
from typing import Any, cast

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from federated.channel import Act
from federated.flower import read_letter, write_letter
from federated.in_process import InProcessGrid
from federated.messages import Letter, Refused
from privacy.errors import RefusalCode
from server import grid_channel
from server.grid_channel import POLL_S, GridChannel


def refusal(name: str) -> Letter:
    return Letter(Refused(name, RefusalCode.LANE))


class Answering:
    """A grid that answers every message with `contents`, each a letter, an error or other records.

    The answers are there at the look number `after`, counted from 0. Time passes only while the channel waits.
    """

    def __init__(self, contents: list[Letter | Error | RecordDict], *, stranger: bool = False, after: int = 0) -> None:
        self.contents, self.stranger, self.after = contents, stranger, after
        self.replies: list[Message] = []
        self.looks, self.now = 0, 100.0

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        self.replies = [self._reply(message, content) for message in messages for content in self.contents]
        return ["1"]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        assert list(message_ids) == ["1"]
        self.looks += 1
        return self.replies if self.looks > self.after else []

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def _reply(self, message: Message, content: Letter | Error | RecordDict) -> Message:
        made: Any = write_letter(content) if isinstance(content, Letter) else content
        message.metadata.__dict__["_message_id"] = "1"
        reply = Message(made, reply_to=message)
        if self.stranger:
            reply.metadata.__dict__["_src_node_id"] = 99
        return reply


def asked(grid: Answering) -> dict[int, Letter]:
    InProcessGrid(cast(Any, None), {})  # without a task, Flower builds no message
    channel = GridChannel(cast(Grid, grid), clock=lambda: grid.now, wait=grid.wait)
    return channel.ask({5: refusal("question")}, act=Act.QUERY, deadline_s=2.5)


def test_of_two_answers_the_first_counts() -> None:
    grid = Answering([refusal("first"), refusal("second")])
    assert {node: letter.header for node, letter in asked(grid).items()} == {5: refusal("first").header}
    assert (grid.looks, grid.now) == (1, 100.0)


def test_an_answer_is_waited_for_until_the_deadline_and_no_longer() -> None:
    late = Answering([refusal("first")], after=5)
    assert list(asked(late)) == [5]
    assert late.now == pytest.approx(100.0 + 5 * POLL_S)
    never = Answering([refusal("first")], after=1000)
    assert asked(never) == {}
    assert never.now == pytest.approx(102.5)


def test_who_holds_a_look_up_beyond_the_deadline_costs_nobody_else_its_answer() -> None:
    grid = Answering([refusal("first")], after=1)
    look = grid.pull_messages

    def held_up(message_ids: Iterable[str]) -> list[Message]:
        grid.now += 15.0
        return look(message_ids)

    grid.pull_messages = held_up  # type: ignore[method-assign]
    assert list(asked(grid)) == [5]
    grid.after, grid.looks, grid.now = 1000, 0, 100.0
    assert asked(grid) == {}
    assert grid.looks == 2  # and not a third time


def test_a_message_that_the_grid_does_not_take_is_not_waited_for() -> None:
    grid = Answering([refusal("first")])
    grid.push_messages = lambda messages: [None for _ in messages]  # type: ignore[method-assign,misc]  # as Flower does
    assert asked(grid) == {}
    assert grid.looks == 0


def test_an_error_or_what_cannot_be_read_is_silence() -> None:
    assert asked(Answering([Error(2, "MalformedError")])) == {}
    assert asked(Answering([RecordDict()])) == {}
    assert asked(Answering([])) == {}


def test_who_asks_nobody_does_not_wait() -> None:
    grid = Answering([refusal("first")])
    assert GridChannel(cast(Grid, grid)).ask({}, act=Act.QUERY, deadline_s=2.5) == {}
    assert grid.looks == 0


def test_a_node_that_was_not_asked_is_not_heard() -> None:
    assert asked(Answering([refusal("first")], stranger=True)) == {}


def test_an_answer_that_breaks_while_it_is_read_is_silence_and_the_next_is_heard(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[RecordDict] = []

    def breaks(records: RecordDict) -> Letter:
        read.append(records)
        if len(read) == 1:
            raise RuntimeError("row of Doe")
        return read_letter(records)

    monkeypatch.setattr(grid_channel, "read_letter", breaks)
    assert asked(Answering([refusal("first"), refusal("second")]))[5].header == refusal("second").header
    assert "RuntimeError" in caplog.text
    assert "Doe" not in caplog.text
