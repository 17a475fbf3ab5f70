"""Flower's grid without its network: every message passes Flower's own serialisation, in one process, without Ray.

Flower's only simulation backend needs Ray; this grid runs the same ServerApp and ClientApp. It relies on two of
Flower's internal modules, `flwr.common.serde` and `flwr.supercore.task_identity`.
"""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from federated.flower import write_failure

NodeConfig = Mapping[str, bool | float | int | str]

_ONE_PROCESS = 1


class InProcessGrid(Grid):
    """A grid whose nodes are `client_app` with one configuration each, called one after another."""

    def __init__(self, client_app: ClientApp, nodes: Mapping[int, NodeConfig]) -> None:
        # Flower refuses to build a message outside a task: this process is task, run and node in one.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = _ONE_PROCESS
        self._app = client_app
        self._contexts = {
            node: Context(_ONE_PROCESS, node, dict(config), RecordDict(), {}) for node, config in nodes.items()
        }
        self._replies: dict[str, Message] = {}
        self._run: Any = None

    def set_run(self, run: Any) -> None:
        """Flower's bookkeeping; the value is kept and not used."""
        self._run = run

    @property
    def run(self) -> Any:
        """What `set_run` was given."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """All nodes: none of them is ever away."""
        return sorted(self._contexts)

    def get_nodes(self) -> Iterable[Any]:
        """Not known here: an in-process node has no connection to describe."""
        return []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver each message and keep its reply; returns the message ids."""
        return [self._deliver(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, each handed out once."""
        return [self._replies.pop(identity) for identity in message_ids if identity in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:  # noqa: ARG002 (Flower's)
        """Deliver all messages and return their replies, in the order of the messages."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> str:
        message.metadata.__dict__["_message_id"] = identity = str(uuid.uuid4())
        received = message_from_proto(message_to_proto(message))
        try:
            reply = self._app(received, self._contexts[received.metadata.dst_node_id])
        except Exception as error:  # what Flower's own runtime does with an app that raises, less the text
            reply = write_failure(error, reply_to=received)
        self._replies[identity] = message_from_proto(message_to_proto(reply))
        return identity
