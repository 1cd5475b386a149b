"""What the logs of all rooms take of memory, and who gives when that is too much.

Forms go first, since they can be made again; then whoever's rooms hold most gives: an empty room,
or the oldest messages of the largest log. Everything here runs on the fan-out's thread.
"""

from __future__ import annotations

import itertools
import select
import time
from collections import Counter, OrderedDict

from ...settings import Settings
from ..rooms.encodings import ALL, RAW, Form
from ..rooms.registry import RoomRegistry
from ..rooms.room import Room
from ..rooms.shares import Sizes
from .connection import Connection
from .writer import ClientWriter

# Where more than one part in so many of the memory of all logs is forms of messages that clients
# have got in part, who takes nothing for so long is cut off when there is too little.
HOLDERS_SHARE = 4
HOLDER_SECONDS = 1.0
# Where nothing could go, it is looked again after so long: for a form that is wanted; whether who
# holds some can be cut off; and for all logs, after so many times as long as the look has taken.
LOOK_SECONDS = 0.01
CUT_SECONDS = 0.25
REST_SHARE = 4
# ... unless all logs have grown by such a part of what they may take since then.
GROWTH_SHARE = 64
# The first 64 clients are cut off one by one, with a look after each whether that is enough; more
# of them in groups of 64.
CUT_GROUP = 64
# Where all logs hold so much more than they may, large messages wait.
GATE_SHARE = 8
# Whose rooms hold less than this part of what the one with most holds gives nothing for it.
SPARED_SHARE = 4
# Those that can be made again.
FORMS = tuple(form for form in ALL if form is not RAW)


