"""The consent registry as a program of its own, and a connection to it that checks every promise."""

from collections.abc import Sequence
from pathlib import Path

from clients.registry_client import RegistryClient
from experiments.program import Program
from privacy.consent.canonical import from_base64url
from privacy.consent.limits import DIGEST_BYTES, MAX_SUBMISSIONS
from privacy.consent.merkle import leaf_hash
from privacy.consent.promise import read_promise
from privacy.consent.submission import Submission
from privacy.consent.view import Entry
from privacy.errors import TamperingError


class RegistryAtWork:
    """A registry process over its directory, asked over TLS."""

    def __init__(self, place: Path | str, *, public_key: bytes, ca: str | None) -> None:
        """Start the one of a directory and wait until it listens, or ask the one that runs at a URL.

        `ca` is its certificate in PEM. RefusalError if it does not start.
        """
        self._public_key = public_key
        self._program = Program(["registry", "serve", str(place)]) if isinstance(place, Path) else None
        self.url = str(place) if self._program is None else self._program.url
        self._client = RegistryClient(self.url, ca=ca)

    def append(self, lane: str, submissions: Sequence[Submission]) -> None:
        """Submit all of them. TamperingError unless each is promised as it was handed in."""
        for first in range(0, len(submissions), MAX_SUBMISSIONS):
            some = submissions[first : first + MAX_SUBMISSIONS]
            promises = [read_promise(one, registry_key=self._public_key) for one in self._client.submit(lane, some)]
            leaves = [leaf_hash(submission.stub.leaf()) for submission in some]
            if leaves != [from_base64url(promise.leaf, size=DIGEST_BYTES) for promise in promises]:
                raise TamperingError("The registry promised other entries than it was given; do not rely on it.")

    def checkpoint(self, lane: str) -> str:
        """The lane's newest head as a signed note."""
        return self._client.checkpoint(lane)

    def entries(self, lane: str, start: int, stop: int) -> list[Entry]:
        """The lane's entries from `start` to before `stop`."""
        return self._client.entries(lane, start, stop)

    def close(self) -> None:
        """Stop it if it was started here: it answers what is under way, and ends."""
        self._client.close()
        if self._program is not None:
            self._program.close()

    def __enter__(self) -> "RegistryAtWork":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
