"""Publish one message by one HTTP request: no client, no thread, nothing that stays.

The standard library's ``http.client`` writes the request and reads the answer. Its time-out counts
for each step, which a slow server could stretch for ever: so it works on a ``_BoundedSocket``,
whose every step gets what is left of one deadline.

Each message has a key, by which the hub knows it again. So when a connection breaks before the
answer, the message may safely be sent once more.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import json
import re
import socket
import ssl
import time
import urllib.parse
import uuid
from typing import Any

from .deadlines import Deadline
from .errors import PublishFailed, UsageError
from .settings import MAX_SECONDS

_TLS = {"http": False, "ws": False, "https": True, "wss": True}
_KEY = re.compile("[!-~]{1,128}")
_TOKEN = re.compile("[!-~]+")
# An answer of a hub has less than 2 KiB.
_MAX_ANSWER_BYTES = 64 * 1024
# A piece that TLS takes at once, and the deadline is looked at between two.
_PIECE_BYTES = 64 * 1024
# What says that the connection has broken, and not that somebody has refused.
_BROKEN = (ConnectionError, ssl.SSLEOFError, http.client.IncompleteRead)


def publish(
    url: str,
    data: str | bytes,
    *,
    name: str | None = None,
    key: str | None = None,
    token: str | None = None,
    timeout: float = 10.0,
) -> str:
    """Publish one message to a room and return its id. Any thread; blocks until the hub answers.

    Args:
        url: the room's address, ``http``, ``https``, ``ws`` or ``wss``; a query goes along.
        data: text (str) or binary data (bytes).
        name: what others see as the sender; takes the place of one in the URL.
        key: with the same key the message may be published again and is delivered once, within
            ten minutes; 1 to 128 visible ASCII characters. A new one if it is not given.
        token: sent as ``Authorization: Bearer``.
        timeout: seconds for all of it; the lookup of a host's name has the system's own limit.

    Raises:
        PublishFailed: the hub has refused the message, or has not answered; in the latter case it
            may have been delivered: publish it again with the same `key`.
        UsageError: an argument that can never work.
        TypeError: an argument of a wrong type.
    """
    for what, value in (("url", url), ("name", name), ("key", key), ("token", token)):
        if not isinstance(value, str) and (value is not None or what == "url"):
            raise TypeError(f"{what} must be str, not {type(value).__name__}")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if not timeout > 0:
        raise UsageError(f"timeout must be more than 0, not {timeout!r}")
    parts = _split(url)
    body, content_type = _encode(data)
    if key is None:
        key = uuid.uuid4().hex
    elif not _KEY.fullmatch(key):
        raise UsageError("key must be 1 to 128 visible ASCII characters")
    headers = {
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        "Idempotency-Key": key,
        "Connection": "close",
    }
    if token is not None:
        if not _TOKEN.fullmatch(token):
            raise UsageError("token must be visible ASCII characters")
        headers["Authorization"] = f"Bearer {token}"
    target = _target(parts, name)
    # The query may have a secret in it.
    shown = urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    timeout = min(timeout, MAX_SECONDS)
    deadline = Deadline(timeout)
    is_last = False
    while True:
        try:
            return _post(parts, target, headers, body, deadline)
        except PublishFailed as error:
            text = f"cannot publish to {shown}: {error.detail}"
            raise PublishFailed(
                error.detail, error.status, error.retry_after, message=text
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if _is_broken(error) and not is_last and deadline.left():
                is_last = True
                continue
            why = _why(error, timeout)
            raise PublishFailed(why, message=f"cannot publish to {shown}: {why}") from error


# -- The request -------------------------------------------------------------------------------


def _split(url: str) -> urllib.parse.SplitResult:
    """Return the parts of a URL that can be published to."""
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in _TLS and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:
        usable = False
    # Neither http.client nor the hub would know what to do with a user's name.
    if not usable or not url.isprintable() or " " in url or "@" in parts.netloc:
        raise UsageError(f"{url!r} is not an address such as http://127.0.0.1:8765/scores")
    return parts


def _encode(data: str | bytes) -> tuple[bytes, str]:
    """Return a message's bytes and its media type."""
    if isinstance(data, bytes):
        return data, "application/octet-stream"
    if not isinstance(data, str):
        raise TypeError(f"a message is str or bytes, not {type(data).__name__}")
    try:
        return data.encode("utf-8"), "text/plain; charset=utf-8"
    except UnicodeEncodeError:
        raise UsageError("the text has lone surrogates, which UTF-8 cannot say") from None


