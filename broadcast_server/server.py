"""The listening half of a hub: websocket-server's ``WebsocketServer`` with its defects mended.

In use as they are: the constructor with its listening socket, the accept loop (``serve_forever``),
one thread for each client, and the handler's life cycle. The list of clients with ``_new_client_``,
``_client_left_`` and ``handler_to_client`` is the same, but under a lock and without searching. The
threads are known, so that a stop can wait for them.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from typing import Any

from .connection import Connection
from .core import Core
from .handler import HubHandler, WebsocketServer

logger = logging.getLogger(__name__)

# Sockets that may be open beside the clients, for requests that are no upgrade or not yet.
_SPARE_SESSIONS = 256
# How long the accept loop rests when the process is out of descriptors: it would spin otherwise.
_EXHAUSTED_PAUSE_SECONDS = 0.05

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


class HubServer(WebsocketServer):  # type: ignore[misc]
    """Accepts clients for one hub.

    Args:
        host: the name or address to listen on, IPv4 or IPv6.
        port: the port; 0 for any.
        core: the parts of the hub.

    Raises:
        OSError: it cannot listen there.
    """

    request_queue_size = 1024

    def __init__(self, host: str, port: int, core: Core) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except UnicodeError as error:
            raise OSError(errno.EINVAL, f"not a host name: {host!r}") from error
        # What the base class takes from a class attribute, TCPServer reads from the instance.
        self.address_family = found[0][0]
        super().__init__(found[0][4][0], port)
        # Accepted sockets inherit it: one system call instead of one for each client.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The base class has its own handler fixed in its constructor.
        self.RequestHandlerClass = HubHandler
        self.core = core
        core.client_count = lambda: self.client_count
        # Guards clients, id_counter, core.stopping, _by_handler, _by_id, _sessions and
        # _handed_over. Nothing else is taken while it is held.
        self._registry_lock = threading.Lock()
        # Notified when a client of the list is handed over or leaves the list.
        self._settled = threading.Condition(self._registry_lock)
        self._by_handler: dict[HubHandler, dict[str, Any]] = {}
        # One of each id, but for a moment two or more while a new one replaces an old one.
        self._by_id: dict[str, list[Connection]] = {}
        self._sessions: dict[socket.socket, threading.Thread] = {}
        self._handed_over: set[socket.socket] = set()

    # -- The accept thread: hooks of socketserver ----------------------------------------------

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept one connection."""
        try:
            request: tuple[socket.socket, Any] = super().get_request()
            return request
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                logger.error("cannot accept: %s", error.strerror)
                time.sleep(_EXHAUSTED_PAUSE_SECONDS)
            raise

    def verify_request(self, request: socket.socket, client_address: Any) -> bool:
        """Turn a connection away for which there is not even a thread."""
        with self._registry_lock:
            sessions = len(self._sessions)
        if sessions < self.core.settings.max_clients + _SPARE_SESSIONS:
            return True
        try:
            self.core.count_refusal("sessions")
            request.send(_FULL, socket.MSG_DONTWAIT)
        except OSError:
            pass
        return False

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        """Start a client's thread; if there is none to be had, the caller closes the socket."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        with self._registry_lock:
            # Before it runs: a stop waits for it also if it has not begun.
            self._sessions[request] = thread
        thread.start()

    # -- A reader thread: hooks of socketserver ------------------------------------------------

    def handle_error(self, request: socket.socket, client_address: Any) -> None:
        """Log what ended a session by mistake; the base class would print a traceback."""
        logger.error("the session of %s has failed", client_address, exc_info=True)

    def shutdown_request(self, request: socket.socket) -> None:
        """Close the socket of a session that has ended, unless the fan-out has a share in it: the
        last of both closes it then. Every session ends here, also one without a thread."""
        with self._registry_lock:
            # Before it is closed: stop_listening() must not meet a descriptor that is somebody
            # else's by then.
            self._sessions.pop(request, None)
            if request in self._handed_over:
                self._handed_over.remove(request)
                return
        super().shutdown_request(request)

    # -- A reader thread: the list of clients --------------------------------------------------

    def _new_client_(self, handler: HubHandler) -> int | None:
        """Put a client on the list; return its number, None if the hub is full or stopping."""
        with self._registry_lock:
            if self.core.stopping or len(self.clients) >= self.core.settings.max_clients:
                return None
            self.id_counter += 1
            client = {
                "id": self.id_counter,
                "handler": handler,
                "address": handler.client_address,
                "place": len(self.clients),
            }
            self.clients.append(client)
            self._by_handler[handler] = client
            number: int = self.id_counter
            return number

    def _client_left_(self, handler: HubHandler) -> None:
        """Take a client off the list; its session may have ended before it was on it."""
        with self._registry_lock:
            client = self._by_handler.pop(handler, None)
            if client is None:
                return
            # The last one takes its place: removing from the middle would cost a search.
            last = self.clients.pop()
            if last is not client:
                self.clients[client["place"]] = last
                last["place"] = client["place"]
            self._settled.notify_all()
            self._unlist_locked(client)

    def _unlist_locked(self, client: dict[str, Any]) -> None:
        assert self._registry_lock.locked()
        connection = client.get("connection")
        if connection is not None:
            id = connection.member.id
            same = self._by_id[id]
            same.remove(connection)
            if not same:
                del self._by_id[id]

    def handler_to_client(self, handler: HubHandler) -> dict[str, Any] | None:
        """Return what the list has about a handler."""
        with self._registry_lock:
            return self._by_handler.get(handler)

    def set_connection(self, handler: HubHandler, connection: Connection) -> None:
        """Let a client be found by its id, from the moment when it becomes a member."""
        with self._registry_lock:
            client = self._by_handler[handler]
            self._unlist_locked(client)  # one for a room that was dropped just then
            client["connection"] = connection
            self._by_id.setdefault(connection.member.id, []).append(connection)

    def hand_over(self, handler: HubHandler) -> None:
        """Note that the socket is the fan-out's, too, and must not be closed behind its back."""
        with self._registry_lock:
            self._handed_over.add(handler.request)
            self._settled.notify_all()

    # -- Any thread ----------------------------------------------------------------------------

    @property
    def client_count(self) -> int:
        """How many clients are on the list."""
        with self._registry_lock:
            return len(self.clients)

    def find(self, client_id: str) -> Connection | None:
        """Return the client of that id, unless it is ending; of several the newest."""
        with self._registry_lock:
            for connection in reversed(self._by_id.get(client_id, ())):
                # Two that resume one session at once come here and into the room in any order.
                if not connection.ended:
                    return connection
        return None

    def connections(self) -> list[Connection]:
        """Return all clients that have joined."""
        with self._registry_lock:
            return [connection for same in self._by_id.values() for connection in same]

    def own_connection(self) -> Connection | None:
        """Return the client whose reader thread the caller is on, if it is on one."""
        current = threading.current_thread()
        with self._registry_lock:
            for handler, client in self._by_handler.items():
                if self._sessions.get(handler.request) is current:
                    connection: Connection | None = client.get("connection")
                    return connection
        return None

    def is_session(self) -> bool:
        """Tell whether the caller is on a reader thread: in a callback."""
        with self._registry_lock:
            return threading.current_thread() in self._sessions.values()

    def stop_admitting(self) -> None:
        """Refuse whoever comes from now on; requests are still answered."""
        with self._registry_lock:
            self.core.stopping = True

    def await_hand_overs(self, deadline: float) -> None:
        """Wait until the fan-out has all clients of the list, ``time.monotonic()`` is at the
        deadline at the latest. Who was admitted in the last moment is being sent its 101."""
        with self._registry_lock:
            while any(handler.request not in self._handed_over for handler in self._by_handler):
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                self._settled.wait(left)

    def stop_listening(self) -> None:
        """End the accept loop, and the sessions that have not become clients. It may be called
        again, but not before the loop's thread is started: the end of the loop is waited for."""
        try:
            # Wakes the loop, which would look up the stop only at its next poll.
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not on every system; the poll is short enough
        self.shutdown()
        # Under the lock none of them can be closed meanwhile; the call does not block.
        with self._registry_lock:
            for sock in self._sessions:
                if sock not in self._handed_over:
                    try:
                        sock.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass  # the peer was faster

    def join(self, deadline: float) -> bool:
        """Wait for the reader threads until ``time.monotonic()`` is at the deadline.

        Returns:
            Whether all have ended, the calling thread not counted.
        """
        with self._registry_lock:
            threads = list(self._sessions.values())
        ended = True
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                ended = ended and not thread.is_alive()
        return ended
