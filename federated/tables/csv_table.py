"""CSV and CSV.gz tables. Only what hides where rows end (text that is not UTF-8, a quote left open) fails a whole
file, whoever's row it is in.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Final, TextIO

from federated.tables.numbers import Flags, parse_numbers
from federated.tables.raw_table import Vector
from federated.tables.source import BATCH_ROWS, Batch
from privacy.errors import MalformedError, UsageError

KINDS: Final = "CSV, CSV.gz or Parquet (.parquet) file, or of the settings of a query (.sql.toml)"
_PARQUET: Final = b"PAR1"


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The file as text; what is no CSV text becomes a MalformedError without its content."""
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
        if start == _PARQUET:
            raise MalformedError(f"{path.name} is a Parquet file; give it a name that ends in .parquet")
        # newline="" leaves CRLF and quoted line ends to csv; utf-8-sig passes over a byte order mark.
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if start[:2] == b"\x1f\x8b"
            else path.open("rt", encoding="utf-8-sig", newline="")
        ) as stream:
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise MalformedError(f"{path.name} is not a whole gzip file; copy it again from where it came") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give the path of a {KINDS}") from None
    except UnicodeDecodeError:
        raise MalformedError(f"{path.name} is not UTF-8 text; export the table as UTF-8 CSV") from None
    except csv.Error:
        raise MalformedError(
            f"{path.name} is not well-formed CSV (a quote left open, a NUL, or a huge field); export it again"
        ) from None


@contextmanager
def opened_csv(path: Path) -> Iterator["CsvSource"]:
    """The table in a CSV or CSV.gz file."""
    with opened(path) as stream:
        lines = csv.reader(stream, strict=True)
        yield CsvSource(path.name, next(lines, []), lines)


class CsvSource:
    """A CSV table behind its header; its rows can be read once."""

    header = "The first line"

    def __init__(self, name: str, names: Sequence[str], lines: Iterator[list[str]]) -> None:
        self.name, self.names = name, names
        self._lines = lines

    def require_types(self, subject: str | None, columns: Sequence[str]) -> None:
        """Nothing: a text may hold anything."""

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """All rows; wholly empty lines are no rows."""
        places = {name: self.names.index(name) for name in columns}
        rows = (row for row in self._lines if row)
        while batch := list(islice(rows, BATCH_ROWS)):
            yield _CsvBatch(batch, places, len(self.names))


class _CsvBatch:
    def __init__(self, rows: list[list[str]], places: dict[str, int], width: int) -> None:
        self._rows, self._places, self._width = rows, places, width
        self.ragged = frozenset(place for place, row in enumerate(rows) if len(row) != width)

    def __len__(self) -> int:
        return len(self._rows)

    def subjects(self, column: str) -> list[str]:
        place = self._places[column]
        return [row[place] if place < len(row) else "" for row in self._rows]

    def take(self, places: Sequence[int]) -> "_CsvBatch":
        return _CsvBatch([self._rows[place] for place in places], self._places, self._width)

    def numbers(self, column: str, missing: Sequence[str]) -> tuple[Vector, Flags]:
        return parse_numbers(list(map(itemgetter(self._places[column]), self._rows)), missing)

    def texts(self, column: str) -> list[str]:
        place = self._places[column]
        return [row[place] for number, row in enumerate(self._rows) if number not in self.ragged]
