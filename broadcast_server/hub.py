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

from . import access, tokens
from .access import Authorize
from .backplane import MemoryBackplane
from .core import Core, Filter
from .errors import HubBusy, HubStopped, MessageTooBig, UsageError
from .fanout import FanOut
from .frames import is_sendable_close_code
from .messages import Draft, Member, Message, encode, to_message, to_messages
from .policies import check_room
from .registry import Rooms
from .rooms import WAIT_SECONDS
from .server import HubServer
from .settings import MAX_SECONDS, Settings

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
        filter: called with each ``Message`` of a client or an HTTP publisher before it has an id,
            on that one's thread; returns it, or other data for it, or None to refuse it.
        on_leave: called with the ``Member`` that has left, the close code and the reason. When a
            client comes back while the hub still holds its old connection, ``on_join`` of the new
            one and ``on_leave`` of the old one (1008), both with the same id, come in any order.
        authorize: called with an ``AccessRequest`` before anybody is let in, on that one's thread;
            returns a ``Grant``, or a ``Refusal``, or None for a plain 401. If it raises, the answer
            is 500. Takes the place of the settings of tokens and keys.
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
        filter: Filter | None = None,
        authorize: Authorize | None = None,
        **settings: Any,
    ) -> None:
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
            raise UsageError(f"port must be a number from 0 to 65535, not {port!r}")
        if not isinstance(host, str) or not host:
            raise UsageError(f"host must be a name or an address, not {host!r}")
        self._host = host
        self._port = port
        self._settings = Settings(**settings)
        if authorize is not None and self._settings.has_secrets:
            raise UsageError("give authorize, or tokens and keys, not both")
        self._authorize = authorize
        self._callbacks = (on_message, on_join, on_leave, filter)
        self._begin_empty()

    def _begin_empty(self) -> None:
        """Be a hub that does not run. Also in a forked child at its first start: what it has
        inherited may be locked by threads that it does not have."""
        self._pid = os.getpid()
        # Guards _core, _server, _accept_thread, _stopper and the step from one state to the next.
        # Taken before every other lock; never held while waiting for a name or a thread's end.
        self._lock = threading.Lock()
        self._core: Core | None = None
        self._server: HubServer | None = None
        self._accept_thread: threading.Thread | None = None
        self._stopper: threading.Thread | None = None  # who is at work in stop()
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
            AccessError: a file of tokens or a key cannot be used.
            UsageError: it runs already.
        """
        if self._pid != os.getpid():
            self._begin_empty()
        if self._core is not None:
            raise UsageError("the hub runs already")
        settings = self._settings
        keyring = tokens.Keyring(settings) if settings.has_secrets else None
        backplane = MemoryBackplane()
        rooms = Rooms(settings.room_log_bytes, settings.max_rooms, backplane.newest)
        fanout = FanOut(settings, rooms, self._on_drained)
        core = Core(
            settings,
            rooms,
            backplane,
            fanout,
            *self._callbacks,
            wait_drained=self._wait_drained,
            authorize=self._authorize,
        )
        if keyring is not None:
            core.authorize = keyring.authorize
            core.reloads.append(keyring.reload)
        server: HubServer | None = None
        accept_thread: threading.Thread | None = None
        try:
            # Without the lock, which stop() needs: to look up a name may take long.
            server = HubServer(self._host, self._port, core)
            accept_thread = threading.Thread(
                target=server.serve_forever, name="broadcast-accept", daemon=True
            )
            with self._lock:
                if self._core is not None:  # another thread was faster
                    raise UsageError("the hub runs already")
                fanout.start()
                accept_thread.start()
                self._core, self._server, self._accept_thread = core, server, accept_thread
                self._stopper = None
                self._stopped.clear()
                _running.add(self)
        except BaseException:
            # Such as a thread that is not to be had: nothing of it stays.
            fanout.finish(0.0)
            if fanout.is_alive:
                fanout.join(1.0)
            if accept_thread is not None and server is not None and accept_thread.is_alive():
                server.stop_listening()
            if server is not None:
                server.server_close()
            fanout.close()
            raise
        if settings.switch_interval is not None:
            sys.setswitchinterval(settings.switch_interval)
        logger.info("listening on %s", self.url)
        if core.authorize is None and not access.is_loopback(server.server_address[0]):
            logger.warning(
                "no access control: anyone who can reach %s may read and write every room", self.url
            )
        return self

    def serve_forever(self) -> None:
        """Start if need be, then block until ``stop()`` is called elsewhere.

        Raises:
            OSError: the address cannot be listened on.
        """
        if self._core is None or self._pid != os.getpid():
            self.start()
        # In pieces: on some systems a wait without an end keeps signals from being handled.
        while not self._stopped.wait(1.0):
            pass

    def stop(self, timeout: float | None = None) -> None:
        """Say goodbye and end everything that ``start`` began.

        Nobody is admitted any more, what was accepted is flushed, each client gets Close 1001 and
        may answer; then the connections are closed. Called in a callback it does not wait for the
        callback's own thread; if another thread is stopping the hub already, it does not wait
        there at all. Does nothing if the hub does not run, or not yet.

        Not for a signal handler, which may have interrupted the very code that holds a lock: set an
        event there, or use the command. An exception in here, such as a second Ctrl-C, ends
        everything at once.

        Args:
            timeout: seconds for all of it, default ``stop_timeout``; it returns within one more
            second.
        """
        timeout = self._settings.stop_timeout if timeout is None else timeout
        timeout = min(max(0.0, timeout), MAX_SECONDS)
        deadline = time.monotonic() + timeout
        if self._pid != os.getpid():
            return  # before the lock, which a forked child may have inherited locked
        current = threading.current_thread()
        with self._lock:
            core, server, accept_thread = self._core, self._server, self._accept_thread
            if core is None or server is None or accept_thread is None:
                return
            first = self._stopper in (None, current)
            if first:
                self._stopper = current
        if not first:
            # The one who stops waits for the callbacks: none of them may wait for it.
            if server.is_session():
                self._leave_own(core, server)
            else:
                self._stopped.wait(timeout + 0.5)
            return
        try:
            self._end(core, server, accept_thread, deadline)
        except BaseException:
            self._end(core, server, accept_thread, time.monotonic())
            raise
        finally:
            # If that was interrupted, too, the next call does it, at exit at the latest.
            with self._lock:
                if self._stopper is current:
                    self._stopper = None

    def _end(
        self, core: Core, server: HubServer, accept_thread: threading.Thread, deadline: float
    ) -> None:
        """Do what ``stop`` promises. Each step may have been done before."""
        server.stop_admitting()
        core.backplane.close()
        for connection in server.connections():
            if connection.queue_close(1001, "the hub stops"):
                core.leave(connection)
                core.fanout.attend(connection)
        self._leave_own(core, server)
        # Without clients the fan-out ends: one that comes later would get no goodbye.
        server.await_hand_overs(deadline)
        core.fanout.finish(deadline)
        ended = core.fanout.join(max(0.0, deadline - time.monotonic()) + 0.3)
        # The last half second is for threads that only have to notice.
        server.stop_listening()
        accept_thread.join(0.3)
        ended = server.join(max(deadline, time.monotonic() + 0.3)) and ended
        server.server_close()
        if not ended:
            logger.warning("the hub stopped, but a callback or a thread still runs")
        core.fanout.close()
        with self._lock:
            if self._core is core:
                self._core = self._server = self._accept_thread = None
                _running.discard(self)
                # Under the lock: what starts next must not be taken for stopped.
                self._stopped.set()
        logger.info("stopped")

    def _leave_own(self, core: Core, server: HubServer) -> None:
        """In a callback: this thread will not read the answer to its own client's Close."""
        own = server.own_connection()
        if own is not None:
            core.fanout.leave(own)

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
        ids = core.publish_one(room, draft, time.monotonic() + timeout)
        return to_messages(room, [draft], ids)[0]

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
        while (connection := server.find(client_id)) is not None:
            direct = connection.form.direct(frame, int(time.time() * 1000))
            queued = connection.queue(direct, limit)
            if queued is None:
                continue  # it ends just now; a newer one may have taken its place
            if queued:
                core.fanout.attend(connection)
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                raise HubBusy(f"{client_id} does not take what waits for it; nothing was sent")
            self._wait_drained(left)
        return False

    # -- Members -------------------------------------------------------------------------------

    def members(self, room: str = "/") -> list[Member]:
        """Return who is in a room now, in the order of joining; nobody if there is no such room.

        Raises:
            HubStopped: the hub does not run.
        """
        core, _ = self._running_parts()
        found = core.rooms.find(room)
        return found.member_list() if found is not None else []

    def history(self, room: str = "/", count: int | None = None) -> list[Message]:
        """Return the last messages of a room that are still held, the oldest first.

        Args:
            room: the room's path; it is not made.
            count: how many at most; None for the setting ``history``.

        Raises:
            HubStopped: the hub does not run.
        """
        core, _ = self._running_parts()
        found = core.rooms.find(room)
        if found is None:
            return []
        entries, *_ = found.last(self._settings.history if count is None else count, None)
        return [to_message(room, entry) for entry in entries]

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
        while (connection := server.find(client_id)) is not None:
            if connection.queue_close(code, reason):
                core.leave(connection)
                core.fanout.attend(connection)
                return True
            # It ends just now; a newer one may have taken its place.
        return False

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
        ``rooms`` and ``log_bytes`` now. The same and more, for Prometheus, is at ``/metrics``:
        docs/reference/metrics.md.

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

    def _wait_drained(self, seconds: float) -> None:
        with self._drained:
            self._drain_waiters += 1
            try:
                self._drained.wait(min(seconds, WAIT_SECONDS))
            finally:
                self._drain_waiters -= 1

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
