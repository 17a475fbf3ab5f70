"""Flower's own steps of a SuperNode's loop, with ours around them: a run that ends leaves nothing behind."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from clients.holder.in_step import PULL, PUSH, keep_in_step
from federated.flower import write_letter
from federated.messages import Letter, Refused
from privacy.errors import RefusalCode

ENDED, GOES_ON = 7, 8


class Node:
    """One SuperNode's loop, step by step; `ends_at` is where a run ends while a message of it comes in."""

    def __init__(self, loop: Any) -> None:
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self._loop = loop
        self.store = InMemoryObjectStore(verify=False)
        self.state = InMemoryNodeState(object_store=self.store)
        self.state.set_node_id(1)
        for run in (ENDED, GOES_ON):
            self.state.store_run(SimpleNamespace(run_id=run, fab_hash="", primary_task_type="", series_id=run))  # type: ignore[arg-type]
        self.sent: list[str] = []

    def asked(self, run: int, *, ends_at: str | None = None) -> tuple[Message, int | None]:
        """A message of the run that comes in, and what the step returns."""
        TaskIdentity.run_id = run
        message = Message(write_letter(Letter(Refused("aster-bank", RefusalCode.PLAN))), 1, "train")
        message.metadata.__dict__["_message_id"] = message.object_id
        parts = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}

        def over(step: str) -> None:
            if ends_at == step:
                raise RunNotRunningException

        def pull_object(_: int, name: str) -> bytes:
            over("parts")
            return parts[name]

        taken = self._loop._pull_and_store_message(
            state=self.state, object_store=self.store, node_config={}, get_run=None, get_fab=None,
            receive=lambda: (remove_content_from_message(message), get_object_tree(message)),
            pull_object=pull_object, confirm_message_received=lambda *_: over("confirmed"), trusted_entities=None,
        )  # fmt: skip
        return message, taken

    def nothing_asked(self) -> int | None:
        taken: int | None = self._loop._pull_and_store_message(
            state=self.state, object_store=self.store, node_config={}, receive=lambda: None, get_run=None,
            get_fab=None, pull_object=None, confirm_message_received=None, trusted_entities=None,
        )  # fmt: skip
        return taken

    def answered(self, message: Message) -> None:
        """The worker's reply to it lies there."""
        TaskIdentity.run_id = message.metadata.run_id
        reply = Message(RecordDict(), reply_to=message)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        self.store.preregister(message.metadata.run_id, get_object_tree(reply))
        for name, part in get_all_nested_objects(reply).items():
            self.store.put(name, part.deflate())
        self.state.store_message(remove_content_from_message(reply))

    def sends(self, wait: Callable[[], None]) -> None:
        """The step that sends; `wait` is called whenever it waits for a reply."""

        def send(message: Message, *_: object) -> tuple[set[str], str]:
            if message.metadata.run_id == ENDED:
                raise RunNotRunningException
            self.sent.append(message.metadata.reply_to_message_id)
            return set(), ""

        self._loop.time = SimpleNamespace(sleep=lambda _: wait())
        self._loop._push_messages(state=self.state, object_store=self.store, send=send, push_object=None)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in (PULL, PUSH, "time"):
        monkeypatch.setattr(start_client_internal, name, getattr(start_client_internal, name))  # put back afterwards
    monkeypatch.setattr(InMemoryNodeState, "get_message_processing_duration", lambda *_, **__: 0.0)
    keep_in_step(start_client_internal)
    return start_client_internal


def no_wait() -> None:
    raise AssertionError("nothing more will come")


def test_a_message_and_its_reply(loop: ModuleType) -> None:
    node = Node(loop)
    message, taken = node.asked(GOES_ON)
    assert taken == GOES_ON
    node.sends(lambda: node.answered(message))
    assert node.sent == [message.metadata.message_id]
    assert node.nothing_asked() is None
    assert node.state.msg_store == {}


@pytest.mark.parametrize("where", ["parts", "confirmed"])
def test_what_is_forgotten_half_way_is_not_answered(loop: ModuleType, where: str) -> None:
    node = Node(loop)
    message, taken = node.asked(ENDED, ends_at=where)
    assert taken is None
    assert node.state.msg_store == {}
    assert node.store.get(message.metadata.message_id) is None


def test_the_reply_to_what_was_forgotten_is_not_sent_in_anothers_place(loop: ModuleType) -> None:
    node = Node(loop)
    forgotten, _ = node.asked(ENDED, ends_at="confirmed")
    node.answered(forgotten)  # a worker had it already
    message, _ = node.asked(GOES_ON)
    waited = 0

    def wait() -> None:
        nonlocal waited
        waited += 1
        if waited == 3:
            node.answered(message)

    node.sends(wait)
    assert node.sent == [message.metadata.message_id]
    assert node.state.msg_store == {}
    assert waited == 3


def test_both_replies_at_once_are_sent_at_once(loop: ModuleType) -> None:
    node = Node(loop)
    forgotten, _ = node.asked(ENDED, ends_at="confirmed")
    message, _ = node.asked(GOES_ON)
    node.answered(forgotten)
    node.answered(message)
    node.sends(no_wait)
    assert node.sent == [message.metadata.message_id]
