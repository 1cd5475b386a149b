"""Writing to one client: what goes out in which order, wherever its socket stops taking bytes."""

from __future__ import annotations

import errno
import itertools
import selectors
import socket
from collections.abc import Iterator

import pytest

from broadcast_server.hub.delivery import writer
from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.delivery.timers import Timers
from broadcast_server.hub.delivery.writer import (
    BATCH_BYTES,
    MAX_BATCHES,
    MAX_PIECES,
    SEND_COST_BYTES,
    ClientWriter,
)
from broadcast_server.hub.rooms.encodings import RAW, SSE, Form
from broadcast_server.hub.rooms.entries import Draft, cost_of
from broadcast_server.hub.rooms.room import Room
from broadcast_server.messages import Member
from broadcast_server.settings import Settings
from broadcast_server.wire import frames

from ...support.inside import appointments_in, batches_of

PING = frames.encode_frame(frames.PING, b"")
BIG = 1 << 20


class Clock:
    """A clock that stands still, in the place of ``time`` in hub/delivery/writer.py."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Endless:
    """As if there were memory for everything."""

    def make_place(self, room: Room[Connection], size: int) -> bool:
        return True

    def count_forms(self, room: Room[Connection]) -> None:
        pass


class Case:
    """A writer, a room and its clients over socket pairs."""

    def __init__(self) -> None:
        self.room = Room("/r", (0, 0), 64 << 20)
        self.timers = Timers()
        self.selector = selectors.DefaultSelector()
        self.told: list[list[Connection]] = []
        self.writer = ClientWriter(
            Settings(),
            self.selector,
            self.timers,
            lambda room, told: self.told.append(told),
        )
        self.writer.memory = Endless()
        self._numbers = itertools.count(1)
        self.sockets: list[socket.socket] = []

    def client(self, *, echo: bool = False, form: Form = RAW) -> tuple[Connection, socket.socket]:
        """Return a client that was handed over, and its peer's socket."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(10)
        self.sockets += [ours, theirs]
        number = next(self._numbers)
        member = Member(f"c{number}", None, "/r", "x")
        connection = Connection(number, member, self.room, ours, echo=echo, form=form)
        self.room.join(connection, 0, None)
        connection.share()
        self.writer.connections[connection] = None
        self.room.behind[connection] = None
        self.writer.attend(connection)
        return connection, theirs

    def publish(self, *messages: tuple[int, bytes]) -> bytes:
        """Publish (origin, payload) and let it be offered; return all frames."""
        drafts = [Draft(o, frames.encode_frame(frames.BINARY, data)) for o, data in messages]
        assert self.room.reserve(cost_of(drafts), None, lambda: False)
        self.room.append(drafts, 1, self.room.head)
        self.room.mark_offered(self.room.head)
        return b"".join(draft.frame for draft in drafts)

    def drain(self, connection: Connection, theirs: socket.socket, size: int) -> bytes:
        """Read so many bytes, serving the client whenever its socket takes more."""
        data = bytearray()
        while len(data) < size:
            for key, _ in self.selector.select(0):
                self.writer.go_on(key.data)
            self.writer.attend(connection)
            data += theirs.recv(min(65536, size - len(data)))
        return bytes(data)


@pytest.fixture
def case() -> Iterator[Case]:
    found = Case()
    yield found
    found.selector.close()
    for sock in found.sockets:
        sock.close()


def nothing_comes(theirs: socket.socket) -> bool:
    """Tell whether nothing more was sent."""
    theirs.setblocking(False)
    try:
        return theirs.recv(1) == b"never"
    except BlockingIOError:
        return True
    finally:
        theirs.settimeout(10)


def test_client_that_has_everything_is_in_step(case: Case) -> None:
    """And leaves the step when something personal comes, until that is sent."""
    connection, theirs = case.client()
    assert connection in case.room.in_step[RAW] and connection.plain
    connection.queue(b"\x81\x01p")
    case.writer.attend(connection)
    assert theirs.recv(10) == b"\x81\x01p"
    assert connection in case.room.in_step[RAW] and connection.plain


