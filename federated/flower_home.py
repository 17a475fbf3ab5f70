"""What every program of Flower's is started with: a home of its own, and nothing sent, fetched or looked up besides."""

import os
import sys
from pathlib import Path


def flower_environment(home: Path) -> dict[str, str]:
    """This process' environment for a program of Flower's that keeps its files in `home`.

    Settings of Flower's that happen to lie in the environment do not reach it; its own helpers are found beside this
    interpreter. Nothing of ours is in it: whoever may read a process' environment learns a path.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    return kept | {
        # Whatever proxy leads outside, nothing on this machine is asked through it.
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"])),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "FLWR_HOME": str(home.absolute()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # A SuperLink would otherwise install the project's dependencies anew at every run.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def flower_program(name: str) -> str:
    """Where one of Flower's programs lies: beside this interpreter, whatever the search path says."""
    return str(Path(sys.executable).with_name(name))
