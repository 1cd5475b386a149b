"""``BroadcastHub``: what a program can ask of a hub. How it begins and ends is in ``hub/life.py``."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import MessageTooBig, UsageError
from ..messages import Member, Message
from ..settings import Settings
from ..transport.tls_stream import Certificate
from ..wire.frames import is_sendable_close_code
from .core import Filter
from .http import keyring as tokens
from .http.access import Authorize
from .http.routes import check_room
from .life import HubLife
from .rooms.entries import Draft, encode, to_message, to_messages
from .run import Run

Data = str | bytes


class BroadcastHub(HubLife):
    """A hub that relays each message of a client to all other clients of its room.

    All methods may be called from any thread, also in callbacks. Callbacks run on the reader thread
    of the client that they are about, without a lock: a slow one delays that client only, and what
    one raises is logged. A context manager: it starts on entering and stops on leaving.

    Example::

        with BroadcastHub(port=8765) as hub:
            hub.broadcast("kick-off", room="/scores")

    Args:
        host: the address or name to listen on, or a sequence of them; ``localhost`` is this machine
            over IPv4 and IPv6.
        port: the TCP port, the same on all; 0 for any free one, see ``hub.port``.
        on_message: called with each ``Message`` of a client once it is accepted; not for
            ``broadcast``.
        on_join: called with the ``Member`` that has joined.
        filter: called with each ``Message`` of a client or an HTTP publisher before it has an id,
            on that one's thread; returns it, or other data for it, or None to refuse it.
        on_leave: called with the ``Member`` that has left, the close code and the reason. When a
            client comes back while the hub still holds its old connection, ``on_join`` of the new
            one and ``on_leave`` of the old one (1008), both with the same id, come in any order.
        sockets: TCP sockets that listen already, instead of host and port. They stay the caller's,
            who closes them after the hub has stopped.
        authorize: called with an ``AccessRequest`` before anybody is let in, on that one's thread;
            returns a ``Grant``, or a ``Refusal``, or None for a plain 401. If it raises, the answer
            is 500. Takes the place of the settings of tokens and keys.
        settings: any limit or time in docs/reference/options.md, such as ``max_message_bytes`` or
            ``ping_interval``; and ``token``, ``publish_token``, ``jwt_key``.

    Raises:
        UsageError: a value can never work.
        TypeError: there is no setting of that name.
    """

    def __init__(
        self,
        host: str | Sequence[str] = "127.0.0.1",
        port: int = 8765,
        *,
        on_message: Callable[[Message], object] | None = None,
        on_join: Callable[[Member], object] | None = None,
        on_leave: Callable[[Member, int, str], object] | None = None,
        filter: Filter | None = None,
        sockets: Sequence[socket.socket] = (),
        authorize: Authorize | None = None,
        **settings: Any,
    ) -> None:
        self._sockets = tuple(sockets)
        if self._sockets:
            self._places = [sock.getsockname()[:2] for sock in self._sockets]
            host, port = [place[0] for place in self._places], self._places[0][1]
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
            raise UsageError(f"port must be a number from 0 to 65535, not {port!r}")
        self._hosts: tuple[str, ...] = (host,) if isinstance(host, str) else _as_tuple(host)
        if not self._hosts or not all(isinstance(one, str) and one for one in self._hosts):
            raise UsageError(f"host must be a name or an address, or some of them, not {host!r}")
        self._port = port
        self._callbacks = (on_message, on_join, on_leave, filter)
        try:
            super().__init__(Settings(**settings))
        except TypeError as error:  # an unknown name; that of the class says nothing to the caller
            text = str(error).replace("Settings.__init__()", "BroadcastHub()")
            raise TypeError(text) from None
        if authorize is not None and self._settings.has_secrets:
            raise UsageError("give authorize, or tokens and keys, not both")
        self._authorize = authorize

    def _make_run(self) -> Run:
        settings = self._settings
        # Before anything is opened: without its certificate there is no hub.
        tls = None
        if settings.tls_cert is not None:
            tls = Certificate(settings.tls_cert, settings.tls_key)
        keyring = tokens.Keyring(settings) if settings.has_secrets else None
        authorize = keyring.authorize if keyring is not None else self._authorize
        run = Run(self._hosts, self._port, settings, self._callbacks, self._sockets, authorize, tls)
        if keyring is not None:
            run.core.reloads.append(keyring.reload)
        return run

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
            UnicodeEncodeError: the text holds a lone surrogate, which UTF-8 cannot carry.
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
            HubStopped, MessageTooBig, TypeError, UnicodeEncodeError: as for ``broadcast``.
        """
        run = self._serving_run()
        frame = self._encode(data)
        return run.send(client_id, frame, time.monotonic() + timeout)

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
            if core.dismiss(connection, code, reason):
                return True
            # It ends just now; a newer one may have taken its place.
        return False

    # -- Facts ---------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The host that it listens on, as given; of several the first one."""
        return self._hosts[0]

    @property
    def port(self) -> int:
        """The port that it really listens on while it runs, else the one given."""
        server = self._server
        return server.port if server is not None else self._port

    @property
    def url(self) -> str:
        """The URL of the lobby; with several hosts that of the first one."""
        return self.urls[0]

    @property
    def urls(self) -> tuple[str, ...]:
        """The URL of the lobby at each of the hosts, or sockets, that were given."""
        places = self._places if self._sockets else [(host, self.port) for host in self._hosts]
        scheme = "ws" if self._settings.tls_cert is None else "wss"
        return tuple(
            f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"
            for host, port in places
        )

    def stats(self) -> dict[str, int]:
        """Return counters since the start and present numbers.

        ``messages`` accepted, ``encodes`` (frames made of them), ``joins`` (batches joined),
        ``sends`` (calls to the kernel), ``deliveries``, ``bytes_out``, ``evictions``; ``clients``,
        ``rooms`` and ``log_bytes`` now. The same and more, for Prometheus, is at ``/metrics``:
        docs/reference/metrics.md.

        Raises:
            HubStopped: the hub does not run.
        """
        return self._serving_run().stats()

    # -- Inside --------------------------------------------------------------------------------

    def _encode(self, data: Data) -> bytes:
        if isinstance(data, (str, bytes)):
            size = len(data.encode("utf-8")) if isinstance(data, str) else len(data)
            if size > self._settings.max_message_bytes:
                raise MessageTooBig(
                    f"the message has {size} bytes, more than "
                    f"max_message_bytes ({self._settings.max_message_bytes})"
                )
        return encode(data)


def _as_tuple(given: object) -> tuple[Any, ...]:
    """Return the elements of a sequence; none if it is no sequence."""
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, bytes) else ()
