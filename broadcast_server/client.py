"""``BroadcastClient``: one member of one room, from any program and any of its threads.

websocket-client makes the connection and the frames that go out. Then two threads share the socket.
The *writer* (client_link.py) sends what is queued. The *client's own thread* (client_life.py)
reads and queues what comes; when that queue is full it stops reading, and the hub finds out, as it
should. Frames come in through the hub's own decoder: it bounds a message before its payload is
there, and joins fragments in linear time.

With a hub we speak ``broadcast.v1.json``: messages have ids, and a lost connection is taken up
again where it has ended. Any other server is spoken to in plain frames, and the end of that
connection is the end of the client.

``close()`` waits for the proof that everything was accepted, as long as bytes move: the
acknowledgements, or where there are none the echo of our Close.
"""

from __future__ import annotations

import logging
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from . import client_events, dialer, frames, urls
from .client_core import ClientCore
from .client_events import SUBPROTOCOL
from .client_life import ClientLife
from .client_queues import Outgoing
from .deadlines import Deadline
from .errors import ConnectFailed, ConnectionClosed, MessagesLost, SendRefused, UsageError
from .messages import Gap, Member, parse_id

MAX_NAME_CHARACTERS = 64
MAX_KEY_CHARACTERS = 128

logger = logging.getLogger(__name__)


