"""What all threads together may have in hand."""

from __future__ import annotations

import threading

import pytest

from broadcast_server.hub.budget import Budget, Claim

from ..support import wait_until
from ..support.beside import SECONDS


def test_no_more_than_the_limit_is_in_hand() -> None:
    """One more byte waits, and gets nothing if it waits too long or gives up."""
    budget = Budget(10)
    assert budget.take(6, "a", lambda: False) and budget.take(4, "b", lambda: False)
    assert not budget.take(1, "c", lambda: False, 0.0)
    assert not budget.take(1, "c", lambda: True)
    budget.give(6, "a")
    assert budget.used == 4
    assert budget.take(6, "c", lambda: False, 0.0)


def test_what_is_larger_than_the_limit_passes_alone() -> None:
    """Else it would never pass."""
    budget = Budget(10)
    assert budget.take(11, "a", lambda: False, 0.0)
    assert not budget.take(1, "b", lambda: False, 0.0)
    budget.give(11, "a")
    assert budget.take(10, "b", lambda: False, 0.0)


def test_owner_has_a_share_and_the_others_have_the_rest() -> None:
    """Its first piece passes whatever its size; what it has given back does not count."""
    budget = Budget(10, 4)
    assert budget.take(3, "a", lambda: False, 0.0)
    assert not budget.take(2, "a", lambda: False, 0.0)
    assert budget.take(5, "b", lambda: False, 0.0)
    assert budget.take(1, "a", lambda: False, 0.0)
    budget.give(2, "a")
    assert budget.take(2, "a", lambda: False, 0.0)
    assert budget.used == 9


def test_who_waits_goes_on_when_something_is_given_back() -> None:
    """On another thread, at once."""
    budget = Budget(10)
    assert budget.take(10, "a", lambda: False)
    waits = threading.Event()
    found = []

    def look() -> bool:
        waits.set()
        return False

    thread = threading.Thread(target=lambda: found.append(budget.take(1, "b", look)))
    thread.start()
    assert waits.wait(SECONDS)
    budget.give(10, "a")
    thread.join(SECONDS)
    assert not thread.is_alive() and found == [True]
    assert wait_until(lambda: budget.used == 1)


def test_claim_is_given_back_once() -> None:
    """All of it, or first what was not needed."""
    budget = Budget(10)
    claim = Claim(budget, "a")
    claim.give()
    assert claim.take(8, lambda: False, 0.0) and not Claim(budget, "b").take(3, lambda: True, 9.0)
    claim.cut_to(9)
    claim.cut_to(5)
    assert (budget.used, claim.size) == (5, 5)
    claim.give()
    claim.give()
    assert budget.used == 0


class Queue:
    """Threads that wait for a budget, one after the other."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.got: list[str] = []  # who has got a place, in order
        self.looks: dict[str, int] = {}
        self._threads: list[threading.Thread] = []

    def wait(self, name: str, size: int, owner: str) -> None:
        """Let a thread wait; return when it does."""

        def look() -> bool:
            self.looks[name] = self.looks.get(name, 0) + 1
            return False

        def run() -> None:
            assert self.budget.take(size, owner, look)
            self.got.append(name)

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()
        assert wait_until(lambda: name in self.looks)

    def end(self) -> None:
        """All of them have got what they wanted."""
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()


def test_large_piece_is_not_overtaken_for_ever() -> None:
    """While it waits for more than there is, nobody behind it takes what becomes free."""
    budget = Budget(10)
    assert budget.take(4, "a", lambda: False) and budget.take(4, "a", lambda: False)
    line = Queue(budget)
    line.wait("large", 8, "b")
    line.wait("small", 2, "c")
    budget.give(4, "a")
    assert budget.used == 4 and line.got == []
    budget.give(4, "a")
    line.end()
    assert sorted(line.got) == ["large", "small"] and budget.used == 10


def test_who_has_no_share_left_holds_nobody_up() -> None:
    """And its own come one after the other."""
    budget = Budget(10, 4)
    assert budget.take(4, "a", lambda: False)
    line = Queue(budget)
    for name in ("first", "second", "third"):
        line.wait(name, 4, "a")
    assert budget.take(6, "b", lambda: False, 0.0)
    for count in (1, 2, 3):
        budget.give(4, "a")
        assert wait_until(lambda count=count: len(line.got) == count)
    line.end()
    assert line.got == ["first", "second", "third"]


def test_owners_take_turns() -> None:
    """However many of one wait."""
    budget = Budget(1)
    assert budget.take(1, "a", lambda: False)
    line = Queue(budget)
    for name in ("a1", "a2", "a3"):
        line.wait(name, 1, "a")
    line.wait("b1", 1, "b")
    for count in (1, 2, 3, 4):
        budget.give(1, "b" if len(line.got) == 2 else "a")
        assert wait_until(lambda count=count: len(line.got) == count)
    line.end()
    assert line.got == ["a1", "b1", "a2", "a3"]


def test_who_gives_up_lets_others_pass() -> None:
    """It may have been what they waited for."""
    budget = Budget(10)
    assert budget.take(5, "a", lambda: False)
    line = Queue(budget)
    tired = threading.Event()
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(budget.take(9, "b", tired.is_set)))
    thread.start()
    assert wait_until(lambda: budget.is_waited_for)
    line.wait("small", 5, "c")
    assert line.got == []
    tired.set()
    line.end()
    thread.join(SECONDS)
    assert (found, line.got, budget.used) == ([False], ["small"], 10)
    assert not budget.is_waited_for


def test_waiter_that_gives_up_has_had_its_turn() -> None:
    """Others of its owner do not keep the first place in the line for it."""
    budget = Budget(10)
    assert budget.take(5, "a", lambda: False)
    tired = [threading.Event(), threading.Event()]
    looked = [threading.Event(), threading.Event()]
    threads = []
    for number in (0, 1):

        def look(number: int = number) -> bool:
            looked[number].set()
            return tired[number].is_set()

        thread = threading.Thread(target=budget.take, args=(9, "b", look))
        threads.append(thread)
        thread.start()
        assert looked[number].wait(SECONDS)
    line = Queue(budget)
    line.wait("small", 5, "c")
    tired[0].set()
    line.end()
    assert line.got == ["small"] and budget.used == 10
    tired[1].set()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert not budget.is_waited_for


def test_waiting_threads_look_at_once_when_they_are_woken() -> None:
    """And go on waiting if they need not give up."""
    budget = Budget(10)
    assert budget.take(10, "a", lambda: False)
    line = Queue(budget)
    line.wait("b", 1, "b")
    looks = line.looks["b"]
    budget.wake()
    assert wait_until(lambda: line.looks["b"] > looks) and line.got == []
    budget.give(10, "a")
    line.end()


def test_wait_that_is_interrupted_takes_nothing() -> None:
    """Whatever it is interrupted by."""
    budget = Budget(10)
    assert budget.take(10, "a", lambda: False)

    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        budget.take(1, "b", interrupt)
    budget.give(10, "a")
    assert budget.used == 0 and not budget.is_waited_for
