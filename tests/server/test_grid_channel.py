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
from server.grid_channel import GridChannel


def refusal(name: str) -> Letter:
    return Letter(Refused(name, RefusalCode.LANE))


class Answering:
    """A grid that answers every message with `contents`, each a letter, an error or other records."""

    def __init__(self, contents: list[Letter | Error | RecordDict], *, stranger: bool = False) -> None:
        self.contents, self.stranger = contents, stranger
        self.timeouts: list[float | None] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        self.timeouts.append(timeout)
        return [self._reply(message, content) for message in messages for content in self.contents]

    def _reply(self, message: Message, content: Letter | Error | RecordDict) -> Message:
        made: Any = write_letter(content) if isinstance(content, Letter) else content
        message.metadata.__dict__["_message_id"] = "1"
        reply = Message(made, reply_to=message)
        if self.stranger:
            reply.metadata.__dict__["_src_node_id"] = 99
        return reply


def asked(grid: Answering) -> dict[int, Letter]:
    InProcessGrid(cast(Any, None), {})  # without a task, Flower builds no message
    return GridChannel(cast(Grid, grid)).ask({5: refusal("question")}, act=Act.QUERY, deadline_s=2.5)


def test_of_two_answers_the_first_counts() -> None:
    grid = Answering([refusal("first"), refusal("second")])
    assert {node: letter.header for node, letter in asked(grid).items()} == {5: refusal("first").header}
    assert grid.timeouts == [2.5]


def test_an_error_or_what_cannot_be_read_is_silence() -> None:
    assert asked(Answering([Error(2, "MalformedError")])) == {}
    assert asked(Answering([RecordDict()])) == {}
    assert asked(Answering([])) == {}


def test_who_asks_nobody_does_not_wait() -> None:
    grid = Answering([refusal("first")])
    assert GridChannel(cast(Grid, grid)).ask({}, act=Act.QUERY, deadline_s=2.5) == {}
    assert grid.timeouts == []


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
