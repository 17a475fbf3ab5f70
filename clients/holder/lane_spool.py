"""What a sync has downloaded and opened, until it is kept: on the disk beyond some megabytes, and for nobody to read.

The file has no name, and every part of it is encrypted under a key that exists in this process only: of a record that
somebody has erased since, nothing may lie in the blocks that the file leaves behind.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from clients.holder.opener import Batch
from privacy.errors import RefusalCode, RefusalError

_IN_MEMORY: Final = 32 << 20  # bytes
_DECODER: Final = msgspec.msgpack.Decoder(Batch)


class Spool:
    """Batches in order, written once and then read once. RefusalError if the disk is full."""

    def __init__(self, directory: Path) -> None:
        # Closed by __exit__.
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(directory))  # noqa: SIM115
        self._cipher = ChaCha20Poly1305(ChaCha20Poly1305.generate_key())
        self._sizes: list[int] = []

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, batch: Batch) -> None:
        """Write one batch behind the others."""
        sealed = self._cipher.encrypt(_nonce(len(self._sizes)), msgspec.msgpack.encode(batch), None)
        try:
            self._file.write(sealed)
        except OSError as error:
            raise _unusable(error) from None
        self._sizes.append(len(sealed))

    def batches(self) -> Iterator[Batch]:
        """What was put in, in order."""
        try:
            self._file.seek(0)
            for number, size in enumerate(self._sizes):
                yield _DECODER.decode(self._cipher.decrypt(_nonce(number), self._file.read(size), None))
        except OSError as error:
            raise _unusable(error) from None


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _unusable(error: OSError) -> RefusalError:
    return RefusalError(
        f"What was downloaded cannot be kept ({error.strerror}); nothing was changed. This data holder should make "
        "room beside its lane copy, some two gigabytes for a million records, then sync again.",
        RefusalCode.INTERNAL,
    )