def _target(parts: urllib.parse.SplitResult, name: str | None) -> str:
    """Return the request target in ASCII, with the name in its query."""
    path = urllib.parse.quote(parts.path or "/", safe="%/:@!$&'()*+,;=-._~")
    query = urllib.parse.quote(parts.query, safe="%/?:@!$&'()*+,;=-._~")
    if name is not None:
        try:
            # Of two with one name the last counts.
            query += "&" * bool(query) + "name=" + urllib.parse.quote(name, safe="")
        except UnicodeEncodeError:
            raise UsageError("the name has lone surrogates, which UTF-8 cannot say") from None
    return f"{path}?{query}" if query else path


def _post(
    parts: urllib.parse.SplitResult,
    target: str,
    headers: dict[str, str],
    body: bytes,
    deadline: Deadline,
) -> str:
    """Make one request and return the id in its answer.

    Raises:
        PublishFailed: the answer is none that has an id.
        OSError, http.client.HTTPException: there is no whole answer.
    """
    connection = _Connection(parts, deadline)
    try:
        connection.putrequest("POST", target)
        for key, value in headers.items():
            connection.putheader(key, value)
        try:
            connection.endheaders(body)
        except ConnectionError:
            if connection.sock is None:
                raise
            # A hub that does not want the message answers before it has read all of it.
        response = connection.getresponse()
        answer = response.read(_MAX_ANSWER_BYTES)
        if response.length and len(answer) < _MAX_ANSWER_BYTES:
            raise http.client.IncompleteRead(answer)
        # A head that is cut off has no length either.
        if response.status == 200 and not answer:
            raise http.client.IncompleteRead(answer)
        return _read_answer(response, answer)
    finally:
        connection.close_socket()


# -- The answer --------------------------------------------------------------------------------


def _read_answer(response: http.client.HTTPResponse, answer: bytes) -> str:
    """Return the id in an answer; raise what the hub says if there is none."""
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        value = None
    found = value if isinstance(value, dict) else {}
    if response.status != 200:
        detail = found.get("detail")
        if not isinstance(detail, str) or not detail:
            detail = f"HTTP status {response.status} {response.reason}".rstrip()
        wait = _retry_after(response.getheader("Retry-After"))
        raise PublishFailed(detail, response.status, wait)
    if not isinstance(found.get("id"), str):
        raise PublishFailed("this is no hub: its answer has no id", response.status)
    return str(found["id"])


def _retry_after(text: str | None) -> float | None:
    """Return the seconds to wait (RFC 9110 §10.2.3), None if they are not told."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_SECONDS)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, moment - time.time()), MAX_SECONDS)


def _is_broken(error: Exception) -> bool:
    """Tell whether a connection has broken, and was not refused."""
    return isinstance(error, _BROKEN) and not isinstance(error, ConnectionRefusedError)


def _why(error: Exception, timeout: float) -> str:
    """Return in a few words why there is no answer."""
    if isinstance(error, TimeoutError):
        return f"no answer in {timeout:g} s"
    if _is_broken(error):
        return "the connection broke before the answer"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return "the answer is no HTTP"


# -- The socket --------------------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    """A connection whose every step is part of one deadline."""

    def __init__(self, parts: urllib.parse.SplitResult, deadline: Deadline) -> None:
        self._is_tls = _TLS[parts.scheme]
        self.default_port = 443 if self._is_tls else 80
        assert parts.hostname is not None
        super().__init__(parts.hostname, parts.port or self.default_port)
        self._deadline = deadline
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Connect to the first of the host's addresses that answers."""
        error: OSError = OSError("the host has no address")
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(_seconds_left(self._deadline))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._is_tls:
                    sock.settimeout(_seconds_left(self._deadline))
                    context = ssl.create_default_context()
                    sock = context.wrap_socket(sock, server_hostname=self.host)
            except OSError as failed:
                sock.close()
                error = failed
                continue
            self._socket = sock
            self.sock = _BoundedSocket(sock, self._deadline)
            return
        raise error

    def close_socket(self) -> None:
        """Close what `connect` has opened; http.client closes only what stands for it."""
        self.close()
        if self._socket is not None:
            self._socket.close()


class _BoundedSocket:
    """As much of a socket as http.client uses; each step gets what is left of the deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._sock.settimeout(_seconds_left(self._deadline))
            view = view[self._sock.send(view[:_PIECE_BYTES]) :]

    def makefile(self, mode: str, *args: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline))

    def close(self) -> None:
        """Do nothing: http.client calls this before it has read the answer."""


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_seconds_left(self._deadline))
        return self._sock.recv_into(buffer)


def _seconds_left(deadline: Deadline) -> float:
    """Return a time-out for one step.

    Raises:
        TimeoutError: nothing is left.
    """
    left = deadline.left()
    if not left:
        raise TimeoutError
    return left
