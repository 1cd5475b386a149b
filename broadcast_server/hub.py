"""``BroadcastHub``: the hub's life from start to stop, and what a program can ask of it.

The hub runs the accept loop on one thread, the fan-out on another, and each client's reader on one
more. All of them are daemons; whatever still runs at the interpreter's exit is stopped there.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

from .backplane import MemoryBackplane
from .core import Core
from .errors import HubBusy, HubStopped, MessageTooBig, UsageError
from .fanout import FanOut
from .frames import is_sendable_close_code
from .messages import Draft, Member, Message, encode, to_messages
from .policies import check_room
from .rooms import WAIT_SECONDS, Room, Rooms, cost_of
from .server import HubServer
from .settings import Settings

logger = logging.getLogger(__name__)

Data = str | bytes


class BroadcastHub:
    """A hub that relays each message of a client to all other clients of its room.

    All methods may be called from any thread, also in callbacks. Callbacks run on the reader thread
    of the client that they are about, without a lock: a slow one delays that client only, and what
    one raises is logged.

    Example::

        with BroadcastHub(port=8765) as hub:
            hub.broadcast("kick-off", room="/scores")

    Args:
        host: the address or name to listen on.
        port: the TCP port; 0 for any free one, see ``hub.port``.
        on_message: called with each ``Message`` of a client once it is accepted; not for
        ``broadcast``.
        on_join: called with the ``Member`` that has joined.
        on_leave: called with the ``Member`` that has left, the close code and the reason.
        settings: any field of ``Settings``, such as ``max_message_bytes`` or ``ping_interval``.

    Raises:
        UsageError: a value can never work.
        TypeError: there is no setting of that name.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8765,
        *,
        on_message: Callable[[Message], object] | None = None,
        on_join: Callable[[Member], object] | None = None,
        on_leave: Callable[[Member, int, str], object] | None = None,
        **settings: Any,
    ) -> None:
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
            raise UsageError(f"port must be a number from 0 to 65535, not {port!r}")
        if not isinstance(host, str) or not host:
            raise UsageError(f"host must be a name or an address, not {host!r}")
        self._host = host
        self._port = port
        self._settings = Settings(**settings)
        self._callbacks = (on_message, on_join, on_leave)
        # Guards _core, _server, _accept_thread, _pid and the step from one state to the next. Taken
        # before every other lock; never held while waiting for a thread.
        self._lock = threading.Lock()
        self._core: Core | None = None
        self._server: HubServer | None = None
        self._accept_thread: threading.Thread | None = None
        self._pid = 0
        self._stopping = False
        self._stopped = threading.Event()  # set while nothing runs
        self._stopped.set()
        # Guards _drain_waiters; notified when a client's personal queue has drained.
        self._drained = threading.Condition(threading.Lock())
        self._drain_waiters = 0

    # -- Life ----------------------------------------------------------------------------------

    def start(self) -> BroadcastHub:
        """Listen and serve on threads of the hub's own; return the hub.

        A hub that has stopped may be started again; it begins empty.

        Raises:
            OSError: the address cannot be listened on.
            UsageError: it runs already.
        """
        with self._lock:
            if self._core is not None and self._pid == os.getpid():
                raise UsageError("the hub runs already")
            settings = self._settings
            backplane = MemoryBackplane()
            rooms = Rooms(settings.room_log_bytes, settings.max_rooms, backplane.newest)
            fanout = FanOut(settings, rooms, self._on_drained)
            core = Core(settings, rooms, backplane, fanout, *self._callbacks)
            try:
                server = HubServer(self._host, self._port, core)
            except BaseException:
                fanout.close()
                raise
            if settings.switch_interval is not None:
                sys.setswitchinterval(settings.switch_interval)
            self._core, self._server, self._pid = core, server, os.getpid()
            self._stopping = False
            self._stopped.clear()
            self._accept_thread = threading.Thread(
                target=server.serve_forever, name="broadcast-accept", daemon=True
            )
            fanout.start()
            self._accept_thread.start()
        _running.add(self)
        logger.info("listening on %s", self.url)
        return self

    def serve_forever(self) -> None:
        """Start if need be, then block until ``stop()`` is called elsewhere.

        Raises:
            OSError: the address cannot be listened on.
        """
        with self._lock:
            running = self._core is not None and self._pid == os.getpid()
        if not running:
            self.start()
        # In pieces: on some systems a wait without an end keeps signals from being handled.
        while not self._stopped.wait(1.0):
            pass

    def stop(self, timeout: float | None = None) -> None:
        """Say goodbye and end everything that ``start`` began.

        Nobody is admitted any more, what was accepted is flushed, each client gets Close 1001 and
        may answer; then the connections are closed. Called in a callback it does not wait for the
        callback's own thread. Does nothing if the hub does not run.

        Args:
            timeout: seconds for all of it, default ``stop_timeout``; it returns within one more
            second.
        """
        timeout = self._settings.stop_timeout if timeout is None else max(0.0, timeout)
        deadline = time.monotonic() + timeout
        with self._lock:
            core, server, accept_thread = self._core, self._server, self._accept_thread
            if core is None or server is None or self._pid != os.getpid():
                return
            first = not self._stopping
            self._stopping = True
        if not first:
            self._stopped.wait(timeout + 0.5)
            return
        assert accept_thread is not None
        server.stop_admitting()
        core.backplane.close()
        for connection in server.connections():
            if connection.queue_close(1001, "the hub stops"):
                connection.room.leave(connection)
                core.fanout.attend(connection)
        # Called in a callback, this thread will not read the answer to its own client's Close.
        own = server.own_connection()
        if own is not None:
            core.fanout.leave(own)
        core.fanout.finish(deadline)
        ended = core.fanout.join(max(0.0, deadline - time.monotonic()) + 0.3)
        # The last half second is for threads that only have to notice.
        server.stop_listening()
        accept_thread.join(0.3)
        ended = server.join(max(deadline, time.monotonic() + 0.3)) and ended
        server.server_close()
        if not ended:
            logger.warning("the hub stopped, but a callback or a thread still runs")
        if not core.fanout.is_alive:
            core.fanout.close()
        _running.discard(self)
        with self._lock:
            self._core = self._server = self._accept_thread = None
            self._stopping = False
        self._stopped.set()
        logger.info("stopped")

    def __enter__(self) -> BroadcastHub:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- Messages ------------------------------------------------------------------------------

    def broadcast(self, data: Data, room: str = "/", timeout: float = 5.0) -> Message:
        """Send a message to all members of a room.

        Args:
            data: ``str`` goes out as text, ``bytes`` as binary.
            room: the room's path; the room is made if need be.
            timeout: seconds to wait while the fan-out is behind. It never waits for a slow client.

        Returns:
            The message as it was accepted, with its id.

        Raises:
            HubBusy: the fan-out was behind for all that time; nothing was sent.
            HubStopped: the hub does not run.
            MessageTooBig: it has more than ``max_message_bytes``.
            InvalidRoom: there can be no such room.
            TypeError: the data is neither ``str`` nor ``bytes``.
        """
        core, _ = self._running_parts()
        draft = Draft(0, self._encode(data))
        check_room(room)
        drafts = [draft]
        cost = cost_of(drafts)
        deadline = time.monotonic() + timeout
        target = self._reserve(core, room, cost, deadline)
        messages: list[Message] = []
        core.publish(
            target, drafts, cost, lambda ids: messages.extend(to_messages(room, None, drafts, ids))
        )
        return messages[0]

    def send(self, client_id: str, data: Data, timeout: float = 5.0) -> bool:
        """Send a message to one client, after all that its room was sent before.

        Args:
            client_id: the ``id`` of a ``Member``.
            data: ``str`` goes out as text, ``bytes`` as binary.
            timeout: seconds to wait while too much waits for this client already.

        Returns:
            False if there is no such client (any more).

        Raises:
            HubBusy: the client did not take enough in that time; nothing was sent.
            HubStopped, MessageTooBig, TypeError: as for ``broadcast``.
        """
        core, server = self._running_parts()
        frame = self._encode(data)
        limit = self._settings.room_log_bytes // 4
        deadline = time.monotonic() + timeout
        while True:
            connection = server.find(client_id)
            queued = connection.queue(frame, limit) if connection is not None else None
            if connection is None or queued is None:
                return False
            if queued:
                core.fanout.attend(connection)
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                raise HubBusy(f"{client_id} does not take what waits for it; nothing was sent")
            with self._drained:
                self._drain_waiters += 1
                self._drained.wait(min(left, WAIT_SECONDS))
                self._drain_waiters -= 1

    # -- Members -------------------------------------------------------------------------------

    def members(self, room: str = "/") -> list[Member]:
        """Return who is in a room now, in the order of joining; nobody if there is no such room.

        Raises:
            HubStopped: the hub does not run.
        """
        core, _ = self._running_parts()
        found = core.rooms.find(room)
        return found.member_list() if found is not None else []

    def rooms(self) -> list[str]:
        """Return the paths of the rooms that have members.

        Raises:
            HubStopped: the hub does not run.
        """
        core, _ = self._running_parts()
        return sorted(room.path for room in core.rooms.all() if room.members)

    def disconnect(self, client_id: str, code: int = 1000, reason: str = "disconnected") -> bool:
        """Close one client's connection after what it was sent; it is no member from now on.

        Args:
            client_id: the ``id`` of a ``Member``.
            code: the close code (RFC 6455 §7.4).
            reason: a short text; what exceeds 123 bytes of UTF-8 is cut off. With an empty one a
                client that closes with the same code just now takes ours for the answer to its own.

        Returns:
            False if there is no such client (any more).

        Raises:
            HubStopped: the hub does not run.
            UsageError: the code may not be sent.
        """
        core, server = self._running_parts()
        if not is_sendable_close_code(code):
            raise UsageError(f"{code} is not a close code that may be sent")
        connection = server.find(client_id)
        if connection is None or not connection.queue_close(code, reason):
            return False
        connection.room.leave(connection)
        core.fanout.attend(connection)
        return True

    # -- Facts ---------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The host that it listens on, as given."""
        return self._host

    @property
    def port(self) -> int:
        """The port that it really listens on while it runs, else the one given."""
        server = self._server
        return server.port if server is not None else self._port

    @property
    def url(self) -> str:
        """The URL of the lobby."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"ws://{host}:{self.port}/"

    def stats(self) -> dict[str, int]:
        """Return counters since the start and present numbers.

        ``messages`` accepted, ``encodes`` (frames made of them), ``joins`` (batches joined),
        ``sends`` (calls to the kernel), ``deliveries``, ``bytes_out``, ``evictions``; ``clients``,
        ``rooms`` and ``log_bytes`` now.

        Raises:
            HubStopped: the hub does not run.
        """
        core, server = self._running_parts()
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
            "clients": server.client_count,
            "rooms": len(rooms),
            "log_bytes": sum(room.held_bytes() for room in rooms),
        }

    # -- Inside --------------------------------------------------------------------------------

    def _running_parts(self) -> tuple[Core, HubServer]:
        core, server = self._core, self._server
        # A forked child has this object, but none of the threads.
        if core is None or server is None or self._pid != os.getpid():
            raise HubStopped("the hub does not run")
        if core.stopping or not core.fanout.is_alive:
            raise HubStopped("the hub is stopping")
        return core, server

    def _encode(self, data: Data) -> bytes:
        if isinstance(data, (str, bytes)):
            size = len(data.encode("utf-8")) if isinstance(data, str) else len(data)
            if size > self._settings.max_message_bytes:
                raise MessageTooBig(
                    f"the message has {size} bytes, more than "
                    f"max_message_bytes ({self._settings.max_message_bytes})"
                )
        return encode(data)

    def _reserve(self, core: Core, path: str, cost: int, deadline: float) -> Room:
        def given_up() -> bool:
            return core.stopping or not core.fanout.is_alive

        while not given_up():
            room = core.rooms.open(path)
            if room.reserve(cost, deadline, given_up):
                return room
        raise HubStopped("the hub is stopping")

    def _on_drained(self) -> None:
        # Read without the lock: who begins to wait a moment later wakes after WAIT_SECONDS at most.
        if self._drain_waiters:
            with self._drained:
                self._drained.notify_all()


_running: weakref.WeakSet[BroadcastHub] = weakref.WeakSet()


def _stop_all() -> None:
    for hub in list(_running):
        hub.stop()


atexit.register(_stop_all)
