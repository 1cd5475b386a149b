"""What a hub is given by its program, checked at the call; no I/O."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from ..arguments import TEXT, check_callable, check_type, kind_of, utf8
from ..errors import UsageError
from ..messages import Member
from ..rules import MAX_SECONDS
from ..wire.frames import is_sendable_close_code

FAMILIES = (socket.AF_INET, socket.AF_INET6)


def check_callables(**given: object) -> None:
    """Check callbacks by their names.

    Raises:
        TypeError: one cannot be called.
    """
    for what, function in given.items():
        check_callable(what, function)


def checked_port(port: int) -> int:
    """Return a port to listen on.

    Raises:
        UsageError: there is no such port.
        TypeError: it is no whole number.
    """
    check_type("port", port, (int,))
    if not 0 <= port <= 65535:
        raise UsageError(f"port must be a number from 0 to 65535, not {port!r}")
    return port


def checked_hosts(value: object) -> tuple[str, ...]:
    """Return the names or addresses to listen on."""
    if isinstance(value, (bytes, bytearray)) or not isinstance(value, Iterable):
        raise TypeError(f"host must be str or a sequence of them, not {kind_of(value)}")
    hosts = (value,) if isinstance(value, str) else tuple(value)
    for one in hosts:
        check_type("each host", one, TEXT)
        utf8("host", one)
    if not hosts or not all(one and "\0" not in one for one in hosts):
        raise UsageError(f"host must be a name or an address, or some of them, not {value!r}")
    return hosts


def checked_sockets(value: object) -> tuple[socket.socket, ...]:
    """Return sockets that listen."""
    if not isinstance(value, Iterable):
        raise TypeError(f"sockets must be a sequence of sockets, not {kind_of(value)}")
    sockets = tuple(value)
    for sock in sockets:
        check_type("each of sockets", sock, (socket.socket,))
        if sock.type != socket.SOCK_STREAM or sock.family not in FAMILIES:
            raise UsageError(f"{sock!r} is not a TCP socket")
        try:
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise UsageError(f"{sock!r} is closed") from None
            listens = 1  # some systems do not tell
        if not listens:
            raise UsageError(f"{sock!r} does not listen")
    return sockets


def check_client_id(value: object) -> None:
    """Check the id of a member."""
    if isinstance(value, Member):
        raise TypeError("client_id must be str, not Member: give the member's id")
    check_type("client_id", value, TEXT)


def check_count(count: int | None) -> None:
    """Check how many messages are wanted."""
    check_type("count", count, (int, None))
    if count is not None and count < 0:
        raise UsageError(f"count must be at least 0, not {count}")


def check_close(code: int, reason: str) -> None:
    """Check with what a connection is to be closed."""
    check_type("code", code, (int,))
    check_type("reason", reason, TEXT)
    utf8("reason", reason)
    if not is_sendable_close_code(code):
        raise UsageError(f"{code} is not a close code that may be sent")


def bounded(seconds: float) -> float:
    """Return a time-out that the system can wait for."""
    return min(max(0.0, seconds), MAX_SECONDS)
