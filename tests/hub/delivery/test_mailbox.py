"""What other threads leave for the fan-out: without the fan-out."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.delivery.mailbox import Mailbox
from broadcast_server.hub.delivery.timers import NEVER
from broadcast_server.hub.rooms.room import Room

from ...support.inside import pipe_end_of, pretend_awake


def act(_: Connection) -> None:
    raise AssertionError("the mailbox does nothing itself")


def end(_: Connection) -> None:
    raise AssertionError("the mailbox does nothing itself")


# It only keeps them.
CLIENT, OTHER = object.__new__(Connection), object.__new__(Connection)
ROOM = object.__new__(Room)


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox()
    yield made
    made.close()


def was_woken(mailbox: Mailbox) -> bool:
    """Tell whether the thread would wake now, and take the news."""
    poll = select.poll()
    poll.register(mailbox, select.POLLIN)
    woken = bool(poll.poll(0))
    mailbox.empty_pipe()
    return woken


def test_news_wake_a_thread_that_sleeps_once(mailbox: Mailbox) -> None:
    """The second post finds that it is awake already, and a system call is saved."""
    mailbox.notify(ROOM)
    assert not was_woken(mailbox)  # nobody sleeps yet
    assert mailbox.doze(False, NEVER) == (False, NEVER)
    assert list(mailbox.wake_up()) == [ROOM]
    assert mailbox.doze(False, NEVER) == (True, NEVER)
    mailbox.notify(ROOM)
    assert was_woken(mailbox)
    assert mailbox.post(act, CLIENT)
    mailbox.notify(ROOM)
    mailbox.post_all(act, [CLIENT], None)
    mailbox.rouse()
    assert not was_woken(mailbox)


def test_thread_that_is_busy_or_has_post_does_not_sleep(mailbox: Mailbox) -> None:
    """So whatever comes before that look is seen without a wake-up."""
    assert mailbox.doze(True, NEVER) == (False, NEVER)
    mailbox.post(act, CLIENT)
    assert mailbox.doze(False, NEVER) == (False, NEVER)
    mailbox.take_posts()
    mailbox.post_all(act, [], ROOM)
    assert mailbox.doze(False, NEVER) == (False, NEVER)
    mailbox.take_posts()
    assert mailbox.doze(False, NEVER) == (True, NEVER)
    mailbox.wake_up()
    mailbox.rouse()
    assert not was_woken(mailbox)


def test_posts_are_taken_once_and_in_order(mailbox: Mailbox) -> None:
    """A client's end is never done before its beginning."""
    mailbox.post(act, CLIENT)
    mailbox.post_all(act, [OTHER, CLIENT], ROOM)
    mailbox.post(end, CLIENT)
    posts, counted = mailbox.take_posts()
    assert list(posts.items()) == [(CLIENT, (act, end)), (OTHER, (act,))]
    assert list(counted) == [ROOM]
    assert mailbox.take_posts() == ({}, {})


def test_client_is_kept_once_however_much_comes(mailbox: Mailbox) -> None:
    """A client that changes its name 100,000 times leaves as many posts as there are members."""
    clients = [object.__new__(Connection) for _ in range(100)]
    for _ in range(1000):
        mailbox.post_all(act, clients, None)
        mailbox.post(act, CLIENT)
    posts, _ = mailbox.take_posts()
    assert posts == dict.fromkeys([*clients, CLIENT], (act,))


def test_post_that_can_wait_wakes_only_who_would_sleep_too_long(mailbox: Mailbox) -> None:
    """A thread that wakes by itself in time is left asleep, also by its own finish."""
    mailbox.doze(False, 5.0)
    assert mailbox.post(act, CLIENT, by=5.0)
    assert not was_woken(mailbox)
    assert mailbox.post(act, CLIENT, by=4.0)
    assert was_woken(mailbox)
    mailbox.take_posts()
    mailbox.finish(3.0)
    assert mailbox.doze(False, 5.0) == (True, 3.0)
    assert was_woken(mailbox)
    assert mailbox.post(act, CLIENT, by=3.0)
    assert not was_woken(mailbox)


def test_wake_wakes_also_who_does_not_seem_to_sleep(mailbox: Mailbox) -> None:
    """Whoever noted that it does not may have been interrupted before it came to the pipe."""
    mailbox.doze(False, NEVER)
    pretend_awake(mailbox)
    mailbox.rouse()
    assert not was_woken(mailbox)
    mailbox.wake()
    assert was_woken(mailbox)


def test_finish_wakes_whoever_it_meets(mailbox: Mailbox) -> None:
    """The thread looks at its deadline only when it turns."""
    mailbox.finish(1.0)
    assert was_woken(mailbox)
    assert mailbox.doze(False, 5.0) == (True, 1.0)


def test_nothing_is_posted_after_the_end(mailbox: Mailbox) -> None:
    """What was not taken is returned, what comes later is refused."""
    mailbox.post(act, CLIENT)
    assert not mailbox.has_ended
    assert mailbox.end() == {CLIENT: (act,)}
    assert mailbox.has_ended
    assert not mailbox.post(act, OTHER)
    mailbox.post_all(act, [OTHER], ROOM)
    assert mailbox.take_posts() == ({}, {})


def test_many_wake_ups_fit_and_are_emptied_at_once(mailbox: Mailbox) -> None:
    """A pipe that is full wakes as well as one with a byte in it, and nobody waits for it."""
    for _ in range(70_000):
        mailbox.finish(1.0)
    assert was_woken(mailbox)
    assert not was_woken(mailbox)


def test_late_wake_up_reaches_no_stranger(mailbox: Mailbox) -> None:
    """The pipe's number may be somebody else's by the time when a publisher gets to write to it."""
    number = pipe_end_of(mailbox)
    mailbox.close()
    mailbox.close()
    reader, writer = os.pipe()
    try:
        os.dup2(writer, number)
        os.set_blocking(reader, False)
        mailbox.finish(1.0)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        for descriptor in {reader, writer, number}:
            os.close(descriptor)
