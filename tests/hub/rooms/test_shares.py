"""Who has how much of what is shared: against a plain count, in random order."""

from __future__ import annotations

import random

from broadcast_server.hub.rooms.shares import Shares, Sizes

from ...support.inside import noted_sizes


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
    assert list(shares.descending()) == ["honest", "greedy"]
    shares.touch("honest")
    assert list(shares.descending()) == ["greedy", "honest"] and shares.most() == "honest"


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


def test_sizes_are_added_up_and_the_largest_is_found() -> None:
    """After each step it is somebody of whom nobody has more, and nothing heaps up."""
    rng = random.Random(18)
    sizes: Sizes[int] = Sizes()
    model: dict[int, int] = {}
    for _ in range(5000):
        holder = rng.randrange(8)
        old = model.get(holder, 0)
        change = -old if rng.random() < 0.2 else rng.randrange(-old, 100)
        sizes.add(holder, change)
        model[holder] = old + change
        model = {holder: size for holder, size in model.items() if size}
        assert len(sizes) == len(model)
        assert all(sizes[holder] == model.get(holder, 0) for holder in range(8))
        assert [sizes[found] for found in sizes.descending()] == sorted(model.values())[::-1]
        if model:
            assert sizes[sizes.most()] == max(model.values())
        assert noted_sizes(sizes) <= 4 * 8 + 65


def test_of_the_same_size_the_one_that_has_not_changed_for_longest_gives_first() -> None:
    """As of rooms the one that was used the longest ago."""
    sizes: Sizes[str] = Sizes()
    for holder in "abc":
        sizes.add(holder, 7)
    sizes.add("a", 1)
    sizes.add("a", -1)
    assert sizes.most() == "b"
