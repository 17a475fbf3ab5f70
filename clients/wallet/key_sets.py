"""The data holder's sealing keys, as a registry that is not trusted serves them: only newer ones, signed, are kept."""

from msgspec.structs import replace

from clients.wallet.book import Book
from clients.wallet.service import LaneService
from clients.wallet.state import Account, Alarm, AlarmKind
from privacy.consent.key_set import KeySet, read_key_set
from privacy.errors import MalformedError, TamperingError

_MOST_SHOWN = 8192


def with_key_set(account: Account, registry: LaneService, *, at: int) -> Account:
    """The account with the newest key set, verified. RefusalError, MalformedError or TamperingError."""
    return _verified(account, registry.key_set(account.holder), at=at)


def fetch_key_set(book: Book, holder: str, registry: LaneService, *, at: int) -> KeySet:
    """The newest key set, in force at `at` and kept; an alarm for one that is not the data holder's, or goes back.

    Raises as `with_key_set`.
    """
    account = book.account(holder)
    data = registry.key_set(holder)
    try:
        account = book.put(_verified(account, data, at=at))
    except (MalformedError, TamperingError):
        shown = data[:_MOST_SHOWN].decode("ascii", "replace")
        book.alarm(Alarm(holder=holder, kind=AlarmKind.KEY_SET, seq=None, at=at, key_set=shown))
        raise
    return kept_key_set(account, at=at)


def kept_key_set(account: Account, *, at: int | None) -> KeySet:
    """The key set that was kept last, in force at `at` unless None. RefusalError when it has expired."""
    data = (account.key_set or "").encode()
    return read_key_set(data, identity=account.identity_key, holder=account.holder, at=at)


def _verified(account: Account, data: bytes, *, at: int) -> Account:
    fresh = read_key_set(data, identity=account.identity_key, holder=account.holder, at=at)
    if account.key_set is not None:
        last = kept_key_set(account, at=None)
        if fresh.version < last.version or (fresh.version == last.version and fresh != last):
            raise TamperingError(
                f"the registry serves key set {fresh.version} of a data holder, and this wallet has seen "
                f"{last.version}, or another one under that number; nothing was sealed to it. Tell the data holder."
            )
    return replace(account, key_set=data.decode())
