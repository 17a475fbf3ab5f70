"""Plants a fault in a program of ours: Python runs this file at its start where this directory is on its path.

`PLANTED_FAULT` names a Python file with `FAULTS`, a mapping from module names to functions that are given the module
right after it was imported. The programs themselves know nothing of it.
"""

import importlib.abc
import importlib.util
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

Fault = Callable[[ModuleType], None]


class _Planter(importlib.abc.MetaPathFinder):
    def __init__(self, faults: Mapping[str, Fault]) -> None:
        self._faults = dict(faults)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        fault = self._faults.pop(fullname, None)  # taken out, so that the search below goes on behind us
        if fault is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            raise ImportError(f"there is no {fullname} to plant a fault in")
        inner = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            inner(module)
            fault(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if planted := os.environ.get("PLANTED_FAULT"):
    sys.meta_path.insert(0, _Planter(runpy.run_path(planted)["FAULTS"]))
