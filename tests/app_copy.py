"""A copy of what Flower would bundle and of what it must leave out, away from the working tree."""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("federated", "clients", "server", "privacy")
BINARIES = Path(sys.executable).parent


def copy_app(directory: Path) -> Path:
    """The project's code and data in a new `directory`, without git, caches and environments."""
    directory.mkdir(parents=True)
    for name in (*ROOMS, "experiments", "tests"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, directory / name)
    return directory


def environment(home: Path, **more: str) -> dict[str, str]:
    """What the README sets before any Flower command, and nothing of ours: no path to the working tree."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLWR_", "PYTHON"))}
    return kept | {
        "PATH": f"{BINARIES}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        **more,
    }
