"""Target: what the hub makes of a client's first bytes, ``HttpConnection`` to ``policies.decide``.

Of an input the first byte chooses limits and settings, the second how the stream is cut; the rest
is what a client sends until it ends its stream, or falls silent. What must hold: no exception but
those that are promised; requests, bodies and decisions do not depend on the cuts; every refusal has
a good status; whatever ``parse_plain`` takes h11 takes alike; and what the hub sends back are
answers with no header line in them that the hub does not know: nobody can slip one in.
"""

from __future__ import annotations

import dataclasses
import http
import json
import re
import socket

import h11

from broadcast_server import rules
from broadcast_server.hub.http import access, host_header
from broadcast_server.hub.http.connection import BadRequest, HttpConnection
from broadcast_server.hub.http.forwarded import Address, client_of
from broadcast_server.hub.http.models import (
    Asset,
    Decision,
    Join,
    Publish,
    Refusal,
    Request,
    Response,
    Stream,
)
from broadcast_server.hub.http.plain_request import parse_plain
from broadcast_server.hub.http.routes import check_room, decide
from broadcast_server.networks import parse_network
from broadcast_server.wire.frames import FrameDecoder

from .target_frames import cut_up

HEADER_LIMITS = (256, 600, 4096, 16384)
BODY_LIMIT = 100
HISTORY = 100
ORIGINS: tuple[tuple[str, ...], ...] = ((), ("https://app.example",), ("*",))
NAMES = host_header.own_names(["127.0.0.1"], ["h", "hub.example"])
PEER, PROXIES = Address("10.0.0.9", 4711), (parse_network("10.0.0.0/8"),)
MAX_REQUESTS = 8
SECONDS = 9.0
STREAM_START = b"retry: 1000\n\n"

