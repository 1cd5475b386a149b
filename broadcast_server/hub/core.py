"""What the parts of one hub share: settings, rooms, the sequencer, the fan-out, the callbacks."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import http
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import HubBusy, HubStopped
from ..messages import Id, Member, Message
from ..records import get_logger
from ..settings import Settings
from ..transport.tls_stream import Certificate
from ..wire.events import MAX_BESIDE_BYTES
from .backplane.interface import Backplane, Done, SenderGone
from .budget import Budget
from .delivery.connection import Connection
from .delivery.fanout import FanOut
from .http import access
from .http.access import AccessRequest, Authorize, Grant
from .http.models import Decision, Refusal, Request
from .incoming import Incoming
from .rates import SenderRates
from .rooms.encodings import JSON, Form
from .rooms.entries import Accepted, Draft, Key, cost_of, encode
from .rooms.registry import RoomRegistry
from .rooms.room import Reservation, Room
from .sessions import Sessions
from .turns import Turns

logger = get_logger("broadcast_server.hub")

# With anything else whoever is refused would think that all is well.
_REFUSING = frozenset(status.value for status in http.HTTPStatus if status >= 300)

# What is made of the large events of all clients at once takes a few times this.
PARSING_BYTES = 8 * 1024 * 1024

# What is in hand of large answers to requests, and how much of that one address may have.
ANSWERS_BYTES = 32 * 1024 * 1024
ANSWERS_SHARE = 8 * 1024 * 1024

Filter = Callable[[Message], "Message | str | bytes | None"]


class Refused(Exception):
    """The program's filter does not let a message pass."""


class Counts(NamedTuple):
    """What a hub has counted so far: copies of the attributes of `Core` of the same names."""

    encodes: int
    bytes_in: int
    ended: dict[int, int]
    refused: dict[str, int]


