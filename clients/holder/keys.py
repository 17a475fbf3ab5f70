"""The data holder's keys: one to sign with, one for each epoch of its lane, and those derived from the first."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from federated.files import write_whole
from privacy.consent.sealing import LaneKey
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError

_LANE_KEY: Final = re.compile(r"lane-([1-9][0-9]{0,8})\.key\Z")
_DESTROYED: Final = re.compile(r"lane-([1-9][0-9]{0,8})\.destroyed\Z")


@dataclass(frozen=True, slots=True)
class HolderKeys:
    """Private keys, born at their owner. Files are readable by their owner only.

    `lane_keys` holds the key of every epoch: what was sealed to an earlier one must still open.
    """

    identity: SigningKey
    lane_keys: Mapping[int, LaneKey]

    def __post_init__(self) -> None:
        if not self.lane_keys or min(self.lane_keys) < 1:
            raise MalformedError(
                "A data holder needs a lane key for at least one epoch, and epochs count from 1. Its operator should "
                "restore the keys from the copy kept safe."
            )

    @property
    def current(self) -> int:
        """The newest epoch, whose key records are sealed to."""
        return max(self.lane_keys)

    @property
    def lane_key(self) -> LaneKey:
        """The key of the newest epoch."""
        return self.lane_keys[self.current]

    @property
    def opening_keys(self) -> Mapping[int, LaneKey]:
        """The keys of the newest epochs without a gap between them, which a lane is opened with.

        With an older one, whose successor is gone, a grant could be opened and its withdrawal could not.
        """
        first = self.current
        while first - 1 in self.lane_keys:
            first -= 1
        return {epoch: key for epoch, key in self.lane_keys.items() if epoch >= first}

    def save(self, directory: Path) -> None:
        """Write the keys to `directory`, each file whole; what else lies there stays."""
        write_whole(directory / "identity.key", self.identity.seed, secret=True)
        for epoch, key in self.lane_keys.items():
            write_whole(directory / f"lane-{epoch}.key", key.to_bytes(), secret=True)

    @classmethod
    def load(cls, directory: Path) -> "HolderKeys":
        """The keys in `directory`. MalformedError if a file is missing or is not a key."""
        try:
            names = [file.name for file in directory.iterdir()]
            epochs = sorted(int(found[1]) for name in names if (found := _LANE_KEY.match(name)))
            destroyed = [int(found[1]) for name in names if (found := _DESTROYED.match(name))]
            # A key that is lost takes every record sealed to it along, so a gap is passed over only where the desk
            # destroyed a key on purpose.
            if sorted({*epochs, *destroyed}) != list(range(1, max(epochs, default=0) + 1)):
                raise MalformedError("an epoch's lane key is missing")
            return cls(
                SigningKey.from_seed((directory / "identity.key").read_bytes()),
                {epoch: LaneKey.from_bytes((directory / f"lane-{epoch}.key").read_bytes()) for epoch in epochs},
            )
        except (OSError, ValueError, MalformedError) as error:
            raise MalformedError(
                f"The data holder's keys in {directory} cannot be read: identity.key and lane-1.key, lane-2.key and so "
                "on without a gap are needed. Its operator should restore them from the copy kept safe."
            ) from error

    def sum_secret(self, run: str) -> bytes:
        """The secret (32 bytes) behind this data holder's masks of one run; a restarted node has the same one."""
        return self._derive("sum-secret", run)

    def round_salt(self, release: str) -> bytes:
        """The secret salt of the commitment to the subjects of one release; only an auditor is shown it."""
        return self._derive("round-salt", release)

    def storage_key(self, use: str) -> bytes:
        """The secret key (32 bytes) that guards one of this data holder's own stores; the same in every epoch."""
        return self._derive("storage-key", use)

    def _derive(self, use: str, context: str) -> bytes:
        return HKDF(SHA256(), 32, salt=None, info=f"fedcredit/{use}/v1|{context}".encode()).derive(self.identity.seed)
