"""What `fedcredit doctor` looks at in an installation: Python, packages, whose code is imported, Flower's programs."""

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from federated.doctor import Check, Verdict, ok, problem

ROOMS: Final = ("privacy", "federated", "clients", "server")
_NAMED: Final = ("flwr", "cryptography")
_AGAIN: Final = "Install fedcredit again, alone in an environment of its own (python -m venv), and start from there."


def house_checks(*, extras: Sequence[str] = (), programs: Sequence[str] = ()) -> Iterator[Check]:
    """The installation that runs this: with packages of `extras`, and Flower's `programs` beside the interpreter."""
    yield Check("Python", python, _AGAIN)
    yield Check("packages", lambda: packages(extras), _AGAIN)
    yield Check("our own code", rooms, _AGAIN)
    if programs:
        yield Check("Flower's programs", lambda: flower_programs(programs), _AGAIN)


def python() -> Verdict:
    """This interpreter's version, held against what fedcredit asks for."""
    from packaging.specifiers import SpecifierSet

    needed = metadata("fedcredit")["Requires-Python"]
    found = platform.python_version()
    if not SpecifierSet(needed).contains(found, prereleases=True):
        return problem(f"{found}, and {needed} is needed", "Install such a Python and fedcredit in it.")
    return ok(found)


def packages(extras: Sequence[str] = ()) -> Verdict:
    """Every package that fedcredit, with `extras`, asks for: is it here, and of a version that was tried?"""
    from packaging.requirements import Requirement

    asked = [Requirement(text) for text in requires("fedcredit") or ()]
    needed = {
        str(one): one
        for one in asked
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    }
    wrong = [text for one in needed.values() if (text := _unmet(one.name, str(one.specifier)))]
    wanted = f"fedcredit[{','.join(extras)}]" if extras else "fedcredit"
    if wrong or not needed:
        return problem("; ".join(wrong) or "it is not known what is needed", f"Run: pip install '{wanted}'")
    named = ", ".join(f"{name} {version(name)}" for name in _NAMED)
    return ok(f"{wanted} {version('fedcredit')}: all {len(needed)} as needed; {named}")


def rooms(root: Path = Path(__file__).parents[1]) -> Verdict:
    """Whether each top-level name leads to our code: another distribution installs a `clients`, too."""
    strange = [room for room in ROOMS if _home_of(room) != root]
    if strange:
        return problem(
            f"{', '.join(strange)} would be imported from somewhere else than {root}",
            "Start from another directory and without PYTHONPATH; if that does not help, another package has the same "
            "name: install fedcredit alone in an environment of its own.",
        )
    return ok(str(root))


def flower_programs(names: Sequence[str], beside: Path | None = None) -> Verdict:
    """Whether Flower's programs lie where we start them from."""
    folder = beside or Path(sys.executable).parent
    missing = [name for name in names if not os.access(folder / name, os.X_OK)]
    if missing:
        return problem(f"{', '.join(missing)} cannot be started from {folder}", _AGAIN)
    return ok(f"{', '.join(names)} in {folder}")


def _unmet(name: str, needed: str) -> str:
    from packaging.specifiers import SpecifierSet

    try:
        found = version(name)
    except PackageNotFoundError:
        return f"{name} is missing ({needed} is needed)"
    return "" if SpecifierSet(needed).contains(found, prereleases=True) else f"{name} is {found}, {needed} is needed"


def _home_of(room: str) -> Path | None:
    found = find_spec(room)
    return None if found is None or found.origin is None else Path(found.origin).resolve().parents[1]
