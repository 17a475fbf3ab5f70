"""Flower's tasks, fetched and answered by our own programs instead of by processes that Flower starts.

A SuperNode (or SuperLink) that runs with `--isolation process` hands each message (or run) as a task to whoever knows
its secret. Fetching them ourselves keeps one warm process at a data holder, which runs its own installed code whatever
the run's app bundle holds, and lets the coordinator's loop be a program in the foreground. It relies on internal
modules of Flower's, all of them imported here and in `federated.flower_grid`; the version is bounded in pyproject.toml.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx
import msgspec
from flwr.app import Context, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SubStatus
from flwr.common.serde import (
    context_from_proto,
    context_to_proto,
    message_from_proto,
    message_to_proto,
)
from flwr.proto.message_pb2 import Context as ContextProto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.runtime.tracing import RuntimeTracingInterceptor
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from federated.app_bundle import digest_of, files
from federated.flower import read_letter, write_failure, write_letter
from federated.flower_grid import RunGrid
from federated.messages import Letter
from privacy.errors import RefusalCode, RefusalError

PATIENCE_S: Final = 60.0
"""How long an exchange with Flower's runtime API is tried again: as long as it may take to be started anew."""
STALLED_S: Final = 15.0
"""After so long without another part of a message it is given up: its run has ended, and no more of it comes."""
_WRITTEN_ANEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_digest_of: Final = lru_cache(maxsize=1)(digest_of)  # a run's bundle comes with each of its messages
_PROTECTED: Final = frozenset({"/flwr.proto.Runtime/AcquireTask"})


class KilledError(Exception):
    """Whoever was to answer was killed before."""


class StalledError(Exception):
    """No more of a message comes."""


class _Begun(msgspec.Struct, frozen=True):
    """A message that is being answered: its task with the token, and its envelope. Nothing of what it holds."""

    token: str
    task: int
    message: bytes
    context: bytes


class TaskDesk:
    """Where the tasks of one SuperNode or SuperLink are fetched."""

    def __init__(
        self,
        address: str,
        secret: bytes,
        *,
        ca: bytes | None,
        patience_s: float = PATIENCE_S,
        begun: Path | None = None,
    ) -> None:
        """`address` is HOST:PORT of the runtime API; `ca` certifies it, None is plain HTTP within this machine.

        For `patience_s` seconds it is asked again if nobody listens there. The file `begun` remembers the message that
        is being answered, for `give_up`.
        """
        self._address, self._ca, self._patience_s, self._begun = address, ca, patience_s, begun
        guard = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_PROTECTED)
        self._runtime = self._connected(guard)

    def message(self) -> "NodeTask | None":
        """The next message of a SuperNode, or None. RefusalError (internal) if it cannot be asked."""
        token = self._acquired(TaskType.CLIENT_APP)
        if token is None:
            return None
        runtime = self._connected(RuntimeTokenHttpInterceptor(token))
        with _reaching():
            task = NodeTask(runtime, begun=self._begun)
        task.remember(token)
        return task

    def give_up(self) -> None:
        """Say of the message that was being answered when this program was killed that there is no answer.

        A SuperNode hands out one message at a time, and would itself wait for a minute. If it cannot be told, it does.
        """
        if self._begun is None:
            return
        try:
            begun = msgspec.msgpack.decode(self._begun.read_bytes(), type=_Begun)
            message = message_from_proto(MessageProto.FromString(begun.message))
            context = context_from_proto(ContextProto.FromString(begun.context))
        except Exception:  # there is none, or it was killed while it wrote this
            return
        self._begun.unlink(missing_ok=True)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = begun.task, context.run_id, context.node_id
        runtime = self._connected(RuntimeTokenHttpInterceptor(begun.token))
        with suppress(httpx.HTTPError):
            push_message(runtime, write_failure(KilledError(), reply_to=message), context)
            push_task_output(client=runtime, context=context, sub_status=SubStatus.FAILED, details="")
        runtime.close()

    def run(self, *, pushed: Callable[[], None]) -> "RunTask | None":
        """The next run of a SuperLink, or None. RefusalError (internal) if it cannot be asked.

        `pushed` is called whenever its grid has pushed messages.
        """
        token = self._acquired(TaskType.SERVER_APP)
        if token is None:
            return None
        guard = RuntimeTokenHttpInterceptor(token)
        brief = self._connected(guard, _patient(PATIENCE_S, failures=False))
        return RunTask(self._connected(guard, _patient(PATIENCE_S)), brief, pushed=pushed)

    def close(self) -> None:
        """Give the connection back."""
        self._runtime.close()

    def _acquired(self, kind: TaskType) -> str | None:
        with _reaching():
            answer = self._runtime.AcquireTask(AcquireTaskRequest(supported_task_types={kind}))
        return str(answer.token) if answer.HasField("task") and answer.token else None

    def _connected(
        self, guard: SuperExecAuthHttpInterceptor | RuntimeTokenHttpInterceptor, retry: RetryInvoker | None = None
    ) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=self._ca is None,
            root_certificates=self._ca,
            interceptors=[RuntimeTracingInterceptor(), RuntimeVersionHttpInterceptor("fedcredit"), guard],
            retry_invoker=retry or _patient(self._patience_s),
        )


