"""What Flower's programs are started with: nothing of ours, nothing sent, and the programs of this installation."""

import os
import sys
from pathlib import Path

import pytest

from federated.flower_home import flower_environment, flower_program


def test_flower_is_kept_quiet_and_to_its_own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", "/somebody/else")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setenv("FLWR_SOMETHING_NEW", "1")
    monkeypatch.setenv("OTHER", "kept")
    monkeypatch.chdir(tmp_path)
    made = flower_environment(Path("home"))
    flowers = {name: value for name, value in made.items() if name.startswith("FLWR_")}
    assert flowers == {
        "FLWR_HOME": str(tmp_path / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }
    assert made["OTHER"] == "kept"
    assert os.environ["FLWR_HOME"] == "/somebody/else"  # only the copy is changed


def test_its_programs_are_those_beside_this_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("flower-superlink", "flower-supernode", "flwr"):
        path = Path(flower_program(name))
        assert path.parent == Path(sys.executable).parent
        assert os.access(path, os.X_OK)
    assert flower_environment(tmp_path)["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_a_search_path_that_is_missing_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PATH")
    assert flower_environment(tmp_path)["PATH"].startswith(str(Path(sys.executable).parent))