KNOWN_HEADERS = frozenset(
    {
        "Accept-Encoding", "Access-Control-Allow-Headers", "Access-Control-Allow-Methods",
        "Access-Control-Allow-Origin", "Access-Control-Max-Age", "Allow", "Cache-Control",
        "Connection", "Content-Length", "Content-Security-Policy", "Content-Type",
        "Cross-Origin-Resource-Policy", "Date", "Referrer-Policy", "Sec-WebSocket-Accept",
        "Sec-WebSocket-Protocol", "Sec-WebSocket-Version", "Upgrade", "Vary", "WWW-Authenticate",
        "X-Accel-Buffering", "X-Content-Type-Options", "X-Frame-Options",
    }
)  # fmt: skip

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [A-Za-z' -]+\Z")
_HEADER_LINE = re.compile(rb"([A-Za-z-]+): ([ -~\x80-\xff]*)\Z")
# Refusals that depend on what is there when h11 looks; all of them end the connection.
_BAD_HEADS = (400, 431, 501, 505)


@dataclasses.dataclass
class Talk:
    """What came of one connection, comparable.

    Attributes:
        steps: for each request the request, the decision, and the body or the refusal of it.
        label: how it ended.
        sent: all that went to the client, and with which methods it asked.
    """

    steps: list[object]
    label: str
    sent: bytes
    methods: list[str]


class FakeSocket:
    """As much of a socket as ``HttpConnection`` uses; gives the pieces one after the other.

    Args:
        pieces: what the client sends.
        stalls: then it says nothing more, rather than ending its stream.
    """

    def __init__(self, pieces: list[bytes], stalls: bool) -> None:
        self._pieces = pieces[::-1]
        self._stalls = stalls
        self._timeout: float | None = None
        self.sent = b""

    def gettimeout(self) -> float | None:
        return self._timeout

    def settimeout(self, timeout: float | None) -> None:
        assert timeout is None or 0 < timeout <= SECONDS
        self._timeout = timeout

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self._pieces:
            if not self._stalls:
                return b""
            raise BlockingIOError if flags & socket.MSG_DONTWAIT else TimeoutError
        piece = self._pieces.pop()
        if len(piece) > size:
            self._pieces.append(piece[size:])
        return piece[:size]

    def send(self, data: bytes, flags: int = 0) -> int:
        took = (len(data) + 1) // 2
        self.sent += data[:took]
        return took

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR

    def rest(self) -> bytes:
        """Return what nobody has read."""
        return b"".join(reversed(self._pieces))


def _no_place(size: int) -> None:
    raise AssertionError(f"a place for {size} bytes, more than a body may have here")


def run(data: bytes) -> str:
    """Let the hub's half talk with a client that sends these bytes, cut in two ways."""
    if len(data) < 2:
        return "short"
    choice, cut, stream = data[0], data[1], data[2:]
    plain = parse_plain(stream, max(HEADER_LIMITS))
    if plain is not None:
        assert plain == read_by_h11(stream), "parse_plain and h11 differ"
    whole = _talk([stream] if stream else [], choice)
    pieces = _talk(cut_up(stream, cut), choice)
    assert pieces.steps == whole.steps
    for talk in (whole, pieces):
        _check_answers(talk)
    return whole.label


def read_by_h11(data: bytes) -> tuple[Request, bytes] | None:
    """Return what h11 makes of a request without a body, and what is behind it; None for an error
    or an incomplete request."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=max(HEADER_LIMITS))
    connection.receive_data(data)
    try:
        event = connection.next_event()
        if not isinstance(event, h11.Request):
            return None
        if not isinstance(connection.next_event(), h11.EndOfMessage):
            return None
    except h11.RemoteProtocolError:
        return None
    headers = tuple((name.decode(), value.decode("latin-1")) for name, value in event.headers)
    request = Request(event.method.decode(), event.target.decode(), "1.1", headers)
    return request, connection.trailing_data[0]


def _talk(pieces: list[bytes], choice: int) -> Talk:
    """Do what the handler does, as far as no other part of a hub is needed for it."""
    fake = FakeSocket(pieces, stalls=bool(choice & 1))
    connection = HttpConnection(fake, HEADER_LIMITS[choice >> 1 & 3])  # type: ignore[arg-type]
    origins = ORIGINS[(choice >> 3) % len(ORIGINS)]
    talk = Talk([], "more", b"", [])
    for _ in range(MAX_REQUESTS):
        request: Request | None = None
        answer: Refusal | Response
        try:
            request = connection.read_request(SECONDS, SECONDS)
            talk.methods.append(request.method)
            decision = _decide(request, origins)
            _check_decision(decision)
            talk.label = type(decision).__name__
            talk.steps.append((request, decision))
            _look_for_token(request)
            if isinstance(decision, Join):
                behind = connection.upgrade(decision, SECONDS) + fake.rest()
                FrameDecoder(1000, 4).feed(behind)
                talk.steps.append(behind)
                break
            if isinstance(decision, Stream) and request.method == "GET":
                connection.start_stream(decision.headers, STREAM_START, SECONDS)
                break
            if isinstance(decision, Refusal):
                answer = decision
            else:
                headers = getattr(decision, "headers", ())
                body = b""
                if isinstance(decision, Publish):
                    body = connection.read_body(request, BODY_LIMIT, SECONDS, _no_place)
                    assert len(body) <= BODY_LIMIT
                    talk.steps.append(body)
                answer = Response(200, headers, body, "text/plain")
        except BadRequest as error:
            if error.refusal is None:
                talk.steps.append(None)
                break
            answer = error.refusal
            talk.steps.append(_BAD_HEADS if answer.status in _BAD_HEADS else answer.status)
            talk.label = str(answer.status)
        if isinstance(answer, Refusal):
            _check_refusal(answer)
        if not connection.answer(request, answer, SECONDS):
            break
    talk.sent = fake.sent
    return talk


def _decide(request: Request, origins: tuple[str, ...]) -> Decision:
    """Do as the handler does: who has sent it, is it for this hub, what does it want."""
    request = host_header.effective(request)
    try:
        client_of(request, PEER, PROXIES)
    except ValueError as error:
        return Refusal(400, f"bad header: {error}")
    return host_header.refuse(request, NAMES) or decide(request, origins, HISTORY)


def _look_for_token(request: Request) -> None:
    try:
        access.find_token(request)
    except ValueError as error:
        assert str(error)


def _check_decision(decision: Decision) -> None:
    room = getattr(decision, "room", None)
    if room is not None:
        check_room(room)
        assert not rules.has_control(room)
    name = getattr(decision, "name", None)
    if name is not None and not isinstance(decision, Asset):
        assert 0 < len(name) <= rules.MAX_NAME_CHARACTERS and not rules.has_control(name)
    assert 0 <= getattr(decision, "history", 0) <= HISTORY
    if isinstance(decision, Refusal):
        _check_refusal(decision)
    else:
        access.asked(decision)


def _check_refusal(refusal: Refusal) -> None:
    assert http.HTTPStatus(refusal.status) and 400 <= refusal.status < 600
    # What came is repeated in part only, each character of which may be ten when it is escaped.
    assert refusal.text and len(refusal.text) < 1000


def _check_answers(talk: Talk) -> None:
    """Take apart what went to the client; it must be answers, one behind the other, and no more."""
    methods = [*talk.methods]
    left = talk.sent
    while left:
        head, end, left = left.partition(b"\r\n\r\n")
        assert end, head
        first, *lines = head.split(b"\r\n")
        status_line = _STATUS_LINE.match(first)
        assert status_line, first
        status = int(status_line[1])
        headers: dict[str, str] = {}
        for line in lines:
            found = _HEADER_LINE.match(line)
            assert found, line
            name = found[1].decode("ascii")
            assert name in KNOWN_HEADERS and name not in headers, line
            headers[name] = found[2].decode("latin-1")
        if status == 100:
            continue
        method = methods.pop(0) if methods else None
        if status == 101:
            assert not left
            return
        if headers.get("Content-Type") == "text/event-stream":
            assert left == STREAM_START
            return
        length = int(headers["Content-Length"]) if status != 204 else 0
        if method == "HEAD":
            continue
        body, left = left[:length], left[length:]
        assert len(body) == length
        if headers.get("Content-Type") == "application/problem+json":
            problem = json.loads(body)
            assert problem["status"] == status and problem["detail"]
