"""Every command in the README is run by a test, most of them here, and what it shows is what was printed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme_walk import Walk

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
NUMBER = re.compile(r"[0-9][0-9,.]*(?:e-?[0-9]+)?")

# Where each command of the README is run.
HERE = {
    "make demo",
    "fedcredit schema init my_table.csv --out my_schema.toml",
    "fedcredit schema check my_schema.toml my_table.csv",
    "fedcredit demo --schema experiments/data/south_german/schema.toml "
    "--table experiments/data/south_german/data.csv.gz --holders 3 --out runs/south-german",
    "fedcredit train runs/demo/federation",
}
ELSEWHERE = {
    "make test": "it runs this very test",
    "make bench": "tests/experiments/test_benchmarks.py",
}


# Their commands are run in order by tests/test_readme_consent.py and tests/test_readme_deploy.py.
WALKS = ("Say yes, say no, look it up", "Run it for real")


def _commands() -> list[str]:
    rest = README
    for title in WALKS:
        rest = rest.replace(Walk(title).text, "")
    blocks = re.findall(r"```console\n(.*?)```", rest, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [re.sub(r"\s+", " ", line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]


def _block_after(command: str) -> str:
    """The first output block behind a command."""
    found = re.search(r"```text\n(.*?)```", README.split(f"$ {command}\n", 1)[1], flags=re.DOTALL)
    assert found is not None
    return found.group(1)


def _run(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = command.split()
    assert program == "fedcredit"
    done = subprocess.run(
        [str(BIN / program), *arguments], cwd=directory, capture_output=True, text=True, check=False, timeout=300
    )
    assert "Traceback" not in done.stderr
    return done


def _shape(text: str) -> list[str]:
    """The text's lines with numbers, lines of tables and runs of space made alike."""
    return [re.sub(r"\s+", " ", NUMBER.sub("#", line)).strip() for line in text.strip().splitlines()]


def test_every_command_of_the_readme_is_run_by_a_test() -> None:
    commands = _commands()
    assert len(commands) >= 7
    assert sorted(commands) == sorted([*HERE, *ELSEWHERE])


def test_make_test_is_what_runs_these_tests() -> None:
    printed = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for part in ("ruff format --check .", "ruff check .", "mypy", "pytest"):
        assert part in printed
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.slow
def test_make_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(ROOT / "Makefile", project)
    environment = BIN.parent
    done = subprocess.run(
        ["make", "--silent", "demo", f"VENV={environment}", "-o", f"{environment}/installed"],
        cwd=project, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert _shape(done.stdout) == _shape(_block_after("make demo"))
    report = json.loads((project / "runs" / "demo" / "report.json").read_text(encoding="utf-8"))
    shown = [
        float(figure)
        for figure in re.findall(r"│ (0\.[0-9]{4}) │ 0\.[0-9]{4} │ 0\.[0-9]{4} │", _block_after("make demo"))
    ]
    printed = [
        report["metrics"][key]["auc"]
        for key in ("pooled", "federated", "federated_private", "local_only", "opacus_fedavg")
    ]
    assert printed == pytest.approx(shown, abs=0.02)
    assert report["consent"]["rows_used_without_consent"] == 0
    assert report["consent"]["rows_permitted"] < report["consent"]["rows_held"]


@pytest.mark.slow
def test_the_demo_runs_on_another_data_set_and_can_be_run_again(tmp_path: Path) -> None:
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    command = next(command for command in HERE if "south_german" in command)
    assert _run(command, tmp_path).returncode == 0
    report = json.loads((tmp_path / "runs/south-german/report.json").read_text(encoding="utf-8"))
    assert (report["dataset"], report["holders"]) == ("South German Credit (UPDATE)", 3)
    assert report["metrics"]["pooled"]["auc"] > 0.7

    # Of its thousand people, under the name that the README's other demo leaves.
    (tmp_path / "runs/south-german").rename(tmp_path / "runs/demo")
    before = sorted((tmp_path / "runs/demo/federation/coordinator/runs").iterdir())
    assert len(before) == 2  # with everybody, and after a withdrawal
    again = _run("fedcredit train runs/demo/federation", tmp_path)
    assert again.returncode == 0, again.stderr
    assert sorted((tmp_path / "runs/demo/federation/coordinator/runs").iterdir()) == before  # the same run, repeated


def test_the_walk_from_a_table_to_a_checked_schema(tmp_path: Path) -> None:
    (tmp_path / "my_table.csv").write_text("person,income,city\n1,1200,4\n2,900,7\n", encoding="utf-8")
    assert _run("fedcredit schema init my_table.csv --out my_schema.toml", tmp_path).returncode == 0
    draft = (tmp_path / "my_schema.toml").read_text(encoding="utf-8")
    assert "income" in draft
    assert "1200" not in draft
    unfilled = _run("fedcredit schema check my_schema.toml my_table.csv", tmp_path)
    assert unfilled.returncode == 4  # the bounds are the user's to fill in
    assert unfilled.stderr.strip()