def test_nobody_gets_in_step_in_the_middle_of_a_pass(case: Case) -> None:
    """It would get what the pass is giving to those in step a second time, or not at all."""
    connection, _ = case.client()
    case.writer.fall_behind(connection)
    case.writer.passing.add(case.room)
    case.writer.attend(connection)
    assert connection not in case.room.in_step[RAW]
    case.writer.passing.clear()
    case.writer.attend(connection)
    assert connection in case.room.in_step[RAW]


def test_personal_frame_keeps_its_place(case: Case) -> None:
    """After what was published before it, before what was published later."""
    connection, theirs = case.client()
    case.writer.fall_behind(connection)
    first = case.publish((0, b"first"))
    connection.queue(b"\x81\x01p")
    second = case.publish((0, b"second"))
    case.writer.attend(connection)
    assert theirs.recv(100) == first + b"\x81\x01p" + second


def test_pong_goes_before_what_waits_but_never_into_a_frame(case: Case) -> None:
    """RFC 6455 §5.4: at the boundary after the frame in progress."""
    connection, theirs = case.client()
    case.writer.fall_behind(connection)
    big = case.publish((0, bytes(BIG)))
    later = case.publish((0, b"later"))
    case.writer.attend(connection)
    assert connection.blocked and connection.rest is not None
    connection.queue_urgent(PING)
    case.writer.attend(connection)
    expected = big + PING + later
    assert case.drain(connection, theirs, len(expected)) == expected


def test_close_comes_after_everything(case: Case) -> None:
    """What was queued before it is sent; once the peer's has come the stream ends."""
    connection, theirs = case.client()
    case.writer.fall_behind(connection)
    big = case.publish((0, bytes(BIG)))
    connection.queue_close(1000, "bye")
    case.publish((0, b"too late"))
    case.writer.attend(connection)
    expected = big + frames.encode_close(1000, "bye")
    assert case.drain(connection, theirs, len(expected)) == expected
    assert nothing_comes(theirs)
    assert connection.close_sent and connection.deadline is not None
    case.writer.attend(connection)
    assert nothing_comes(theirs)
    connection.peer_closed = True
    case.writer.attend(connection)
    assert theirs.recv(1) == b""


def test_answer_to_a_close_ends_the_stream_at_once(case: Case) -> None:
    """Both have closed then; also where the socket was full when the peer's Close came."""
    connection, theirs = case.client()
    case.writer.fall_behind(connection)
    big = case.publish((0, bytes(BIG)))
    case.writer.attend(connection)
    assert connection.blocked
    connection.peer_closed = True
    connection.queue_close(1000, "", echo_code=1000)
    case.writer.attend(connection)
    expected = big + frames.encode_close(1000)
    assert case.drain(connection, theirs, len(expected)) == expected
    assert theirs.recv(1) == b""


def test_stream_of_events_ends_behind_its_last_words(case: Case) -> None:
    """A reader says nothing, so there is nothing to wait for."""
    connection, theirs = case.client(form=SSE)
    connection.queue_close(1001, "the hub stops")
    case.writer.attend(connection)
    with theirs.makefile("rb") as stream:
        assert stream.read().strip().startswith(b"retry: ")


def test_evicted_client_gets_its_frame_to_the_end_and_the_id_to_resume_from(case: Case) -> None:
    """Half a frame and then a Close would be no protocol; what came later is left out."""
    connection, theirs = case.client()
    case.writer.fall_behind(connection)
    before = case.publish((0, b"before"))
    big = case.publish((0, bytes(BIG)))
    case.publish((0, b"lost"))
    case.writer.attend(connection)
    connection.queue_urgent(PING)
    case.writer.evict_slow(connection)
    expected = before + big + frames.encode_close(1013, "since=1-1")
    assert case.drain(connection, theirs, len(expected)) == expected
    assert nothing_comes(theirs)
    assert (connection.end_code, case.writer.evictions) == (1013, 1)
    assert connection.number not in case.room.members


