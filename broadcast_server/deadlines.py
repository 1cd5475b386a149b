"""One time limit for several steps."""

from __future__ import annotations

import time


class Deadline:
    """A point in time on the monotonic clock.

    Args:
        timeout: seconds from now; None for never.
    """

    __slots__ = ("_at",)

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Return the seconds that are left, 0 when it has passed, None if it never does."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())