class Accounts:
    """What all logs hold.

    Args:
        settings: the hub's limits.
        rooms: the hub's rooms.
        writer: serves and ends clients.

    Attributes:
        total: what all logs cost, in bytes.
        forms: what of it are forms that can be made again.
    """

    def __init__(
        self, settings: Settings, rooms: RoomRegistry[Connection], writer: ClientWriter
    ) -> None:
        self._settings = settings
        self._rooms = rooms
        self._writer = writer
        writer.memory = self
        self.total = 0
        self.forms = 0
        self._sizes: Sizes[str | None] = Sizes()  # of it, by who has made the rooms
        # Rooms that hold forms; those of which some were made last come last.
        self._formed: OrderedDict[Room[Connection], None] = OrderedDict()
        # Clients that have got a part of a message which no log holds any more, and some who had.
        self._held: dict[Connection, None] = {}
        self._tight_until = 0.0  # no place for forms was found, and until when none is looked for
        self._cut_at = 0.0  # when it is looked again who can be cut off
        self._shrink_at = 0.0  # when it is looked again what can go
        self._shrink_total = 0  # ... or when all logs take more than this
        self._lacks = False  # no place for forms was found since it was looked who can be cut off
        self._held_more = False  # `_held` has grown since it was bounded
        # One message has to fit, in its largest form.
        largest = max(form.growth * settings.max_message_bytes + form.overhead for form in ALL)
        self._most_held = max(settings.total_log_bytes // HOLDERS_SHARE, largest)

    def mind_gate(self) -> None:
        """Let large messages wait while all logs hold a good deal more than they may: what was not
        offered to anybody yet cannot go."""
        self._rooms.gate.set(self.is_far_too_full)

    @property
    def is_far_too_full(self) -> bool:
        """Whether all logs hold a good deal more than they may."""
        limit = self._settings.total_log_bytes
        return self.total > limit + limit // GATE_SHARE

    def account(self, room: Room[Connection]) -> None:
        """Trim the room's log to its size, and all logs to their total."""
        if room.cost > room.ring_bytes:
            # A sixteenth more than needed: moving the list costs the same for one entry as for
            # many.
            self._trim(room, room.ring_bytes - room.ring_bytes // 16)
            if room.cost > room.ring_bytes:
                self._drop_of(room)
        self.count(room)
        self.shrink()

    def shrink(self) -> None:
        """Let things go until all logs are within their total, as far as that is possible now. It
        rests for a while after a time when nothing more could go."""
        limit = self._settings.total_log_bytes
        if self.total <= limit:
            return
        began = time.monotonic()
        if began < self._shrink_at and self.total <= self._shrink_total:
            return
        while self.total > limit:
            # What can be made again goes first.
            if not (
                self.drop_forms() or self._cut_off_holders(limit // HOLDERS_SHARE) or self._give()
            ):
                now = time.monotonic()
                self._shrink_at = now + REST_SHARE * (now - began)
                self._shrink_total = self.total + limit // GROWTH_SHARE
                break

    def make_place(self, room: Room[Connection], size: int) -> bool:
        """Let forms go that are in the way of new ones, as far as that helps; return whether those
        may be made. No client is touched: this may be in the middle of serving one."""
        if not self._has_place(size):
            now = time.monotonic()
            if now >= self._tight_until:
                while not self._has_place(size) and self.drop_forms():
                    pass
                if not self._has_place(size):
                    self._tight_until = now + LOOK_SECONDS
            if not self._has_place(size) and not self._may_exceed(room, size):
                self._lacks = True
                return False
        self._put_last(room)  # counted with what is made next
        return True

    def _put_last(self, room: Room[Connection]) -> None:
        """Note that a room holds forms; those of all others go before them."""
        self._formed[room] = None
        self._formed.move_to_end(room)

    def _has_place(self, size: int) -> bool:
        """Tell whether so many bytes of forms are no more than all logs may take, and all forms no
        more than half of it."""
        limit = self._settings.total_log_bytes
        return self.total + size <= limit and self.forms + size <= limit // 2

    def _may_exceed(self, room: Room[Connection], size: int) -> bool:
        """Tell whether forms may be made where there is no place for them, at the cost of messages.
        The forms there are, which clients have got in part, may be a share of the total. Above it,
        whoever's rooms hold most may not make more; others may, as much as a share in all."""
        limit = self._settings.total_log_bytes
        share = limit // HOLDERS_SHARE
        if not self.forms or self.forms + size <= share:
            return True
        # One that is larger than the share passes beside small ones: one is made at a time.
        if size > share and self.forms <= share // 2:
            return True
        if room.maker == self._sizes.most():
            return False
        return self.total + size <= limit + share and self.forms + size <= limit // 2 + share

    def relieve(self) -> None:
        """Cut off who holds forms without taking them, where others wait for the memory."""
        now = time.monotonic()
        if self._lacks and now >= self._cut_at:
            self._lacks = False
            self._cut_at = now + CUT_SECONDS
            self._cut_off_holders(self._settings.total_log_bytes // (2 * HOLDERS_SHARE))

    def count_forms(self, room: Room[Connection]) -> None:
        """Count forms that were made, in whatever room."""
        self.count(room)
        self.make_place(room, 0)
        if room.forms_bytes and not room.closed:
            self._put_last(room)  # also where there is no place for them

    def drop_forms(self) -> bool:
        """Drop the forms of the room of which none was made for longest; return whether there was
        one with forms that nobody is about to need."""
        for _ in range(len(self._formed)):
            room, _ = self._formed.popitem(last=False)
            dropped = self._drop_of(room)
            if room.forms_bytes:
                self._formed[room] = None
            if dropped:
                self.count(room)
                return True
        return False

    def _cut_off_holders(self, goal: int) -> bool:
        """Cut off clients that take nothing and whose unfinished messages keep forms in memory, who
        takes nothing for longest first, until all forms take no more bytes than the goal; return
        whether there was one."""
        limit = self._settings.total_log_bytes
        if self.forms <= goal:
            return False
        now = time.monotonic()
        before, long_before = now - HOLDER_SECONDS, now - self._settings.write_timeout
        holders = [
            connection
            for room in self._formed
            for connection in room.behind
            if connection.rest is not None and connection.form is not RAW and connection.blocked
            # A client that takes a little all the time holds it as well.
            if connection.blocked_since <= before or connection.rest_since <= long_before
        ]
        # Who would take more waits for the hub.
        poll = select.poll()
        for connection in holders:
            poll.register(connection.sock, select.POLLOUT)
        waiting = {number for number, _ in poll.poll(0)}
        holders = [holder for holder in holders if holder.sock.fileno() not in waiting]
        holders.sort(key=lambda connection: connection.blocked_since)
        # Thousands may hold one message: only the last of them to go lets go of it.
        left = Counter((holder.room, holder.form, holder.cursor) for holder in holders)
        looked: dict[Room[Connection], None] = {}
        for number, holder in enumerate(holders, 1):
            place = (holder.room, holder.form, holder.cursor)
            self._writer.cut_off(holder)
            left[place] -= 1
            if not left[place]:
                looked[holder.room] = None
            if number > CUT_GROUP and number % CUT_GROUP and number < len(holders):
                continue
            dropped = [room for room in looked if self._drop_of(room)]
            for room in dropped:
                self.count(room)
            looked.clear()
            if dropped and (self.total <= limit or self.forms <= goal):
                break
        return bool(holders)

    def _drop_of(self, room: Room[Connection]) -> bool:
        """Drop the forms of a room that nobody is about to need; return whether there were any."""
        needed = self.needed_from(room)
        dropped = [room.drop_forms(form, before) for form, before in needed.items()]
        return any(dropped)

    def needed_from(self, room: Room[Connection]) -> dict[Form, int]:
        """Return for each form the first position of which a client that is served alone still
        needs it. What is sent in part counts: its bytes are in memory as long as they are; but not
        what has gone from the log: who is evicted may take long to go. Nor does what somebody still
        waits for."""
        needed = dict.fromkeys(FORMS, room.offered)
        starved = self._writer.starved
        base = room.base
        for connection in room.behind:
            form = connection.form
            if form is RAW:
                continue
            if connection.rest is not None and connection.cursor > base:
                needed[form] = min(needed[form], connection.cursor - 1)
            elif _is_served(connection) and connection not in starved:
                needed[form] = min(needed[form], connection.cursor)
        return needed

    def _shorten_one(self, room: Room[Connection], *, in_part: bool = False) -> bool:
        """Let the oldest messages of a log go; return whether there were any.

        Args:
            in_part: also where the first one is most of the log and a client has got a part of it.
        """
        base = room.base
        if room.forms_bytes and base < room.head and not in_part:
            (first,) = room.entries(base, base + 1)
            # Where that is most of the log little would go: its bytes stay in memory.
            if 2 * (len(first.frame) + first.forms_bytes()) > room.cost and any(
                one.cursor == base + 1 and one.rest is not None and one.form is not RAW
                for one in room.behind
            ):
                return False
        excess = self.total - self._settings.total_log_bytes
        goal = max(room.cost - excess - room.ring_bytes // 16, 0)
        if self._trim(room, goal) or (
            not self._is_awaited(room) and self._trim(room, goal, keep_newest=False)
        ):
            self.count(room)
            return True
        return False

    def _is_awaited(self, room: Room[Connection]) -> bool:
        """Whether a client is about to get the newest message in a form that was made for it."""
        return bool(room.forms_bytes) and any(
            one.cursor < room.offered
            and one.form is not RAW
            and _takes_more(one)
            and one not in self._writer.starved
            for one in room.behind
        )

    def count(self, room: Room[Connection]) -> None:
        """Put what a room costs now into the total, and into that of its maker."""
        if not room.closed:
            if room.maker != room.counted_for:
                self._sizes.add(room.counted_for, -room.counted_cost)
                room.counted_for = room.maker
                self._sizes.add(room.counted_for, room.counted_cost)
            change = room.cost - room.counted_cost
            self.total += change
            self._sizes.add(room.counted_for, change)
            room.counted_cost += change
            self.forms += room.forms_bytes - room.counted_forms
            room.counted_forms = room.forms_bytes

    def _give(self) -> bool:
        """Let go of something, of whoever's rooms hold most if they can give anything, else of
        others who hold much; return whether there was anything."""
        most = self._sizes.most()
        if self.forget_dropped() or self._give_of(most):
            return True
        least = self._sizes[most] // SPARED_SHARE
        holders = list(
            itertools.takewhile(lambda maker: self._sizes[maker] >= least, self._sizes.descending())
        )
        if any(map(self._give_of, holders)):
            return True
        # Others who hold little must not add to it without end. `bound_held` bounds what stays.
        return self.is_far_too_full and any(self._give_of(maker, in_part=True) for maker in holders)

    def _give_of(self, maker: str | None, *, in_part: bool = False) -> bool:
        """Let an empty room of a maker go, or else the oldest messages of its largest log that can
        be shorter; the newest one goes only if nothing else is left of it. `in_part` is as for
        `_shorten_one`."""
        if self._rooms.drop_empty(maker):
            self.forget_dropped()
            return True
        rooms = self._rooms.made_by(maker)
        if not rooms:
            return False
        if self._shorten_one(max(rooms, key=lambda room: room.counted_cost), in_part=in_part):
            return True
        by_cost = sorted(rooms, key=lambda room: room.counted_cost, reverse=True)
        return any(self._shorten_one(room, in_part=in_part) for room in by_cost)

    def forget_dropped(self) -> bool:
        """Take rooms that were dropped out of the accounts; return whether there were any."""
        dropped = self._rooms.take_dropped()
        for room in dropped:
            self.total -= room.counted_cost
            self.forms -= room.counted_forms
            self._sizes.add(room.counted_for, -room.counted_cost)
            # A client that has left, but has not been sent everything, would keep the whole log.
            self._drop_before(room, room.head)
            self._formed.pop(room, None)
        return bool(dropped)

    def _trim(self, room: Room[Connection], limit_bytes: int, *, keep_newest: bool = True) -> bool:
        """Trim a log; return whether anything could go."""
        base = room.trim_target(limit_bytes, keep_newest=keep_newest)
        if base <= room.base:
            return False
        self._drop_before(room, base)
        return True

    def _drop_before(self, room: Room[Connection], base: int) -> None:
        """Drop the start of a log. Who still needs it and can take it gets it now, the others are
        evicted: only a client that does not take what it was offered is too slow."""
        writer = self._writer
        for connection in list(room.behind):
            while connection.cursor < base and _takes_more(connection):
                if not writer.serve(connection):
                    break
            if connection.cursor < base and _is_served(connection):
                writer.evict_slow(connection)
            if isinstance(connection.rest, memoryview) and connection.cursor <= base:
                self._held[connection] = None
                self._held_more = True
        room.trim(base)

    def bound_held(self) -> None:
        """Cut off clients that have got a part of a message which no log holds any more, who takes
        nothing for longest first, as long as those messages take too much. Nothing else counts
        them. Once in each turn."""
        if not self._held_more:
            return
        self._held_more = False
        holders: dict[Connection, bytes] = {}
        for connection in self._held:
            rest = connection.rest
            if isinstance(rest, memoryview) and connection.cursor <= connection.room.base:
                data = rest.obj  # many may hold the same
                assert isinstance(data, bytes)
                holders[connection] = data
        self._held = dict.fromkeys(holders)
        users = Counter(map(id, holders.values()))
        size = sum({id(data): len(data) for data in holders.values()}.values())
        most = self._most_held
        if size <= most:
            return
        for connection in sorted(holders, key=lambda one: one.blocked_since):
            data = holders.pop(connection)
            del self._held[connection]
            self._writer.cut_off(connection)
            users[id(data)] -= 1
            if not users[id(data)]:
                size -= len(data)
                if size <= most:
                    break


def _is_served(connection: Connection) -> bool:
    """Whether a client is still to get messages."""
    return not (connection.final is not None or connection.close_sent or connection.dropped)


def _takes_more(connection: Connection) -> bool:
    """Whether a client is still to get messages and its socket takes some."""
    return _is_served(connection) and not connection.blocked
