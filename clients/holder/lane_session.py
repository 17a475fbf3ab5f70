"""Turns at the lane copy's database: whoever reads or changes it sees what every other process has done to it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clients.holder.lane_base import TALLIED, Change, LaneBase, State
from clients.holder.lane_check import grow, tree_head, verify_all
from clients.holder.lane_head import HeadFile, Reached
from clients.holder.row_seal import RowSeal
from privacy.consent.merkle import Frontier

_OF_NO_STANDING = ("uses", "runs", "ledger_head")


class LaneSession:
    """One process's hold on the copy: verified once from end to end, then as far as somebody has changed it."""

    def __init__(self, path: Path, seal: RowSeal) -> None:
        """TamperingError if the copy is not what this data holder wrote last."""
        self.turn = threading.RLock()
        self.base = LaneBase(path, seal)
        self._head_file = HeadFile(path.with_suffix(".head"), seal)
        self.tree = Frontier()
        self.stamp = 0
        """Grows whenever a standing may have changed: what was computed under another stamp is out of date."""
        self._version = -1
        try:
            # Before the database: another process may commit, and then write the file, at any instant.
            reached = self._head_file.require(never_changed=self.state.changes == 0)
            with self.base.begun(write=False):
                self._version = self.base.version()
                self.base.state = self.base.read_state()
                # A crash between the commit and the file leaves the file behind, at a head that the lane extends.
                if self.state.changes < reached.changes:
                    raise self.base.edited()
                self.tree = verify_all(self.base, reached.head)
            self._note()
        except BaseException:
            self.base.close()
            raise

    @property
    def state(self) -> State:
        """The copy's state as this process knows it."""
        return self.base.state

    def close(self) -> None:
        """Give the database back."""
        with self.turn:
            self.base.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """All that is read within is of one state, the newest. Within `changing` it is that transaction."""
        with self.turn:
            if self.base.connection.in_transaction:
                yield
                return
            with self.base.begun(write=False):
                self._catch_up()
                yield

    @contextmanager
    def changing(self, *, standings: bool = False, verdicts_only: bool = False) -> Iterator[Change]:
        """All that is done within is kept durably, or none of it. `standings`: somebody's may change.

        `verdicts_only`: nothing is lost with it but time, so the file beside the database need not know of it.
        """
        with self.turn:
            with self.base.begun(write=True):
                self._catch_up()
                with self.base.change() as change:
                    yield change
            self.stamp += standings or change.tree is not None
            if change.tree is not None:
                self.tree = change.tree
            if not verdicts_only:
                self._note()

    def shred(self) -> None:
        """Overwrite what the database's journal still holds of rows that are gone, unless somebody reads there."""
        with self.turn, self.base.readable():
            self.base.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _catch_up(self) -> None:
        version = self.base.version()
        if version == self._version:
            return
        before, now = self.base.state, self.base.read_state()
        if now.changes < before.changes or now.head.size < before.head.size:
            raise self.base.edited()
        if now.changes == before.changes:
            # Each change of ours is counted, so this was none: nothing in the copy is to be believed any more.
            self.base.state = now
            self.tree = verify_all(self.base, before.head)
            self.stamp += 1
        else:
            tree = self.tree.copy()
            grow(self.base, tree, now.head.size)
            if tree_head(tree) != now.head:
                raise self.base.edited()
            self.base.state, self.tree = now, tree
            self.stamp += _standings_of(before) != _standings_of(now)
        self._version = version

    def _note(self) -> None:
        self._head_file.write(Reached(self.state.head, self.state.changes))


def _standings_of(state: State) -> tuple[object, ...]:
    tallies = state.tallies
    width = len(tallies) // len(TALLIED)
    parts = [tallies[number * width : (number + 1) * width] for number in range(len(TALLIED))]
    return state.head, *(part for part, table in zip(parts, TALLIED, strict=True) if table not in _OF_NO_STANDING)
