"""Keeps what SuperLink knows in step with who is enrolled, and tells how it is."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from federated.files import write_whole
from privacy.errors import RefusalError
from server.deploy.node_keys import NodeKeys
from server.deploy.superlink import Known

LOG: Final = logging.getLogger("fedcredit.serve")
LOOK_S: Final = 5.0
"""Seconds after which a SuperLink that was well is asked again whether it is."""
MATCH_S: Final = 30.0
"""Seconds after which it is told again who is enrolled though nothing has changed: others may have told it more."""


class Watched(Protocol):
    """What a SuperLink is asked; see `server.deploy.superlink.SuperLink`."""

    def well(self) -> bool:
        """Whether it answers."""

    def match(self, holders: Mapping[bytes, str]) -> Known:
        """Make it know these nodes and no others."""


class Gauges(Protocol):
    """Where the figures go; see `server.deploy.metrics.Metrics`."""

    def nodes(self, *, enrolled: int, online: int | None, well: bool) -> None:
        """So many are enrolled and connected."""


class NodeWatch:
    """One look after another, by one thread. Who is enrolled is known to SuperLink after the next look."""

    def __init__(
        self, superlink: Watched, keys: NodeKeys, *, gauges: Gauges, clock: Callable[[], float], told: Path,
        address: str, pid: int, at: int,
    ) -> None:  # fmt: skip
        """`clock` never goes back; `told` is the file that says how we are, and `at` (UTC seconds) when we began."""
        self._superlink, self._keys, self._gauges, self._clock = superlink, keys, gauges, clock
        self._told, self._fixed = told, {"address": address, "pid": pid, "started": at}
        self._last: dict[str, object] = {}
        self._matched: tuple[int, Mapping[bytes, str]] | None = None
        self._next_look, self._next_match, self._starts = 0.0, 0.0, 0
        self._online: int | None = None
        self._failing = False
        self.well = False

    def look(self, *, starts: int) -> None:
        """Look once; `starts` says how often SuperLink has been started. Nothing that fails here ends the program."""
        holders = self._keys.holders()
        if starts != self._starts or not self.well or self._clock() >= self._next_look:
            self._ask_how_it_is(starts)
        if not self.well:
            self._online = None
        elif self._matched != (starts, holders) or self._clock() >= self._next_match:
            self._online = self._match(starts, holders)
            self._next_match = self._clock() + MATCH_S
        self._gauges.nodes(enrolled=len(holders), online=self._online, well=self.well)
        self.tell("running", starts=starts)

    def tell(self, state: str, *, starts: int) -> None:
        """Write down that this program is `running` or `stopped`, if that is news."""
        superlink = "running" if self.well else "starting" if starts < 2 else "restarting"
        news: dict[str, object] = {
            "state": state, "superlink": superlink if state == "running" else "stopped",
            "enrolled": len(self._keys.holders()),
        }  # fmt: skip
        if news == self._last:
            return
        try:
            write_whole(self._told, msgspec.json.format(msgspec.json.encode(news | self._fixed), indent=2))
            self._last = news
        except RefusalError as error:
            LOG.error("%s", error)

    def _ask_how_it_is(self, starts: int) -> None:
        was, self.well = self.well, self._superlink.well()
        self._next_look = self._clock() + LOOK_S
        if was and not self.well:
            LOG.warning("SuperLink does not answer; nodes are told to try again")
        if self.well and (not was or starts != self._starts):
            LOG.info("SuperLink answers")
        self._starts = starts

    def _match(self, starts: int, holders: Mapping[bytes, str]) -> int | None:
        before = self._matched
        try:
            known = self._superlink.match(holders)
        except RefusalError as error:
            self._matched = None
            if not self._failing:
                LOG.error("the list of data holders could not be handed to SuperLink; it is tried again: %s", error)
            self._failing = True
            return None
        self._matched, self._failing = (starts, holders), False
        if before != self._matched:
            LOG.info("data holders enrolled: %d", len(holders))
            for holder in known.spent:
                LOG.error(
                    "%s was revoked before and shows the same node key again, which SuperLink never takes twice. It "
                    "should make another with `fedcredit holder join --new-node-key` and be enrolled anew.", holder,
                )  # fmt: skip
        return known.online
