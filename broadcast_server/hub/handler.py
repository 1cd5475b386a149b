"""One client's session on its reader thread: HTTP, the upgrade, then one message after the other.

``HubHandler`` is websocket-server's ``WebSocketHandler`` with its life cycle in use: ``setup``,
then ``handle`` calls ``handshake`` until the upgrade is done and ``read_next_message`` until
``keep_alive`` is False, then ``finish``. What those do is written anew; docs/topics/dependencies.md
says why. Everything in this module runs on the client's reader thread, and none of it writes to the
socket after the hand-over.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Protocol

from ..messages import Member
from ..networks import Network, owner_of
from ..records import get_logger
from ..wire import events, frames
from . import endpoints
from .core import Core
from .delivery.connection import Connection
from .delivery.timers import NEVER
from .http import host_header, reasons, responses
from .http.access import OPEN, Grant
from .http.connection import BadRequest, CutShort, HttpConnection, MadeWay, head_so_far
from .http.forwarded import Address, client_of, is_in
from .http.models import RETRY, Decision, Join, Publish, Refusal, Request, Response, Stream
from .http.routes import decide
from .rates import ANSWERED_BYTES, sender_of
from .reader import Reader
from .rooms.encodings import JSON, RAW, SSE, SSE_JSON
from .rooms.presence import MAX_NAMED
from .rooms.registry import NoRoom
from .rooms.room import WAIT_SECONDS
from .sessions import Session
from .turns import LEAST_SECONDS, Worker

# The import of websocket-server calls ``logging.basicConfig()``, which changes the root logger
# unless it has a handler already: so it has one for that moment.
_placeholder = logging.NullHandler()
logging.getLogger().addHandler(_placeholder)
try:
    from websocket_server.websocket_server import (
        WebSocketHandler,
        WebsocketServer,
    )
finally:
    logging.getLogger().removeHandler(_placeholder)

__all__ = ["HubHandler", "WebsocketServer"]

logger = get_logger("broadcast_server.hub")

# An idle client costs a receive buffer of the smaller size; one that fills it gets the larger.
MIN_RECV_BYTES = 512
MAX_RECV_BYTES = 64 * 1024
# How long a connection that has asked for more already rests at least after an answer, while all
# places for connections that are no clients are taken, or when it has asked too often.
YIELD_SECONDS = 0.02
# How long a request waits at most for its turn among those of its sender.
MOST_TURN_SECONDS = 2.0
TURN_LOOK_SECONDS = 0.5


class Server(Protocol):
    """What a session needs of the server that accepted it."""

    core: Core
    names: frozenset[str]
    trusted: tuple[Network, ...]

    def _new_client_(self, handler: HubHandler) -> int | Refusal:
        """Put a client on the list; return its number, or why there is no place for it."""

    def watch(self, request: socket.socket, http: HttpConnection) -> None:
        """Note by what can be seen whether a session is waiting."""

    def made_way(self, request: socket.socket) -> None:
        """Note that a session ends instead of waiting for its peer."""

    def turn_down(self, handler: HubHandler) -> None:
        """Take a client off the list that cannot join after all, but may ask again."""

    def await_next(self, handler: HubHandler) -> bool:
        """Note that a request was answered, and another one may follow; return whether others want
        the place."""

    def _client_left_(self, handler: HubHandler) -> None:
        """Take a client off the list, if it is on it."""

    def set_connection(self, handler: HubHandler, connection: Connection) -> None:
        """Let a client be found by its id, from the moment when it becomes a member."""

    def hand_over(self, handler: HubHandler) -> None:
        """Note that the socket is the fan-out's, too, and must not be closed behind its back."""


