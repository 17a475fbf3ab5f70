"""The bundle that Flower sends to every data holder: the code of four rooms and nothing else, and it runs alone."""

import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.app_copy import BINARIES, ROOMS, ROOT, copy_app, environment

LARGEST_BUNDLE = 10_000_000  # Flower's own limit
# What a working tree may hold by accident: none of it may travel.
ACCIDENTS = (
    "clients/holder/holder.toml", "clients/holder/rows.csv", "clients/consents.json", "clients/holder/ledger.db",
    "server/registry/registry.db", "server/plan.json", "federated/schema.toml", "privacy/notes.md",
    "privacy/keys/identity.key", "runs/demo/report.json", "coordinator/coordinator.key", "people.jsonl", "row.yaml",
)  # fmt: skip

# Imports every module of the bundle from the bundle, and says where each module of ours came from.
IMPORT_ALL = """
import importlib, json, pathlib, sys
root = pathlib.Path(sys.argv[1])
names = [
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    for room in ("federated", "clients", "server", "privacy") for path in sorted((root / room).rglob("*.py"))
]
for name in names:
    importlib.import_module(name)
loaded = {n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in
          ("federated", "clients", "server", "privacy", "experiments", "tests") and getattr(m, "__file__", None)}
print(json.dumps({"names": names, "loaded": loaded, "ray": "ray" in sys.modules, "torch": "torch" in sys.modules}))
"""


NOT_OF_A_RUN = ("clients/wallet/", "server/registry/", "server/deploy/")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    directory = tmp_path_factory.mktemp("bundle")
    app = copy_app(directory / "app")
    for name in ACCIDENTS:
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text("{}")
    command = [str(BINARIES / "flwr"), "build", "--app", str(app)]
    built = subprocess.run(
        command, cwd=directory, env=environment(directory / "home"), capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    files = [*app.glob("*.fab"), *directory.glob("*.fab")]
    assert len(files) == 1, built.stdout
    assert files[0].stat().st_size < LARGEST_BUNDLE / 5
    return zipfile.Path(files[0])


def _names(bundle: zipfile.Path) -> set[str]:
    return {name for name in bundle.root.namelist() if not name.endswith("/")}


def test_the_bundle_is_the_code_of_the_four_rooms_and_nothing_else(bundle: zipfile.Path) -> None:
    code = {path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    code = {name for name in code if not name.startswith(NOT_OF_A_RUN)}
    assert len(code) > 50
    # The two others are Flower's own: the app's settings and the list of contents with digests.
    assert _names(bundle) == code | {"pyproject.toml", ".info/CONTENT"}


def test_no_table_setting_consent_or_key_travels(bundle: zipfile.Path) -> None:
    """The same as above said in suffixes, so that a new kind of file in a room does not pass unseen."""
    suffixes = {Path(name).suffix for name in _names(bundle) - {"pyproject.toml", ".info/CONTENT"}}
    assert suffixes == {".py"}
    assert not {name.partition("/")[0] for name in _names(bundle)} & {"experiments", "tests", "runs", "coordinator"}


def test_the_code_in_the_bundle_is_the_code_in_the_rooms(bundle: zipfile.Path) -> None:
    for name in sorted(_names(bundle) - {".info/CONTENT", "pyproject.toml"}):
        assert (bundle / name).read_bytes() == (ROOT / name).read_bytes(), name
    # Flower writes the settings anew, without comments.
    assert tomllib.loads((bundle / "pyproject.toml").read_text()) == tomllib.loads(
        (ROOT / "pyproject.toml").read_text()
    )


def test_every_module_of_the_bundle_imports_from_the_bundle_alone(bundle: zipfile.Path, tmp_path: Path) -> None:
    """An installed copy of the project hides a module that the bundle lacks; where each came from gives it away."""
    assert bundle.root.testzip() is None
    bundle.root.extractall(tmp_path / "app")
    finished = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(tmp_path / "app")],
        cwd=tmp_path,
        env=environment(tmp_path / "home", PYTHONPATH=str(tmp_path / "app")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    said = json.loads(finished.stdout)
    assert {"clients.app", "server.app"} < set(said["names"]) <= set(said["loaded"])
    assert [name for name, file in said["loaded"].items() if not file.startswith(str(tmp_path / "app"))] == []
    assert (said["ray"], said["torch"]) == (False, False)


def test_flowers_settings_name_the_two_apps_and_every_key_of_a_run() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    flower = project["tool"]["flwr"]["app"]
    assert flower["components"] == {"serverapp": "server.app:app", "clientapp": "clients.app:app"}
    assert all(pattern.endswith(".py") for pattern in flower["fab-include"])
    assert flower["config"] == {"coordinator-directory": ""}  # a key that is not declared cannot be given to a run
    assert flower["publisher"]
    assert len(project["project"]["name"]) <= 32
    needed = " ".join(project["project"]["dependencies"])
    assert "flwr>=1.41" in needed
    for absent in ("ray", "simulation", "torch", "opacus"):
        assert absent not in needed
