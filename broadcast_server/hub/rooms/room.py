"""A room: its log of messages, what is reserved in it, and how far the fan-out has got.

The log is a list of entries, indexed by position since the room began: ``base`` is the position of
the first one still held, ``head`` the one that the next message will get. Publishers append at the
head. The fan-out offers entries to members and moves ``offered`` up to the head; it alone trims the
front, and never what it has not offered yet.

Back-pressure is the distance between the two: publishers pause when more than a quarter of the ring
is not offered yet and go on below an eighth. So a publisher waits for the fan-out, which never
waits for anybody, and not for a slow client.

Who is in the room is in ``presence``.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Generic

from ...errors import HubBusy
from ...messages import Id, Member, format_id
from .encodings import RAW, Form
from .entries import ENTRY_BYTES, Draft, Entry, cost_of, sender_bytes
from .presence import Roster
from .subscriber import S
from .waiters import Bells, Gate

# A wait for the fan-out is cut into pieces of this length: whoever waits looks up whether its
# client or the hub is gone, even if nobody woke it.
WAIT_SECONDS = 0.1
# A batch that costs no more passes the gate: who says little does not wait for those who send much.
GATE_BYTES = 64 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Joined(Generic[S]):
    """What a join has come to.

    Attributes:
        after: the id after which the client begins; empty if a gap was queued, which tells it.
        told: the clients for which something was queued.
        replaced: of two connections of one client the older one, which is to be closed: mostly the
            one whose place the new one has taken; the new one itself if it was overtaken.
    """

    after: str
    told: list[S]
    replaced: S | None


class Room(Roster[S]):
    """One room. Generic in the class of its clients: in a hub they are ``Connection`` objects.

    Methods run on any thread, except those under the banner of the fan-out.

    Args:
        path: the room's path.
        floor: the newest id of the hub when the room began; nothing after it is missing.
        ring_bytes: how much the log holds, frames plus ``ENTRY_BYTES`` for each.
        maker: the sender for whom it counts, as ``networks.owner_of`` says; None for the hub's own
            program.
        gate: shut while all rooms together hold too much; None for none.
    """

    def __init__(
        self,
        path: str,
        floor: tuple[int, int],
        ring_bytes: int,
        maker: str | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.path = path
        # Both are guarded by the registry's lock; others may look.
        self.maker = maker
        self.claimed = False  # somebody has had a message for it, and it counts for them
        self.ring_bytes = ring_bytes
        # Makes `lock`, which guards closed, _entries, _base, _dropped_bytes, _floor, _offered,
        # _reserved and _paused as well. Taken after the backplane's and before a subscriber's.
        super().__init__()
        self._space = Bells()  # rung when publishers may go on
        self._gate = gate or Gate()
        self.closed = False
        self._entries: list[Entry] = []
        self._base = 0
        self._dropped_bytes = 0  # bytes of the frames before _base
        self._floor = floor
        self._offered = 0
        self._reserved = 0  # cost of batches between reserve() and append()
        self._paused = False
        # The fan-out's own, touched by no other thread. `in_step` holds the clients that are at
        # `_offered` with nothing else to send, `behind` all others.
        self.in_step: defaultdict[Form, dict[S, None]] = defaultdict(dict)
        self.behind: dict[S, None] = {}
        self.counted_cost = 0
        self.counted_forms = 0
        self.counted_for = maker
        # Of the entries that are held, beside their frames; others read it for their sizes.
        self.forms_bytes = 0
        self._formless: dict[Form, int] = {}  # no entry before this position has it
        self.due = float("inf")  # its place in the fan-out's timers
        self.counted_at = 0.0  # when the last `count` went out

    # -- Joining: reader threads ---------------------------------------------------------------

    def join(
        self,
        subscriber: S,
        history: int,
        since: Id | None,
        *,
        gap: str | None = None,
        since_text: str = "",
        welcome: Callable[[list[Member], str, str], bytes] | None = None,
    ) -> Joined[S] | None:
        """Make a client a member, fix where its reading begins, and tell the others.

        Args:
            subscriber: the client.
            history, since: what it wants to read first.
            gap: why nothing before the room's log can be known to have been read, if so.
            since_text: ``since`` as the client has written it.
            welcome: makes its first event of the members, the newest id and the one before its
                cursor; called with the lock held.

        Returns:
            None if the room has been dropped in the meantime: open it anew.

        Raises:
            LookupError: the log cannot replay what comes after ``since``, and there is no way to
                tell the client so.
        """
        with self.lock:
            if self.closed:
                return None
            head = self._base + len(self._entries)
            if since is None:
                subscriber.cursor = max(self._base, head - history)
            else:
                if gap is None and since < self._floor:
                    gap = "trimmed"
                if gap is not None and subscriber.form is RAW:
                    raise LookupError("the messages after this id are not held any more")
                subscriber.cursor = self._base if gap is not None else self._position_after(since)
            # Of a client that resumes its own id: the room's may be older.
            after = self.id_before(subscriber.cursor) if since is None or gap else since
            subscriber.joined_after = after
            subscriber.skips_to = head if since is None else subscriber.cursor
            replaced, told = self._enter_locked(subscriber)
            first = b""
            again: Callable[[str], bytes] | None = None
            if welcome is not None:
                members = [member.member for member in self.members.values()]
                newest = format_id(*self.id_before(head))
                first = welcome(members, newest, format_id(*after))
                if subscriber.cursor < subscriber.skips_to:
                    again = functools.partial(welcome, members, newest)
            if gap is not None:
                first += subscriber.form.gap(gap, since_text, format_id(*after))
            if first:
                subscriber.queue_first(first, again)
            return Joined("" if gap else format_id(*after), told, replaced)

    def _position_after(self, since: Id) -> int:
        key = lambda entry: (entry.ms, entry.seq)  # noqa: E731
        return self._base + bisect_right(self._entries, since, key=key)

    # -- Publishing: reader threads, the user's threads ----------------------------------------

    def reserve(
        self,
        cost: int,
        deadline: float | None,
        given_up: Callable[[], bool],
        reservation: Reservation[S] | None = None,
    ) -> bool:
        """Wait until the fan-out has room for a batch, and keep the place for it.

        Each True is followed by one ``append`` of the same cost or one ``release``. Because the
        place is kept under the lock, all publishers together overshoot by one batch at most.

        Args:
            cost: what the batch will add to the log.
            deadline: ``time.monotonic()`` at which to give up; None to wait for ``given_up``.
            given_up: asked again and again while waiting, without any lock.
            reservation: notes what is reserved, for a publisher that may be interrupted.

        Returns:
            False if the room was dropped or ``given_up()`` came true.

        Raises:
            HubBusy: the deadline passed.
        """
        while True:
            with self.lock:
                if self.closed:
                    return False
                is_shut = cost > GATE_BYTES and self._gate.shut
                if not self._paused and not is_shut:
                    self._reserved += cost
                    if reservation is not None:
                        reservation.room, reservation.cost = self, cost
                    self._paused = self._lag_locked() > self.ring_bytes // 4
                    return True
                timeout = WAIT_SECONDS
                if deadline is not None:
                    timeout = min(timeout, deadline - time.monotonic())
                    if timeout <= 0:
                        raise HubBusy(f"the fan-out of {self.path} is behind; nothing was sent")
                bells = self._space if self._paused else self._gate.opened
                bell = bells.get()
            bells.wait(bell, timeout)
            if given_up():
                return False

    def release(self, cost: int, reservation: Reservation[S] | None = None) -> None:
        """Give back a place that will not be used, and let publishers go on."""
        with self.lock:
            self._reserved -= cost
            if reservation is not None:
                reservation.cost -= cost
            self._resume_locked()

    def append(
        self,
        drafts: Sequence[Draft],
        ms: int,
        first_seq: int,
        reservation: Reservation[S] | None = None,
    ) -> bool:
        """Put a batch, whose place is reserved, at the head. Called by the backplane under its
        lock.

        Returns:
            False if its sender is no member any more, or not for long since its Close is on the
            way: the others are told that it has left. Then nothing was done.
        """
        cost = cost_of(drafts)
        with self.lock:
            # All drafts of a batch have one origin.
            if drafts and drafts[0].origin:
                sender = self.members.get(drafts[0].origin)
                if sender is None or sender.closing:
                    return False
            entries = self._entries
            end = entries[-1].end if entries else self._dropped_bytes
            extra = sender_bytes(drafts)
            new = []
            for seq, draft in enumerate(drafts, first_seq):
                end += len(draft.frame) + extra
                new.append(Entry(draft.origin, draft.frame, ms, seq, end, draft.sender))
            # In one step, as `Reservation` says.
            entries += new
            self._reserved -= cost
            if reservation is not None:
                reservation.cost -= cost
        return True

    def _lag_locked(self) -> int:
        assert self.lock.locked()
        return self._cost_before(self.head) - self._cost_before(self._offered) + self._reserved

    def _resume_locked(self) -> None:
        assert self.lock.locked()
        if self._paused and self._lag_locked() <= self.ring_bytes // 8:
            self._paused = False
            self._space.ring()

    def close(self) -> bool:
        """Take nobody and nothing any more; return False if the room is in use."""
        with self.lock:
            # What is not offered yet belongs to the fan-out, which counts it at its next pass.
            if self.members or self._reserved or self._offered != self.head:
                return False
            self.closed = True
            return True

    def held_bytes(self) -> int:
        """Return what the log costs now."""
        with self.lock:
            return self.cost

    def sizes(self) -> tuple[int, int]:
        """Return what the log costs now, and how much was not offered to anybody yet, in bytes."""
        with self.lock:
            return self.cost, self._lag_locked()

    def last(self, history: int, since: Id | None) -> tuple[list[Entry], Id, Id, bool]:
        """Return messages of the log.

        Args:
            history: how many of the last ones, where ``since`` is None.
            since: all that came after this id.

        Returns:
            The entries, the newest id, the id before them, and whether some after ``since`` are
            not held any more.
        """
        with self.lock:
            head = self.head
            if since is None:
                start, trimmed = max(self._base, head - history), False
            else:
                start, trimmed = self._position_after(since), since < self._floor
            entries = self._entries[start - self._base :]
            return entries, self.id_before(head), self.id_before(start), trimmed

    # -- Reading the log: the lock is held, or the thread is the fan-out -----------------------

    @property
    def head(self) -> int:
        """The position that the next message will get. Exact only under the lock."""
        return self._base + len(self._entries)

    @property
    def cost(self) -> int:
        """What the log holds now, in bytes, with all forms of its entries."""
        return self._cost_before(self.head) - self._cost_before(self._base) + self.forms_bytes

    def _cost_before(self, position: int) -> int:
        """Return the cost of everything before a position since the room began."""
        index = position - self._base
        end = self._entries[index - 1].end if index > 0 else self._dropped_bytes
        return end + position * ENTRY_BYTES

    # -- The fan-out's thread ------------------------------------------------------------------

    @property
    def base(self) -> int:
        """The position of the oldest message held."""
        return self._base

    @property
    def offered(self) -> int:
        """The position up to which every message has been offered."""
        return self._offered

    def look(self) -> int:
        """Return the head. Taken before a client's personal queue is looked at: an item that is
        stamped under this lock later cannot belong before it."""
        with self.lock:
            return self.head

    def entries(self, start: int, stop: int) -> list[Entry]:
        """Return the entries of a range; the list is the caller's."""
        return self._entries[start - self._base : stop - self._base]

    def stop_within(self, start: int, stop: int, limit_bytes: int, overhead: int = 0) -> int:
        """Return the largest position up to ``stop`` with at most that many bytes of frames, each
        with that overhead, from ``start``, but at least one entry."""
        index = start - self._base
        before = self._entries[index - 1].end if index > 0 else self._dropped_bytes
        if not overhead:
            cut = bisect_right(
                self._entries,
                before + limit_bytes,
                lo=index,
                hi=stop - self._base,
                key=lambda entry: entry.end,
            )
        else:
            entries = self._entries
            cut = bisect_right(
                range(stop - self._base),
                before + limit_bytes,
                lo=index,
                key=lambda at: entries[at].end + (at + 1 - index) * overhead,
            )
        return self._base + max(cut, index + 1)

    def mark_offered(self, position: int) -> None:
        """Note that everything before a position has been offered, and let publishers go on."""
        with self.lock:
            self._offered = position
            self._resume_locked()

    def lag(self, cursor: int) -> int:
        """Return how many bytes of the log a client at ``cursor`` is behind what was offered, in
        all forms of the entries, as many as they have on the average."""
        lag = self._cost_before(self._offered) - self._cost_before(max(cursor, self._base))
        if self.forms_bytes and lag:
            frames_only = self.cost - self.forms_bytes
            return lag * self.cost // frames_only
        return lag

    def is_nearly_lost(self, cursor: int) -> bool:
        """Return whether what a client at ``cursor`` lacks is about to go: publishers may add a
        quarter of the log's size before the fan-out looks again, and trimming takes a sixteenth
        more than it must. A sixteenth is left for what comes while the client is told."""
        beyond = self._cost_before(self.head) - self._cost_before(max(cursor, self._base))
        frames_only = self.cost - self.forms_bytes
        if self.forms_bytes and frames_only:
            beyond = beyond * self.cost // frames_only
        return beyond > self.ring_bytes * 5 // 8

    def trim_target(self, limit_bytes: int, *, keep_newest: bool = True) -> int:
        """Return what ``base`` would be with at most that many bytes held: never past what was
        offered, nor past the newest entry if that is to stay."""
        last = min(self._offered, self.head - keep_newest)
        if last <= self._base:
            return self._base
        if not self.forms_bytes:
            floor = self._cost_before(self.head) - limit_bytes
            return bisect_left(range(last), floor, lo=self._base, key=self._cost_before)
        excess = self.cost - limit_bytes
        base = self._base
        while excess > 0 and base < last:
            excess -= self._cost_before(base + 1) - self._cost_before(base)
            excess -= self._entries[base - self._base].forms_bytes()
            base += 1
        return base

    def add_forms(self, form: Form, start: int, size: int) -> None:
        """Count forms that were made of entries from a position on, in bytes."""
        self.forms_bytes += size
        self._formless[form] = min(self._formless.get(form, start), start)

    def drop_forms(self, form: Form, before: int) -> bool:
        """Drop a form of all entries before a position; return whether there were any. Who needs
        one later has it made again."""
        held = self.forms_bytes
        # What was looked through is not again: where memory is short, this is called for each
        # message in any room, and a log may have thousands of entries.
        start = max(self._formless.get(form, before), self._base)
        if before > start:
            for entry in self._entries[start - self._base : before - self._base]:
                self.forms_bytes -= entry.drop_form(form.slot)
            self._formless[form] = before
        return self.forms_bytes < held

    def trim(self, base: int) -> None:
        """Drop everything before a position that ``trim_target`` gave."""
        with self.lock:
            count = base - self._base
            if count > 0:
                last = self._entries[count - 1]
                self._floor = (last.ms, last.seq)
                self._dropped_bytes = last.end
                if self.forms_bytes:
                    gone = (entry.forms_bytes() for entry in self._entries[:count])
                    self.forms_bytes -= sum(gone)
                del self._entries[:count]
                self._base = base

    def id_before(self, position: int) -> tuple[int, int]:
        """Return the id of the last message before a position, or the oldest known one before
        it."""
        index = position - self._base
        if index > 0:
            return self._entries[index - 1].ms, self._entries[index - 1].seq
        return self._floor


class Reservation(Generic[S]):
    """What a publisher has reserved in a room's log until its message is there. Its thread.

    The backplane gets it as the ``RoomLog`` of one message. A message gets its place in three
    steps: reserve, append, notify the fan-out. Ctrl-C may come between two of them, and within
    each. What is reserved, used or given back is noted here in the same moment as in the room:
    there is no call between the two, and Python looks for signals at calls and loops. So a
    publisher that was interrupted finds here what is left to do.

    Attributes:
        room: where it is; None before anything is reserved.
        cost: what is reserved and neither used nor given back.
    """

    __slots__ = ("cost", "room")

    def __init__(self) -> None:
        self.room: Room[S] | None = None
        self.cost = 0

    @property
    def path(self) -> str:
        """The room's path."""
        return self._room.path

    def append(self, drafts: Sequence[Draft], ms: int, first_seq: int) -> bool:
        """Use what is reserved; see ``Room.append``."""
        return self._room.append(drafts, ms, first_seq, self)

    def release(self, cost: int) -> None:
        """Give back this much of it."""
        self._room.release(cost, self)

    @property
    def _room(self) -> Room[S]:
        assert self.room is not None
        return self.room
