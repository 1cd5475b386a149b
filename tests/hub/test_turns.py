"""How long the threads of one sender rest."""

from __future__ import annotations

import types

import pytest

from broadcast_server.hub import turns as module
from broadcast_server.hub.turns import (
    BURST_SECONDS,
    LEAST_SECONDS,
    MAX_SENDERS,
    MOST_SECONDS,
    SHARE,
    Turns,
    Worker,
)


class Clock:
    """The time, and the CPU time of the thread that asks."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cpu = 5.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that the test turns."""
    found = Clock()
    monkeypatch.setattr(module, "time", types.SimpleNamespace(thread_time=lambda: found.cpu))
    return found


@pytest.fixture
def turns(clock: Clock) -> Turns:
    """Those of a hub."""
    return Turns(lambda: clock.now)


def work(clock: Clock, worker: Worker, seconds: float, sender: str = "a") -> float:
    """Let a thread compute; return how long it should rest then."""
    clock.cpu += seconds
    clock.now += seconds
    return worker.tire(sender)


def test_little_work_is_free(clock: Clock, turns: Turns) -> None:
    """Of a sender that was idle."""
    worker = Worker(turns)
    assert work(clock, worker, BURST_SECONDS / 2) == LEAST_SECONDS
    clock.now += 10
    assert work(clock, worker, BURST_SECONDS / 2) == LEAST_SECONDS
    clock.now += 10
    assert work(clock, worker, 10 * BURST_SECONDS) > BURST_SECONDS


@pytest.mark.parametrize("count", [1, 2, 20])
def test_threads_of_one_sender_compute_for_half_of_the_time(
    clock: Clock, turns: Turns, count: int
) -> None:
    """All together, however many there are; another sender's rest is not longer for it."""
    workers = [Worker(turns) for _ in range(count)]
    free_at = [clock.now] * count
    began, worked = clock.now, 0.0
    while clock.now < began + 10:
        first = min(range(count), key=free_at.__getitem__)
        clock.now = max(clock.now, free_at[first])
        cpu = clock.cpu
        for worker in workers:
            worker.tire("b")  # the clock is that of one thread at a time
        clock.cpu = cpu
        rest = work(clock, workers[first], 0.001)
        worked += 0.001
        free_at[first] = clock.now + rest
    assert worked / (clock.now - began) == pytest.approx(SHARE, abs=0.02)
    assert work(clock, Worker(turns), 0.001, "c") == LEAST_SECONDS


def test_rest_has_an_end(clock: Clock, turns: Turns) -> None:
    """Its client may have gone; what is not paid then is paid by the next one."""
    assert work(clock, Worker(turns), 5.0) == MOST_SECONDS
    clock.now += 1.0
    assert work(clock, Worker(turns), 0.0) == MOST_SECONDS
    assert Worker(turns).tire("a", 100.0) > 3.0
    clock.now += 10.0
    assert work(clock, Worker(turns), 0.0) == LEAST_SECONDS


def test_thread_is_charged_for_its_own_work_once(clock: Clock, turns: Turns) -> None:
    """From when it has begun, and whatever it does for whom."""
    clock.cpu += 7.0
    worker = Worker(turns)
    assert worker.tire("a") == LEAST_SECONDS
    clock.cpu += 1.0
    assert worker.tire("a", 100.0) == pytest.approx((1.0 - BURST_SECONDS) / SHARE)
    assert worker.tire("b") == LEAST_SECONDS


def test_what_is_kept_is_bounded(clock: Clock, turns: Turns) -> None:
    """The sender that was idle for longest is forgotten first."""
    turns.charge("first", 5.0)
    turns.charge("second", 5.0)
    for number in range(MAX_SENDERS - 2):
        turns.charge(str(number), 1.0)
    assert turns.charge("first", 0.0) > 0
    turns.charge("one more", 1.0)
    assert turns.charge("first", 0.0) > 0
    assert turns.charge("second", 0.0) < 0
