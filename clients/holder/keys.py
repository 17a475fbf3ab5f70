"""The data holder's keys: one to sign with, one that consent records are sealed to, and masks for each run."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from federated.files import write_whole
from privacy.consent.sealing import LaneKey
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError
from privacy.masks import MaskKey


@dataclass(frozen=True, slots=True)
class HolderKeys:
    """Private keys, born at their owner. Files are readable by their owner only."""

    identity: SigningKey
    lane_key: LaneKey

    def save(self, directory: Path) -> None:
        """Write the keys to `directory`, each file whole."""
        write_whole(directory / "identity.key", self.identity.seed, secret=True)
        write_whole(directory / "lane.key", self.lane_key.to_bytes(), secret=True)

    @classmethod
    def load(cls, directory: Path) -> "HolderKeys":
        """The keys in `directory`. MalformedError if a file is missing or is not a key."""
        try:
            return cls(
                SigningKey.from_seed((directory / "identity.key").read_bytes()),
                LaneKey.from_bytes((directory / "lane.key").read_bytes()),
            )
        except (OSError, ValueError, MalformedError) as error:
            raise MalformedError(
                f"The data holder's keys in {directory} cannot be read. Its operator should restore them from the copy "
                "kept safe."
            ) from error

    def mask_key(self, run: str) -> MaskKey:
        """The X25519 key for the masks of one run, derived so that a restarted node has the same one."""
        return MaskKey.from_bytes(self._derive("mask-key", run))

    def round_salt(self, release: str) -> bytes:
        """The secret salt of the commitment to the subjects of one release; only an auditor is shown it."""
        return self._derive("round-salt", release)

    def _derive(self, use: str, context: str) -> bytes:
        return HKDF(SHA256(), 32, salt=None, info=f"fedcredit/{use}/v1|{context}".encode()).derive(self.identity.seed)
