"""What still runs when the program ends, and in which order it ends: clients before hubs.

A hub of the same program still takes what its clients have queued. ``atexit`` calls its functions
in the reverse order of registration, so the order of imports would decide. Instead there is one
function for all of it, and a module says what it is, not when its turn comes.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable

CLIENTS, HUBS = range(2)

# By the constants above. Modules add to it while they are imported; it is read at the end of the
# program, when only daemon threads are left.
_endings: tuple[list[Callable[[], None]], ...] = ([], [])


def at_exit(order: int, end: Callable[[], None]) -> None:
    """Have a function called when the program ends, on the main thread.

    Args:
        order: ``CLIENTS`` or ``HUBS``; clients come first.
        end: the function. If it raises, the others are still called.
    """
    _endings[order].append(end)


def _end_all() -> None:
    with contextlib.ExitStack() as stack:  # which calls the last one first, and all of them
        for endings in reversed(_endings):
            for end in reversed(endings):
                stack.callback(end)


atexit.register(_end_all)
