"""What the client takes from websocket-client: the way up to the 101, and frames that go out."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Mapping

import websocket

from . import retries, tls
from .deadlines import MAX_SECONDS, Deadline
from .errors import ConnectFailed, UsageError

# What is longer is no sentence.
MAX_DETAIL_CHARACTERS = 200
PROTOCOL_HEADER = "sec-websocket-protocol"


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of header lines.

    Raises:
        UsageError: one of them would be more than one line (RFC 9110 §5.5).
    """
    for key, value in headers.items():
        if any(ord(c) < 32 or ord(c) == 127 for c in key + value):
            raise UsageError(f"header {key!r} has a control character")
    return dict(headers)


class Dialing:
    """One attempt to connect.

    Args:
        url: the address, complete.
        headers: more header lines.
        subprotocol: what to offer; a header line that offers something itself wins, and an empty
            one offers nothing.
        timeout: seconds that each step may take: an address, TLS, the opening handshake; what is
            longer than the system can wait counts as ``MAX_SECONDS``.
        shown: what errors call the address, which may have a secret in it.
        context: what TLS handshakes are made with; None where there are none.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        subprotocol: str,
        timeout: float,
        *,
        shown: str,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        # Without its query, most of which is the client's own: nobody has typed `?history=20`.
        self._shown = shown.partition("?")[0]
        # The library would take a server that chooses none of its `subprotocols` for a broken one.
        given = {k.lower(): v for k, v in headers.items() if k.lower() == PROTOCOL_HEADER}
        offered = given.get(PROTOCOL_HEADER, subprotocol)
        self._headers = {k: v for k, v in headers.items() if k.lower() != PROTOCOL_HEADER}
        if offered:
            self._headers["Sec-WebSocket-Protocol"] = offered
        self._offered = [name.strip() for name in offered.split(",")]
        self._timeout = min(timeout, MAX_SECONDS)
        sslopt = None if context is None else {"context": context}
        self._connecting = websocket.WebSocket(enable_multithread=False, sslopt=sslopt)
        self._was_cut = False

    def dial(self) -> tuple[socket.socket, str | None]:
        """Return a socket that is a WebSocket from its next byte on, and the chosen subprotocol.

        Raises:
            ConnectFailed: there is no connection; the text says why, `status` which HTTP status,
                `retry_after` when to try again.
        """
        connecting, timeout, url = self._connecting, self._timeout, self._shown
        was_cut = self._was_cut  # and not the field, which changes meanwhile
        if was_cut:
            raise ConnectFailed(f"cannot connect to {url}: closed before it connected")
        connecting.settimeout(timeout)
        deadline = Deadline(timeout)
        # A socket's time-out is for one read. A server that sends its header byte by byte would
        # keep us for ever, hence a watch over the whole.
        watch = threading.Timer(timeout, self._cut_socket)
        watch.daemon = True
        watch.start()
        try:
            # No redirects: the header lines may have a secret in them, which is for this host.
            connecting.connect(  # type: ignore[no-untyped-call]
                self._url, header=self._headers, suppress_origin=True, redirect_limit=0
            )
        except websocket.WebSocketBadStatusException as error:
            status = error.status_code  # None, whatever its type says, if there was no status line
            why = f"HTTP status {status}" if status else "no HTTP at all"
            why += _detail(error.resp_headers or {}, error.resp_body)
            wait = retries.retry_after((error.resp_headers or {}).get("retry-after"))
            raise ConnectFailed(
                f"cannot connect to {url}: the answer is {why}", status, wait
            ) from error
        # What is no HTTP at all makes the library stumble in several ways.
        except (websocket.WebSocketException, OSError, ValueError, IndexError) as error:
            status = connecting.status  # of a redirect; any other one is above
            why = f"no answer in {timeout:g} s" if deadline.left() == 0 else _why(error, timeout)
            if status is not None:
                why = f"the answer is HTTP status {status}"
            raise ConnectFailed(
                f"cannot connect to {url}: {why}", status, untrusted=tls.is_untrusted(error)
            ) from error
        finally:
            watch.cancel()
            watch.join()
        sock = connecting.sock
        assert sock is not None
        if self._was_cut:  # in the moment after the 101
            sock.close()
            raise ConnectFailed(f"cannot connect to {url}: no answer in {timeout:g} s")
        answer = connecting.handshake_response
        chosen = answer.headers.get(PROTOCOL_HEADER) if answer is not None else None
        if chosen is not None and chosen not in self._offered:
            sock.close()  # RFC 6455 §4.1
            raise ConnectFailed(f"cannot connect to {url}: it chose a subprotocol nobody offered")
        return sock, chosen

    def cut(self) -> None:
        """Have `dial` fail: at once if there is a connection to cut or it has not begun, else when
        the step that it is at has ended. Any thread."""
        self._was_cut = True
        self._cut_socket()

    def _cut_socket(self) -> None:
        # Not the library's abort(): before the 101 that one does nothing.
        sock = self._connecting.sock
        if sock is not None:
            self._was_cut = True
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole message or a control frame as a client must send it (RFC 6455 §5.3)."""
    return websocket.ABNF.create_frame(payload, opcode).format()


def _detail(headers: Mapping[str, str], body: bytes | None) -> str:
    """Return what the server says about a refusal, to be put behind the status: an object of
    RFC 9457, as a hub sends it, or one line of plain text. Pages are for browsers."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "text/plain":
            detail: object = (body or b"").decode().strip()
        else:
            detail = json.loads(body or b"")["detail"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    if not isinstance(detail, str) or len(detail) > MAX_DETAIL_CHARACTERS:
        return ""
    return f" ({detail})" if detail and detail.isprintable() else ""


def _why(error: Exception, timeout: float) -> str:
    if isinstance(error, (TimeoutError, websocket.WebSocketTimeoutException)):
        return f"no answer in {timeout:g} s"
    if isinstance(error, ssl.SSLError):
        return tls.reason(error)
    cause = error.args[0] if error.args else None
    if isinstance(cause, OSError):  # the library's word for a name that does not resolve
        error = cause
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"this is no WebSocket server ({str(error) or type(error).__name__})"