class NodeTask:
    """One message to a data holder's node, with the app bundle that its run was started with.

    While it is open the SuperNode hears that somebody works on it.
    """

    def __init__(self, runtime: RuntimeHttpClient, *, begun: Path | None = None) -> None:
        self._runtime, self._begun = runtime, begun
        self._alive = HeartbeatSender(partial(_beat, runtime))
        self._alive.start()
        self._message: Message
        self._context: Context
        # A SuperNode hands out a message before it has all of it, and never says that it will not get the rest.
        runtime.PullObject = _unless_stalled(runtime.PullObject)  # type: ignore[assignment, method-assign]
        try:
            self._message, self._context, _, bundle = pull_task_input(runtime)
        except BaseException as error:
            if isinstance(error, Exception):
                # Otherwise it would wait for about a minute before it hands out the next message.
                push_task_output(client=runtime, context=None, sub_status=SubStatus.FAILED, details="")
            self.close()
            raise
        self._bundle = bundle.content

    def bundle_digest(self) -> str:
        """The digest of the run's app bundle, over what came and not what was said. MalformedError if it is none."""
        return _digest_of(self._bundle)

    def letter(self) -> Letter:
        """What the coordinator wrote. MalformedError if it is no letter."""
        return read_letter(self._message.content)

    def remember(self, token: str) -> None:
        """Write down what it takes to give this message up after this program was killed. A full disk is no matter."""
        if self._begun is None or TaskIdentity.task_id is None:
            return
        message = message_to_proto(remove_content_from_message(self._message)).SerializeToString()
        context = context_to_proto(self._context).SerializeToString()
        content = msgspec.msgpack.encode(_Begun(token, TaskIdentity.task_id, message, context))
        with suppress(OSError), os.fdopen(os.open(self._begun, _WRITTEN_ANEW, 0o600), "wb") as file:
            file.write(content)

    def answer(self, letter: Letter) -> None:
        """Send the answer; the task is done. RefusalError (internal) if it was given up meanwhile."""
        self._send(Message(write_letter(letter), reply_to=self._message), SubStatus.COMPLETED)

    def fail(self, error: Exception) -> None:
        """Say that there is no answer: the error's class, and nothing of its text. RefusalError as for an answer."""
        self._send(write_failure(error, reply_to=self._message), SubStatus.FAILED)

    def close(self) -> None:
        """Stop saying that somebody works on it."""
        with suppress(RuntimeError):  # it is not running, which is what is wanted
            self._alive.stop()
        self._runtime.close()

    def _send(self, message: Message, status: str) -> None:
        if self._begun is not None:  # first: a message with two answers would keep all later ones one behind
            with suppress(OSError):
                self._begun.unlink(missing_ok=True)
        with _reaching():
            push_message(self._runtime, message, self._context)
            push_task_output(client=self._runtime, context=self._context, sub_status=status, details="")


