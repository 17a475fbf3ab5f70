"""The README's walk through consent, run in its order by a shell, and what it shows is what was printed."""

import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from experiments.registry_place import RegistryPlace
from experiments.session import Session
from server.rounds import no_progress
from tests.small_federation import small_federation

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WALK = re.search(r"## Say yes, say no, look it up\n(.*?)\n## ", README, flags=re.DOTALL)
NUMBER = re.compile(r"[0-9][0-9,.:-]*")

# A person at a terminal sees the line; a shell must wait for it.
LISTENING = """
for _ in $(seq 100); do
    if (exec 3<> /dev/tcp/127.0.0.1/$(sed -n 's/^port = //p' {settings})) 2> /dev/null; then break; fi
    sleep 0.1
done
"""


def _steps() -> list[tuple[str, list[str]]]:
    """Each command with the lines that the README shows behind it."""
    assert WALK is not None
    steps: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", WALK.group(1), flags=re.DOTALL):
        for line in block.replace("\\\n", "").splitlines():
            if line.startswith("$ "):
                # Another program may have the port that the README names.
                steps.append((line.removeprefix("$ ").replace("8444", str(_free_port())), []))
            elif line.strip():
                steps[-1][1].append(line)
    return steps


@cache
def _free_port() -> int:
    return RegistryPlace.on_this_machine(at=0).port


def _script(steps: list[tuple[str, list[str]]]) -> str:
    lines = ["set -e"]
    for number, (command, _) in enumerate(steps):
        lines.append(f"echo '@@@ {number}'")
        lines.append(command)
        if command.endswith("&"):
            lines.append(LISTENING.format(settings=f"{command.split()[3]}/registry.toml"))
        if command.startswith("kill "):
            lines.append("wait")
    return "\n".join(lines)


def _alike(line: str) -> str:
    return re.sub(r"\s+", " ", NUMBER.sub("#", line)).strip()


@pytest.mark.slow
def test_the_walk_through_consent_is_what_the_readme_shows(tmp_path: Path) -> None:
    now = int(time.time())
    place = RegistryPlace.on_this_machine(at=now)
    federation, registry = small_federation(tmp_path / "runs" / "demo" / "federation", at=now, place=place)
    try:
        with Session(federation.directory, lambda: now, registry) as session:
            session.run(no_progress)
    finally:
        registry.close()
    steps = _steps()
    assert len(steps) > 20
    done = subprocess.run(
        ["bash", "-c", _script(steps)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    printed = dict(enumerate(re.split(r"@@@ [0-9]+\n", done.stdout)[1:]))
    for number, (command, shown) in enumerate(steps):
        lines = [_alike(line) for line in printed[number].splitlines()]
        for line in shown:
            assert _alike(line) in lines, (command, printed[number])
    assert sorted(path.name for path in (tmp_path / "my-consents" / "receipts").iterdir())
