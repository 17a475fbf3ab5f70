"""Test vectors of the standards, read from tests/vectors."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "vectors"


def vectors(name: str) -> Any:
    """The JSON in a file of tests/vectors; never empty."""
    content = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert content, f"{name} is empty"
    return content
