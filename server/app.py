"""Flower's ServerApp: runs the coordinator's plan over whatever grid Flower gives. Translation only."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.coordinator import Coordinator
from server.grid_channel import GridChannel, wait_for_nodes
from server.rounds import no_progress

NODES_DEADLINE_S = 120.0
ROUND_DEADLINE_S = 300.0

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Wait for the plan's data holders, then run the plan."""
    coordinator = Coordinator(Path(str(context.run_config["coordinator-directory"])))
    channel = GridChannel(grid)
    wait_for_nodes(channel, len(coordinator.plan.roster), deadline_s=NODES_DEADLINE_S)
    coordinator.run(channel, no_progress, deadline_s=ROUND_DEADLINE_S)
