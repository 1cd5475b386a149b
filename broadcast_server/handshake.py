"""HTTP on a client's socket before it becomes a WebSocket: requests in, answers out, all bounded.

h11 parses, except what nearly every client sends: an upgrade request of one segment without
anything unusual, which ``parse_plain`` reads. That is not for speed: building an h11 connection on
a client's thread leaves one more page of its stack in memory, 4 of the 20 KiB of an idle client. A
test holds both against each other. The socket belongs to the reader thread, which waits for each
request under one deadline however slowly its bytes come.
"""

from __future__ import annotations

import contextlib
import http
import re
import socket
import time

import h11

from .policies import Join, Refusal, Request

_RECV_BYTES = 4096
_LINGER_BYTES = 1024 * 1024
_LINGER_SECONDS = 1.0

# RFC 9110 §5.6.2 and RFC 9112 §3, narrower than both: no obsolete forms.
_PLAIN_LINE = re.compile(rb"GET (/[!-~]*) HTTP/1\.1")
_PLAIN_NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_PLAIN_VALUE = re.compile(rb"[ -~]*")
# With one of these there is more to an upgrade request than its headers.
_NOT_PLAIN = frozenset({"content-length", "transfer-encoding", "expect"})


class BadRequest(Exception):
    """What arrived gets an error answer and the connection ends.

    Attributes:
        refusal: the answer; None for a peer that left or only kept an idle connection.
    """

    def __init__(self, refusal: Refusal | None) -> None:
        super().__init__(refusal.text if refusal is not None else "the peer has left")
        self.refusal = refusal


class HttpConnection:
    """The HTTP side of one client, until it upgrades or ends. The reader thread's own.

    Args:
        sock: the client's socket.
        max_header_bytes: the most that request line and headers may take; else 431.
    """

    def __init__(self, sock: socket.socket, max_header_bytes: int) -> None:
        self._sock = sock
        self._max_header_bytes = max_header_bytes
        self._h11: h11.Connection | None = None  # made for a request that is not plain
        self._trailing = b""  # what came behind a plain one
        self._answered = False

    def read_request(self, timeout: float, idle_timeout: float) -> Request:
        """Wait for one request.

        Args:
            timeout: seconds from the first byte (of the first request: from now) to the end of its
                headers.
            idle_timeout: seconds to wait for the first byte of a further request.

        Raises:
            BadRequest: none came, or not a good one.
            OSError: the connection broke.
        """
        deadline = time.monotonic() + (idle_timeout if self._answered else timeout)
        if not self._trailing:
            self._trailing = self._receive(deadline, idle=self._answered)
            if self._answered:
                deadline = time.monotonic() + timeout
        plain = parse_plain(self._trailing, self._max_header_bytes)
        if plain is not None:
            request, self._trailing = plain
            return request
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_header_bytes)
        self._h11.receive_data(self._trailing)
        fed = len(self._trailing)
        self._trailing = b""
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint
                if status not in (400, 431, 501):
                    status = 400
                raise BadRequest(Refusal(status, f"bad request: {error}")) from None
            if isinstance(event, h11.Request):
                # h11 looks at its limit only while the request is incomplete.
                if fed - len(self._h11.trailing_data[0]) > self._max_header_bytes:
                    raise BadRequest(Refusal(431, "request line and headers are too long"))
                return _convert(event)
            if isinstance(event, h11.ConnectionClosed):
                raise BadRequest(None)
            data = self._receive(deadline, idle=False)
            fed += len(data)
            self._h11.receive_data(data)

    def _receive(self, deadline: float, *, idle: bool) -> bytes:
        """Return some bytes, none at the end of the stream.

        Raises:
            BadRequest: the deadline passed; without an answer if the connection was only idle.
        """
        if self._sock.gettimeout() is None:
            # Nothing was waited for yet, and mostly nothing need be: this saves two system calls.
            with contextlib.suppress(BlockingIOError):
                return self._sock.recv(_RECV_BYTES, socket.MSG_DONTWAIT)
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            return self._sock.recv(_RECV_BYTES)
        except TimeoutError:
            refusal = None if idle else Refusal(408, "the request took too long")
            raise BadRequest(refusal) from None

    def _has_body(self) -> bool:
        """Tell whether the request that was just read has a body (or cannot be read to its end)."""
        if self._h11 is None:
            return False
        try:
            return not isinstance(self._h11.next_event(), h11.EndOfMessage)
        except h11.RemoteProtocolError:
            return True

    def _take_trailing(self) -> bytes:
        """Return what came behind the request."""
        if self._h11 is not None:
            self._trailing, _ = self._h11.trailing_data
            self._h11 = None
        return self._trailing

    def upgrade(self, join: Join, timeout: float) -> bytes:
        """Send the 101 and return what the client has sent behind its request already.

        Raises:
            OSError: the client did not take it in time.
        """
        answer = (
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + join.accept.encode("ascii") + b"\r\n\r\n"
        )
        # Python's own time-out would make a send with MSG_DONTWAIT wait, here and in the fan-out.
        if self._sock.gettimeout() is not None:
            self._sock.settimeout(None)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = self._sock.send(answer, socket.MSG_DONTWAIT)
        if sent < len(answer):
            self._sock.settimeout(timeout)
            self._sock.sendall(answer[sent:])
            self._sock.settimeout(None)
        return self._take_trailing()

    def answer(self, request: Request | None, refusal: Refusal, timeout: float) -> bool:
        """Answer with an error; return whether another request may follow on this connection.

        Args:
            request: the request, None if it could not even be read.
            refusal: what to say.
            timeout: seconds for the client to take it.

        Raises:
            OSError: the client did not take it in time.
        """
        self._sock.settimeout(timeout)
        body = refusal.text.encode() + b"\n"
        head_only = request is not None and request.method == "HEAD"
        keep = (
            request is not None
            and request.version == "1.1"
            and "close" not in request.tokens("connection")
            and refusal.status < 500
            and not self._has_body()
        )
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("X-Content-Type-Options", "nosniff"),
            *refusal.headers,
        ]
        # RFC 9110 §7.8: whoever sends Upgrade lists it in Connection.
        options = ["Upgrade"] * any(name == "Upgrade" for name, _ in headers)
        options += ["close"] * (not keep)
        if options:
            headers.append(("Connection", ", ".join(options)))
        phrase = http.HTTPStatus(refusal.status).phrase
        lines = [f"HTTP/1.1 {refusal.status} {phrase}", *(f"{k}: {v}" for k, v in headers), "", ""]
        self._sock.sendall("\r\n".join(lines).encode("ascii") + (b"" if head_only else body))
        self._answered = True
        if keep:
            self._trailing = self._take_trailing()  # a pipelined request is not lost
            return True
        linger(self._sock)
        return False


