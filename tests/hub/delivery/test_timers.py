"""One appointment for each client, whatever was asked for in which order."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator

import pytest

from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.delivery.timers import MIN_SKIPPED, NEVER, Timers
from broadcast_server.hub.rooms.room import Room
from broadcast_server.messages import Member

from ...support.inside import appointments_in

MakeClient = Callable[[], Connection]


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """Make clients that share a socket: none of these tests uses it."""
    room = Room("/", (0, -1), 1000)
    with socket.socket() as sock:
        yield lambda: Connection(1, Member("1", None, "/", ""), room, sock, echo=False)


def pop_all(timers: Timers, now: float) -> list[Connection]:
    found = []
    while (client := timers.pop(now)) is not None:
        found.append(client)
    return found


def test_no_appointments() -> None:
    """Without clients there is nothing due, ever: the fan-out may sleep."""
    timers = Timers()
    assert timers.next_due == NEVER
    assert timers.pop(1e12) is None


def test_client_is_due_at_its_time(make_client: MakeClient) -> None:
    """Not before it, exactly at it, and once only."""
    timers, client = Timers(), make_client()
    timers.schedule(client, 5.0)
    assert (timers.next_due, client.due) == (5.0, 5.0)
    assert timers.pop(4.999) is None
    assert timers.pop(5.0) is client
    assert client.due == NEVER
    assert pop_all(timers, 1e12) == []
    assert timers.next_due == NEVER


def test_earlier_appointment_counts(make_client: MakeClient) -> None:
    """A later one is not made, an earlier one replaces what was there."""
    timers, client = Timers(), make_client()
    for due, stands in ((5.0, 5.0), (7.0, 5.0), (5.0, 5.0), (3.0, 3.0), (4.0, 3.0)):
        timers.schedule(client, due)
        assert (client.due, timers.next_due) == (stands, stands)
    assert timers.pop(3.0) is client
    # What it was moved from is skipped, even when it is the next in the heap.
    assert timers.next_due == 5.0
    assert timers.pop(5.0) is None
    assert timers.next_due == NEVER


def test_never_is_no_appointment(make_client: MakeClient) -> None:
    """A time that never comes takes no place."""
    timers = Timers()
    timers.schedule(make_client(), NEVER)
    assert pop_all(timers, NEVER) == []


def test_client_may_be_scheduled_anew(make_client: MakeClient) -> None:
    """After its time, also for a time at which an older appointment is still in the heap."""
    timers, client = Timers(), make_client()
    timers.schedule(client, 5.0)
    timers.schedule(client, 3.0)
    assert timers.pop(3.0) is client
    timers.schedule(client, 5.0)
    assert pop_all(timers, 6.0) == [client]
    assert client.due == NEVER


def test_clients_come_in_the_order_of_their_times(make_client: MakeClient) -> None:
    """The earliest first; of the same time the one that was scheduled first."""
    timers = Timers()
    clients = [make_client() for _ in range(6)]
    for client, due in zip(clients, (3.0, 1.0, 2.0, 1.0, 9.0, 2.0), strict=True):
        timers.schedule(client, due)
    assert pop_all(timers, 3.0) == [clients[number] for number in (1, 3, 2, 5, 0)]
    assert timers.next_due == 9.0


@pytest.mark.parametrize("seed", range(5))
def test_like_a_table_of_times(make_client: MakeClient, seed: int) -> None:
    """A dictionary with each client's earliest time behaves the same, only slower."""
    rng = random.Random(seed)
    timers, clients = Timers(), [make_client() for _ in range(10)]
    table: dict[Connection, float] = {}
    now = 0.0
    for _ in range(500):
        if rng.random() < 0.7:
            client, due = rng.choice(clients), now + rng.randrange(20)
            timers.schedule(client, due)
            table[client] = min(due, table.get(client, NEVER))
        else:
            now += rng.randrange(5)
            assert timers.next_due <= min(table.values(), default=NEVER)
            expected = {client for client, due in table.items() if due <= now}
            popped = pop_all(timers, now)
            assert len(popped) == len(expected) and set(popped) == expected
            table = {client: due for client, due in table.items() if due > now}
        assert all(client.due == table.get(client, NEVER) for client in clients)


def test_cancelled_appointment_is_skipped(make_client: MakeClient) -> None:
    """And may be made anew, for the same time, too."""
    timers, client = Timers(), make_client()
    timers.cancel(client)
    timers.schedule(client, 5.0)
    timers.cancel(client)
    assert client.due == NEVER
    assert pop_all(timers, 6.0) == []
    timers.schedule(client, 5.0)
    assert pop_all(timers, 6.0) == [client]


def test_those_that_have_gone_are_not_kept_until_their_time(make_client: MakeClient) -> None:
    """With a ping interval of an hour the heap must not grow with everybody who comes and goes."""
    timers, staying = Timers(), [make_client() for _ in range(100)]
    for client in staying:
        timers.schedule(client, 3000.0)
    for _ in range(5000):
        client = make_client()
        timers.schedule(client, 3600.0)
        timers.cancel(client)
        assert len(appointments_in(timers)) <= len(staying) + MIN_SKIPPED + 1
    assert pop_all(timers, 3600.0) == staying


def test_those_that_were_moved_are_not_kept_until_their_time(make_client: MakeClient) -> None:
    """With a ping interval of days the heap must not grow each time that the socket of somebody who
    stays is full: the appointment is moved forward to the end of the write time-out, then back."""
    timers, staying = Timers(), [make_client() for _ in range(100)]
    for client in staying:
        timers.schedule(client, 1e6)
    now = 0.0
    for _ in range(50):
        for client in staying:
            timers.schedule(client, now + 20.0)
        now += 20.0
        assert pop_all(timers, now) == staying
        for client in staying:
            timers.schedule(client, now + 1e6)
        assert len(appointments_in(timers)) <= 2 * len(staying) + MIN_SKIPPED + 1
    assert pop_all(timers, now + 1e6) == staying
