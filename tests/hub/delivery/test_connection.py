"""The fan-out's half of a client: what is taken for sending, and who closes the socket."""

from __future__ import annotations

import queue
import socket
import time
from collections import deque
from collections.abc import Iterator

import pytest

from broadcast_server.hub.delivery.connection import MAX_WAITING_PONGS, Connection
from broadcast_server.hub.rooms.entries import ENTRY_BYTES, Draft, cost_of
from broadcast_server.hub.rooms.room import Room
from broadcast_server.hub.rooms.subscriber import MAX_PRESENCE_BYTES
from broadcast_server.hub.rooms.waiters import Bells
from broadcast_server.messages import Member
from broadcast_server.wire import frames

from ...support import wait_until
from ...support.beside import during

Pair = tuple[Connection, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A client that is a member of a room, and the other end of its socket."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    room = Room("/r", (0, 0), 1 << 20)
    connection = Connection(1, Member("c1", None, "/r", "x"), room, ours, echo=False)
    room.join(connection, 0, None)
    with ours, theirs:
        yield connection, theirs


def publish(room: Room) -> None:
    """Let the room's log grow by one message."""
    drafts = [Draft(0, b"x")]
    room.reserve(cost_of(drafts), None, lambda: False)
    room.append(drafts, 1, 0)


def test_personal_frames_keep_their_place_among_the_messages(pair: Pair) -> None:
    """Each is stamped with the head that it follows."""
    connection, _ = pair
    connection.queue(b"a")
    publish(connection.room)
    connection.queue(b"b")
    assert connection.personal is not None
    assert [(stamp, frame) for stamp, frame, _ in connection.personal] == [(0, b"a"), (1, b"b")]
    connection.take_personal()
    assert connection.rest is not None and bytes(connection.rest) == b"a"
    assert (connection.rest_is_close, connection.personal_bytes) == (False, 1 + ENTRY_BYTES)


def test_first_close_counts_and_nothing_follows_it(pair: Pair) -> None:
    """Neither another Close nor a message nor a pong."""
    connection, _ = pair
    assert connection.queue_close(1001, "bye")
    assert not connection.queue_close(1011, "no")
    assert connection.queue(b"x") is None
    assert not connection.queue_urgent(b"x")
    connection.end(1006, "")
    assert (connection.ended, connection.end_code, connection.end_reason) == (True, 1001, "bye")
    connection.take_personal()
    assert connection.rest_is_close and connection.rest is not None
    assert bytes(connection.rest) == frames.encode_close(1001, "bye")


def test_eviction_throws_away_what_waits(pair: Pair) -> None:
    """Only the frame in progress and the Close are left."""
    connection, _ = pair
    connection.queue(b"x")
    connection.queue_urgent(b"y")
    connection.evict(1013, "slow")
    assert (connection.personal, connection.personal_bytes, connection.urgent) == (None, 0, [])
    assert connection.final == frames.encode_close(1013, "slow")
    assert connection.queue(b"x") is None and not connection.plain


def test_presence_is_left_out_until_the_whole_list_is_told(pair: Pair) -> None:
    """A client that has missed one change is told no later one: it would not fit what it knows."""
    connection, _ = pair
    room = connection.room
    assert connection.queue(bytes(MAX_PRESENCE_BYTES))
    with room.lock:
        assert not connection.queue_presence(b"too much waits")
    connection.take_personal()
    assert not connection.personal
    with room.lock:
        assert not connection.queue_presence(b"does not fit")
    assert not connection.personal
    room.tell_members(connection)
    assert connection.personal and len(connection.personal) == 1
    with room.lock:
        assert connection.queue_presence(b"fits again")
    assert connection.personal[-1][1] == b"fits again"


def test_pongs_that_wait_are_bounded(pair: Pair) -> None:
    """Only the first one asks for attention; the newest ping is always answered."""
    connection, _ = pair
    asked = [connection.queue_urgent(b"%03d" % n) for n in range(MAX_WAITING_PONGS + 5)]
    assert asked == [True] + [False] * (MAX_WAITING_PONGS + 4)
    waiting = connection.take_urgent()
    assert len(waiting) == 3 * MAX_WAITING_PONGS
    assert waiting.endswith(b"%03d" % (MAX_WAITING_PONGS + 4))
    assert connection.take_urgent() == b""


def test_plain_means_that_nothing_personal_waits(pair: Pair) -> None:
    """Whatever is queued takes it back."""
    connection, _ = pair
    assert connection.try_plain()
    connection.queue_urgent(b"x")
    assert not connection.plain and not connection.try_plain()
    connection.take_urgent()
    assert connection.try_plain()
    connection.queue(b"x")
    assert not connection.plain and not connection.try_plain()
    connection.take_personal()
    assert connection.try_plain()
    connection.queue_close(1000, "")
    connection.take_personal()
    assert not connection.try_plain()


def test_has_work_tells_what_a_new_client_needs(pair: Pair) -> None:
    """A message, a frame, a pong or a Close: else nobody need wake for it."""
    connection, _ = pair
    assert not connection.has_work()
    publish(connection.room)
    assert connection.has_work()
    connection.cursor = 1
    assert not connection.has_work()
    connection.queue_urgent(b"x")
    assert connection.has_work()
    connection.take_urgent()
    assert not connection.has_work()
    connection.queue_close(1000, "")
    connection.take_personal()
    assert connection.has_work()


def test_last_owner_closes_the_socket(pair: Pair) -> None:
    """Not the first one: its number would be given to a stranger while the other still writes."""
    connection, theirs = pair
    connection.share()
    connection.release()
    assert connection.sock.fileno() >= 0
    connection.sock.sendall(b"x")
    assert theirs.recv(1) == b"x"
    connection.release()
    assert connection.sock.fileno() == -1
    assert theirs.recv(1) == b""


def test_abort_ends_both_directions_and_may_come_late(pair: Pair) -> None:
    """Whoever waits on the socket wakes; a second time is no error."""
    connection, theirs = pair
    connection.abort()
    assert connection.sock.recv(1) == b"" and theirs.recv(1) == b""
    theirs.close()
    connection.abort()
    connection.sock.close()
    connection.abort()


def test_who_waits_for_a_place_wakes_when_nothing_waits(pair: Pair) -> None:
    """Each client's own reader, and nobody else's; also when nothing goes out any more."""
    connection, _ = pair
    connection.wait_drained(60)  # nothing waits
    for done in (connection.take_personal, lambda: connection.evict(1013, ""), connection.forget):
        with connection.lock:
            connection.personal = deque([(0, b"x", False)])
        with during(connection.wait_drained, 60):
            assert wait_until(lambda: bool(connection.drained))
            done()


def test_who_catches_up_while_somebody_begins_to_wait_wakes_it(pair: Pair) -> None:
    """Whenever that comes: it is said without the lock."""
    connection, _ = pair
    connection.lagging = True
    connection.drained = CaughtUpMeanwhile(connection)
    began = time.monotonic()
    connection.wait_caught_up(60)
    assert not connection.lagging and time.monotonic() - began < 30


class CaughtUpMeanwhile(Bells):
    """Bells of a client that has caught up when one of them is asked for."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def get(self) -> queue.SimpleQueue[None]:
        """Return a bell."""
        self._connection.caught_up()
        return super().get()


def test_joined_frames_end_with_a_close(pair: Pair) -> None:
    """Whatever waits behind it: the connection ends there."""
    connection, _ = pair
    with connection.lock:
        connection.personal = deque([(0, b"x", False), (0, b"close", True), (0, b"y", False)])
    connection.take_personal(1000)
    assert (connection.rest, connection.rest_is_close) == (b"xclose", True)
