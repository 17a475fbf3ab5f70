"""The node keys of enrolled data holders, as SuperNodes show them; read anew whenever somebody is admitted or revoked.

A revoked key is gone with the next request: nobody has to be told and nothing restarted.
"""

import logging
import os
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from privacy.errors import FedcreditError

LOG: Final = logging.getLogger("fedcredit.proxy")

_Stamp = tuple[int, int, int]


class NodeKeys:
    """Who may speak to the fleet: those that `read` lists now, node keys in OpenSSH's form with the holders' ids.

    `read` is called again when `file` has changed. While it cannot be read nobody is let in.
    """

    def __init__(self, file: Path, read: Callable[[], Mapping[str, str]]) -> None:
        self._file, self._read = file, read
        self._stamp: _Stamp | None = None
        self._holders: dict[bytes, str] = {}
        self._shown: frozenset[bytes] = frozenset()
        self._known = False
        self._one = threading.Lock()  # nobody is told what was true before a change that another is reading

    def holders(self) -> Mapping[bytes, str]:
        """Each enrolled data holder's id by its node key in PEM, as it is now."""
        with self._one:
            self._refresh()
            return self._holders

    def shown(self) -> frozenset[bytes]:
        """The header values that enrolled nodes prove themselves with: base64 of the PEM, and no other spelling."""
        with self._one:
            self._refresh()
            return self._shown

    def _refresh(self) -> None:
        stamp = _stamp(self._file)
        if self._known and stamp == self._stamp:
            return
        # First: what is replaced while it is read is read once more.
        self._stamp, self._known = stamp, True
        try:
            listed = self._read() if stamp is not None else {}
        except FedcreditError as error:
            LOG.error("no data holder is let in: %s", error)
            listed = {}
        holders = {pem: holder for key, holder in listed.items() if (pem := _pem(key)) is not None}
        if len(holders) < len(listed):
            LOG.error(
                "%d of %d enrolled node keys cannot be read; the coordinator should enrol those data holders anew",
                len(listed) - len(holders), len(listed),
            )  # fmt: skip
        self._holders, self._shown = holders, frozenset(b64encode(pem) for pem in holders)


def _pem(openssh: str) -> bytes | None:
    try:
        key = load_ssh_public_key(openssh.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, EllipticCurvePublicKey):
        return None
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _stamp(file: Path) -> _Stamp | None:
    try:
        found = os.stat(file)  # noqa: PTH116 (at every request)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
