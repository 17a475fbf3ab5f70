"""`fedcredit coordinator run` as a process of its own, which waits for nodes that never come."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import server.deploy.flower_run
import server.deploy.runs
from clients.app import app_for
from federated.in_process import InProcessGrid
from server.deploy.settings import Home
from server.grid_channel import GridChannel


@contextmanager
def nobody(home: Home, *, tell: Callable[[str], None]) -> Iterator[GridChannel]:
    def none(name: str) -> object:
        raise KeyError(name)

    yield GridChannel(InProcessGrid(app_for(none, lambda: 0.0), {}))  # type: ignore[arg-type]  # it is never asked


if __name__ == "__main__":
    server.deploy.flower_run.over_flower = nobody
    setattr(server.deploy.runs, "newest", lambda *_, **__: {})  # noqa: B010 (the module imports the name)
    sys.argv = ["fedcredit", "coordinator", "run", "--directory", sys.argv[1]]
    from federated.cli import main

    main()
