"""Hears everything that a scene says where somebody else may read it, and finds secrets in it however written."""

import base64
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from privacy.consent.canonical import base64url
from privacy.consent.record import Purpose


def forms(secret: bytes) -> set[bytes]:
    """Every way in which bytes are usually written down."""
    texts = {
        secret.hex(), secret.hex().upper(), base64url(secret), base64.b64encode(secret).decode().rstrip("="),
        base64.b32encode(secret).decode().rstrip("="), repr(secret)[2:-1], str(int.from_bytes(secret, "big")),
        ", ".join(map(str, secret)),
    }  # fmt: skip
    return {secret, *(text.encode() for text in texts)}


def quoted(word: str) -> set[bytes]:
    """A word as a value: in JSON, in a Python repr, as a setting, or in a query."""
    return {text.encode() for text in (f'"{word}"', f"'{word}'", f"={word}", f"%22{word}%22", f'\\"{word}\\"')}


@dataclass
class Ear:
    """Everything that was said where somebody else may read it, by channel."""

    said: dict[str, list[bytes]] = field(default_factory=dict)

    def hear(self, channel: str, text: str | bytes) -> None:
        self.said.setdefault(channel, []).append(
            text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        )

    def hear_error(self, error: BaseException) -> None:
        """An exception's text, its causes', and their arguments."""
        seen: BaseException | None = error
        while seen is not None:
            self.hear("exceptions", f"{type(seen).__name__}: {seen} {seen.args!r}")
            seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)

    def leaks(self, secrets: Mapping[str, Iterable[bytes]], *channels: str) -> list[str]:
        """Which secret was heard on which channel; only names are told."""
        return [
            f"{name} in {channel}"
            for channel in channels or self.said
            for text in [b"\n".join(self.said.get(channel, []))]
            for name, written in secrets.items()
            if any(one in text for one in written)
        ]


class _Listener(logging.Handler):
    def __init__(self, ear: Ear) -> None:
        super().__init__(logging.DEBUG)
        self._ear = ear

    def emit(self, record: logging.LogRecord) -> None:
        """The whole line with its traceback, and the raw arguments, whatever a formatter would make of them."""
        self._ear.hear("logs", f"{record.name}: {self.format(record)} {record.args!r}")


@contextmanager
def listening() -> Iterator[Ear]:
    """Every logger there is at DEBUG, also those that were told to be quiet."""
    ear = Ear()
    listener = _Listener(ear)
    root = logging.getLogger()
    loggers = [root, *(one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    before = [(one, one.level, one.disabled) for one in loggers]
    for one in loggers:
        one.setLevel(logging.DEBUG)
        one.disabled = False
    root.addHandler(listener)
    try:
        yield ear
    finally:
        root.removeHandler(listener)
        for one, level, disabled in before:
            one.setLevel(level)
            one.disabled = disabled


PURPOSES: Mapping[str, Iterable[bytes]] = {f"purpose {purpose.value}": quoted(purpose.value) for purpose in Purpose}
