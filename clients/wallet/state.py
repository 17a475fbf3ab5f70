"""What a wallet knows: its secret, and for each data holder the link, the records, the receipts, the last head."""

from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from clients.wallet.wallet import Memory, Wallet
from privacy.consent.canonical import CanonicalJson, base64url, from_base64url
from privacy.consent.lane import Head, Stub
from privacy.consent.limits import (
    DIGEST_BYTES,
    HANDLE_BYTES,
    KEY_BYTES,
    MAX_COUNT,
    RHO_BYTES,
    SIGNATURE_BYTES,
    Base64Of32,
    CategoryName,
    Count,
    Name,
    UtcSeconds,
)
from privacy.consent.linking import Notice, RegistryAddress
from privacy.consent.receipt import Receipt
from privacy.consent.record import ConsentRecord, parse_record
from privacy.consent.submission import Submission
from privacy.errors import MalformedError, TamperingError

MAX_STATE_BYTES: Final = 48 * 2**20
_Hex = Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{2})+\Z")]
_Position = Annotated[int, Meta(ge=0, le=MAX_COUNT)]


class AlarmKind(StrEnum):
    """How a registry broke its word."""

    SIGNATURE = "signature"
    WENT_BACK = "went-back"
    CONSISTENCY = "consistency"
    INCLUSION = "inclusion"
    PROMISE = "promise"
    OVERDUE = "overdue"
    POSITION = "position"
    KEY_SET = "key-set"


