"""What a data holder notes beside its lane: when it synced, the runs it joined, whom it scored, its ledger's head."""

from typing import Final

from clients.holder.lane_session import LaneSession
from clients.holder.ledger_chain import LedgerHead
from privacy.consent.limits import DAY_S
from privacy.consent.record import Uses
from privacy.errors import UsageError

MARK: Final = "mark "
"""What the names of marks begin with in the table of runs; no run's name has a space."""
_OPENED: Final = "opened "
"""The same for the runs that were opened; with each is kept when, so that they can be counted."""


class LaneNotes:
    """The notes in one lane copy, durable at each step. Every method may be called from any thread."""

    def __init__(self, session: LaneSession, *, clock_skew_s: int) -> None:
        self._session = session
        self._skew_s = clock_skew_s
        self._told = self.synced_at

    @property
    def synced_at(self) -> int:
        """When the newest sync was, UTC seconds; 0 before the first."""
        return self._session.state.at

    def age(self, *, at: int) -> int:
        """How many seconds ago the newest sync was.

        Counted to the latest instant that this copy was told of since, so that a clock set back makes nothing fresh;
        negative if the sync lies after `at`, and then a clock is wrong.
        """
        if at < self.synced_at:
            return at - self.synced_at
        self._told = max(self._told, at)
        return self._told - self.synced_at

    def keep_run(self, name: str, accepted: bytes) -> None:
        """Remember a run that was joined; the same run again changes nothing. UsageError for a name with a space."""
        if " " in name:
            raise UsageError("A run is named by its plan's digest, in which there is no space. Give that.")
        self._keep_once(name, accepted)

    def kept_run(self, name: str) -> bytes | None:
        """What `keep_run` was given, or None; TamperingError if it was edited."""
        if " " in name:
            return None
        with self._session.reading():
            rows = self._session.base.rows("runs", "WHERE name = ?", name)
        return rows[0][1] if rows else None

    def keep_mark(self, name: str) -> None:
        """Remember a fact by its name, which no run has."""
        self._keep_once(MARK + name, b"")

    def has_mark(self, name: str) -> bool:
        """Whether `keep_mark` was given that name."""
        with self._session.reading():
            return bool(self._session.base.rows("runs", "WHERE name = ?", MARK + name))

    def enter_opening(self, run: str, *, at: int, most: int) -> bool:
        """Enter that a run is opened, durably; one that was entered before changes nothing.

        False, and nothing is entered, if `most` others were in the last 24 hours, or later by a clock that went wrong.
        It is counted in one transaction: two processes never enter more between them.
        """
        name, since = f"{_OPENED}{run}", at - self._skew_s - DAY_S
        with self._session.reading():  # nothing is written where nothing is new
            if self._session.base.rows("runs", "WHERE name = ?", name):
                return True
        with self._session.changing() as change:
            rows = self._session.base.rows("runs", "WHERE substr(name, 1, ?) = ?", len(_OPENED), _OPENED)
            opened = {row[0]: row[1] for row in rows}
            recent = sum(int.from_bytes(when, "big", signed=True) > since for when in opened.values())
            if name not in opened and recent < most:
                change.insert("runs", [(name, at.to_bytes(8, "big", signed=True))])
                return True
        return name in opened

    def past_uses(self, handle: bytes, recipient: str) -> list[int]:
        """When this person was scored for this recipient, UTC seconds; TamperingError if such an entry was edited."""
        with self._session.reading():
            rows = self._session.base.rows("uses", "WHERE handle = ? AND recipient = ?", handle, recipient)
        return [row[3] for row in rows]

    def enter_use(
        self, handle: bytes, recipient: str, nonce: str, *, at: int, limit: Uses | None = None
    ) -> bool:  # fmt: skip
        """Enter one answer about a person, durably.

        False, and nothing is entered, if this very request was answered before, or if `limit` is reached by the rule
        of `privacy.consent.gate`. It is counted in one transaction: two processes never enter more between them.
        """
        self._told = max(self._told, at)
        with self._session.changing() as change:
            rows = self._session.base.rows("uses", "WHERE handle = ? AND recipient = ?", handle, recipient)
            if any(row[2] == nonce for row in rows):
                return False
            if limit is not None:
                since = at - self._skew_s - limit.per_s
                if sum(row[3] > since for row in rows) >= limit.n:
                    return False
            change.insert("uses", [(handle, recipient, nonce, at)])
        return True

    def ledger_head(self) -> LedgerHead | None:
        """The privacy ledger's head that was kept last, or None; TamperingError if it was edited or is gone."""
        with self._session.reading():
            rows = list(self._session.base.whole("ledger_head"))
        return LedgerHead(*rows[0]) if rows else None

    def keep_ledger_head(self, head: LedgerHead) -> None:
        """Remember the privacy ledger's head, durably; a later one that another process kept stays."""
        with self._session.changing() as change:
            if all(head.size > size for size, _ in self._session.base.whole("ledger_head")):
                change.remove("ledger_head", "size < ?", head.size)
                change.insert("ledger_head", [(head.size, head.digest)])

    def _keep_once(self, name: str, accepted: bytes) -> None:
        with self._session.changing() as change:
            if not self._session.base.rows("runs", "WHERE name = ?", name):
                change.insert("runs", [(name, accepted)])
