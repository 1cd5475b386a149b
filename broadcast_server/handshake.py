"""HTTP on a client's socket before it becomes a WebSocket: requests in, answers out, all bounded.

h11 parses. The socket belongs to the reader thread, which waits for each request under one deadline
however slowly its bytes come.
"""

from __future__ import annotations

import http
import socket
import time

import h11

from .policies import Join, Refusal, Request

_RECV_BYTES = 4096
_LINGER_BYTES = 1024 * 1024
_LINGER_SECONDS = 1.0


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
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=max_header_bytes)
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
        idle = self._answered
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint
                if status not in (400, 431, 501):
                    status = 400
                raise BadRequest(Refusal(status, f"bad request: {error}")) from None
            if isinstance(event, h11.Request):
                return _convert(event)
            if isinstance(event, h11.ConnectionClosed):
                raise BadRequest(None)
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                self._sock.settimeout(left)
                data = self._sock.recv(_RECV_BYTES)
            except TimeoutError:
                if idle:
                    raise BadRequest(None) from None
                raise BadRequest(Refusal(408, "the request took too long")) from None
            if idle and data:
                idle = False
                deadline = time.monotonic() + timeout
            self._h11.receive_data(data)

    def _has_body(self) -> bool:
        """Tell whether the request that was just read has a body (or cannot be read to its end)."""
        try:
            return not isinstance(self._h11.next_event(), h11.EndOfMessage)
        except h11.RemoteProtocolError:
            return True

    def upgrade(self, join: Join, timeout: float) -> bytes:
        """Send the 101 and return what the client has sent behind its request already.

        Raises:
            OSError: the client did not take it in time.
        """
        self._sock.settimeout(timeout)
        self._sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + join.accept.encode("ascii") + b"\r\n\r\n"
        )
        # Python's own time-out would make a send with MSG_DONTWAIT wait.
        self._sock.settimeout(None)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._h11.trailing_data[0]

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
            # A fresh parser for the next request; pipelined bytes are not lost.
            trailing, closed = self._h11.trailing_data
            self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_header_bytes)
            if trailing:
                self._h11.receive_data(trailing)
            if closed:
                self._h11.receive_data(b"")
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


def _convert(event: h11.Request) -> Request:
    # h11 has checked that the target and the names are visible ASCII; values may be any bytes.
    return Request(
        event.method.decode("ascii"),
        event.target.decode("ascii"),
        event.http_version.decode("ascii"),
        tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers),
    )
