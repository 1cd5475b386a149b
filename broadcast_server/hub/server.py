"""The listening half of a hub: websocket-server's ``WebsocketServer`` with its defects mended.

In use as they are: the constructor, the accept loop (``serve_forever``), one thread for each
client, and the handler's life cycle. The constructor's listening socket gives way to those of
``listeners``, for which the accept loop waits all at once. The list of clients with
``_new_client_``, ``_client_left_`` and ``handler_to_client`` is the same, but under a lock and
without searching. The threads are known, so that a stop can wait for them. Who gets a place at all
is decided by ``admission``.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from ..networks import parse_network
from ..records import get_logger
from ..transport.listeners import Listeners, open_listeners
from ..transport.tls_stream import TlsStream
from .admission import Admission
from .core import Core
from .delivery.connection import Connection
from .handler import HubHandler, WebsocketServer
from .http import responses
from .http.connection import RESTING, HttpConnection, head_so_far, is_ready
from .http.host_header import own_names
from .http.models import RETRY, Refusal, Response, Stream
from .http.routes import decide
from .rooms.waiters import Bells
from .system import SwitchInterval

logger = get_logger("broadcast_server.hub")

Wire = socket.socket | TlsStream

# How long the accept loop rests when the process is out of descriptors: it would spin otherwise.
_EXHAUSTED_PAUSE_SECONDS = 0.05
# While as many connections as may wait make way and none of them comes to its end, the hub is
# behind. For how long newcomers wait then, before they are refused; how often it is looked whether
# one of these has become idle.
PATIENCE_SECONDS = 1.0
_LOOK_SECONDS = 0.02
# How long a connection that is turned away gets to send its request, and how much of it is read.
_REQUEST_SECONDS = 0.02
_REQUEST_BYTES = 4096
# How often the log tells of connections that were cut off, that got no thread, or that could not
# be accepted, at most.
CROWD_SECONDS = 1.0


class _Tally:
    """Counts what happens to connections, and tells when the log may speak of it again: whoever
    opens connections without end should not fill the log as well. For one thread."""

    def __init__(self) -> None:
        self._count = 0
        self._logged_at = -CROWD_SECONDS

    def add(self) -> int:
        """Count one more; return how many there were since the last line, 0 if it is too early for
        another one."""
        self._count += 1
        now = time.monotonic()
        if now < self._logged_at + CROWD_SECONDS:
            return 0
        many, self._count, self._logged_at = self._count, 0, now
        return many


class HubServer(WebsocketServer):  # type: ignore[misc]
    """Accepts clients for one hub.

    Args:
        hosts: the names or addresses to listen on, IPv4 or IPv6.
        port: the port, the same for all; 0 for any.
        core: the parts of the hub.
        sockets: sockets that listen already, such as those of a service manager: then these are
            used, and none is opened. The server owns them from now on, also if it fails.

    Raises:
        OSError: it cannot listen there; ``filename`` says where.

    Attributes:
        names: the names to which the hub answers, besides addresses.
        trusted: the proxies that are believed.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        core: Core,
        *,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        settings = core.settings
        self.names = own_names(hosts, settings.allow_host)
        self.trusted = tuple(map(parse_network, settings.trust_proxy))
        self.core = core
        core.client_count = lambda: self.client_count
        self._admission: Admission[Wire] = Admission(
            settings.max_handshakes, settings.max_clients_per_address
        )
        # The accept thread's own: since when there is no place, however many have made way; and
        # connections without a thread, and failures to accept.
        self._behind_since: float | None = None
        self._threadless, self._unaccepted = _Tally(), _Tally()
        self._crowd = _Tally()  # connections that were cut off to make room
        # Guards clients, id_counter, core.draining, _by_handler, _by_id, _sessions, _switching,
        # _http, _early, _handed_over and _crowd. Nothing else is taken while it is held.
        self._registry_lock = threading.Lock()
        self._settled = Bells()  # rung when a client of the list is handed over or leaves the list
        self._by_handler: dict[HubHandler, dict[str, Any]] = {}
        # One of each id, but for a moment two or more while a new one replaces an old one.
        self._by_id: dict[str, list[Connection]] = {}
        self._sessions: dict[Wire, threading.Thread] = {}
        self._switching = SwitchInterval(core.settings.switch_interval)
        self._switching.adapt(0)
        self._http: dict[Wire, HttpConnection] = {}
        self._early: set[Wire] = set()  # those that make way before their threads have begun
        self._handed_over: set[Wire] = set()
        # Last: nothing that is open is left to nobody.
        self._listeners = Listeners(sockets or open_listeners(hosts, port))
        try:
            # What the base class takes from a class attribute, TCPServer reads from the instance.
            self.address_family = self._listeners.sockets[0].family
            super().__init__("", port)
            # The base class has its own handler fixed in its constructor.
            self.RequestHandlerClass = HubHandler
        except BaseException:
            self._listeners.close()
            raise

    # -- Listening: hooks of socketserver ------------------------------------------------------

    def server_bind(self) -> None:
        """Take the first of the sockets that listen already for the one that the base class has
        made, whose address it then reads."""
        super().server_close()
        self.socket = self._listeners.sockets[0]
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """Do nothing: they listen."""

    def fileno(self) -> int:
        """Return what the accept loop waits for."""
        return self._listeners.fileno()

    def server_close(self) -> None:
        """Close the listening sockets."""
        super().server_close()
        self._listeners.close()

    @property
    def addresses(self) -> list[str]:
        """The addresses that it listens on."""
        return [sock.getsockname()[0] for sock in self._listeners.sockets]

    # -- The accept thread: hooks of socketserver ----------------------------------------------

    def get_request(self) -> tuple[Wire, Any]:
        """Accept one connection."""
        try:
            request, address = self._listeners.accept()
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                if self._unaccepted.add():
                    logger.error("cannot accept: %s", error.strerror)
                time.sleep(_EXHAUSTED_PAUSE_SECONDS)
            raise
        if self.core.tls is None:
            return request, address
        # The handshake is made on the client's own thread, in the time for its first request.
        return self.core.tls.wrap(request), address

    def verify_request(self, request: Wire, client_address: Any) -> bool:
        """Find a place for a connection, if need be that of another one, which makes way."""
        host = client_address[0]
        admitted, loser = self._admission.begin(request, host)
        while not admitted and self._await_end():
            admitted, loser = self._admission.begin(request, host)
        if loser is not None:
            self._send_off(loser)
        if admitted:
            self._behind_since = None
            return True
        self._note_crowd()
        self._turn_away(request)
        return False

    def _turn_away(self, request: Wire) -> None:
        """Answer a connection for which the hub has nothing: no place or no thread. Its request has
        mostly come already, and tells whether it is that of an ``EventSource``."""
        try:
            came = b""
            if isinstance(request, socket.socket) and is_ready(
                request, select.POLLIN, _REQUEST_SECONDS
            ):
                came = request.recv(_REQUEST_BYTES, socket.MSG_DONTWAIT)
            request.send(self._busy(came), socket.MSG_DONTWAIT)
        except OSError:
            pass

    def _busy(self, came: bytes) -> bytes:
        settings = self.core.settings
        request = head_so_far(came)
        if request is not None:
            asked = decide(request, settings.allow_origin, settings.history)
            if isinstance(asked, Stream):
                refusal = responses.BUSY.with_headers(asked.headers)
                answer = responses.refused_stream(asked, refusal)
                if isinstance(answer, Response):
                    body = b"" if request.method == "HEAD" else answer.body
                    return responses.head_of(answer, keep=False) + body
        return responses.busy()

    def _await_end(self) -> bool:
        """Wait for one of those that make way to end: when thousands of clients come back at once,
        it is the hub that is slow, and the kernel keeps the newcomers in the meantime.

        Returns:
            False if none has ended for a while, and newcomers are refused.
        """
        now = time.monotonic()
        if self._behind_since is None:
            self._behind_since = now
        left = self._behind_since + PATIENCE_SECONDS - now
        if left <= 0 or self.core.stopping:
            return False
        late, bell = self._admission.late()
        if bell is not None:
            for request in late:
                self._send_off(request)  # which may have become idle
            self._admission.ended.wait(bell, min(left, _LOOK_SECONDS))
        return True

    def _send_off(self, request: Wire) -> None:
        """Let a connection make way: at once if it is idle; else it may not wait any more, and ends
        with its next answer."""
        with self._registry_lock:
            http = self._http.get(request)
            if http is not None:
                http.makes_way = True
            elif request in self._sessions and request not in self._handed_over:
                self._early.add(request)
        if self._is_idle(request) and self._admission.cut(request):
            self._note_crowd()
            # Under the lock it cannot be closed in the meantime; the call does not block.
            with self._registry_lock:
                if request in self._sessions:
                    try:
                        request.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass  # the peer was faster

    def _is_idle(self, request: Wire) -> bool:
        """Tell whether a session waits for its peer: for what it has not sent, or for it to take
        what was sent."""
        with self._registry_lock:
            http = self._http.get(request)
            event = 0 if http is None else http.awaits
            if event == RESTING:
                return True
            if event == select.POLLIN and isinstance(request, TlsStream):
                event = request.waiting  # not while it works on the handshake
            # What has come, or can go, since then is for the hub to move.
            return bool(event) and not is_ready(request, event)

    def _note_crowd(self) -> None:
        """Count a connection that was cut off or refused; tell of them in the log, but not so often
        that whoever opens connections without end would fill that as well."""
        with self._registry_lock:
            count = self._crowd.add()
        if count:
            logger.warning(
                "too many handshakes: %d connections were cut off to make room; "
                "see --max-handshakes",
                count,
            )
        self.core.count_refusal("handshake_slots")

    def process_request(self, request: Wire, client_address: Any) -> None:
        """Start a client's thread; if there is none to be had, the connection is refused."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        with self._registry_lock:
            # Before it runs: a stop waits for it also if it has not begun.
            self._sessions[request] = thread
            self._switching.adapt(len(self._sessions))
        try:
            thread.start()
        except RuntimeError as error:
            if many := self._threadless.add():
                logger.error(
                    "%d connections got no thread and were refused, now that of %s: %s",
                    many,
                    client_address[0],
                    error,
                )
            self.core.count_refusal("no_thread")
            self._turn_away(request)
            self.shutdown_request(request)

    # -- A reader thread: hooks of socketserver ------------------------------------------------

    def handle_error(self, request: Wire, client_address: Any) -> None:
        """Log what ended a session by mistake; the base class would print a traceback."""
        logger.error("the session of %s has failed", client_address, exc_info=True)

    def shutdown_request(self, request: Wire) -> None:
        """Close the socket of a session that has ended, unless the fan-out has a share in it: the
        last of both closes it then. Every session ends here, also one without a thread."""
        with self._registry_lock:
            # Before it is closed: stop_listening() must not meet a descriptor that is somebody
            # else's by then.
            self._sessions.pop(request, None)
            self._switching.adapt(len(self._sessions))
            self._http.pop(request, None)
            self._early.discard(request)
        self._admission.end(request)
        with self._registry_lock:
            if request in self._handed_over:
                self._handed_over.remove(request)
                return
        super().shutdown_request(request)

    # -- A reader thread: the list of clients --------------------------------------------------

    def _new_client_(self, handler: HubHandler) -> int | Refusal:
        """Put a client on the list; return its number, or why there is no place for it.

        Raises:
            ConnectionAbortedError: it was cut off in this moment.
        """
        host = handler.address.host
        limit = self.core.settings.max_clients_per_address
        if not self._admission.join(handler.request, host):
            text = f"there are {limit} clients of this address already"
            return Refusal(429, text, RETRY, "per_address")
        number = self._put_on_list(handler)
        if number is None:
            self._admission.unjoin(handler.request, handler.peer.host)
            text = "the hub takes no more clients now"
            stopping = self.core.draining
            return Refusal(503, text, RETRY, "stopping" if stopping else "max_clients")
        return number

    def _put_on_list(self, handler: HubHandler) -> int | None:
        with self._registry_lock:
            if self.core.draining or len(self.clients) >= self.core.settings.max_clients:
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
        self._admission.leave(handler.request)
        with self._registry_lock:
            client = self._by_handler.pop(handler, None)
            if client is None:
                return
            # The last one takes its place: removing from the middle would cost a search.
            last = self.clients.pop()
            if last is not client:
                self.clients[client["place"]] = last
                last["place"] = client["place"]
            self._settled.ring()
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

    def watch(self, request: Wire, http: HttpConnection) -> None:
        """Note by what can be seen whether a session is waiting."""
        with self._registry_lock:
            self._http[request] = http
            http.makes_way = request in self._early

    def made_way(self, request: Wire) -> None:
        """Note that a session ends instead of waiting for its peer."""
        if self._admission.cut(request):
            self._note_crowd()

    def turn_down(self, handler: HubHandler) -> None:
        """Take a client off the list that cannot join after all, but may ask again."""
        self._client_left_(handler)
        self._admission.unjoin(handler.request, handler.peer.host)

    def await_next(self, handler: HubHandler) -> bool:
        """Note that a request was answered, and another one may follow; return whether others want
        the place."""
        return self._admission.wait_again(handler.request)

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
            self._http.pop(handler.request, None)
            self._handed_over.add(handler.request)
            self._settled.ring()

    # -- Any thread ----------------------------------------------------------------------------

    @property
    def client_count(self) -> int:
        """How many clients are on the list."""
        with self._registry_lock:
            return len(self.clients)

    def find(self, client_id: str) -> Connection | None:
        """Return the client of that id, unless it is ending; of several the newest."""
        with self._registry_lock:
            # Two that resume one session at once come here and into the room in any order.
            here = [one for one in reversed(self._by_id.get(client_id, ())) if not one.ended]
            if here:
                return max(here, key=lambda connection: connection.generation)
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
            self.core.draining = True

    def await_hand_overs(self, deadline: float) -> None:
        """Wait until the fan-out has all clients of the list, ``time.monotonic()`` is at the
        deadline at the latest. Who was admitted in the last moment is being sent its 101."""
        while (left := deadline - time.monotonic()) > 0:
            with self._registry_lock:
                if all(handler.request in self._handed_over for handler in self._by_handler):
                    return
                bell = self._settled.get()
            self._settled.wait(bell, left)

    def stop_listening(self) -> None:
        """End the accept loop, and let sessions that have not become clients hear nothing more: an
        answer that is owed, such as that a message is accepted, is still given. It may be called
        again, but not before the loop's thread is started: the end of the loop is waited for."""
        # The loop would look up the stop only at its next poll.
        self._listeners.wake()
        self.shutdown()
        self._shut_sessions(socket.SHUT_RD)

    def cut_off(self) -> None:
        """End the sessions that have not become clients, whatever they do; but not the one in whose
        callback this is, which goes on only afterwards and then owes its answer still."""
        self._shut_sessions(socket.SHUT_RDWR)

    def _shut_sessions(self, how: int) -> None:
        current = threading.current_thread() if how == socket.SHUT_RDWR else None
        # Under the lock none of them can be closed meanwhile; the call does not block.
        with self._registry_lock:
            for sock, thread in self._sessions.items():
                if sock not in self._handed_over and thread is not current:
                    try:
                        sock.shutdown(how)
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
