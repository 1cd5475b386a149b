"""Who has how much of what is shared: against a plain count, in random order."""

from __future__ import annotations

import random

from broadcast_server.hub.rooms.shares import Shares


def test_holders_are_counted() -> None:
    """One that has nothing left is forgotten."""
    shares: Shares[str] = Shares()
    for holder in "aab":
        shares.add(holder)
    assert (shares["a"], shares["b"], shares["c"], len(shares)) == (2, 1, 0, 2)
    shares.remove("b")
    assert (shares["b"], len(shares), list(shares.descending())) == (0, 1, ["a"])


def test_of_those_that_have_most_the_last_to_get_there_gives_first() -> None:
    """So that many who take more and more give before one who has had as much all the time."""
    shares: Shares[str] = Shares()
    for holder in ("honest", "honest", "greedy", "greedy"):
        shares.add(holder)
    assert shares.most() == shares.most() == "greedy"
    shares.remove("greedy")
    assert shares.most() == "honest"
    shares.add("greedy")
    assert list(shares.descending()) == ["greedy", "honest"]


def test_most_is_the_one_with_most_whatever_happened() -> None:
    """After each step it is somebody of whom nobody has more."""
    rng = random.Random(15)
    shares: Shares[int] = Shares()
    model: dict[int, int] = {}
    for _ in range(5000):
        holder = rng.randrange(8)
        if holder in model and rng.random() < 0.5:
            shares.remove(holder)
            model[holder] -= 1
            if not model[holder]:
                del model[holder]
        else:
            shares.add(holder)
            model[holder] = model.get(holder, 0) + 1
        assert len(shares) == len(model)
        counts = [model[found] for found in shares.descending()]
        assert counts == sorted(model.values(), reverse=True)
        if model:
            assert model[shares.most()] == counts[0]
