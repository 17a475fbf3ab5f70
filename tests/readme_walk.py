"""A section of the README as a walk: its commands run in order by one shell, and what it shows is what was printed."""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"[0-9][0-9,.:-]*")


class Walk:
    """The commands of one section, each with the lines that the README shows behind it."""

    def __init__(self, title: str, edit: Callable[[str], str] = lambda command: command) -> None:
        """`edit` changes a command where the README names what only a reader has, such as a free port."""
        found = re.search(rf"## {title}\n(.*?)(?=\n## )", README, flags=re.DOTALL)
        assert found is not None
        self.text = found.group(0)
        self.steps: list[tuple[str, list[str]]] = []
        for block in re.findall(r"```console\n(.*?)```", found.group(1), flags=re.DOTALL):
            for line in block.replace("\\\n", "").splitlines():
                if line.startswith("$ "):
                    self.steps.append((edit(line.removeprefix("$ ")), []))
                elif line.strip():
                    self.steps[-1][1].append(line)

    def run(self, directory: Path, after: Mapping[str, str], *, timeout_s: float) -> None:
        """Run every command in `directory`; `after` is what else the shell does behind commands that begin so."""
        lines = ["set -e"]
        for number, (command, _) in enumerate(self.steps):
            lines += [f"echo '@@@ {number}'", command]
            lines += [more for beginning, more in after.items() if command.startswith(beginning)]
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)], cwd=directory, capture_output=True, text=True, check=False,
            timeout=timeout_s, env={
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(directory), "PYTHONPATH": str(ROOT),
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "Traceback" not in done.stderr
        printed = dict(enumerate(re.split(r"@@@ [0-9]+\n", done.stdout)[1:]))
        for number, (command, shown) in enumerate(self.steps):
            lines = [_alike(line) for line in printed[number].splitlines()]
            for line in shown:
                assert _alike(line) in lines, (command, line, printed[number])


def _alike(line: str) -> str:
    return re.sub(r"\s+", " ", NUMBER.sub("#", line)).strip()
