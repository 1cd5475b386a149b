"""Writing to one client: what it gets next, how much its socket takes, and how its writing ends.

A client that is behind is served from its own cursor, in this order: the rest of the frame in
progress, the Close of an eviction, pings and pongs, then the log and its personal frames, each at
the place that its stamp tells. Nothing goes inside a frame, and nothing after Close.

Everything here runs on the fan-out's thread and never blocks.
"""

from __future__ import annotations

import enum
import selectors
import socket
import time
from collections.abc import Callable
from typing import Protocol

from ...messages import format_id
from ...records import get_logger
from ...settings import Settings
from ...transport import gil
from ...wire import frames
from ..rooms import encodings
from ..rooms.encodings import RAW, Form
from ..rooms.entries import Entry
from ..rooms.room import Room
from .batches import LogBatch, Range
from .connection import Connection
from .timers import Timers
from .wanted import Wanted

logger = get_logger("broadcast_server.hub")

# The most that one client is offered in one pass, so that rooms and clients take turns. A message
# that is larger than what is made into forms at once is made in pieces, one a turn.
BATCH_BYTES = 256 * 1024
FORM_BATCH_BYTES = encodings.PIECE_BYTES
# What a send counts at least: at most 16 of them for one client in one pass. Personal frames are
# joined up to it.
SEND_COST_BYTES = 16 * 1024
# More pieces than this are joined instead: each costs as much as some hundred bytes; the kernel
# takes 1,024.
MAX_PIECES = 64
# Joined batches kept for others within one turn; many clients at many cursors must not add up.
MAX_BATCHES = 16


class Memory(Protocol):
    """What a writer asks of who keeps the accounts of all logs."""

    def make_place(self, room: Room[Connection], size: int) -> bool:
        """Let forms go that are in the way of new ones of a room, of so many bytes at most; return
        whether those may be made."""

    def count_forms(self, room: Room[Connection]) -> None:
        """Count forms that were made; what needed them has them: they may be dropped at once."""


class Wait(enum.Enum):
    """Why a form is not there yet."""

    MAKING = "it is made in pieces, or another one is"
    MEMORY = "others must go first"


class Making:
    """A form of a large message that is made in pieces.

    Attributes:
        room, position, entry: the message.
        form: what is made of it.
        rest: gives the pieces that are still to be made.
        pieces: those that are.
    """

    __slots__ = ("entry", "form", "pieces", "position", "rest", "room")

    def __init__(self, room: Room[Connection], position: int, entry: Entry, form: Form) -> None:
        self.room = room
        self.position = position
        self.entry = entry
        self.form = form
        self.rest = form.pieces(entry)
        self.pieces: list[bytes] = []


