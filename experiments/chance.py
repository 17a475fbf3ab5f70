"""Random bytes for keys and handles: from the operating system, or from a seed in a run that is NOT PRIVATE."""

import os
from collections.abc import Callable

from privacy.noise import SeededNoise

RandomBytes = Callable[[int], bytes]


def random_bytes(seed: int | None, label: str) -> RandomBytes:
    """A source of random bytes; with a `seed` the same bytes again for the same `label`."""
    return os.urandom if seed is None else SeededNoise(seed, label).random_bytes
