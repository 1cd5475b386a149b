"""Timers: one appointment for each client, the earliest that was asked for."""

from __future__ import annotations

from typing import Any

from broadcast_server.timers import NEVER, Timers


class Client:
    """What timers need of a connection."""

    due = NEVER


def client() -> Any:
    return Client()


def test_clients_come_in_the_order_of_their_times() -> None:
    """Each once, and none before its time."""
    timers = Timers()
    a, b, c = client(), client(), client()
    assert timers.next_due == NEVER and timers.pop(1e9) is None
    timers.schedule(a, 3.0)
    timers.schedule(b, 1.0)
    timers.schedule(c, 2.0)
    assert timers.next_due == 1.0
    assert timers.pop(0.9) is None
    assert [timers.pop(2.5) for _ in range(3)] == [b, c, None]
    assert timers.next_due == 3.0
    assert timers.pop(3.0) is a
    assert a.due == NEVER


def test_earlier_appointment_replaces_a_later_one() -> None:
    """The later one is skipped; a later wish changes nothing."""
    timers = Timers()
    a = client()
    timers.schedule(a, 5.0)
    timers.schedule(a, 9.0)
    timers.schedule(a, 2.0)
    assert timers.pop(10.0) is a
    assert timers.pop(10.0) is None
    timers.schedule(a, 7.0)
    assert timers.pop(7.0) is a


def test_equal_times_do_not_compare_clients() -> None:
    """They come in the order in which they were asked for."""
    timers = Timers()
    clients = [client() for _ in range(5)]
    for one in clients:
        timers.schedule(one, 1.0)
    assert [timers.pop(1.0) for _ in clients] == clients
