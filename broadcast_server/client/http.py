"""One HTTP request to a hub and its answer, or several, one after the other.

The standard library's ``http.client`` writes the request and reads the answer. Its time-out counts
for each step, which a slow server could stretch for ever: so it works on a ``_BoundedSocket``,
whose every step gets what is left of one deadline.
"""

from __future__ import annotations

import http.client
import io
import selectors
import socket
import ssl
import urllib.parse
from typing import Any, NamedTuple

from ..transport import tls
from ..transport.connector import Connector, Selector
from ..transport.deadlines import Deadline
from ..wire import json_bounds
from ..wire.json_bounds import Bounds

# What is longer is no sentence.
MAX_DETAIL_CHARACTERS = 1000
_TLS = {"http": False, "ws": False, "https": True, "wss": True}
# What an answer may have beside its body: its head, and what chunks are framed with.
_MORE_BYTES = 256 * 1024
# A piece that TLS takes at once, and the deadline is looked at between two.
_PIECE_BYTES = 64 * 1024
# What says that the connection has broken, and not that somebody has refused.
_BROKEN = (ConnectionError, ssl.SSLEOFError, http.client.IncompleteRead)


class NotSent(ConnectionError):
    """The connection broke before any of the request was sent; the text says how."""


# Of the objects that hubs answer: an id, a sentence, or some messages.
ANSWER = json_bounds.EVENT._replace(bytes=64 * 1024 * 1024)