def linger(sock: socket.socket) -> None:
    """Say that nothing more comes and let the peer finish, within bounds: closing a socket that
    holds unread bytes would reset the connection, and the peer might never see the answer."""
    deadline = time.monotonic() + _LINGER_SECONDS
    left = _LINGER_BYTES
    try:
        sock.shutdown(socket.SHUT_WR)
        while left > 0:
            timeout = deadline - time.monotonic()
            if timeout <= 0:
                return
            sock.settimeout(timeout)
            data = sock.recv(65536)
            if not data:
                return
            left -= len(data)
    except OSError:
        return


def parse_plain(data: bytes, max_bytes: int) -> tuple[Request, bytes] | None:
    """Read an upgrade request that is whole and without anything unusual.

    Returns:
        The request, as h11 would give it, and the bytes behind it; None to leave it to h11.
    """
    end = data.find(b"\r\n\r\n")
    if not 0 <= end <= max_bytes - 4:
        return None
    first, *lines = data[:end].split(b"\r\n")
    target = _PLAIN_LINE.fullmatch(first)
    if target is None:
        return None
    headers = []
    hosts = 0
    upgrade = False
    for line in lines:
        raw_name, colon, raw_value = line.partition(b":")
        if not (colon and _PLAIN_NAME.fullmatch(raw_name) and _PLAIN_VALUE.fullmatch(raw_value)):
            return None
        name = raw_name.decode("ascii").lower()
        if name in _NOT_PLAIN:
            return None
        hosts += name == "host"
        upgrade = upgrade or name == "upgrade"
        headers.append((name, raw_value.decode("ascii").strip(" ")))
    if hosts != 1 or not upgrade:
        return None
    request = Request("GET", target[1].decode("ascii"), "1.1", tuple(headers))
    return request, data[end + 4 :]


def _convert(event: h11.Request) -> Request:
    # h11 has checked that the target and the names are visible ASCII; values may be any bytes.
    return Request(
        event.method.decode("ascii"),
        event.target.decode("ascii"),
        event.http_version.decode("ascii"),
        tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers),
    )
