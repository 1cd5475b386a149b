"""One time limit for several steps."""

from __future__ import annotations

import time

from ..rules import MAX_SECONDS


class Deadline:
    """A point in time on the monotonic clock.

    Args:
        timeout: seconds from now; None for never. What is longer than the system can wait, also
            infinity, counts as ``MAX_SECONDS``.
    """

    __slots__ = ("_at",)

    def __init__(self, timeout: float | None) -> None:
        # A poll or a lock that is told to wait for longer fails at once, with OverflowError.
        self._at = None if timeout is None else time.monotonic() + min(timeout, MAX_SECONDS)

    def left(self) -> float | None:
        """Return the seconds that are left, 0 when it has passed, None if it never does."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    def left_or_late(self) -> float:
        """Return the seconds that are left, for a step that cannot be told to wait for ever.

        Raises:
            TimeoutError: it has passed.
        """
        left = self.left()
        if left == 0:
            raise TimeoutError("too late")
        return MAX_SECONDS if left is None else left