def test_evicted_client_that_reads_slowly_is_given_no_more_than_a_bounded_time(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part that it takes gives it more time, but never beyond the hard deadline."""
    clock = Clock()
    monkeypatch.setattr(writer, "time", clock)
    settings = Settings()
    connection, theirs = case.client()
    case.publish((0, bytes(4 * BIG)))
    case.writer.attend(connection)
    case.writer.evict_slow(connection)
    last = clock.now + settings.close_timeout + settings.write_timeout
    deadlines = []
    while clock.now < last:
        assert connection.blocked and connection.deadline is not None
        deadlines.append(connection.deadline)
        clock.now += settings.close_timeout / 2
        # Enough for the kernel to take more at once, and far less than what waits.
        sent = case.writer.bytes_out
        while case.writer.bytes_out == sent:
            theirs.recv(65536)
            case.writer.go_on(connection)
    assert deadlines[0] < deadlines[1] and max(deadlines) == deadlines[-1] == last


@pytest.mark.parametrize("echo", [False, True])
def test_own_messages_are_left_out(case: Case, echo: bool) -> None:
    """Unless the client wants them, also where its socket stops in the middle."""
    connection, theirs = case.client(echo=echo)
    case.writer.fall_behind(connection)
    own = connection.number
    messages = [(own if n % 3 else 0, bytes([n]) * 70_000) for n in range(12)]
    case.publish(*messages)
    case.writer.attend(connection)
    expected = b"".join(
        frames.encode_frame(frames.BINARY, data)
        for origin, data in messages
        if echo or origin != own
    )
    assert case.drain(connection, theirs, len(expected)) == expected
    assert nothing_comes(theirs)
    assert connection.cursor == case.room.head
    assert case.writer.deliveries == (12 if echo else 4)
    assert case.writer.bytes_out == len(expected)


def test_many_slices_are_joined(case: Case) -> None:
    """More pieces than the kernel takes in one call."""
    connection, theirs = case.client()
    case.writer.fall_behind(connection)
    own = connection.number
    case.publish(*[(own if n % 2 else 0, b"x") for n in range(4 * MAX_PIECES)])
    sends = case.writer.sends
    case.writer.attend(connection)
    expected = frames.encode_frame(frames.BINARY, b"x") * (2 * MAX_PIECES)
    assert case.drain(connection, theirs, len(expected)) == expected
    assert case.writer.sends == sends + 1


def test_clients_at_one_place_share_a_batch(case: Case) -> None:
    """Joined once for all; forgotten at the end of the turn, and never too many at once."""
    clients = [case.client() for _ in range(5)]
    expected = case.publish((0, b"a"), (0, b"b"))
    for connection, theirs in clients:
        case.writer.fall_behind(connection)
        case.writer.attend(connection)
        assert theirs.recv(100) == expected
    assert case.writer.joins == 1
    case.writer.end_turn()
    assert batches_of(case.writer) == {}
    case.publish(*[(0, b"x")] * (MAX_BATCHES + 5))
    for number in range(MAX_BATCHES + 5):
        case.writer.batch(case.room, number, number + 1)
    assert len(batches_of(case.writer)) <= MAX_BATCHES


def test_full_socket_is_watched_only_while_it_is_full(case: Case) -> None:
    """With a time by which it must have taken something."""
    connection, theirs = case.client()
    case.writer.fall_behind(connection)
    data = case.publish((0, bytes(BIG)))
    case.writer.attend(connection)
    assert list(case.selector.get_map()) == [connection.sock.fileno()]
    assert connection.due == connection.blocked_since + Settings().write_timeout
    assert case.drain(connection, theirs, len(data)) == data
    for key, _ in case.selector.select(0):
        case.writer.go_on(key.data)
    assert not connection.blocked and list(case.selector.get_map()) == []


def test_many_tiny_frames_do_not_hold_up_the_others(case: Case) -> None:
    """Each send counts, whatever its size: one client's turn is over after 16 of them."""
    connection, theirs = case.client()
    frame = frames.encode_frame(frames.BINARY, b"")
    expected = b""
    for number in range(100):
        connection.queue(frame)
        expected += frame + case.publish((0, b"%d" % number))
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BIG)
    case.writer.sends = 0
    assert case.writer.serve(connection)
    assert case.writer.sends == BATCH_BYTES // SEND_COST_BYTES == 16
    assert case.writer.spent >= BATCH_BYTES
    assert case.drain(connection, theirs, len(expected)) == expected