class Answer(NamedTuple):
    """What a server has answered."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes

    def fields(self, bounds: Bounds = ANSWER) -> dict[str, Any]:
        """Return the JSON object in the body, an empty one if there is none within the bounds."""
        try:
            value = json_bounds.loads(self.body, bounds)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def detail(self) -> str:
        """Return what the server says about an error (RFC 9457), else its status."""
        detail = self.fields().get("detail")
        if isinstance(detail, str) and 0 < len(detail) <= MAX_DETAIL_CHARACTERS:
            return detail
        return f"HTTP status {self.status} {self.reason[:MAX_DETAIL_CHARACTERS]}".rstrip()


def exchange(
    parts: urllib.parse.SplitResult,
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes | None,
    deadline: Deadline,
    max_answer_bytes: int,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """Make one request and return its answer, whatever its status; redirects are not followed.

    Args:
        parts: the URL of the hub, as `urls.split` returns it.
        target: path and query to ask for, in ASCII.
        headers: beside those that every request has.
        body: None for none.
        deadline: for all of it, but the lookup of a host's name.
        max_answer_bytes: the most that is read of the answer's body.
        context: for TLS; None for what the system trusts.

    Raises:
        OSError, http.client.HTTPException, ValueError: there is no whole answer; `why` tells.
    """
    exchanger = Exchanger(parts, context)
    try:
        return exchanger.exchange(
            method, target, {**headers, "Connection": "close"}, body, deadline, max_answer_bytes
        )
    finally:
        exchanger.close()


class Exchanger:
    """Requests to one hub, one after the other, over one connection as long as it lasts.

    Not thread-safe.

    Args:
        parts, context: as for `exchange`.

    Attributes:
        connected: whether there has been a connection.
        was_sent: whether a part of the last request may have reached the server.
        is_fresh: whether the last request was the first one of its connection. If not, the hub may
            have closed it at the very moment, which says nothing about the hub.
    """

    def __init__(
        self, parts: urllib.parse.SplitResult, context: ssl.SSLContext | None = None
    ) -> None:
        self._parts = parts
        self._context = context
        self._connection: _Connection | None = None
        self.connected = False
        self.was_sent = False
        self.is_fresh = True

    def exchange(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
        deadline: Deadline,
        max_answer_bytes: int,
    ) -> Answer:
        """Make one request and return its answer; the arguments and what is raised are those of
        the function `exchange`."""
        self.was_sent = False
        if self._connection is not None and self._connection.is_over():
            self.close()
        self.is_fresh = self._connection is None
        connection = self._connection
        if connection is None:
            connection = self._connection = _Connection(self._parts, self._context)
        connection.bound(deadline, 2 * max_answer_bytes + _MORE_BYTES)
        kept = False
        try:
            if self.is_fresh:
                connection.connect()
                self.connected = True
            connection.putrequest(method, target)
            length = {} if body is None else {"Content-Length": str(len(body))}
            for key, value in {**headers, **length}.items():
                connection.putheader(key, value)
            is_whole = self.was_sent = True
            try:
                connection.endheaders(body)
            except (ConnectionError, ssl.SSLEOFError):
                # A hub that does not want the message answers before it has read all of it.
                is_whole = False
            try:
                response = connection.getresponse()
            except ssl.SSLError as error:
                self.was_sent = not tls.is_refused(error)  # TLS 1.3 tells it that late
                raise
            answer = response.read(max_answer_bytes)
            if response.length and len(answer) < max_answer_bytes:
                raise http.client.IncompleteRead(answer)
            # A head that is cut off has no length either.
            if response.status == 200 and not answer:
                raise http.client.IncompleteRead(answer)
            kept = is_whole and response.isclosed() and not response.will_close
            return Answer(response.status, response.reason, response.headers, answer)
        finally:
            if not kept:
                self.close()

    def close(self) -> None:
        """Close the connection, if there is one; the next request makes another."""
        if self._connection is not None:
            self._connection.close_socket()
            self._connection = None


def is_broken(error: Exception) -> bool:
    """Tell whether a connection has broken, and was not refused."""
    return isinstance(error, _BROKEN) and not isinstance(error, ConnectionRefusedError)


def why(error: Exception, timeout: float) -> str:
    """Return in a few words why there is no answer."""
    if isinstance(error, TimeoutError):
        return f"no answer in {timeout:g} s"
    if isinstance(error, NotSent):
        return str(error)
    if is_broken(error):
        return "the connection broke before the answer"
    if isinstance(error, ssl.SSLError):
        return tls.reason(error)
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return "the answer is no HTTP"


# -- The socket --------------------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    """A connection whose every step is part of one deadline."""

    def __init__(self, parts: urllib.parse.SplitResult, context: ssl.SSLContext | None) -> None:
        self._is_tls = _TLS[parts.scheme]
        self.default_port = 443 if self._is_tls else 80
        assert parts.hostname is not None
        super().__init__(parts.hostname, parts.port or self.default_port)
        self._deadline = Deadline(0)
        self._max_bytes = 0
        self._context = context
        self._socket: socket.socket | None = None

    def bound(self, deadline: Deadline, max_bytes: int) -> None:
        """Let what follows take until then, and the answer have so many bytes, head included."""
        self._deadline, self._max_bytes = deadline, max_bytes
        if isinstance(self.sock, _BoundedSocket):
            self.sock.deadline, self.sock.max_bytes = deadline, max_bytes

    def is_over(self) -> bool:
        """Whether the server has ended the connection, or says what nobody has asked for."""
        if self._socket is None:
            return False
        with Selector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(0))

    def connect(self) -> None:
        """Connect to the first of the host's addresses that answers, perhaps through a proxy.

        Raises:
            OSError: there is no connection: NotSent if it broke, ProxyError if a proxy is the
                reason.
        """
        context = (self._context or tls.client_context()) if self._is_tls else None
        connector = Connector(self.host, self.port, context)
        try:
            sock = connector.connect(self._deadline)
            connector.take(sock)
        except (ConnectionError, ssl.SSLEOFError) as error:
            if not is_broken(error):
                raise
            if isinstance(error, ssl.SSLError):
                raise NotSent(tls.reason(error)) from error
            raise NotSent(error.strerror or str(error)) from error
        finally:
            connector.close()  # what was not taken
        self._socket = sock
        self.sock = _BoundedSocket(sock, self._deadline, self._max_bytes)

    def close_socket(self) -> None:
        """Close what `connect` has opened; http.client closes only what stands for it."""
        self.close()
        if self._socket is not None:
            self._socket.close()


class _BoundedSocket:
    """As much of a socket as http.client uses; each step gets what is left of the deadline.

    An answer is bounded here and not only where it is read: http.client reads a chunk of the size
    "-1" to the end of the stream, and heads with the status 100 as long as they come.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline, max_bytes: int) -> None:
        self._sock = sock
        self.deadline = deadline
        self.max_bytes = max_bytes

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._sock.settimeout(_seconds_left(self.deadline))
            view = view[self._sock.send(view[:_PIECE_BYTES]) :]

    def makefile(self, mode: str, *args: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self.deadline, self.max_bytes))

    def close(self) -> None:
        """Do nothing: http.client calls this before it has read the answer."""


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: Deadline, max_bytes: int) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline
        self._left = max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_seconds_left(self._deadline))
        count = self._sock.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise http.client.HTTPException("the answer has no end")
        return count


def _seconds_left(deadline: Deadline) -> float:
    """Return a time-out for one step.

    Raises:
        TimeoutError: nothing is left.
    """
    left = deadline.left()
    if not left:
        raise TimeoutError
    return left
