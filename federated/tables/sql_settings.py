"""The settings of a query (a file whose name ends in `.sql.toml`): which database, which SELECT. An example:

    # In the data holder's directory, and named in holder.toml: rows = "rows.sql.toml". With a password in `url`:
    # chmod 600. Every key is needed. A file of SQLite is named relative to this one: sqlite:///lending.db
    version = 1
    url = "postgresql://reader:PASSWORD@db.internal/lending?sslmode=verify-full&connect_timeout=10"
    # One SELECT with the schema's columns. Let it read a table that stays as it is while a run goes on. Rows are put
    # in the order of their customers; with ORDER BY the row numbers in messages are the same each time.
    query = "SELECT customer, income, bad FROM credit.development_sample ORDER BY customer"
    # How many rows are held at a time.
    batch_rows = 8192

No message, repr or log holds the URL or a part of it.
"""

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import msgspec

from privacy.errors import MalformedError, UsageError

SUFFIX: Final = ".sql.toml"
_OTHERS: Final = 0o077
_STARTS: Final = re.compile(r"\s*(?:SELECT|WITH)\b", re.IGNORECASE)
_WRITES: Final = re.compile(r"\b(INTO|INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    url: Annotated[str, msgspec.Meta(min_length=1)]
    query: Annotated[str, msgspec.Meta(min_length=1)]
    batch_rows: Annotated[int, msgspec.Meta(ge=1, le=100_000)]


@dataclass(frozen=True, slots=True)
class SqlSettings:
    """Which rows of which database; `url` may hold a password and is shown nowhere."""

    name: str  # of the file, for messages
    directory: Path  # of the file; a file of SQLite is named relative to it
    url: str = field(repr=False)
    query: str  # one statement, without the semicolon at its end
    batch_rows: int
    others_may_read: bool  # whether accounts other than the owner's can open the file


def is_query(path: Path) -> bool:
    """Whether `path` holds the settings of a query, and not rows."""
    return path.name.lower().endswith(SUFFIX)


def how_counted(path: Path) -> str:
    """What a message adds behind the row numbers of that table."""
    if not is_query(path):
        return ""
    return " Rows are counted in the query's result; with ORDER BY in it the numbers are the same each time."


def load_sql_settings(path: Path) -> SqlSettings:
    """The settings in `path`; MalformedError for a missing, unknown or ill-typed key, and for more than one SELECT."""
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            text = stream.read().decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give the path of a query's settings") from None
    except UnicodeDecodeError:
        raise MalformedError(f"{path.name} is not UTF-8 text; save it as UTF-8") from None
    try:
        file = msgspec.convert(tomllib.loads(text), _File, strict=True)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # The parser's own text may quote what stands there, which may be a password.
        line = re.search(r"at line \d+", str(error))
        where = f" {line[0]}" if line else ""
        raise MalformedError(f"{path.name} is not valid TOML{where}; correct it there") from None
    except msgspec.ValidationError as error:
        # Its text names keys and types, and no value.
        raise MalformedError(
            f"{path.name} holds no settings of a query: {error}. Exactly version, url, query and batch_rows are "
            "needed; the data holder should correct the file"
        ) from None
    return SqlSettings(
        name=path.name,
        directory=path.parent.resolve(),
        url=file.url,
        query=_one_select(file.query, path.name),
        batch_rows=file.batch_rows,
        others_may_read=bool(mode & _OTHERS),
    )


def _one_select(query: str, name: str) -> str:
    """The query without what ends it. Stricter than SQL: what is refused in a text or a name can stand in a view."""
    single = query.strip().removesuffix(";").rstrip()
    if ";" in single:
        raise MalformedError(f"{name}: `query` has a semicolon before its end; write one SELECT statement")
    if not _STARTS.match(single):
        raise MalformedError(f"{name}: `query` must start with SELECT or WITH; write one SELECT statement")
    if found := _WRITES.search(single):
        raise MalformedError(
            f"{name}: the word {found[1].upper()} stands in `query`, and a query here only reads; write it without "
            "that word, over a view if need be"
        )
    return single
