"""Rates: what one sender may send in a second, over one connection or many."""

from __future__ import annotations

import threading

import pytest

from broadcast_server.hub import rates
from broadcast_server.hub.rates import Flow, SenderRates, sender_of

from ..support.inside import bucket_of


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
    limits = SenderRates(5, clock)
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
        limits = SenderRates(rate, clock)
        while (wait := limits.take("a")) == 0.0:
            pass
        for _ in range(200):
            clock.now += wait
            assert limits.take("a") == 0.0
            wait = limits.take("a")
            assert wait > 0.0


def test_refused_messages_cost_nothing(clock: Clock) -> None:
    """Whoever asks too early does not wait longer for it."""
    limits = SenderRates(1, clock)
    assert limits.take("a") == 0.0
    assert {limits.take("a") for _ in range(100)} == {1.0}


def test_less_than_one_in_a_second(clock: Clock) -> None:
    """One may come at once, the next one when its time has come."""
    limits = SenderRates(0.1, clock)
    assert limits.take("a") == 0.0
    assert limits.take("a") == pytest.approx(10)
    clock.now += 4
    assert limits.take("a") == pytest.approx(6)


def test_no_rate_is_no_limit(clock: Clock) -> None:
    """And nothing is kept for it."""
    limits = SenderRates(0, clock)
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
        ("127.0.0.1", "::1", True),
        ("not:an address", "not:an address", True),
    ],
)
def test_address_counts_by_its_network(first: str, second: str, shared: bool, clock: Clock) -> None:
    """An IPv4 address alone, an IPv6 address with its /64."""
    limits = SenderRates(1, clock)
    assert limits.take(sender_of(first)) == 0.0
    assert (limits.take(sender_of(second)) > 0.0) is shared


def test_longest_idle_address_goes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is bounded; who publishes all the time keeps its limit."""
    monkeypatch.setattr(rates, "MAX_SENDERS", 3)
    limits = SenderRates(1, clock)
    for address in ("a", "b", "c"):
        assert limits.take(address) == 0.0
    assert limits.take("a") > 0.0
    assert limits.take("d") == 0.0  # b goes
    assert len(limits) == 3
    assert limits.take("a") > 0.0 and limits.take("c") > 0.0
    assert limits.take("b") == 0.0


def test_threads_share_one_bucket(clock: Clock) -> None:
    """No message passes twice, none is lost."""
    limits = SenderRates(1000, clock)
    passed = []

    def publish() -> None:
        passed.append(sum(limits.take("a") == 0.0 for _ in range(500)))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(passed) == 1000


def test_name_of_a_token_counts_before_the_address() -> None:
    """Wherever its owner is; and nobody's address looks like a name."""
    assert sender_of("192.0.2.1", "ann") == sender_of("192.0.2.2", "ann") != sender_of("192.0.2.1")
    assert sender_of("192.0.2.1", "192.0.2.1") != sender_of("192.0.2.1")


# -- One client --------------------------------------------------------------------------------


def run(clock: Clock, flows: list[Flow], counts: list[float], seconds: float) -> list[float]:
    """Let clients send as fast as they may, each so much in one go; return how much each has."""
    sent = [0.0] * len(flows)
    due = [clock.now] * len(flows)
    end = clock.now + seconds
    while min(due) < end:
        number = due.index(min(due))
        clock.now = max(clock.now, due[number])
        wait = flows[number].left()
        if not wait:
            sent[number] += counts[number]
            wait = flows[number].take(counts[number])
        due[number] = clock.now + max(wait, 1e-4)
    return sent


def test_client_runs_into_debt(clock: Clock) -> None:
    """N pass at once; what is above has been sent already, and is waited for."""
    flow = SenderRates(5, clock).flow(None)
    assert [flow.take(1) for _ in range(5)] == [0.0] * 5
    assert flow.take(1) == pytest.approx(0.2)
    assert flow.take(4) == pytest.approx(1.0)
    clock.now += 1.0
    assert flow.left() == 0.0
    assert flow.take(1) == pytest.approx(0.2)
    clock.now += 3600
    assert flow.take(5) == 0.0
    assert flow.take(1) == pytest.approx(0.2)


def test_client_without_a_rate_never_waits(clock: Clock) -> None:
    """Zero is no limit."""
    limits = SenderRates(0, clock)
    flow = limits.flow("a")
    assert flow.take(10**9) == flow.left() == 0.0
    assert len(limits) == 0


