"""One run of a hub: the parts that a start makes and a stop ends.

A hub that is started again gets new parts, so nothing of the last run can be taken for the next
one's. ``hub/hub.py`` decides when a run begins and ends, and which thread ends it; here is how.
"""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence

from ..errors import HubBusy
from ..messages import Member, Message
from ..records import get_logger
from ..settings import Settings
from ..transport.tls_stream import Certificate
from .backplane.interface import Backplane
from .backplane.memory import MemoryBackplane
from .core import Core, Filter
from .delivery.connection import Connection
from .delivery.fanout import FanOut
from .http.access import Authorize
from .rooms.registry import RoomRegistry
from .rooms.room import WAIT_SECONDS
from .server import HubServer

logger = get_logger("broadcast_server.hub")

# Up to so many clients are no herd: all are told at once, and get the very same messages.
HERD = 100
# So many may come back in a second without trouble for a hub: a spread is no longer than it must.
RETURNS_PER_SECOND = 200
# Goodbyes of so short a time are said together: the thread that says them sleeps in between.
TICK_SECONDS = 0.02
# How long that thread may sleep without a look whether there still is anybody to tell.
LOOK_SECONDS = 0.25

Callbacks = tuple[
    Callable[[Message], object] | None,
    Callable[[Member], object] | None,
    Callable[[Member, int, str], object] | None,
    Filter | None,
]


