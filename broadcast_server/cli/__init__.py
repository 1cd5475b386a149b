"""The ``broadcast-server`` command."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's) and return its exit status.

    It takes over the signals and the logging of the process: call it where it is the program, in
    the main thread.
    """
    # The parser must be importable where nothing is installed that the commands need.
    from .commands import entry

    return entry.main(argv)
