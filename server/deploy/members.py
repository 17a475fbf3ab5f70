"""Who is enrolled at a coordinator: each data holder's identity and node key, and whether it has been revoked.

The proxy reads the file anew whenever it changes, so whoever is admitted or revoked here is so at once.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from federated.enrolment import CLOCK_ERROR_S, MAX_PEERS, EnrolmentRequest, Hex32, HolderId, NodeKeyText
from federated.files import write_whole
from federated.lock import alone
from privacy.consent.limits import UtcSeconds
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError
from server.deploy.settings import STATE

FILE: Final = "members.json"
MAX_MEMBERS: Final = MAX_PEERS + 1
_LOCK: Final = ".members.lock"


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One data holder: `identity` (Ed25519, hex), `node_key` (OpenSSH), and when it was enrolled and revoked.

    `former` are the node keys that it has replaced, which nobody is enrolled with again; `welcomed` is when it was
    last written a welcome.
    """

    identity: Hex32
    node_key: NodeKeyText
    enrolled: UtcSeconds
    revoked: UtcSeconds | None
    welcomed: UtcSeconds | None = None
    former: tuple[NodeKeyText, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyTexts:
    """Node keys (OpenSSH): those that SuperLink should know, with their data holders' ids, and those it should not.

    A key that is in neither was never enrolled here, or the list is an earlier one than it should be.
    """

    to_have: dict[str, str]
    to_remove: frozenset[str]


class Admission(StrEnum):
    """What an admission has changed."""

    NEW = "new"
    NEW_NODE_KEY = "new node key"
    AGAIN = "again"
    UNCHANGED = "unchanged"


class Members:
    """The data holders of one coordinator, in `members.json` of its directory. Every change is whole and durable."""

    def __init__(self, directory: Path) -> None:
        self._path, self._state = directory / FILE, directory / STATE
        self._lock = directory / _LOCK

    def load(self) -> dict[str, Member]:
        """Everybody who ever was enrolled, by id, revoked or not.

        MalformedError if the file cannot be read, or is missing although SuperLink was started here before.
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[HolderId, Member])
        except FileNotFoundError:
            if not self._state.exists():
                return {}
            raise MalformedError(
                f"{FILE} is missing, and with it who was enrolled and who was revoked. The coordinator should restore "
                f"it from the copy kept safe. Without one: stop `fedcredit coordinator serve`, move {STATE} away, "
                "start it again, and enrol every data holder anew."
            ) from None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise MalformedError(
                f"{FILE} cannot be read as the list of enrolled data holders. The coordinator should restore it from "
                "the copy kept safe; without one, every data holder has to be enrolled again."
            ) from None

    def current(self) -> dict[str, Member]:
        """Who is enrolled and not revoked, by id."""
        return {holder: member for holder, member in self.load().items() if member.revoked is None}

    def keys(self) -> KeyTexts:
        """The node keys that are enrolled now, and those that were revoked or replaced."""
        members = self.load()
        former = {key for member in members.values() for key in member.former}
        revoked = {member.node_key for member in members.values() if member.revoked is not None}
        to_have = {member.node_key: holder for holder, member in members.items() if member.revoked is None}
        return KeyTexts(to_have, frozenset(former | revoked))

    def begin(self) -> None:
        """Write down that nobody is enrolled yet, unless there is a list: from now on, none at all is a lost one."""
        with suppress(RefusalError), alone(self._lock, ""):  # whoever has the lock is writing the list
            if not self._path.exists():
                write_whole(self._path, b"{}")

    def check(self, request: EnrolmentRequest, *, again: bool) -> Admission:
        """What admitting `request` would change. RefusalError if it may not be admitted."""
        return _judge(self.load(), request, again=again)

    def admit(self, request: EnrolmentRequest, *, at: int, again: bool = False) -> Admission:
        """Enrol whoever wrote `request`, at `at` (UTC seconds), or give an enrolled data holder its new node key.

        `again` takes back one who was revoked. RefusalError for an id, an identity or a node key that is another's.
        """
        with self._changing() as members:
            admission = _judge(members, request, again=again)
            known = members.get(request.holder)
            match admission:
                case Admission.UNCHANGED:
                    pass
                case Admission.NEW_NODE_KEY if known is not None:
                    members[request.holder] = msgspec.structs.replace(
                        known, node_key=request.node_key, former=(*known.former, known.node_key)
                    )
                case _:
                    replaced = () if known is None else (*known.former, known.node_key)
                    members[request.holder] = Member(
                        identity=request.identity, node_key=request.node_key, enrolled=at, revoked=None,
                        former=replaced,
                    )  # fmt: skip
        return admission

    def revoke(self, holder: str, *, at: int) -> bool:
        """Revoke `holder` at `at`; False if it was before. UsageError if nobody of that id was ever enrolled."""
        with self._changing() as members:
            member = members.get(holder)
            if member is None:
                raise unknown(members)
            if member.revoked is None:
                members[holder] = msgspec.structs.replace(member, revoked=at)
        return member.revoked is None

    def welcome(self, holder: str, *, at: int) -> tuple[Member, int]:
        """Note that `holder` is written a welcome at `at`; the entry, and the time that goes into the welcome.

        That is later than any before it, if the clock was set back by an hour or less: data holders refuse to go back,
        and take nothing from more than an hour ahead. UsageError or RefusalError unless the data holder is enrolled
        and not revoked; RefusalError if the last welcome lies further ahead.
        """
        with self._changing() as members:
            member = members.get(holder)
            if member is None:
                raise unknown(members)
            if member.revoked is not None:
                raise RefusalError(
                    "this data holder was revoked and is written no welcome. If it shall take part once more, let it "
                    "write a request and enrol that with --again.",
                    RefusalCode.POLICY,
                )
            if (member.welcomed or 0) > at + CLOCK_ERROR_S:
                raise RefusalError(
                    "the last welcome of this data holder was written more than an hour after what this machine's "
                    "clock shows now, and data holders take neither an older one nor one from the future. Compare "
                    "this clock with another and set it right. If it is right and was ahead then, shut the data "
                    "holder out with `fedcredit coordinator enroll --revoke`, let it write a request with `fedcredit "
                    "holder join --request FILE --new-node-key`, and enrol that with --again.",
                    RefusalCode.POLICY,
                )
            issued_at = max(at, (member.welcomed or 0) + 1)
            members[holder] = msgspec.structs.replace(member, welcomed=issued_at)
        return member, issued_at

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Member]]:
        with alone(self._lock, f"another command is changing {FILE} now; run this one again when it is done."):
            before = self.load()
            members = dict(before)
            yield members
            if members != before:
                write_whole(self._path, msgspec.json.format(msgspec.json.encode(members, order="sorted"), indent=2))


def unknown(members: Collection[str]) -> UsageError:
    """No data holder of that id was enrolled; `members` are those who were."""
    known = ", ".join(sorted(members)) or "nobody yet"
    return UsageError(f"no data holder of that id is enrolled; enrolled are: {known}. Correct the id.")


def _judge(members: dict[str, Member], request: EnrolmentRequest, *, again: bool) -> Admission:
    known = members.get(request.holder)
    others = [member for holder, member in members.items() if holder != request.holder]
    if any(request.identity == member.identity for member in others):
        raise _no("its identity key is another data holder's, enrolled under another id. Each has a key of its own: "
                  "ask whoever sent the request which of the two ids is right")  # fmt: skip
    # Revoked ones too: else who was revoked would come back under another id.
    if any(request.node_key in (member.node_key, *member.former) for member in others):
        raise _no("its node key is another data holder's. Each has a key of its own: ask whoever sent the request to "
                  "make one with `fedcredit holder join --request FILE --new-node-key`")  # fmt: skip
    if known is None:
        if len(members) >= MAX_MEMBERS:
            raise _no(f"{len(members)} are enrolled and no more than {MAX_MEMBERS} can be, revoked ones included")
        return Admission.NEW
    if request.node_key in known.former:
        raise _no("its node key was replaced before, so the request is an old one, or the key was copied. Ask the data "
                  "holder for a new request; it must be written after the newest node key was made")  # fmt: skip
    if known.revoked is not None:
        if not again:
            raise _no("it was revoked. If it shall take part once more, give --again; if you do not know why it was "
                      "revoked, find out first")  # fmt: skip
        if request.node_key == known.node_key:
            raise _no("its node key was revoked, and SuperLink never takes a key twice. Ask the data holder for a "
                      "request with another one: `fedcredit holder join --request FILE --new-node-key`")  # fmt: skip
        return Admission.AGAIN
    if request.identity != known.identity:
        raise _no("a data holder of this id is enrolled with another identity key. Ring it up at a number that you had "
                  "before. If it lost its keys: `fedcredit coordinator enroll --revoke` it, enrol it with --again, and "
                  "tell the other data holders, whose policies list the earlier key")  # fmt: skip
    return Admission.UNCHANGED if request.node_key == known.node_key else Admission.NEW_NODE_KEY


def _no(why: str) -> RefusalError:
    return RefusalError(f"the request is refused, and nothing was changed: {why}.", RefusalCode.POLICY)
