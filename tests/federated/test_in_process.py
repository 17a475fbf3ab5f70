"""The grid without a network behaves as Flower's: bytes in between, one reply a message, failures stay small."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.app import app_for
from clients.holder.node import Holder
from experiments.session import Session
from federated.channel import Act
from federated.flower import read_letter, write_letter
from federated.in_process import InProcessGrid
from federated.messages import Instruction, Letter, Refused, decode_header, encode_header
from privacy.errors import RefusalCode, TamperingError
from server.coordinator import Coordinator
from server.grid_channel import GridChannel, wait_for_nodes
from server.rounds import no_progress
from tests.small_federation import small_federation

AT = 1_793_491_200
QUESTION = Letter(Instruction("run", 1, []), {"x": np.array([1.0, -0.0, 5e-324])})


def _echo(seen: list[tuple[str, int, object]]) -> ClientApp:
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        name = context.node_config["name"]
        seen.append((message.metadata.message_type, context.node_id, name))
        if name == "raises":
            raise ValueError("could not convert string to float: 'Doe'")
        if name == "nonsense":
            return Message(RecordDict({"header": ConfigRecord({"json": b"\\xff"})}), reply_to=message)
        return Message(message.content, reply_to=message)

    app.query()(answer)
    app.train()(answer)
    app.evaluate()(answer)
    return app


def _grid(*names: str) -> tuple[InProcessGrid, list[tuple[str, int, object]]]:
    seen: list[tuple[str, int, object]] = []
    return InProcessGrid(_echo(seen), {n: {"name": name} for n, name in enumerate(names, start=1)}), seen


def _message(node: int, act: Act = Act.TRAIN) -> Message:
    return Message(write_letter(QUESTION), node, act.value)


@pytest.mark.parametrize("act", list(Act))
def test_every_act_reaches_the_handler_of_its_kind_and_its_own_node_only(act: Act) -> None:
    grid, seen = _grid("first", "second")
    answers = GridChannel(grid).ask({2: QUESTION}, act=act, deadline_s=1)
    assert seen == [(act.value, 2, "second")]
    assert answers[2].header == QUESTION.header
    assert answers[2].arrays["x"].tobytes() == QUESTION.arrays["x"].tobytes()


def test_a_message_is_copied_through_bytes_both_ways() -> None:
    received: list[RecordDict] = []
    returned: list[RecordDict] = []
    app = ClientApp()

    @app.train()
    def keep(message: Message, context: Context) -> Message:
        received.append(message.content)
        returned.append(write_letter(QUESTION))
        return Message(returned[0], reply_to=message)

    sent = _message(1)
    (reply,) = InProcessGrid(app, {1: {}}).send_and_receive([sent])
    for before, after in ((sent.content, received[0]), (returned[0], reply.content)):
        assert read_letter(after).arrays["x"].tobytes() == read_letter(before).arrays["x"].tobytes()
        assert all(after[name] is not before[name] for name in before)


def test_replies_come_in_the_order_of_the_messages_and_once() -> None:
    grid, _ = _grid("first", "second", "third")
    assert [reply.metadata.src_node_id for reply in grid.send_and_receive([_message(n) for n in (3, 1, 2)])] == [
        3,
        1,
        2,
    ]
    identities = list(grid.push_messages([_message(2), _message(1)]))
    assert len(list(grid.pull_messages(identities))) == 2
    assert list(grid.pull_messages(identities)) == []
    assert list(grid.pull_messages(["unknown"])) == []


def test_the_nodes_are_those_given_in_order() -> None:
    grid = InProcessGrid(_echo([]), {5: {"name": "b"}, 2: {"name": "a"}})
    assert grid.get_node_ids() == GridChannel(grid).nodes() == [2, 5]


def test_an_app_that_raises_leaves_its_class_only_and_the_others_answer() -> None:
    grid, _ = _grid("first", "raises", "third")
    replies = list(grid.send_and_receive([_message(n) for n in (1, 2, 3)]))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].error.reason == "ValueError"


def test_a_node_that_fails_or_sends_nonsense_counts_as_silent() -> None:
    grid, _ = _grid("first", "raises", "nonsense", "fourth")
    answers = GridChannel(grid).ask(dict.fromkeys((1, 2, 3, 4), QUESTION), act=Act.TRAIN, deadline_s=1)
    assert sorted(answers) == [1, 4]


def test_waiting_for_nodes_ends_with_enough_nodes_or_with_the_deadline() -> None:
    grid, _ = _grid("first", "second")
    channel = GridChannel(grid)
    ticks = iter(range(100))
    wait_for_nodes(channel, 2, deadline_s=0, clock=lambda: next(ticks))
    wait_for_nodes(channel, 3, deadline_s=0.01, clock=lambda: next(ticks))
    assert next(ticks) < 10


class _NoApp:
    """The data holders asked directly: Flower's records and this grid must add and lose nothing."""

    def __init__(self, holders: list[Holder]) -> None:
        self._holders = dict(enumerate(holders, start=1))

    def nodes(self) -> list[int]:
        return list(self._holders)

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:  # noqa: ARG002
        return {
            node: self._holders[node].answer(Letter(decode_header(encode_header(letter.header)), letter.arrays), at=AT)
            for node, letter in letters.items()
        }


