"""The registry's own settings: one complete file, and the key and certificate that lie beside it."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from federated.settings_file import NotSettingsError, read_settings
from privacy.consent.limits import KEY_BYTES, MAX_MERGE_DELAY_S, MAX_SUBMISSIONS, Name
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError, RefusalCode, RefusalError

SETTINGS_FILE: Final = "registry.toml"
KEY_FILE: Final = "registry.key"
MAX_SETTINGS_BYTES: Final = 1 << 20

PublicKeyHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\0]*\Z", max_length=255)]


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one address may hand in; `burst` is at least one whole submission."""

    records_per_minute: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
    burst: Annotated[int, msgspec.Meta(ge=MAX_SUBMISSIONS, le=10_000_000)]


class LaneSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One data holder: the Ed25519 key that signs its key sets and tombstones."""

    identity: PublicKeyHex


class RegistrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One registry's settings file, parsed whole. Nothing has a default."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    database: str
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    certificate: _FileName
    private_key: _FileName
    merge_delay_s: Annotated[int, msgspec.Meta(ge=0, le=MAX_MERGE_DELAY_S)]
    limits: LimitSettings
    lanes: dict[Name, LaneSettings]

    @property
    def identities(self) -> dict[str, bytes]:
        """Each lane's data holder's public key."""
        return {lane: bytes.fromhex(settings.identity) for lane, settings in self.lanes.items()}

    @property
    def encrypted(self) -> bool:
        """Whether the registry serves over TLS."""
        return bool(self.certificate)


@dataclass(frozen=True, slots=True)
class Home:
    """A registry's directory, with its settings read and checked."""

    directory: Path
    settings: RegistrySettings

    @classmethod
    def open(cls, directory: Path) -> "Home":
        """The registry in `directory`. MalformedError for settings that cannot be served from."""
        return cls(directory, load_settings(directory / SETTINGS_FILE))

    @property
    def database(self) -> str | Path:
        """The database's address; a relative SQLite file lies in the directory."""
        return database_in(self.directory, self.settings.database)

    @property
    def certificate(self) -> Path:
        """The certificate's file, if there is one."""
        return self.directory / self.settings.certificate

    @property
    def private_key(self) -> Path:
        """The certificate's private key."""
        return self.directory / self.settings.private_key

    def key(self) -> SigningKey:
        """The key that signs heads and promises. RefusalError if it cannot be read."""
        try:
            return SigningKey.from_seed((self.directory / KEY_FILE).read_bytes())
        except (OSError, MalformedError):
            raise RefusalError(
                f"{KEY_FILE} cannot be read as the registry's {KEY_BYTES}-byte key. Its operator should restore it "
                "from the copy kept safe: with another key nobody would believe this registry's heads.",
                RefusalCode.INTEGRITY,
            ) from None


def load_settings(path: Path) -> RegistrySettings:
    """The settings in `path`. MalformedError names a missing, unknown or ill-typed key; there are no defaults."""
    try:
        settings = read_settings(path, RegistrySettings)
    except OSError as error:
        raise RefusalError(
            f"{path.name} cannot be opened ({error.strerror}). Name the registry's directory, or make one with "
            "`fedcredit registry init`.",
            RefusalCode.INTERNAL,
        ) from None
    except NotSettingsError as error:
        raise MalformedError(
            f"{path.name} is not a registry's settings: {error}. Every key is needed and none has a default; the "
            "registry's operator should correct the file."
        ) from None
    _check_rules(settings, path.name)
    return settings


def database_in(directory: Path, database: str) -> str | Path:
    """The database that settings in `directory` mean by a URL."""
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        return database  # refused, in words, when it is opened
    if url.get_backend_name() == "sqlite" and url.database:
        return directory / url.database
    return database


def has_password(database: str) -> bool:
    """Whether a database's URL has a password in it. One that cannot be read as a URL is taken to have."""
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        return "@" in database
    return bool(url.password) or "password" in url.query


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def settings_text(settings: RegistrySettings) -> str:
    """The commented file that `load_settings` reads back as `settings`."""
    lanes = "".join("\n" + lane_text(lane, entry) for lane, entry in sorted(settings.lanes.items()))
    return f"""\
# The consent registry's settings. Every key is needed; none has a default. Restart the registry after a change.
version = 1

# SQLite: "sqlite:///registry.db" lies beside this file. PostgreSQL: "postgresql://name:password@host/database".
database = {_quoted(settings.database)}

# Where to listen; port 0 takes a free one.
host = {_quoted(settings.host)}
port = {settings.port}

# Files beside this one, PEM. Both empty means plain HTTP, which is served to this machine only (host 127.0.0.1).
certificate = {_quoted(settings.certificate)}
private_key = {_quoted(settings.private_key)}

# Seconds after which a signed head must cover a promised record, at most {MAX_MERGE_DELAY_S}.
merge_delay_s = {settings.merge_delay_s}

# For each address that hands in records; burst is at least {MAX_SUBMISSIONS}, one whole submission. Behind a proxy
# everybody has the proxy's address: then let the proxy do this, and raise both.
[limits]
records_per_minute = {settings.limits.records_per_minute}
burst = {settings.limits.burst}

# One table for each data holder, with the Ed25519 key (hex) that signs its key sets and tombstones:
# [lanes."aster-bank"]
# identity = "64 hexadecimal digits"
[lanes]
{lanes}"""


def lane_text(lane: str, entry: LaneSettings) -> str:
    """One lane's table, as it stands at the end of the settings file."""
    return f'[lanes."{lane}"]\nidentity = "{entry.identity}"\n'


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        raise MalformedError("A setting holds a character that cannot be printed. Write it without.")
    return f'"{escaped}"'


def _check_rules(settings: RegistrySettings, name: str) -> None:
    if bool(settings.certificate) != bool(settings.private_key):
        raise MalformedError(
            f"{name} names a certificate or a private_key without the other. Its operator should name both, or leave "
            "both empty for plain HTTP within this machine."
        )
    if not settings.certificate and not is_loopback(settings.host):
        raise MalformedError(
            f"{name} has a host that other machines reach, and neither certificate nor private_key: records would "
            "travel unprotected. Its operator should name both files, or the host 127.0.0.1."
        )
