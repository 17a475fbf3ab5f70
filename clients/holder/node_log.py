"""How a SuperNode is doing, read from what it logs: Flower tells nobody else whether it is connected, or why not.

The texts are those of Flower 1.41 and 1.42. One that is not known changes nothing.
"""

import os
from pathlib import Path
from typing import Final

from clients.holder.serve_status import NodeState

ABRUPT_S: Final = 90
"""SuperLink refuses a node for about 45 s after a connection that broke off; until then a refusal is no news."""

KNOWN_S: Final = 120
"""A SuperNode that is started anew tries for a while before it says once more that it does not believe a certificate;
meanwhile the reason that it gave last is told, and not "away"."""

STUCK_S: Final = 5
"""One that has given up ends at once or never."""

_CONNECTED: Final = ("SuperNode ID:", "Connection successful after")
_LOST: Final = "Connection attempt failed"
_BROKEN: Final = ("Server error '", "Client error '", "Redirect response '", "Exception in thread ")
"""An answer that is not tried again, or a thread that has ended: the rest of the process is of no use any more."""
_UNAUTHORIZED: Final = "Client error '401 "  # of heartbeats, where Flower ends by itself
_BY_ITSELF: Final = "SuperNode terminated gracefully"  # told so by a signature that was not accepted
_LONGEST_LINE: Final = 1 << 16

_SEEN_LATE: Final = {NodeState.CERTIFICATE, NodeState.CERTIFICATE_EXPIRED, NodeState.CERTIFICATE_NAME}

# In this order: the first that a line holds counts.
_REASONS: Final = (
    ("[code: 2004]", NodeState.KEY_REFUSED),
    ("certificate has expired", NodeState.CERTIFICATE_EXPIRED),
    ("certificate is not yet valid", NodeState.CERTIFICATE_EXPIRED),
    ("certificate is not valid for", NodeState.CERTIFICATE_NAME),
    ("Hostname mismatch", NodeState.CERTIFICATE_NAME),
    ("CERTIFICATE_VERIFY_FAILED", NodeState.CERTIFICATE),
    ("Exit Code: 302", NodeState.KEY_FILE),
    ("Exit Code: 603", NodeState.CERTIFICATE_FILE),
    ("address already in use", NodeState.PORT),
)


class NodeWatch:
    """The state of one SuperNode, from its log file's lines and its ends."""

    def __init__(self, log: Path, *, broke_off_at: int | None) -> None:
        """From the log's end on. At `broke_off_at` (UTC seconds) an earlier connection ended without a good-bye."""
        self._log, self._broke_off_at = log, broke_off_at
        self._reason: NodeState | None
        self._broken: NodeState | None
        self._turned_away: tuple[NodeState, int] | None  # why, and when it was last said
        self._gave_up_at: int | None
        self.begin()

    def begin(self) -> None:
        """A SuperNode is started with other settings or another port: what kept the last one away is no news of it."""
        self._read, self._partial = _size(self._log), b""
        self._reason = self._broken = self._turned_away = self._gave_up_at = None
        self._by_itself = self._unauthorized = False
        self.state = NodeState.CONNECTING

    def look(self, *, at: int) -> NodeState:
        """The state, after what was logged since the last look."""
        for line in self._new_lines():
            self._hear(line, at)
        return self.state

    def give_up(self, *, at: int) -> None:
        """The SuperNode does nothing any more and is asked to end: what it says of that is no news."""
        self._break(NodeState.SILENT, at)

    def ended(self, *, at: int) -> NodeState:
        """The state, after the SuperNode has ended by itself or was killed; it is started again."""
        self.look(at=at)
        was_online = self.state is NodeState.ONLINE
        if self._reason is not None:
            self.state = self._reason
        elif self._unauthorized or (self._by_itself and self._broken is None):
            self.state = NodeState.SIGNATURE_REFUSED
        elif self._broken is not None:
            self.state = self._broken
        else:
            self.state = NodeState.ENDED
            if was_online:
                self._broke_off_at = at
        self._reason, self._by_itself, self._unauthorized = None, False, False
        self._broken, self._gave_up_at = None, None
        return self.state

    def is_stuck(self, *, at: int) -> bool:
        """Whether the SuperNode has given up and not ended. Whoever asks should end it, so that it is started anew.

        One that was connected before never ends in Flower's own program, nor tries again; in ours it should.
        """
        return self._gave_up_at is not None and at - self._gave_up_at >= STUCK_S

    def _hear(self, line: str, at: int) -> None:
        if any(text in line for text in _CONNECTED):
            self.state, self._broke_off_at, self._turned_away = NodeState.ONLINE, None, None
            self._gave_up_at = None
        elif _LOST in line:  # also said of whoever answers and cannot be believed
            known = self._turned_away
            self.state = known[0] if known is not None and at - known[1] < KNOWN_S else NodeState.AWAY
        elif _BY_ITSELF in line:
            self._by_itself = True
        elif _UNAUTHORIZED in line:
            self._unauthorized = True
        elif (reason := next((state for text, state in _REASONS if text in line), None)) is not None:
            waits = self._broke_off_at is not None and at - self._broke_off_at < ABRUPT_S
            self._reason = NodeState.WAITING if reason is NodeState.KEY_REFUSED and waits else reason
            if reason in _SEEN_LATE:
                self.state, self._turned_away, self._gave_up_at = reason, (reason, at), at
        elif any(text in line for text in _BROKEN):
            self._break(NodeState.ENDED, at)

    def _break(self, state: NodeState, at: int) -> None:
        if self.state is NodeState.ONLINE:  # its good-bye may not have been heard
            self._broke_off_at = at
        if self._gave_up_at is None:
            self._gave_up_at = at
        self._broken = self.state = state

    def _new_lines(self) -> list[str]:
        try:
            with self._log.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._read:  # it was cut
                    self._read, self._partial = 0, b""
                file.seek(self._read)
                new = file.read()
        except OSError:
            return []
        self._read += len(new)
        *lines, self._partial = (self._partial + new).split(b"\n")
        self._partial = self._partial[-_LONGEST_LINE:]
        return [line.decode(errors="replace") for line in lines]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
