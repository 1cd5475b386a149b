"""What one client sends, taken on its reader thread: messages, events, control frames.

``Reader.take`` gets the bytes as they come, and publishes the messages in them in batches. A
control frame is served in its place: what came before it is in the log first. Whoever sends too
fast waits here, for the fan-out or for the rate limit; so does a client that does not take its
acks.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import HubStopped
from ..messages import format_id
from ..records import get_logger
from ..wire import events, frames
from ..wire.events import BadFrame
from ..wire.frames import FrameDecoder
from .backplane.interface import KEY_REUSED, KEY_REUSED_TEXT, SenderGone
from .core import Core, Refused
from .delivery.connection import Connection
from .delivery.fanout import STALL_SECONDS
from .delivery.timers import NEVER
from .delivery.writer import BATCH_BYTES
from .http.access import Grant
from .incoming import SMALL_BYTES, Arrival
from .rates import COPIED_BYTES, PARSED_BYTES, Flow
from .rooms.encodings import JSON
from .rooms.entries import ENTRY_BYTES, Accepted, Draft, Key, encode, fingerprint, to_messages
from .rooms.room import WAIT_SECONDS
from .sessions import RENEW_SECONDS, Session
from .turns import Worker

logger = get_logger("broadcast_server.hub")

# What a client may still send after Close, in messages of the largest size, before it is cut off.
_DISCARD_MESSAGES = 16

# Acks and other answers that may wait for a client before its reader waits for it.
MAX_WAITING_BYTES = 256 * 1024
# So many members of a list cost a client as much of its rate as a message.
LISTED_FOR_ONE = 10
# So many errors without a good frame between them end a connection.
MAX_ERRORS = 10
# Where the rate is limited, a reader takes what came in pieces of so many bytes, and rests for a
# moment after messages of so much weight: those of a second may come at once, and several readers
# that never wait would leave the interpreter to the others for the switch interval only, each time.
PIECE_BYTES = 8 * 1024
REST_WEIGHT = 128
# What an event or a control frame weighs; a plain message weighs 1.
EVENT_WEIGHT = 8


class Intake:
    """Messages of one client that are published together. Once it is published it is left alone:
    the backplane may still need it.

    Attributes:
        drafts: the messages.
        refs: what their acks are to refer to, one for each; empty for a plain client.
        cost: what they will cost in the log.
    """

    __slots__ = ("client", "cost", "drafts", "refs")

    def __init__(self, client: Connection) -> None:
        self.client = client
        self.drafts: list[Draft] = []
        self.refs: list[events.Ref] = []
        self.cost = 0

    def add(self, frame: bytes, key: Key | None = None, ref: events.Ref = None) -> None:
        self.drafts.append(Draft(self.client.number, frame, self.client.member, key))
        if self.client.form is JSON:
            self.refs.append(ref)
        self.cost += len(frame) + ENTRY_BYTES


class Reader:
    """What one client sends. All of it runs on its reader thread, and none writes to the socket.

    Args:
        core: the hub's parts.
        client: the client, a member of its room.
        session: what it can come back with; None for a plain client.
        grant: what it may do.
        owner: who counts as the owner of its keys (``networks.owner_of``).
        sender: who pays for it; None if it pays for itself alone.
    """

    # Every idle client has one.
    __slots__ = (
        "_arrival",
        "_client",
        "_control_flow",
        "_decoder",
        "_discarded",
        "_errors",
        "_flow",
        "_has_come",
        "_may_publish",
        "_may_rename",
        "_owed",
        "_owner",
        "_renew_at",
        "_sender",
        "_session",
        "_slowed",
        "_weight",
        "_worker",
        "core",
    )

    def __init__(
        self,
        core: Core,
        client: Connection,
        session: Session | None,
        grant: Grant,
        owner: str = "",
        sender: str | None = None,
    ) -> None:
        self.core = core
        self._owner = owner
        self._client = client
        self._session = session
        # The next three are made when first needed: the stack of a thread that only waits stays a
        # page smaller.
        self._decoder: FrameDecoder | None = None
        self._flow: Flow | None = None
        self._control_flow: Flow | None = None
        self._arrival: Arrival | None = None  # the place of a large message that is coming in
        self._errors = 0
        self._may_publish = grant.may_publish(client.room.path)
        self._may_rename = grant.name is None
        self._renew_at = NEVER if session is None else time.monotonic() + RENEW_SECONDS
        self._sender = sender
        self._owed = 0.0  # what it has sent and not paid for yet, in messages
        self._slowed: tuple[Flow, ...] = ()  # what it was slowed down for already
        self._discarded = 0
        self._has_come = False  # the large message is complete, and waits for the hub
        self._weight = 0  # of what it has taken since it rested
        self._worker: Worker | None = None

    def take(self, data: bytes) -> None:
        """Decode what arrived, publish the messages in batches, serve control frames in their
        place."""
        if len(data) <= PIECE_BYTES or not self.core.settings.max_rate:
            self._take(data)
            return
        for start in range(0, len(data), PIECE_BYTES):
            if self._client.ended:
                self.discard(data[start:])
                return
            self._take(data[start : start + PIECE_BYTES])

    def _take(self, data: bytes) -> None:
        client = self._client
        # The fan-out ends the connection then, and may be a moment late.
        if client.expires != NEVER and time.monotonic() >= client.expires:
            self._look_for_close(data)
            self._close(client, 1008, "token expired")
            self._forget()
            return
        # Of a silent client the pongs come by here.
        if client.quiet_since >= self._renew_at:
            self._renew_session(client)
        is_json = client.form is JSON
        decoder = self._decoder
        if decoder is None:
            limit = self.core.largest_frame(client.form)
            self._decoder = decoder = FrameDecoder(limit, self.core.settings.max_fragments)
            self._flow = flow = self.core.rates.flow(self._sender)
            self._wait_for_rate(client, flow, flow.left())
        batch = Intake(client)
        filtered = self.core.filter is not None or not self._may_publish
        unit = PARSED_BYTES if is_json else COPIED_BYTES
        owed = 0.0
        for opcode, payload in decoder.feed(data):
            if opcode <= frames.BINARY:
                owed += 1.0
                if len(payload) >= unit:
                    owed += self.core.rates.bytes_cost(len(payload), unit)
                if is_json:
                    self._owed += owed
                    owed = 0.0
                    self._weight += EVENT_WEIGHT
                    batch = self._take_event(client, opcode, payload, batch)
                elif filtered:
                    self._take_filtered(client, opcode, payload, batch)
                else:
                    batch.add(frames.encode_frame(opcode, payload))
                # The message in progress comes first, and has a place if it is large.
                is_large = self._arrival is not None
                if is_large or batch.cost >= BATCH_BYTES or self._weight >= REST_WEIGHT:
                    self._owed += owed
                    owed = 0.0
                    batch = self._publish(client, batch, is_large=is_large)
                    self._give_place()
                    self._rest()
                continue
            # What came before a control frame is in the log before it is answered.
            self._owed += owed
            owed = 0.0
            batch = self._publish(client, batch)
            if opcode != frames.CLOSE:
                self._weight += EVENT_WEIGHT
                self._pay_for_control(client, 1)
                self._rest()
            if opcode == frames.PING:
                if client.queue_urgent(frames.encode_frame(frames.PONG, payload)):
                    self.core.fanout.attend(client)
            elif opcode == frames.CLOSE:
                client.peer_closed = True
                code, reason = frames.parse_close(payload)
                self._close(client, code, reason, echo_code=code)
        self._owed += owed
        self._weight += int(owed)
        self._publish(client, batch)
        self._pay(client)
        if decoder.crumbs:
            crumbs, decoder.crumbs = decoder.crumbs, 0
            self._weight += crumbs
            self._pay_for_control(client, crumbs)
        self._rest()
        if decoder.failure is not None:
            failure = decoder.failure
            option = ""
            if failure.code == 1009:
                many = "fragments" in failure.reason
                option = "; see --max-fragments" if many else "; see --max-message-bytes"
            logger.info("%s broke the protocol: %s", client.member.id, f"{failure}{option}")
            if failure.code == 1009:
                self.core.count_refusal("max_fragments" if many else "too_big")
            self._look_for_close(b"")
            self._close(client, failure.code, failure.reason)
        if self._arrival is not None:
            if client.ended:
                self._forget()
        elif needed := decoder.needed(SMALL_BYTES):
            self._make_place(client, needed)

    def _make_place(self, client: Connection, needed: int) -> None:
        """Wait for a place for the large message in progress, before more of it is read.

        All of its bytes are asked for at once: a message that had to ask again could wait for one
        that waits for it.
        """
        if not client.ended:
            self._arrival = self.core.incoming.take(
                needed, self._sender or client.member.id, lambda: client.ended, message=self
            )
        if client.ended:
            self._forget()

    def _give_place(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            self.core.incoming.give(arrival)

    def _forget(self) -> None:
        """Let go of the message in progress and of its place: the client has ended."""
        if self._decoder is not None:
            self._decoder.forget()
        self._give_place()

    def received(self) -> int:
        """Return how many bytes of the message in progress have come. Any thread."""
        decoder = self._decoder
        return 0 if decoder is None else decoder.received()

    def give_way(self, arrival: Arrival) -> None:
        """End the client, whose large message is late while others wait for its place. Any
        thread."""
        if self._arrival is not arrival or self._has_come:
            return  # it has come in the meantime, and waits for the hub
        client = self._client
        if self.core.dismiss(client, 1013, None):
            logger.info(
                "%s is closed: a message of %d bytes comes too slowly, and others wait to send"
                " theirs; see --handshake-timeout",
                client.member.id,
                arrival.size,
            )
            self.core.count_refusal("timeout")
        # A reader that waits for bytes throws them away from now on; any other one sees that the
        # client has ended.
        if client.ended and client.waiting:
            self._forget()

    def _take_filtered(
        self, client: Connection, opcode: int, payload: bytes, batch: Intake
    ) -> None:
        """Let the program's filter decide about a plain client's message, if it may send any."""
        if not self._may_publish:
            # There is no other way to tell a plain client.
            self._log_not_allowed(client)
            self.core.count_refusal("token")
            self._close(client, 1008, "you may not write to this room")
            return
        data = payload.decode("utf-8") if opcode == frames.TEXT else payload
        try:
            found = self.core.pass_filter(data, client.room.path, client.member)
        except Refused:
            logger.info("a message of %s was refused by the filter", client.member.id)
            return
        batch.add(encode(found))

    def _log_not_allowed(self, client: Connection) -> None:
        id, room = client.member.id, client.room.path
        logger.info("a message of %s was refused: its token may not write to %s", id, room)

    def _take_event(self, client: Connection, opcode: int, payload: bytes, batch: Intake) -> Intake:
        """Do what a client says in ``broadcast.v1.json``; return the batch to go on with."""
        try:
            if opcode == frames.BINARY:
                raise BadFrame("not_text", "binary data goes into data_base64")
            event = self._parse(client, payload)
            if event is None:
                return batch
            if isinstance(event, events.Send):
                if not self._may_publish:
                    self._log_not_allowed(client)
                    self.core.count_refusal("token")
                    raise BadFrame("not_allowed", "you may not write to this room", event.ref)
                try:
                    data = self.core.pass_filter(event.data, client.room.path, client.member)
                except Refused as error:
                    raise BadFrame("refused", str(error), event.ref) from None
                key = None
                if event.key is not None:
                    key = Key(event.key, self._owner, fingerprint(event.data))
                batch.add(encode(data), key, event.ref)
                self._errors = 0
                return batch
            if isinstance(event, events.Rename) and not self._may_rename:
                raise BadFrame("not_allowed", "your token says who you are", event.ref)
        except BadFrame as error:
            if error.code == "too_big":
                self.core.count_refusal("too_big")
            batch = self._publish(client, batch)
            self._pay(client)
            self._queue(client, events.error(error.code, error.detail, error.ref))
            self._errors += 1
            if self._errors >= MAX_ERRORS:
                self._close(client, 1008, "too many errors")
            return batch
        # An answer comes after what was sent before.
        batch = self._publish(client, batch)
        self._errors = 0
        room = client.room
        if isinstance(event, events.Who):
            ref = event.ref
            listed = min(len(room.members), events.MAX_LISTED)
            self._pay_for_many(client, listed // LISTED_FOR_ONE)
            self._wait_to_queue(client, lambda: room.answer_who(client, ref, MAX_WAITING_BYTES))
        else:
            told = room.rename(client, event.name)
            self.core.fanout.tell(room, told)
            self._pay_for_many(client, len(told))
        return batch

    def _renew_session(self, client: Connection) -> None:
        """Give a client that stays for days what it can come back with, before the old one ends."""
        assert self._session is not None
        self._renew_at = client.quiet_since + RENEW_SECONDS
        token = self.core.sessions.token(self._session, client.member.name)
        self._queue(client, events.session(token))

    def _parse(
        self, client: Connection, payload: bytes
    ) -> events.Send | events.Rename | events.Who | None:
        """Return what an event says; None if the client has ended while it waited for its turn."""
        limit = self.core.settings.max_message_bytes
        size = len(payload)
        if size <= events.MAX_BESIDE_BYTES:
            return events.parse(payload, limit)
        parsing = self.core.parsing
        owner = self._sender or client.member.id
        self._has_come = True
        taken = parsing.take(size, owner, lambda: client.ended)
        self._has_come = False
        if not taken:
            return None
        try:
            return events.parse(payload, limit)
        finally:
            parsing.give(size, owner)

    def _queue(self, client: Connection, body: bytes) -> None:
        """Queue events for the client alone; wait while too much waits for it already."""
        self._queue_frames(client, JSON.event(body))

    def _queue_frames(self, client: Connection, frame: bytes) -> None:
        self._wait_to_queue(client, lambda: client.queue(frame, MAX_WAITING_BYTES))

    def _wait_to_queue(self, client: Connection, queue: Callable[[], bool | None]) -> None:
        while True:
            queued = queue()
            if queued is None:
                return
            if queued:
                self.core.fanout.attend(client)
                return
            client.wait_drained(WAIT_SECONDS)

    def _close(
        self, client: Connection, code: int, reason: str, echo_code: int | None = None
    ) -> None:
        """Answer with Close; whatever still comes is thrown away until the peer's end of stream."""
        if not self.core.dismiss(client, code, reason, echo_code) and client.peer_closed:
            self.core.fanout.attend(client)  # it ends already, and need not wait for an answer

    def _look_for_close(self, data: bytes) -> None:
        """Note whether the peer's Close is in what nobody reads any more."""
        client = self._client
        if client.peer_closed or client.form.is_stream:
            return
        if self._decoder is None:
            self._decoder = FrameDecoder(0, 0)
        if self._decoder.skip(data):
            client.peer_closed = True
            self.core.fanout.attend(client)

    def discard(self, data: bytes) -> bool:
        """Throw away what comes after Close; return False, and cut the client off, if that is too
        much."""
        self._look_for_close(data)
        self._forget()
        self._discarded += len(data)
        if self._discarded > _DISCARD_MESSAGES * self.core.settings.max_message_bytes + 65536:
            self._client.abort()
            return False
        return True

    def _publish(self, client: Connection, batch: Intake, *, is_large: bool = False) -> Intake:
        """Publish a batch once the fan-out has room for it, then wait as the rate limit wants;
        return an empty one.

        Args:
            is_large: the last message in it has a place, which is given back then.
        """
        core = self.core
        room = client.room
        if not batch.drafts:
            return batch
        while True:
            self._wait_for_itself(client)
            self._has_come = is_large
            taken = not client.ended and room.reserve(batch.cost, None, lambda: client.ended)
            self._has_come = False
            if not taken:
                return Intake(client)
            if not self._has_to_catch_up(client):
                break
            room.release(batch.cost)  # it has fallen behind while it waited for the place
        if not room.claimed:
            core.rooms.claim(room, self._owner)
        if batch.refs:
            client.begin_answer()
        try:
            core.publish(room, batch.drafts, batch.cost, lambda ids: self._accepted(batch, ids))
        except HubStopped:
            self._answered(batch)
            core.say_goodbye(client)
            return Intake(client)
        except SenderGone:
            # The others were told that it has left: nothing of it comes after that. It gets no ack.
            self._answered(batch)
            return Intake(client)
        if is_large:
            self._give_place()
        self._pay(client)
        return Intake(client)

    def _accepted(self, batch: Intake, ids: Accepted) -> None:
        if batch.refs:
            answers = []
            for (id, repeated), ref in zip(ids.ids(len(batch.drafts)), batch.refs, strict=True):
                if id is None:
                    self.core.count_refusal("key_reused")
                    answers.append(JSON.event(events.error(KEY_REUSED, KEY_REUSED_TEXT, ref)))
                elif ref is not None:
                    answers.append(JSON.event(events.ack(ref, format_id(*id), repeated)))
            if answers:
                self._queue_frames(batch.client, b"".join(answers))
            self._answered(batch)
        if self.core.on_message is not None:
            for message in to_messages(batch.client.member.room, batch.drafts, ids):
                self.core.call(self.core.on_message, message)

    def _answered(self, batch: Intake) -> None:
        """Say the goodbye that had to wait for the acknowledgements, if there is one."""
        if batch.refs and batch.client.end_answer():
            self.core.say_goodbye(batch.client)

    def end(self) -> None:
        """Leave what is not paid to others of the same sender, and its place to all."""
        self._give_place()
        if self._flow is not None:
            self._flow.take(self._owed)
            self._flow.end()
        if self._control_flow is not None:
            self._control_flow.end()

    def _pay(self, client: Connection) -> None:
        """Pay for what was taken; wait as the rate wants."""
        owed, self._owed = self._owed, 0.0
        if owed and self._flow is not None:
            self._wait_for_rate(client, self._flow, self._flow.take(owed))

    def _rest(self) -> None:
        """Leave the interpreter to others for a while, after much work."""
        if self._weight >= REST_WEIGHT:
            self._weight = 0
            if self.core.settings.max_rate:
                worker = self._worker
                if worker is None:
                    self._worker = worker = Worker(self.core.turns)
                time.sleep(worker.tire(self._sender or self._client.member.id))

    def _pay_for_control(self, client: Connection, count: int) -> None:
        """Pay for frames that are no messages: each costs the hub as much as one."""
        flow = self._control_flow
        if flow is None:
            self._control_flow = flow = self.core.control_rates.flow(self._sender)
            self._wait_for_rate(client, flow, flow.left())
        self._wait_for_rate(client, flow, flow.take(count))

    def _wait_for_itself(self, client: Connection) -> None:
        """Read no more of a client that is far behind until it has caught up: what it sends itself
        is a part of what it cannot take. Only while it takes something: one that sends first and
        reads later must not wait for itself for ever."""
        while self._has_to_catch_up(client):
            client.wait_caught_up(WAIT_SECONDS)

    def _has_to_catch_up(self, client: Connection) -> bool:
        if not client.lagging or client.ended:
            return False
        return time.monotonic() < client.blocked_since + STALL_SECONDS

    def _pay_for_many(self, client: Connection, count: int) -> None:
        """Pay for an event that costs the hub as much as that many messages, one of which its frame
        has paid for: what passes in a second at most."""
        self._owed += max(0, min(count, int(self.core.settings.max_rate)) - 1)
        self._pay(client)

    def _wait_for_rate(self, client: Connection, flow: Flow, wait: float) -> None:
        """Wait until there is no debt. Bursts of a second pass."""
        if not wait:
            return
        if flow not in self._slowed:
            self._slowed = (*self._slowed, flow)
            what, option = "messages", "--max-rate"
            if flow is not self._flow:
                what, option = "control frames and small fragments", "--max-control-rate"
            id = client.member.id
            logger.info("%s is slowed down: too many %s in a second; see %s", id, what, option)
        # After the log: who has seen the count finds the line.
        self.core.count_refusal("rate" if flow is self._flow else "control_rate")
        while wait and not client.ended:
            time.sleep(min(wait, WAIT_SECONDS))
            wait = flow.left()
