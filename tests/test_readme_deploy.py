"""The README's walk through a real deployment, run in its order by a shell, and what it shows is what was printed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from federated.lock import is_held
from tests.readme_walk import Walk

# What a person sees at a terminal, or hears by telephone.
UP = """
for _ in $(seq 1500); do grep -q '^listening' up.out && break; kill -0 $!; sleep 0.1; done
cat up.out
REGISTRY_URL=$(sed -n 's/^url = "\\(.*\\)"/\\1/p' runs/up/coordinator/coordinator.toml)
REGISTRY_KEY=$(sed -n 's/^key = "\\(.*\\)"/\\1/p' runs/up/coordinator/coordinator.toml)
COORDINATOR_KEY=$(sed -n 's/^coordinator_keys = \\["\\(.*\\)"\\]/\\1/p' runs/up/holders/aster-bank/holder.toml)
"""
SPOKEN = "FINGERPRINT=$(sed -n 's/^fingerprint *//p' printed); IDENTITY=$(sed -n 's/^identity *//p' made)"
BEGUN = """
for _ in $(seq 600); do grep -q '"state":"running"' runs/up/coordinator/status.json && break; sleep 0.1; done
"""


def _edit(command: str) -> str:
    """Standard output goes where the walk can read it."""
    if command.endswith("&"):
        out = "up.out" if " up " in command else "run.out"
        return f"{command.removesuffix('&')} > {out} 2> {out}.err &"
    if " join --request" in command:
        return f"{command} | tee printed"
    return f"{command} | tee made" if " holder init" in command else command


@pytest.mark.slow
def test_the_walk_through_a_deployment_is_what_the_readme_shows(tmp_path: Path) -> None:
    walk = Walk("Run it for real", _edit)
    assert len(walk.steps) > 15
    after = {
        "fedcredit up": UP,
        "fedcredit holder join --request": SPOKEN,
        "fedcredit coordinator run": BEGUN,
        "kill -9": "wait $! || true",
    }
    try:
        walk.run(tmp_path, after, timeout_s=500)
    finally:
        if is_held(tmp_path / "runs" / "up" / "up.lock"):  # the walk broke off
            program = str(Path(sys.executable).with_name("fedcredit"))
            subprocess.run([program, "down", "runs/up"], cwd=tmp_path, capture_output=True, check=False)
    assert not is_held(tmp_path / "runs" / "up" / "up.lock")
    assert (tmp_path / "my-bundle" / "scorecard.json").exists()
    (run,) = (tmp_path / "runs" / "up" / "coordinator" / "runs").iterdir()
    assert re.fullmatch(r"[0-9a-f]{32}", run.name)
    assert len(json.loads((run / "run.json").read_bytes())["holders"]) == 3
