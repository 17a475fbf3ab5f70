"""A run's grid over a SuperLink in memory: no node's answer, whatever it is, holds up or hurts another node's."""

import json
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse, PushObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    add_header_to_object_body,
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.task_identity import TaskIdentity

from federated import flower_grid
from federated.channel import Act
from federated.flower import write_failure, write_letter
from federated.flower_grid import MOST_BYTES, MOST_FRAME_BYTES, MOST_HEADER_BYTES, MOST_PARTS, PUSH_TRIES, RunGrid
from federated.messages import Letter, Refused
from privacy.errors import RefusalCode
from server.grid_channel import GridChannel

RUN, SOME_BYTES = 7, 1 << 20
Contents = dict[str, bytes]


def status(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://superlink")
    return httpx.HTTPStatusError("locked", request=request, response=httpx.Response(code, request=request))


def letter(name: str) -> Letter:
    return Letter(Refused(name, RefusalCode.LANE), {"words": np.arange(4.0)})


class Link:
    """A SuperLink's runtime API; `fails` names the calls that are answered with an error, and how often."""

    def __init__(self) -> None:
        self.parts: Contents = {}
        self.asked: dict[int, Message] = {}
        self.replies: dict[str, tuple[Any, ObjectTree]] = {}
        self.confirmed: list[str] = []
        self.calls: list[str] = []
        self.fails: dict[str, list[Exception]] = {}

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.fails.get(name):
            raise self.fails[name].pop(0)

    def GetNodes(self, _: Any) -> Any:  # noqa: N802 (Flower's name, as below)
        return SimpleNamespace(nodes=[SimpleNamespace(node_id=node) for node in (2, 1)])

    def PushMessages(self, request: Any) -> Any:  # noqa: N802
        self._call("PushMessages")
        (proto,), (tree,) = request.messages_list, request.message_object_trees
        self.asked[proto.metadata.dst_node_id] = message_from_proto(proto)
        names = [one.object_id for one in iterate_object_tree(tree)]
        return PushAppMessagesResponse(message_ids=[proto.metadata.message_id], objects_to_push=names, session_id="s")

    def PushObject(self, request: Any) -> Any:  # noqa: N802
        self._call("PushObject")
        self.parts[request.object_id] = request.object_content
        return PushObjectResponse(stored=request.session_id == "s")

    def PullMessages(self, request: Any) -> Any:  # noqa: N802
        self._call("PullMessages")
        found = [self.replies.pop(one) for one in request.message_ids if one in self.replies]
        return PullAppMessagesResponse(
            messages_list=[proto for proto, _ in found], message_object_trees=[tree for _, tree in found]
        )

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        self._call("PullObject")
        content = self.parts.get(request.object_id)
        return PullObjectResponse(
            object_found=content is not None, object_available=bool(content), object_content=content or b""
        )

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802
        self._call("ConfirmMessageReceived")
        self.confirmed.append(request.message_object_id)

    def close(self) -> None:
        self.calls.append("close")

    def reply(self, node: int, made: Message | RecordDict, *, without: Callable[[str], bool] = lambda _: False) -> str:
        """`node` answers with all parts but some. Returns the answer's name."""
        asked = self.asked[node]
        message = made if isinstance(made, Message) else Message(made, reply_to=asked)
        message.metadata.__dict__["_src_node_id"] = node
        parts = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        tree = get_object_tree(message)
        self.register(message, tree)
        self.parts |= {name: b"" if without(name) else content for name, content in parts.items()}
        return tree.object_id

    def register(self, message: Message, tree: ObjectTree) -> None:
        envelope = remove_content_from_message(message)
        envelope.metadata.__dict__["_message_id"] = tree.object_id
        self.replies[message.metadata.reply_to_message_id] = (message_to_proto(envelope), tree)


@pytest.fixture
def link() -> Link:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = RUN
    return Link()


def grid_of(link: Link) -> RunGrid:
    client: Any = link
    return RunGrid(client, client, RUN, wait=lambda seconds: link.calls.append(f"waited {seconds:.1f}"))


def pushed(grid: RunGrid, nodes: Iterable[int] = (1, 2)) -> list[str]:
    found = grid.push_messages([Message(write_letter(letter("question")), node, "train") for node in nodes])
    return cast(list[str], found)


def test_letters_go_there_and_back_and_the_receipt_is_confirmed(link: Link) -> None:
    channel = GridChannel(grid_of(link), clock=lambda: 0.0, wait=lambda _: answer())
    roots = list[str]()

    def answer() -> None:
        roots.extend(link.reply(node, write_letter(letter(f"node {node}"))) for node in channel.nodes())

    answers = channel.ask({node: letter("question") for node in channel.nodes()}, act=Act.TRAIN, deadline_s=1)
    assert {node: one.header for node, one in answers.items()} == {
        node: letter(f"node {node}").header for node in (1, 2)
    }
    assert all(one.arrays["words"].tolist() == [0, 1, 2, 3] for one in answers.values())
    assert sorted(link.confirmed) == sorted(roots)


@pytest.mark.parametrize("fails", [False, True])
def test_who_fetches_is_told_once_all_is_there_to_be_fetched(link: Link, *, fails: bool) -> None:
    client: Any = link
    grid = RunGrid(client, client, RUN, pushed=lambda: link.calls.append("told"))
    link.fails["PushObject"] = [httpx.ConnectError("gone")] * fails
    with suppress(httpx.ConnectError):
        pushed(grid)
    assert link.calls.count("told") == 1
    assert link.calls[-1] == "told"
    assert link.calls.count("PushMessages") == 2 - fails


def test_an_answer_whose_parts_never_come_keeps_nobody_waiting_and_is_heard_once_they_do(link: Link) -> None:
    grid = grid_of(link)
    identities = pushed(grid)
    held_back = write_letter(letter("first"))
    names = set(get_all_nested_objects(held_back))
    link.reply(1, held_back, without=names.__contains__)
    link.reply(2, write_letter(letter("second")))
    assert [one.metadata.src_node_id for one in grid.pull_messages(identities)] == [2]
    link.calls.clear()
    assert grid.pull_messages(identities[:1]) == []
    assert link.calls == ["PullObject"]  # one look, for the part that is missing
    link.parts |= {name: part.deflate() for name, part in get_all_nested_objects(held_back).items()}
    assert [one.metadata.src_node_id for one in grid.pull_messages(identities[:1])] == [1]
    assert grid.pull_messages(identities) == []
    assert not any("waited" in call for call in link.calls)


def test_a_nodes_own_error_is_one(link: Link) -> None:
    grid = grid_of(link)
    identities = pushed(grid, [1])
    link.reply(1, write_failure(ValueError("row of Doe"), reply_to=link.asked[1]))
    (reply,) = grid.pull_messages(identities)
    assert reply.error.reason == "ValueError"


def test_who_sent_an_answer_is_what_superlink_says_and_not_what_the_sender_says(link: Link) -> None:
    grid = grid_of(link)
    identities = pushed(grid)
    forged = Message(write_letter(letter("forged")), reply_to=link.asked[1])
    forged.metadata.__dict__["_src_node_id"] = 2
    forged.metadata.__dict__["_reply_to_message_id"] = identities[1]
    tree, parts = get_object_tree(forged), get_all_nested_objects(forged)
    link.parts |= {name: part.deflate() for name, part in parts.items()}
    true = Message(RecordDict(), reply_to=link.asked[1])
    true.metadata.__dict__["_src_node_id"] = 1
    link.register(true, tree)
    (reply,) = grid.pull_messages(identities)
    assert (reply.metadata.src_node_id, reply.metadata.reply_to_message_id) == (1, identities[0])


def many_arrays() -> RecordDict:
    return RecordDict({"arrays": ArrayRecord({f"{n}": Array(np.array([float(n)])) for n in range(MOST_PARTS)})})


def repeating_itself() -> RecordDict:
    """An array of one piece over and over: built, it would be thousands of times as large as what was sent."""
    record = ArrayRecord({"x": Array(np.zeros(12_500))})
    body = {"dtype": "float64", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [0] * (MOST_FRAME_BYTES // 4)}
    content = add_header_to_object_body(json.dumps(body).encode(), record["x"])
    record["x"].deflate = lambda: content  # type: ignore[method-assign]
    assert record["x"].object_id == get_object_id(content)
    return RecordDict({"arrays": record})


@pytest.mark.parametrize(
    ("content", "said", "fetched"),
    [
        (many_arrays, "more parts", 0),
        (lambda: RecordDict({"a": ArrayRecord({"x": Array(np.zeros(SOME_BYTES // 8))})}), "the answer is larger", None),
        (
            lambda: RecordDict({"c": ConfigRecord({"x": bytes(SOME_BYTES // 2)})}),
            "part of the answer is larger",
            None,
        ),
        (lambda: RecordDict({"a" * MOST_FRAME_BYTES: ConfigRecord({})}), "part of the answer is larger", None),
        (repeating_itself, "arrays are larger", None),
    ],
)
def test_what_no_letter_can_be_is_dropped_unbuilt_and_the_others_are_heard(
    link: Link, content: Callable[[], RecordDict], said: str, fetched: int | None,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    grid = grid_of(link)
    identities = pushed(grid)
    link.reply(1, content())
    link.calls.clear()
    assert SOME_BYTES < MOST_HEADER_BYTES < MOST_BYTES
    monkeypatch.setattr(flower_grid, "MOST_BYTES", SOME_BYTES)
    monkeypatch.setattr(flower_grid, "MOST_HEADER_BYTES", SOME_BYTES // 4)
    monkeypatch.setattr(flower_grid, "inflate_object_from_contents", None)  # nothing is built of it
    (dropped,) = grid.pull_messages(identities)
    monkeypatch.undo()
    assert dropped.metadata.reply_to_message_id == identities[0]
    assert dropped.has_error()
    assert said in caplog.text
    if fetched is not None:
        assert link.calls.count("PullObject") == fetched
    assert grid._arriving == {}
    link.reply(2, write_letter(letter("second")))
    assert [one.metadata.src_node_id for one in grid.pull_messages(identities[1:])] == [2]


@pytest.mark.parametrize("damage", [b"", b"no frame", b"Message  0\0", b"Mess\xff 0 0\0", b"Array a,b 2\0{}"])
def test_parts_that_are_nonsense_are_silence(link: Link, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    grid = grid_of(link)
    identities = pushed(grid)
    root = link.reply(1, write_letter(letter("Doe")))
    link.reply(2, write_letter(letter("second")))
    if damage:
        link.parts[root] = damage
    else:
        del link.parts[root]
    found = {one.metadata.reply_to_message_id: one.has_error() for one in grid.pull_messages(identities)}
    assert found == {identities[0]: True, identities[1]: False}
    assert "counts as silence" in caplog.text
    assert "Doe" not in caplog.text


def test_a_message_that_cannot_be_pushed_is_its_own_nodes_matter(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    grid = grid_of(link)
    link.fails["PushMessages"] = [status(500)] * PUSH_TRIES
    identities: list[str | None] = [*pushed(grid)]
    assert identities[0] is None
    assert identities[1] in link.parts
    assert "HTTPStatusError" in caplog.text
    link.fails["PushObject"] = [status(500)] * (PUSH_TRIES - 1)  # its database was locked
    assert pushed(grid, [1])[0] in link.parts


def test_what_superlink_cannot_tell_now_is_asked_again(link: Link) -> None:
    grid = grid_of(link)
    identities = pushed(grid, [1])
    link.reply(1, write_letter(letter("first")))
    for call in ("PullMessages", "PullObject"):
        link.fails[call] = [status(500)]
        assert grid.pull_messages(identities) == []
    link.fails["ConfirmMessageReceived"] = [status(500)]
    assert len(grid.pull_messages(identities)) == 1


@pytest.mark.parametrize("error", [status(401), status(403), httpx.ConnectError("gone")])
@pytest.mark.parametrize("call", ["PushMessages", "PullMessages", "PullObject"])
def test_a_run_that_is_over_is_told_to_whoever_runs_it(link: Link, call: str, error: Exception) -> None:
    grid = grid_of(link)
    identities = pushed(grid, [1])
    link.reply(1, write_letter(letter("first")))
    link.fails[call] = [error]
    with pytest.raises(httpx.HTTPError):
        _ = pushed(grid, [2]), grid.pull_messages(identities)


def test_an_error_without_parts_is_heard(link: Link) -> None:
    """As SuperLink itself writes one for a node that has gone."""
    grid = grid_of(link)
    identities = pushed(grid, [1])
    metadata = Message(RecordDict(), reply_to=link.asked[1]).metadata
    link.reply(1, make_message(metadata, error=Error(3, "gone")))
    assert grid.pull_messages(identities)[0].error.code == 3
