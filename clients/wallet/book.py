"""The open wallet: its state in memory, and the encrypted file that is replaced whole at every change."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from clients.wallet.state import Account, Alarm, State, read_state, write_state
from clients.wallet.vault import NONCE_BYTES, SALT_BYTES, Vault, open_vault
from federated.files import write_whole
from privacy.errors import RefusalCode, RefusalError, UsageError

VAULT: Final = "wallet.vault"
_LOCK: Final = "lock"

Random = Callable[[int], bytes]
"""As many secret random bytes as asked for; `os.urandom` outside tests."""


class Book:
    """A wallet's state and how it is kept. Every change is on the disk before the method returns."""

    def __init__(self, state: State, keep: Callable[[State], None]) -> None:
        self.state = state
        self._keep = keep

    def account(self, holder: str) -> Account:
        """The link to that data holder. UsageError when there is none."""
        account = self.state.account(holder)
        if account is None:
            linked = ", ".join(account.holder for account in self.state.accounts) or "nobody yet"
            raise UsageError(
                f"this wallet is not linked to that data holder; it is linked to: {linked}. Ask the data holder for an "
                "offer, then run: fedcredit wallet link OFFER_FILE --out ANSWER_FILE"
            )
        return account

    def put(self, account: Account) -> Account:
        """Keep that account instead of the one before. RefusalError if it cannot be written; nothing then changed."""
        self._replace(self.state.with_account(account))
        return account

    def alarm(self, alarm: Alarm) -> None:
        """Keep that a registry broke its word."""
        self._replace(self.state.with_alarm(alarm))

    def _replace(self, state: State) -> None:
        if state != self.state:
            self._keep(state)
            self.state = state


def create(
    directory: Path, passphrase: str, state: State, random: Random, *, first: Callable[[], None] = lambda: None
) -> None:
    """Make a wallet in `directory`, once `first` has returned: there is no wallet whose code was not shown.

    UsageError if there is one already: a secret is never overwritten. RefusalError for a short passphrase.
    """
    vault = Vault(passphrase, salt=random(SALT_BYTES))  # first, because it refuses a short passphrase
    with _locked(directory, make=True):
        if (directory / VAULT).exists():
            raise UsageError(
                f"{directory} holds a wallet already and is left as it is; name another directory with --wallet."
            )
        first()
        write_whole(directory / VAULT, vault.close(write_state(state), nonce=random(NONCE_BYTES)), secret=True)


@contextmanager
def opened(directory: Path, passphrase: str, random: Random) -> Iterator[Book]:
    """The wallet in `directory`, for one process at a time. Raises UsageError, RefusalError or TamperingError."""
    if not (directory / VAULT).is_file():
        raise UsageError(
            f"{directory} holds no wallet; make one with: fedcredit wallet init, or name its directory with --wallet."
        )
    with _locked(directory, make=False):
        try:
            data = (directory / VAULT).read_bytes()
        except OSError as error:
            raise RefusalError(
                f"{VAULT} cannot be read ({error.strerror}). Give read permission, then run the command again.",
                RefusalCode.INTERNAL,
            ) from error
        vault, content = open_vault(data, passphrase)

        def keep(state: State) -> None:
            write_whole(directory / VAULT, vault.close(write_state(state), nonce=random(NONCE_BYTES)), secret=True)

        yield Book(read_state(content), keep)


@contextmanager
def _locked(directory: Path, *, make: bool) -> Iterator[None]:
    """The directory for this process alone: two that wrote at once would give one number to two records."""
    try:
        if make:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RefusalError(
            f"the wallet's directory cannot be written ({error.strerror}). Make room or give write permission, then "
            "run the command again.",
            RefusalCode.INTERNAL,
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusalError(
                "another command is at work in this wallet. Wait until it has ended, then run this one again.",
                RefusalCode.INTERNAL,
            ) from None
        yield
    finally:
        os.close(descriptor)
