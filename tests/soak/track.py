"""What must hold: a reader's place in the one order of its room's messages. No I/O.

A reader notes what comes and is compared with the order as far as that is known. It is at a
position; the next message that it may get is the one there, unless that is its own. So a hole, a
repetition, a swap and a stranger all look alike: another message than the one that had to come.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections import deque
from collections.abc import Callable

from .order import SEQ_BITS, Order, Violation, show, unpack_id


@dataclasses.dataclass
class _Message:
    key: int
    id: int | None
    at: float


@dataclasses.dataclass
class _Upto:
    """Everything up to an id has come; ``exactly``: and nothing after it."""

    id: int
    exactly: bool


@dataclasses.dataclass
class _All:
    """Everything before this position has come."""

    position: int


@dataclasses.dataclass
class _Gap:
    """What comes next is after this id."""

    after: int
    tick: int
    at: float


class Track:
    """The place of one reader, over all of its connections that resume each other.

    Args:
        order: that of its room.
        who: its name in a violation.
        on_latency: called with the seconds from sending to receiving of what came at once.
    """

    def __init__(self, order: Order, who: str, on_latency: Callable[[float], None]) -> None:
        self.order = order
        self.who = who
        self.in_time = True  # its latency counts
        self.received = 0
        self._on_latency = on_latency
        self._exclude: int | None = None
        self._pending: deque[_Message | _Upto | _All | _Gap] = deque()
        # The next position, behind its own messages; None while it is not known where it began.
        self._position: int | None = None
        self._after: int | None = None  # the id that it goes on from, to be looked up
        self._low = 0
        self._tick = 0
        self.last: int | None = None  # the id to resume from

    def begin(self, exclude: int | None, history: int = 0) -> None:
        """Ask to join without an id: it may begin here or later, or with some old messages."""
        assert self.last is None
        self._exclude = exclude
        self._position = self._after = None
        self._low = max(0, len(self.order) - history)

    def joined(self, tick: int) -> None:
        """Note when it was let in: what is sent from now on must come."""
        self._tick = tick

    def resume(self, exclude: int | None, after: int) -> None:
        """Ask to join with an id."""
        self._exclude = exclude
        self._after = self.last = after
        self._position = None

    @property
    def place(self) -> int:
        """The position that it is at, or may have begun at."""
        if self._position is not None:
            return self._position
        return self._low if self._after is None else bisect_right(self.order.ids, self._after)

    @property
    def is_up_to_date(self) -> bool:
        """Whether it has got all that there is."""
        if self._pending:
            return False
        if self._position is None and self._after is None:
            later = range(self._low, len(self.order))
            return all(self._is_own(at) or self.order.ticks[at] <= self._tick for at in later)
        return self._skip_own(self.place) == len(self.order)

    @property
    def is_settled(self) -> bool:
        """Whether all that came was compared."""
        return not self._pending

    def message(self, key: int, id: int | None, at: float) -> None:
        """Take a message; the id if the reader is told it."""
        self._add(_Message(key, id, at))

    def reached(self, id: int, *, exactly: bool = False) -> None:
        """Take an acknowledgement, which never overtakes a message, or the id of an eviction."""
        self._add(_Upto(id, exactly))

    def gap(self, after: int, tick: int, now: float) -> None:
        """Take the news that something is missing; see ``Order.claim_trimmed``."""
        self._add(_Gap(after, tick, now))

    def complete(self, position: int | None = None) -> None:
        """Note that everything that was there at that length of the order must have come."""
        self._add(_All(len(self.order) if position is None else position))

    def _add(self, item: _Message | _Upto | _All | _Gap) -> None:
        self._pending.append(item)
        if len(self._pending) == 1:
            self.settle()

    def settle(self) -> None:
        """Compare what came with the order, as far as it goes."""
        while self._pending:
            if not self._take(self._pending[0]):
                self.order.waiting[self.settle] = None
                return
            self._pending.popleft()

    def _take(self, item: _Message | _Upto | _All | _Gap) -> bool:
        """Do one step; return False if the order does not go so far yet."""
        order = self.order
        newest = order.ids[-1] if order.ids else -1
        if order.is_complete:
            newest = 1 << 64
        if self._position is None and self._after is not None:
            if newest < self._after and not isinstance(item, _All):
                return False
            self._position, self._after = bisect_right(order.ids, self._after), None
        if isinstance(item, _All):
            self._need(item.position, "has not come")
            return True
        if isinstance(item, _Upto):
            if newest < item.id:
                return False
            target = bisect_right(order.ids, item.id)
            self._need(target, f"has not come before {unpack_id(item.id)}")
            if self._position is None:
                self._position = target
            if item.exactly:
                self._need_not_after(target)
                self.last = item.id
            return True
        if isinstance(item, _Gap):
            return self._take_gap(item, newest)
        if self._position is None:
            found = self._find(item.key)
            if found is None:
                return False
            self._need(found, "has not come")
            self._position = found
        else:
            self._position = self._skip_own(self._position)
        if self._position == len(order):
            return False
        key = order.keys[self._position]
        if key != item.key:
            raise Violation(
                f"{self.who}: {show(item.key)} came where {show(key)} had to come, "
                f"{unpack_id(order.ids[self._position])} of {order.path}"
            )
        id = order.ids[self._position]
        if item.id is not None and item.id != id:
            raise Violation(f"{self.who}: {show(key)} has another id here: {unpack_id(item.id)}")
        if self.in_time and order.ticks[self._position] > self._tick:
            self._on_latency(item.at - order.times[self._position])
        self.last = id
        self.received += 1
        self._position += 1
        return True

    def _take_gap(self, item: _Gap, newest: int) -> bool:
        if self._position is None:
            raise Violation(f"{self.who} got a gap without having missed anything")
        if newest < item.after:
            return False
        target = bisect_right(self.order.ids, item.after)
        if target < self._position:
            raise Violation(f"{self.who} got a gap up to {unpack_id(item.after)}, which it has got")
        self.order.claim_trimmed(self._position, item.tick, item.at, self.who)
        self._position, self.last = target, item.after
        return True

    def _find(self, key: int) -> int | None:
        for position in range(self._low, len(self.order)):
            if self.order.keys[position] == key:
                return position
        return None

    def _is_own(self, position: int) -> bool:
        return self.order.keys[position] >> SEQ_BITS == self._exclude

    def _skip_own(self, position: int) -> int:
        while position < len(self.order) and self._is_own(position):
            position += 1
        return position

    def _need(self, target: int, what: str) -> None:
        """Check that nothing before the target is still to come."""
        position = self._low if self._position is None else self._position
        while position < target:
            # Where it began is not known: what was sent before it was let in may be before that.
            early = self._position is None and self.order.ticks[position] <= self._tick
            if not early and not self._is_own(position):
                raise Violation(
                    f"{self.who}: {show(self.order.keys[position])}, "
                    f"{unpack_id(self.order.ids[position])} of {self.order.path}, {what}"
                )
            position += 1
        if self._position is not None:
            self._position = position

    def _need_not_after(self, target: int) -> None:
        """Check that it has not got more than what is before the target."""
        assert self._position is not None
        for position in range(target, self._position):
            if not self._is_own(position):
                raise Violation(f"{self.who} is to resume before what it has got")
        self._position = target
