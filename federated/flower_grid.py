"""The grid of one of our runs: letters out and back, and no data holder's part in it can hold up another's.

Flower's own grid waits, for up to two hours, until the last part of an answer is there, takes the sender's word for who
the sender is, and builds whatever was sent in memory. This one looks, takes what is whole, and goes on. Like
`federated.flower_tasks` it relies on Flower's internal modules.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Final, TypeVar

import httpx
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import GetNodesRequest, PullAppMessagesRequest, PushAppMessagesRequest
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_head_values_from_object_content,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.runtime import RuntimeHttpClient

from privacy.errors import MalformedError

_LOG = logging.getLogger(__name__)
MOST_PARTS: Final = 64
"""Of one answer. A letter has three, two for each of its arrays, and one for each 5 MiB of them."""
MOST_BYTES: Final = 80 << 20
"""Of one answer. The largest model has 64 MiB; what lies around it takes little."""
MOST_HEADER_BYTES: Final = 8 << 20
"""Of a part that holds a header: Flower builds up to sixteen times as much from it."""
MOST_FRAME_BYTES: Final = 64 << 10
"""Of a part that holds other parts: their names, and what there is to say of an array."""
PUSH_TRIES: Final = 4
_PAUSE_S: Final = 0.2
_HEADER, _ARRAY, _CHUNK = "ConfigRecord", "Array", "ArrayChunk"
_OF_THE_MESSAGE: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})

Given = TypeVar("Given")
Asked = TypeVar("Asked")


@dataclass
class _Arriving:
    """An answer of which not everything has come."""

    envelope: Message
    root: str
    missing: list[str]
    parts: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


class RunGrid:
    """The nodes of one run at a SuperLink."""

    def __init__(
        self,
        runtime: RuntimeHttpClient,
        brief: RuntimeHttpClient,
        run: int,
        *,
        pushed: Callable[[], None] = lambda: None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """`brief` does not try again what SuperLink answers with a failure of its own, as `runtime` does.

        `pushed` is called once messages that were pushed can be fetched.
        """
        self._runtime, self._brief, self._run, self._tell, self._wait = runtime, brief, run, pushed, wait
        self._node = Node(node_id=SUPERLINK_NODE_ID)
        self._arriving: dict[str, _Arriving] = {}

    def get_node_ids(self) -> list[int]:
        """The nodes that are online now."""
        return [node.node_id for node in self._runtime.GetNodes(GetNodesRequest()).nodes]

    def push_messages(self, messages: Iterable[Message]) -> list[str | None]:
        """The identities of the messages; None for each that SuperLink does not take, which are in nobody's way.

        httpx.HTTPError if SuperLink is away, or has ended the run.
        """
        try:
            return [self._pushed(message) for message in messages]
        finally:
            self._tell()

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to these messages that are there whole, each handed out once; nothing is waited for.

        A reply that no node of ours would send comes as an error, and its class is logged. httpx.HTTPError as above.
        """
        replies: list[Message] = []
        wanted = list(message_ids)
        for identity in wanted:
            if identity not in self._arriving:
                self._look(identity, replies)
        # Those with few parts first: nobody's large answer keeps the others' waiting until the deadline is over.
        for identity in sorted(self._arriving.keys() & set(wanted), key=lambda one: len(self._arriving[one].missing)):
            self._fetch(identity, self._arriving[identity], replies)
        return replies

    def close(self) -> None:
        """Give the connections back."""
        self._brief.close()
        self._runtime.close()

    def _pushed(self, message: Message) -> str | None:
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            envelope = message_to_proto(remove_content_from_message(message))
            tree = get_object_tree(message)
            parts = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        request = PushAppMessagesRequest(messages_list=[envelope], message_object_trees=[tree])
        try:
            given = self._again(self._brief.PushMessages, request)
            (identity,) = given.message_ids
            for name in set(given.objects_to_push):
                part = PushObjectRequest(
                    node=self._node, run_id=self._run, object_id=name, object_content=parts[name],
                    session_id=given.session_id,
                )  # fmt: skip
                if not self._again(self._brief.PushObject, part).stored:
                    raise MalformedError("SuperLink has closed the session that the message was pushed in.")
        except (httpx.HTTPStatusError, httpx.ReadTimeout, KeyError, ValueError, MalformedError) as error:
            _raise_if_over(error)
            _LOG.warning("a message could not be pushed (%s); its node counts as silent", type(error).__name__)
            return None
        return identity or None

    def _again(self, call: Callable[[Asked], Given], request: Asked) -> Given:
        """SuperLink on a busy machine finds its own database locked now and then."""
        for attempt in range(1, PUSH_TRIES):
            try:
                return call(request)
            except httpx.HTTPStatusError as error:
                if error.response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                self._wait(_PAUSE_S * attempt)
        return call(request)

    def _look(self, identity: str, replies: list[Message]) -> None:
        """One by one: what SuperLink cannot tell of one message is then told of the others."""
        try:
            given = self._brief.PullMessages(PullAppMessagesRequest(message_ids=[identity]))
            for proto, tree in zip(given.messages_list, given.message_object_trees, strict=True):
                if proto.metadata.reply_to_message_id != identity or identity in self._arriving:
                    continue
                envelope = message_from_proto(proto)
                self._arriving[identity] = _Arriving(envelope, proto.metadata.message_id, list(_parts(tree)))
        except httpx.HTTPStatusError as error:
            _raise_if_over(error)  # else it is looked for again
        except (httpx.ReadTimeout, ValueError, MalformedError) as error:
            self._drop(identity, error, replies)

    def _fetch(self, identity: str, reply: _Arriving, replies: list[Message]) -> None:
        """What there is of it, up to the first part that is not there."""
        try:
            while reply.missing:
                request = PullObjectRequest(node=self._node, run_id=self._run, object_id=reply.missing[-1])
                answer = self._brief.PullObject(request)
                if not answer.object_found:
                    raise MalformedError("a part of the answer is not known to SuperLink")
                if not answer.object_available:
                    return
                reply.size += len(answer.object_content)
                if reply.size > MOST_BYTES:
                    raise MalformedError("the answer is larger than a letter")
                reply.parts[reply.missing.pop()] = answer.object_content
            message = _built(reply)
        except httpx.HTTPStatusError as error:
            _raise_if_over(error)  # else what is missing is asked for again
        except httpx.TransportError as error:
            if not isinstance(error, httpx.ReadTimeout):
                raise
            self._drop(identity, error, replies)
        except Exception as error:  # the sender may have written anything
            self._drop(identity, error, replies)
        else:
            del self._arriving[identity]
            self._confirm(reply)
            replies.append(message)

    def _drop(self, identity: str, error: Exception, replies: list[Message]) -> None:
        # A text of Flower's may quote what was sent, so only the class is told; of ours, the text.
        reason = str(error) if isinstance(error, MalformedError) else type(error).__name__
        _LOG.warning("an answer was dropped unread (%s); it counts as silence", reason)
        reply = self._arriving.pop(identity, None)
        if reply is not None:
            self._confirm(reply)
        metadata = Metadata(
            run_id=self._run, message_id="", src_node_id=SUPERLINK_NODE_ID, dst_node_id=SUPERLINK_NODE_ID,
            reply_to_message_id=identity, group_id="", created_at=0.0, ttl=0.0, message_type=SYSTEM_MESSAGE_TYPE,
        )  # fmt: skip
        replies.append(make_message(metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, type(error).__name__)))

    def _confirm(self, reply: _Arriving) -> None:
        """SuperLink need not keep it; it does until the run's end if it cannot be told now."""
        request = ConfirmMessageReceivedRequest(node=self._node, run_id=self._run, message_object_id=reply.root)
        with suppress(httpx.HTTPError):
            self._brief.ConfirmMessageReceived(request)


