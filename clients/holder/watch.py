"""Syncing once, or again and again: a registry that fails is asked again, one that deceives ends it."""

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from clients.holder.desk import Desk, registry_of
from clients.holder.doubt import Doubt
from clients.holder.epochs import heed_registry, is_due, publish
from clients.holder.keys import HolderKeys
from privacy.errors import MalformedError, RefusalError

Failure = RefusalError | MalformedError


class Bell:
    """Ends a wait when the process is asked to stop (SIGTERM or SIGINT)."""

    def __init__(self) -> None:
        self._listens, self._rings = os.pipe()
        self.rung = False

    def ring(self) -> None:
        """Ask for an end. Safe in a signal handler: no lock is taken."""
        self.rung = True
        os.write(self._rings, b"!")

    def wait(self, seconds: float) -> bool:
        """Whether it was rung, now or within so many seconds."""
        return self.rung or bool(select.select([self._listens], [], [], seconds)[0])

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._listens)
        os.close(self._rings)


@contextmanager
def bell() -> Iterator[Bell]:
    """A bell that SIGTERM and SIGINT ring for as long as the body runs."""
    rings = Bell()

    def handle(_: int, __: FrameType | None) -> None:
        rings.ring()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield rings
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        rings.close()


@dataclass(frozen=True, slots=True)
class Watch:
    """One sync after the other, `every_s` seconds apart; after a failure sooner, from one second doubling up to that.

    `once` does the sync; `failed` is told of each failure. A TamperingError ends the watch.
    """

    once: Callable[[], None]
    failed: Callable[[Failure], None]
    every_s: float

    def run(self, stop: Bell) -> None:
        """Until the bell rings; a sync that has begun is finished."""
        failures = 0
        while not stop.rung:
            try:
                self.once()
                failures = 0
            except (RefusalError, MalformedError) as error:
                failures += 1
                self.failed(error)
            if stop.wait(self.pause_s(failures)):
                return

    def pause_s(self, failures: int) -> float:
        """Seconds to the next sync after so many failures in a row."""
        return self.every_s if failures == 0 else min(self.every_s, 2.0 ** min(failures - 1, 30))


class Syncer:
    """A desk that syncs its lane; opened anew when its keys change on the disk, so that no record stays closed."""

    def __init__(self, desk: Desk, clock: Callable[[], int]) -> None:
        self.desk, self._clock = desk, clock
        self._registry = registry_of(desk)
        self._heeded: Desk | None = None

    def once(self, tell: Callable[[str, dict[str, Any]], None]) -> None:
        """Sync, tell what is new, and publish the keys again if it is time."""
        if HolderKeys.load(self.desk.directory / "keys").lane_keys.keys() != self.desk.keys.lane_keys.keys():
            self.desk.close()
            self.desk = Desk.open(self.desk.directory)
        if self._heeded is not self.desk:
            heed_registry(self.desk, self._registry)
            self._heeded = self.desk
        lane, at = self.desk.lane, self._clock()
        new = Doubt(lane).sync(self._registry, at=at)
        age = lane.age(at=self._clock())
        facts = {"new": new, "size": lane.head.size, "age_s": age, "root": lane.head.root.hex()}
        tell(f"{new} new entries; {lane.head.size} in the lane, verified; synced {age} s ago", facts)
        if is_due(self.desk, at=at):
            publish(self.desk, self._registry, at=at)

    def __enter__(self) -> "Syncer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._registry.close()
        self.desk.close()
