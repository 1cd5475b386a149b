"""The fan-out: one thread that does all writing to all clients of a hub.

Clients *in step* are at the room's ``offered`` position and want the same bytes: a pass joins what
is new once and gives it to each in one ``send``. A client that takes less, or for which something
personal waits, is *behind*: it is served alone, from its own cursor, until it is in step again.
Nothing here blocks; a full socket is left until the selector says that it takes more.

One turn of the loop: a share of what is to be done for single clients (what other threads posted,
sockets that take more, timers), then one pass over each room that has something new. Whatever one
client asks for, the rooms of all others get their pass after that share. Clients take turns within
it: each is in the queue once, and one that is not done comes again behind all others. The thread
sleeps only when all of it is empty.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import threading
import time
from bisect import bisect_left
from collections import deque

from ...messages import format_id
from ...records import get_logger
from ...settings import Settings
from ...transport import gil
from ...wire import frames
from ..rooms.encodings import RAW, Form
from ..rooms.registry import RoomRegistry
from ..rooms.room import Room
from .accounts import HOLDER_SECONDS, Accounts
from .batches import LogBatch
from .connection import Connection
from .liveness import Liveness, latest_ping
from .mailbox import Action, Mailbox, Posts, add_post
from .timers import NEVER, Timers
from .writer import BATCH_BYTES, FORM_BATCH_BYTES, SEND_COST_BYTES, ClientWriter, Wait

logger = get_logger("broadcast_server.hub")

# The bounds between which the times of passes are counted.
PASS_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
# How often a room of many members is told their number, at most.
COUNT_SECONDS = 1.0
# So long a client must have taken nothing to be evicted at half the ring; so long it is not read
# from because it is behind.
STALL_SECONDS = 1.0
# The longest sleep; the kernel takes no more than 2**31 ms at once.
MAX_SLEEP_SECONDS = 3600.0
# After so many sends of a pass, or so many bytes, or so many clients that are served alone, it is
# the others' turn.
GROUP = 256
GROUP_BYTES = 4 * 1024 * 1024
# Who waits for a form, because there is no memory for it or another one is being made, looks again
# after so long: so many of them at once.
FEED_SECONDS = 0.01
FED = 64
# What clients that are served alone may cost at once, as the writer counts it: about GROUP sends.
SHARE_BYTES = GROUP * SEND_COST_BYTES


class FanOut:
    """The writer thread of one hub.

    Args:
        settings: the hub's limits and times.
        rooms: the hub's rooms.

    Attributes:
        notify: tells that a room's log has grown; it may be called from any thread.
    """

    def __init__(self, settings: Settings, rooms: RoomRegistry[Connection]) -> None:
        self._settings = settings
        self._thread = threading.Thread(target=self._run, name="broadcast-fanout", daemon=True)
        self._selector = selectors.DefaultSelector()
        # Those of poll and select have no descriptor that tells whether there is anything.
        self._selected: int | None = getattr(self._selector, "fileno", lambda: None)()
        self._begun = False  # set once, by start()

        # Guards the next two. Taken alone.
        self._end_lock = threading.Lock()
        self._unwanted = False  # close() was called
        self._over = False  # the thread uses nothing any more

        # The thread's own; of the writer others read the counters. `_taken` is the round that goes
        # on: what is to be done for each client; `_again` is what comes in the next one. `_doing`
        # is part of neither, and kept so that nothing is lost if it fails.
        self._taken: deque[tuple[Connection, tuple[Action, ...]]] = deque()
        self._again: Posts = {}
        self._doing: tuple[Connection, tuple[Action, ...]] | None = None
        # Those behind in a room whose pass has not come to them yet.
        self._unserved: dict[Room[Connection], deque[Connection]] = {}
        self._timers = Timers()
        self.writer = ClientWriter(settings, self._selector, self._timers, self.tell)
        self._accounts = Accounts(settings, rooms, self.writer)
        # How long passes took: how many up to each of PASS_SECONDS, one more for longer ones, and
        # the sum. Others read them.
        self.passes = [0] * (len(PASS_SECONDS) + 1)
        self.pass_seconds = 0.0
        self._liveness = Liveness(settings, self._timers, self.writer)

        # Last: nothing that is open is left to nobody.
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._selector.close)
            self._mailbox = Mailbox()
            on_failure.callback(self._mailbox.close)
            self.notify = self._mailbox.notify  # no method: one call less for each message
            self._selector.register(self._mailbox, selectors.EVENT_READ, None)
            on_failure.pop_all()

    # -- Any thread ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()
        self._begun = True

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs. Not as ``Thread.is_alive`` tells it: in CPython up to 3.12 that
        takes a running thread for an ended one from then on if Ctrl-C comes in the middle."""
        return self._begun and not self._mailbox.has_ended

    def activate(self, connection: Connection) -> None:
        """Hand a client's writing side over for good; it owns its share of the socket already.

        A thread that sleeps is not woken for a client that needs nothing yet: a wake-up costs more
        than all else here when many join. Whatever is published or queued for the client from now
        on wakes it, and it finds the client first.
        """
        # The latest that the first ping may be due, or its end, so both are in time.
        first_look = min(time.monotonic() + latest_ping(self._settings), connection.expires)
        if not self._mailbox.post(self._do_activate, connection, by=first_look):
            connection.end(frames.ABNORMAL, "")  # its reader must wait for nothing
            connection.abort()
            connection.release()
        elif connection.has_work():
            self._mailbox.rouse()

    def attend(self, connection: Connection) -> None:
        """Tell that something was queued for a client."""
        self._mailbox.post(self._do_attend, connection)

    def tell(self, room: Room[Connection], told: list[Connection]) -> None:
        """Tell that presence was queued for clients of a room, or a count is due there."""
        self._mailbox.post_all(self._do_attend, told, room if room.recount else None)

    def leave(self, connection: Connection) -> None:
        """Tell that a client's reader has ended."""
        self._mailbox.post(self._do_leave, connection)

    def wake(self) -> None:
        """Wake the thread, whatever was told before, by somebody who was interrupted."""
        self._mailbox.wake()

    def finish(self, deadline: float) -> None:
        """Let the thread end once it has no client left, or at the deadline
        (``time.monotonic()``)."""
        self._mailbox.finish(deadline)

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end; return whether it has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Close what the thread uses: now if it has ended or never begun, else at its end. It may
        be called again."""
        with self._end_lock:
            self._unwanted = True
            unused = self._over or self._thread.ident is None
        if unused:
            self._let_go()

    def _let_go(self) -> None:
        self._selector.close()
        self._mailbox.close()

    # -- The fan-out's thread: the loop --------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception:
            logger.critical("the fan-out has failed; all clients are cut off", exc_info=True)
        finally:
            if self._doing is not None:
                self._taken.append(self._doing)
            self._taken.extend(self._mailbox.end().items())
            for connection, actions in self._taken:
                if self._do_activate in actions:
                    self.writer.connections[connection] = None
            for connection in list(self.writer.connections):
                try:
                    self.writer.drop(connection)
                except Exception:
                    logger.critical("cannot drop %s", connection.member.id, exc_info=True)
            with self._end_lock:
                self._over = True
                unwanted = self._unwanted
            if unwanted:
                self._let_go()

    def _turn(self) -> bool:
        """Do everything that there is to do now; return False at the end."""
        now = time.monotonic()
        until = self._timers.next_due
        if self._accounts.total > self._settings.total_log_bytes:
            until = min(until, now + HOLDER_SECONDS)  # it could not shrink, and tries again
        writer = self.writer
        if writer.starved or writer.hungry:
            until = min(until, writer.feed_at)
        busy = bool(writer.active or self._taken or self._again or writer.unfinished)
        busy = busy or writer.making is not None
        idle, finish_by = self._mailbox.doze(busy, until)
        if now >= finish_by or (finish_by != NEVER and idle and not self.writer.connections):
            return False
        if not idle:
            self._interlude(0.0)
        else:
            self._interlude(min(max(0.0, min(until, finish_by) - now), MAX_SLEEP_SECONDS))
        self.writer.active.update(self._mailbox.wake_up())
        # One pass for each room, in turn; a room that needs more comes again after all others.
        rooms, self.writer.active = self.writer.active, {}
        for room in rooms:
            self._accounts.count(room)
        self._accounts.mind_gate()
        for room in sorted(rooms, key=_is_large):
            if self._pass(room):
                self.writer.active[room] = None
        self.writer.end_turn()
        self.writer.make_piece()
        self._feed()
        self._accounts.forget_dropped()
        self._accounts.shrink()
        self._accounts.bound_held()
        self._accounts.mind_gate()
        return True

    def _interlude(self, timeout: float) -> None:
        """Do a share of what should not wait for a long pass: full sockets that take more, what
        other threads posted, timers. Waits for the first of it at most for the time-out."""
        # A look at the selector gives the GIL away, also one that does not wait.
        if timeout or self._selected is None or gil.is_readable(self._selected):
            for key, _ in self._selector.select(timeout):
                if key.data is None:
                    self._mailbox.empty_pipe()
                else:
                    add_post(self._again, key.data, self.writer.go_on)
        self._do_share()
        now = time.monotonic()
        for _ in range(GROUP):
            due = self._timers.pop(now)
            if due is None:
                break
            if isinstance(due, Room):
                due.counted_at = now
                for connection in due.tell_count():
                    add_post(self._again, connection, self._do_attend)
            else:
                self._liveness.check(due, now)

    def _do_share(self) -> None:
        """Do what is to be done for some clients, in turn."""
        end = self.writer.spent + SHARE_BYTES
        for _ in range(GROUP):
            if not self._taken and not self._begin_round():
                return
            self._doing = connection, actions = self._taken.popleft()
            for action in actions:
                action(connection)
            self._doing = None
            if self.writer.spent >= end:
                return

    def _begin_round(self) -> bool:
        """Take what is to be done for clients next; return whether it is anything."""
        posts, self._again = self._again, {}
        for connection in self.writer.unfinished:
            add_post(posts, connection, self._do_attend)
        self.writer.unfinished.clear()
        self._taken.extend(posts.items())
        posted, counted = self._mailbox.take_posts()
        self._taken.extend(posted.items())
        for room in counted:
            self._timers.schedule(room, room.counted_at + COUNT_SECONDS)
        return bool(self._taken)

    # -- The fan-out's thread: a room ----------------------------------------------------------

    def _pass(self, room: Room[Connection]) -> bool:
        """Offer what is new to all members; return whether there is more to do at once.

        Those behind are served up to a share. The next pass goes on with the others before it
        offers anything: the fan-out's own delay holds publishers back, and counts against nobody.
        """
        began = time.monotonic()
        head = room.look()
        unserved = self._unserved.pop(room, None)
        start = room.offered
        self.writer.passing.add(room)
        self.writer.accounting.add(room)
        if head > start and unserved is None:
            found = [form for form, clients in room.in_step.items() if clients]
            overhead = max((form.overhead for form in found), default=0)
            most = FORM_BATCH_BYTES if overhead else BATCH_BYTES
            stop = room.stop_within(start, head, most, overhead)
            batches = self._batches(room, start, stop, found)
            if batches is None:
                # Publishers wait for it as for all that the fan-out does.
                self.writer.hungry[room] = None
                head = start
            else:
                for form, batch in batches:
                    self._offer(room, batch, form)
                room.mark_offered(stop)
        self.writer.passing.discard(room)
        more = room.offered < head
        if unserved is None:
            unserved = deque(room.behind)
        end = self.writer.spent + SHARE_BYTES
        while unserved and self.writer.spent < end:
            connection = unserved.popleft()
            if connection in room.behind and not connection.blocked:
                if self.writer.serve(connection):
                    self.writer.unfinished[connection] = None
        if unserved:
            self._unserved[room] = unserved
            more = True
        else:
            self._judge(room)
            self._accounts.account(room)
        self.writer.accounting.discard(room)
        seconds = time.monotonic() - began
        self.passes[bisect_left(PASS_SECONDS, seconds)] += 1
        self.pass_seconds += seconds
        return more

    def _batches(
        self, room: Room[Connection], start: int, stop: int, found: list[Form]
    ) -> list[tuple[Form, LogBatch]] | None:
        """Return a range in each form that somebody in step needs; None if one is not made yet."""
        batches = []
        for form in found:
            # Somebody who talks alone: no form is made for nobody.
            if len(room.in_step[form]) == 1:
                (connection,) = room.in_step[form]
                if connection.plain and self.writer.skip_own(connection, start, stop):
                    continue
            batch = self.writer.batch(room, start, stop, form)
            if batch is Wait.MAKING and not self._accounts.is_far_too_full:
                return None
            if isinstance(batch, LogBatch):
                batches.append((form, batch))
                continue
            # The others do not wait for who may hold the memory that is missing; and what is not
            # offered cannot make place.
            for connection in list(room.in_step[form]):
                self.writer.fall_behind(connection)
        return batches

    def _pass_others(self) -> None:
        """Between two groups of a large pass: one pass for some small rooms that have grown; about
        as much as a group. Nothing comes between the groups of these."""
        writer = self.writer
        if len(writer.passing) > 1:
            return
        writer.active.update(self._mailbox.wake_up())
        small = [r for r in writer.active if r not in writer.passing and not _is_large(r)]
        end = writer.bytes_out + GROUP_BYTES
        sends_end = writer.sends + GROUP
        for room in small[:FED]:
            if writer.bytes_out >= end or writer.sends >= sends_end:
                break
            writer.active.pop(room, None)
            self._accounts.count(room)
            if self._pass(room):
                writer.active[room] = None

    def _feed(self) -> None:
        """Let some of those who wait for forms look again."""
        writer = self.writer
        if writer.starved or writer.hungry:
            now = time.monotonic()
            if now >= writer.feed_at:
                writer.feed_at = now + FEED_SECONDS
                self._accounts.relieve()
                writer.feed(list(itertools.islice(writer.starved, FED)))
                for room in list(itertools.islice(writer.hungry, FED)):
                    del writer.hungry[room]
                    writer.active[room] = None

    def _offer(self, room: Room[Connection], batch: LogBatch, form: Form) -> None:
        """Give a batch to all who are in step and want this form."""
        writer = self.writer
        sender = writer.sender
        clock = time.monotonic
        data = batch.data
        size = len(data)
        origins = batch.origins
        stop = batch.stop
        in_step = room.in_step[form]
        connections = list(in_step)
        step = max(1, min(GROUP, GROUP_BYTES // size))
        for first in range(0, len(connections), step):
            if first:
                self._interlude(0.0)
                self._pass_others()
                writer.make_piece()
            whole = 0
            sends = 0
            keeps, limit = sender.begin()
            for connection in connections[first : first + step]:
                if not connection.plain:
                    # Something personal has come. It stays where it is and is served after the
                    # pass.
                    if not connection.dropped and connection in in_step:
                        writer.fall_behind(connection)
                    continue
                if connection.exclude in origins:
                    if not writer.send_ranges(connection, batch) and not connection.dropped:
                        writer.fall_behind(connection)
                    continue
                sends += 1
                try:
                    if keeps:
                        sent = gil.send(connection.sock, data)
                    else:
                        # As `Sends.send` does; without a call, which would cost a tenth of all.
                        sent = connection.sock.send(data, gil.SEND_FLAGS)
                        limit += gil.SEND_SECONDS
                        if clock() > limit:
                            keeps = sender.keep()
                except BlockingIOError:
                    sent = 0
                except OSError as error:
                    writer.lose(connection, error)
                    continue
                if sent == size:
                    connection.cursor = stop
                    whole += 1
                else:
                    writer.take_partly(connection, batch, sent, None)
                    writer.fall_behind(connection)
            writer.sends += sends
            writer.deliveries += whole * batch.count
            writer.bytes_out += whole * size

    def _judge(self, room: Room[Connection]) -> None:
        """Evict who is too far behind, so that what it lacks is still held when it comes back.

        At full speed half the ring goes by within a fraction of a second, and whoever has only
        waited for the processor is not slow: from there on a client must have taken nothing for
        a while. At five eighths, counted from the newest message, its place is about to go. And
        a client that is behind is not read from for a while: it is what it sends itself that it
        cannot take.
        """
        too_far = room.ring_bytes // 2
        waits_from = room.ring_bytes // 16
        now = time.monotonic()
        stalled_since = now - min(STALL_SECONDS, self._settings.write_timeout)
        for connection in list(room.behind):
            if connection.final is not None or connection.close_sent:
                continue
            lag = room.lag(connection.cursor)
            if lag <= too_far:
                connection.replaying = False
            elif connection.blocked and not connection.replaying:
                if connection.blocked_since <= stalled_since or room.is_nearly_lost(
                    connection.cursor
                ):
                    self.writer.evict_slow(connection)
                    continue
            if connection.blocked and lag > waits_from and not connection.replaying:
                connection.lagging = True
            elif connection.lagging:
                connection.caught_up()

    # -- The fan-out's thread: what other threads posted ---------------------------------------

    def _do_activate(self, connection: Connection) -> None:
        room = connection.room
        self.writer.connections[connection] = None
        room.behind[connection] = None
        connection.replaying = connection.cursor < room.offered
        self._liveness.begin(connection)
        if connection.cursor < room.base <= connection.skips_to:
            connection.begin_later(room.base, format_id(*room.id_before(room.base)))
        elif connection.cursor < room.base and connection.form is RAW:
            self.writer.evict_slow(connection, connection.joined_after)
        elif connection.cursor < room.base:
            # Trimmed while it joined, before it was offered anything. It goes on from here: if it
            # had to come back it might find the same for as long as the room is that busy.
            assert connection.joined_after is not None
            since = format_id(*connection.joined_after)
            connection.cursor = room.base
            after = format_id(*room.id_before(room.base))
            connection.queue_second(connection.form.gap("trimmed", since, after))
        connection.joined_after = connection.rewelcome = None
        self.writer.attend(connection)

    def _do_attend(self, connection: Connection) -> None:
        self.writer.attend(connection)

    def _do_leave(self, connection: Connection) -> None:
        self.writer.reader_left(connection)


def _is_large(room: Room[Connection]) -> bool:
    """Whether the pass of a room may take more than a group."""
    return len(room.members) > GROUP
