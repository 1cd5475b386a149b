"""The soak: that it finds what it looks for, and a short one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest

from ..support import TEXT, running_hub, stress_size
from .driver import Driver, Latency
from .order import Order, Violation, make_key, pack_id, unpack_id
from .run import Plan, soak
from .senders import JsonMember, Referee
from .track import Track
from .wire import Events, Frames, Head, key_of, payload_of

pytestmark = pytest.mark.slow


SENDER, OTHER = 2, 3


class Case:
    """A room with the messages 0 to 9, of two senders in turn, and a reader that knows all ids."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.order = Order("/r", 1000)
        self.track = Track(self.order, "the reader", self.latencies.append)
        self.keys = [make_key((SENDER, OTHER)[n % 2], n // 2) for n in range(10)]
        self.sent = 0

    def send(self, count: int, *, answered: bool = False) -> None:
        """Let the next messages be sent."""
        for key in self.keys[self.sent : self.sent + count]:
            self.sent += 1
            self.order.sending(key, self.sent, float(self.sent), answered=answered)

    def see(self, count: int) -> None:
        """Let the referee see the next messages."""
        for number in range(len(self.order), len(self.order) + count):
            self.order.append(self.id(number), self.keys[number], 1)
        self.order.settle(0.0)

    def id(self, number: int) -> int:
        """Return the id of a message; its time is 100 ms and its sequence one more."""
        return pack_id(f"100-{number + 1}")

    def read(self, *numbers: int, with_id: bool = True) -> None:
        """Let the reader get messages."""
        for number in numbers:
            self.track.message(self.keys[number], self.id(number) if with_id else None, 100.0)


def begun(exclude: int | None = None) -> Case:
    """The reader has come when three messages were there, and five of ten are seen."""
    found = Case()
    found.send(3)
    found.see(3)
    found.track.begin(exclude)
    found.track.joined(3)
    found.send(7)
    found.see(2)
    return found


@pytest.fixture
def case() -> Case:
    """A reader that sends nothing."""
    return begun()


def finish(case: Case) -> None:
    """Nothing more will come: compare everything."""
    case.order.is_complete = True
    case.track.complete()
    case.track.settle()
    assert case.track.is_settled
    case.order.settle(math.inf)


# -- The order of a room -----------------------------------------------------------------------


def test_ids_are_numbers_that_grow() -> None:
    """And can be given back."""
    assert pack_id("1-2") < pack_id("1-10") < pack_id("2-0") < pack_id("1795586400123-0")
    assert unpack_id(pack_id("1795586400123-77")) == "1795586400123-77"


def test_order_is_that_of_ids_and_of_each_sender() -> None:
    """An id that is not greater, a sender's message out of turn, and one that nobody has sent."""
    for id, key in ((2, 3), (3, 2), (3, 5), (3, None)):
        case = Case()
        case.send(10)
        case.see(3)
        with pytest.raises(Violation):
            case.order.append(case.id(id), make_key(9, 0) if key is None else case.keys[key], 1)


def test_acknowledged_message_comes_with_that_id_once() -> None:
    """Whatever is known first, the answer or the message."""
    case = Case()
    case.send(4, answered=True)
    case.see(1)
    for number in (0, 1):
        case.order.accepted(case.keys[number], case.id(number))
    case.see(1)
    for number, id in ((0, 0), (2, 9)):
        with pytest.raises(Violation):
            case.order.accepted(case.keys[number], case.id(id))
            case.see(1)


def test_what_a_sender_is_owed_is_checked_at_the_end() -> None:
    """All of one that has left in order, all that was acknowledged, and an answer to everything."""
    case = Case()
    case.send(2)
    case.see(2)
    case.order.finished(SENDER, 1)
    case.order.check_senders()
    case.order.finished(OTHER, 2)
    with pytest.raises(Violation, match="1 of 2 messages of sender 3"):
        case.order.check_senders()
    for acts in ("an", "a"):
        case = Case()
        case.send(1, answered=True)
        if "n" in acts:
            case.see(1)
        else:
            case.order.accepted(case.keys[0], case.id(0))
        with pytest.raises(Violation, match="acknowledged"):
            case.order.check_senders()


# -- A reader's place in it --------------------------------------------------------------------


@pytest.mark.parametrize("with_id", [True, False])
def test_reader_gets_all_from_where_it_came(case: Case, with_id: bool) -> None:
    """Also what the referee sees later than it."""
    case.read(*range(3, 10), with_id=with_id)
    assert (case.track.received, case.track.is_settled) == (2, False)
    case.see(5)
    finish(case)
    assert (case.track.received, case.track.last) == (7, case.id(9))
    assert case.latencies == [100.0 - number for number in range(4, 11)]


def test_reader_need_not_get_what_was_sent_before_it_came(case: Case) -> None:
    """But may: it was on its way."""
    case.order.ticks[3] = 3
    case.read(4)
    assert case.track.received == 1


# What is read, and what is told then.
FAULTS: dict[str, tuple[tuple[int, ...], Callable[[Case], None] | None]] = {
    "a hole": ((3, 5), None),
    "a hole at the beginning": ((4,), None),
    "a repetition": ((3, 4, 4), None),
    "a swap": ((4, 3), None),
    "something old": ((2,), None),
    "a stranger": ((), lambda case: case.track.message(make_key(9, 0), None, 0.0)),
    "another id": ((), lambda case: case.track.message(case.keys[3], case.id(4), 0.0)),
    "too little": ((3, 4, 5, 6, 7, 8), None),
    "nothing": ((), None),
    "an acknowledgement that overtakes": ((3,), lambda case: case.track.reached(case.id(5))),
    "to resume too late": ((3,), lambda case: case.track.reached(case.id(4), exactly=True)),
    "to resume too early": ((3, 4), lambda case: case.track.reached(case.id(3), exactly=True)),
    "a gap for nothing": ((3,), lambda case: case.track.gap(case.id(4), 10, 0.0)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found(case: Case, fault: str) -> None:
    """Each of them, at the end at the latest."""
    case.order.ring_bytes = 1 << 20
    with pytest.raises((Violation, AssertionError)):
        numbers, tell = FAULTS[fault]
        case.read(*numbers)
        if tell is not None:
            tell(case)
        case.see(5)
        finish(case)


def test_own_messages_are_left_out() -> None:
    """And must not come; on resuming as another client they must."""
    case = begun(OTHER)
    case.see(5)
    case.read(4, 6, 8)
    case.track.resume(None, case.id(6))
    case.read(7, 8, 9)
    finish(case)
    case.track.resume(OTHER, case.id(6))
    with pytest.raises(Violation):
        case.read(7)


def test_evicted_reader_resumes_behind_what_it_got() -> None:
    """The id is that of its last message, or of one of its own behind it."""
    case = begun(OTHER)
    case.see(5)
    case.read(4)
    case.track.reached(case.id(5), exactly=True)
    assert case.track.last == case.id(5)
    case.track.resume(None, case.id(5))
    case.read(6, 7, 8, 9)
    finish(case)


def test_gap_is_right_where_the_ring_is_too_small(case: Case) -> None:
    """What comes next is behind it."""
    case.see(5)
    case.read(3)
    case.track.gap(case.id(7), 10, 0.0)
    case.read(8, 9)
    finish(case)


def test_referee_may_see_later_what_has_filled_the_ring(case: Case) -> None:
    """But only what had been sent when the gap came."""
    case.order.ring_bytes = 3 * 2048
    case.read(3)
    # Behind message 3 three had been sent by then: 4, 5 and 6.
    case.track.gap(case.id(4), 7, 0.0)
    case.order.settle(1.0)
    case.see(5)
    case.order.settle(math.inf)
    # Now it is only one.
    case.track.gap(case.id(5), 6, 0.0)
    with pytest.raises(Violation, match="there was room for all of it"):
        case.order.settle(math.inf)


# -- What comes over the wire ------------------------------------------------------------------


def test_payload_says_what_it_must_be() -> None:
    """One changed character is found."""
    for seq in range(10):
        data = payload_of(7, seq, 100)
        assert isinstance(data, bytes) == (seq % 8 == 0)
        assert key_of(data) == (make_key(7, seq), 100)
        with pytest.raises(Violation):
            key_of(data[:-1])
    with pytest.raises(Violation):
        key_of("something else")


def test_wire_may_be_cut_anywhere() -> None:
    """Frames, heads and events are whole when their last byte is there."""
    frames = Frames()
    stream = b"\x81\x01a\x82\x7e\x00\x7e" + bytes(126)
    found = [frame for byte in stream for frame in frames.feed(bytes([byte]))]
    assert found == [(TEXT, b"a"), (2, bytes(126))]
    for unlawful in (b"\xc1\x00", b"\x01\x00", b"\x81\x81", b"\x81\x7e\x00\x01"):
        with pytest.raises(Violation):
            list(Frames().feed(unlawful))
    head = Head()
    rests = [head.feed(bytes([byte])) for byte in b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"]
    assert (rests[-1], rests[-2], head.status, head.headers) == (b"", None, 200, {"a": "b"})
    events = Events()
    stream = b":\n\nid: 1-1\ndata: a\ndata: \ndata: b\n\nretry: 5\n\n"
    assert [fields for byte in stream for fields in events.feed(bytes([byte]))] == [
        {"id": "1-1", "data": "a\n\nb"},
        {"retry": "5"},
    ]


def test_latency_is_told_by_shares() -> None:
    """Within a twelfth; of nothing it is nothing."""
    latency = Latency()
    assert latency.milliseconds(0.5, 1.0) == [0.0, 0.0]
    for milliseconds in range(1, 101):
        latency.add(milliseconds / 1000)
    half, most, all_of_them = latency.milliseconds(0.5, 0.99, 1.0)
    assert 50 <= half <= 55 and 99 <= most <= all_of_them <= 110


def test_client_does_not_leave_before_it_knows_what_to_send_again() -> None:
    """What came behind its Close would not be acknowledged, which is no fault of the hub's."""

    class Hasty(JsonMember):
        def _settle_in(self) -> None:
            super()._settle_in()
            if self._unacked:
                self._leave()

        @property
        def is_welcome(self) -> bool:
            return self._welcomed

        def say(self, size: int) -> None:
            self._say(size)

        def leave_if_it_may(self) -> None:
            self._leave()

    with running_hub() as hub:
        order = Order("/soak/0", 1 << 20)
        driver = Driver(hub.port, "token", 1, [order])
        referee = Referee(driver, order)
        member = Hasty(driver, order, speaks=True, mean=1e6)
        try:

            def wait_for(done: Callable[[], bool]) -> None:
                assert driver.run_until(time.monotonic() + 15, done)

            referee.join()
            member.join()
            wait_for(lambda: referee.here and member.is_welcome)
            member.say(1)
            member.reset()
            member.join()
            assert not member.is_up_to_date
            wait_for(lambda: member.is_up_to_date)
            member.leave_if_it_may()
            wait_for(lambda: not member.here)
            assert driver.counts["left in order"] == 1
        finally:
            referee.close()
            member.close()
            driver.close()


# -- The whole ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients", "seconds"),
    [
        (40, 3),
        pytest.param(100, stress_size(40, 8), marks=pytest.mark.stress),
    ],
)
def test_short_soak_finds_nothing(clients: int, seconds: int) -> None:
    """All kinds of clients at once, and everything comes once and in order."""
    lines: list[str] = []
    counts = soak(Plan(seconds, clients, seed=1, every=10, haste=10), lines.append)
    assert counts["messages"] > clients and counts["received"] > counts["messages"]
    assert any(line.startswith("latency in ms: p50 ") for line in lines)
