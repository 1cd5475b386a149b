"""Strangers who take what they can get: one small function for each kind, over bare sockets.

``python -m tests.benchmarks.attackers '{"port": …, "kind": "who", "clients": 5}'`` prints a line
when it is ready, and another one when it was told to open its connections and has; then it is told
a number of seconds, attacks for so long, and prints as JSON what it has sent and what was answered.
One thread with non-blocking sockets drives all of them, so that a hub which makes one of them wait
has not stopped the others.

A kind is a function that gives the ``Line`` of each of its clients. All clients of a run come, as
the hub sees it, from one address: that in ``X-Forwarded-For``, which a hub with
``trust_proxy=127.0.0.1`` believes. So everybody else of a run may have another address.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import itertools
import json
import math
import os
import resource
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from ..support import BINARY, CLOSE, CONTINUATION, PING, TEXT, client_frame, upgrade_request

ADDRESS = "203.0.113.66"
# Where half of the idle members are; what is told to all of a room costs the most there.
CROWD = "/crowd"

NICENESS = 10
PIECE_BYTES = 64 * 1024
BURST_BYTES = 32 * 1024
MIB = 1024 * 1024
OPEN_SECONDS = 10.0
ANSWER_SECONDS = 20.0
# A connection that was refused or ended is opened again, not more often than this.
AGAIN_SECONDS = 0.02
LOOK_SECONDS = 0.01
HALF_OPEN = 60
MAX_ROOMS = 44

JSON_LINE = "Sec-WebSocket-Protocol: broadcast.v1.json"


@dataclasses.dataclass(slots=True)
class Burst:
    """Bytes that are sent in one go, and how many messages, events or requests they are."""

    data: bytes
    count: int = 1


@dataclasses.dataclass(slots=True)
class Line:
    """What one client does on its connection.

    Attributes:
        bursts: what it sends, one after the other; the connection stays open when they end.
        hello: what it sends first; what comes up to the first empty line is the answer to it.
            Empty: the bursts begin at once.
        reads: whether it reads what is answered.
        answer: bytes that show that one of its messages or requests was answered.
        receive_bytes: the size of the kernel's buffer; None for the usual one.
        early: this many answers are waited for before the attack begins.
        lasts: after so many seconds the connection is cut and opened again; None: not by itself.
    """

    bursts: Iterator[Burst]
    hello: bytes = b""
    reads: bool = True
    answer: bytes = b""
    receive_bytes: int | None = None
    early: int = 0
    lasts: float | None = None


@dataclasses.dataclass(slots=True)
class Tally:
    """What was sent and what came back."""

    sent: int = 0
    sent_bytes: int = 0
    answered: int = 0
    answered_bytes: int = 0
    opened: int = 0
    refused: int = 0
    ended: int = 0


Attack = Callable[[int], Iterable[Line]]


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One kind of attacker.

    Attributes:
        number: which number of the list of attacks it is an example of.
        words: what it does, for the table.
        lines: gives the connections of the client with this number.
        answered: whether the hub owes an answer to what it sends, so that there must be some.
    """

    name: str
    number: int
    words: str
    lines: Attack
    answered: bool = True


KINDS: dict[str, Kind] = {}


def kind(number: int, words: str, *, answered: bool = True) -> Callable[[Attack], Attack]:
    """Put a function into the table of kinds, under its name."""

    def put(lines: Attack) -> Attack:
        name = lines.__name__.replace("_", "-")
        KINDS[name] = Kind(name, number, words, lines, answered)
        return lines

    return put


# -- Bytes -----------------------------------------------------------------------------------------


def forwarded(address: str = ADDRESS) -> str:
    """Return the header line that says for whom a connection is made."""
    return f"X-Forwarded-For: {address}"


