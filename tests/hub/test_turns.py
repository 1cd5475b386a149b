"""How long the threads of one sender rest."""

from __future__ import annotations

import types
from collections.abc import Callable

import pytest

from broadcast_server.hub import turns as module
from broadcast_server.hub.turns import LEAST_SECONDS, MOST_SECONDS, WINDOW_SECONDS, Turns, Worker


class Clocks:
    """The time, and the CPU time of the thread that asks."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cpu = 5.0


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Clocks that the test turns."""
    found = Clocks()
    monkeypatch.setattr(module, "time", types.SimpleNamespace(thread_time=lambda: found.cpu))
    return found


@pytest.fixture
def turns(clocks: Clocks) -> Turns:
    """Those of a hub."""
    return Turns(lambda: clocks.now)


@pytest.fixture
def work(clocks: Clocks, turns: Turns) -> Callable[..., float]:
    """Let a thread work for so many seconds; return how long it should rest then."""

    def worked(worker: Worker, seconds: float) -> float:
        before = clocks.cpu
        worker.since = before - seconds
        rest = worker.tire()
        assert worker.since == before
        return rest

    return worked


def test_thread_alone_rests_for_a_moment(turns: Turns, work: Callable[..., float]) -> None:
    """However much it has done."""
    worker = Worker(turns, "a")
    assert work(worker, 0.01) == work(worker, 5.0) == work(worker, 0.0) == LEAST_SECONDS


@pytest.mark.parametrize("count", [2, 5, 20])
def test_threads_of_one_sender_work_for_their_part_of_the_time(
    turns: Turns, work: Callable[..., float], count: int
) -> None:
    """Of n threads each rests n - 1 times as long as it has worked."""
    workers = [Worker(turns, "a") for _ in range(count)]
    for worker in workers:
        work(worker, 0.001)
    for worker in workers:
        assert work(worker, 0.001) == pytest.approx(0.001 * (count - 1))
    assert work(Worker(turns, "b"), 1.0) == LEAST_SECONDS


def test_rest_has_an_end(turns: Turns, work: Callable[..., float]) -> None:
    """Its client may have gone."""
    for worker in [Worker(turns, "a") for _ in range(1000)]:
        rest = work(worker, 0.001)
    assert rest == MOST_SECONDS


def test_threads_that_do_nothing_any_more_do_not_count(
    clocks: Clocks, turns: Turns, work: Callable[..., float]
) -> None:
    """After two windows at the latest, and nothing is kept of them."""
    workers = [Worker(turns, "a") for _ in range(4)]
    for worker in workers:
        work(worker, 0.001)
    clocks.now += WINDOW_SECONDS
    assert work(workers[0], 0.001) == pytest.approx(0.003)
    clocks.now += WINDOW_SECONDS
    assert work(workers[0], 0.001) == LEAST_SECONDS
    clocks.now += 10 * WINDOW_SECONDS
    assert work(workers[1], 0.001) == LEAST_SECONDS
    assert turns.count(workers[1]) == 1
