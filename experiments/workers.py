"""Work of separate parties in processes of their own, as it would be on their own machines."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from clients.holder.node import Holder
from clients.wallet.wallet import HolderAddress, SealedRecord, Wallet
from experiments.people import Attitude
from experiments.wishes import EPOCH, records_of
from privacy.consent.sealing import LanePublicKey
from privacy.consent.view import Link

MOST_WORKERS = 4
FEW_PEOPLE = 2_000  # whose work is done sooner than other processes have started and imported what they need
Asked = ParamSpec("Asked")
Made = TypeVar("Made")


class InThisProcess(Executor):
    """Whoever hands work in does it on the spot, one thing after the other."""

    def submit(self, work: Callable[Asked, Made], /, *args: Asked.args, **kwargs: Asked.kwargs) -> Future[Made]:
        """The work, done; what it raises is raised by its result."""
        future: Future[Made] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def workers(people: int) -> Iterator[Executor]:
    """Hands for the work of so many people: a pool of processes, one a core up to a few, or for few this process.

    The processes are started fresh, and import what they need.
    """
    if people <= FEW_PEOPLE:
        yield InThisProcess()
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(MOST_WORKERS, os.cpu_count() or 1), mp_context=context) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True, slots=True)
class Writer:
    """A person about to write consent records: the wallet, and at each data holder the handle and the share given."""

    wallet: Wallet
    attitude: Attitude
    cap: float
    places: tuple[tuple[str, bytes, int], ...]  # data holder, handle, thousandths of the clipping norm


@dataclass(frozen=True, slots=True)
class Desk:
    """What every writer needs to know: sealing keys by data holder, the schema's categories, the instant."""

    keys: dict[str, bytes]
    categories: frozenset[str]
    at: int


def write_records(desk: Desk, writers: list[Writer]) -> list[tuple[Wallet, list[tuple[str, SealedRecord]]]]:
    """What each writer wishes, signed and sealed, by data holder; and the wallet, which remembers having written it."""
    addresses = {name: HolderAddress(name, EPOCH, LanePublicKey.from_bytes(key)) for name, key in desk.keys.items()}
    written = []
    for writer in writers:
        records = [
            (holder, record)
            for holder, handle, share_milli in writer.places
            for record in records_of(
                writer.attitude, writer.wallet, addresses[holder], handle=handle, categories=desk.categories,
                share_milli=share_milli, cap=writer.cap, at=desk.at,
            )
        ]  # fmt: skip
        written.append((writer.wallet, records))
    return written


def link_and_sync(directory: Path, links: dict[str, Link], at: int) -> None:
    """A data holder's first day: tie its customers to their wallets, then download and verify its whole lane."""
    with closing(Holder(directory)) as holder:
        holder.lane.link(links)
        holder.lane.sync(holder.source, at=at)


def replay(directory: Path, runs: dict[str, dict[str, bytes]]) -> int:
    """Rows that a data holder used without consent, over all releases of these runs (run to release to commitment)."""
    with closing(Holder(directory)) as holder:
        return sum(holder.rows_used_without_consent(run, commitments) for run, commitments in runs.items())
