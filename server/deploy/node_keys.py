"""The node keys of enrolled data holders, as SuperNodes show them; read anew whenever somebody is admitted or revoked.

A revoked key is gone with the next request: nobody has to be told and nothing restarted.
"""

import logging
import os
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from privacy.errors import FedcreditError, MalformedError
from server.deploy.members import KeyTexts

LOG: Final = logging.getLogger("fedcredit.proxy")

_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Listed:
    """The list as it stands: `holders` are ids by node key in PEM, `gone` the keys (PEM) revoked or replaced.

    `shown` are the header values that enrolled nodes name themselves with, base64 of the PEM and no other spelling,
    each with its key.
    """

    holders: Mapping[bytes, str]
    gone: frozenset[bytes]
    shown: Mapping[bytes, EllipticCurvePublicKey] = field(compare=False)


class NodeKeys:
    """Who may speak to the fleet: those that `read` lists now, node keys in OpenSSH's form.

    `read` is called again when `file` has changed. A list that is missing or cannot be read is not an empty one:
    nothing is known then, so nobody is let in, and nobody is taken for revoked either.
    """

    def __init__(self, file: Path, read: Callable[[], KeyTexts]) -> None:
        self._file, self._read = file, read
        self._stamp: _Stamp | None = None
        self._listed: Listed | None = None
        self._told = ""
        self._one = threading.Lock()  # nobody is told what was true before a change that another is reading

    def listed(self) -> Listed | None:
        """The list as it is now; None while it cannot be read."""
        with self._one:
            stamp = _stamp(self._file)
            if self._listed is None or stamp != self._stamp:
                self._listed = self._anew(stamp)
                self._stamp = stamp
            return self._listed

    def shown(self) -> Mapping[bytes, EllipticCurvePublicKey] | None:
        """The keys by the header values of those who may come in; None while the list cannot be read."""
        listed = self.listed()
        return None if listed is None else listed.shown

    def _anew(self, stamp: _Stamp | None) -> Listed | None:
        try:
            if stamp is None:
                raise MalformedError(
                    f"{self._file.name} is missing. The coordinator should restore it from the copy kept safe."
                )
            texts = self._read()
        except FedcreditError as error:
            if self._told != str(error):
                self._told = str(error)
                LOG.error("no data holder is let in, and each is told to try again: %s", error)
            return None
        if _stamp(self._file) != stamp:
            return None  # it was replaced while it was read, or went away: the next request finds out
        if self._told:
            self._told = ""
            LOG.info("the list of data holders is read again")
        return _listed(texts)


def _listed(texts: KeyTexts) -> Listed:
    found = [(key, holder) for text, holder in texts.to_have.items() if (key := _key(text)) is not None]
    if len(found) < len(texts.to_have):
        LOG.error(
            "%d of %d enrolled node keys cannot be read; the coordinator should enrol those data holders anew",
            len(texts.to_have) - len(found), len(texts.to_have),
        )  # fmt: skip
    holders = {_pem(key): holder for key, holder in found}
    return Listed(holders, _gone(texts.to_remove) - holders.keys(), {b64encode(_pem(key)): key for key, _ in found})


def _gone(texts: Iterable[str]) -> frozenset[bytes]:
    return frozenset(_pem(key) for text in texts if (key := _key(text)) is not None)


def _key(openssh: str) -> EllipticCurvePublicKey | None:
    try:
        key = load_ssh_public_key(openssh.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, EllipticCurvePublicKey) else None


def _pem(key: EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _stamp(file: Path) -> _Stamp | None:
    try:
        found = os.stat(file)  # noqa: PTH116 (at every request)
    except OSError:
        return None
    # The last for a file that could not be read and may be now: its mode has changed and nothing else.
    return found.st_mtime_ns, found.st_ino, found.st_size, found.st_ctime_ns
