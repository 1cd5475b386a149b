"""The opening handshake as websocket-client gets to see it: bounded, understood, without cookies.

websocket-client writes the request and checks the answer, but it believes what it reads, and it
keeps one jar of cookies for the whole process: a cookie of one server would go to other hubs, one
that ``http.cookies`` cannot read would raise out of the connect, and a big one would make every
later handshake too large. So it is given no socket but a ``HandshakeSocket``. That one takes what
the jar has added out of the request, and hands on of the answer only a status line and the few
header lines that a handshake needs, after reading them itself.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
from collections.abc import Mapping

from ..transport.deadlines import Deadline

# What comes before the frames of a WebSocket; a hub's has less than 1 KiB.
MAX_HEAD_BYTES = 64 * 1024
# An answer that refuses may be a page for people.
MAX_BODY_BYTES = 1024 * 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: .*)?", re.DOTALL)
_LENGTH = re.compile("[0-9]{1,20}")
_WANTED = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "retry-after",
        "sec-websocket-accept",
        "sec-websocket-protocol",
        "upgrade",
    }
)


class HandshakeSocket:
    """A socket as websocket-client has it during the opening handshake. For one thread.

    Each of its steps gets what is left of one deadline: a server that sends its header byte by byte
    would otherwise keep us for ever.

    Args:
        sock: the socket; whoever has made it closes it.
        cookies: the header lines of this name that the user has given, and no others are sent.
        deadline: for all of the handshake.
    """

    def __init__(self, sock: socket.socket, cookies: Mapping[str, str], deadline: Deadline) -> None:
        self._sock = sock
        self._cookies = cookies
        self._deadline = deadline
        self._head: io.BytesIO | None = None  # of the answer, once it is read
        self._body_bytes = 0
        self._unsent: OSError | None = None  # why the request could not be sent

    def gettimeout(self) -> float:
        return self._deadline.left_or_late()

    def send(self, data: bytes) -> int:
        """Send a request's head.

        A server that has ended the connection by then may have said why: `recv` reads it, and
        raises what has failed here if there is nothing.
        """
        self._sock.settimeout(self._deadline.left_or_late())
        try:
            self._sock.sendall(_with_cookies(data, self._cookies))
        except (ConnectionError, ssl.SSLEOFError) as error:
            self._unsent = error
        return len(data)

    def recv(self, size: int) -> bytes:
        """Return as many bytes of the answer, or fewer where it ends.

        Raises:
            ValueError: it has no end, or is no HTTP.
            TimeoutError, OSError: it does not come.
        """
        if self._head is None:
            self._head = io.BytesIO(self._read_head())
        return self._head.read(size) or self._read_body(size)

    def close(self) -> None:
        """Do nothing: who has made the socket closes it."""

    def _read_head(self) -> bytes:
        found = bytearray()
        # Byte by byte: what follows are frames.
        while not found.endswith((b"\n\r\n", b"\n\n")) and bytes(found) not in (b"\r\n", b"\n"):
            if len(found) >= MAX_HEAD_BYTES:
                raise ValueError("its answer has no end")
            piece = self._read(1)
            if not piece:
                if self._unsent is not None:
                    raise self._unsent
                return b""
            found += piece
        return understood_head(bytes(found))

    def _read_body(self, size: int) -> bytes:
        self._body_bytes += size
        if self._body_bytes > MAX_BODY_BYTES:
            raise ValueError("its answer has no end")
        found = bytearray()  # the caller would join small pieces in quadratic time
        while len(found) < size and (piece := self._read(size - len(found))):
            found += piece
        return bytes(found)

    def _read(self, size: int) -> bytes:
        self._sock.settimeout(self._deadline.left_or_late())
        return self._sock.recv(size)


def understood_head(head: bytes) -> bytes:
    """Return of an answer's head what a handshake needs, in the form that RFC 9112 wants.

    Raises:
        ValueError: it is not that of an HTTP answer.
    """
    first, *rest = head.split(b"\n")
    status = _STATUS_LINE.fullmatch(first.rstrip(b"\r"))
    if status is None:
        raise ValueError("it does not speak HTTP")
    lines = [f"HTTP/1.1 {status[1].decode()} "]
    for line in rest:
        name, colon, value = line.decode("latin-1").partition(":")
        name, value = name.lower(), value.strip()
        if not colon and name.strip():
            raise ValueError("a header line of its answer is none")
        if name not in _WANTED or (name == "content-length" and not _LENGTH.fullmatch(value)):
            continue
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode()


def _with_cookies(head: bytes, cookies: Mapping[str, str]) -> bytes:
    """Return a request's head with these cookies and no others.

    websocket-client writes a line with those of its jar behind all others, and was given none.
    """
    kept = head.partition(b"\r\nCookie: ")[0].removesuffix(b"\r\n\r\n")
    own = [f"{name}: {value}".encode() for name, value in cookies.items()]
    return b"\r\n".join([kept, *own, b"", b""])
