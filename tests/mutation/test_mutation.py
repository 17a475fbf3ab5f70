"""The suite turns red for every planted fault: each is planted in the code, and the tests that should see it run."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutation.faults import FAULTS, HOLDER, Fault, Replacement
from tests.mutation.forks import ROOT, Forks

FEWEST_TESTS = 50

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


def run_proof(forks: Forks, directory: Path, fault: Fault | None) -> tuple[int, str]:
    """Exit code and output of the proof tests over the code with the fault in it."""
    asked = [fault.proof] if fault else sorted({each.proof for each in FAULTS})
    # Only data holders' tests need the shared fixtures, whose imports take a while.
    alone = [] if any(proof.startswith(HOLDER) for proof in asked) else ["--noconftest"]
    return forks.pytest(
        fault.planted(ROOT) if fault else {},
        ["-x", "-q", "-p", "no:cacheprovider", *alone, *(str(ROOT / proof) for proof in asked)],
        directory,
    )


def test_the_code_passes_as_it_is(forks: Forks, tmp_path: Path) -> None:
    code, output = run_proof(forks, tmp_path, None)
    assert code == 0, output
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None, output
    assert int(passed.group(1)) >= FEWEST_TESTS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_turns_it_red(fault: Fault, forks: Forks, tmp_path: Path) -> None:
    code, output = run_proof(forks, tmp_path, fault)
    # 1 is tests that failed; 2 and more would be tests that could not even be collected.
    assert code == 1, output
    summary = output.strip().splitlines()[-1]
    assert re.search(r"1 failed", summary), output
    assert "error" not in summary, output


def test_a_text_that_moved_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\nb = 1\n", encoding="utf-8")
    for old in ("= 1", "c = 1"):
        with pytest.raises(AssertionError, match="write the fault anew"):
            Fault("moved", (Replacement("code.py", old, ""),)).planted(tmp_path)
    twice = (Replacement("code.py", "a = 1", "a = 2"), Replacement("code.py", "b = 1", "b = 3"))
    assert Fault("planted", twice).planted(tmp_path) == {"code.py": "a = 2\nb = 3\n"}
    assert (tmp_path / "code.py").read_text(encoding="utf-8") == "a = 1\nb = 1\n"