def test_client_of_less_than_one_a_second(clock: Clock) -> None:
    """The first one is waited for as well: the bucket holds half of it."""
    assert SenderRates(0.5, clock).flow(None).take(1) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_clients_of_one_sender_send_no_more_than_one(count: int, clock: Clock) -> None:
    """A second's worth at once and then the rate, shared equally; another sender has its own."""
    limits = SenderRates(1000, clock)
    other = limits.flow("b")
    sent = run(clock, [limits.flow("a") for _ in range(count)], [10.0] * count, 20.0)
    assert 20_000 <= sum(sent) <= 21_000 + 20 * count
    assert max(sent) - min(sent) <= 1000 + 0.1 * max(sent)
    assert other.take(1000) == 0.0


def test_one_that_sends_little_waits_for_its_own_messages_only(clock: Clock) -> None:
    """Whatever debt others of its sender are in."""
    limits = SenderRates(1000, clock)
    flooders = [limits.flow("a") for _ in range(4)]
    assert [flow.take(5000) >= 4.0 for flow in flooders] == [True] * 4
    little = limits.flow("a")
    assert little.take(1) == pytest.approx(5 / 1000)
    clock.now += 5 / 1000
    assert little.left() == 0.0


def test_debt_of_those_who_have_left_is_paid_by_those_who_come(clock: Clock) -> None:
    """To connect again for each burst gains nothing."""
    limits = SenderRates(1000, clock)
    sent = 0
    for _ in range(200):
        flow = limits.flow("a")
        while wait := flow.left():
            clock.now += wait
        sent += 500
        flow.take(500)
        flow.end()
    assert sent <= 1000 + 1000 * (clock.now - 1000.0) + 500 + 1


def test_publisher_has_its_share_beside_clients_in_debt(clock: Clock) -> None:
    """It is one client more, and is refused what is above that; it pays from the same bucket."""
    limits = SenderRates(1000, clock)
    flow = limits.flow("a")
    flow.take(11_000)
    assert limits.take("a") == 0.0
    wait = limits.take("a")
    assert wait == pytest.approx(3 / 1000)
    clock.now += wait
    assert limits.take("a") == 0.0
    clock.now += 11
    assert flow.left() == 0.0
    assert sum(limits.take("a") == 0.0 for _ in range(2000)) <= 1000


def test_bucket_of_a_client_is_kept_while_it_is_connected(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many addresses come; then it is forgotten, and nothing is left of it."""
    monkeypatch.setattr(rates, "MAX_SENDERS", 3)
    limits = SenderRates(1000, clock)
    flow = limits.flow("a")
    flow.take(2000)
    for number in range(100):
        limits.take(str(number))
    assert len(limits) == 4
    assert limits.flow("a").take(1) > 0.0
    for number in range(100):
        limits.take(str(number))
    del flow
    assert len(limits) == 3
    assert limits.flow("a").take(1000) == 0.0


def test_debts_end_with_those_who_have_them(clock: Clock) -> None:
    """What is kept of a sender is one number for each debt, until it is paid."""
    limits = SenderRates(1000, clock)
    keep = limits.flow("a")
    for _ in range(300):
        flow = limits.flow("a")
        flow.take(10)
        flow.take(10)
        flow.end()
    bucket = bucket_of(limits, "a")
    assert len(bucket.debts) <= 300 and bucket.debts == sorted(bucket.debts)
    clock.now += 6.0
    assert keep.take(0) == 0.0 and not bucket.debts and bucket.tokens == pytest.approx(1000)


def test_bytes_and_requests_cost_as_messages_do(clock: Clock) -> None:
    """Less where the rate is not there to spare the CPU: a page must still load."""
    limits = SenderRates(10_000, clock)
    assert limits.bytes_cost(4095, rates.PARSED_BYTES) == 0.0
    assert limits.bytes_cost(1 << 20, rates.PARSED_BYTES) == 256.0
    assert limits.bytes_cost(1 << 20, rates.COPIED_BYTES) == 64.0
    assert limits.request_cost == 5.0
    assert SenderRates(100_000, clock).request_cost == 5.0
    assert SenderRates(10, clock).request_cost == pytest.approx(0.005)
