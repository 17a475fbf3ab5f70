"""Where a federation's consent registry is to be found, and the directory that it serves from."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from federated.files import write_whole
from privacy.consent.signing import SigningKey
from server.registry.certificates import self_signed
from server.registry.settings import (
    KEY_FILE,
    SETTINGS_FILE,
    LaneSettings,
    LimitSettings,
    RegistrySettings,
    settings_text,
)

DATABASE = "registry.db"
HOST = "127.0.0.1"
_CERTIFICATE, _PRIVATE_KEY = "tls.pem", "tls.key"
# One machine hands in the records of everybody.
_LIMITS = LimitSettings(records_per_minute=10_000_000, burst=10_000_000)


@dataclass(frozen=True, slots=True, repr=False)
class RegistryPlace:
    """The registry's address, and its own certificate and private key in PEM; both are empty without TLS."""

    port: int
    certificate: bytes
    private_key: bytes

    @classmethod
    def on_this_machine(cls, *, at: int) -> "RegistryPlace":
        """A free port of this machine, with a certificate valid from `at`."""
        with socket.create_server((HOST, 0)) as free:
            port = int(free.getsockname()[1])
        return cls(port, *self_signed(HOST, at=at))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self.certificate else 'http'}://{HOST}:{self.port}"

    def write_home(self, directory: Path, key: SigningKey, identities: Mapping[str, bytes]) -> None:
        """Make the registry's directory: key, certificate and settings, with one lane for each data holder."""
        directory.mkdir(parents=True)
        write_whole(directory / KEY_FILE, key.seed, secret=True)
        if self.certificate:
            write_whole(directory / _CERTIFICATE, self.certificate)
            write_whole(directory / _PRIVATE_KEY, self.private_key, secret=True)
        settings = RegistrySettings(
            version=1,
            database=f"sqlite:///{DATABASE}",
            host=HOST,
            port=self.port,
            certificate=_CERTIFICATE if self.certificate else "",
            private_key=_PRIVATE_KEY if self.certificate else "",
            merge_delay_s=60,
            limits=_LIMITS,
            lanes={holder: LaneSettings(identity=identity.hex()) for holder, identity in identities.items()},
        )
        write_whole(directory / SETTINGS_FILE, settings_text(settings).encode())


# Nobody answers there: who works in one process hands the registry over.
IN_PROCESS = RegistryPlace(9, b"", b"")
