"""The bundle of a finished run, from what the run has left in the coordinator's directory."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from federated.encoder import Encoder
from federated.exclusions import exclusions
from federated.metrics import ScoreHistogram
from federated.model import LinearModel
from federated.plan import SignedPlan, TrainingPlan, read_plan, recipe_of
from federated.round_log import Event
from federated.schema_toml import load_schema
from federated.scorecard import Scorecard
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError, UsageError
from server.bundle import MANIFEST, write_bundle
from server.calibration import Calibration
from server.deploy.round_log import RoundLog
from server.deploy.runs import RESULTS, signed_plan
from server.deploy.settings import Home


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    centre: list[float]
    centred_radius: float | None
    coefficients: list[float]
    intercept: float
    kind: str
    schema_digest: str


class _Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bads: list[float]
    deviation: float
    edges: list[float]
    goods: list[float]
    intercept: float
    slope: float


class _Record(msgspec.Struct, frozen=True):
    holders: list[str]


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished run as its files tell it: what its bundle is made of."""

    plan: TrainingPlan
    plan_digest: str
    model: LinearModel
    scorecard: Scorecard
    calibration: Calibration
    released: ScoreHistogram
    deviation: float
    holders: Sequence[str]


@dataclass(frozen=True, slots=True)
class Published:
    """A bundle that was written."""

    run: str
    directory: Path
    manifest: str  # SHA-256, in hex


def publish(home: Home, out: Path, *, run: str | None, at: int) -> Published:
    """Write the bundle of `run` (None: the last one that was finished) to the new directory `out`, and log it.

    UsageError if there is no such run or something lies in `out`; TamperingError if its files are others than those
    that the round log says it ended with. The bundle is there whole or not at all. It is logged once it is there: if
    that very bundle is there without an entry, as after a crash in between, it is logged now.
    """
    key = home.key()
    log = RoundLog(home.round_log, key)
    finished = [entry for entry in log.entries if entry.event is Event.FINISHED and run in (None, entry.run)]
    if not finished:
        raise UsageError(
            "there is no finished run to publish" + ("" if run is None else " of that name") + ". `fedcredit "
            "coordinator status` says how the last run is."
        )
    entry = finished[-1]
    kept = kept_run(home, entry.run, entry.detail)
    encoder = Encoder(load_schema(home.schema))
    excludes = exclusions(kept.plan, recipe_of(kept.plan, encoder), holders=len(kept.holders))
    out = out.resolve()
    if _is_taken(out) and not (out / MANIFEST).is_file():
        raise _taken(out)
    try:
        with _building(out) as building:
            write_bundle(kept, key, building, encoder=encoder, excludes=excludes)
            digest = hashlib.sha256((building / MANIFEST).read_bytes()).hexdigest()
            if not _is_taken(out):
                building.replace(out)
                _settle(out.parent)
            elif _logged_before(log, entry.run, digest) or _contents(out) != _contents(building):
                raise _taken(out)
    except OSError as error:
        raise RefusalError(
            f"{out} could not be written ({error.strerror}), and nothing is left of it. Make room, or give --out a "
            "directory that may be written.",
            RefusalCode.INTERNAL,
        ) from None
    log.append(Event.PUBLISHED, run=entry.run, at=at, manifest=digest)
    return Published(entry.run, out, digest)


def kept_run(home: Home, run: str, digests: Mapping[str, Any]) -> Kept:
    """What run `run` has left. TamperingError unless its files are those of `digests`, by what they are."""
    directory = home.runs / run
    contents = {what: _read(directory / name, digests.get(what)) for what, name in RESULTS.items() if what in digests}
    if not {"model", "scorecard", "measured", "record"} <= contents.keys():
        raise MalformedError(
            "Only a linear model has a scorecard to publish. The coordinator should choose its recipe."
        )
    signed = _plan_of(home, str(digests.get("plan")))
    try:
        model = msgspec.json.decode(contents["model"], type=_Model)
        measured = msgspec.json.decode(contents["measured"], type=_Measured)
        record = msgspec.json.decode(contents["record"], type=_Record)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise MalformedError(
            "What the run has left cannot be read. The coordinator should restore its directory from a copy."
        ) from None
    return Kept(
        plan=read_plan(signed, home.key().public),
        plan_digest=signed.digest,
        model=LinearModel(
            model.schema_digest, np.array(model.centre), np.array(model.coefficients), model.intercept,
            model.centred_radius,
        ),
        scorecard=Scorecard.from_json(contents["scorecard"]),
        calibration=Calibration(measured.intercept, measured.slope),
        released=ScoreHistogram(np.array(measured.edges), np.array(measured.goods), np.array(measured.bads)),
        deviation=measured.deviation,
        holders=record.holders,
    )  # fmt: skip


def _read(path: Path, digest: object) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RefusalError(
            f"{path.name} of the run cannot be read ({error.strerror}). The coordinator should restore the run's "
            "directory from a copy.",
            RefusalCode.INTEGRITY,
        ) from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise TamperingError(
            f"{path.name} of the run is not the one that the round log says the run ended with. It was changed since: "
            "the coordinator should restore the run's directory from a copy, and must not publish what is there."
        )
    return content


def _plan_of(home: Home, digest: str) -> SignedPlan:
    """The plan that the run was of; UsageError if it is neither among the plans nor the current one."""
    if not (home.plans / f"{digest}.json").exists():
        current = signed_plan(home, None)
        if current.digest == digest:
            return current
    return signed_plan(home, digest)


def _logged_before(log: RoundLog, run: str, manifest: str) -> bool:
    return any(
        one.event is Event.PUBLISHED and one.run == run and one.detail == {"manifest": manifest} for one in log.entries
    )


def _is_taken(out: Path) -> bool:
    return out.exists() and (not out.is_dir() or any(out.iterdir()))


def _taken(out: Path) -> UsageError:
    return UsageError(f"{out} is there already and is left as it is. Give --out a new directory.")


@contextmanager
def _building(out: Path) -> Iterator[Path]:
    """A new directory beside `out`, gone afterwards unless it has become `out`. What is not ours is not touched."""
    if not out.name:
        raise UsageError(f"{out} is the root of the file system; give --out a directory of its own.")
    building = out.with_name(f".{out.name}.{os.getpid()}.building")
    out.parent.mkdir(parents=True, exist_ok=True)
    building.mkdir()
    try:
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in directory.iterdir()}


def _settle(directory: Path) -> None:
    """Make a new name durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
