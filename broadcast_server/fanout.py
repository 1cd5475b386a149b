"""The fan-out: one thread that does all writing to all clients of a hub.

Clients *in step* are at the room's ``offered`` position and want the same bytes: a pass joins what is new
once and gives it to each in one ``send``. A client that takes less, or for which something personal
waits, is *behind*: it is served alone, from its own cursor, until it is in step again. Nothing here
blocks: a full socket is left until the selector says that it takes more.

One turn of the loop: what other threads posted, sockets that take more, one pass over each room that
has something new, timers. The thread sleeps only when all of it is empty.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable

from . import frames
from .batches import Batch, Range
from .connection import Connection
from .messages import format_id
from .rooms import Room, Rooms
from .settings import Settings

logger = logging.getLogger(__name__)

# The most that one client is offered in one pass, so that rooms and clients take turns.
BATCH_BYTES = 256 * 1024
# After so many sends the fan-out looks at pongs and timers.
GROUP = 256
# More pieces than this are joined instead: each costs a memoryview, and the kernel takes 1,024 at most.
MAX_PIECES = 64
# Joined batches that are kept for others within one turn; many clients at many cursors must not add up.
MAX_BATCHES = 16

SEND_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
_PING = frames.encode_frame(frames.PING, b"")
_NEVER = float("inf")


class FanOut:
    """The writer thread of one hub.

    Args:
        settings: the hub's limits and times.
        rooms: the hub's rooms.
        on_drained: called on the fan-out's thread, without a lock, when a client's personal queue has
            become empty, so that who waits for a place in it can go on.
    """

    def __init__(self, settings: Settings, rooms: Rooms, on_drained: Callable[[], None]) -> None:
        self._settings = settings
        self._rooms = rooms
        self._on_drained = on_drained
        self._thread = threading.Thread(target=self._run, name="broadcast-fanout", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)

        # Guards the next five. Taken last of all locks.
        self._lock = threading.Lock()
        self._posts: list[tuple[Callable[[Connection], None], Connection]] = []
        self._dirty: dict[Room, None] = {}
        self._sleeping = False
        self._finish_by: float | None = None
        self._ended = False

        # The thread's own.
        self._connections: dict[Connection, None] = {}
        self._active: dict[Room, None] = {}  # rooms that need another pass
        self._passing: Room | None = None
        self._batches: dict[tuple[Room, int, int], Batch] = {}
        self._timers: list[tuple[float, int, Connection]] = []
        self._timer_numbers = itertools.count()
        self._total_cost = 0

        # Counters: written by the thread, read by anyone.
        self.joins = 0
        self.sends = 0
        self.deliveries = 0
        self.bytes_out = 0
        self.evictions = 0

    # -- Any thread ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def notify(self, room: Room) -> None:
        """Tell that a room's log has grown."""
        with self._lock:
            self._dirty[room] = None
            wake, self._sleeping = self._sleeping, False
        if wake:
            self._wake()

    def activate(self, connection: Connection) -> None:
        """Hand a client's writing side over for good; it owns its share of the socket already."""
        if not self._post(self._do_activate, connection):
            connection.abort()
            connection.release()

    def attend(self, connection: Connection) -> None:
        """Tell that something was queued for a client."""
        self._post(self._do_attend, connection)

    def leave(self, connection: Connection) -> None:
        """Tell that a client's reader has ended."""
        self._post(self._do_leave, connection)

    def finish(self, deadline: float) -> None:
        """Let the thread end once it has no client left, or at the deadline (``time.monotonic()``)."""
        with self._lock:
            self._finish_by = deadline
            self._sleeping = False
        self._wake()

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end; return whether it has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Close what the thread used; it must have ended or never begun."""
        self._selector.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _post(self, action: Callable[[Connection], None], connection: Connection) -> bool:
        """Leave something to do for the thread; return False if it has ended."""
        with self._lock:
            if self._ended:
                return False
            self._posts.append((action, connection))
            wake, self._sleeping = self._sleeping, False
        if wake:
            self._wake()
        return True

    def _wake(self) -> None:
        try:
            os.write(self._wake_writer, b"w")
        except OSError:
            pass  # full: it will wake; closed: the thread has ended

    # -- The fan-out's thread: the loop --------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception:
            logger.critical("the fan-out has failed; all clients are cut off", exc_info=True)
        finally:
            with self._lock:
                self._ended = True
                posts, self._posts = self._posts, []
            for action, connection in posts:
                if action == self._do_activate:
                    self._connections[connection] = None
            for connection in list(self._connections):
                self._drop(connection)

    def _turn(self) -> bool:
        """Do everything that there is to do now; return False at the end."""
        now = time.monotonic()
        with self._lock:
            finish_by = self._finish_by
            idle = not (self._posts or self._dirty or self._active)
            self._sleeping = idle
        if finish_by is not None and idle and not self._connections or now >= (finish_by or _NEVER):
            return False
        timeout = 0.0
        if idle:
            until = min(self._timers[0][0] if self._timers else _NEVER, finish_by or _NEVER)
            timeout = max(0.0, until - now) if until != _NEVER else None  # type: ignore[assignment]
        self._interlude(timeout)
        with self._lock:
            self._sleeping = False
            self._active.update(self._dirty)
            self._dirty.clear()
        # One pass for each room, in turn; a room that needs more comes again after all others.
        rooms, self._active = self._active, {}
        for room in rooms:
            if self._pass(room):
                self._active[room] = None
        self._batches.clear()
        self._forget_dropped()
        return True

    def _interlude(self, timeout: float | None = 0.0) -> None:
        """Serve what should not wait for a long pass: posts, sockets that take more, timers."""
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._empty_pipe()
            else:
                self._go_on(key.data)
        with self._lock:
            posts, self._posts = self._posts, []
        for action, connection in posts:
            action(connection)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            due, _, connection = heapq.heappop(self._timers)
            if due == connection.due:
                connection.due = _NEVER
                self._check(connection, now)

    def _empty_pipe(self) -> None:
        try:
            while len(os.read(self._wake_reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    # -- The fan-out's thread: a room ----------------------------------------------------------

    def _pass(self, room: Room) -> bool:
        """Offer what is new to all members; return whether there is more to do at once."""
        head = room.look()
        start = room.offered
        self._passing = room
        if head > start:
            batch = self._batch(room, start, room.stop_within(start, head, BATCH_BYTES))
            self._offer(room, batch)
            room.mark_offered(batch.stop)
        self._passing = None
        more = room.offered < head
        for connection in list(room.behind):
            if not connection.blocked and not connection.dropped and self._serve(connection):
                more = True
        self._judge(room)
        self._account(room)
        return more

    def _offer(self, room: Room, batch: Batch) -> None:
        """Give a batch to all who are in step."""
        data = batch.data
        size = len(data)
        origins = batch.origins
        stop = batch.stop
        connections = list(room.in_step)
        for first in range(0, len(connections), GROUP):
            if first:
                self._interlude()
            whole = 0
            sends = 0
            for connection in connections[first : first + GROUP]:
                if not connection.plain:
                    # Something personal has come. It stays where it is and is served after the pass.
                    if not connection.dropped and connection in room.in_step:
                        self._fall_behind(connection)
                    continue
                if connection.exclude in origins:
                    self._offer_ranges(connection, batch)
                    continue
                sends += 1
                try:
                    sent = connection.send(data, SEND_FLAGS)
                except BlockingIOError:
                    sent = 0
                except OSError as error:
                    self._lose(connection, error)
                    continue
                if sent == size:
                    connection.cursor = stop
                    whole += 1
                else:
                    self._take_partly(connection, batch, sent, None)
                    self._fall_behind(connection)
            self.sends += sends
            self.deliveries += whole * batch.count
            self.bytes_out += whole * size

    def _offer_ranges(self, connection: Connection, batch: Batch) -> None:
        """Give a batch to one of its senders, without its own messages."""
        if not self._send_ranges(connection, batch):
            if not connection.dropped:
                self._fall_behind(connection)

    def _send_ranges(self, connection: Connection, batch: Batch) -> bool:
        """Send what is not the client's own; return whether it took all."""
        ranges, count = batch.without(connection.exclude)
        size = sum(stop - start for start, stop in ranges)
        if ranges:
            self.sends += 1
            view = memoryview(batch.data)
            pieces = [view[start:stop] for start, stop in ranges]
            try:
                if len(pieces) > MAX_PIECES:
                    sent = connection.send(b"".join(pieces), SEND_FLAGS)
                else:
                    sent = connection.sock.sendmsg(pieces, (), SEND_FLAGS)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._lose(connection, error)
                return False
            if sent != size:
                self._take_partly(connection, batch, sent, ranges)
                return False
        connection.cursor = batch.stop
        self.deliveries += count
        self.bytes_out += size
        return True

    def _batch(self, room: Room, start: int, stop: int) -> Batch:
        """Return the batch of a range: clients at the same cursor share it within a turn."""
        key = (room, start, stop)
        batch = self._batches.get(key)
        if batch is None:
            if len(self._batches) >= MAX_BATCHES:
                self._batches.clear()
            batch = self._batches[key] = Batch(start, room.entries(start, stop))
            self.joins += batch.count > 1
        return batch

    def _take_partly(
        self, connection: Connection, batch: Batch, sent: int, ranges: list[Range] | None
    ) -> None:
        """Move a client to where a send stopped, and wait until its socket takes more."""
        connection.cursor, connection.rest = batch.locate(sent, ranges)
        connection.rest_is_close = False
        self.deliveries += batch.count_others(connection.cursor, connection.exclude)
        self.bytes_out += sent
        self._block(connection)

    def _fall_behind(self, connection: Connection) -> None:
        connection.plain = False
        connection.room.in_step.pop(connection, None)
        connection.room.behind[connection] = None

    def _judge(self, room: Room) -> None:
        """Evict who is too far behind, so that what it lacks is still held when it comes back."""
        too_far = room.ring_bytes // 2
        for connection in list(room.behind):
            if connection.final is not None or connection.close_sent:
                continue
            lag = room.lag(connection.cursor)
            if lag <= too_far:
                connection.replaying = False
            elif connection.blocked and not connection.replaying:
                self._evict_slow(connection)

    def _account(self, room: Room) -> None:
        """Trim the room's log to its size, and all logs to their total."""
        if room.cost > room.ring_bytes:
            # A sixteenth more than needed: moving the list costs the same for one entry as for many.
            self._trim(room, room.ring_bytes - room.ring_bytes // 16)
        if not room.closed:
            self._total_cost += room.cost - room.counted_cost
            room.counted_cost = room.cost
        limit = self._settings.total_log_bytes
        while self._total_cost > limit:
            if self._rooms.drop_empty():
                self._forget_dropped()
                continue
            largest = max(self._rooms.all(), key=lambda other: other.cost)
            goal = largest.cost - (self._total_cost - limit) - largest.ring_bytes // 16
            if not self._trim(largest, max(goal, 0)):
                break
            self._total_cost += largest.cost - largest.counted_cost
            largest.counted_cost = largest.cost

    def _forget_dropped(self) -> None:
        for room in self._rooms.take_dropped():
            self._total_cost -= room.counted_cost

    def _trim(self, room: Room, limit_bytes: int) -> bool:
        """Trim a log; return whether anything could go."""
        base = room.trim_target(limit_bytes)
        if base <= room.base:
            return False
        for connection in list(room.behind):
            if connection.cursor < base and connection.final is None:
                self._evict_slow(connection)
        room.trim(base)
        return True

    # -- The fan-out's thread: one client ------------------------------------------------------

    def _serve(self, connection: Connection) -> bool:
        """Send what a client can get now, in order; return whether it could take more at once."""
        room = connection.room
        budget = BATCH_BYTES
        while budget > 0:
            rest = connection.rest
            if rest is not None:
                size = len(rest)
                sent = self._send(connection, rest)
                if sent < size:
                    if sent >= 0:
                        connection.rest = rest[sent:]
                        self._block(connection)
                    return False
                connection.rest = None
                budget -= size
                if connection.rest_is_close:
                    self._end_writing(connection)
                    return False
            elif connection.final is not None:
                connection.rest = memoryview(connection.final)
                connection.rest_is_close = True
            elif connection.urgent:
                connection.rest = memoryview(connection.take_urgent())
                connection.rest_is_close = False
            else:
                # Only up to what the room was offered: who is ahead of it would not be in step.
                limit = room.offered
                if connection.personal:
                    limit = min(limit, connection.personal[0][0])
                if connection.cursor < limit:
                    stop = room.stop_within(connection.cursor, limit, BATCH_BYTES)
                    batch = self._batch(room, connection.cursor, stop)
                    if not self._send_log(connection, batch):
                        return False
                    budget -= len(batch.data)
                elif connection.personal and connection.personal[0][0] <= connection.cursor:
                    connection.take_personal()
                    if not connection.personal:
                        self._on_drained()
                else:
                    self._settle(connection)
                    return False
        return True

    def _settle(self, connection: Connection) -> None:
        """Put a client that has got everything back in step with its room."""
        room = connection.room
        if (
            connection.cursor == room.offered
            and self._passing is not room
            and connection.try_plain()
        ):
            room.behind.pop(connection, None)
            room.in_step[connection] = None
            connection.replaying = False

    def _send_log(self, connection: Connection, batch: Batch) -> bool:
        """Send a batch to a client alone; return whether it took all."""
        if connection.exclude in batch.origins:
            return self._send_ranges(connection, batch)
        size = len(batch.data)
        sent = self._send(connection, batch.data)
        if sent == size:
            connection.cursor = batch.stop
            self.deliveries += batch.count
            return True
        if sent >= 0:
            self.bytes_out -= sent
            self._take_partly(connection, batch, sent, None)
        return False

    def _send(self, connection: Connection, data: bytes | memoryview) -> int:
        """Send without waiting; return how much was taken, -1 if the connection is lost."""
        self.sends += 1
        try:
            sent = connection.send(data, SEND_FLAGS)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._lose(connection, error)
            return -1
        self.bytes_out += sent
        if sent and connection.deadline is not None:
            # Who is told to go but still reads gets the time to read it to the end.
            later = time.monotonic() + self._settings.close_timeout
            connection.deadline = min(later, connection.hard_deadline)
        return sent

    def _block(self, connection: Connection) -> None:
        """Wait until the socket takes more."""
        connection.blocked_since = now = time.monotonic()
        if not connection.blocked:
            connection.blocked = True
            try:
                self._selector.register(connection.sock, selectors.EVENT_WRITE, connection)
            except KeyError:
                pass  # it is still registered, in the middle of _go_on()
            self._schedule(connection, now + self._settings.write_timeout)

    def _go_on(self, connection: Connection) -> None:
        """Serve a client whose socket takes more."""
        if connection.dropped or not connection.blocked:
            return
        connection.blocked = False
        if self._serve(connection):
            self._active[connection.room] = None
        if not connection.blocked and not connection.dropped:
            self._selector.unregister(connection.sock)

    def _evict_slow(self, connection: Connection) -> None:
        resume = format_id(*connection.room.id_before(connection.cursor))
        lag = connection.room.lag(connection.cursor)
        logger.warning(
            "%s is evicted: it is %d bytes behind, resume after %s",
            connection.member.id,
            lag,
            resume,
        )
        self._evict(connection, 1013, f"since={resume}")

    def _evict(self, connection: Connection, code: int, reason: str) -> None:
        """End a connection that does not do its part: only the frame in progress and Close go out."""
        self.evictions += 1
        connection.room.leave(connection)
        connection.evict(code, reason)
        self._fall_behind(connection)
        now = time.monotonic()
        connection.deadline = now + self._settings.close_timeout
        connection.hard_deadline = connection.deadline + self._settings.write_timeout
        self._schedule(connection, connection.deadline)
        if not connection.blocked:
            self._active[connection.room] = None

    def _end_writing(self, connection: Connection) -> None:
        """Close is sent: nothing follows it. The reader waits for the end of the peer's stream."""
        connection.close_sent = True
        connection.plain = False
        connection.room.in_step.pop(connection, None)
        connection.room.behind.pop(connection, None)
        connection.room.leave(connection)
        if connection.reader_gone:
            self._drop(connection)
            return
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(connection, error)
            return
        connection.deadline = time.monotonic() + self._settings.close_timeout
        self._schedule(connection, connection.deadline)

    def _lose(self, connection: Connection, error: OSError) -> None:
        logger.debug("%s is lost: %s", connection.member.id, error)
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        """Forget a client: cut the connection, so that its reader ends, and let go of the socket."""
        if connection.dropped:
            return
        connection.dropped = True
        connection.plain = False
        connection.end(frames.ABNORMAL, "")
        self._connections.pop(connection, None)
        room = connection.room
        room.in_step.pop(connection, None)
        room.behind.pop(connection, None)
        room.leave(connection)
        try:
            self._selector.unregister(connection.sock)
        except KeyError:
            pass  # it was not blocked
        connection.abort()
        connection.release()

    # -- The fan-out's thread: what other threads posted ---------------------------------------

    def _do_activate(self, connection: Connection) -> None:
        room = connection.room
        self._connections[connection] = None
        room.behind[connection] = None
        connection.replaying = connection.cursor < room.offered
        self._schedule(connection, connection.quiet_since + self._ping_interval())
        if connection.cursor < room.base:
            self._evict_slow(connection)
        self._do_attend(connection)

    def _do_attend(self, connection: Connection) -> None:
        if connection.dropped or connection.blocked or connection.close_sent:
            return
        if connection in connection.room.in_step:
            self._fall_behind(connection)
        if self._serve(connection):
            self._active[connection.room] = None

    def _do_leave(self, connection: Connection) -> None:
        connection.reader_gone = True
        if connection.closing and not connection.close_sent and not connection.dropped:
            # The peer ended its stream right after its Close: it may still read ours.
            now = time.monotonic()
            if connection.deadline is None:
                connection.deadline = connection.hard_deadline = now + self._settings.close_timeout
            self._schedule(connection, connection.deadline)
        else:
            self._drop(connection)

    # -- The fan-out's thread: timers ----------------------------------------------------------

    def _schedule(self, connection: Connection, due: float) -> None:
        """Look at a client at a time; only its earliest appointment is kept."""
        if due < connection.due:
            connection.due = due
            heapq.heappush(self._timers, (due, next(self._timer_numbers), connection))

    def _ping_interval(self) -> float:
        # Up to a quarter more, so that clients that came together are not pinged together for ever.
        return self._settings.ping_interval * random.uniform(1.0, 1.25)

    def _check(self, connection: Connection, now: float) -> None:
        """See to a client's deadlines, and make the next appointment."""
        if connection.dropped:
            return
        if connection.deadline is not None:
            if now >= connection.deadline:
                self._drop(connection)
            else:
                self._schedule(connection, connection.deadline)
            return
        due = self._check_heartbeat(connection, now)
        if connection.blocked and connection.deadline is None:
            limit = connection.blocked_since + self._settings.write_timeout
            if now >= limit:
                self._evict_slow(connection)
                return
            due = min(due, limit)
        self._schedule(connection, due)

    def _check_heartbeat(self, connection: Connection, now: float) -> float:
        """Ping a client that is quiet, end one that does not answer; return when to look again.

        The clock runs only while the reader is blocked in ``recv``: a client whose reader is held back
        by back-pressure, its rate or a callback is not dead.
        """
        interval = self._settings.ping_interval
        quiet_since = connection.quiet_since
        if not connection.waiting or connection.blocked:
            return now + interval
        if connection.pinged > quiet_since:
            limit = connection.pinged + self._settings.ping_timeout
            if now < limit:
                return limit
            if _has_input(connection.sock):
                return now + interval  # the pong is here, its reader has not run yet
            logger.info("%s has not answered a ping", connection.member.id)
            self._evict(connection, 1011, "ping timeout")
            return _NEVER
        if now < quiet_since + interval:
            return quiet_since + self._ping_interval()
        connection.pinged = now
        connection.queue_urgent(_PING)
        self._do_attend(connection)
        return now + self._settings.ping_timeout


def _has_input(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