@dataclasses.dataclass
class Core:
    """One hub's parts. All methods may be called from any thread.

    Attributes:
        rates: what each sender may still send and ask.
        control_rates: the same for control frames and small fragments.
        client_count: returns how many clients there are now.
        leaving: set once, when no load balancer is to send anybody here any more.
        draining: set once, when nobody is admitted any more.
        stopping: set once, when no message is accepted any more.
        ends_at: ``time.monotonic()`` when it is expected to have ended, once it is draining.
        restarting: the hub comes back: its clients are told so, and from where to go on.
        encodes: frames made of messages so far; one for each message, whoever gets it.
        bytes_in: bytes of messages taken from clients and publishers.
        ended: how many connections have ended, by close code.
        tls: the certificate and key; None for plain connections.
        refused: how many requests and messages were refused, by reason.
        parsing: for events that are large enough to count while they are taken apart.
        answers: for answers over HTTP that are large enough to count until they are sent.
        turns: how much CPU time the threads of each sender have used.
        incoming: for messages that are large enough to count until they are in a log.
        registry: what prometheus_client reads of this hub; None until it is asked for.
        authorize: says who may do what; None if everybody may do everything.
        reloads: what ``BroadcastHub.reload`` calls to read files anew; each may raise.
    """

    settings: Settings
    rooms: RoomRegistry[Connection]
    backplane: Backplane
    fanout: FanOut
    on_message: Callable[[Message], object] | None = None
    on_join: Callable[[Member], object] | None = None
    on_leave: Callable[[Member, int, str], object] | None = None
    filter: Filter | None = None
    client_count: Callable[[], int] = lambda: 0
    sessions: Sessions = dataclasses.field(default_factory=Sessions)
    rates: SenderRates = dataclasses.field(init=False)
    control_rates: SenderRates = dataclasses.field(init=False)
    incoming: Incoming = dataclasses.field(init=False)
    turns: Turns = dataclasses.field(default_factory=Turns)
    parsing: Budget = dataclasses.field(default_factory=lambda: Budget(PARSING_BYTES))
    answers: Budget = dataclasses.field(
        default_factory=lambda: Budget(ANSWERS_BYTES, ANSWERS_SHARE)
    )
    leaving: bool = False
    draining: bool = False
    stopping: bool = False
    ends_at: float = 0.0
    restarting: bool = False
    reloads: list[Callable[[], None]] = dataclasses.field(default_factory=list)
    encodes: int = 0
    bytes_in: int = 0
    ended: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    tls: Certificate | None = None
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    registry: Any = None
    authorize: Authorize | None = None
    # Guards `encodes`, `bytes_in`, `ended` and `refused`. Nothing else is taken while it is held.
    _count_lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.rates = SenderRates(self.settings.max_rate)
        self.control_rates = SenderRates(self.settings.max_control_rate)
        self.incoming = Incoming(self.largest_frame(JSON), self.settings.handshake_timeout)
        if self.tls is not None:
            self.reloads.append(self.tls.reload)

    def largest_frame(self, form: Form) -> int:
        """Return how many bytes a client's message may have in its form."""
        limit = self.settings.max_message_bytes
        # Of a text every byte may need six in JSON.
        return 6 * limit + MAX_BESIDE_BYTES if form is JSON else limit

    def seconds_left(self) -> float:
        """Return how long a hub that ends is expected to take; 0 for one that does not."""
        return max(0.0, self.ends_at - time.monotonic())

    # -- Access --------------------------------------------------------------------------------

    def admit(self, request: Request, decision: Decision, address: str) -> Grant | Refusal:
        """Return what whoever sent a request may do, or why they may not do what they ask for.

        What fails refuses. On the reader's thread, without a lock.

        Args:
            request: the request.
            decision: what the policies made of it.
            address: where it came from.
        """
        if self.authorize is None or (question := access.asked(decision)) is None:
            return access.OPEN
        action, room = question
        found: object
        try:
            token = access.find_token(request)
        except ValueError as error:
            challenge = ("WWW-Authenticate", 'Bearer error="invalid_request"')
            found = Refusal(400, f"bad token: {error}", (challenge,))
        else:
            found = self._ask(AccessRequest(action, room, token, address, request.headers))
        if isinstance(found, Grant):
            found = access.judge(found, action, room, time.time()) or found
        if isinstance(found, Grant):
            return found
        assert isinstance(found, Refusal)
        # A program's own refusal is counted with the others: what it calls the reason is no label.
        found = dataclasses.replace(found, reason="token")
        return found.with_headers(getattr(decision, "headers", ()))

    def _ask(self, request: AccessRequest) -> Grant | Refusal:
        assert self.authorize is not None
        try:
            found: object = self.authorize(request)
        except Exception as error:
            # Its text may hold the token, as that of a KeyError does: only the place is logged.
            places = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
            kind = type(error).__name__
            logger.error("authorize failed: %s at %s; nobody is let in", kind, " > ".join(places))
            return Refusal(500, "the hub cannot tell who may do this")
        if found is None:
            return access.unknown("you are not let in", invalid=request.token is not None)
        if isinstance(found, Grant) or (isinstance(found, Refusal) and found.status in _REFUSING):
            return found
        logger.error("authorize returned %s; nobody is let in", type(found).__name__)
        return Refusal(500, "the hub cannot tell who may do this")

    # -- Publishing ----------------------------------------------------------------------------

    def pass_filter(self, data: str | bytes, room: str, sender: Member | None) -> str | bytes:
        """Return what the program's filter makes of a message. A filter that fails lets nothing
        pass.

        Raises:
            Refused: it does not pass.
        """
        if self.filter is None:
            return data
        now = datetime.datetime.now(datetime.timezone.utc)
        try:
            found: object = self.filter(Message(data, room, sender, now, None))
        except Exception:
            logger.exception("the filter failed; the message is refused")
            self.count_refusal("filter")
            raise Refused("the hub does not let it pass") from None
        if isinstance(found, Message):
            found = found.data
        if found is None:
            self.count_refusal("filter")
            raise Refused("the hub does not let it pass")
        if not isinstance(found, (str, bytes)):
            logger.error("the filter returned %s; the message is refused", type(found).__name__)
            self.count_refusal("filter")
            raise Refused("the hub does not let it pass")
        if found is not data and isinstance(found, str):
            try:
                found.encode()
            except UnicodeEncodeError:
                what = "a text with a lone surrogate"
                logger.error("the filter returned %s; the message is refused", what)
                self.count_refusal("filter")
                raise Refused("the hub does not let it pass") from None
        return found

    def draft(
        self, origin: int, data: str | bytes, sender: Member | None, key: Key | None = None
    ) -> Draft:
        """Return a message on its way to an id."""
        return Draft(origin, encode(data), sender, key)

    def publish(self, room: Room[Connection], drafts: list[Draft], cost: int, done: Done) -> None:
        """Let a client's batch, whose place in the room is reserved, be given ids, and wake the
        fan-out.

        Args:
            room: the room, where ``reserve(cost, …)`` returned True.
            drafts: the batch, which the caller leaves alone from now on.
            cost: what was reserved.
            done: called with the ids once the batch is accepted, without a lock.

        Raises:
            HubStopped: the hub takes no more; the place is given back.
            SenderGone: the client has left the room; the place is given back.
        """
        self._count(drafts)

        def accepted(ids: Accepted) -> None:
            self.fanout.notify(room)
            done(ids)

        try:
            self.backplane.submit(room, drafts, accepted)
        except (HubStopped, SenderGone):
            room.release(cost)
            raise

    def _count(self, drafts: list[Draft]) -> None:
        with self._count_lock:
            self.encodes += len(drafts)
            self.bytes_in += sum(len(draft.frame) for draft in drafts)

    def publish_one(
        self,
        path: str,
        draft: Draft,
        deadline: float,
        maker: str | None = None,
        hurried: Callable[[], bool] = lambda: False,
    ) -> Accepted:
        """Publish one message in a room, which is made if need be.

        Args:
            path: the room.
            draft: the message.
            deadline: ``time.monotonic()`` at which to give up waiting for the fan-out.
            maker: the owner of what is published, as ``networks.owner_of`` says; None for the
                hub's own program.
            hurried: tells that it must not wait any longer.

        Raises:
            NoRoom: the room would be one too many.
            HubBusy: the fan-out was behind until the deadline, or until `hurried` said so; nothing
                was sent.
            HubStopped: the hub does not run.
        """
        drafts = [draft]
        reservation: Reservation[Connection] = Reservation()
        found: list[Accepted] = []
        try:
            room = self._reserve(path, cost_of(drafts), deadline, maker, hurried, reservation)
            self._count(drafts)
            self.backplane.submit(reservation, drafts, found.append, maker is not None)
            self.fanout.notify(room)
        except BaseException:
            # Perhaps Ctrl-C, and nobody knows where: what is in the log goes out, for anything else
            # the place is given back.
            if reservation.room is not None:
                reservation.release(reservation.cost)
                self.fanout.notify(reservation.room)
                self.fanout.wake()
            raise
        return found[0]

    def _reserve(
        self,
        path: str,
        cost: int,
        deadline: float,
        maker: str | None,
        hurried: Callable[[], bool],
        reservation: Reservation[Connection],
    ) -> Room[Connection]:
        def given_up() -> bool:
            return self.stopping or not self.fanout.is_alive

        while not given_up():
            room = self.rooms.open(path, maker, publishes=True)
            if room.reserve(cost, deadline, lambda: given_up() or hurried(), reservation):
                return room
            if hurried():
                raise HubBusy("the hub is behind, and this connection has to make way")
        raise HubStopped("the hub is stopping")

    def call(self, function: Callable[..., object] | None, *args: object) -> None:
        """Call the program's code; what it raises is logged and hurts nobody."""
        if function is None:
            return
        try:
            function(*args)
        except Exception:
            logger.exception("a callback failed")

    # -- Members -------------------------------------------------------------------------------

    def leave(self, connection: Connection) -> None:
        """End a membership, if there still is one, and have the others told."""
        room = connection.room
        told = room.leave(connection)
        if told or room.recount:
            self.fanout.tell(room, told)

    def dismiss(
        self,
        connection: Connection,
        code: int,
        reason: str | None,
        echo_code: int | None = None,
        *,
        after_answers: bool = False,
    ) -> bool:
        """Close a connection after all that it is to get; it is no member from now on.

        Args:
            connection: the client.
            code, reason, echo_code, after_answers: as for ``Subscriber.queue_close``.

        Returns:
            False if it is closing already, or lost, or it is too early.
        """
        try:
            if not connection.queue_close(
                code, reason, echo_code=echo_code, after_answers=after_answers
            ):
                return False
            self.leave(connection)
            self.fanout.attend(connection)
        except BaseException:
            # Perhaps Ctrl-C, and nobody knows where: what was begun is done, and since some may
            # have been told that it leaves and others not, all are told who is here.
            room = connection.room
            connection.queue_close(code, reason, echo_code=echo_code)
            room.leave(connection)
            self.fanout.tell(room, [connection, *room.tell_again()])
            self.fanout.wake()
            raise
        return True

    def say_goodbye(self, connection: Connection) -> None:
        """Close a connection because the hub ends. Done already, it does nothing."""
        # Who shall come back is told where to go on; the id is that of the last message before it.
        code, reason = (1012, None) if self.restarting else (1001, "the hub stops")
        self.dismiss(connection, code, reason, after_answers=True)

    def gap_of(self, since: Id | None) -> str | None:
        """Return why nothing can be known about an id, whatever its room holds; None if it may be
        there."""
        if since is None:
            return None
        if since > self.backplane.newest():
            return "unknown"
        return "restarted" if since < self.backplane.started else None

    # -- Counters ------------------------------------------------------------------------------

    def count_end(self, code: int) -> None:
        """Count a connection that has ended."""
        with self._count_lock:
            self.ended[code] += 1

    def count_refusal(self, reason: str) -> None:
        """Count a request or a message that is refused, or a sender that is held back.

        Args:
            reason: one of ``metrics.REFUSALS``, in snake_case; never what a client has sent.
        """
        with self._count_lock:
            self.refused[reason] += 1

    def counts(self) -> Counts:
        """Return all counts of one moment."""
        with self._count_lock:
            return Counts(self.encodes, self.bytes_in, dict(self.ended), dict(self.refused))
