"""One run of the small federation, opened; and a data holder that lies in the file and signs it all the same."""

import atexit
import gzip
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from clients.audit.opening import (
    ErasedLine,
    GarbageLine,
    Header,
    Line,
    OpenedLine,
    TombstoneLine,
    read_header,
    read_line,
    write_header,
    write_line,
)
from clients.audit.reader import OpeningFile
from clients.audit.replay import Audit, TrustedKeys
from clients.audit.report import AuditReport
from clients.audit.run_record import RunRecord, read_run_record
from clients.holder.keys import HolderKeys
from clients.holder.opening_writer import open_run
from clients.holder.settings import load_settings
from federated.schema_toml import load_schema
from privacy.consent.canonical import base64url
from privacy.consent.lane import Head, parse_leaf
from privacy.consent.merkle import TreeHead, inclusion_proof, leaf_hash
from privacy.consent.receipt import Receipt
from privacy.consent.signing import SigningKey
from server.coordinator import Outcome
from tests.ready import ASTER, AT, Ready, ready_in

Lines = list[Line]
Edit = Callable[[Lines], Lines]
ENTRIES = (OpenedLine, ErasedLine, TombstoneLine, GarbageLine)


@dataclass(frozen=True)
class Case:
    """What an auditor is given about one data holder, and what it takes to forge it."""

    ready: Ready
    outcome: Outcome
    holder: str
    opening: Path
    identity: SigningKey
    keys: TrustedKeys

    @property
    def record_path(self) -> Path:
        return self.ready.federation.coordinator_directory / "runs" / self.outcome.run / "run.json"

    @property
    def schema_path(self) -> Path:
        return self.ready.federation.coordinator_directory / "schema.toml"

    @property
    def record(self) -> RunRecord:
        return read_run_record(self.record_path)

    @property
    def raw(self) -> list[bytes]:
        return gzip.decompress(self.opening.read_bytes()).splitlines(keepends=True)

    @property
    def header(self) -> Header:
        return read_header(self.raw[0], self.keys.holder)

    @property
    def lines(self) -> Lines:
        return [read_line(line) for line in self.raw[1:]]

    def audit(self, path: Path | None = None, *, identity: bytes | None = None, **changes: Any) -> AuditReport:
        """What the auditor finds in `path`, or in the honest opening."""
        opening = OpeningFile.check(path or self.opening, identity or self.keys.holder)
        fields: dict[str, Any] = {"schema": load_schema(self.schema_path), "record": self.record, "keys": self.keys}
        return Audit(opening, **(fields | changes)).replay()

    def forged(self, edit: Edit = list, *, key: SigningKey | None = None, **header: Any) -> Path:
        """An opening whose lines were edited, signed anew by the data holder, or by `key`."""
        return self.packed([write_line(line) for line in edit(self.lines)], key=key, **header)

    def packed(self, body: Sequence[bytes], *, key: SigningKey | None = None, **header: Any) -> Path:
        whole = b"".join(body)
        fields = {"body_sha256": hashlib.sha256(whole).digest()} | header
        first = write_header(msgspec.structs.replace(self.header, **fields), key or self.identity)
        path = self.opening.with_name(f"{hashlib.sha256(first).hexdigest()[:12]}.opening")
        path.write_bytes(gzip.compress(first + whole, mtime=0))
        return path

    def found(self, edit: Edit = list, **changes: Any) -> list[str]:
        """What the auditor complains of after `edit`, with the run's name left out."""
        return [text.replace(self.outcome.run, "RUN") for text in self.audit(self.forged(edit), **changes).complaints()]

    def rewritten_record(self, change: Callable[[dict[str, Any]], None]) -> Path:
        """run.json with something in it changed, in the form the coordinator writes."""
        plain = json.loads(self.record_path.read_bytes())
        change(plain)
        path = self.opening.with_name("changed.json")
        path.write_bytes(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        return path

    def receipt(self, position: int, /, **changes: Any) -> Receipt:
        """The receipt that the person would hold whose record lies at `position` of the honest opening."""
        entries = [line for line in self.lines if isinstance(line, ENTRIES)]
        line = entries[position]
        assert isinstance(line, OpenedLine)
        stub: Any = parse_leaf(line.leaf)
        tree = TreeHead(leaf_hash(entry.leaf) for entry in entries)
        fields: dict[str, Any] = {
            "lane": self.holder, "epoch": stub.epoch, "tag": base64url(stub.tag), "payload": base64url(line.payload),
            "signature": base64url(line.signature), "rho": base64url(line.rho),
            "ciphertext_sha256": base64url(stub.ciphertext_sha256), "position": position,
            "proof": tuple(base64url(node) for node in inclusion_proof(tree, position, tree.size)),
            "checkpoint": self.header.checkpoint, "promise": None,
        }  # fmt: skip
        return Receipt(**(fields | changes))

    @property
    def pinned(self) -> Head:
        return self.audit().lane.pinned


def case_of(ready: Ready, outcome: Outcome, holder: str = ASTER) -> Case:
    """`holder` opens the run."""
    home = ready.home(holder)
    settings, identity = load_settings(home / "holder.toml"), HolderKeys.load(home / "keys").identity
    coordinator_key = bytes.fromhex(settings.policy.coordinator_keys[0])
    keys = TrustedKeys(coordinator_key, settings.registry.public, identity.public)
    out = Path(tempfile.mkdtemp(dir=ready.directory)) / f"{holder}.opening"
    open_run(home, outcome.run, out, connect=lambda _: ready.registry, at=AT)
    return Case(ready, outcome, holder, out, identity, keys)


@cache
def usual() -> Case:
    """An honest run; made once, so nobody may change it: `forged` writes files of other names."""
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    ready = ready_in(directory / "federation")
    atexit.register(ready.registry.close)
    return case_of(ready, ready.run())


def at(position: int, change: Callable[[Any], Line | None]) -> Edit:
    """The entry at `position` replaced, or left out."""

    def edit(lines: Lines) -> Lines:
        number = [place for place, line in enumerate(lines) if isinstance(line, ENTRIES)][position]
        made = change(lines[number])
        return [*lines[:number], *([] if made is None else [made]), *lines[number + 1 :]]

    return edit


def each(kind: type, change: Callable[[Any], Line | None]) -> Edit:
    """Every line of a kind replaced, or left out."""

    def edit(lines: Lines) -> Lines:
        changed = [change(line) if isinstance(line, kind) else line for line in lines]
        return [line for line in changed if line is not None]

    return edit
