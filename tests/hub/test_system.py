"""What a hub needs of its process."""

from __future__ import annotations

import pytest

from broadcast_server.hub import system
from broadcast_server.hub.system import SwitchInterval


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the interpreter was told."""
    found: list[float] = []
    monkeypatch.setattr(system.sys, "setswitchinterval", found.append)
    return found


def test_interval_grows_with_the_threads_up_to_the_usual_one(given: list[float]) -> None:
    """All waiting threads together wake up 200,000 times a second at most, up to 1,000 threads."""
    interval = SwitchInterval(0.0001)
    for threads in (0, 1, 20, 100, 1000, 10_000):
        interval.adapt(threads)
    assert given == pytest.approx([0.0001, 0.0005, 0.005])
    interval.adapt(0)
    assert given[-1] == 0.0001


def test_small_differences_change_nothing(given: list[float]) -> None:
    """Clients come and go all the time."""
    interval = SwitchInterval(0.0001)
    for threads in (100, 110, 120, 90, 85):
        interval.adapt(threads)
    assert given == pytest.approx([0.0005])


@pytest.mark.parametrize("seconds", [0.01, 1.0])
def test_longer_interval_stays_as_it_is(given: list[float], seconds: float) -> None:
    """The operator has set it on purpose."""
    interval = SwitchInterval(seconds)
    for threads in (0, 5000, 10):
        interval.adapt(threads)
    assert given == [seconds]


def test_nothing_is_set_where_nothing_was_asked_for(given: list[float]) -> None:
    """A library leaves the process of its program alone."""
    SwitchInterval(None).adapt(1000)
    assert given == []
