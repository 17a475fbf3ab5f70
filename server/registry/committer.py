"""Group commit: what arrives while one commit runs goes into the next one together."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Final, TypeVar

from privacy.consent.limits import MAX_SUBMISSIONS
from privacy.errors import FedcreditError, RefusalCode
from server.registry.appends import Append
from server.registry.metrics import Metrics
from server.registry.store import Registry
from server.registry.tables import DatabaseUnavailableError

Value = TypeVar("Value")

MOST_WAITING: Final = 16 * MAX_SUBMISSIONS
"""Records that may wait for a commit: a second's work. Beyond it a wallet had better come back later."""


@dataclass(frozen=True, slots=True)
class _Waiter:
    append: Append
    answer: asyncio.Future[list[bytes] | FedcreditError]


class Committer:
    """One thread that does all of a registry's database work, so that the event loop never waits for a disk.

    Under load the next commit fills while the last one runs, up to 256 records. There is no waiting for more to
    arrive: a fixed 50 ms would cost a lone wallet 50 ms, and gain nothing when many submit, because a commit of many
    takes little longer than a commit of one.
    """

    def __init__(self, registry: Registry, clock: Callable[[], int], metrics: Metrics) -> None:
        self._registry, self._clock, self._metrics = registry, clock, metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._waiting: deque[_Waiter] = deque()
        self._records_waiting = 0
        self._committing: asyncio.Task[None] | None = None

    async def append(self, append: Append) -> list[bytes]:
        """The signed promises for what was durably appended. Raises what a refused append was refused for."""
        if self._records_waiting + len(append.entries) > MOST_WAITING:
            raise DatabaseUnavailableError(
                "The registry has more records waiting than it can store at once. Send the same request again in a "
                "few seconds.",
                RefusalCode.LANE,
            )
        waiter = _Waiter(append, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._records_waiting += len(append.entries)
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
        # A wallet that hangs up does not undo what waits with others for the same commit.
        answer = await asyncio.shield(waiter.answer)
        if isinstance(answer, FedcreditError):
            raise answer
        return answer

    async def call(self, work: Callable[[], Value]) -> Value:
        """The result of other work on the database, done in the same thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Commit what still waits, answer it, and let the thread go."""
        if self._committing is not None:
            await self._committing
        self._thread.shutdown()

    async def _commit_all(self) -> None:
        while self._waiting:
            group = self._next_group()
            try:
                answers = await self.call(partial(self._commit, [waiter.append for waiter in group]))
            except FedcreditError as error:
                answers = [error] * len(group)
            except BaseException as error:
                # A fault of ours ends this group, not the registry, and nobody waits for ever.
                for waiter in group:
                    waiter.answer.set_exception(error)
                continue
            finally:
                self._records_waiting -= sum(len(waiter.append.entries) for waiter in group)
            for waiter, answer in zip(group, answers, strict=True):
                waiter.answer.set_result(answer)
        self._committing = None

    def _next_group(self) -> list[_Waiter]:
        group = [self._waiting.popleft()]
        records = len(group[0].append.entries)
        while self._waiting and records + len(self._waiting[0].append.entries) <= MAX_SUBMISSIONS:
            group.append(self._waiting.popleft())
            records += len(group[-1].append.entries)
        return group

    def _commit(self, appends: list[Append]) -> list[list[bytes] | FedcreditError]:
        """In the thread: commit, then sign; nothing is promised that is not on the disk."""
        started = perf_counter()
        answers = self._registry.commit(appends, at=self._clock())
        self._metrics.committed(sum(len(append.entries) for append in appends), perf_counter() - started)
        return [
            answer if isinstance(answer, FedcreditError)
            else [self._registry.promise(append.lane, place) for place in answer]
            for append, answer in zip(appends, answers, strict=True)
        ]  # fmt: skip
