"""Signals of a conversation at a terminal.

One ends the conversation, as Ctrl-C does. If that takes too long, since the terminal takes nothing
for instance, time or another signal ends the process, the terminal put back as far as that goes.
"""

from __future__ import annotations

import os
import signal
import time
import types

from ..io.signals import SAME_SECONDS
from .screen import ENDING_SIGNALS, Screen

# How long leaving may take after a signal, whatever hangs.
HANG_SECONDS = 3.0


def catch(screen: Screen) -> None:
    """Let signals end a conversation from now on. Main thread.

    Args:
        screen: is told to leave; what is to be done then is up to who runs it.
    """
    caught_at: float | None = None

    def handle(number: int, frame: types.FrameType | None) -> None:
        nonlocal caught_at
        now = time.monotonic()
        if caught_at is None:
            caught_at = now
            signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
            screen.leave()
        # A window that is closed is often told twice, and then the end of its session.
        elif now - caught_at > SAME_SECONDS:
            screen.give_back()
            os._exit(1)

    for number in (*ENDING_SIGNALS, signal.SIGALRM):
        signal.signal(number, handle)
