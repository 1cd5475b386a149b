"""What must hold: the one order of a room's messages, and a reader's place in it. No I/O.

A member of each room that never stalls, its referee, gets all messages with their ids: what it sees
is the order. Every other reader notes what comes and is compared with the order as far as that is
known. A reader is at a position; the next message that it may get is the one there, unless that is
its own. So a hole, a repetition, a swap and a stranger all look alike: another message than the one
that had to come.
"""

from __future__ import annotations

import dataclasses
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable

# Within this time the referee must have got what others know already.
CLAIM_SECONDS = 30.0

# Of a message's key, which is its sender's number and its own.
_SEQ_BITS = 32


class Violation(Exception):
    """The hub has broken a promise."""


def pack_id(text: str) -> int:
    """Return a message's id as a number that grows as it does."""
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds) << 20 | int(sequence)


def unpack_id(id: int) -> str:
    """Return the id again."""
    return f"{id >> 20}-{id & 0xFFFFF}"


def make_key(sender: int, seq: int) -> int:
    """Return what names a message before it has an id."""
    return sender << _SEQ_BITS | seq


def show(key: int) -> str:
    """Return a key for people."""
    return f"message {key & 0xFFFFFFFF} of sender {key >> _SEQ_BITS}"


@dataclasses.dataclass
class _Claim:
    """The hub says that what comes from a position on is not held any more."""

    position: int
    tick: int
    deadline: float
    who: str


class Order:
    """The messages of one room, as its referee sees them.

    Args:
        path: the room.
        ring_bytes: how much the hub holds of it.
    """

    def __init__(self, path: str, ring_bytes: int) -> None:
        self.path = path
        self.ring_bytes = ring_bytes
        self.ids = array("Q")
        self.keys = array("Q")
        self.ticks = array("Q")  # the count of all sends when it was sent
        self.times = array("d")  # when it was sent
        self.costs = array("Q")  # in the hub's log, at most
        self.waiting: dict[Track, None] = {}  # readers that wait for more of it
        self.is_complete = False  # nothing more will come
        self._sent: dict[int, tuple[int, float]] = {}
        self._next: dict[int, int] = {}  # of each sender
        self._must: dict[int, int] = {}  # how many of a sender must come
        self._accepted: dict[int, int] = {}  # acknowledged, not seen yet
        self._unanswered: dict[int, int] = {}  # seen, not acknowledged yet
        self._claims: list[_Claim] = []

    def __len__(self) -> int:
        return len(self.ids)

    def sending(self, key: int, tick: int, now: float, *, answered: bool) -> None:
        """Note that a message is about to be sent.

        Args:
            answered: whether its sender will be told its id.
        """
        self._sent[key] = (tick, now)
        if answered:
            self._unanswered[key] = 0

    def resending(self, key: int, now: float) -> None:
        """Note that a message is sent again, since nobody knows whether it has come."""
        if key in self._sent:
            self._sent[key] = (self._sent[key][0], now)

    def append(self, id: int, key: int, size: int) -> None:
        """Take the next message from the referee."""
        if self.ids and id <= self.ids[-1]:
            raise Violation(f"{self.path}: {unpack_id(id)} came after {unpack_id(self.ids[-1])}")
        sender, seq = key >> _SEQ_BITS, key & 0xFFFFFFFF
        if seq != self._next.get(sender, 0):
            raise Violation(
                f"{self.path}: {show(key)} came where {self._next.get(sender, 0)} had to come"
            )
        if key not in self._sent:
            raise Violation(f"{self.path}: {show(key)} was never sent here")
        self._next[sender] = seq + 1
        tick, at = self._sent.pop(key)
        self.ids.append(id)
        self.keys.append(key)
        self.ticks.append(tick)
        self.times.append(at)
        # Frame, JSON, two kinds of server-sent event, and what an entry counts beside them.
        self.costs.append(2048 + 8 * size)
        if key in self._accepted:
            self._compare(key, self._accepted.pop(key), id)
            self._unanswered.pop(key, None)
        elif key in self._unanswered:
            self._unanswered[key] = id

    def accepted(self, key: int, id: int) -> None:
        """Take what a sender was told about its message."""
        seen = self._unanswered.get(key)
        if seen is None or key in self._accepted:
            raise Violation(f"{self.path}: {show(key)} was acknowledged twice")
        if seen:
            del self._unanswered[key]
            self._compare(key, id, seen)
        else:
            self._accepted[key] = id

    def _compare(self, key: int, told: int, id: int) -> None:
        if told != id:
            raise Violation(
                f"{self.path}: {show(key)} was acknowledged as {unpack_id(told)}, "
                f"and has the id {unpack_id(id)}"
            )

    def has_all(self, sender: int, count: int) -> bool:
        """Tell whether all that a sender has sent is here."""
        return self._next.get(sender, 0) >= count

    def finished(self, sender: int, count: int) -> None:
        """Note that so many messages of a sender were taken in good order: all must come."""
        self._must[sender] = count

    def check_senders(self) -> None:
        """Check, at the end, that all is here that had to come."""
        for sender, count in self._must.items():
            if not self.has_all(sender, count):
                raise Violation(
                    f"{self.path}: {self._next.get(sender, 0)} of {count} messages of sender "
                    f"{sender} have come"
                )
        for key in self._accepted:
            raise Violation(f"{self.path}: {show(key)} was acknowledged and never came")
        for key, id in self._unanswered.items():
            came = f"came as {unpack_id(id)}" if id else "never came"
            raise Violation(f"{self.path}: {show(key)} was never acknowledged, and {came}")

    def claim_trimmed(self, position: int, tick: int, now: float, who: str) -> None:
        """Note that the hub says that it does not hold everything from a position on any more.

        That is so if what was sent until now fills its ring; the referee may see it a moment later.

        Args:
            tick: the count of all sends by now.
        """
        self._claims.append(_Claim(position, tick, now + CLAIM_SECONDS, who))

    def settle(self, now: float) -> None:
        """Let the readers go on that have waited, and look at what the hub has claimed."""
        waiting, self.waiting = self.waiting, {}
        for track in waiting:
            track.settle()
        if self._claims:
            self._claims = [claim for claim in self._claims if not self._is_true(claim)]
            for claim in self._claims:
                if now > claim.deadline:
                    raise Violation(
                        f"{claim.who} was told that {self.path} does not hold what came after "
                        f"message {claim.position} any more, and there was room for all of it"
                    )

    def _is_true(self, claim: _Claim) -> bool:
        """Whether a ring, but for the sixteenth that is trimmed at once, has been filled since.

        What entries cost is counted too high here, never too low.
        """
        later = range(claim.position, len(self))
        cost = sum(self.costs[place] for place in later if self.ticks[place] <= claim.tick)
        return cost >= self.ring_bytes * 7 // 8


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
                self.order.waiting[self] = None
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
        return self.order.keys[position] >> _SEQ_BITS == self._exclude

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