class ClientWriter:
    """Writes to the clients of one hub.

    Args:
        settings: the hub's limits and times.
        selector: tells which full sockets take more.
        timers: where a client's deadlines are kept.
        on_left: called with a room and those of its clients who were told that another has left.

    Attributes:
        connections: every client that was handed over and not dropped yet.
        active: rooms that need another pass.
        unfinished: clients that could take more at once, and for whom there is more. They take
            turns with each other and with the rooms.
        starved: clients that need a form for which there is no memory yet, or that is not made yet.
        hungry: rooms whose pass needs such a form.
        making: the form that is made in pieces now; one at a time.
        wanted: large forms that are made next.
        spent: what serving clients one by one has cost so far, in bytes, a send at least
            ``SEND_COST_BYTES``.
        passing: rooms whose pass is going on; nobody gets in step with them in the middle.
        memory: keeps the accounts of what all logs take.
        accounting: rooms whose logs are trimmed at the end of what goes on now.
        feed_at: when it is looked again whether there is what those starve for.
        sender: sends on sockets.
        joins, sends, deliveries, bytes_out, evictions: counters, read by other threads.
    """

    def __init__(
        self,
        settings: Settings,
        selector: selectors.BaseSelector,
        timers: Timers,
        on_left: Callable[[Room[Connection], list[Connection]], None],
    ) -> None:
        self._settings = settings
        self._selector = selector
        self._timers = timers
        self._on_left = on_left
        self.sender = gil.Sends()
        self.memory: Memory  # set by who keeps the accounts
        self._batches: dict[tuple[Room[Connection], int, int, Form], LogBatch] = {}
        self.connections: dict[Connection, None] = {}
        self.active: dict[Room[Connection], None] = {}
        self.unfinished: dict[Connection, None] = {}
        self.starved: dict[Connection, None] = {}
        self.hungry: dict[Room[Connection], None] = {}
        self.making: Making | None = None
        self.wanted: Wanted[Room[Connection]] = Wanted()
        self.spent = 0
        self.feed_at = 0.0
        self.passing: set[Room[Connection]] = set()
        self.accounting: set[Room[Connection]] = set()
        self.encodes = dict.fromkeys(encodings.ALL, 0)  # of each form but raw, which readers make
        self.joins = 0
        self.sends = 0
        self.deliveries = 0
        self.bytes_out = 0
        self.evictions = 0

    def end_turn(self) -> None:
        """Forget the batches that were kept for others."""
        self._batches.clear()

    def serve(self, connection: Connection) -> bool:
        """Send what a client can get now, in order; return whether it could take more at once."""
        room = connection.room
        end = self.spent + BATCH_BYTES
        while self.spent < end:
            rest = connection.rest
            if rest is not None:
                size = len(rest)
                # A send costs more than its bytes: many tiny frames must not hold up the others.
                self.spent += max(size, SEND_COST_BYTES)
                sent = self._send(connection, rest)
                if sent < size:
                    if sent >= 0:
                        connection.rest = memoryview(rest)[sent:]
                        self._block(connection, sent)
                    return False
                connection.rest = None
                if connection.rest_is_close:
                    self._end_writing(connection)
                    return False
            elif connection.final is not None:
                connection.rest = connection.final
                connection.rest_is_close = True
            elif connection.urgent:
                connection.rest = connection.take_urgent()
                connection.rest_is_close = False
            else:
                # Only up to what the room was offered: who is ahead of it would not be in step.
                limit = room.offered
                if connection.personal:
                    limit = min(limit, connection.personal[0][0])
                if connection.cursor < limit:
                    form = connection.form
                    most = BATCH_BYTES if form is RAW else FORM_BATCH_BYTES
                    stop = room.stop_within(connection.cursor, limit, most, form.overhead)
                    if self.skip_own(connection, connection.cursor, stop):
                        continue
                    batch = self.batch(room, connection.cursor, stop, form)
                    if isinstance(batch, Wait):
                        self.starved[connection] = None
                        return False
                    self.spent += max(len(batch.data), SEND_COST_BYTES)
                    if not self._send_log(connection, batch):
                        return False
                elif connection.personal and connection.personal[0][0] <= connection.cursor:
                    connection.take_personal(SEND_COST_BYTES)
                    if connection.missed and not connection.personal:
                        room.tell_members(connection)
                else:
                    self._settle(connection)
                    return False
        return True

    def _settle(self, connection: Connection) -> None:
        """Put a client that has got everything back in step with its room."""
        room = connection.room
        if (
            connection.cursor == room.offered
            and room not in self.passing
            and connection.try_plain()
        ):
            room.behind.pop(connection, None)
            room.in_step[connection.form][connection] = None
            connection.replaying = False
            if connection.lagging:
                connection.caught_up()

    def skip_own(self, connection: Connection, start: int, stop: int) -> bool:
        """Move a client on behind a range in which all is its own: nobody has to make a form of
        it. Returns whether it is so."""
        own = connection.exclude
        entries = connection.room.entries(start, start + 1)
        if entries[0].origin != own:
            return False
        if any(entry.origin != own for entry in connection.room.entries(start, stop)):
            return False
        self.spent += SEND_COST_BYTES
        connection.cursor = stop
        return True

    def _send_log(self, connection: Connection, batch: LogBatch) -> bool:
        """Send a batch to a client alone; return whether it took all."""
        if connection.exclude in batch.origins:
            return self.send_ranges(connection, batch)
        size = len(batch.data)
        sent = self._send(connection, batch.data)
        if sent == size:
            connection.cursor = batch.stop
            self.deliveries += batch.count
            return True
        if sent >= 0:
            self.bytes_out -= sent
            self.take_partly(connection, batch, sent, None)
        return False

    def send_ranges(self, connection: Connection, batch: LogBatch) -> bool:
        """Send what is not the client's own; return whether it took all."""
        ranges, count = batch.without(connection.exclude)
        size = sum(stop - start for start, stop in ranges)
        if ranges:
            self.sends += 1
            try:
                if len(ranges) > MAX_PIECES:
                    view = memoryview(batch.data)
                    pieces = [view[start:stop] for start, stop in ranges]
                    sent = self.sender.send(connection.sock, b"".join(pieces))
                else:
                    sent = self.sender.send_ranges(connection.sock, batch.data, ranges)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.lose(connection, error)
                return False
            if sent != size:
                self.take_partly(connection, batch, sent, ranges)
                return False
        connection.cursor = batch.stop
        self.deliveries += count
        self.bytes_out += size
        return True

    def _send(self, connection: Connection, data: bytes | memoryview) -> int:
        """Send without waiting; return how much was taken, -1 if the connection is lost."""
        self.sends += 1
        try:
            sent = self.sender.send(connection.sock, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.lose(connection, error)
            return -1
        self.bytes_out += sent
        if sent and connection.deadline is not None:
            # Who is told to go but still reads gets the time to read it to the end.
            later = time.monotonic() + self._settings.close_timeout
            connection.deadline = min(later, connection.hard_deadline)
        return sent

    def batch(
        self, room: Room[Connection], start: int, stop: int, form: Form = RAW
    ) -> LogBatch | Wait:
        """Return the batch of a range: clients at the same cursor share it within a turn. If its
        form is not made yet, say why; look again after one of the next turns."""
        key = (room, start, stop, form)
        batch = self._batches.get(key)
        if batch is None:
            if len(self._batches) >= MAX_BATCHES:
                self._batches.clear()
            entries = room.entries(start, stop)
            made: bool | Wait = False
            if form is not RAW:
                made = self._make(room, start, entries, form)
                if isinstance(made, Wait):
                    return made
            batch = self._batches[key] = LogBatch(start, entries, form)
            self.joins += batch.count > 1
            if made:
                self.memory.count_forms(room)
        return batch

    def _make(
        self, room: Room[Connection], start: int, entries: list[Entry], form: Form
    ) -> bool | Wait:
        """See to it that entries from a position on have a form: each is made once, whoever needs
        it later, as long as there is memory for it. Return whether any was made, or why that has to
        wait."""
        slot, make = form.slot, form.make
        missing = [entry for entry in entries if getattr(entry, slot) is None]
        if not missing:
            return False
        frames_size = sum([len(entry.frame) for entry in missing])
        is_large = frames_size > FORM_BATCH_BYTES  # then it is one entry
        if is_large and self.making is not None:
            if (self.making.entry, self.making.form) != (entries[0], form):
                self.wanted.add(room, room.maker, start, form)
            return Wait.MAKING
        most = form.growth * frames_size + form.overhead * len(missing)
        if not self.memory.make_place(room, most):
            return Wait.MEMORY
        if is_large:
            self.making = Making(room, start, entries[0], form)
            return Wait.MAKING
        made = size = 0
        for entry in entries:
            # The others may have been dropped, to make place for these.
            if getattr(entry, slot) is None:
                data = make(entry)
                setattr(entry, slot, data)
                made += 1
                size += len(data)
        self.encodes[form] += made
        room.add_forms(form, start, size)
        if made and room not in self.accounting:
            # Who joins where nothing is said may make the log grow: a pass counts and trims it.
            self.active[room] = None
        return True

    def make_piece(self) -> None:
        """Make one more piece of a large form, if there is one to be made; with the last one, serve
        those who wait for it."""
        making = self.making
        if making is None:
            return
        room, form = making.room, making.form
        if making.position < room.base:
            making.rest = iter(())  # nobody needs it any more
        piece = next(making.rest, None)
        if piece is not None:
            making.pieces.append(piece)
            return
        self.making = None
        if making.position >= room.base and getattr(making.entry, form.slot) is None:
            data = form.joined(making.pieces)
            setattr(making.entry, form.slot, data)
            self.encodes[form] += 1
            room.add_forms(form, making.position, len(data))
        # In this order: what somebody needs is not dropped.
        self.feed([connection for connection in self.starved if connection.room is room])
        self.memory.count_forms(room)
        self.active[room] = None
        self.hungry.pop(room, None)
        self._make_next()

    def _make_next(self) -> None:
        """Begin with the next large form that is wanted."""
        while self.making is None:
            found = self.wanted.pop()
            if found is None:
                return
            room, position, form = found
            if position >= room.base:
                self._make(room, position, room.entries(position, position + 1), form)
            self.active[room] = None  # it may want another one by now

    def feed(self, connections: list[Connection]) -> None:
        """Let clients look again whether what they need is there."""
        for connection in connections:
            del self.starved[connection]
            if not connection.dropped:
                self.unfinished[connection] = None

    def take_partly(
        self, connection: Connection, batch: LogBatch, sent: int, ranges: list[Range] | None
    ) -> None:
        """Move a client to where a send stopped, and wait until its socket takes more."""
        connection.cursor, connection.rest = batch.locate(sent, ranges)
        connection.rest_is_close = False
        connection.rest_since = time.monotonic()
        self.deliveries += batch.count_others(connection.cursor, connection.exclude)
        self.bytes_out += sent
        self._block(connection, sent)

    def fall_behind(self, connection: Connection) -> None:
        """Serve a client alone from now on; one that is dropped stays away."""
        if connection.dropped:
            return
        connection.plain = False
        connection.room.in_step[connection.form].pop(connection, None)
        connection.room.behind[connection] = None

    def _block(self, connection: Connection, sent: int) -> None:
        """Wait until the socket takes more than it has."""
        now = time.monotonic()
        if sent:
            connection.blocked_since = now
        if not connection.blocked:
            connection.blocked = True
            try:
                self._selector.register(connection.sock, selectors.EVENT_WRITE, connection)
                connection.blocked_since = now
            except KeyError:
                pass  # it is still registered, in the middle of go_on()
            except OSError as error:  # the system watches no more sockets for us
                self.lose(connection, error)
                return
            self._timers.schedule(connection, now + self._settings.write_timeout)

    def go_on(self, connection: Connection) -> None:
        """Serve a client whose socket takes more."""
        if connection.dropped or not connection.blocked:
            return
        connection.blocked = False
        if self.serve(connection):
            self.unfinished[connection] = None
        if not connection.blocked and not connection.dropped:
            self._selector.unregister(connection.sock)

    def evict_slow(self, connection: Connection, newest: tuple[int, int] | None = None) -> None:
        """Evict a client that is too far behind; `newest` is the id of the last message that it
        has got, if the log cannot tell that any more."""
        resume = format_id(*(newest or connection.room.id_before(connection.cursor)))
        lag = connection.room.lag(connection.cursor)
        logger.warning(
            "%s is evicted: it is %d bytes behind, resume after %s",
            connection.member.id,
            lag,
            resume,
        )
        self.evict(connection, 1013, f"since={resume}")

    def evict(self, connection: Connection, code: int, reason: str, *, blamed: bool = True) -> None:
        """End a connection at once: only the frame in progress and Close go out.

        Args:
            connection: the client.
            code, reason: those of the Close.
            blamed: it does not do its part, and counts as evicted.
        """
        self.evictions += blamed
        # In this order: its reader takes nothing more from when one of its messages may be refused.
        connection.evict(code, reason)
        self._leave(connection)
        self.fall_behind(connection)
        now = time.monotonic()
        connection.deadline = now + self._settings.close_timeout
        connection.hard_deadline = connection.deadline + self._settings.write_timeout
        self._timers.schedule(connection, connection.deadline)
        if not connection.blocked:
            self.unfinished[connection] = None

    def cut_off(self, connection: Connection) -> None:
        """Forget a client that does not take the rest of a message whose memory is needed."""
        self.evictions += 1
        logger.warning(
            "%s is cut off: it takes nothing, and the memory of all logs is needed",
            connection.member.id,
        )
        self.drop(connection)

    def _end_writing(self, connection: Connection) -> None:
        """Close is sent: nothing follows it. The stream ends once the peer's Close has come: for
        Firefox a connection that ends before its answer is not clean (RFC 6455 §7.1.1). The reader
        waits for the end of the peer's stream."""
        connection.close_sent = True
        connection.plain = False
        connection.room.in_step[connection.form].pop(connection, None)
        connection.room.behind.pop(connection, None)
        self._leave(connection)
        if connection.reader_gone:
            self.drop(connection)
            return
        connection.deadline = time.monotonic() + self._settings.close_timeout
        self._timers.schedule(connection, connection.deadline)
        self._half_close(connection)

    def _half_close(self, connection: Connection) -> None:
        """End the stream of a client that was sent Close, if nothing is to come of it any more."""
        if connection.peer_closed or connection.form.is_stream:
            try:
                connection.sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                self.lose(connection, error)

    def _leave(self, connection: Connection) -> None:
        room = connection.room
        told = room.leave(connection)
        if told or room.recount:
            self._on_left(room, told)

    def lose(self, connection: Connection, error: OSError) -> None:
        logger.debug("%s is lost: %s", connection.member.id, error)
        self.drop(connection)

    def drop(self, connection: Connection) -> None:
        """Forget a client: cut the connection, so that its reader ends, and let go of the
        socket."""
        if connection.dropped:
            return
        connection.dropped = True
        connection.plain = False
        connection.end(frames.ABNORMAL, "")
        self.connections.pop(connection, None)
        self.starved.pop(connection, None)
        room = connection.room
        room.in_step[connection.form].pop(connection, None)
        room.behind.pop(connection, None)
        self._leave(connection)
        self._timers.cancel(connection)
        connection.forget()
        try:
            self._selector.unregister(connection.sock)
        except (KeyError, ValueError):
            pass  # it was not blocked; it is closed already
        connection.abort()
        connection.release()

    def attend(self, connection: Connection) -> None:
        """Serve a client for which something was queued."""
        if connection not in self.connections:
            return  # not handed over yet: it is served when it is; or dropped
        if connection.close_sent:
            self._half_close(connection)
        if connection.blocked or connection.close_sent:
            return
        if connection in connection.room.in_step[connection.form]:
            self.fall_behind(connection)
        if self.serve(connection):
            self.unfinished[connection] = None

    def reader_left(self, connection: Connection) -> None:
        """Let go of a client whose reader has ended."""
        connection.reader_gone = True
        if connection.closing and not connection.close_sent and not connection.dropped:
            # The peer ended its stream right after its Close: it may still read ours.
            if connection.deadline is None:
                connection.deadline = time.monotonic() + self._settings.close_timeout
                connection.hard_deadline = connection.deadline
            self._timers.schedule(connection, connection.deadline)
        else:
            self.drop(connection)
