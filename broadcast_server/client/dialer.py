"""What the client takes from websocket-client: the opening handshake, and frames that go out."""

from __future__ import annotations

import errno
import re
import socket
import ssl
import urllib.parse
from collections.abc import Mapping

import websocket

from .. import rules
from ..arguments import TEXT, check_type, utf8
from ..errors import ConnectFailed, UsageError
from ..rules import MAX_SECONDS
from ..transport import tls
from ..transport.connector import Connector
from ..transport.deadlines import Deadline
from ..transport.proxies import ProxyError
from ..wire import json_bounds
from . import retries
from .handshake import HandshakeSocket

# What is longer is no sentence.
MAX_DETAIL_CHARACTERS = 200
PROTOCOL_HEADER = "sec-websocket-protocol"
COOKIE_HEADER = "cookie"

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of header lines.

    Raises:
        UsageError: one of them has no name that can be one, or would be more than one line
            (RFC 9110 §5.1, §5.5).
        TypeError: they are no mapping of texts.
    """
    check_type("headers", headers, (Mapping,))
    for key, value in headers.items():
        check_type("the name of a header", key, TEXT)
        check_type(f"header {key!r}", value, TEXT)
        utf8(f"header {key!r}", key + value)
        if not _NAME.fullmatch(key):
            raise UsageError(f"{key!r} is not the name of a header")
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
        timeout: seconds for all of it; what is longer than the system can wait counts as
            ``MAX_SECONDS``. Only the lookup of the host's name may take longer.
        session: what to come back with; None for nothing. It goes with the subprotocol.
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
        session: str | None = None,
        shown: str,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        # Without its query, most of which is the client's own: nobody has typed `?history=20`.
        self._shown = shown.partition("?")[0]
        # The library would take a server that chooses none of its `subprotocols` for a broken one.
        given = {k.lower(): v for k, v in headers.items() if k.lower() == PROTOCOL_HEADER}
        offered = given.get(PROTOCOL_HEADER, subprotocol)
        self._cookies = {k: v for k, v in headers.items() if k.lower() == COOKIE_HEADER}
        special = (PROTOCOL_HEADER, COOKIE_HEADER)
        self._headers = {k: v for k, v in headers.items() if k.lower() not in special}
        if offered:
            secret = rules.encode_offered(session) if session else ""
            more = f", {rules.SESSION_PROTOCOL}{secret}" if secret else ""
            self._headers["Sec-WebSocket-Protocol"] = offered + more
        self._offered = [name.strip() for name in offered.split(",")]
        self._timeout = min(timeout, MAX_SECONDS)
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname is not None
        is_tls = parts.scheme == "wss"
        self._connector = Connector(
            parts.hostname,
            parts.port or (443 if is_tls else 80),
            context if is_tls else None,
        )

    def dial(self) -> tuple[socket.socket, str | None]:
        """Return a socket that is a WebSocket from its next byte on, and the chosen subprotocol.

        Raises:
            ConnectFailed: there is no connection; the text says why, `status` which HTTP status,
                `retry_after` when to try again.
        """
        connector, timeout, url = self._connector, self._timeout, self._shown
        connecting = websocket.WebSocket(enable_multithread=False)
        deadline = Deadline(timeout)
        try:
            sock = connector.connect(deadline)
            # No redirects: the header lines may have a secret in them, which is for this host.
            connecting.connect(  # type: ignore[no-untyped-call]
                self._url,
                socket=HandshakeSocket(sock, self._cookies, deadline),
                header=self._headers,
                suppress_origin=True,
                redirect_limit=0,
            )
            answer = connecting.handshake_response
            chosen = answer.headers.get(PROTOCOL_HEADER) if answer is not None else None
            if chosen is not None and chosen not in self._offered:  # RFC 6455 §4.1
                raise ConnectFailed(
                    f"cannot connect to {url}: it chose a subprotocol nobody offered"
                )
            connector.take(sock)
        except websocket.WebSocketBadStatusException as error:
            status = error.status_code
            why = f"HTTP status {status}"
            why += _detail(error.resp_headers or {}, error.resp_body)
            wait = retries.retry_after((error.resp_headers or {}).get("retry-after"))
            raise ConnectFailed(
                f"cannot connect to {url}: the answer is {why}", status, wait
            ) from error
        # RuntimeError: the library's jar of cookies was changed by another thread of the program
        # while it was looked through; what was in it has no part in this.
        except (websocket.WebSocketException, OSError, ValueError, RuntimeError) as error:
            status = connecting.status  # of a redirect; any other one is above
            if connector.was_cut:
                why = "closed before it connected"
            elif status is not None:
                why = f"the answer is HTTP status {status}"
            else:
                is_late = deadline.left() == 0 and not isinstance(error, ProxyError)
                why = f"no answer in {timeout:g} s" if is_late else _why(error, timeout)
            raise ConnectFailed(
                f"cannot connect to {url}: {why}", status, untrusted=tls.is_untrusted(error)
            ) from _plain(error)
        finally:
            connector.close()  # what was not taken
        return sock, chosen

    def cut(self) -> None:
        """Have `dial` fail: at once, or if it looks a name up, when that has ended, since nobody
        can interrupt it. Any thread."""
        self._connector.cut()

    def leave_to_parent(self) -> None:
        """Give the descriptors of a forked child back: the attempt is the parent's."""
        self._connector.leave_to_parent()


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
            detail = json_bounds.loads(body or b"", json_bounds.EVENT)["detail"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    if not isinstance(detail, str) or len(detail) > MAX_DETAIL_CHARACTERS:
        return ""
    return f" ({detail})" if detail and detail.isprintable() else ""


def _plain(error: Exception) -> Exception:
    """Return what the library calls a time-out or a cut as the system would call it."""
    if isinstance(error, websocket.WebSocketTimeoutException):
        return TimeoutError(str(error))
    if isinstance(error, websocket.WebSocketConnectionClosedException):
        return ConnectionAbortedError(errno.ECONNABORTED, str(error))
    return error


def _why(error: Exception, timeout: float) -> str:
    if isinstance(error, (TimeoutError, websocket.WebSocketTimeoutException)):
        return f"no answer in {timeout:g} s"
    if isinstance(error, ssl.SSLError):
        return tls.reason(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"this is no WebSocket server ({str(error) or type(error).__name__})"