class RunTask:
    """One run of ours at a SuperLink, and the grid that it is run over."""

    def __init__(self, runtime: RuntimeHttpClient, brief: RuntimeHttpClient, *, pushed: Callable[[], None]) -> None:
        """`brief` is for what is tried again by whoever uses the grid, and not below it; `pushed` is for the grid."""
        self._runtime = runtime
        self._alive = HeartbeatSender(partial(_beat, self._runtime))
        self._alive.start()
        given = self._runtime.PullTaskInput(PullTaskInputRequest())
        # Flower refuses to build a message outside a task.
        TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        self.number: Final = int(given.run.run_id)
        self.grid: Final = RunGrid(runtime, brief, self.number, pushed=pushed)

    def end(self, *, completed: bool) -> None:
        """Tell SuperLink that the run is over. It is told no more than that, and not at all if it is gone."""
        status = SubStatus.COMPLETED if completed else SubStatus.FAILED
        with suppress(httpx.HTTPError):
            self._runtime.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=""))
        with suppress(RuntimeError):
            self._alive.stop()
        self.grid.close()


@contextmanager
def answered(task: NodeTask) -> Iterator[NodeTask]:
    """A task that is given back at the end of the block, whatever happens in it."""
    try:
        yield task
    finally:
        task.close()


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise RefusalError(
            "Flower's runtime API on this machine does not answer, or no longer knows the task "
            f"({type(error).__name__}). If that lasts, start the program that serves it again; its log says why it "
            "ended.",
            RefusalCode.INTERNAL,
        ) from None


def _unless_stalled(
    pull: Callable[[PullObjectRequest], PullObjectResponse], *, clock: Callable[[], float] = time.monotonic
) -> Callable[[PullObjectRequest], PullObjectResponse]:
    """As `pull`, until nothing has come for `STALLED_S` seconds: then StalledError."""
    came = clock()

    def pull_or_give_up(request: PullObjectRequest) -> PullObjectResponse:
        nonlocal came
        answer = pull(request)
        if not answer.object_found or answer.object_available:
            came = clock()
        elif clock() - came >= STALLED_S:
            raise StalledError
        return answer

    return pull_or_give_up


def _patient(patience_s: float, *, failures: bool = True) -> RetryInvoker:
    """Tries again while nobody listens, or also if what listens answers with a failure of its own.

    Flower's own interrupts this process when it is told that a task is over.
    """
    silence = (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.ConnectTimeout)
    return RetryInvoker(
        lambda: exponential(base_delay=0.1, max_delay=2),
        (*silence, httpx.HTTPStatusError) if failures else silence,
        max_tries=None,
        max_time=patience_s,
        should_giveup=_is_refused,
    )


def _is_refused(error: Exception) -> bool:
    """Whether it was answered with a no. A SuperLink on a busy machine finds its own database locked now and then."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR


def _beat(runtime: RuntimeHttpClient) -> bool:
    """Say that somebody works on the task. Whoever works on it learns from the answer's failure that it is over."""
    try:
        runtime.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    except httpx.HTTPStatusError:
        return True  # the task is over; there is nothing to try again
    except httpx.HTTPError:
        return False
    return True


def packed_bundle() -> bytes:
    """The app bundle of this installation, as Flower packs it."""
    from flwr.cli.build import build_fab_from_files  # with all of Flower's command line, which no worker needs

    return bytes(build_fab_from_files(files())[0])


def secret_in(path: Path) -> bytes:
    """The secret (any bytes) that both sides of a runtime API were given. RefusalError if it cannot be read."""
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise RefusalError(
            f"{path.name} cannot be read ({error.strerror}). Give its directory's owner the right to read it, or start "
            "the program that makes it again.",
            RefusalCode.INTERNAL,
        ) from None
    if not secret:
        raise RefusalError(f"{path.name} is empty. Start the program that makes it again.", RefusalCode.INTERNAL)
    return secret
