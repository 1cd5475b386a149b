"""A hub as a process: what the command ``start`` does from the first signal to the last.

| signal | what happens |
|---|---|
| SIGTERM | the hub drains: ``BroadcastHub.drain`` |
| SIGINT | it stops at once: ``BroadcastHub.stop`` |
| one of both again, not at the same moment | the process ends without a goodbye |
| SIGHUP | the files are read anew, unless the terminal has gone: then as SIGTERM |

A handler only leaves the signal in a queue: what it has interrupted may hold any lock. All
functions run on the main thread.
"""

from __future__ import annotations

import os
import queue
import signal
import time
import types
from typing import TYPE_CHECKING

from ...errors import HubStopped
from ...records import get_logger
from ..io.signals import SAME_SECONDS
from ..io.streams import complain
from ..io.systemd import Notifier

if TYPE_CHECKING:
    from ...hub.hub import BroadcastHub

# How often the command looks whether the hub still works.
CHECK_SECONDS = 1.0

Signals = queue.SimpleQueue[signal.Signals]

logger = get_logger("broadcast_server.cli")


def catch_signals() -> Signals:
    """Return a queue that gets each SIGHUP and the first SIGINT or SIGTERM; a second one of these
    ends the process."""
    # Of all queues and events only SimpleQueue may be used in a signal handler: it is reentrant.
    received: Signals = queue.SimpleQueue()
    caught_at: float | None = None

    def catch(number: int, frame: types.FrameType | None) -> None:
        nonlocal caught_at
        now = time.monotonic()
        if caught_at is None:
            caught_at = now
            received.put(signal.Signals(number))
        elif now - caught_at > SAME_SECONDS:
            os._exit(1)

    def catch_hangup(number: int, frame: types.FrameType | None) -> None:
        received.put(signal.Signals(number))

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, catch)
    signal.signal(signal.SIGHUP, catch_hangup)
    return received


def serve(hub: BroadcastHub, signals: Signals, notifier: Notifier, restart: bool) -> int:
    """Do what the signals say until the hub has ended.

    Args:
        hub: a hub that runs.
        signals: what ``catch_signals`` returned.
        notifier: who is told.
        restart: after SIGTERM a hub will be started again.

    Returns:
        The exit status: 0 ended by a signal, 1 the hub has failed.
    """
    terminal = next((number for number in range(3) if os.isatty(number)), None)
    serving = f"listening on {' '.join(hub.urls)}"
    notifier.ready(serving)
    while True:
        try:
            received = signals.get(timeout=CHECK_SECONDS)
        except queue.Empty:
            try:
                hub.stats()
            except HubStopped:
                # A process that ends is started again; one that only looks alive is not.
                complain("start", "the hub has failed, its log says why")
                return 1
            continue
        if received != signal.SIGHUP:
            break
        # A closed window hangs up, too: a hub that lived on there would be forgotten.
        if terminal is not None and not os.isatty(terminal):
            break
        notifier.reloading()
        try:
            hub.reload()
        except HubStopped:
            continue  # it has failed: the next look says so
        notifier.ready(serving)
    if received == signal.SIGINT:
        logger.info("%s: stopping", received.name)
        notifier.stopping("saying goodbye")
        hub.stop()
    else:
        logger.info("%s: draining", received.name)
        notifier.stopping("saying goodbye, clients are to come back" if restart else "draining")
        hub.drain(restart=restart)
    return 0
