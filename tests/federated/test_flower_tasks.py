"""A message whose worker is killed is given up by the worker's next life; one that was answered is not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from federated import flower_tasks
from federated.flower import write_letter
from federated.flower_tasks import KilledError, NodeTask, TaskDesk
from federated.messages import Instruction, Letter, Refused
from privacy.errors import RefusalCode

WORDS = np.arange(40, dtype=np.float64)
LETTER = Letter(Instruction("run", 1, ["aster-bank", "birch-telecom"]), {"start": WORDS})
NO = Letter(Refused("aster-bank", RefusalCode.INTERNAL))
TASK, RUN, NODE = 11, 22, 33


class Node:
    """A SuperNode's runtime API with one message, and what was said to it."""

    def __init__(self) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = TASK, RUN, NODE
        self.message = Message(write_letter(LETTER), 44, "train")
        self.message.metadata.__dict__["_message_id"] = self.message.object_id
        self.said: list[Message] = []
        self.tokens: list[str] = []

    def input(self, _: object) -> tuple[Message, Context, None, SimpleNamespace]:
        context = Context(run_id=RUN, node_id=NODE, node_config={}, state=RecordDict(), run_config={})
        return self.message, context, None, SimpleNamespace(content=b"bundle")

    def take(self, _: object, message: Message, context: Context) -> None:
        assert (context.run_id, context.node_id) == (RUN, NODE)
        self.said.append(message)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    found = Node()

    def connected(_: TaskDesk, guard: Any) -> SimpleNamespace:
        found.tokens.append(getattr(guard, "_token", ""))
        return SimpleNamespace(close=lambda: None, PullObject=None)

    monkeypatch.setattr(flower_tasks, "pull_task_input", found.input)
    monkeypatch.setattr(flower_tasks, "push_message", found.take)
    monkeypatch.setattr(flower_tasks, "push_task_output", lambda **_: None)
    monkeypatch.setattr(flower_tasks, "HeartbeatSender", lambda _: SimpleNamespace(start=lambda: 0, stop=lambda: 0))
    monkeypatch.setattr(TaskDesk, "_connected", connected)
    monkeypatch.setattr(TaskDesk, "_acquired", lambda _, __: "the token")
    return found


def fetched(begun: Path) -> NodeTask:
    task = TaskDesk("127.0.0.1:1", b"secret", ca=None, begun=begun).message()
    assert task is not None
    return task


def test_what_a_killed_worker_was_at_is_answered_with_a_kind_of_error(node: Node, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    fetched(begun)
    assert begun.stat().st_mode & 0o777 == 0o600
    assert WORDS.tobytes()[:64] not in begun.read_bytes()
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 0  # another process
    desk = TaskDesk("127.0.0.1:1", b"secret", ca=None, begun=begun)
    desk.give_up()
    (said,) = node.said
    assert said.error.reason == KilledError.__name__
    assert said.metadata.reply_to_message_id == node.message.metadata.message_id
    assert node.tokens[-1] == "the token"
    desk.give_up()
    assert len(node.said) == 1


def test_what_was_answered_is_not_given_up(node: Node, tmp_path: Path) -> None:
    fetched(tmp_path / "begun").answer(NO)
    TaskDesk("127.0.0.1:1", b"secret", ca=None, begun=tmp_path / "begun").give_up()
    assert len(node.said) == 1


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 50, b"\x84\xa5token\xa1t\xa4task\x01\xa7message\xc4\x01\xff\xa7context\xc4\x00"]
)
def test_what_cannot_be_read_is_left(node: Node, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "begun").write_bytes(content)
    TaskDesk("127.0.0.1:1", b"secret", ca=None, begun=tmp_path / "begun").give_up()
    assert node.said == []
