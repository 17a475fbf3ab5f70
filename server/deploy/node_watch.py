"""Keeps what SuperLink knows in step with who is enrolled, and tells how it is."""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from federated.files import write_whole
from privacy.errors import RefusalError
from server.deploy.node_keys import Listed, NodeKeys
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

    def match(self, holders: Mapping[bytes, str], gone: Collection[bytes]) -> Known:
        """Make it know `holders` and none of `gone`."""


class Gauges(Protocol):
    """Where the figures go; see `server.deploy.metrics.Metrics`."""

    def nodes(self, *, enrolled: int | None, online: int | None, well: bool) -> None:
        """So many are enrolled and connected; None: not known."""


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
        self._matched: tuple[int, Listed] | None = None
        self._next_look, self._next_match, self._starts = 0.0, 0.0, 0
        self._enrolled: int | None = None
        self._online: int | None = None
        self._unlisted = 0
        self._failing = False
        self.well = False

    def look(self, *, starts: int) -> None:
        """Look once; `starts` says how often SuperLink has been started. Nothing that fails here ends the program."""
        listed = self._keys.listed()
        self._enrolled = None if listed is None else len(listed.holders)
        if starts != self._starts or not self.well or self._clock() >= self._next_look:
            self._ask_how_it_is(starts)
        if not self.well or listed is None:
            # What cannot be read is no list of nobody: SuperLink would let go of everybody, for ever.
            self._online, self._matched = None, None
        elif self._matched != (starts, listed) or self._clock() >= self._next_match:
            self._online = self._match(starts, listed)
            self._next_match = self._clock() + MATCH_S
        self._gauges.nodes(enrolled=self._enrolled, online=self._online, well=self.well)
        self.tell("running", starts=starts)

    def tell(self, state: str, *, starts: int) -> None:
        """Write down that this program is `running` or `stopped`, if that is news."""
        superlink = "running" if self.well else "starting" if starts < 2 else "restarting"
        news: dict[str, object] = {
            "state": state, "superlink": superlink if state == "running" else "stopped",
            "enrolled": self._enrolled, "unlisted": self._unlisted,
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

    def _match(self, starts: int, listed: Listed) -> int | None:
        before = self._matched
        try:
            known = self._superlink.match(listed.holders, listed.gone)
        except RefusalError as error:
            self._matched = None
            if not self._failing:
                LOG.error("the list of data holders could not be handed to SuperLink; it is tried again: %s", error)
            self._failing = True
            return None
        self._matched, self._failing = (starts, listed), False
        self._note_unlisted(known.unlisted)
        if before != self._matched:
            LOG.info("data holders enrolled: %d", len(listed.holders))
            for holder in known.spent:
                LOG.error(
                    "%s was revoked before and shows the same node key again, which SuperLink never takes twice. It "
                    "should make another with `fedcredit holder join --new-node-key` and be enrolled anew.", holder,
                )  # fmt: skip
        return known.online

    def _note_unlisted(self, unlisted: int) -> None:
        if unlisted not in {0, self._unlisted}:
            LOG.warning(
                "SuperLink knows node keys that members.json does not name: %d. None of them is let in. If "
                "members.json was restored from an earlier copy, enrol again who is missing; if not, a program on this "
                "machine has registered them: only the coordinator's own should run here.", unlisted,
            )  # fmt: skip
        self._unlisted = unlisted
