"""Enrolling at the coordinator: a request is checked, its fingerprint compared, and a welcome written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from federated.enrolment import (
    MAX_FILE_BYTES,
    RegistryKnown,
    Welcome,
    compare_fingerprint,
    fingerprint_of,
    is_welcome,
    read_request,
    write_welcome,
)
from federated.schema_toml import load_schema
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError
from server.deploy import tls
from server.deploy.members import Admission, Members
from server.deploy.settings import Home

Ask = Callable[[str, str], str]
"""Given a data holder's id and the fingerprint of its request: what the operator was told by telephone."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Whom a request has enrolled, with which fingerprint, and what that changed."""

    holder: str
    fingerprint: str
    admission: Admission


def enrol(home: Home, data: bytes, *, ask: Ask, again: bool, at: int) -> Enrolled:
    """Enrol whoever wrote the request in `data`, once `ask` has told the fingerprint that it must have.

    Nothing is changed by a request that is refused, and nobody is rung up for one that would be.
    """
    request = read_request(data, at=at)
    members = Members(home.directory)
    members.check(request, again=again)
    expected = fingerprint_of(request.holder, request.identity, request.node_key)
    compare_fingerprint(ask(request.holder, expected), expected)
    return Enrolled(request.holder, expected, members.admit(request, at=at, again=again))


@dataclass(frozen=True, slots=True)
class Welcomes:
    """What every welcome of one coordinator says, read and checked once: `key` signs, digests are in hex."""

    home: Home
    key: SigningKey
    ca: str
    schema: str
    bundle: str

    @classmethod
    def of(cls, home: Home, *, bundle: str) -> "Welcomes":
        """Welcomes to `home`'s federation; `bundle` is the digest of the app bundle that runs are made with."""
        ca, schema = tls.authorities_pem(home.directory), load_schema(home.schema).digest
        return cls(home, home.key(), ca, schema, bundle)

    def to(self, holder: str, *, at: int) -> bytes:
        """A welcome for the enrolled `holder`, signed. UsageError or RefusalError for one who is not."""
        members = Members(self.home.directory)
        member, issued_at = members.welcome(holder, at=at)
        settings = self.home.settings
        return write_welcome(
            Welcome(
                holder=holder,
                identity=member.identity,
                node_key=member.node_key,
                issued_at=issued_at,
                coordinator=settings.name,
                coordinator_key=self.key.public.hex(),
                address=settings.fleet.address,
                ca=self.ca,
                schema=self.schema,
                bundle=self.bundle,
                registry=RegistryKnown(url=settings.registry.url, key=settings.registry.key),
                peers={other: entry.identity for other, entry in members.current().items() if other != holder},
            ),
            self.key,
        )


def read_file(path: Path) -> bytes:
    """The request in `path`. UsageError if it cannot be opened, MalformedError if it is larger than any request."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be opened ({error.strerror}); give the path of a request to join.") from None
    if len(data) > MAX_FILE_BYTES:
        raise MalformedError(
            f"{path.name} has more than {MAX_FILE_BYTES} bytes and is no request; give the right file."
        )
    return data


def check_place(path: Path) -> None:
    """UsageError unless a welcome may be written to `path`: it is free, or what is there is an earlier welcome."""
    try:
        with path.open("rb") as file:
            there = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{path.parent} is no directory; make it, or name another file with --out.") from None
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name a file with --out.") from None
    if not is_welcome(there):
        raise UsageError(f"{path} exists, is no welcome and is left as it is; name another file with --out.")


def make_directory(path: Path) -> None:
    """Make the directory that welcomes for everybody go to. RefusalError if it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefusalError(
            f"{path} could not be made ({error.strerror}). Name another directory with --out.", RefusalCode.INTERNAL
        ) from None
