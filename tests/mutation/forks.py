"""Pytest with faults in the code, each time in a fork of a process that has imported others' code and none of ours.

As a program it serves: a line of JSON on stdin is one `Wish`, and a line on stdout answers it with pytest's exit code.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Self, TypedDict

ROOT = Path(__file__).parent.parent.parent
OURS = ("privacy", "federated", "clients", "server", "experiments", "tests")
# What takes a while to import. Whatever is missing here is imported by each fork, which takes longer and says the same.
OTHERS = (
    "pytest", "hypothesis.strategies", "numpy.testing", "scipy.stats", "msgspec", "nacl.bindings",
    "cryptography.x509", "cryptography.hazmat.primitives.hpke", "flwr.clientapp", "flwr.serverapp", "httpx", "rich",
    "sqlalchemy.dialects.sqlite", "click", "tomlkit",
)  # fmt: skip
LONGEST_S = 300


class Wish(TypedDict):
    """Files of ours with other text than on disk, what pytest is asked, and the file for what it prints."""

    planted: dict[str, str]
    arguments: list[str]
    output: str


class Planted(SourceFileLoader):
    """A module of ours with another text than its file's."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 (Python's signature)
        # Not from the file, and not from what Python keeps compiled of it.
        return compile(self._text, self.path, "exec")


class Planter(PathFinder):
    """Finds modules as Python does, and plants."""

    def __init__(self, planted: Mapping[str, str]) -> None:
        self._planted = {str(ROOT / path): text for path, text in planted.items()}

    def find_spec(  # type: ignore[override]  # Python's own is a class method
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin in self._planted:
            spec.loader = Planted(fullname, spec.origin, self._planted[spec.origin])
        return spec


class Forks:
    """The serving process, as those see it who wish something of it."""

    def __init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV"))}
        # One thread: the matrices are small, and threads would not live through a fork.
        environment = kept | {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def pytest(self, planted: Mapping[str, str], arguments: Sequence[str], directory: Path) -> tuple[int, str]:
        """Exit code and output of pytest over our code with other texts in it, at work in `directory`.

        `planted` is text by path below the root.
        """
        output = directory / "output"
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        wish = Wish(planted=dict(planted), arguments=list(arguments), output=str(output))
        stdin.write(json.dumps(wish) + "\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, "the process that is forked has ended; what it said stands above"
        return int(answer), output.read_text(encoding="utf-8")


def _forked(wish: Wish) -> int:
    """The exit code of a child that grants the wish; below 0 is the signal that ended it."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 70
    try:
        signal.alarm(LONGEST_S)
        output = Path(wish["output"])
        os.chdir(output.parent)
        with output.open("wb") as file:
            os.dup2(file.fileno(), sys.stdout.fileno())
            os.dup2(file.fileno(), sys.stderr.fileno())
        sys.path.insert(0, str(ROOT))
        sys.meta_path[sys.meta_path.index(PathFinder)] = Planter(wish["planted"])
        import pytest

        # Of hypothesis, whose assertions nobody looks at.
        early = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
        here = ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "-W", early]
        code = int(pytest.main([*here, *wish["arguments"]]))
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    for name in OTHERS:
        importlib.import_module(name)
    mine = sorted(name for name in sys.modules if name.partition(".")[0] in OURS)
    if mine:
        raise SystemExit(f"{mine} are imported already; no fault in them would be seen")
    for line in sys.stdin:
        print(_forked(json.loads(line)), flush=True)


if __name__ == "__main__":
    _serve()