def _parts(tree: ObjectTree) -> Iterator[str]:
    """The names of an answer's parts, each once, the answer itself first. MalformedError for more than a letter has."""
    names = [one.object_id for one in islice(iterate_object_tree(tree), MOST_PARTS + 1)]
    if len(names) > MOST_PARTS:
        raise MalformedError("the answer has more parts than a letter")
    return reversed(dict.fromkeys(names))


def _built(reply: _Arriving) -> Message:
    """The message that all parts together are, from whom SuperLink says. Raises whatever for what is none."""
    repeated = 0
    for content in reply.parts.values():
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind != _CHUNK and len(content) > (MOST_HEADER_BYTES if kind == _HEADER else MOST_FRAME_BYTES):
            raise MalformedError("a part of the answer is larger than a letter's")
        if kind == _ARRAY:  # it may name one piece of itself as often as it likes
            named = json.loads(content.partition(b"\0")[2])["arraychunk_ids"]
            repeated += sum(len(reply.parts[children[number]]) for number in named)
    if repeated > MOST_BYTES:
        raise MalformedError("the answer's arrays are larger than a letter's")
    found = inflate_object_from_contents(reply.root, reply.parts)
    if not isinstance(found, Message):
        raise MalformedError("the answer is no message")
    if found.has_error():
        return make_message(reply.envelope.metadata, error=found.error)
    return make_message(reply.envelope.metadata, content=found.content)


def _raise_if_over(error: Exception) -> None:
    """Raise what SuperLink answers to every request of a run that it has ended, or does not let in."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        if status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _OF_THE_MESSAGE:
            raise error
