"""What a data holder's programs tell about themselves while they serve: two small files, and never a person in them."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec

from federated.files import write_whole
from privacy.errors import RefusalCode, RefusalError

STATUS, WORKER, LOCK = "status.json", "worker.json", "serve.lock"
_RUN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\Z")


class NodeState(StrEnum):
    """How the connection to the coordinator is: a closed set, each with what to do in `WORDS`."""

    CONNECTING = "connecting"
    ONLINE = "online"
    AWAY = "away"
    SILENT = "silent"
    WAITING = "waiting"
    KEY_REFUSED = "key-refused"
    SIGNATURE_REFUSED = "signature-refused"
    CERTIFICATE = "certificate"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NAME = "certificate-name"
    CERTIFICATE_FILE = "certificate-file"
    KEY_FILE = "key-file"
    PORT = "port"
    ENDED = "ended"


WORDS: Final = {
    NodeState.CONNECTING: "connecting to the coordinator",
    NodeState.ONLINE: "connected; messages are answered as they come",
    NodeState.AWAY: (
        "the coordinator cannot be reached at the address in fleet.toml. It is asked again by itself; if that lasts, "
        "ask its operator whether `fedcredit coordinator serve` runs, and whether a firewall is between you."
    ),
    NodeState.SILENT: (
        "the coordinator has not answered this node for more than a minute, and the SuperNode does not say why. It is "
        "started again by itself if that lasts; then read serving/supernode.log."
    ),
    NodeState.WAITING: (
        "the coordinator still counts the connection that broke off; it lets this node in again within about a minute, "
        "by itself."
    ),
    NodeState.KEY_REFUSED: (
        "the coordinator does not let this node's key in: it was never enrolled, it was revoked, or another node is "
        "connected with it, from a copy of this directory. Stop the other one if there is one; else ask the "
        "coordinator's operator. To enrol again, run `fedcredit holder join`."
    ),
    NodeState.SIGNATURE_REFUSED: (
        "the coordinator does not accept this node's signature. Most often a clock is wrong: it may be at most 5 "
        "seconds ahead of the coordinator's and 5 minutes behind. Set this machine's clock (NTP), or the coordinator "
        "sets its own; otherwise the key was revoked just now."
    ),
    NodeState.CERTIFICATE: (
        "the coordinator's certificate is not vouched for by fleet-ca.pem: it was made anew, or somebody else answers "
        "at that address. Ask the coordinator's operator for a new invitation and compare fingerprints by telephone, "
        "then run `fedcredit holder join` again."
    ),
    NodeState.CERTIFICATE_EXPIRED: (
        "the coordinator's certificate has expired or is not valid yet. If this machine's clock is right, the "
        "coordinator's operator should run `fedcredit coordinator certificates` and start serving again."
    ),
    NodeState.CERTIFICATE_NAME: (
        "the coordinator's certificate is for another address than the one in fleet.toml. The coordinator's operator "
        "should make one for that address, or give you the right address."
    ),
    NodeState.CERTIFICATE_FILE: (
        "fleet-ca.pem holds no certificates. Run `fedcredit holder join` again with the coordinator's invitation."
    ),
    NodeState.KEY_FILE: (
        "keys/node.key is no node key. Restore it from the copy kept safe, or run `fedcredit holder join` again."
    ),
    NodeState.PORT: "another program took this node's port on this machine; it goes on with another one by itself.",
    NodeState.ENDED: (
        "Flower's SuperNode ended and is started again by itself; if that lasts, serving/supernode.log says why."
    ),
}
"""What each state means, what to do, and whose task it is."""


class LastLetter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was answered last: its kind and place, and why if it was refused. Nothing of its content."""

    kind: str
    run: str | None
    stage: int | None
    at: int  # UTC seconds
    took_ms: int  # until there was an answer; to hand it to Flower's SuperNode is not counted
    refused: RefusalCode | None
    failed: str | None  # kind of error, where there was no answer at all


class WorkerStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the program that answers is doing, as it wrote itself."""

    ready: bool
    since: int
    reason: str | None  # why it is not ready, in words
    answered: int
    refusals: int
    last: LastLetter | None


class ProgramStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One supervised program. `restarts` counts since serving began."""

    pid: int | None
    restarts: int
    last_exit: int | None


class ServeStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How serving goes, as the supervisor wrote it last."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    holder: str
    coordinator: str
    address: str
    state: NodeState
    since: int  # of this state
    online_at: int | None  # when the coordinator answered this node last; None after an orderly stop
    started: int
    pid: int
    programs: dict[str, ProgramStatus]


_Told = TypeVar("_Told", ServeStatus, WorkerStatus)


def write_status(path: Path, status: ServeStatus | WorkerStatus) -> None:
    """Write it down for `holder status`. A full disk keeps nobody from serving."""
    try:
        write_whole(path, msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n", secret=True)
    except RefusalError:
        return


def read_status(path: Path, kind: type[_Told]) -> _Told | None:
    """What was written last; None if there is nothing, or nothing that this version understands."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def shown_run(name: str | None) -> str | None:
    """A run's name as a coordinator gave it, if it is a plain one; whatever else it may be is not shown."""
    return name if name is not None and _RUN_NAME.match(name) else None
