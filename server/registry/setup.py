"""A new registry's directory: key, certificate and settings, each written once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from federated.files import write_whole
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError
from server.registry.certificates import self_signed
from server.registry.settings import (
    KEY_FILE,
    SETTINGS_FILE,
    Home,
    LaneSettings,
    LimitSettings,
    RegistrySettings,
    database_in,
    is_loopback,
    lane_text,
    load_settings,
    settings_text,
)
from server.registry.store import DEFAULT_MERGE_DELAY_S
from server.registry.tables import Database

CERTIFICATE_FILE: Final = "tls.pem"
PRIVATE_KEY_FILE: Final = "tls.key"
# A person writes a few records a year, and a household shares an address; a data holder's desk may hand in for many.
DEFAULT_LIMITS: Final = LimitSettings(records_per_minute=600, burst=1200)


def make_home(
    directory: Path,
    *,
    host: str,
    port: int,
    database: str,
    lanes: Sequence[str],
    at: int,
    certified_name: str | None,
    limits: LimitSettings = DEFAULT_LIMITS,
    merge_delay_s: int = DEFAULT_MERGE_DELAY_S,
) -> Home:
    """A new registry in `directory`, made if it is not there; `lanes` are NAME=HEX.

    With `certified_name` it gets a certificate for that host which no authority vouches for. UsageError for
    arguments that cannot be served, RefusalError if any of the files is there already.
    """
    certified = certified_name is not None or not is_loopback(host)
    settings = RegistrySettings(
        version=1, database=database, host=host, port=port,
        certificate=CERTIFICATE_FILE if certified else "", private_key=PRIVATE_KEY_FILE if certified else "",
        merge_delay_s=merge_delay_s, limits=limits, lanes=dict(map(_lane, lanes)),
    )  # fmt: skip
    made = [SETTINGS_FILE, KEY_FILE, *([CERTIFICATE_FILE, PRIVATE_KEY_FILE] if certified_name else [])]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(directory, error.strerror) from None
    there = [name for name in made if (directory / name).exists()]
    if there:
        raise RefusalError(
            f"{directory} already holds {', '.join(there)}, and nothing is overwritten. Name another directory, or "
            "serve the registry that is there.",
            RefusalCode.INTERNAL,
        )
    # The database first: when it cannot be reached, nothing is written and the command can be repeated.
    Database(database_in(directory, database)).close()
    write_whole(directory / KEY_FILE, SigningKey.generate().seed, secret=True)
    if certified_name is not None:
        certificate, private_key = self_signed(certified_name, at=at)
        write_whole(directory / PRIVATE_KEY_FILE, private_key, secret=True)
        write_whole(directory / CERTIFICATE_FILE, certificate)
    # It may hold the database's password.
    write_whole(directory / SETTINGS_FILE, settings_text(settings).encode(), secret=True)
    return Home(directory, load_settings(directory / SETTINGS_FILE))


def add_lane(directory: Path, lane: str) -> str:
    """Give a data holder a lane (`lane` is NAME=HEX) at the registry in `directory`; returns its name.

    The settings file keeps its comments. UsageError for a text that is no lane, or a name that has another key.
    """
    path = directory / SETTINGS_FILE
    name, entry = _lane(lane)
    known = load_settings(path).lanes.get(name)
    if known == entry:
        return name
    if known is not None:
        raise UsageError(
            f"{SETTINGS_FILE} has lane {name} with another identity key. Compare both with the data holder; whoever "
            "changes the key by hand in the file takes the lane away from the one who has it."
        )
    text = path.read_text(encoding="utf-8").rstrip("\n") + f"\n\n{lane_text(name, entry)}"
    write_whole(path, text.encode(), secret=True)
    return name


def _lane(text: str) -> tuple[str, LaneSettings]:
    name, _, identity = text.partition("=")
    try:
        lanes = msgspec.convert({name: {"identity": identity}}, RegistrySettings.__annotations__["lanes"])
    except msgspec.ValidationError:
        raise UsageError(
            "A lane is NAME=HEX: a data holder's name in lower case and its identity key, 64 hexadecimal digits. "
            "Correct --lane; the data holder knows both."
        ) from None
    if not isinstance(lanes, dict):
        raise MalformedError("A lane could not be read. Correct --lane.")
    return next(iter(lanes.items()))


def _unusable(directory: Path, why: str | None) -> RefusalError:
    return RefusalError(
        f"{directory} cannot be made ({why}). Name a directory that you may write to.", RefusalCode.INTERNAL
    )
