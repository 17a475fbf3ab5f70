"""Diagnostics of a program that serves: one line a record on stderr, for people or for machines, and no values in it.

Never a traceback, a stack or somebody else's exception text: they quote values, and those may be somebody's record.
"""

import json
import logging
import math
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any, Final

import click

from privacy.errors import FedcreditError

MOST_CHARACTERS: Final = 2_000
"""Of one text: others choose some of what is told, and a line should stay one write."""

_OURS: Final = frozenset({"fedcredit", "privacy", "federated", "clients", "server", "experiments", "__main__"})
# Their texts are put together before they are logged, and quote arguments and exceptions.
_QUOTING: Final = frozenset({"asyncio", "concurrent", "py"})
# Loggers that bring a handler of their own, whenever they are imported.
_SELF_MADE: Final = ("flwr",)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CONTENT: Final = "…"


class LogForm(StrEnum):
    """Who reads the lines."""

    HUMAN = "human"
    JSON = "json"


log_format_option = click.option(
    "--log-format", "log_form", type=click.Choice([form.value for form in LogForm]), default=LogForm.HUMAN.value,
    callback=lambda _context, _parameter, value: LogForm(value), show_default=True,
    help="Lines on stderr for people, or one JSON object each.",
)  # fmt: skip
"""Decorator (no parentheses) of a command that serves; hands on `log_form: LogForm` for `setup`."""


def setup(form: LogForm, *, level: int = logging.INFO) -> None:
    """From now on this process tells what our own code logs at `level`, and others' warnings, on stderr.

    What stops a thread or the program is told as one line as well. What a record has in `extra` becomes its fields.
    """
    handler = _LineHandler(sys.stderr)
    handler.setFormatter(_Lines(form))
    handler.addFilter(lambda record: record.levelno >= (level if _is_ours(record) else logging.WARNING))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _SELF_MADE:
        logger = logging.getLogger(name)
        for earlier in [one for one in logger.filters if isinstance(one, _Redirect)]:
            logger.removeFilter(earlier)
        logger.addFilter(_Redirect(handler))
    sys.excepthook = _tell_end
    sys.unraisablehook = lambda fault: _LOG.error("passed over: %s", _told(fault.exc_value))
    threading.excepthook = lambda fault: _LOG.error("a thread ended: %s", _told(fault.exc_value))


_LOG = logging.getLogger(__name__)


class _LineHandler(logging.StreamHandler[Any]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Say nothing: logging would print the record with its arguments, and where nobody reads there is no more."""


class _Redirect(logging.Filter):
    """Hands a record to our handler and to no other."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler

    def filter(self, record: logging.LogRecord) -> bool:
        self._handler.handle(record)
        return False


class _Lines(logging.Formatter):
    def __init__(self, form: LogForm) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the record."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = _shortened(_text_of(record))
        fields = {name: _plain(value) for name, value in vars(record).items() if name not in _STANDARD}
        if self._form is LogForm.JSON:
            line = {"time": at, "level": record.levelname, "where": record.name, "text": text, "fields": fields}
            return json.dumps(line, allow_nan=False)  # ASCII: no character that anybody takes for the end of a line
        told = "".join(f" {name}={json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
        return _printable(f"{at} {record.levelname} {text}{told}")


def _text_of(record: logging.LogRecord) -> str:
    ours = _is_ours(record)
    try:
        if not ours and record.name.partition(".")[0] in _QUOTING:
            text = f"something that {record.name} noticed"
        elif isinstance(record.msg, BaseException):
            text = _told(record.msg)
        else:
            text = str(record.msg)
            if record.args:
                text = text % _safe_arguments(record.args, ours=ours)
    except Exception as fault:
        text = f"a text that could not be put together ({type(fault).__name__})"
    cause = record.exc_info[1] if record.exc_info else None
    return text if cause is None else f"{text}: {_told(cause)}"


def _safe_arguments(arguments: Any, *, ours: bool) -> Any:
    def safe(value: object) -> object:
        if isinstance(value, BaseException):
            return _told(value)
        # What others quote we cannot judge; numbers are ports, sizes and counts.
        return value if ours or isinstance(value, int | float) else _CONTENT

    if isinstance(arguments, Mapping):
        return {name: safe(value) for name, value in arguments.items()}
    return tuple(safe(value) for value in arguments)


def _told(error: BaseException | None) -> str:
    """Our own text; of anybody else's exception its kind, and the line of code that it came from."""
    if error is None:
        return "no reason known"
    if isinstance(error, FedcreditError):
        return str(error)
    return f"{type(error).__name__}{_place(error.__traceback__)}"


def _place(traceback: TracebackType | None) -> str:
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(traceback)]
    return f" at {Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else ""


def _tell_end(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    _LOG.critical("ended by a fault in its own code: %s", _told(error))


def _plain(value: object) -> Any:
    """A field as JSON can have it. What is neither a number nor a text is told by its kind: bytes may be a key."""
    match value:
        case bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return _shortened(value)
        case BaseException():
            return _shortened(_told(value))
        case Mapping():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _:
            return type(value).__name__


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in _OURS


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + _CONTENT


def _printable(text: str) -> str:
    """`text` on one line: what ends a line, moves a cursor or turns the direction of writing is written as a code."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