class BroadcastClient:
    """A member of one room. It is used once: connect, talk, close.

    All methods may be called from any thread; of several threads that receive, each message goes to
    one. A context manager: it connects on entering and closes on leaving.

    Where the server does not speak ``broadcast.v1.json`` messages have no sender and no id, the
    time is that of their arrival, nobody tells who is here, and `reconnect` means nothing.

    Args:
        url: ``ws://host:port/room`` or ``wss://…``; the query parameters of the hub are understood
            (``echo=1``, …). What an argument below says wins over the query.
        name: what the client calls itself.
        since: begin with everything after this message id.
        history: begin with so many old messages; `since` wins.
        presence: receive `Presence` and `Gap` as well as `Message`; else a gap is `MessagesLost`.
        reconnect: come back after a lost connection, without a message lost or doubled.
        max_reconnect_delay: seconds that a pause between two attempts may last.
        headers: more header lines for the opening handshake.
        open_timeout: seconds that each step of connecting may take.
        close_timeout: seconds without a byte in either direction after which ``close()`` gives up.
        max_message_bytes: the largest message that is taken; a larger one ends the connection with
            close code 1009.
        on_state: called with each new `state` after the first "connecting".
        on_error: called with the `SendRefused` of a message that nobody waits for.

    The two callbacks run on the client's own thread: what they do holds up everything that comes.
    They may send what fits into the queue, and call `close`, which then does not wait; they must
    not receive or publish.

    Raises:
        UsageError: the URL, a header, a name or an id cannot be one.

    Attributes:
        url: the address, with name, since and history in it.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        since: str | None = None,
        history: int = 0,
        presence: bool = False,
        reconnect: bool = True,
        max_reconnect_delay: float = 30.0,
        headers: Mapping[str, str] | None = None,
        open_timeout: float = 10.0,
        close_timeout: float = 5.0,
        max_message_bytes: int = 16 * 1024 * 1024,
        on_state: Callable[[str], object] | None = None,
        on_error: Callable[[SendRefused], object] | None = None,
    ) -> None:
        given = {
            "name": name,
            "since": None if since is None else _checked_id(since),
            "history": str(_checked_history(history)) if history else None,
        }
        parts = urls.with_parameters(
            urls.split(url, urls.WEBSOCKET), {k: v for k, v in given.items() if v is not None}
        )
        self.url = parts.geturl()
        self._core = ClientCore(
            self.url,
            urllib.parse.unquote(parts.path) or "/",
            name,
            presence=presence,
            reconnect=reconnect,
            max_reconnect_delay=max_reconnect_delay,
            headers=dialer.checked_headers(headers or {}),
            open_timeout=open_timeout,
            close_timeout=close_timeout,
            max_message_bytes=max_message_bytes,
            on_state=on_state,
            on_error=on_error,
        )
        # A key is never used by anybody else, and not twice by us.
        self._key_prefix = uuid.uuid4().hex

    # What the client knows. Any thread.

    @property
    def closed(self) -> bool:
        """Whether the client has ended; messages that came before may still be received."""
        return self._core.ended

    @property
    def close_code(self) -> int | None:
        """What the peer's Close said; 1006 (RFC 6455 §7.1.5) if there was none; None before."""
        return self._core.close_code

    @property
    def close_reason(self) -> str:
        """The peer's reason, or for 1006 what has happened."""
        return self._core.close_reason

    @property
    def timed_out(self) -> bool:
        """Whether `close` has given up waiting for the peer."""
        return self._core.timed_out

    @property
    def state(self) -> str:
        """Return "connecting", "open", "waiting" (for the next attempt) or "closed"."""
        return self._core.state

    @property
    def id(self) -> str | None:
        """The client's id in the hub, or None."""
        return self._core.session.id

    @property
    def name(self) -> str | None:
        """The client's name as the hub has it, or None."""
        return self._core.session.name

    @property
    def room(self) -> str:
        """The room's path."""
        return self._core.session.room

    @property
    def newest(self) -> str | None:
        """The id of the newest message in the room that is known, or None."""
        return self._core.session.newest

    @property
    def members(self) -> list[Member]:
        """Who is in the room, oldest first. Above 100 members it is who was last listed."""
        with self._core.lock:
            return self._core.session.members()

    @property
    def member_count(self) -> int:
        """How many are in the room, also above 100."""
        return self._core.session.count

    @property
    def refused(self) -> list[SendRefused]:
        """The last 100 refusals of what `send` has queued, oldest first."""
        with self._core.lock:
            return list(self._core.refused)

    # Connecting and sending. Any thread.

    def connect(self) -> BroadcastClient:
        """Connect and join the room; return the client.

        Raises:
            ConnectFailed: there is no connection; the text says why, `status` which HTTP status.
            UsageError: the client has been connected before.
        """
        with self._core.lock:
            if self._core.connecting or self._core.ended:
                raise UsageError("a client connects once; make a new one")
            self._core.connecting = True
            self._core.state = "connecting"
        try:
            sock, chosen = self._core.dial(self.url).dial()
        except BaseException:  # Ctrl-C, too: it may try again
            with self._core.lock:
                self._core.state, self._core.connecting = "closed", False
            raise
        link = self._core.make_link(sock, chosen)
        life = ClientLife(self._core, link)
        thread = threading.Thread(target=life.run, name="client", daemon=True)
        try:
            with self._core.lock:
                if self._core.left is not None:
                    raise ConnectFailed(f"{self.url}: closed while it connected")
                self._core.speaks = link.events is not None
                self._core.link, self._core.thread = link, thread
                if link.welcomed:
                    self._core.state = "open"
                # Under the lock, so that close() finds them alive; the one joins the other.
                link.start_locked()
                thread.start()
        except (ConnectFailed, RuntimeError):  # closed, or no thread is to be had
            with self._core.lock:
                link.end_locked()
                self._core.link = None
                self._core.end_locked(frames.ABNORMAL, "never connected")
            link.channel.close()
            raise
        with self._core.lock:
            while not (link.welcomed or self.closed):
                self._core.changed.wait()
            if link.welcomed:
                return self
            failure = self._core.failure
            why = failure or self._core.closed_locked()
        thread.join()
        with self._core.lock:
            if self._core.left is None:
                self._core.forget_locked()  # it may try again
        raise ConnectFailed(f"cannot connect to {self.url}: {why}") from failure

    def send(
        self, data: str | bytes, *, timeout: float | None = None, key: str | None = None
    ) -> None:
        """Queue a message: text for ``str``, binary for ``bytes``.

        It waits while 1 MiB is queued that the peer does not take or, if the client comes back by
        itself, has not acknowledged. Queued is not yet accepted by the hub: `close` tells whether
        all was, and `publish` waits for it. A message that the hub refuses is put into
        `refused`, and given to `on_error` or logged.

        Args:
            data: the message.
            timeout: seconds to wait for room in the queue; None for as long as it takes.
            key: makes it safe to send the same message again, from any client: the hub delivers
                only the first one with this key, for ten minutes. 1 to 128 characters.

        Raises:
            TypeError: the data is neither ``str`` nor ``bytes``.
            UnicodeEncodeError: the text holds a lone surrogate, which UTF-8 cannot carry.
            TimeoutError: there was no room in time; nothing was queued. Also without a timeout, if
                the queue of what comes is full as well and nobody receives for ``close_timeout``.
            UsageError: a key for a server that knows none, or a bad one.
            ConnectionClosed: the client has ended, or `close` was called.
        """
        self._send(data, Deadline(timeout), key, wanted=False)

    def publish(
        self, data: str | bytes, *, timeout: float | None = None, key: str | None = None
    ) -> str:
        """Send a message and wait until the hub has accepted it; return its id.

        Args:
            data, key: as for `send`.
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            SendRefused: the hub does not take the message.
            TimeoutError: no answer in time; the message may be accepted yet.
            ConnectionClosed: the client has ended; the message may have been accepted.
            TypeError, UnicodeEncodeError, UsageError: as for `send`; UsageError also where the
                server acknowledges nothing.
        """
        if self._core.is_own_thread():
            raise UsageError("a callback must not wait for the hub")
        deadline = Deadline(timeout)
        ref = self._send(data, deadline, key, wanted=True)
        assert ref is not None
        with self._core.lock:
            try:
                while (answer := self._core.answers[ref]) is None:
                    if self._core.ended:
                        raise self._core.closed_locked()
                    self._core.wait_locked(self._core.changed, deadline, "the hub does not answer")
            finally:
                del self._core.answers[ref]
        if isinstance(answer, SendRefused):
            raise answer
        return answer

    def rename(self, name: str | None) -> None:
        """Change the client's name; None takes it away.

        Raises:
            UsageError: the name cannot be one, or the server knows no names.
            ConnectionClosed: the client has ended, or `close` was called.
        """
        if name is not None:
            if not 0 < len(name) <= MAX_NAME_CHARACTERS:
                raise UsageError(f"a name has 1 to {MAX_NAME_CHARACTERS} characters")
            if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name):
                raise UsageError("a name has no control characters")
        payload = client_events.encode_name(name)
        with self._core.lock:
            self._core.await_room_locked(Deadline(None))
            self._need_events_locked()
            self._core.new_name = (name,)
            self._core.tell_locked(payload)

    def who(self) -> None:
        """Ask the hub who is here; `members` and, with presence, a `Presence` "members" tell.

        Raises:
            UsageError: the server does not tell.
            ConnectionClosed: the client has ended, or `close` was called.
        """
        with self._core.lock:
            self._core.await_room_locked(Deadline(None))
            self._need_events_locked()
            self._core.ask_locked()

    def _send(
        self, data: str | bytes, deadline: Deadline, key: str | None, *, wanted: bool
    ) -> int | None:
        """Queue a message; return its ref, if it has one."""
        if not isinstance(data, (str, bytes)):
            raise TypeError(f"data must be str or bytes, not {type(data).__name__}")
        if key is not None and not 0 < len(key) <= MAX_KEY_CHARACTERS:
            raise UsageError(f"a key has 1 to {MAX_KEY_CHARACTERS} characters")
        item = self._frame_of(data, key, wanted)
        with self._core.lock:
            self._core.await_room_locked(deadline)
            if wanted:
                assert item.ref is not None
                self._core.answers[item.ref] = None
            self._core.outbox.put_locked(item)
        return item.ref

    def _frame_of(self, data: str | bytes, key: str | None, wanted: bool) -> Outgoing:
        if not self._core.speaks:
            if self._core.link is not None and (wanted or key is not None):
                raise UsageError(f"the server does not speak {SUBPROTOCOL}")
            if isinstance(data, str):
                return Outgoing(frames.TEXT, data.encode("utf-8"), None)
            return Outgoing(frames.BINARY, data, None)
        ref = None
        # Without either a pipe costs the hub no acknowledgements.
        if self._core.reconnect or wanted:
            ref = next(self._core.refs)
            key = key or f"{self._key_prefix}-{ref}"
        return Outgoing(frames.TEXT, client_events.encode_send(data, ref, key), ref)

    # Receiving. Any thread.

    def recv(self, timeout: float | None = None) -> Any:
        """Wait for the next message, or with presence for the next `Presence` or `Gap`.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            TimeoutError: none came in time.
            MessagesLost: messages were missed that the hub cannot replay; what comes next is
                behind the gap. With presence a `Gap` is returned instead.
            ConnectionClosed: the client has ended, and every message before that was taken.
            ConnectFailed: as before, because the hub refused to let it come back.
            ProtocolError: as before, because the peer broke the protocol.
            UsageError: a callback of the client asks, and nothing is there.
        """
        deadline = Deadline(timeout)
        with self._core.lock:
            while not self._core.inbox:
                if self._core.ended or self._core.link is None:
                    raise self._core.failure or self._core.closed_locked()
                if self._core.is_own_thread():
                    raise UsageError("a callback must not wait for what comes")
                # Who was notified when its time was up must take the message: no other one was.
                if not self._core.inbox.arrived.wait(deadline.left()) and not self._core.inbox:
                    raise TimeoutError("no message in time")
            item = self._core.inbox.get_locked()
        if isinstance(item, Gap) and not self._core.presence:
            raise MessagesLost(item.reason, item.since, item.after)
        return item

    def __iter__(self) -> Iterator[Any]:
        """Yield what `recv` returns until the client is closed in peace: by us, or with 1000 or
        1001.

        Raises:
            ConnectionClosed, ConnectFailed: it ended in any other way.
            ProtocolError: the peer broke the protocol.
            MessagesLost: as for `recv`; another iteration goes on behind the gap.
        """
        while True:
            try:
                item = self.recv()
            except ConnectionClosed as error:
                if self._core.left is not None or error.code in (1000, 1001):
                    return
                raise
            yield item

    # The end. Any thread.

    def close(
        self,
        code: int = 1000,
        reason: str = "",
        timeout: float | None = None,
        *,
        keep_reading: bool = False,
    ) -> bool:
        """Send all that is queued, then Close; wait for its echo and end the connection.

        A client that comes back by itself does so as well while it closes, as long as something is
        not acknowledged. It may be called again: the first call's code counts.

        Args:
            code: the close code (RFC 6455 §7.4).
            reason: a short text for the peer; what exceeds 123 bytes is cut off.
            timeout: seconds this may take at most; None for as long as bytes move, that is until
                ``close_timeout`` seconds pass without one.
            keep_reading: another thread goes on receiving, so wait for it when the queue of
                messages is full; else what does not fit into it is thrown away.

        Returns:
            True if the hub has accepted everything that was sent: it has acknowledged it all, or
            where it does not acknowledge it has echoed the Close, so that it has read all. False
            if it has not, if a message of `send` was refused, or if there was no connection.

        Raises:
            UsageError: the code must not be sent.
        """
        if not frames.is_sendable_close_code(code):
            raise UsageError(f"{code} is no close code that may be sent")
        with self._core.lock:
            if self._core.left is None:
                self._core.left = (code, reason)
            link, thread = self._core.link, self._core.thread
            if link is None or thread is None:
                self._core.ended = True
                self._core.state = "closed"
                return False
            if not keep_reading:
                self._core.inbox.discard_locked()
            self._core.outbox.space.notify_all()
            if not link.ended:
                link.close_locked(*self._core.left)
            elif self._core.dialing is not None and not self._core.outbox.pending:
                self._core.end_locked(frames.ABNORMAL, "closed here")
                self._core.dialing.cut()
            self._core.changed.notify_all()
        if not self._core.is_own_thread():
            self._core.await_end(thread, Deadline(timeout), timeout is None)
        with self._core.lock:
            if self._core.resumes:
                return not self._core.outbox.pending and not self._core.refused
            return link.echoed and not self._core.refused

    def __enter__(self) -> BroadcastClient:
        return self.connect()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Who leaves because of an error does not want to wait for a long queue.
        self.close(timeout=None if kind is None else self._core.close_timeout)

    def _need_events_locked(self) -> None:
        if not self._core.speaks:
            raise UsageError(f"the server does not speak {SUBPROTOCOL}")


def _checked_id(since: str) -> str:
    try:
        parse_id(since)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return since


def _checked_history(history: int) -> int:
    if type(history) is not int or history < 0:
        raise UsageError(f"history must be a whole number from 0, not {history!r}")
    return history
