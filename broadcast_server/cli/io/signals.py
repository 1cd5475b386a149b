"""Signals of a command whose main thread waits for something else."""

from __future__ import annotations

import os
import signal

from . import logs

# Who sends a signal to a process and to its group, as timeout(1) does, means it once; nobody
# presses Ctrl-C twice in so short a time.
SAME_SECONDS = 0.2


def end_at_once() -> None:
    """Let SIGINT and SIGTERM end the process, as they do where Python does not catch them.

    From process 1, such as that of a container, the kernel keeps each signal for which there is no
    handler: there a handler ends it, with the status that a shell would show.
    """
    if os.getpid() == 1:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os._exit(128 + number))
    else:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def descriptor() -> int:
    """Return a descriptor that gets a byte, its number, for each SIGINT and SIGTERM.

    A handler in Python runs on the main thread, and not before that has stopped waiting for
    something that the signal has come too early to interrupt.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return reader


def die(number: int) -> None:
    """End the process as a signal would that nobody has caught, so that a shell stops as well.

    It belongs on the main thread.
    """
    logs.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # process 1 is still there