def test_a_run_over_flowers_messages_gives_what_the_data_holders_give_when_asked_directly(tmp_path: Path) -> None:
    outcomes = []
    for name in ("messages", "direct"):
        federation, registry = small_federation(tmp_path / name, people=300, at=AT, steps=1)
        with closing(registry), Session(federation.directory, lambda: AT, registry) as session:
            if name == "messages":
                outcomes.append(session.run(no_progress))
            else:
                coordinator = Coordinator(federation.coordinator_directory)
                channel = _NoApp(list(session.holders.values()))
                outcomes.append(coordinator.run(channel, no_progress, deadline_s=1))
    first, second = outcomes
    assert first.scorecard is not None
    assert second.scorecard is not None
    assert first.scorecard.to_json() == second.scorecard.to_json()
    assert first.released is not None
    assert second.released is not None
    np.testing.assert_array_equal(first.released.bads, second.released.bads)
    assert first.holders == second.holders == ("aster-bank", "birch-telecom", "cedar-power")


def test_a_data_holder_that_cannot_start_is_silent_and_says_why_in_its_own_log_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(directory: str) -> Holder:
        raise TamperingError("ledger.db was rolled back. Its operator should look.")

    grid = InProcessGrid(app_for(broken, lambda: AT), {1: {"holder-directory": "somewhere"}})
    (reply,) = grid.send_and_receive([_message(1, Act.QUERY)])
    assert reply.has_error()
    assert reply.error.reason == "TamperingError"
    assert "rolled back" in caplog.text


def test_a_text_that_is_not_ours_reaches_neither_the_coordinator_nor_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Called as Flower's runtime calls it: whatever the app raised there would travel word for word."""

    def broken(directory: str) -> Holder:
        raise ValueError("could not convert string to float: 'Doe'")

    app = app_for(broken, lambda: AT)
    grid, _ = _grid("first")  # makes Flower believe that this process runs a task
    grid.set_run(None)
    message = _message(1, Act.QUERY)
    message.metadata.__dict__["_message_id"] = "1"
    reply = app(message, Context(1, 1, {"holder-directory": "somewhere"}, RecordDict(), {}))
    assert reply.error.reason == "ValueError"
    assert "Doe" not in caplog.text


def test_a_data_holder_answers_letters_of_the_wrong_kind_with_a_code(tmp_path: Path) -> None:
    federation, registry = small_federation(tmp_path / "federation", people=300, at=AT)
    with closing(registry), Session(federation.directory, lambda: AT, registry) as session:
        letters = dict.fromkeys(session.nodes.values(), Letter(Refused("aster-bank", RefusalCode.PLAN)))
        answers = session.channel.ask(letters, act=Act.QUERY, deadline_s=1)
    assert {node: answer.header for node, answer in answers.items()} == {
        node: Refused(name, RefusalCode.PLAN) for name, node in session.nodes.items()
    }
