"""How a data holder's node reaches its coordinator: an address, the certificates that vouch for it, and a node key."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from federated.certificates import in_force, read_authorities
from federated.enrolment import Address
from federated.files import write_whole
from privacy.consent.limits import Name, Position
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError

FLEET_FILE: Final = "fleet.toml"
CA_FILE: Final = "fleet-ca.pem"
NODE_KEY: Final = Path("keys") / "node.key"
NEXT_NODE_KEY: Final = Path("keys") / "node-next.key"
"""The key that a request has asked for and no welcome has confirmed yet."""

_FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\0]+\Z", max_length=255)]


class FleetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `fedcredit holder join` has taken from the newest welcome. `welcomed` is its time (UTC seconds)."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    address: Address
    ca: _FileName
    coordinator: Name
    welcomed: Position = 0  # 0: not by a welcome


@dataclass(frozen=True, slots=True)
class Fleet:
    """Where to dial, whom to trust there, and what to show: all of it read and checked."""

    address: str
    ca: Path
    node_key: Path
    coordinator: str

    @classmethod
    def load(cls, directory: Path, *, at: int) -> "Fleet":
        """The fleet of the data holder in `directory`, at `at` (UTC seconds), fit to connect with.

        UsageError if it has not joined one; MalformedError for what cannot be read; RefusalError for certificates out
        of their time and a key that others can read. Every text says what to do.
        """
        settings = load_fleet(directory)
        ca = directory / settings.ca
        try:
            pem = ca.read_bytes()
        except OSError as error:
            raise MalformedError(
                f"{settings.ca}, which {FLEET_FILE} names, cannot be opened ({error.strerror}). The data holder should "
                "take its newest welcome again: fedcredit holder join welcome.json"
            ) from None
        authorities = read_authorities(pem, what=settings.ca)
        if not any(in_force(certificate, at=at) for certificate in authorities):
            raise RefusalError(
                f"no certificate in {settings.ca} is in force at this machine's time, so the coordinator's address "
                "cannot be trusted. If the clock is right, ask the coordinator for a fresh welcome and take it with "
                "`fedcredit holder join`.",
                RefusalCode.POLICY,
            )
        load_node_key(directory / NODE_KEY)
        return cls(settings.address, ca, directory / NODE_KEY, settings.coordinator)


def load_fleet(directory: Path) -> FleetSettings:
    """What the newest welcome has left in `directory`. UsageError without one, MalformedError if it is spoilt."""
    try:
        raw = tomllib.loads((directory / FLEET_FILE).read_text(encoding="utf-8"))
        return msgspec.convert(raw, FleetSettings, strict=True)
    except FileNotFoundError:
        raise UsageError(
            f"there is no {FLEET_FILE} in {directory.resolve()}: this data holder has not joined a federation. Write a "
            "request with `fedcredit holder join --request request.json`, send it to the coordinator, and take its "
            "welcome with `fedcredit holder join welcome.json`."
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise MalformedError(
            f"{FLEET_FILE} cannot be read: {error}. `fedcredit holder join` writes it: remove the file and take the "
            "newest welcome again."
        ) from None


def save_fleet(directory: Path, settings: FleetSettings, ca: str) -> None:
    """Write the certificates and then the settings that name them; the latter say that both are there."""
    write_whole(directory / settings.ca, ca.encode("ascii"))
    text = f"""\
# Written by `fedcredit holder join` from the coordinator's newest welcome; the next one replaces it.
version = 1
# Where this data holder's node dials in, and the certificates (PEM) that vouch for that address.
address = "{settings.address}"
ca = "{settings.ca}"
coordinator = "{settings.coordinator}"
# When the welcome was written (UTC seconds): an earlier one is refused from now on.
welcomed = {settings.welcomed}
"""
    write_whole(directory / FLEET_FILE, text.encode())


def new_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A fresh node key (P-384) in `path`, in OpenSSH's form, readable by its owner only."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_whole(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), secret=True)
    return key


def load_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The node key in `path`. MalformedError if it is none, RefusalError if others than its owner can read it."""
    try:
        mode = path.stat().st_mode
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key, mode = None, 0
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise MalformedError(
            f"keys/{path.name} cannot be read as this node's P-384 key in OpenSSH's form. Its operator should restore "
            "it from the copy kept safe; or remove it, write a new request with `fedcredit holder join --request`, and "
            "have the coordinator enrol that."
        )
    if mode & 0o077:
        raise RefusalError(
            f"keys/{path.name} can be read by others than its owner. Its operator should run `chmod 600` on it, and if "
            "others may have copied it, change it: fedcredit holder join --request FILE --new-node-key",
            RefusalCode.INTEGRITY,
        )
    return key


def confirm_next_node_key(directory: Path) -> None:
    """Put the node key that waits in the present one's place. RefusalError if it cannot be written; then both stay."""
    waiting = directory / NEXT_NODE_KEY
    try:
        write_whole(directory / NODE_KEY, waiting.read_bytes(), secret=True)
        waiting.unlink()
    except OSError as error:
        raise RefusalError(
            f"keys/{waiting.name} could not be put in the place of {NODE_KEY.name} ({error.strerror}). Make room or "
            "give permission, then take the welcome once more.",
            RefusalCode.INTERNAL,
        ) from None
