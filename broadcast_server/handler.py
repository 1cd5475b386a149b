"""One client's session on its reader thread: HTTP, the upgrade, then one message after the other.

``HubHandler`` is websocket-server's ``WebSocketHandler`` with its life cycle in use: ``setup``,
then ``handle`` calls ``handshake`` until the upgrade is done and ``read_next_message`` until
``keep_alive`` is False, then ``finish``. What those do is written anew; docs/topics/dependencies.md
says why. Everything in this module runs on the client's reader thread, and none of it writes to the
socket after the hand-over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from . import frames
from .backplane import Ids
from .connection import Connection
from .core import Core
from .errors import HubBusy, HubStopped
from .frames import FrameDecoder
from .handshake import BadRequest, HttpConnection
from .messages import Draft, Member, to_messages
from .policies import Join, Refusal, Request, decide
from .rooms import ENTRY_BYTES, WAIT_SECONDS
from .writer import BATCH_BYTES

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

logger = logging.getLogger(__name__)

# An idle client costs a receive buffer of the smaller size; one that fills it gets the larger.
MIN_RECV_BYTES = 512
MAX_RECV_BYTES = 64 * 1024
# What a client may still send after Close, in messages of the largest size, before it is cut off.
_DISCARD_MESSAGES = 16

_RETRY = (("Retry-After", "5"),)


class Server(Protocol):
    """What a session needs of the server that accepted it."""

    core: Core

    def _new_client_(self, handler: HubHandler) -> int | None:
        """Put a client on the list; return its number, None if the hub is full or stopping."""

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
        self.client: Connection | None = None
        self._recv_bytes = MIN_RECV_BYTES
        self._http: HttpConnection | None = HttpConnection(
            self.request, self.core.settings.max_header_bytes
        )

    def handshake(self) -> None:
        """Answer one HTTP request; go on as a WebSocket if it asks for that and may."""
        settings = self.core.settings
        http = self._http
        assert http is not None
        request: Request | None = None
        try:
            try:
                request = http.read_request(settings.handshake_timeout, settings.http_idle_timeout)
                decision = decide(request, settings.allow_origin, settings.history)
            except BadRequest as error:
                if error.refusal is None:
                    self.keep_alive = False
                    return
                decision = error.refusal
            if isinstance(decision, Join):
                refusal = self._join(http, decision)
                if refusal is not None:
                    # Another request may follow, and may join.
                    self.server._client_left_(self)
                    decision = refusal
            if isinstance(decision, Refusal):
                logger.debug("%s refused: %s", self._address(), decision.text)
                self.keep_alive = http.answer(request, decision, settings.handshake_timeout)
        except OSError as error:
            logger.debug("%s lost before it joined: %s", self._address(), error)
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
        if client.ended:
            self._discard(client, len(data))
        else:
            self._take(client, data)

    def finish(self) -> None:
        """End a session. A base class's ``finally`` calls this, whatever happened before."""
        client = self.client
        if client is not None:
            client.end(frames.ABNORMAL, "")
            client.room.leave(client)
            self.core.fanout.leave(client)
        super().finish()  # takes the client off the server's list
        if client is not None:
            client.release()
            code, reason = client.end_code, client.end_reason
            logger.info("%s left %s: %s %s", client.member.id, client.member.room, code, reason)
            self._call(self.core.on_leave, client.member, code, reason)

    # -- Joining -------------------------------------------------------------------------------

    def _address(self) -> str:
        host, port = self.client_address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _join(self, http: HttpConnection, join: Join) -> Refusal | None:
        """Become a member and hand the socket over; return why not.

        Raises:
            OSError: the client was lost on the way.
        """
        core = self.core
        number = self.server._new_client_(self)
        if number is None:
            return Refusal(503, "the hub takes no more clients now", _RETRY)
        member = Member(f"c{number}", join.name, join.room, self._address())
        try:
            while True:
                room = core.rooms.open(join.room)
                client = Connection(number, member, room, self.request, echo=join.echo)
                if join.since is not None and join.since > core.backplane.newest():
                    return Refusal(410, "this hub has not given out that id yet")
                self.server.set_connection(self, client)
                # From here on nothing that is published is lost to it.
                if room.join(client, join.history, join.since):
                    break
        except LookupError as error:
            return Refusal(410, str(error))
        except HubBusy as error:
            return Refusal(503, str(error), _RETRY)
        try:
            trailing = http.upgrade(join, core.settings.handshake_timeout)
        except BaseException:
            room.leave(client)
            raise
        self._http = None  # frees the parser
        self._start(client, trailing)
        return None

    def _start(self, client: Connection, trailing: bytes) -> None:
        settings = self.core.settings
        self.client = client
        self._decoder = FrameDecoder(settings.max_message_bytes, settings.max_fragments)
        self._tokens = float(settings.max_rate)
        self._refilled = time.monotonic()
        self._discarded = 0
        client.share()
        # In this order: a stop that finds the hand-over done finds the client at the fan-out, too.
        self.core.fanout.activate(client)
        self.server.hand_over(self)
        if self.core.stopping and client.queue_close(1001, "the hub stops"):
            self.core.fanout.attend(client)
        self.handshake_done = True
        self.valid_client = True
        name = f" as {client.member.name!r}" if client.member.name else ""
        logger.info(
            "%s joined %s from %s%s", client.member.id, client.room.path, self._address(), name
        )
        self._call(self.core.on_join, client.member)
        if trailing:
            self._take(client, trailing)

    # -- Messages ------------------------------------------------------------------------------

    def _take(self, client: Connection, data: bytes) -> None:
        """Decode what arrived, publish the messages in batches, serve control frames in their
        place."""
        drafts: list[Draft] = []
        cost = 0
        decoder = self._decoder
        number = client.number
        for opcode, payload in decoder.feed(data):
            if opcode <= frames.BINARY:
                frame = frames.encode_frame(opcode, payload)
                drafts.append(Draft(number, frame))
                cost += len(frame) + ENTRY_BYTES
                if cost >= BATCH_BYTES:
                    self._publish(client, drafts, cost)
                    drafts, cost = [], 0
                continue
            # What came before a control frame is in the log before it is answered.
            if drafts:
                self._publish(client, drafts, cost)
                drafts, cost = [], 0
            if opcode == frames.PING:
                # A flood of pings is a sender like any other.
                self._wait_for_rate(client, 1)
                if client.queue_urgent(frames.encode_frame(frames.PONG, payload)):
                    self.core.fanout.attend(client)
            elif opcode == frames.CLOSE:
                code, reason = frames.parse_close(payload)
                self._close(client, code, reason, echo_code=code)
        if drafts:
            self._publish(client, drafts, cost)
        if decoder.failure is not None:
            failure = decoder.failure
            logger.info("%s broke the protocol: %s", client.member.id, failure)
            self._close(client, failure.code, failure.reason)

    def _close(
        self, client: Connection, code: int, reason: str, echo_code: int | None = None
    ) -> None:
        """Answer with Close; whatever still comes is thrown away until the peer's end of stream."""
        if client.queue_close(code, reason, echo_code=echo_code):
            client.room.leave(client)
            self.core.fanout.attend(client)

    def _discard(self, client: Connection, size: int) -> None:
        self._discarded += size
        if self._discarded > _DISCARD_MESSAGES * self.core.settings.max_message_bytes + 65536:
            self.keep_alive = False
            client.abort()

    def _publish(self, client: Connection, drafts: list[Draft], cost: int) -> None:
        """Publish a batch once the fan-out has room for it, then wait as the rate limit wants."""
        core = self.core
        room = client.room
        if client.ended or not room.reserve(cost, None, lambda: client.ended):
            return
        try:
            core.publish(room, drafts, cost, lambda ids: self._accepted(client, drafts, ids))
        except HubStopped:
            client.end(1001, "the hub stops")
            return
        self._wait_for_rate(client, len(drafts))

    def _accepted(self, client: Connection, drafts: list[Draft], ids: Ids) -> None:
        if self.core.on_message is not None:
            for message in to_messages(client.member.room, client.member, drafts, ids):
                self._call(self.core.on_message, message)

    def _wait_for_rate(self, client: Connection, count: int) -> None:
        """Take tokens for what was published; wait until there is no debt. Bursts of a second
        pass."""
        rate = self.core.settings.max_rate
        if not rate:
            return
        now = time.monotonic()
        self._tokens = min(rate, self._tokens + (now - self._refilled) * rate) - count
        self._refilled = now
        until = now - self._tokens / rate
        while now < until and not client.ended:
            time.sleep(min(until - now, WAIT_SECONDS))
            now = time.monotonic()

    def _call(self, function: Callable[..., object] | None, *args: Any) -> None:
        """Call the user's code; what it raises is logged and hurts nobody."""
        if function is None:
            return
        try:
            function(*args)
        except Exception:
            logger.exception("a callback failed")