class Run:
    """The core, the server and the two threads of one run. It listens from the moment it is made.

    Args:
        hosts: the addresses or names to listen on.
        port: the TCP port; 0 for any free one.
        settings: the hub's limits and times.
        callbacks: on_message, on_join, on_leave, filter.
        sockets: sockets that listen already, instead of host and port. It uses duplicates.
        authorize: decides who may come in; None for everybody.
        tls: the certificate and key; None for plain connections.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        settings: Settings,
        callbacks: Callbacks,
        sockets: Sequence[socket.socket] = (),
        authorize: Authorize | None = None,
        tls: Certificate | None = None,
    ) -> None:
        self._hurried = threading.Event()  # a drain is to get on, by `_hurry_by` at the latest
        self._hurry_by = float("inf")  # time.monotonic()
        backplane: Backplane = MemoryBackplane()
        rooms: RoomRegistry[Connection] = RoomRegistry(
            settings.room_log_bytes,
            settings.max_rooms,
            backplane.newest,
            settings.max_rooms_per_address,
        )
        self._accept_thread = threading.Thread(
            target=self._accept, name="broadcast-accept", daemon=True
        )
        self._accept_failed = False  # a single store by that thread
        # Last: nothing that is open is left to nobody.
        fanout = FanOut(settings, rooms)
        # The server closes what it listens on, and another run needs them again.
        copies: list[socket.socket] = []
        try:
            self.core = Core(
                settings,
                rooms,
                backplane,
                fanout,
                *callbacks,
                authorize=authorize,
                tls=tls,
            )
            copies.extend(sock.dup() for sock in sockets)
            self.server = HubServer(hosts, port, self.core, sockets=copies)
        except BaseException:
            for sock in copies:
                sock.close()
            fanout.close()
            raise

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
            self.server.cut_off()
        self.server.server_close()
        fanout.close()

    @property
    def is_serving(self) -> bool:
        """Whether it takes messages."""
        return not (self.core.stopping or self._accept_failed) and self.core.fanout.is_alive

    @property
    def has_failed(self) -> bool:
        """Whether one of its threads has died. It serves no more then, and is to be ended."""
        return not self.is_serving and not self.core.stopping

    def _accept(self) -> None:
        """Let clients in until the end. The accept thread."""
        try:
            self.server.serve_forever()
        except Exception:
            logger.critical(
                "the accept thread has failed; all clients are cut off, nobody is let in",
                exc_info=True,
            )
            self._accept_failed = True
            # Whoever comes is refused by the system, instead of waiting for an answer.
            self.server.server_close()
            self.core.fanout.finish(0.0)

    def drain(self, delay: float, seconds: float, restart: bool) -> None:
        """Do what ``BroadcastHub.drain`` promises before the end; ``end`` tells whoever is left.

        Args:
            delay: seconds in which clients are still admitted, though no more are wanted.
            seconds: the longest time over which the goodbyes are spread.
            restart: the clients are to come back.
        """
        core, server = self.core, self.server
        core.restarting = restart
        core.leaving = True
        if self._hurried.wait(delay):
            return
        core.ends_at = time.monotonic() + core.settings.close_timeout
        server.stop_admitting()
        # In this order: what such a publisher was told to be accepted is in the log before anybody
        # gets a goodbye.
        core.backplane.close_outside()
        self.leave_own()
        waiting = server.connections()
        seconds = spread_seconds(len(waiting), seconds)
        logger.info("draining: %d clients are told within %.1f s", len(waiting), seconds)
        if not seconds:
            return
        random.shuffle(waiting)
        began = time.monotonic()
        core.ends_at += seconds
        due = sorted(random.uniform(0.0, seconds) for _ in waiting)
        for at, connection in zip(due, waiting, strict=True):
            while (pause := began + at - time.monotonic()) > TICK_SECONDS:
                if self._hurried.wait(min(pause, LOOK_SECONDS)) or not core.fanout.is_alive:
                    return
                if not server.client_count:
                    return  # all have left by themselves
            core.say_goodbye(connection)

    def reload(self) -> bool:
        """Do what ``BroadcastHub.reload`` promises. Any thread."""
        done: list[str] = []
        failed = False
        for function in tuple(self.core.reloads):
            what = _what(function)
            try:
                function()
            # Whatever it was, the hub goes on with what it has.
            except Exception as error:
                failed = True
                logger.error("cannot reload %s, the old stays in use: %s", what, error)
            else:
                done.append(what)
        if done or not failed:
            logger.info("reloaded %s", ", ".join(done) or "nothing: there are no files")
        return not failed

    def hurry(self, deadline: float) -> None:
        """Let a drain that goes on say the goodbyes that are left at once, and end everything by
        the deadline (``time.monotonic()``). Any thread."""
        self._hurry_by = deadline
        self._hurried.set()

    def end(self, deadline: float) -> None:
        """Do what ``BroadcastHub.stop`` promises. Each step may have been done before."""
        core, server = self.core, self.server
        deadline = min(deadline, self._hurry_by)
        core.leaving = True
        core.ends_at = min(deadline, time.monotonic() + core.settings.close_timeout)
        server.stop_admitting()
        core.stopping = True
        core.backplane.close()
        for connection in server.connections():
            core.say_goodbye(connection)
        for budget in (core.incoming, core.parsing, core.answers):
            budget.wake()
        self.leave_own()
        # Without clients the fan-out ends: one that comes later would get no goodbye.
        server.await_hand_overs(deadline)
        core.fanout.finish(deadline)
        ended = core.fanout.join(max(0.0, deadline - time.monotonic()) + 0.3)
        # The last moments are for threads that only have to notice.
        server.stop_listening()
        self._accept_thread.join(0.3)
        if not server.join(max(deadline, time.monotonic() + 0.1)):
            server.cut_off()
            ended = server.join(time.monotonic() + 0.2) and ended
        server.server_close()
        if not ended:
            logger.warning("the hub stopped, but a callback or a thread still runs")
        core.fanout.close()

    def leave_own(self) -> None:
        """In a callback: say goodbye to the client whose thread this is. Nobody reads what it says
        meanwhile, nor will the answer to its Close be read."""
        own = self.server.own_connection()
        if own is not None:
            self.core.say_goodbye(own)
            self.core.fanout.leave(own)

    def send(self, client_id: str, frame: bytes, deadline: float) -> bool:
        """Queue a frame for one client; see ``BroadcastHub.send``. Any thread.

        Raises:
            HubBusy: too much waited for it until the deadline; nothing was sent.
        """
        core, server = self.core, self.server
        limit = core.settings.room_log_bytes // 4
        while (connection := server.find(client_id)) is not None:
            direct = connection.form.direct(frame, int(time.time() * 1000))
            try:
                queued = connection.queue(direct, limit)
                if queued:
                    core.fanout.attend(connection)
                    return True
            except BaseException:
                core.fanout.attend(connection)  # Ctrl-C: it may be queued
                core.fanout.wake()
                raise
            if queued is None:
                continue  # it ends just now; a newer one may have taken its place
            left = deadline - time.monotonic()
            if left <= 0:
                raise HubBusy(f"{client_id} does not take what waits for it; nothing was sent")
            connection.wait_drained(min(left, WAIT_SECONDS))
        return False

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


def spread_seconds(clients: int, most: float) -> float:
    """Return over how many seconds the goodbyes to so many clients are spread: ``most`` at most."""
    return 0.0 if clients <= HERD else min(most, clients / RETURNS_PER_SECOND)


def _what(function: Callable[[], None]) -> str:
    """Return what a function reads, from names: ``Keyring.reload`` reads the keyring, and so does
    ``reload_keyring``."""
    owner = type(getattr(function, "__self__", function)).__name__
    name = str(getattr(function, "__name__", owner)).strip("_")
    if name == "reload":
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", owner).lower()
    return name.removeprefix("reload_").replace("_", " ")
