"""How the wallet's commands reach the world: passphrase, clock, registry, side door. The only file here that does."""

import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from clients.wallet.book import Book, Random, opened
from clients.wallet.report import told
from clients.wallet.sending import Sender
from clients.wallet.service import Connect, LaneService, SideDoor
from privacy.consent.linking import RegistryAddress
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError

PATIENCE_S: Final = 10.0
_MOST_BYTES: Final = 2**20
_OK: Final = 200


def _connect(address: RegistryAddress) -> AbstractContextManager[LaneService]:
    from clients.registry_client import RegistryClient  # with all of HTTP: only when a registry is asked

    return RegistryClient(address.url, ca=address.ca, timeout_s=PATIENCE_S)


def _hand_over(url: str, ca: str | None, frames: bytes, *, patience_s: float = PATIENCE_S) -> None:
    import httpx  # only when it is used

    from federated.deadline import NOT_REACHED, TOTAL, TimelyTransport

    try:
        context = ssl.create_default_context()
        if ca is not None:
            ca.encode("ascii")  # PEM is; anything else would be a TypeError
            context.load_verify_locations(cadata=ca)
        transport = TimelyTransport(context, total_s=TOTAL * patience_s)
        kind = {"Content-Type": "application/octet-stream"}
        # Only the status is read: whatever else is sent back, however long, is nothing to a wallet.
        with (
            httpx.Client(transport=transport, timeout=patience_s, trust_env=False) as client,
            client.stream("POST", url, content=frames, headers=kind) as answer,
        ):
            status = answer.status_code
    except NOT_REACHED:
        # One data holder's address, certificate or answer must not keep a command from telling the others.
        raise RefusalError(
            "the data holder's side door does not answer. Run the command again later, or hand the record in another "
            "way with --direct-out FILE.",
            RefusalCode.LANE,
        ) from None
    if status != _OK:
        raise RefusalError(
            f"the data holder's side door answered {status} and did not take the record. Hand it in another way with "
            "--direct-out FILE, and ask the data holder why.",
            RefusalCode.LANE,
        )


@dataclass(frozen=True, slots=True)
class World:
    """What tests replace: the ways out, secret random bytes, and the clock (UTC seconds)."""

    connect: Connect = _connect
    side_door: SideDoor = _hand_over
    random: Random = os.urandom
    clock: Callable[[], float] = time.time

    def now(self) -> int:
        """The instant at which a command runs."""
        return int(self.clock())


@dataclass(frozen=True, slots=True)
class Access:
    """One run of a command: where the wallet is, and what it may use."""

    directory: Path
    passphrase_file: Path | None
    world: World

    def passphrase(self, *, new: bool = False) -> str:
        """From the file that was named, or typed unseen; never from an argument or the environment."""
        if self.passphrase_file is not None:
            text = read_text(self.passphrase_file)
            return text.removesuffix("\n").removesuffix("\r")
        typed = click.prompt("Passphrase", hide_input=True, err=True, confirmation_prompt=new)
        return str(typed)

    @contextmanager
    def opened(self) -> Iterator[Book]:
        """The wallet, after its alarms were shown."""
        with opened(self.directory, self.passphrase(), self.world.random) as book:
            show_alarms(book)
            yield book

    def sender(self, book: Book) -> Sender:
        """The ways out of this wallet."""
        return Sender(book, self.world.connect, self.world.side_door)


def show_alarms(book: Book) -> None:
    """Every alarm on stderr, in red where there are colours."""
    for alarm in book.state.alarms:
        click.secho(f"ALARM: {told(alarm)}", fg="red", bold=True, err=True)
    if book.state.alarms:
        click.echo(
            "A registry broke its word. Get the evidence with `fedcredit wallet export --out DIR`, and give "
            "alarms.json to the data holder and the auditor.",
            err=True,
        )


def read_bytes(path: Path) -> bytes:
    """A small file that was named on the command line. UsageError or MalformedError."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; name a file that can be read.") from None
    if len(data) > _MOST_BYTES:
        raise MalformedError(f"{path} has more than {_MOST_BYTES} bytes; nothing that a wallet reads is that large.")
    return data


def read_text(path: Path) -> str:
    """The same, as text in UTF-8."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError(f"{path} is not text in UTF-8; write it again as such.") from None
