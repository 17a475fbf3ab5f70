"""Rows from a database, by one SELECT in one transaction that is never committed.

Read-only as far as the database can be told so: a file of SQLite is opened as such, PostgreSQL, MySQL, MariaDB and
Oracle are told before the query. A database's own text may quote rows or passwords, so none of it is passed on.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import create_engine
from sqlalchemy.engine import URL, Connection, CursorResult, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from federated.tables.numbers import Flags, numbers_of, text_of
from federated.tables.raw_table import Vector
from federated.tables.source import Batch
from federated.tables.sql_settings import SqlSettings
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError

_LOGGED: Final = "rows"
_TOLD: Final = frozenset({"postgresql", "mysql", "mariadb", "oracle"})  # these know SET TRANSACTION READ ONLY
_SQLITE: Final = frozenset({"sqlite", "sqlite+pysqlite"})


@contextmanager
def opened_sql(settings: SqlSettings) -> Iterator["SqlSource"]:
    """The result of the query. Whatever the database raises becomes a text of ours, without the database's."""
    engine = _engine(settings)
    try:
        with _connected(engine, settings) as connection:
            result = _asked(connection, settings)
            try:
                yield SqlSource(settings, result)
            finally:
                with suppress(SQLAlchemyError):
                    result.close()
    finally:
        engine.dispose()


class SqlSource:
    """The result of a query; its rows can be read once."""

    header = "The columns of the query's result"

    def __init__(self, settings: SqlSettings, result: CursorResult[Any]) -> None:
        self.name = settings.name
        self.names: Sequence[str] = tuple(result.keys())
        self._result, self._settings = result, settings

    def require_types(self, subject: str | None, columns: Sequence[str]) -> None:  # noqa: ARG002 (of every source)
        """MalformedError without a column of subjects; other types show in the cells, if anywhere."""
        if subject is None:
            raise MalformedError(
                f"{self.name}: in this schema the number of a row says whom it is about, and a query's result has no "
                "lasting order. Let the query give a column that names the person, and the schema name that column"
            )

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """All rows, in the order in which the database gives them."""
        places = {name: self.names.index(name) for name in columns}
        partitions = self._result.partitions(self._settings.batch_rows)
        while True:
            try:
                rows = next(partitions, None)
            except Exception as error:  # whatever a driver raises may quote a row
                raise RefusalError(
                    f"the database that {self.name} names stopped answering in the middle of the rows "
                    f"({_kind(error)}); nothing was used. Run the query there to see why, then try again",
                    RefusalCode.INTERNAL,
                ) from None
            if rows is None:
                return
            yield _SqlBatch(rows, places, self.name)


class _SqlBatch:
    ragged: frozenset[int] = frozenset()

    def __init__(self, rows: Sequence[Sequence[object]], places: dict[str, int], name: str) -> None:
        self._rows, self._places, self._name = rows, places, name

    def __len__(self) -> int:
        return len(self._rows)

    def subjects(self, column: str) -> list[str]:
        place = self._places[column]
        return [self._subject(row[place], column) for row in self._rows]

    def take(self, places: Sequence[int]) -> "_SqlBatch":
        return _SqlBatch([self._rows[place] for place in places], self._places, self._name)

    def numbers(self, column: str, missing: Sequence[str]) -> tuple[Vector, Flags]:
        return numbers_of(list(map(itemgetter(self._places[column]), self._rows)), missing)

    def texts(self, column: str) -> list[str]:
        place = self._places[column]
        return [text_of(row[place]) for row in self._rows]

    def _subject(self, cell: object, column: str) -> str:
        if isinstance(cell, str):
            return cell
        if cell is None:
            return ""
        if isinstance(cell, int) and not isinstance(cell, bool):
            return str(cell)
        raise MalformedError(
            f"{self._name}: {column!r} holds cells of type {type(cell).__name__}, and a column that says whom a row is "
            "about must hold integers or texts: other types have several spellings of one customer number. The data "
            "holder should write CAST(... AS TEXT) in the query"
        )


def _engine(settings: SqlSettings) -> Engine:
    for logged in (f"sqlalchemy.engine.Engine.{_LOGGED}", f"sqlalchemy.pool.impl.NullPool.{_LOGGED}"):
        # A program that logs for debugging would have every row in its log otherwise.
        logging.getLogger(logged).setLevel(logging.CRITICAL)
    try:
        url = make_url(settings.url)
        # What stands behind the question mark may be a password too.
        secret = url.password is not None or bool(url.query)
        if secret and settings.others_may_read:
            raise RefusalError(
                f"{settings.name} holds a password or options of a connection, and other accounts of this machine may "
                f"read it. Run chmod 600 on it, and give the account of the database a new password if somebody could "
                "have read the old one",
                RefusalCode.INTERNAL,
            )
        return create_engine(
            _reading(url, settings),
            poolclass=NullPool,
            hide_parameters=True,
            logging_name=_LOGGED,
            pool_logging_name=_LOGGED,
        )
    except ModuleNotFoundError as error:
        postgresql = ": pip install 'psycopg[binary]'" if error.name == "psycopg" else ""
        raise UsageError(
            f"{settings.name} needs the database driver {error.name}, which is not installed; install it beside "
            f"fedcredit{postgresql}, or name another driver in `url`"
        ) from None
    except (ArgumentError, ValueError, TypeError):
        raise UsageError(
            f"{settings.name}: `url` is no address of a database that can be read here; write it as "
            "postgresql://NAME:PASSWORD@HOST/DATABASE or sqlite:///FILE"
        ) from None


def _reading(url: URL, settings: SqlSettings) -> URL:
    """The same address, for reading only where the address can say so."""
    if url.drivername == "postgresql":
        return url.set(drivername="postgresql+psycopg")  # earlier releases of SQLAlchemy take another driver
    if url.drivername not in _SQLITE:
        return url
    if url.query or not url.database:
        raise ValueError("a file is needed, and nothing behind its name")
    file = quote(str(settings.directory / url.database))
    return URL.create(url.drivername, database=f"file:{file}", query={"mode": "ro", "uri": "true"})


@contextmanager
def _connected(engine: Engine, settings: SqlSettings) -> Iterator[Connection]:
    try:
        connection = engine.connect()
    except Exception as error:  # whatever a driver raises may quote the URL
        raise UsageError(
            f"the database that {settings.name} names could not be opened ({_kind(error)}). Correct `url` there, or "
            "have the database's operator see why"
        ) from None
    try:
        yield connection
    finally:
        try:
            connection.close()  # and roll back: nothing is ever committed
        except SQLAlchemyError:
            connection.invalidate()


def _asked(connection: Connection, settings: SqlSettings) -> CursorResult[Any]:
    try:
        if connection.dialect.name in _TOLD:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        # As it is written: colons and per cent signs are the query's own.
        streaming = connection.execution_options(stream_results=True, yield_per=settings.batch_rows, no_parameters=True)
        return streaming.exec_driver_sql(settings.query)
    except Exception as error:  # whatever a driver raises may quote a row
        raise UsageError(
            f"the database that {settings.name} names refused the query ({_kind(error)}). Run it there to see why, and "
            "correct `query`"
        ) from None


def _kind(error: Exception) -> str:
    """What kind of failure it was, in the driver's or in SQL's own closed list."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
    return f"{type(cause).__name__} {code}" if isinstance(code, str) else type(cause).__name__
