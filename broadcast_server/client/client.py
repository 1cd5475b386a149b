"""``BroadcastClient``: one member of one room, from any program and any of its threads.

websocket-client makes the connection and the frames that go out. Then two threads share the socket.
The *writer* (client/link.py) sends what is queued. The *client's own thread* (client/loop.py)
reads and queues what comes; when that queue is full it stops reading, and the hub finds out, as it
should. Frames come in through the hub's own decoder: it bounds a message before its payload is
there, and joins fragments in linear time.

With a hub we speak ``broadcast.v1.json``: messages have ids, and a lost connection is taken up
again where it has ended. Any other server is spoken to in plain frames, and the end of that
connection is the end of the client.

A message is encoded on the thread that sends it and without the client's lock: a big one takes its
time. It has a `ref` if an answer is wanted, and a `key` if it may have to be sent again.

``close()`` waits for the proof that everything was accepted, as long as bytes move: the
acknowledgements, or where there are none the echo of our Close.
"""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, cast, overload

from ..arguments import FLAG, TEXT, check_callable, check_seconds, check_type, utf8
from ..errors import (
    BroadcastServerError,
    ConnectionClosed,
    MessagesLost,
    SendRefused,
    UsageError,
)
from ..messages import Gap, Member, Message, Received
from ..rules import bearer
from ..transport import tls
from ..transport.deadlines import Deadline
from ..wire import client_events, frames, urls
from ..wire.client_events import SUBPROTOCOL
from . import dialer, lifecycle
from .arguments import checked_count, checked_id, checked_key, checked_name, checked_seconds
from .core import ClientCore
from .queues import SEND_AHEAD_BYTES, Outgoing

# Newer than Python 3.10, and there for type checkers only, which bring typing_extensions along.
if TYPE_CHECKING:
    from typing_extensions import TypeVar, Unpack

    from .options import ClientOptions

    Item = TypeVar("Item", bound=Received, default=Message, covariant=True)
else:
    from typing import TypeVar

    Item = TypeVar("Item", covariant=True)

Client = TypeVar("Client", bound="BroadcastClient[Any]")


