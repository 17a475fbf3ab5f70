"""The data holder's side of an audit: one run opened into one file, streamed, and there whole or not at all."""

import gzip
import hashlib
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Final

from clients.audit.opening import Header, Later, LinkLine, ReleaseLine, UsedLine, write_header, write_line
from clients.holder.disclosure import Disclosure
from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy, LaneSource
from clients.holder.ledger import PrivacyLedger
from clients.holder.run import Run, decode_opening, run_of
from clients.holder.settings import HolderSettings, load_settings
from federated.encoder import Encoder
from federated.messages import Opening
from federated.schema_toml import load_schema
from privacy.consent.lane import Head, read_checkpoint
from privacy.consent.merkle import Frontier, consistency_proof, leaf_hash
from privacy.consent.view import Entry
from privacy.errors import RefusalCode, RefusalError, TamperingError, UsageError

Connect = Callable[[HolderSettings], LaneSource]

_RUN_NAME: Final = re.compile(r"[0-9a-f]{32}\Z")
_LEVEL = 6  # of compression: what is left after it is random


@dataclass(frozen=True, slots=True)
class Written:
    """What an opening shows: how many lines of each kind, and their names as in the file."""

    holder: str
    run: str
    lines: Mapping[str, int]


@dataclass(frozen=True)
class _Noting:
    """A registry whose checkpoint is remembered as it was read."""

    source: LaneSource
    notes: list[str]

    def checkpoint(self, lane: str) -> str:
        self.notes.append(self.source.checkpoint(lane))
        return self.notes[-1]

    def entries(self, lane: str, start: int, stop: int) -> Sequence[Entry]:
        return self.source.entries(lane, start, stop)


def open_run(directory: Path, run: str, out: Path, *, connect: Connect, at: int) -> Written:
    """Open `run` of the data holder in `directory` into `out`, which must not exist yet.

    `connect` gives the consent registry. It is asked only about entries that the lane copy could not open, and for a
    later checkpoint when something was erased since the run.
    """
    if out.exists():
        raise UsageError(f"{out} exists and is left as it is; name another file with --out.")
    if not directory.is_dir():
        raise UsageError(f"{directory} is no directory; name the data holder's own with --directory.")
    settings = load_settings(directory / "holder.toml")
    keys = HolderKeys.load(directory / "keys")
    encoder = Encoder(load_schema(directory / settings.schema))
    with (
        closing(LaneCopy(directory / "consent.db", settings, keys)) as lane,
        closing(PrivacyLedger.open(directory / "ledger.db", last_known=lane.ledger_head())) as ledger,
    ):
        # Beside the runs, the copy keeps other things under names of other forms.
        kept = lane.kept_run(run) if _RUN_NAME.match(run) else None
        if kept is None:
            raise RefusalError(
                "This data holder has joined no run of that name. Name one as the coordinator's run.json does, under "
                '"run": 32 hexadecimal digits.',
                RefusalCode.PLAN,
            )
        opening = decode_opening(kept)
        writer = _Writer(opening, run_of(opening, settings, encoder=encoder), settings, keys, lane, ledger, connect, at)
        return writer.write(out)


@dataclass(frozen=True)
class _Writer:
    opening: Opening
    run: Run
    settings: HolderSettings
    keys: HolderKeys
    lane: LaneCopy
    ledger: PrivacyLedger
    connect: Connect
    at: int

    @cached_property
    def source(self) -> LaneSource:
        return self.connect(self.settings)

    def write(self, out: Path) -> Written:
        # The body's hash goes before the body, so the body waits in a file that has no name and dies with the process.
        with _told(out), tempfile.TemporaryFile(dir=out.parent) as body:
            holder = self.settings.holder
            shown = Disclosure(holder, self.run, self.keys, self.lane, self.ledger, lambda: self.source)
            later = self._later() if shown.needs_later else None
            digest, lines = self._write_body(shown, body)
            header = Header(
                holder=holder,
                run=self.run.name,
                plan=self.opening.plan,
                plan_signature=self.opening.plan_signature,
                checkpoint=self.opening.checkpoints[holder],
                later=later,
                clock_skew_s=self.settings.policy.clock_skew_s,
                body_sha256=digest,
            )
            body.seek(0)
            _write_new(out, write_header(header, self.keys.identity), body)
        return Written(holder, self.run.name, lines)

    def _write_body(self, shown: Disclosure, body: IO[bytes]) -> tuple[bytes, dict[str, int]]:
        digest, tree, lines = hashlib.sha256(), Frontier(), Counter[str]()
        for line in shown.lines():
            if not isinstance(line, LinkLine | ReleaseLine | UsedLine):
                tree.append(leaf_hash(line.leaf))
            data = write_line(line)
            digest.update(data)
            body.write(data)
            lines[str(line.__struct_config__.tag)] += 1
        if Head(tree.size, tree.root) != self.run.pinned:
            raise TamperingError(
                "The lane copy does not hold the entries that this run was pinned to. This data holder should keep "
                "the copy, use nobody's rows, and tell the registry's operator and the auditor."
            )
        return digest.digest(), dict(lines)

    def _later(self) -> Later:
        """The registry's newest checkpoint, synced to, and the proof that it extends the pinned one."""
        noting, lane = _Noting(self.source, []), self.settings.holder
        self.lane.sync(noting, at=self.at)
        newest = noting.notes[-1]
        if read_checkpoint(newest, f"fedcredit/{lane}", self.settings.registry.public) != self.lane.head:
            raise RefusalError(
                "The lane grew while it was being synced; run the command again.",
                RefusalCode.LANE,
            )
        shown = Disclosure(lane, self.run, self.keys, self.lane, self.ledger, None)
        return Later(newest, tuple(consistency_proof(shown.tree, self.run.pinned.size, self.lane.head.size)))


def _write_new(out: Path, header: bytes, body: IO[bytes]) -> None:
    descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")  # readable by its owner only
    try:
        with os.fdopen(descriptor, "wb") as file:
            # No name and no time in it: the same opening is the same bytes.
            with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
                packed.write(header)
                shutil.copyfileobj(body, packed, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, out)  # unlike a rename, never over a file that has come meanwhile
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _told(out: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise UsageError(f"{out} exists and is left as it is; name another file with --out.") from None
    except OSError as error:
        raise RefusalError(
            f"{out.name} could not be written ({error.strerror}); nothing is left of it. Make room or give write "
            "permission, then run the command again.",
            RefusalCode.INTERNAL,
        ) from None
