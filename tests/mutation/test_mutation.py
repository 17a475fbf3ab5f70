"""The suite turns red for every planted fault: each is planted in a copy of the code, and the proof tests run there."""

import os
import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.app_copy import copy_app
from tests.mutation.faults import FAULTS, HOLDER, Fault, Replacement

AT_ONCE = 2
FEWEST_TESTS = 50

pytestmark = pytest.mark.slow


def run_proof(tree: Path, fault: Fault | None) -> tuple[int, str]:
    """Exit code and output of the proof tests over a fresh copy of the code, with the fault in it."""
    copy_app(tree)
    for replacement in fault.replacements if fault else ():
        replacement.plant(tree)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV"))}
    # One thread: the matrices are small, and two copies run at once.
    environment = kept | {"PYTHONPATH": str(tree), "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    asked = [fault.proof] if fault else sorted({each.proof for each in FAULTS})
    # Only data holders' tests need the shared fixtures, whose imports take a while.
    alone = [] if any(proof.startswith(HOLDER) for proof in asked) else ["--noconftest"]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *alone, *asked]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, "Future[tuple[int, str]]"]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {
            (fault.name if fault else "none"): pool.submit(run_proof, tmp_path_factory.mktemp("tree") / "copy", fault)
            for fault in (None, *FAULTS)
        }


def test_the_copy_passes_as_it_is(outcomes: dict[str, "Future[tuple[int, str]]"]) -> None:
    code, output = outcomes["none"].result()
    assert code == 0, output
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None, output
    assert int(passed.group(1)) >= FEWEST_TESTS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_turns_it_red(fault: Fault, outcomes: dict[str, "Future[tuple[int, str]]"]) -> None:
    code, output = outcomes[fault.name].result()
    # 1 is tests that failed; 2 and more would be tests that could not even be collected.
    assert code == 1, output
    summary = output.strip().splitlines()[-1]
    assert re.search(r"1 failed", summary), output
    assert "error" not in summary, output


def test_a_text_that_moved_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\nb = 1\n", encoding="utf-8")
    for old in ("= 1", "c = 1"):
        with pytest.raises(AssertionError, match="write the fault anew"):
            Replacement("code.py", old, "").plant(tmp_path)
    Replacement("code.py", "a = 1", "a = 2").plant(tmp_path)
    assert (tmp_path / "code.py").read_text(encoding="utf-8") == "a = 2\nb = 1\n"