class BroadcastClient(Generic[Item]):
    """A member of one room. It is used once: connect, talk, close.

    All methods may be called from any thread; of several threads that receive, each message goes to
    one. A context manager: it connects on entering and closes on leaving.

    A proxy that ``http_proxy``, ``https_proxy`` or ``all_proxy`` of the environment names is used,
    but not to reach this machine or a host or network in ``no_proxy``. It must speak HTTP; others,
    such as SOCKS, are refused.

    Where the server does not speak ``broadcast.v1.json`` messages have no sender and no id, the
    time is that of their arrival, nobody tells who is here, and `reconnect` means nothing.

    Args:
        url: ``ws://host:port/room`` or ``wss://…``; the query parameters of the hub are understood
            (``echo=1``, …). What an argument below says wins over the query.
        name: what the client calls itself.
        since: begin with everything after this message id.
        history: begin with so many old messages; `since` wins.
        token: shown to the hub as ``Authorization: Bearer``; so is an ``access_token`` in the URL,
            which is taken out of it.
        presence: receive `Presence` and `Gap` as well as `Message`; else a gap is `MessagesLost`.
            To a type checker such a client is a ``BroadcastClient[Message | Presence | Gap]``, and
            ``BroadcastClient`` alone is one that receives only `Message`.
        reconnect: come back after a lost connection, without a message lost or doubled. The hub
            knows a message that is sent again for ten minutes, and until it restarts.
        max_reconnect_delay: seconds that a pause between two attempts may last, also where the hub
            asks for more (``Retry-After``).
        headers: more header lines for the opening handshake. A ``Sec-WebSocket-Protocol`` takes the
            place of what the client offers by itself, and an empty one offers nothing.
        ca_file: for ``wss``: a file of certificates in PEM form; only servers that have one of
            them, or one from them, are trusted, instead of the system's choice.
        insecure: for ``wss``: trust every server, whoever it is; a warning is logged.
        cert_file: for ``wss``: a file with a certificate in PEM form that is shown to a server that
            asks for one. It may also hold the key.
        key_file: the file with the key of that certificate, without a password.
        ssl_context: for ``wss``: takes the place of the four above. It is used as it is.
        wait: seconds for which `connect` tries again while the hub is not there yet: its name is
            not known, nobody listens, the connection is cut or silent, or the answer is 502, 503
            or 504. Other refusals, and a certificate that is not valid, are final at once.
        open_timeout: seconds that each attempt to connect may take, and once more the hub's
            welcome. Of several addresses of the host each is tried within it. Only the lookup of
            the host's name may take longer: nobody can interrupt it, `close` does not wait for it,
            and until it has ended a thread stays.
        close_timeout: seconds without a byte in either direction after which ``close()`` gives up.
        max_message_bytes: the largest message that is taken; a larger one ends the connection with
            close code 1009. So does an event of so many parts that it would become far more in
            memory than it is on the wire.
        max_queued_bytes: what `send` queues before it waits; each message counts 256 bytes more.
        on_state: called with each new `state` after the first "connecting".
        on_error: called with the `SendRefused` of a message that nobody waits for.

    The two callbacks run on the client's own thread: what they do holds up everything that comes.
    They may send what fits into the queue, and call `close`, which then does not wait; they must
    not receive or publish.

    Close it, best by ``with``. One to which nobody refers any more is closed by a thread of its
    own, with a ``ResourceWarning``; a callback that refers to it keeps it.

    A program ends when its last ordinary thread has ended, as every program in Python. Then all
    clients that are left are closed, for which it waits up to 5 s; a warning is logged if something
    that was sent may be missing then. A thread that waits in `recv` keeps the program running,
    unless it is a daemon; a thread of an executor is none. `close` ends that wait: put a ``with``
    for the client around what the main thread does, inside of that for the executor. A program that
    is killed, or ends by ``os._exit`` as the children of ``multiprocessing`` do, sends nothing any
    more.

    Example::

        with ThreadPoolExecutor() as executor, BroadcastClient("ws://127.0.0.1:8765/") as client:
            executor.submit(receive, client)  # for message in client: …
            input("Enter ends the program")

    In a child that the process forks a connected client has ended: the connection stays the
    parent's. One that is not connected yet may be connected there.

    Raises:
        TlsError: `ca_file`, `cert_file` or `key_file` cannot be used.
        UsageError: the URL, a header, a name, an id, a number or a time cannot be one.
        TypeError: an argument has a wrong type.

    Attributes:
        url: the address, with name, since and history in it, and without a token.
    """

    url: str

    @overload
    def __init__(
        self: BroadcastClient[Message],
        url: str,
        *,
        presence: Literal[False] = False,
        **options: Unpack[ClientOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: BroadcastClient[Received],
        url: str,
        *,
        presence: bool,
        **options: Unpack[ClientOptions],
    ) -> None: ...

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        since: str | None = None,
        history: int = 0,
        token: str | None = None,
        presence: bool = False,
        reconnect: bool = True,
        max_reconnect_delay: float = 30.0,
        headers: Mapping[str, str] | None = None,
        ca_file: tls.StrPath | None = None,
        insecure: bool = False,
        cert_file: tls.StrPath | None = None,
        key_file: tls.StrPath | None = None,
        ssl_context: ssl.SSLContext | None = None,
        wait: float = 0.0,
        open_timeout: float = 10.0,
        close_timeout: float = 5.0,
        max_message_bytes: int = 16 * 1024 * 1024,
        max_queued_bytes: int = SEND_AHEAD_BYTES,
        on_state: Callable[[str], object] | None = None,
        on_error: Callable[[SendRefused], object] | None = None,
    ) -> None:
        given = {
            "name": checked_name(name),
            "since": checked_id(since),
            "history": str(checked_count("history", history, 0)) if history != 0 else None,
        }
        for what, flag in (("presence", presence), ("reconnect", reconnect)):
            check_type(what, flag, FLAG)
        for what, function in (("on_state", on_state), ("on_error", on_error)):
            check_callable(what, function)
        parts = urls.split(url, urls.WEBSOCKET)
        lines = dialer.checked_headers({} if headers is None else headers)
        if token is None:
            token = urls.parameter(parts, "access_token")
        elif any(key.lower() == "authorization" for key in lines):
            raise UsageError("give a token or an Authorization header, not both")
        shown = {k: v for k, v in given.items() if v is not None}
        parts = urls.with_parameters(parts, {**shown, "access_token": None})
        self.url = parts.geturl()
        self._core = ClientCore(
            self.url,
            urllib.parse.unquote(parts.path) or "/",
            name,
            presence=presence,
            reconnect=reconnect,
            max_reconnect_delay=checked_seconds("max_reconnect_delay", max_reconnect_delay),
            headers={**lines, **bearer(token)},
            context=tls.context_for(
                self.url,
                ca_file,
                insecure,
                cert_file=cert_file,
                key_file=key_file,
                ssl_context=ssl_context,
            ),
            wait=checked_seconds("wait", wait),
            open_timeout=checked_seconds("open_timeout", open_timeout),
            close_timeout=checked_seconds("close_timeout", close_timeout),
            max_message_bytes=checked_count("max_message_bytes", max_message_bytes, 1),
            max_queued_bytes=checked_count("max_queued_bytes", max_queued_bytes, 1),
            on_state=on_state,
            on_error=on_error,
        )

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
        """One of "connecting", "open", "waiting" (to try again) or "closed" (also before)."""
        return self._core.state

    @property
    def id(self) -> str | None:
        """The client's id in the hub, or None."""
        return self._core.membership.id

    @property
    def name(self) -> str | None:
        """The client's name as the hub has it, or None."""
        return self._core.membership.name

    @property
    def room(self) -> str:
        """The room's path."""
        return self._core.membership.room

    @property
    def newest(self) -> str | None:
        """The id of the newest message in the room that is known, or None."""
        return self._core.membership.newest

    @property
    def members(self) -> list[Member]:
        """Who is in the room, oldest first. Above 100 members it is who was last listed."""
        with self._core.lock:
            return self._core.membership.members()

    @property
    def member_count(self) -> int:
        """How many are in the room, also above 100."""
        return self._core.membership.count

    @property
    def refused(self) -> list[SendRefused]:
        """The last 100 refusals of what `send` has queued, oldest first; fewer if what was refused
        is long, more than 4 MiB together."""
        with self._core.lock:
            return list(self._core.refused)

    @property
    def unaccepted(self) -> int:
        """How many messages wait to be sent or, if the client comes back by itself, for their
        acknowledgement."""
        with self._core.lock:
            return self._core.outbox.count

    # Connecting and sending. Any thread.

    def connect(self: Client) -> Client:
        """Connect and join the room; return the client.

        Raises:
            ConnectFailed: there is no connection; the text says why, `status` which HTTP status,
                `retry_after` for how long the server does not want to be asked again.
            UsageError: the client has been connected before.
        """
        lifecycle.connect(self._core)
        return self

    def send(
        self, data: str | bytes, *, timeout: float | None = None, key: str | None = None
    ) -> None:
        """Queue a message: text for ``str``, binary for ``bytes``.

        It waits while ``max_queued_bytes`` are queued that the peer does not take or, if the client
        comes back by itself, has not acknowledged. Queued is not yet accepted by the hub: `close`
        tells whether all was, and `publish` waits for it. A message that the hub refuses is put
        into `refused`, and given to `on_error` or logged.

        Args:
            data: the message.
            timeout: seconds to wait for room in the queue; None for as long as it takes.
            key: makes it safe to send the same message again, from any client: the hub delivers
                only the first one with this key, for ten minutes, and refuses another message with
                it. 1 to 128 characters.

        Raises:
            TypeError: an argument has a wrong type; data is neither ``str`` nor ``bytes``.
            TimeoutError: there was no room in time; nothing was queued. Also without a timeout, if
                the queue of what comes is full as well and nobody receives for ``close_timeout``.
            UsageError: a key for a server that knows none, or a bad one; the text has a lone
                surrogate, which UTF-8 cannot carry.
            ConnectionClosed: the client is not connected yet, has ended, or `close` was called.
        """
        deadline = _checked_deadline(timeout)
        item, speaks = self._encode(data, key, wanted=False)
        with self._core.lock:
            self._put_locked(item, speaks, deadline)

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
            TypeError, UsageError: as for `send`; UsageError also where the server acknowledges
                nothing.
        """
        core = self._core
        deadline = _checked_deadline(timeout)
        if core.is_own_thread():
            raise UsageError("a callback must not wait for the hub")
        item, speaks = self._encode(data, key, wanted=True)
        assert item.ref is not None
        with core.lock:
            try:
                self._put_locked(item, speaks, deadline)
                core.answers[item.ref] = None
                while (answer := core.answers[item.ref]) is None:
                    if core.ended:
                        raise core.closed_locked()
                    core.wait_locked(
                        core.changed, deadline, "the hub does not answer", for_answer=True
                    )
            finally:  # Ctrl-C may come at any place
                core.answers.pop(item.ref, None)
        if isinstance(answer, BroadcastServerError):
            raise answer
        return answer

    def rename(self, name: str | None, *, timeout: float | None = None) -> None:
        """Change the client's name; None takes it away.

        Args:
            name: the new one. The hub's answer is not waited for: a `Presence` "rename" tells, and
                a refusal is told as one of `send` is.
            timeout: seconds to wait for room in the queue; None for as long as it takes.

        Raises:
            UsageError: the name cannot be one, or the server knows no names.
            TimeoutError, ConnectionClosed, TypeError: as for `send`.
        """
        if name == "":
            raise UsageError("a name has at least one character; None takes it away")
        checked_name(name)
        deadline = _checked_deadline(timeout)
        with self._core.lock:
            self._await_events_locked(deadline)
            self._core.rename_locked(name)

    def who(self, *, timeout: float | None = None) -> None:
        """Ask the hub who is here; `members` and, with presence, a `Presence` "members" tell.

        Args:
            timeout: seconds to wait for room in the queue; None for as long as it takes.

        Raises:
            UsageError: the server does not tell.
            TimeoutError, ConnectionClosed, TypeError: as for `send`.
        """
        deadline = _checked_deadline(timeout)
        with self._core.lock:
            self._await_events_locked(deadline)
            self._core.ask_locked()

    def _put_locked(self, item: Outgoing, speaks: bool, deadline: Deadline) -> None:
        """Queue what was encoded, for a server that speaks events or one that does not."""
        self._core.await_room_locked(deadline)
        if speaks is not self._core.speaks:  # connecting has failed, and was tried again
            raise self._core.closed_locked()
        self._core.outbox.put_locked(item)

    def _encode(self, data: str | bytes, key: str | None, *, wanted: bool) -> tuple[Outgoing, bool]:
        """Return a message as it is sent, and whether the server is one that speaks events."""
        core = self._core
        if not isinstance(data, (str, bytes)):
            raise TypeError(f"data must be str or bytes, not {type(data).__name__}")
        checked_key(key)
        with core.lock:
            if core.link is None:
                raise core.closed_locked()
            speaks = core.speaks
        if not speaks:
            if wanted or key is not None:
                raise UsageError(f"the server does not speak {SUBPROTOCOL}")
            if isinstance(data, str):
                return Outgoing(frames.TEXT, utf8("data", data), None), speaks
            return Outgoing(frames.BINARY, data, None), speaks
        ref = None
        # Without either a pipe costs the hub no acknowledgements.
        if core.reconnect or wanted:
            ref = next(core.refs)
            key = key or f"{core.key_prefix}-{ref}"
        return Outgoing(frames.TEXT, client_events.encode_send(data, ref, key), ref), speaks

    def _await_events_locked(self, deadline: Deadline) -> None:
        """Wait until an event may be queued."""
        self._core.await_room_locked(deadline)
        if not self._core.speaks:
            raise UsageError(f"the server does not speak {SUBPROTOCOL}")

    # Receiving. Any thread.

    def recv(self, timeout: float | None = None) -> Item:
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
            TypeError: the timeout is no number.
        """
        deadline = _checked_deadline(timeout)
        with self._core.lock:
            while not self._core.inbox:
                if self._core.ended or self._core.link is None:
                    raise self._core.ending_locked()
                if self._core.is_own_thread():
                    raise UsageError("a callback must not wait for what comes")
                # Who was notified when its time was up must take the message: no other one was.
                if not self._core.inbox.wait_locked(deadline.left()) and not self._core.inbox:
                    raise TimeoutError("no message in time")
            item = self._core.inbox.get_locked()
        if isinstance(item, Gap) and not self._core.presence:
            raise MessagesLost(item.reason, item.since, item.after)
        return cast(Item, item)

    def __iter__(self) -> Iterator[Item]:
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
        not acknowledged, the first time at once unless the hub has asked for a pause. It may be
        called again: the first call's code counts.

        Args:
            code: the close code (RFC 6455 §7.4).
            reason: a short text for the peer; what exceeds 123 bytes is cut off.
            timeout: seconds this may take at most, and one more if a callback holds the client's
                thread; None for as long as bytes move, that is until ``close_timeout`` seconds
                pass without one. Where connection after connection is lost and none brings an
                answer, only the first two count.
            keep_reading: another thread goes on receiving, so wait for it when the queue of
                messages is full; else what does not fit into it is thrown away.

        Returns:
            True if the hub has accepted everything that was sent: it has acknowledged it all, or
            where it does not acknowledge it has echoed the Close, so that it has read all. False
            if it has not, if a message of `send` was refused, or if there was no connection.

        Raises:
            UsageError: the code must not be sent, or the reason has a lone surrogate.
            TypeError: an argument has a wrong type.
        """
        check_type("code", code, (int,))
        check_type("reason", reason, TEXT)
        utf8("reason", reason)
        check_seconds("timeout", timeout)
        check_type("keep_reading", keep_reading, FLAG)
        if not frames.is_sendable_close_code(code):
            raise UsageError(f"{code} is no close code that may be sent")
        return lifecycle.close(self._core, code, reason, timeout, keep_reading=keep_reading)

    def __enter__(self: Client) -> Client:
        return self.connect()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Who leaves because of an error does not want to wait for a long queue.
        self.close(timeout=None if kind is None else self._core.close_timeout)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a BroadcastClient cannot be pickled or copied: make a new one")

    # Bound here: when the interpreter ends the names of this module may be None already.
    def __del__(self, _drop: Callable[[Any, object], None] = lifecycle.drop) -> None:
        core = self.__dict__.get("_core")  # there is none if __init__ has failed
        if core is not None:
            _drop(core, self)


def _checked_deadline(timeout: float | None) -> Deadline:
    check_seconds("timeout", timeout)
    return Deadline(timeout)