def test_frames_that_go_out_at_one_place_go_out_together(case: Case) -> None:
    """1,000 acknowledgements are a few sends, and a Close behind them is the end."""
    connection, theirs = case.client()
    frame = frames.encode_frame(frames.BINARY, bytes(100))
    for _ in range(1000):
        connection.queue(frame)
    connection.queue_close(1000, "")
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BIG)
    case.writer.sends = 0
    assert not case.writer.serve(connection)
    assert case.writer.sends <= len(frame) * 1000 // SEND_COST_BYTES + 1 and connection.close_sent
    expected = frame * 1000 + frames.encode_close(1000, "")
    assert case.drain(connection, theirs, len(expected)) == expected


def test_look_that_finds_a_full_socket_is_no_progress(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write time-out runs from when it last took something."""
    clock = Clock()
    monkeypatch.setattr(writer, "time", clock)
    connection, _ = case.client()
    case.publish((0, bytes(8 * BIG)))
    case.writer.attend(connection)
    assert connection.blocked and connection.blocked_since == clock.now
    began, clock.now = clock.now, clock.now + 5
    case.writer.go_on(connection)
    assert connection.blocked and connection.blocked_since == began


def test_socket_that_cannot_be_watched_is_lost_alone(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's limit of watched sockets ends one client, not the thread that writes to all."""
    connection, _ = case.client()
    other, theirs = case.client()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    data = case.publish((0, bytes(BIG)))
    with monkeypatch.context() as patch:
        patch.setattr(case.selector, "register", fail)
        case.writer.attend(connection)
    assert connection.dropped and connection not in case.room.behind
    assert case.drain(other, theirs, len(data)) == data


def test_dropped_client_holds_nothing_that_waited_for_it(case: Case) -> None:
    """Neither the rest of a message that it has half taken nor what was for it alone: the timers
    may keep it until its ping would have been due."""
    connection, _ = case.client()
    case.publish((0, bytes(BIG)))
    case.writer.attend(connection)
    assert connection.rest is not None
    for number in range(10):
        assert connection.queue(frames.encode_frame(frames.BINARY, bytes([number]) * 1000))
    assert connection.queue_urgent(PING)
    case.writer.drop(connection)
    assert (connection.rest, connection.personal, connection.urgent) == (None, None, [])
    assert connection.personal_bytes == 0
    assert connection.queue(PING) is None
    assert connection in appointments_in(case.timers)


def test_lost_client_is_dropped_and_its_socket_closed_by_the_last(case: Case) -> None:
    """The peer has gone: no error, no descriptor, no watch left behind."""
    connection, theirs = case.client()
    case.writer.fall_behind(connection)
    case.publish((0, bytes(BIG)))
    case.writer.attend(connection)
    theirs.close()
    for _ in range(10):
        for key, _mask in case.selector.select(1):
            case.writer.go_on(key.data)
        if connection.dropped:
            break
    assert connection.dropped and connection not in case.writer.connections
    assert list(case.selector.get_map()) == []
    assert connection.sock.fileno() >= 0  # the reader's share
    case.writer.reader_left(connection)
    case.writer.drop(connection)
    assert connection.sock.fileno() >= 0  # the fan-out's share was given back once only
    connection.release()
    assert connection.sock.fileno() == -1


def test_reader_that_ends_before_our_close_is_sent_leaves_time_for_it(case: Case) -> None:
    """A peer that half-closes right after its Close still reads the answer."""
    connection, theirs = case.client()
    case.writer.fall_behind(connection)
    big = case.publish((0, bytes(BIG)))
    connection.queue_close(1000, "", echo_code=1000)
    case.writer.attend(connection)
    case.writer.reader_left(connection)
    assert not connection.dropped and connection.deadline is not None
    expected = big + frames.encode_close(1000)
    assert case.drain(connection, theirs, len(expected)) == expected
    assert connection.dropped