class HubHandler(WebSocketHandler):  # type: ignore[misc]
    """A client from its first byte to its last."""

    server: Server

    # -- The life cycle that websocket-server runs ---------------------------------------------

    def setup(self) -> None:
        """Prepare a session. The base class would also wrap the socket in files, with buffers that
        idle clients pay for."""
        self.connection = self.request
        self.keep_alive = True
        self.handshake_done = False
        self.valid_client = False
        self.core = self.server.core
        # Until a listed proxy says otherwise.
        self.peer = self.address = Address(*self.client_address[:2])
        self.client: Connection | None = None
        self._grant = OPEN
        self._worker = Worker(self.core.turns)
        self._recv_bytes = MIN_RECV_BYTES
        self._http: HttpConnection | None = HttpConnection(
            self.request, self.core.settings.max_header_bytes
        )
        self.server.watch(self.request, self._http)

    def handshake(self) -> None:
        """Answer one HTTP request; go on as a member of a room if it asks for that and may."""
        settings = self.core.settings
        http = self._http
        assert http is not None
        request: Request | None = None
        decision: Decision | None = None
        answer: Refusal | Response | None
        sender: str | None = None
        try:
            try:
                request = http.read_request(settings.handshake_timeout, settings.http_idle_timeout)
                request = host_header.effective(request)
                decision = self._recognize(request) or decide(
                    request, settings.allow_origin, settings.history
                )
                grant = self.core.admit(request, decision, self._address())
                self._take_turn(OPEN if isinstance(grant, Refusal) else grant)
                if isinstance(grant, Refusal):
                    self._pay_for_request(http, self._sender(OPEN))
                    answer = grant
                elif isinstance(decision, Join) or (
                    isinstance(decision, Stream) and request.method == "GET"
                ):
                    answer = self._join(http, decision, grant)
                    if answer is None:
                        return
                    self.server.turn_down(self)
                    self._pay_for_request(http, self._sender(grant))
                else:
                    sender = self._sender(grant)
                    if not isinstance(decision, Publish):
                        self._pay_for_request(http, sender)
                    answer = endpoints.respond(
                        self.core,
                        request,
                        decision,
                        http,
                        self.address,
                        grant,
                        sender or sender_of(self.address.host),
                    )
            except BadRequest as error:
                answer = error.refusal
                if isinstance(error, CutShort) and self.core.stopping:
                    answer = Refusal(503, "the hub is stopping", RETRY, "stopping")
                    decision = self._decide_so_far(error.came)
                if answer is None:
                    self.keep_alive = False
                    return
            if isinstance(answer, Refusal):
                level = logging.INFO if answer.reason else logging.DEBUG
                logger.log(level, "%s refused: %s", self.address, reasons.for_log(answer, request))
                if answer.reason:
                    self.core.count_refusal(answer.reason)
            if sender is not None and isinstance(answer, Response):
                cost = self.core.rates.bytes_cost(answer.size, ANSWERED_BYTES)
                self.core.rates.charge(sender, cost)
            given: Refusal | Response = answer
            if isinstance(answer, Refusal) and isinstance(decision, Stream):
                given = responses.refused_stream(decision, answer, self.core.seconds_left())
            self.keep_alive = http.answer(request, given, settings.handshake_timeout)
            crowded = self.server.await_next(self)
            if self.keep_alive and http.has_more():
                # It has had its answer. One after the other to whoever asks without a pause would
                # make others wait for a place, and for the interpreter.
                hurried = isinstance(answer, Refusal) and answer.reason == "rate"
                rest = YIELD_SECONDS if crowded or hurried else LEAST_SECONDS
                if self.core.settings.max_rate:
                    rest = max(rest, self._worker.tire(self._payer(OPEN)))
                http.rest(rest)
        except OSError as error:
            logger.debug("%s lost before it joined: %s", self.address, error)
            if isinstance(error, ssl.SSLError):
                self.core.count_refusal("tls")
            if isinstance(error, MadeWay):
                self.server.made_way(self.request)
            self.keep_alive = False

    def read_next_message(self) -> None:
        """Take what the socket has, and publish the messages in it."""
        client = self.client
        assert client is not None
        client.quiet_since = time.monotonic()
        client.waiting = True
        try:
            data = self.request.recv(self._recv_bytes)
        except OSError:
            data = b""
        client.waiting = False
        if not data:
            self.keep_alive = False
            return
        if len(data) == self._recv_bytes:
            self._recv_bytes = MAX_RECV_BYTES
        elif len(data) < MIN_RECV_BYTES:
            self._recv_bytes = MIN_RECV_BYTES
        if client.ended or client.form.is_stream:
            # Who is cut off but sends all the time would be read on: a socket that is shut down
            # says so only when it has nothing more.
            self.keep_alive = self._reader.discard(data) and not client.dropped
        else:
            self._reader.take(data)

    def finish(self) -> None:
        """End a session. A base class's ``finally`` calls this, whatever happened before."""
        client = self.client
        if client is None:
            self._worker.tire(self._payer(self._grant))
        else:
            # Whoever reads a stream of events has no other way to leave.
            client.end(1000 if client.form.is_stream else frames.ABNORMAL, "")
            self.core.leave(client)
            self._reader.end()
            self.core.fanout.leave(client)
        super().finish()  # takes the client off the server's list
        if client is not None:
            client.release()
            code, reason = client.end_code, client.end_reason
            self.core.count_end(code)
            logger.info("%s left %s: %s %s", client.member.id, client.member.room, code, reason)
            self.core.call(self.core.on_leave, client.member, code, reason)

    # -- Joining -------------------------------------------------------------------------------

    def _recognize(self, request: Request) -> Refusal | None:
        """Find out who has sent a request, and whether it is for this hub at all."""
        try:
            self.address = client_of(request, self.peer, self.server.trusted)
        except ValueError as error:
            logger.warning("the proxy %s cannot be believed: %s", self.peer, error)
            return Refusal(400, f"bad header: {error}", reason="forwarded")
        return host_header.refuse(request, self.server.names)

    def _decide_so_far(self, came: bytes) -> Decision | None:
        """Return what a request wants that was cut short, as far as it has come."""
        request = head_so_far(came)
        settings = self.core.settings
        if request is None:
            return None
        return decide(request, settings.allow_origin, settings.history)

    def _sender(self, grant: Grant) -> str | None:
        """Return who pays for what is sent and asked; None for a listed proxy that does not tell
        for whom it calls: those would pay for each other."""
        if grant.name is None and is_in(self.address.host, self.server.trusted):
            return None
        return sender_of(self.address.host, grant.name)

    def _payer(self, grant: Grant) -> str:
        """Return for whom this thread works."""
        return self._sender(grant) or str(self.peer)

    def _take_turn(self, grant: Grant) -> None:
        """Rest until the threads of the sender have paid for what they have done. The connection
        counts as busy: its answer is owed."""
        if not self.core.settings.max_rate:
            return
        end = time.monotonic() + self._worker.tire(self._payer(grant), MOST_TURN_SECONDS)
        while (left := end - time.monotonic()) > 0.0 and not self.core.stopping:
            time.sleep(min(left, TURN_LOOK_SECONDS))

    def _pay_for_request(self, http: HttpConnection, sender: str | None) -> None:
        """Pay for a request that is no message; wait as the rate wants."""
        if sender is None:
            return
        flow = self.core.rates.flow(sender)
        wait = flow.take(self.core.rates.request_cost)
        if wait:
            self.core.count_refusal("rate")
        while wait and not self.core.stopping:
            http.rest(min(wait, WAIT_SECONDS))
            wait = flow.left()

    def _address(self) -> str:
        return str(self.address)

    def _join(self, http: HttpConnection, join: Join | Stream, grant: Grant) -> Refusal | None:
        """Become a member and hand the socket over; return why not.

        Args:
            http: where the request came from.
            join: what it wants.
            grant: what it may do; that it may join is known already.

        Raises:
            OSError: the client was lost on the way.
        """
        core = self.core
        headers = join.headers if isinstance(join, Stream) else ()
        owner = owner_of(self.address.host, grant.name)
        number = self.server._new_client_(self)
        if isinstance(number, Refusal):
            return number.with_headers(headers)
        form, echo = RAW, True
        if isinstance(join, Stream):
            form = SSE_JSON if join.as_json else SSE
        else:
            echo = join.echo
            form = RAW if join.subprotocol is None else JSON
        name = grant.name or join.name
        session: Session | None = None
        # The clock on the wall tells when a grant ends; from here on a steady one counts.
        expires = NEVER if grant.expires is None else grant.expires - time.time() + time.monotonic()
        if form is JSON and isinstance(join, Join):
            session = core.sessions.open(join.session, number, join.room, grant.name)
            number = session.number
            name = name or self._name_of(session)
        member = Member(f"c{number}", name, join.room, self._address())
        gap = core.gap_of(join.since)
        while True:
            try:
                room = core.rooms.open(join.room, owner)
            except NoRoom as error:
                return Refusal(503, str(error), (*RETRY, *headers), error.reason)
            client = Connection(
                number, member, room, self.request, echo=echo, form=form, expires=expires
            )
            if session is not None:
                client.generation = session.generation
            self.server.set_connection(self, client)
            try:
                # From here on nothing that is published is lost to it.
                joined = room.join(
                    client,
                    join.history,
                    join.since,
                    gap=gap,
                    since_text=join.since_text or "",
                    welcome=None
                    if session is None
                    else self._welcome(member, core.sessions.token(session, name), grant),
                )
            except LookupError as error:
                unknown = "this hub has not given out that id yet"
                return Refusal(410, unknown if gap == "unknown" else str(error))
            except BaseException:
                core.leave(client)  # a fault must not leave a ghost
                raise
            if joined is not None:
                break
        try:
            if joined.told or room.recount:
                core.fanout.tell(room, joined.told)
            old = joined.replaced
            if old is not None:
                # It is still a member if this one was told to go before it came. It may be this one
                # itself, if it was overtaken on its way.
                core.dismiss(old, 1008, "a newer connection has your session")
            if isinstance(join, Stream):
                first = form.begin(joined.after)
                http.start_stream(headers, first, core.settings.handshake_timeout)
                trailing = b""
            else:
                trailing = http.upgrade(join, core.settings.handshake_timeout)
        except BaseException:
            core.leave(client)
            raise
        self._http = None  # frees the parser
        self._grant = grant
        self._start(client, trailing, session, owner)
        return None

    def _name_of(self, session: Session) -> str | None:
        """Return what a client that comes back was called last, as far as that is known."""
        room = self.core.rooms.find(session.room)
        old = None if room is None else room.members.get(session.number)
        return session.name if old is None else old.member.name

    def _welcome(
        self, member: Member, token: str, grant: Grant
    ) -> Callable[[list[Member], str, str], bytes]:
        settings = self.core.settings
        limits = {
            "max_message_bytes": settings.max_message_bytes,
            "max_rate": settings.max_rate,
            "history": settings.history,
        }
        rights = {"publish": grant.may_publish(member.room), "rename": grant.name is None}

        def welcome(members: list[Member], newest: str, after: str) -> bytes:
            body = events.welcome(member, token, members, newest, after, limits, MAX_NAMED, rights)
            return JSON.event(body)

        return welcome

    def _start(
        self, client: Connection, trailing: bytes, session: Session | None, owner: str
    ) -> None:
        self.client = client
        self._worker.tire(self._payer(self._grant))
        del self._worker  # an idle client costs less
        self._reader = Reader(
            self.core, client, session, self._grant, owner, self._sender(self._grant)
        )
        client.share()
        # In this order: a stop that finds the hand-over done finds the client at the fan-out, too.
        self.core.fanout.activate(client)
        self.server.hand_over(self)
        if self.core.stopping:
            self.core.say_goodbye(client)
        self.handshake_done = True
        self.valid_client = True
        name = f" as {client.member.name!r}" if client.member.name else ""
        logger.info(
            "%s joined %s from %s%s", client.member.id, client.room.path, self._address(), name
        )
        self.core.call(self.core.on_join, client.member)
        if trailing:
            self._reader.take(trailing)
