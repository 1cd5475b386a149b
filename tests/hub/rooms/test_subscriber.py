"""The half of a client that its room knows: what waits for it, and which Close counts."""

from __future__ import annotations

import pytest

from broadcast_server.hub.rooms.encodings import SSE
from broadcast_server.hub.rooms.entries import ENTRY_BYTES
from broadcast_server.hub.rooms.room import Room
from broadcast_server.hub.rooms.subscriber import Subscriber
from broadcast_server.messages import Member
from broadcast_server.wire import frames

from ...support.rooms import drafts, publish, room


@pytest.fixture
def subscriber() -> Subscriber:
    """A member of a room, without a socket."""
    r: Room[Subscriber] = room()
    found = Subscriber(1, Member("c1", None, "/r", "x"), r)
    r.join(found, 0, None)
    return found


def waiting(subscriber: Subscriber) -> list[tuple[int, bytes, bool]]:
    """Return what waits for a client alone."""
    return list(subscriber.personal or ())


def told(subscriber: Subscriber, frame: bytes) -> bool:
    """Queue presence as a room does: under its lock."""
    with subscriber.room.lock:
        return subscriber.queue_presence(frame)


def test_frames_are_stamped_with_the_head_that_they_follow(subscriber: Subscriber) -> None:
    """So each keeps its place among the messages."""
    subscriber.queue(b"a")
    publish(subscriber.room, drafts(1), 10)
    subscriber.queue(b"b")
    assert waiting(subscriber) == [(0, b"a", False), (1, b"b", False)]
    assert subscriber.personal_bytes == 2 * (1 + ENTRY_BYTES)


def test_too_much_is_not_queued_but_one_frame_always_is(subscriber: Subscriber) -> None:
    """A frame above the limit alone could never be sent otherwise."""
    first, one = 100 + ENTRY_BYTES, 1 + ENTRY_BYTES
    assert subscriber.queue(bytes(100), 10) is True
    assert subscriber.queue(b"x", 10) is False
    assert subscriber.queue(b"x") is True
    assert subscriber.queue(b"x", first + 2 * one) is True
    assert subscriber.queue(b"x", first + 2 * one) is False


def test_first_close_counts_and_nothing_follows_it(subscriber: Subscriber) -> None:
    """Neither another Close nor a frame."""
    assert subscriber.queue_close(1001, "bye")
    assert not subscriber.queue_close(1011, "no")
    assert subscriber.queue(b"x") is None
    subscriber.end(1006, "")
    assert (subscriber.ended, subscriber.end_code, subscriber.end_reason) == (True, 1001, "bye")
    assert waiting(subscriber) == [(0, frames.encode_close(1001, "bye"), True)]


def test_close_without_a_reason_tells_from_where_to_resume(subscriber: Subscriber) -> None:
    """The id is that of the last message that goes out before it."""
    publish(subscriber.room, drafts(2), 10)
    assert subscriber.queue_close(1012, None)
    assert waiting(subscriber) == [(2, frames.encode_close(1012, "since=10-1"), True)]


def test_close_waits_for_the_acknowledgements(subscriber: Subscriber) -> None:
    """The last answer tells that it is due."""
    subscriber.begin_answer()
    subscriber.begin_answer()
    assert not subscriber.queue_close(1001, "bye", after_answers=True)
    assert not subscriber.end_answer() and subscriber.end_answer()
    assert subscriber.queue_close(1001, "bye", after_answers=True)


def test_echo_of_a_close_has_its_reason(subscriber: Subscriber) -> None:
    """The leave callback gets the peer's code and reason, and so does the peer."""
    assert subscriber.queue_close(4000, "its reason", echo_code=4000)
    assert waiting(subscriber) == [(0, frames.encode_close(4000, "its reason"), True)]
    assert (subscriber.end_code, subscriber.end_reason) == (4000, "its reason")


def test_nothing_is_queued_for_a_client_that_ends(subscriber: Subscriber) -> None:
    """It would never be sent, and the sender learns that."""
    subscriber.end(frames.ABNORMAL, "")
    assert subscriber.queue(b"x") is None
    assert not told(subscriber, b"x")


def test_lost_connection_is_not_answered(subscriber: Subscriber) -> None:
    """An echo would say that all before the peer's Close was accepted: not once it was lost."""
    subscriber.end(frames.ABNORMAL, "")
    assert not subscriber.queue_close(1000, "", echo_code=1000)
    assert not subscriber.personal


def test_close_of_the_peer_after_our_end_gets_our_reason(subscriber: Subscriber) -> None:
    """The reader has thrown away what came since: an echo would be read as "accepted"."""
    subscriber.end(1001, "the hub stops")
    assert subscriber.queue_close(1000, "", echo_code=1000)
    assert waiting(subscriber) == [(0, frames.encode_close(1001, "the hub stops"), True)]


def test_first_event_goes_before_what_waits_already(subscriber: Subscriber) -> None:
    """A client can be found by its id before it has joined."""
    subscriber.queue(b"direct")
    subscriber.queue_first(b"welcome")
    assert [frame for _, frame, _ in waiting(subscriber)] == [b"welcome", b"direct"]


def test_first_event_does_not_follow_a_close(subscriber: Subscriber) -> None:
    """Nothing does; a stream of events ends with the time after which to come back."""
    subscriber.form = SSE
    subscriber.queue_close(1001, "bye")
    subscriber.queue_first(b"welcome")
    ((_, frame, is_close),) = waiting(subscriber)
    assert frame.startswith(b"retry: ") and is_close


def test_whatever_is_queued_ends_plain(subscriber: Subscriber) -> None:
    """The fan-out looks at that before it sends only the log."""
    for queue in (
        lambda: subscriber.queue(b"x"),
        lambda: told(subscriber, b"x"),
        lambda: subscriber.queue_first(b"x"),
        lambda: subscriber.queue_close(1000, ""),
    ):
        subscriber.plain = True
        queue()
        assert not subscriber.plain
