"""A wait that ends in time."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(predicate: Callable[[], bool], timeout: float = 5.0) -> bool:
    """Ask again and again until the predicate is true; return whether it became so in time."""
    deadline = time.monotonic() + timeout
    pause = 0.0005
    while not predicate():
        if time.monotonic() >= deadline:
            return bool(predicate())
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True