class Alarm(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One broken word of a registry, with what proves it; the wallet never forgets it.

    `checkpoints` and `promises` are as the registry signed them (or claimed to), oldest first, and `key_set` is what it
    served as the data holder's; `leaf` is the log entry in question and `proof` the hashes that should have led to it,
    in base64url.
    """

    holder: Name
    kind: AlarmKind
    seq: Count | None
    at: UtcSeconds
    checkpoints: tuple[str, ...] = ()
    promises: tuple[str, ...] = ()
    leaf: str | None = None
    proof: tuple[str, ...] = ()
    key_set: str | None = None


class SeenHead(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The newest head of a lane that this wallet accepted, and the checkpoint that says so."""

    size: _Position
    root: Base64Of32
    checkpoint: str

    @property
    def head(self) -> Head:
        """Size and root."""
        return Head(self.size, from_base64url(self.root, size=DIGEST_BYTES))


class Written(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One record that this wallet wrote, and how far it has come.

    `leaf` (106 bytes), `payload`, `signature`, `rho` and `ciphertext` are hexadecimal. `promise` is the registry's,
    verified. `given_up_at` is when the registry refused it for good: it is never sent again. `expired_key` says that
    the key set that it was sealed to had expired, so that perhaps nobody can open it.
    """

    seq: Count
    written_at: UtcSeconds
    leaf: _Hex
    payload: _Hex
    signature: _Hex
    rho: _Hex
    ciphertext: _Hex
    promise: str | None = None
    promised_at: UtcSeconds | None = None
    handed_directly_at: UtcSeconds | None = None
    receipt: Receipt | None = None
    given_up_at: UtcSeconds | None = None
    expired_key: bool = False

    def __repr__(self) -> str:
        return f"Written({self.seq}, ...)"

    @property
    def stub(self) -> Stub:
        """The log entry."""
        return Stub.parse(bytes.fromhex(self.leaf))

    @property
    def record(self) -> ConsentRecord:
        """What the record says."""
        return parse_record(bytes.fromhex(self.payload))

    @property
    def submission(self) -> Submission:
        """The very bytes that travel."""
        return Submission(self.stub, bytes.fromhex(self.ciphertext))

    @property
    def arrived(self) -> bool:
        """Whether the registry promised it or the data holder took it: it counts."""
        return self.promise is not None or self.receipt is not None or self.handed_directly_at is not None

    @property
    def to_be_sent(self) -> bool:
        """Whether the registry has neither promised nor refused it for good."""
        return self.promise is None and self.receipt is None and self.given_up_at is None

    @property
    def lost(self) -> bool:
        """Whether it never reached anybody, and never will."""
        return self.given_up_at is not None and not self.arrived

    @property
    def perhaps_unreadable(self) -> bool:
        """Whether it was sealed to an expired key, and the data holder has not said that it could open it."""
        return self.expired_key and self.handed_directly_at is None


class Account(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A link to one data holder, and everything that happened there. `written` ascends by `seq`.

    `earlier_notices` are those that records were written under before the data holder offered a newer one.

    `outdated` means that the lane has records under this wallet's numbers that it does not know: it was restored from
    an old copy, or another copy of it is in use. Until a fresh offer tells the newest it writes nothing there that
    permits anything.
    """

    holder: Name
    identity: Base64Of32
    handle: Base64Of32
    registry: RegistryAddress
    notice: Notice
    earlier_notices: tuple[Notice, ...] = ()
    categories: tuple[CategoryName, ...]
    linked_at: UtcSeconds
    memory: Memory
    written: tuple[Written, ...] = ()
    key_set: str | None = None
    head: SeenHead | None = None
    outdated: bool = False

    def __repr__(self) -> str:
        return f"Account({self.holder}, ...)"

    @property
    def identity_key(self) -> bytes:
        """The data holder's Ed25519 key, as compared by phone."""
        return from_base64url(self.identity, size=KEY_BYTES)

    @property
    def registry_key(self) -> bytes:
        """The key that signs the lane's checkpoints and promises."""
        return from_base64url(self.registry.key, size=KEY_BYTES)

    @property
    def subject_handle(self) -> bytes:
        """The person's handle there (32 bytes)."""
        return from_base64url(self.handle, size=HANDLE_BYTES)

    @property
    def newest(self) -> Written | None:
        """The record that counts; None when there is none, or when it is known of by number only."""
        newest = self.written[-1] if self.written else None
        # After linking anew under another handle, what was said before is nobody's any more.
        ours = newest is not None and newest.seq == self.memory.seq and newest.record.sub == self.handle
        return newest if ours else None

    @property
    def wishes(self) -> ConsentRecord | None:
        """What the newest record says; None as for `newest`."""
        return None if self.newest is None else self.newest.record

    @property
    def known(self) -> bool:
        """Whether the wallet knows what is granted there; not so after a recovery, until it writes again."""
        return self.memory.seq == 0 or self.newest is not None

    def notice_of(self, record: ConsentRecord) -> Notice | None:
        """The notice that the person saw before a record; None for one that a lost wallet kept."""
        notices = (self.notice, *self.earlier_notices)
        return next((seen for seen in notices if (seen.terms, seen.jur) == (record.terms, record.jur)), None)

    @property
    def unsent(self) -> Written | None:
        """The newest record, if it is still to be sent. It replaces all before, so nothing else needs to arrive."""
        last = self.written[-1] if self.written else None
        return last if last is not None and last.seq == self.memory.seq and last.to_be_sent else None

    @property
    def superseded(self) -> tuple[Written, ...]:
        """Earlier records that were never promised, oldest first: a newer one has replaced them."""
        return tuple(record for record in self.written if record.to_be_sent and record != self.unsent)

    @property
    def unproven(self) -> tuple[Written, ...]:
        """Records that were promised and have no receipt yet, oldest first."""
        return tuple(record for record in self.written if record.promise is not None and record.receipt is None)

    def with_written(self, changed: Written) -> "Account":
        """This account with the record of that number replaced, or added at the end."""
        others = [record for record in self.written if record.seq != changed.seq]
        return msgspec.structs.replace(self, written=tuple(sorted([*others, changed], key=lambda record: record.seq)))


class State(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything, as it lies encrypted in the vault. `accounts` ascend by data holder."""

    v: Literal[1] = 1
    typ: Literal["fedcredit.wallet"] = "fedcredit.wallet"
    secret: Base64Of32
    recovered: bool
    accounts: tuple[Account, ...] = ()
    alarms: tuple[Alarm, ...] = ()

    def __repr__(self) -> str:
        return f"State({len(self.accounts)} accounts, {len(self.alarms)} alarms, ...)"

    @classmethod
    def of(cls, secret: bytes, *, recovered: bool) -> "State":
        """A new wallet's state; `recovered` when its secret wrote records before, in a wallet that was lost."""
        return cls(secret=base64url(secret), recovered=recovered)

    def wallet(self) -> Wallet:
        """The wallet that goes on where this state ends."""
        return Wallet(
            from_base64url(self.secret, size=KEY_BYTES), {account.holder: account.memory for account in self.accounts}
        )

    def account(self, holder: str) -> Account | None:
        """The link to that data holder, if there is one."""
        return next((account for account in self.accounts if account.holder == holder), None)

    def with_account(self, changed: Account) -> "State":
        """This state with that data holder's account replaced or added."""
        others = [account for account in self.accounts if account.holder != changed.holder]
        accounts = tuple(sorted([*others, changed], key=lambda account: account.holder))
        return msgspec.structs.replace(self, accounts=accounts)

    def with_alarm(self, alarm: Alarm) -> "State":
        """This state with `alarm`; the first of its kind about the same thing stays, and keeps its evidence.

        Otherwise a registry that breaks its word every minute could fill the person's disk.
        """
        if any((old.holder, old.kind, old.seq) == (alarm.holder, alarm.kind, alarm.seq) for old in self.alarms):
            return self
        return msgspec.structs.replace(self, alarms=(*self.alarms, alarm))


_CODEC = CanonicalJson(State, what="a wallet's state", max_bytes=MAX_STATE_BYTES)


def write_state(state: State) -> bytes:
    """Canonical JSON of `state`. Raises MalformedError."""
    return _CODEC.encode(state)


def read_state(data: bytes) -> State:
    """The state that `write_state` wrote. Raises MalformedError, and TamperingError for a record beside its number."""
    state = _CODEC.parse(data)
    try:
        for account in state.accounts:
            for written in account.written:
                sizes = len(bytes.fromhex(written.signature)), len(bytes.fromhex(written.rho))
                if sizes != (SIGNATURE_BYTES, RHO_BYTES) or written.record.seq != written.seq:
                    raise TamperingError(_INCONSISTENT)
                _ = written.submission
    except ValueError:
        raise MalformedError(_INCONSISTENT) from None
    return state


_INCONSISTENT = (
    "a wallet's state contradicts itself: a record is not what its number or sizes say. It was not written by this "
    "program: take the wallet's file from a copy, or recover the wallet from its written-down code."
)
