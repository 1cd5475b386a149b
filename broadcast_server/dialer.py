"""What the client takes from websocket-client: the way up to the 101, and frames that go out."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.parse
from collections.abc import Mapping

import websocket

from .deadlines import Deadline
from .errors import ConnectFailed, UsageError
from .settings import MAX_SECONDS


def complete_url(url: str, name: str | None) -> str:
    """Return the URL in ASCII and with the name in its query.

    Raises:
        UsageError: it is no WebSocket URL (RFC 6455 §3).
    """
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
        host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise UsageError(f"{url!r} is not an address such as ws://127.0.0.1:8765/scores")
    query = urllib.parse.quote(parts.query, safe="%/?:@!$&'()*+,;=-._~")
    if name is not None:
        query += f"{'&' if query else ''}name={urllib.parse.quote(name, safe='')}"
    path = urllib.parse.quote(parts.path, safe="%/:@!$&'()*+,;=-._~")
    return urllib.parse.urlunsplit((parts.scheme, host, path, query, ""))


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of header lines.

    Raises:
        UsageError: one of them would be more than one line (RFC 9110 §5.5).
    """
    for key, value in headers.items():
        if any(ord(c) < 32 or ord(c) == 127 for c in key + value):
            raise UsageError(f"header {key!r} has a control character")
    return dict(headers)


def dial(url: str, headers: Mapping[str, str], timeout: float) -> socket.socket:
    """Return a socket that is a WebSocket connection from its next byte on.

    Args:
        timeout: seconds that each step may take: an address, TLS, the opening handshake; what is
            longer than the system can wait counts as ``MAX_SECONDS``.

    Raises:
        ConnectFailed: there is no connection; the text says why, `status` which HTTP status.
    """
    timeout = min(timeout, MAX_SECONDS)
    connecting = websocket.WebSocket(enable_multithread=False)
    connecting.settimeout(timeout)
    deadline = Deadline(timeout)
    was_cut = False

    def cut() -> None:
        nonlocal was_cut
        # Not the library's abort(): before the 101 that one does nothing.
        sock = connecting.sock
        if sock is not None:
            was_cut = True
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    # A socket's time-out is for one read. A server that sends its header byte by byte would keep us
    # for ever, hence a watch over the whole.
    watch = threading.Timer(timeout, cut)
    watch.daemon = True
    watch.start()
    try:
        connecting.connect(url, header=dict(headers), suppress_origin=True)  # type: ignore[no-untyped-call]
    except websocket.WebSocketBadStatusException as error:
        status = error.status_code  # None, whatever its type says, if there was no status line
        why = f"HTTP status {status}" if status else "no HTTP at all"
        raise ConnectFailed(f"cannot connect to {url}: the answer is {why}", status) from error
    # What is no HTTP at all makes the library stumble in several ways.
    except (websocket.WebSocketException, OSError, ValueError, IndexError) as error:
        why = f"no answer in {timeout:g} s" if deadline.left() == 0 else _why(error, timeout)
        raise ConnectFailed(f"cannot connect to {url}: {why}") from error
    finally:
        watch.cancel()
        watch.join()
    sock: socket.socket | None = connecting.sock
    assert sock is not None
    if was_cut:  # in the moment after the 101
        sock.close()
        raise ConnectFailed(f"cannot connect to {url}: no answer in {timeout:g} s")
    return sock


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole message or a control frame as a client must send it (RFC 6455 §5.3)."""
    return websocket.ABNF.create_frame(payload, opcode).format()


def _why(error: Exception, timeout: float) -> str:
    if isinstance(error, (TimeoutError, websocket.WebSocketTimeoutException)):
        return f"no answer in {timeout:g} s"
    cause = error.args[0] if error.args else None
    if isinstance(cause, OSError):  # the library's word for a name that does not resolve
        error = cause
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"this is no WebSocket server ({str(error) or type(error).__name__})"
