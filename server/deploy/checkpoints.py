"""The newest head of each data holder's lane, as the registry has signed it: what a run is pinned to."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from federated.registry_reader import RegistryReader
from privacy.consent.lane import read_checkpoint
from privacy.errors import RefusalError
from server.deploy.settings import Home


class Heads(Protocol):
    """Where lanes are headed: the registry, or one in this process."""

    def checkpoint(self, lane: str) -> str:
        """The lane's newest signed head."""
        ...


@contextmanager
def registry_of(home: Home) -> Iterator[Heads]:
    """The registry that the coordinator's settings name, over HTTP."""
    settings = home.settings.registry
    with RegistryReader(settings.url, ca=settings.trust(home.directory)) as reader:
        yield reader


def newest(heads: Heads, holders: Iterable[str], *, public: bytes) -> dict[str, str]:
    """The newest checkpoint of each data holder's lane, by data holder, signed by the registry's key `public`.

    RefusalError if the registry cannot be reached or has no such lane; TamperingError or MalformedError for a head
    that is not its own.
    """
    return {holder: _newest(heads, holder, public) for holder in holders}


def _newest(heads: Heads, holder: str, public: bytes) -> str:
    try:
        text = heads.checkpoint(holder)
    except RefusalError as error:
        raise RefusalError(
            f"The newest head of lane {holder} was not to be had, and nobody was asked anything. {error}", error.code
        ) from None
    read_checkpoint(text, f"fedcredit/{holder}", public)
    return text
