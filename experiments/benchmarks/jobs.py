"""Work of a benchmark in jobs that worker processes share out."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

Job = TypeVar("Job")
Found = TypeVar("Found")
Given = ParamSpec("Given")


def shared_out(run: Callable[[Job], Found], jobs: Sequence[Job], *, workers: int) -> Iterator[tuple[Job, Found]]:
    """Each job with what `run` makes of it, as they are done; in this process if there is one worker.

    The first error ends all of it. `run` and the jobs travel to other processes: module level, picklable.
    """
    if workers <= 1:
        yield from ((job, on_one_thread(run, job)) for job in jobs)
        return
    # Forked workers would inherit locks of thread pools that do not exist in them.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running: dict[Future[Found], Job] = {pool.submit(on_one_thread, run, job): job for job in jobs}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def in_its_own_process(run: Callable[Given, Found], *args: Given.args, **kwargs: Given.kwargs) -> Found:
    """What `run` makes in a process that was started for it alone: nothing else is in its memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(run, *args, **kwargs).result()


def on_one_thread(run: Callable[Given, Found], *args: Given.args, **kwargs: Given.kwargs) -> Found:
    """What `run` makes on one thread of the numerical libraries: the workers are what runs side by side."""
    with threadpool_limits(limits=1):
        return run(*args, **kwargs)
