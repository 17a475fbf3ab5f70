"""Units for systemd: how the programs that serve a directory are started, kept running and kept in their place."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privacy.errors import RefusalCode, RefusalError, UsageError

_ACCOUNT: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
_HOMES: Final = ("/home", "/root", "/run/user")

# By role: each unit's name, what it is, and the arguments of `fedcredit`, in which {} is the directory.
_SERVED: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "data holder": (
        "fedcredit-holder", "data holder: answers its coordinator and syncs its lane; it dials out",
        ("holder", "serve", "--directory", "{}"),
    ),
    "coordinator": (
        "fedcredit-coordinator", "coordinator: the door that data holders dial in to, and SuperLink behind it",
        ("coordinator", "serve", "--directory", "{}"),
    ),
    "registry": ("fedcredit-registry", "consent registry", ("registry", "serve", "{}")),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit's file name and text."""

    name: str
    text: str


def unit_for(role: str, directory: Path, *, account: str, program: Path | None = None) -> Unit:
    """The unit that serves a role's `directory` as `account`. UsageError for what cannot be written as one.

    `program` is the command `fedcredit`; None is the one beside this interpreter.
    """
    if not _ACCOUNT.match(account):
        raise UsageError(f"{account!r} is no name of a system account; give one with --account.")
    place = directory.absolute()
    command = (program or Path(sys.executable).with_name("fedcredit")).absolute()
    hidden = any(str(path).startswith(f"{home}/") for path in (place, command) for home in _HOMES)
    name, what, arguments = _SERVED[role]
    line = " ".join(_quoted(one.replace("{}", str(place)), variables=True) for one in (str(command), *arguments))
    text = _UNIT.format(
        what=what, line=line, account=account, place=_quoted(str(place)), doctor=f"{command} doctor {place}",
        home="read-only" if hidden else "yes",
    )  # fmt: skip
    return Unit(f"{name}.service", text)


def write_unit(unit: Unit, out: Path) -> Path:
    """Write the unit to its file in `out`. UsageError if it is there already, RefusalError if it cannot be made."""
    path = out / unit.name
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(unit.text)
    except FileExistsError:
        raise UsageError(f"{path} exists and is left as it is. Move it away, or name another --out.") from None
    except OSError as error:
        raise RefusalError(
            f"{path} could not be written ({error.strerror}). Run it as an account that may, or name another --out.",
            RefusalCode.INTERNAL,
        ) from None
    return path


def _quoted(text: str, *, variables: bool = False) -> str:
    """One word as systemd reads it: percent signs double, in a command dollar signs too."""
    if not text.isprintable():
        raise UsageError("A path has a character in it that cannot be printed. Name the directory otherwise.")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    text = text.replace("$", "$$") if variables else text
    return text if re.match(r"[A-Za-z0-9_@%+=:,./$-]+\Z", text) else f'"{text}"'


_UNIT: Final = """\
# Made by `fedcredit units`. No secret is in it: keys lie in the directory, readable by its account alone.
# Look before the first start, as that account: {doctor}

[Unit]
Description=fedcredit {what}
Wants=network-online.target
# Consent is judged by the clock, so the time is set first.
After=network-online.target time-sync.target
# Never give up: the pauses below grow instead.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={line}
User={account}
UMask=0077

# Started again after a crash or a refusal (3), in pauses from 2 s to 5 min; before systemd 254, of 2 s always.
# Not after usage (2), settings that cannot be read (4) or tampering (5): those need a person.
Restart=on-failure
RestartSec=2
RestartSteps=8
RestartMaxDelaySec=300
RestartPreventExitStatus=2 4 5
# The program ends what it has started and finishes what it has begun; after this it is killed with all of it.
KillMode=mixed
TimeoutStopSec=60

# It writes to its directory and nowhere else. What lies in people's homes is hidden ("yes"), or, where the directory or
# the program itself is in one, at least not written to ("read-only").
ProtectSystem=strict
ReadWritePaths={place}
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
# A core dump would hold keys.
LimitCORE=0
LimitNOFILE=8192

# It needs no privilege. To listen on a port below 1024, write CAP_NET_BIND_SERVICE behind both of the next two.
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
SystemCallArchitectures=native
LockPersonality=yes
# Nothing here makes code as it runs: tried with numpy, with SQLite's callbacks and with torch.
MemoryDenyWriteExecute=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
# Other accounts' processes are not seen; its own are, which it has to end.
ProtectProc=invisible

[Install]
WantedBy=multi-user.target
"""
