"""Settings files: TOML into one closed type, whole; what is wrong is told with its key and line, and no value."""

import re
import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

Settings = TypeVar("Settings")


class NotSettingsError(ValueError):
    """What is wrong with a settings file, in words that whoever reads it puts into its own error."""


def read_settings(path: Path, kind: type[Settings]) -> Settings:
    """The settings in `path`. NotSettingsError if it holds something else; OSError if it cannot be opened."""
    try:
        text = path.read_text(encoding="utf-8")
    except IsADirectoryError:
        raise NotSettingsError("it is a directory, and a file is needed") from None
    except UnicodeDecodeError:  # whose own text quotes what stands there
        raise NotSettingsError("it is not UTF-8 text; save it as UTF-8") from None
    try:
        return msgspec.convert(tomllib.loads(text), kind, strict=True)
    except tomllib.TOMLDecodeError as error:
        raise NotSettingsError(str(error)) from None
    except RecursionError:
        raise NotSettingsError("its tables are nested too deeply") from None
    except msgspec.ValidationError as error:
        raise NotSettingsError(f"{error}{_line(str(error), text)}") from None


def _line(complaint: str, text: str) -> str:
    """` (line 12)` of the key that msgspec complains about, or of the table around it."""
    from federated.toml_table import key_lines, line_of  # whoever's settings are in order need not wait for it

    place = re.search(r"`\$([^`]*)`\Z", complaint)
    path = tuple(re.sub(r"\[[^\]]*\]", "", place[1]).split(".")[1:]) if place else ()
    unknown = re.search(r"unknown field `([^`]*)`", complaint)
    return line_of((*path, unknown[1]) if unknown else path, key_lines(text))
