"""The structure of the code: who may import whom, that our rooms are the ones imported, and the glossary's bans."""

import ast
import builtins
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("privacy", "federated", "clients", "server", "experiments")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

# One word per thing: these never stand as an identifier, or as part of one.
BANNED = re.compile(
    r"(?:^|_)(psi|pdo|sigma|user|customer_data|applicant_data|blacklist|whitelist|master|slave|max_grad_norm|"
    r"sample_rate|accountant_state|feature|features)(?:_|$)"
)
# Opacus' and Flower's own keywords.
MAY_SAY = {
    "max_grad_norm": "federated/recipes/opacus_fedavg.py",
    "master_secret": "federated/flower_tasks.py",
}


def test_there_are_sources_to_check() -> None:
    assert len(SOURCES) > 50


def test_import_contracts_hold() -> None:
    # In a process of its own: the linter sets up logging for the whole process it runs in.
    code = (
        "import sys\nfrom importlinter import cli\n"
        "sys.exit(cli.lint_imports(config_filename='pyproject.toml', cache_dir=None) != cli.EXIT_STATUS_SUCCESS)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = re.search(r"Contracts: (\d+) kept, 0 broken", done.stdout)
    assert kept is not None, done.stdout
    assert int(kept.group(1)) >= 9, done.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_our_rooms_are_the_ones_imported(room: str) -> None:
    module = importlib.import_module(room)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve() == (ROOT / room / "__init__.py").resolve()


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_says_what_it_promises_and_nothing_else(room: str) -> None:
    for path in (ROOT / room).rglob("__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, f"{path} holds more than its description"
        assert isinstance(body[0], ast.Expr), path
        assert isinstance(body[0].value, ast.Constant), path
        assert len(str(body[0].value.value)) > 40, path


def _identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                if name not in vars(builtins):
                    yield name
            case ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                yield name


def test_the_glossary_is_kept_in_identifiers() -> None:
    found = []
    for path in SOURCES:
        place = path.relative_to(ROOT).as_posix()
        for name in set(_identifiers(ast.parse(path.read_text(encoding="utf-8")))):
            snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
            if BANNED.search(snake) and MAY_SAY.get(name) != place:
                found.append(f"{place}: {name}")
    assert found == []


def test_only_the_gate_makes_permitted_rows() -> None:
    callers = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "PermittedRows"
    }
    assert callers == {"clients/holder/gate.py"}


def test_files_stay_small() -> None:
    long = {path.relative_to(ROOT).as_posix(): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 400}
    assert long == {}


def test_a_data_holder_needs_neither_torch_nor_sklearn() -> None:
    code = (
        "import sys, clients.app, federated.cli\n"
        "heavy = {'torch', 'opacus', 'sklearn', 'matplotlib', 'sqlalchemy', 'scipy', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom federated.cli import fedcredit\n"
        "try:\n    fedcredit(['--help'], standalone_mode=False)\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'flwr', 'torch', 'sqlalchemy', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
