"""Waiting on a thread that may be interrupted."""

from __future__ import annotations

import threading

from broadcast_server.hub.rooms.waiters import Bells

from ...support import wait_until
from ...support.beside import during
from ...support.inside import bells_in

SECONDS = 10.0


def test_ring_wakes_all_who_wait() -> None:
    """Once: who begins to wait later waits for the next one."""
    bells = Bells()
    woken = threading.Semaphore(0)

    def wait() -> None:
        bells.wait(bells.get(), 60)
        woken.release()

    with during(wait), during(wait):
        assert wait_until(lambda: len(bells_in(bells)) == 2)
        bells.ring()
        assert woken.acquire(timeout=SECONDS) and woken.acquire(timeout=SECONDS)
    assert not bells


def test_ring_between_look_and_wait_is_not_missed() -> None:
    """The bell is there from the look on."""
    bells = Bells()
    bell = bells.get()
    bells.ring()
    bells.wait(bell, 60)  # it has an end
    assert not bells


def test_bell_that_nobody_rings_is_taken_away_after_its_time() -> None:
    """Whoever looks again and again must not leave one behind each time."""
    bells = Bells()
    for _ in range(3):
        bells.wait(bells.get(), 0.0)
    assert not bells


def test_bell_of_who_was_interrupted_rings_for_nobody() -> None:
    """Nobody waits for the one that has gone, and nothing of it is left."""
    bells = Bells()
    bells.get()
    assert bells
    bells.ring()
    assert not bells
    bells.ring()
