"""A data holder's lane copy and privacy ledger opened to look only: both are verified, and no file is made or changed.

What is not there yet is looked at as empty, in a directory of its own that is gone afterwards and holds nobody.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clients.holder.desk import NOTES
from clients.holder.desk_book import DeskBook
from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from clients.holder.ledger import PrivacyLedger
from clients.holder.permits import Permits
from clients.holder.row_seal import RowSeal
from clients.holder.settings import HolderSettings, load_settings
from federated.schema import Schema
from federated.schema_toml import load_schema
from privacy.errors import UsageError

LANE, LEDGER = "consent.db", "ledger.db"


@dataclass(frozen=True, slots=True)
class Look:
    """What a data holder has, as it is on disk."""

    directory: Path
    settings: HolderSettings
    schema: Schema
    keys: HolderKeys
    lane: LaneCopy
    ledger: PrivacyLedger

    def permits(self, settings: HolderSettings) -> Permits:
        """Whose rows a run may use under `settings`, which may ask for fewer people than ours."""
        return Permits(self.directory, settings, self.schema, self.lane, self.ledger)


@contextmanager
def looking(directory: Path) -> Iterator[Look]:
    """Everything of the data holder in `directory`. UsageError, MalformedError or TamperingError as when it serves."""
    if not directory.is_dir():
        raise UsageError(f"{directory} is no directory. Name the data holder's own with --directory.")
    settings = load_settings(directory / "holder.toml")
    schema = load_schema(directory / settings.schema)
    keys = HolderKeys.load(directory / "keys")
    with lane_in(directory, settings, keys) as lane, ledger_in(directory, lane) as ledger:
        yield Look(directory, settings, schema, keys, lane, ledger)


@contextmanager
def lane_in(directory: Path, settings: HolderSettings, keys: HolderKeys) -> Iterator[LaneCopy]:
    """The lane copy, read through. TamperingError if it is not what this data holder wrote last."""
    with _place_of(LANE, directory, "consent.head") as path, closing(LaneCopy(path, settings, keys)) as lane:
        yield lane


@contextmanager
def ledger_in(directory: Path, lane: LaneCopy) -> Iterator[PrivacyLedger]:
    """The privacy ledger, every entry checked. TamperingError if it is older than the head that the lane copy keeps."""
    with (
        _place_of(LEDGER, directory, f"{LEDGER}.head") as path,
        closing(PrivacyLedger.open(path, last_known=lane.ledger_head())) as ledger,
    ):
        yield ledger


@contextmanager
def book_in(directory: Path, keys: HolderKeys) -> Iterator[DeskBook]:
    """The desk's notes. TamperingError if they were edited."""
    with (
        _place_of(NOTES, directory, NOTES) as path,
        closing(DeskBook(path, RowSeal(keys.storage_key("desk")))) as book,
    ):
        yield book


@contextmanager
def _place_of(name: str, directory: Path, beside: str) -> Iterator[Path]:
    if (directory / name).exists():
        yield directory / name
        return
    with tempfile.TemporaryDirectory() as spare:
        if (directory / beside).exists():  # it tells that something was there
            shutil.copy(directory / beside, spare)
        yield Path(spare) / name
