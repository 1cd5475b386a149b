"""Rates: what one address may publish in a second."""

from __future__ import annotations

import threading

import pytest

from broadcast_server.hub import rates
from broadcast_server.hub.rates import AddressRates, Pace


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def test_one_second_may_come_at_once(clock: Clock) -> None:
    """A full bucket, then what has run into it; the wait that is told is enough."""
    limits = AddressRates(5, clock)
    assert [limits.take("a") for _ in range(5)] == [0.0] * 5
    wait = limits.take("a")
    assert wait == pytest.approx(0.2)
    clock.now += wait
    assert limits.take("a") == 0.0
    assert limits.take("a") > 0.0
    clock.now += 3600
    assert [limits.take("a") for _ in range(5)] == [0.0] * 5
    assert limits.take("a") == pytest.approx(0.2)


def test_told_wait_is_always_enough(clock: Clock) -> None:
    """Rounding never sends an obedient client away twice."""
    for rate in (0.3, 3, 7, 9999.7):
        limits = AddressRates(rate, clock)
        while (wait := limits.take("a")) == 0.0:
            pass
        for _ in range(200):
            clock.now += wait
            assert limits.take("a") == 0.0
            wait = limits.take("a")
            assert wait > 0.0


def test_refused_messages_cost_nothing(clock: Clock) -> None:
    """Whoever asks too early does not wait longer for it."""
    limits = AddressRates(1, clock)
    assert limits.take("a") == 0.0
    assert {limits.take("a") for _ in range(100)} == {1.0}


def test_less_than_one_in_a_second(clock: Clock) -> None:
    """One may come at once, the next one when its time has come."""
    limits = AddressRates(0.1, clock)
    assert limits.take("a") == 0.0
    assert limits.take("a") == pytest.approx(10)
    clock.now += 4
    assert limits.take("a") == pytest.approx(6)


def test_no_rate_is_no_limit(clock: Clock) -> None:
    """And nothing is kept for it."""
    limits = AddressRates(0, clock)
    assert {limits.take("a") for _ in range(100)} == {0.0}
    assert len(limits) == 0


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:0:0:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("not:an address", "not:an address", True),
    ],
)
def test_address_counts_by_its_network(first: str, second: str, shared: bool, clock: Clock) -> None:
    """An IPv4 address alone, an IPv6 address with its /64."""
    limits = AddressRates(1, clock)
    assert limits.take(first) == 0.0
    assert (limits.take(second) > 0.0) is shared


def test_longest_idle_address_goes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is bounded; who publishes all the time keeps its limit."""
    monkeypatch.setattr(rates, "MAX_ADDRESSES", 3)
    limits = AddressRates(1, clock)
    for address in ("a", "b", "c"):
        assert limits.take(address) == 0.0
    assert limits.take("a") > 0.0
    assert limits.take("d") == 0.0  # b goes
    assert len(limits) == 3
    assert limits.take("a") > 0.0 and limits.take("c") > 0.0
    assert limits.take("b") == 0.0


def test_threads_share_one_bucket(clock: Clock) -> None:
    """No message passes twice, none is lost."""
    limits = AddressRates(1000, clock)
    passed = []

    def publish() -> None:
        passed.append(sum(limits.take("a") == 0.0 for _ in range(500)))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(passed) == 1000


# -- One client --------------------------------------------------------------------------------


def test_pace_is_a_bucket_that_runs_into_debt(clock: Clock) -> None:
    """N pass at once; what is above has been sent already, and is waited for."""
    pace = Pace(5, clock)
    assert [pace.take(1) for _ in range(5)] == [0.0] * 5
    assert pace.take(1) == pytest.approx(0.2)
    assert pace.take(4) == pytest.approx(1.0)
    clock.now += 1.0
    assert pace.take(0) == 0.0
    assert pace.take(1) == pytest.approx(0.2)
    clock.now += 3600
    assert pace.take(5) == 0.0
    assert pace.take(1) == pytest.approx(0.2)


def test_pace_without_a_rate_never_waits(clock: Clock) -> None:
    """Zero is no limit."""
    assert Pace(0, clock).take(10**9) == 0.0


def test_pace_of_less_than_one_a_second(clock: Clock) -> None:
    """The first one is waited for as well: the bucket holds half of it."""
    pace = Pace(0.5, clock)
    assert pace.take(1) == pytest.approx(1.0)
