"""One run of a hub: the parts that a start makes and a stop ends.

A hub that is started again gets new parts, so nothing of the last run can be taken for the next
one's. ``hub.py`` decides when a run begins and ends, and which thread ends it; here is how.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from .backplane import MemoryBackplane
from .core import Core, Filter
from .errors import HubBusy
from .fanout import FanOut
from .messages import Member, Message
from .registry import Rooms
from .rooms import WAIT_SECONDS
from .server import HubServer
from .settings import Settings

logger = logging.getLogger(__name__)

Callbacks = tuple[
    Callable[[Message], object] | None,
    Callable[[Member], object] | None,
    Callable[[Member, int, str], object] | None,
    Filter | None,
]


class Run:
    """The core, the server and the two threads of one run. It listens from the moment it is made.

    Args:
        host: the address or name to listen on.
        port: the TCP port; 0 for any free one.
        settings: the hub's limits and times.
        callbacks: on_message, on_join, on_leave, filter.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, settings: Settings, callbacks: Callbacks) -> None:
        # Guards _drain_waiters; notified when a client's personal queue has drained.
        self._drained = threading.Condition(threading.Lock())
        self._drain_waiters = 0
        backplane = MemoryBackplane()
        rooms = Rooms(settings.room_log_bytes, settings.max_rooms, backplane.newest)
        fanout = FanOut(settings, rooms, self._on_drained)
        self.core = Core(
            settings, rooms, backplane, fanout, *callbacks, wait_drained=self.wait_drained
        )
        try:
            self.server = HubServer(host, port, self.core)
        except BaseException:
            fanout.close()
            raise
        self._accept_thread = threading.Thread(
            target=self.server.serve_forever, name="broadcast-accept", daemon=True
        )

    def begin(self) -> None:
        """Start the fan-out and the accept loop."""
        self.core.fanout.start()
        self._accept_thread.start()

    def abandon(self) -> None:
        """Let nothing stay of a run that could not begin: such as a thread that was not to be
        had."""
        fanout = self.core.fanout
        fanout.finish(0.0)
        if fanout.is_alive:
            fanout.join(1.0)
        if self._accept_thread.is_alive():
            self.server.stop_listening()
        self.server.server_close()
        fanout.close()

    @property
    def is_serving(self) -> bool:
        """Whether it takes messages."""
        return not self.core.stopping and self.core.fanout.is_alive

    def end(self, deadline: float) -> None:
        """Do what ``BroadcastHub.stop`` promises. Each step may have been done before."""
        core, server = self.core, self.server
        server.stop_admitting()
        core.backplane.close()
        for connection in server.connections():
            if connection.queue_close(1001, "the hub stops"):
                core.leave(connection)
                core.fanout.attend(connection)
        self.leave_own()
        # Without clients the fan-out ends: one that comes later would get no goodbye.
        server.await_hand_overs(deadline)
        core.fanout.finish(deadline)
        ended = core.fanout.join(max(0.0, deadline - time.monotonic()) + 0.3)
        # The last half second is for threads that only have to notice.
        server.stop_listening()
        self._accept_thread.join(0.3)
        ended = server.join(max(deadline, time.monotonic() + 0.3)) and ended
        server.server_close()
        if not ended:
            logger.warning("the hub stopped, but a callback or a thread still runs")
        core.fanout.close()

    def leave_own(self) -> None:
        """In a callback: this thread will not read the answer to its own client's Close."""
        own = self.server.own_connection()
        if own is not None:
            self.core.fanout.leave(own)

    def send(self, client_id: str, frame: bytes, deadline: float) -> bool:
        """Queue a frame for one client; see ``BroadcastHub.send``. Any thread.

        Raises:
            HubBusy: too much waited for it until the deadline; nothing was sent.
        """
        core, server = self.core, self.server
        limit = core.settings.room_log_bytes // 4
        while True:
            connection = server.find(client_id)
            queued = None
            if connection is not None:
                direct = connection.form.direct(frame, int(time.time() * 1000))
                queued = connection.queue(direct, limit)
            if connection is None or queued is None:
                return False
            if queued:
                core.fanout.attend(connection)
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                raise HubBusy(f"{client_id} does not take what waits for it; nothing was sent")
            self.wait_drained(left)

    def stats(self) -> dict[str, int]:
        """Return the numbers of ``BroadcastHub.stats``. Any thread."""
        core = self.core
        rooms = core.rooms.all()
        writer = core.fanout.writer
        return {
            "messages": core.backplane.messages,
            "encodes": core.encodes,
            "joins": writer.joins,
            "sends": writer.sends,
            "deliveries": writer.deliveries,
            "bytes_out": writer.bytes_out,
            "evictions": writer.evictions,
            "clients": self.server.client_count,
            "rooms": len(rooms),
            "log_bytes": sum(room.held_bytes() for room in rooms),
        }

    def wait_drained(self, seconds: float) -> None:
        """Wait until some client's personal queue is empty, a moment at most."""
        with self._drained:
            self._drain_waiters += 1
            self._drained.wait(min(seconds, WAIT_SECONDS))
            self._drain_waiters -= 1

    def _on_drained(self) -> None:
        # Read without the lock: who begins to wait a moment later wakes after WAIT_SECONDS at most.
        if self._drain_waiters:
            with self._drained:
                self._drained.notify_all()
