"""The exceptions of broadcast-server.

The whole tree, so that one look tells what to catch::

    BroadcastServerError
    ├── HubError                  the hub cannot do what was asked now
    │   ├── HubStopped            it is not running (not started, stopped, or forked away)
    │   ├── HubBusy               back-pressure lasted longer than the time-out
    │   └── AccessError           tokens or keys cannot be used, so nobody may be let in
    ├── UsageError (ValueError)   the caller's mistake
    │   ├── MessageTooBig         more bytes than ``max_message_bytes``
    │   └── InvalidRoom           a room path that no client could join
    ├── TlsError                  a certificate, key or list of authorities cannot be used
    ├── ProtocolError             the peer broke RFC 6455 (has ``code`` and ``reason``)
    ├── ConnectFailed             the client got no connection (has ``status`` if HTTP answered)
    ├── ConnectionClosed          the connection ended (has ``code`` and ``reason``)
    ├── MessagesLost              the hub cannot replay what was missed (``reason``, …)
    ├── SendRefused               the hub did not take a message (has ``code`` and ``detail``)
    └── PublishFailed             a message did not get out by HTTP (has ``status``, ``detail``, …)

A wrong argument type is a plain ``TypeError``, a socket that cannot be bound a plain ``OSError``.

All of them can be pickled and copied, whatever a subclass does in its ``__init__``. Their ``args``
are what ``__init__`` takes, for tools that send the name of a class and its arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .escapes import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class BroadcastServerError(Exception):
    """The root of every exception that this package defines. Its text is one line, whatever the
    peer has said: what could forge a line of a log or steer a terminal is escaped."""

    _text: str | None = None  # where it is not the only argument

    def __str__(self) -> str:
        return printable(super().__str__() if self._text is None else self._text)

    def __reduce__(self) -> tuple[Any, ...]:
        # Python would call `__init__` with `args`, and a subclass may take other arguments.
        return _restore, (type(self), self.args, self.__dict__)


class HubError(BroadcastServerError):
    """The hub cannot do what was asked in its present state."""


class HubStopped(HubError):
    """The hub is not running: not started yet, stopped, or left behind by ``fork``."""


class HubBusy(HubError):
    """The hub could not take the message within the time-out; nothing was sent."""


class AccessError(HubError):
    """Tokens or keys cannot be read or used. A hub then does not start; one that runs and is told
    to reload goes on with what it has."""


class UsageError(BroadcastServerError, ValueError):
    """The caller passed a value that can never work."""


class MessageTooBig(UsageError):
    """The message has more bytes than ``max_message_bytes``."""


class InvalidRoom(UsageError):
    """The room path breaks the rules for room paths."""


class TlsError(BroadcastServerError):
    """A file of certificates, or the key of one, cannot be used; the text says which and why."""


class ProtocolError(BroadcastServerError):
    """The peer broke the protocol.

    Attributes:
        code: the close code to end the connection with (RFC 6455 §7.4.1).
        reason: a short English reason, at most 123 bytes of UTF-8.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self._text = f"{code} {reason}"
        self.code = code
        self.reason = reason


class ConnectFailed(BroadcastServerError):
    """No WebSocket connection came about.

    Attributes:
        status: the HTTP status if the server answered with one, else None.
        retry_after: seconds after which it may be tried again, if the server has told any.
        untrusted: whether the certificate of the server is not valid.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        retry_after: float | None = None,
        untrusted: bool = False,
    ) -> None:
        super().__init__(message, status, retry_after, untrusted)
        self._text = message
        self.status = status
        self.retry_after = retry_after
        self.untrusted = untrusted


class ConnectionClosed(BroadcastServerError):
    """The connection has ended.

    Attributes:
        code: the close code that the peer sent; 1005 if its Close had none, 1006 if there was
            no Close at all (RFC 6455 §7.1.5).
        reason: the peer's reason, possibly empty.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self._text = f"{code} {reason}".rstrip()
        self.code = code
        self.reason = reason


class MessagesLost(BroadcastServerError):
    """Messages were missed and cannot be replayed; receiving goes on behind the gap.

    Attributes:
        reason: "trimmed", "restarted" or "unknown", as in ``Gap``.
        since: the last id that was known before the gap.
        after: what comes next is everything after this id.
    """

    def __init__(self, reason: str, since: str, after: str) -> None:
        super().__init__(reason, since, after)
        self._text = f"messages between {since} and {after} are lost: {reason}"
        self.reason = reason
        self.since = since
        self.after = after


class SendRefused(BroadcastServerError):
    """The hub did not carry out what a client sent; the connection goes on.

    Attributes:
        code: why, for programs: "too_big", "refused", … (docs/reference/protocol.md).
        detail: why, for people.
        data: the message, if it is known which one it was; else None.
    """

    def __init__(self, code: str, detail: str, data: str | bytes | None = None) -> None:
        super().__init__(code, detail, data)
        self._text = f"{code}: {detail}"
        self.code = code
        self.detail = detail
        self.data = data


class PublishFailed(BroadcastServerError):
    """``publish`` got no id for a message.

    Attributes:
        detail: why, for people: the hub's own words if it has answered.
        status: the HTTP status if the hub, or a proxy before it, has answered; else None.
        retry_after: seconds after which it may be tried again, if the hub has told any.
        maybe_delivered: whether the message may have been delivered: it was sent, and no answer
            tells what became of it. If False, it was certainly not delivered.
    """

    def __init__(
        self,
        detail: str,
        status: int | None = None,
        retry_after: float | None = None,
        message: str | None = None,
        maybe_delivered: bool = False,
    ) -> None:
        super().__init__(detail, status, retry_after, message, maybe_delivered)
        self._text = message if message is not None else detail
        self.detail = detail
        self.status = status
        self.retry_after = retry_after
        self.maybe_delivered = maybe_delivered


def _restore(
    kind: type[BroadcastServerError], args: tuple[Any, ...], attributes: Mapping[str, Any]
) -> BroadcastServerError:
    """Return the exception that was pickled or copied."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error