def upgrade(path: str, *headers: str) -> bytes:
    """Return an opening handshake of the attackers' address."""
    return upgrade_request(path, [forwarded(), *headers])


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    """Return a request of the attackers' address, after which the connection is kept open."""
    lines = [f"{line} HTTP/1.1", "Host: 127.0.0.1", forwarded(), *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def text(payload: str | bytes) -> bytes:
    """Return a text message as a client sends it."""
    return client_frame(TEXT, payload)


def many(frame: bytes, count: int = 1) -> Burst:
    """Return as many of a frame as make a burst.

    Args:
        count: how many messages one frame is.
    """
    times = max(1, BURST_BYTES // len(frame))
    return Burst(frame * times, times * count)


def for_ever(*bursts: Burst) -> Iterator[Burst]:
    """Give these again and again."""
    while True:
        yield from bursts


# -- Kinds: messages and events --------------------------------------------------------------------


@kind(3, "ordinary messages, as fast as they go", answered=False)
def ordinary(number: int) -> Iterable[Line]:
    """The measure of all others: who only sends may do no harm either."""
    yield Line(for_ever(many(text("x" * 64))), upgrade(f"/own-{number}"))


@kind(3, "the same as JSON events")
def events(number: int) -> Iterable[Line]:
    """With `echo`, so that something comes back; each has to be parsed."""
    frame = text(json.dumps({"type": "send", "data": "x" * 64}))
    hello = upgrade(f"/own-{number}?echo=1", JSON_LINE)
    yield Line(for_ever(many(frame)), hello, answer=b'"type":"message"')


@kind(3, "messages into the room of 500", answered=False)
def crowd(number: int) -> Iterable[Line]:
    """Each is delivered 500 times."""
    yield Line(for_ever(many(text("x" * 64))), upgrade(CROWD))


@kind(3, "POST requests, pipelined")
def posts(number: int) -> Iterable[Line]:
    """One request for each message."""
    post = request(f"POST /own-{number}", body=b"x" * 64)
    yield Line(for_ever(many(post)), answer=b"HTTP/1.1 ")


@kind(3, "one-byte fragments", answered=False)
def fragments(number: int) -> Iterable[Line]:
    """100 to a message."""
    frame = client_frame(TEXT, b"x", fin=False) + client_frame(CONTINUATION, b"x", fin=False) * 98
    frame += client_frame(CONTINUATION, b"x")
    yield Line(for_ever(many(frame)), upgrade(f"/own-{number}"))


@kind(1, "renames in the room of 500 JSON members")
def renames(number: int) -> Iterable[Line]:
    """Each is told to 500."""
    frame = text('{"type":"name","name":"0"}') + text('{"type":"name","name":"1"}')
    yield Line(for_ever(many(frame, 2)), upgrade(CROWD, JSON_LINE), answer=b'"type":"rename"')


@kind(1, "joining and leaving the room of 500 JSON members")
def joins(number: int) -> Iterable[Line]:
    """Each of both is told to 500; a client does it with ten connections."""
    goodbye = Burst(client_frame(CLOSE, b"\x03\xe8"))
    for _ in range(10):
        yield Line(iter([goodbye]), upgrade(CROWD, JSON_LINE), answer=b'"type":"welcome"')


@kind(2, "`who`, each alone in a room")
def who(number: int) -> Iterable[Line]:
    """A short question with a short answer."""
    frame = text('{"type":"who"}')
    yield Line(
        for_ever(many(frame)), upgrade(f"/own-{number}", JSON_LINE), answer=b'"type":"members"'
    )


@kind(2, "`who` in the room of 500")
def who_crowd(number: int) -> Iterable[Line]:
    """A short question with a long answer."""
    frame = text('{"type":"who"}')
    yield Line(for_ever(many(frame)), upgrade(CROWD, JSON_LINE), answer=b'"type":"members"')


@kind(2, "messages with a `ref`: acknowledgements")
def acks(number: int) -> Iterable[Line]:
    """Each alone in a room."""
    frame = text('{"type":"send","data":"x","ref":1}')
    yield Line(for_ever(many(frame)), upgrade(f"/own-{number}", JSON_LINE), answer=b'"type":"ack"')


@kind(2, "pings")
def pings(number: int) -> Iterable[Line]:
    """Each wants a pong."""
    yield Line(
        for_ever(many(client_frame(PING, b"12345678"))),
        upgrade(f"/own-{number}"),
        answer=b"\x8a\x0812345678",
    )


@kind(2, "events that are errors")
def errors(number: int) -> Iterable[Line]:
    """Nine of them and a good one, since ten end the connection."""
    frame = text("{}") * 9 + text('{"type":"who"}')
    yield Line(
        for_ever(many(frame, 10)), upgrade(f"/own-{number}", JSON_LINE), answer=b'"type":"error"'
    )


@kind(16, "messages with a new key each")
def keys(number: int) -> Iterable[Line]:
    """The hub remembers each for ten minutes."""

    def bursts() -> Iterator[Burst]:
        count = 0
        while True:
            frames = []
            for _ in range(250):
                count += 1
                event = {"type": "send", "data": "x", "ref": 1, "key": f"{number}-{count}"}
                frames.append(text(json.dumps(event)))
            yield Burst(b"".join(frames), len(frames))

    yield Line(bursts(), upgrade(f"/own-{number}", JSON_LINE), answer=b'"type":"ack"')


# -- Kinds: large events and messages --------------------------------------------------------------


@functools.cache
def large_event(head: str, middle: str, tail: str, size: int = 6 * MIB) -> Burst:
    """Return an event in a frame of about that size."""
    times = (size - len(head) - len(tail)) // len(middle)
    return Burst(text(head + middle * times + tail))


@kind(4, "an event of 6 MiB of empty lists")
def lists(number: int) -> Iterable[Line]:
    """Each two bytes make an object."""
    burst = large_event('{"type":"who","x":[[]', ",[]", "]}")
    yield Line(for_ever(burst), upgrade(f"/own-{number}", JSON_LINE), answer=b'{"type":')


@functools.cache
def large_object() -> Burst:
    """Return an event with very many members."""
    return Burst(text(json.dumps({"type": "who", **{str(name): 0 for name in range(480_000)}})))


@kind(4, "an event of 6 MiB of members")
def members(number: int) -> Iterable[Line]:
    """All of an object's names are different, as far as that goes."""

    yield Line(for_ever(large_object()), upgrade(f"/own-{number}", JSON_LINE), answer=b'{"type":')


@kind(4, "a `ref` of 6 MB")
def refs(number: int) -> Iterable[Line]:
    """It is scanned for control characters."""
    burst = large_event('{"type":"who","ref":"', "x", '"}', 6_000_000)
    yield Line(for_ever(burst), upgrade(f"/own-{number}", JSON_LINE), answer=b'"type":"error"')


@kind(4, "40 half messages of 6 MiB, each on a connection of its own", answered=False)
def halves(number: int) -> Iterable[Line]:
    """Nothing says that the other half ever comes."""
    frame = text("x" * (6 * MIB))
    half = Burst(frame[: len(frame) // 2])
    for count in range(40):
        yield Line(iter([half]), upgrade(f"/own-{number}-{count}", JSON_LINE))


@kind(4, "an event of 6 MiB whose one MiB of data is escaped")
def escapes(number: int) -> Iterable[Line]:
    """The most that a message may be, in its longest form."""
    burst = large_event('{"type":"send","ref":1,"data":"', "\\u0001", '"}', 6 * MIB)
    yield Line(for_ever(burst), upgrade(f"/own-{number}", JSON_LINE), answer=b'"type":"ack"')


def with_reader(number: int, payload: bytes, accept: str, query: str = "") -> Iterator[Line]:
    """Give a sender of a large message, and a reader of its room as server-sent events."""
    room = f"/own-{number}"
    hello = request(f"GET {room}{query}", f"Accept: {accept}")
    yield Line(iter(()), hello, answer=b"\nid: ")
    yield Line(for_ever(Burst(text(payload))), upgrade(room))


@kind(5, "1 MiB of line feeds to a reader of server-sent events")
def feeds(number: int) -> Iterable[Line]:
    """Each makes a line of its own."""
    return with_reader(number, b"\n" * MIB, "text/event-stream")


@kind(5, "1 MiB of control characters to a reader of JSON events")
def controls(number: int) -> Iterable[Line]:
    """Each of them makes six bytes."""
    return with_reader(number, b"\x01" * MIB, "text/event-stream", "?format=json")


@kind(5, "1 MiB of bytes to a reader of server-sent events")
def base64s(number: int) -> Iterable[Line]:
    """They are sent on in base64."""
    lines = list(with_reader(number, b"", "text/event-stream"))
    lines[1].bursts = for_ever(Burst(client_frame(BINARY, b"\xff" * MIB)))
    return lines


# -- Kinds: requests -------------------------------------------------------------------------------


def requests(one: bytes) -> Iterator[Line]:
    """Give a client that asks the same again and again."""
    yield Line(for_ever(many(one)), answer=b"HTTP/1.1 ")


@kind(6, "GET with 15,000 parameters")
def parameters(number: int) -> Iterable[Line]:
    """The page needs no token."""
    return requests(request("GET /?" + "&" * 15_000))


@kind(6, "GET with 3,750 named parameters")
def named_parameters(number: int) -> Iterable[Line]:
    """None of them is empty, and each has an escape where it can."""
    return requests(request("GET /?" + "a=1&" * 3_750))


@kind(6, "GET with an `Accept` list of 3,700")
def accepts(number: int) -> Iterable[Line]:
    """Each element could be asked for."""
    return requests(request("GET /", "Accept: " + ",".join(["a/b"] * 3_700)))


@kind(6, "GET for the metrics with such a list of 1,500")
def metrics(number: int) -> Iterable[Line]:
    """Another path, that works out itself what is wanted."""
    return requests(request("GET /metrics", "Accept: " + ",".join(["a/b;q=0.1"] * 1_500)))


@kind(6, "GET with 1,000 addresses in `X-Forwarded-For`")
def proxies(number: int) -> Iterable[Line]:
    """All but the first are those of a listed proxy, so the hub must look at all of them."""
    return requests(
        request("GET /").replace(ADDRESS.encode(), ADDRESS.encode() + b",127.0.0.1" * 1_000)
    )


@kind(6, "upgrades that offer 5,000 subprotocols")
def subprotocols(number: int) -> Iterable[Line]:
    """The version is wrong, so each is refused and the next one can follow."""
    one = upgrade("/", "Sec-WebSocket-Protocol: " + ",".join(["ab"] * 5_000))
    return requests(one.replace(b"Version: 13", b"Version: 8"))


@kind(6, "GET with a head of 4,000 lines")
def heads(number: int) -> Iterable[Line]:
    """Above what h11 was made for, and below the limit of bytes."""
    return requests(request("GET /", *["a:"] * 3_900))


@kind(6, "the list of all rooms and members")
def rooms_listed(number: int) -> Iterable[Line]:
    """A short request with a long answer."""
    return requests(request("GET /-/rooms"))


# -- Kinds: connections and answers that are not read ----------------------------------------------


@kind(7, f"{HALF_OPEN} half requests for each client", answered=False)
def half_open(number: int) -> Iterable[Line]:
    """Together they take all places."""
    for _ in range(HALF_OPEN):
        yield Line(iter([Burst(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")]))


def fill(room: str, size: int, count: int) -> Iterator[Burst]:
    """Give requests that fill a room's log."""
    post = Burst(request(f"POST {room}", body=b"\x01" * size))
    for _ in range(count):
        yield post


@kind(7, f"{HALF_OPEN} blocked answers for each client")
def blocked(number: int) -> Iterable[Line]:
    """They ask for what does not fit into the kernel's buffers, and do not read it."""
    yield Line(fill(f"/own-{number}", MIB, 7), answer=b"HTTP/1.1 200", early=7)
    ask = request(f"GET /own-{number}?history=100", "Accept: application/json")
    for _ in range(HALF_OPEN):
        yield Line(iter([Burst(ask)]), reads=False, receive_bytes=4096)


@kind(7, f"{HALF_OPEN} refused bodies for each client", answered=False)
def lingering(number: int) -> Iterable[Line]:
    """They go on sending after the answer, and the hub reads a while so that it arrives."""
    head = request(f"POST /own-{number}", "Content-Length: 100000000")
    for _ in range(HALF_OPEN):
        yield Line(iter([Burst(head), *[Burst(b"x" * 1000, 0)] * 3]), reads=False, lasts=1.5)


@kind(11, "16 times `history=100` as JSON, not read")
def histories(number: int) -> Iterable[Line]:
    """80 bytes ask for 48 MiB, with control characters in each message."""
    yield Line(fill(f"/own-{number}", 80 * 1024, 100), answer=b"HTTP/1.1 200", early=100)
    ask = request(f"GET /own-{number}?history=100", "Accept: application/json")
    for _ in range(16):
        yield Line(iter([Burst(ask * 10, 10)]), reads=False, receive_bytes=4096)


@kind(13, "20 members for each client that do not read", answered=False)
def deaf(number: int) -> Iterable[Line]:
    """The kernel keeps for each what fits into its buffers."""
    room = f"/own-{number}"
    for _ in range(20):
        yield Line(iter(()), upgrade(room), reads=False, receive_bytes=4096)
    yield Line(for_ever(Burst(text("x" * 16_384))), upgrade(room))


@kind(2, "`who` in the room of 500, answers not read", answered=False)
def who_unread(number: int) -> Iterable[Line]:
    """What waits for a client is bounded; it is cut off when nothing goes out."""
    frame = text('{"type":"who"}')
    yield Line(for_ever(many(frame)), upgrade(CROWD, JSON_LINE), reads=False, receive_bytes=4096)


# -- Kinds: rooms ----------------------------------------------------------------------------------


@kind(12, "16 rooms filled with control characters, read in four forms")
def forms(number: int) -> Iterable[Line]:
    """The newest message of each may be kept in all forms."""
    for room in (f"/own-{number}-{count}" for count in range(16)):
        yield Line(iter(()), upgrade(room, JSON_LINE))
        yield Line(iter(()), request(f"GET {room}", "Accept: text/event-stream"))
        yield Line(iter(()), request(f"GET {room}?format=json", "Accept: text/event-stream"))
        yield Line(fill(room, MIB, 2), answer=b"HTTP/1.1 200")


@kind(18, f"{MAX_ROOMS} empty rooms filled")
def rooms(number: int) -> Iterable[Line]:
    """Others' empty rooms may not lose their messages for that."""

    def bursts() -> Iterator[Burst]:
        for count in itertools.cycle(range(MAX_ROOMS)):
            yield from fill(f"/own-{number}-{count}", MIB, 8)

    yield Line(bursts(), answer=b"HTTP/1.1 200")


# -- The loop --------------------------------------------------------------------------------------


class Connection:
    """One connection of a client, open or to be opened again.

    Args:
        line: what it does.
        tally: where it counts.
    """

    def __init__(self, line: Line, tally: Tally, make: Callable[[], Line]) -> None:
        self.line = line
        self.make = make
        self.tally = tally
        self.sock: socket.socket | None = None
        self.joined = False
        self.next_open = 0.0
        self._answers = 0
        self._ends = 0.0
        self._out = memoryview(b"")
        self._count = 0
        self._head = b""
        self._tail = b""

    def is_ready(self) -> bool:
        """Whether all is done that comes before the attack."""
        return self.sock is not None and self.joined and self._answers >= self.line.early

    def is_over(self, now: float) -> bool:
        """Whether it has lasted long enough."""
        return self.sock is not None and now >= self._ends

    def open(self, port: int) -> None:
        """Begin to connect."""
        self.sock = sock = socket.socket()
        sock.setblocking(False)
        if self.line.receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.line.receive_bytes)
        code = sock.connect_ex(("127.0.0.1", port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        self.tally.opened += 1
        self._out, self._count = memoryview(self.line.hello), 0
        self._head = self._tail = b""
        self.joined = not self.line.hello
        self._answers = 0
        self._ends = math.inf
        if self.line.lasts is not None:
            self._ends = time.monotonic() + self.line.lasts

    def close(self) -> None:
        """End the connection without a word."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def events(self, attacking: bool) -> int:
        """Return what it waits for."""
        waits = 0
        if self.line.reads or not self.joined:
            waits |= selectors.EVENT_READ
        attacking = attacking or self.line.early > 0
        if self._out or (attacking and self.joined and self._more()):
            waits |= selectors.EVENT_WRITE
        return waits

    @property
    def has_more(self) -> bool:
        """Whether there are bytes to be sent."""
        return bool(self._out)

    def _more(self) -> bool:
        burst = next(self.line.bursts, None)
        if burst is None:
            return False
        self._out, self._count = memoryview(burst.data), burst.count
        return True

    def write(self) -> None:
        """Send a piece; OSError when the connection has ended."""
        assert self.sock is not None
        with contextlib.suppress(BlockingIOError):
            sent = self.sock.send(self._out[:PIECE_BYTES])
            self.tally.sent_bytes += sent
            self._out = self._out[sent:]
            if not self._out:
                self.tally.sent += self._count
                self._count = 0

    def read(self) -> bool:
        """Read a piece and count the answers in it; return False when the connection has ended."""
        assert self.sock is not None
        try:
            data = self.sock.recv(4 * PIECE_BYTES if self.joined else 1024)
        except BlockingIOError:
            return True
        if not data:
            return False
        self.tally.answered_bytes += len(data)
        if not self.joined:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return True
            if head.split(b" ", 2)[1] not in (b"101", b"200"):
                self.tally.refused += 1
                return False
            self.joined = True
        answer = self.line.answer
        if answer:
            data = self._tail + data
            found = data.count(answer)
            self._answers += found
            self.tally.answered += found
            # An answer that was cut in two is found with the next piece, and none twice.
            self._tail = data[max(data.rfind(answer) + len(answer), len(data) - len(answer) + 1) :]
        return True

    def again(self) -> None:
        """Begin from the start."""
        self.close()
        self.joined = False
        self.line = self.make()
        self.next_open = time.monotonic() + AGAIN_SECONDS


class Attackers:
    """All clients of a run, on one thread."""

    def __init__(self, port: int, found: Kind, clients: int) -> None:
        self.tally = Tally()
        self._port = port
        self._connections = [
            Connection(line, self.tally, self._maker(found, number, place))
            for number in range(clients)
            for place, line in enumerate(found.lines(number))
        ]
        self._selector = selectors.DefaultSelector()

    @staticmethod
    def _maker(found: Kind, number: int, place: int) -> Callable[[], Line]:
        def make() -> Line:
            return list(found.lines(number))[place]

        return make

    def join(self) -> None:
        """Open all connections, and wait until those that join a room have; for a bounded time."""
        self._turn(OPEN_SECONDS, lambda: all(one.is_ready() for one in self._connections))

    def attack(self, seconds: float) -> None:
        """Send for so long, and read."""
        self._turn(seconds, lambda: False, attacking=True)

    def listen(self) -> None:
        """Wait for a first answer, if there was none yet; for a bounded time."""
        tally = self.tally
        self._turn(ANSWER_SECONDS, lambda: tally.answered > 0 or tally.ended > 0)

    def close(self) -> None:
        """End all connections."""
        self._selector.close()
        for connection in self._connections:
            connection.close()

    def _turn(
        self, seconds: float, is_done: Callable[[], bool], *, attacking: bool = False
    ) -> None:
        deadline = time.monotonic() + seconds
        while (now := time.monotonic()) < deadline and not is_done():
            for connection in self._connections:
                if connection.is_over(now):
                    self._end(connection)
                if connection.sock is None and now >= connection.next_open:
                    self._open(connection)
                if connection.sock is not None:
                    self._wait(connection, attacking)
            # A look at all connections is not needed more often.
            until = now + LOOK_SECONDS
            while time.monotonic() < until:
                for key, events in self._selector.select(LOOK_SECONDS):
                    self._serve(key.data, events, attacking)

    def _open(self, connection: Connection) -> None:
        try:
            connection.open(self._port)
        except OSError:
            self.tally.ended += 1
            connection.again()
            return
        assert connection.sock is not None
        self._selector.register(connection.sock, selectors.EVENT_WRITE, connection)

    def _wait(self, connection: Connection, attacking: bool) -> None:
        """Let the selector look for what a connection waits for."""
        sock = connection.sock
        assert sock is not None
        wanted = connection.events(attacking)
        known = self._selector.get_map().get(sock)
        if known is not None and known.events == wanted:
            return
        if known is not None:
            self._selector.unregister(sock)
        if wanted:
            self._selector.register(sock, wanted, connection)

    def _serve(self, connection: Connection, events: int, attacking: bool) -> None:
        if connection.sock is None:
            return
        alive = True
        try:
            if events & selectors.EVENT_READ:
                alive = connection.read()
            if alive and events & selectors.EVENT_WRITE and connection.has_more:
                connection.write()
        except OSError:
            alive = False
        if alive:
            self._wait(connection, attacking)
            return
        self._end(connection)

    def _end(self, connection: Connection) -> None:
        self.tally.ended += 1
        assert connection.sock is not None
        with contextlib.suppress(KeyError):
            self._selector.unregister(connection.sock)
        connection.again()


def raise_descriptor_limit() -> None:
    """Let this process open as many descriptors as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Attack as the arguments say, for as long as a line of standard input says."""
    os.nice(NICENESS)
    raise_descriptor_limit()
    options = json.loads(sys.argv[1])
    attackers = Attackers(options["port"], KINDS[options["kind"]], options["clients"])
    print("ready", flush=True)
    try:
        if not sys.stdin.readline():
            return
        attackers.join()
        print("joined", flush=True)
        if line := sys.stdin.readline():
            attackers.attack(float(line))
            if KINDS[options["kind"]].answered:
                attackers.listen()
            print(json.dumps(dataclasses.asdict(attackers.tally)), flush=True)
            # The connections stay until everybody has measured what came of it.
            sys.stdin.readline()
    finally:
        attackers.close()


if __name__ == "__main__":
    main()
