"""Flower's ServerApp, for whoever submits the app to a SuperLink of their own: it runs the coordinator's plan."""

from typing import cast

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from server.app import app
from tests.ready import AT, Ready


def test_flowers_app_runs_the_plan_of_the_directory_that_its_run_names(ready: Ready) -> None:
    directory = ready.federation.coordinator_directory
    with ready.session(AT) as session:
        config = {"coordinator-directory": str(directory)}
        app(cast(Grid, session.channel._grid), Context(1, 0, {}, RecordDict(), dict(config)))
        outcome = session.run(lambda *_: None)  # repeats what is there
    assert [path.name for path in (directory / "runs").iterdir()] == [outcome.run]
