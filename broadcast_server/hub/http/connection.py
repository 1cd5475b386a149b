"""HTTP on a client's socket before it is something else: requests in, answers out, all bounded.

h11 parses requests and bodies, except what nearly every client sends: ``plain_request`` reads that;
and bodies in chunks, which ``chunks`` reads. ``responses`` makes the bytes of the answers. For each
request there is a new h11 connection, fed with what came behind the last one; so there is no state
that a long connection could heap up. The socket belongs to the reader thread, which waits for each
request, each body and each answer under one deadline, however slowly the bytes move.

A connection may have to make way for another one (hub/admission.py). Then it never waits for its
peer again: it takes what has come, gives one answer if that is a whole request, and ends.

A connection is kept after every answer, errors included, unless the client says otherwise or what
it has sent was not read to its end.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Sequence

import h11

from ...transport.tls_stream import ByteStream
from . import responses
from .chunks import ChunkReader
from .models import MAX_HEADER_LINES, MAX_LIST_ELEMENTS, Headers, Join, Refusal, Request, Response
from .plain_request import parse_plain

_HEAD_END = re.compile(rb"\n\r?\n")
_BLANK_LINES = re.compile(rb"(?:\r?\n)*")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_FIRST_LINE = re.compile(
    rb"(?P<method>[!-~]+) (?P<target>[!-~\x80-\xff]+) HTTP/(?P<major>[0-9])\.(?P<minor>[0-9])(\r?)"
)
_RECV_BYTES = 4096
SMALL_BODY_BYTES = 64 * 1024  # for a longer one a place is made
_BODY_RECV_BYTES = 64 * 1024
# Smaller pieces of an answer are joined to so much.
BLOCK_BYTES = 64 * 1024
# A body in tiny pieces costs h11 more than it costs its sender.
_MAX_CHUNKS = 16_384
# A client that sends all of its body before it reads should still get a 413.
_LINGER_BYTES = 16 * 1024 * 1024
_LINGER_SECONDS = 1.0
# What `HttpConnection.awaits` is while nothing is owed to the peer, whatever it sends.
RESTING = -1


_TOO_MANY = (
    f"a request has at most {MAX_HEADER_LINES} header lines, and {MAX_LIST_ELEMENTS} commas in them"
)


class BadRequest(Exception):
    """What arrived gets an error answer and the connection ends.

    Attributes:
        refusal: the answer; None for a peer that left or only kept an idle connection.
    """

    def __init__(self, refusal: Refusal | None) -> None:
        super().__init__(refusal.text if refusal is not None else "the peer has left")
        self.refusal = refusal


class CutShort(BadRequest):
    """The stream ended in the middle of a request: the peer has left, or the hub hears nothing
    more.

    Attributes:
        came: what came of its head; empty if that was whole.
    """

    def __init__(self, refusal: Refusal | None, came: bytes = b"") -> None:
        super().__init__(refusal)
        self.came = came


class MadeWay(ConnectionAbortedError):
    """The connection has made way for another one, instead of waiting for its peer."""


class HttpConnection:
    """The HTTP side of one client, until it upgrades or ends. The reader thread's own.

    Args:
        sock: the client's socket, or what stands for it over TLS.
        max_header_bytes: the most that request line and headers may take; else 431.

    Attributes:
        awaits: what the reader is blocked for: ``POLLIN`` (the peer sends nothing) or ``POLLOUT``
            of `select` (the peer takes nothing), or ``RESTING``; 0 if it isn't blocked. A single
            store each; the accept thread reads it.
        makes_way: it may not wait for its peer any more. The accept thread sets it before it looks
            at `awaits`; the reader sets `awaits` before it looks at this. So one of them sees what
            the other has done.
    """

    def __init__(self, sock: ByteStream, max_header_bytes: int) -> None:
        self._sock = sock
        self._max_header_bytes = max_header_bytes
        self._h11: h11.Connection | None = None  # made for a request that is not plain
        self._trailing = b""  # what came behind a plain one, or behind the last one
        self._unread = False  # the request has a body, or more of it
        self._answered = False
        self.awaits = 0
        self.makes_way = False

    # -- Requests ------------------------------------------------------------------------------

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
        first_by = time.monotonic() + (idle_timeout if self._answered else timeout)
        self._trailing = self._receive_first(self._trailing, first_by)
        deadline = time.monotonic() + timeout if self._answered else first_by
        plain = parse_plain(self._trailing, self._max_header_bytes)
        if plain is not None:
            request, self._trailing = plain
            return _checked(request)
        came = self._trailing
        while (data := _begin(came, self._max_header_bytes)) is None:
            rest = self._receive(deadline)
            if not rest:
                raise CutShort(Refusal(400, "the request ends too early"), came)
            came += rest
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_header_bytes)
        self._h11.receive_data(data)
        fed = len(data)
        lines, ending = _lines_of_head(b"", data)
        self._trailing = b""
        # Whatever fails from here on, more may be on its way.
        self._unread = True
        while True:
            if lines > MAX_HEADER_LINES + 2:  # the first line and the empty one
                raise BadRequest(_malformed(431, _TOO_MANY))
            event = self._next_event(self._h11)
            if isinstance(event, h11.Request):
                # h11 looks at its limit only while the request is incomplete.
                if fed - len(self._h11.trailing_data[0]) > self._max_header_bytes:
                    text = "request line and headers are too long"
                    raise BadRequest(_malformed(431, text))
                request = _checked(_convert(event))
                self._unread = _has_body(request)
                return request
            if isinstance(event, h11.ConnectionClosed):
                raise BadRequest(None)
            data = self._receive(deadline)
            if not data:
                # The peer may still read. Nothing is counted: mostly it has only left.
                if fed:
                    raise CutShort(Refusal(400, "the request ends too early"), came)
                raise BadRequest(None)
            fed += len(data)
            came += data
            more, ending = _lines_of_head(ending, data)
            lines += more
            self._h11.receive_data(data)

    def read_body(
        self, request: Request, limit_bytes: int, timeout: float, make_place: Callable[[int], None]
    ) -> bytes:
        """Read the body of the request that `read_request` has returned; call it once at most.

        Args:
            request: that request.
            limit_bytes: the most that the body may have; else 413, before any of it is read.
            timeout: seconds for all of it, without those that `make_place` takes.
            make_place: called with the most bytes that a large body may need, before most of it is
                read. What it raises comes through.

        Raises:
            BadRequest: it is too long, too slow, broken or cut off, or the client expects what the
                hub does not know. Answer with its refusal.
            OSError: the connection broke.
        """
        # RFC 9110 §10.1.1: HTTP/1.0 expects nothing.
        expected = set(request.tokens("expect")) if request.version >= "1.1" else set()
        if not expected <= {"100-continue"}:
            raise BadRequest(Refusal(417, "only 100-continue can be expected"))
        lengths = request.values("content-length")
        if lengths and int(lengths[0]) > limit_bytes:
            raise BadRequest(_too_big(limit_bytes))
        if request.version < "1.1" and not lengths:
            # RFC 1945 §8.3: without it a server of that time would read to the end of the stream.
            raise BadRequest(Refusal(411, "a body in HTTP/1.0 needs a Content-Length"))
        if self._h11 is None:
            return b""
        placed = bool(lengths) and int(lengths[0]) > SMALL_BODY_BYTES
        if placed:
            make_place(int(lengths[0]))
        deadline = time.monotonic() + timeout
        body = bytearray()  # many small pieces would take far more than their bytes
        chunks: ChunkReader | None = None
        if request.values("transfer-encoding"):
            chunks = ChunkReader(self._max_header_bytes)
            chunks.rest, self._h11 = self._h11.trailing_data[0], None
        while True:
            piece = self._next_piece(chunks)
            if piece is None:
                if expected and not body:
                    self._send(b"HTTP/1.1 100 Continue\r\n\r\n", deadline)
                    expected = set()
                data = self._receive(deadline, size=_BODY_RECV_BYTES)
                if not data:
                    # Nobody is there any more to be told, unless it is the hub that stops.
                    raise CutShort(None)
                if chunks is not None:
                    chunks.rest += data
                elif self._h11 is not None:
                    self._h11.receive_data(data)
            elif piece:
                body += piece
                if len(body) > limit_bytes:
                    raise BadRequest(_too_big(limit_bytes))
                if len(body) > SMALL_BODY_BYTES and not placed:
                    placed = True
                    left = deadline - time.monotonic()
                    make_place(limit_bytes)
                    deadline = time.monotonic() + left
                if chunks is not None and chunks.chunks > _MAX_CHUNKS:
                    raise BadRequest(
                        _malformed(400, f"the body has more than {_MAX_CHUNKS} chunks")
                    )
            else:
                self._unread = False
                return bytes(body)

    def _next_piece(self, chunks: ChunkReader | None) -> bytes | None:
        """Return the next part of a body, nothing at its end; None if more bytes are needed.

        Raises:
            BadRequest: it is broken.
        """
        if chunks is None:
            assert self._h11 is not None
            event = self._next_event(self._h11)
            if isinstance(event, h11.Data):
                return bytes(event.data)
            return b"" if isinstance(event, h11.EndOfMessage) else None
        try:
            piece = chunks.next_piece()
        except ValueError as error:
            raise BadRequest(_malformed(400, f"bad request: {error}")) from None
        if chunks.done:
            self._trailing = _skip_blank(chunks.rest)
        return piece

    def _next_event(self, parser: h11.Connection) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        """Return what h11 makes of what it has.

        Raises:
            BadRequest: it is no HTTP.
        """
        try:
            return parser.next_event()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            if status not in (400, 431, 501):
                status = 400
            # Behind the colon h11 repeats what came, and there may be a token in it.
            why = str(error).partition(":")[0]
            raise BadRequest(_malformed(status, f"bad request: {why}")) from None

    def _receive_first(self, came: bytes, deadline: float) -> bytes:
        """Return the first bytes of a request, none at the end of the stream. Empty lines before it
        are not a part of it (RFC 9112 §2.2).

        Args:
            came: what has come already.
            deadline: when it is too late.
        """
        blank = 0
        while True:
            found = _skip_blank(came)
            blank += len(came) - len(found)
            if blank > self._max_header_bytes:
                raise BadRequest(_malformed(400, "bad request: too many empty lines"))
            if found and found != b"\r":
                return found
            data = self._receive(deadline, idle=self._answered)
            if not data:
                return b""
            came = found + data

    def _receive(self, deadline: float, *, idle: bool = False, size: int = _RECV_BYTES) -> bytes:
        """Return some bytes, none at the end of the stream.

        Raises:
            BadRequest: the deadline passed; without an answer if the connection was only idle.
            MadeWay: it would have to wait, and may not.
        """
        if self._sock.gettimeout() is None:
            # Nothing was waited for yet, and mostly nothing need be: this saves two system calls.
            with contextlib.suppress(BlockingIOError):
                return self._sock.recv(size, socket.MSG_DONTWAIT)
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            self.awaits = select.POLLIN
            if self.makes_way and not is_ready(self._sock, select.POLLIN):
                raise MadeWay("another connection has got its place")
            return self._sock.recv(size)
        except TimeoutError:
            slow = Refusal(408, "the request took too long", reason="timeout")
            raise BadRequest(None if idle else slow) from None
        finally:
            self.awaits = 0

    def has_more(self) -> bool:
        """Tell whether the next request has come already, or a part of it."""
        return bool(self._trailing) or is_ready(self._sock, select.POLLIN)

    def rest(self, seconds: float) -> None:
        """Do nothing for a moment, because the peer has asked for too much.

        Raises:
            MadeWay: there is no time for it.
        """
        self.awaits = RESTING
        if self.makes_way:
            raise MadeWay("another connection has got its place")
        time.sleep(seconds)
        self.awaits = 0

    def _take_trailing(self) -> bytes:
        """Return what came behind the request."""
        if self._h11 is not None:
            self._trailing, _ = self._h11.trailing_data
            self._h11 = None
        return self._trailing

    # -- Answers -------------------------------------------------------------------------------

    def answer(self, request: Request | None, response: Refusal | Response, timeout: float) -> bool:
        """Send an answer; return whether another request may follow on this connection.

        Args:
            request: the request, None if it could not even be read.
            response: what to say.
            timeout: seconds for the client to take it.

        Raises:
            OSError: the client did not take it in time.
        """
        deadline = time.monotonic() + timeout
        if isinstance(response, Refusal):
            response = responses.refused(response, request)
        keep = (
            request is not None
            and request.version >= "1.1"
            and "close" not in request.tokens("connection")
            and not self._unread
            and not self.makes_way
            and not response.ends
            # Whoever may not join because there is no room for it should not keep a thread.
            and not (response.status >= 500 and request.tokens("upgrade"))
        )
        try:
            data = responses.head_of(response, keep=keep)
            if request is not None and request.method == "HEAD":
                self._send(data, deadline)
            else:
                self._send(data + response.body, deadline)
                self._send_pieces(response.pieces, deadline)
        finally:
            if response.done is not None:
                response.done()
        self._answered = True
        if keep:
            self._trailing = _skip_blank(self._take_trailing())  # a pipelined request is not lost
            return True
        self._linger()
        return False

    def upgrade(self, join: Join, timeout: float) -> bytes:
        """Send the 101 and return what the client has sent behind its request already.

        Raises:
            OSError: the client did not take it in time.
        """
        self._send_last(responses.switching(join), timeout)
        return self._take_trailing()

    def start_stream(self, headers: Headers, first: bytes, timeout: float) -> bytes:
        """Send the head of a stream of events; its body is whatever is sent until the end.

        Args:
            headers: those of the decision.
            first: with what the body begins.
            timeout: seconds for the client to take it.

        Returns:
            What the client has sent behind its request already; there is no use for it.

        Raises:
            OSError: the client did not take it in time.
        """
        self._send_last(responses.stream_head(headers) + first, timeout)
        return self._take_trailing()

    def _send_last(self, data: bytes, timeout: float) -> None:
        """Send the last bytes that are the reader's to send; leave the socket without a time-out.

        Python's own would make a send with MSG_DONTWAIT wait, here and in the fan-out.
        """
        if self._sock.gettimeout() is not None:
            self._sock.settimeout(None)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = self._sock.send(data, socket.MSG_DONTWAIT)
        if sent < len(data):
            self._sock.settimeout(timeout)
            self._sock.sendall(data[sent:])
            self._sock.settimeout(None)

    def _send_pieces(self, pieces: Sequence[bytes | memoryview], deadline: float) -> None:
        """Send pieces under one deadline; small ones are joined, large ones are not copied."""
        block: list[bytes | memoryview] = []
        size = 0
        for number, piece in enumerate(pieces, 1):
            block.append(piece)
            size += len(piece)
            if size >= BLOCK_BYTES or number == len(pieces):
                self._send(block[0] if len(block) == 1 else b"".join(block), deadline)
                block, size = [], 0

    def _send(self, data: bytes | memoryview, deadline: float) -> None:
        """Send all of it.

        Raises:
            TimeoutError: the peer did not take it in time.
            MadeWay: it would have to wait, and may not.
            OSError: the connection broke.
        """
        if self._sock.gettimeout() is not None:
            self._sock.settimeout(None)  # else MSG_DONTWAIT would wait
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._sock.send(rest, socket.MSG_DONTWAIT) :]
                continue
            except BlockingIOError:
                pass
            self.awaits = select.POLLOUT
            if self.makes_way:
                raise MadeWay("another connection has got its place")
            if not is_ready(self._sock, select.POLLOUT, deadline - time.monotonic()):
                raise TimeoutError("the peer did not take the answer in time")
            self.awaits = 0

    def _linger(self) -> None:
        """Say that nothing more comes and let the peer finish, within bounds: closing a socket that
        holds unread bytes would reset the connection, and the peer might never see the answer."""
        deadline = time.monotonic() + _LINGER_SECONDS
        left = _LINGER_BYTES
        self.awaits = RESTING
        try:
            self._sock.shutdown(socket.SHUT_WR)
            while left > 0 and not self.makes_way:
                timeout = deadline - time.monotonic()
                if timeout <= 0:
                    return
                self._sock.settimeout(timeout)
                data = self._sock.recv(65536)
                if not data:
                    return
                left -= len(data)
        except OSError:
            return


def _skip_blank(data: bytes) -> bytes:
    """Return what comes behind empty lines."""
    found = _BLANK_LINES.match(data)
    return data[found.end() :] if found is not None else data


def _begin(data: bytes, limit_bytes: int) -> bytes | None:
    """Return the begin of a request as h11 understands it; None if its first line is not whole.

    h11 knows nothing of versions, and only ASCII. An HTTP/1.2 is an HTTP/1.1 (RFC 9110 §2.5), which
    must have a ``Host``. Programs send what people type into an address as UTF-8, and mean what a
    browser would make of it.

    Raises:
        BadRequest: it is of another major version.
    """
    end = data.find(b"\n")
    if not data:
        return data
    if end < 0:
        # h11 says what is wrong with it.
        return data if data[0] <= 0x20 or len(data) > limit_bytes else None
    found = _FIRST_LINE.fullmatch(data, 0, end)
    if found is None:
        return data
    if found["major"] != b"1":
        raise BadRequest(_malformed(505, "only HTTP/1.0 and HTTP/1.1 are understood"))
    target = _NOT_ASCII.sub(lambda byte: b"%%%02X" % ord(byte[0]), found["target"])
    minor = b"1" if found["minor"] > b"1" else found["minor"]
    return b"%b %b HTTP/1.%b%b%b" % (found["method"], target, minor, found[5], data[end:])


def head_so_far(data: bytes) -> Request | None:
    """Return what is known of a request of which only so much has come, or is to be read; None if
    that is no request, or says too little."""
    data = _skip_blank(data)
    end = _HEAD_END.search(data)
    lines = data[: end.start() if end else data.rfind(b"\n") + 1].rstrip(b"\r\n") + b"\r\n\r\n"
    parser = h11.Connection(h11.SERVER)
    try:
        parser.receive_data(_begin(lines, len(lines)) or b"")
        event = parser.next_event()
        return _checked(_convert(event)) if isinstance(event, h11.Request) else None
    except (h11.RemoteProtocolError, BadRequest):
        return None


def is_ready(sock: ByteStream, event: int, seconds: float = 0.0) -> bool:
    """Tell whether a socket can be read (``POLLIN``) or written (``POLLOUT``), or has failed; wait
    for it for so long at most."""
    poll = select.poll()
    poll.register(sock.fileno(), event)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def _lines_of_head(before: bytes, data: bytes) -> tuple[int, bytes]:
    """Return how many lines end in what came for a head that is incomplete, and its last bytes,
    which are `before` for what comes next. A body behind the head does not count."""
    joined = before + data
    end = _HEAD_END.search(joined)
    count = joined.count(b"\n", len(before), end.end() if end else len(joined))
    return count, joined[-2:]


def _checked(request: Request) -> Request:
    """Return a request that has no more header lines and list elements than it may have.

    Raises:
        BadRequest: it has.
    """
    if request.is_too_long():
        raise BadRequest(_malformed(431, _TOO_MANY))
    return request


def _convert(event: h11.Request) -> Request:
    # h11 has checked that the target and the names are visible ASCII; values may be any bytes.
    return Request(
        event.method.decode("ascii"),
        event.target.decode("ascii"),
        event.http_version.decode("ascii"),
        tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers),
    )


def _has_body(request: Request) -> bool:
    """Tell whether a body follows the request.

    Raises:
        BadRequest: nobody could say where it ends (RFC 9112 §6.1): proxies and servers that
            understand such requests differently let one request be smuggled in another.
    """
    length = request.values("content-length")
    if not request.values("transfer-encoding"):
        return length not in ([], ["0"])
    if length or request.version < "1.1":
        raise BadRequest(_malformed(400, "Transfer-Encoding with Content-Length or in HTTP/1.0"))
    return True


def _malformed(status: int, text: str) -> Refusal:
    """Return the answer to what is no HTTP, or no reasonable one."""
    return Refusal(status, text, reason="max_header_bytes" if status == 431 else "bad_request")


def _too_big(limit_bytes: int) -> Refusal:
    return Refusal(413, f"a message has at most {limit_bytes} bytes", reason="too_big")
