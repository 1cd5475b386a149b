"""What all threads together may have in hand."""

from __future__ import annotations

import threading

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
