"""Target: a whole client, whose server says whatever it likes.

The first byte of an input says what is asked of the server, the rest is what it answers. Where an
answer is a handshake, ``%ACCEPT%`` stands for the right key. The server's end is a socket pair: its
answers, one for each connection, are there before they are asked for, and then it is silent.
Nothing but the package's own exceptions may leave the client, on any thread; nothing of a
stranger's may be a line of its own in a record of the log or in an exception; no cookie is kept.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Any, ClassVar
from unittest import mock

from websocket import _handshake

from broadcast_server import BroadcastClient, BroadcastServerError
from broadcast_server.client import dialer, http
from broadcast_server.client.membership import MAX_KEPT_MEMBERS
from broadcast_server.client.requests import fetch_last, publish
from broadcast_server.errors import PublishFailed
from broadcast_server.transport.deadlines import Deadline

from ..support import TEXT, accept_for
from .target_events import MAX_BYTES, WELCOME

SECONDS = 10.0
URL = "ws://hub.example/r"
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
# What a client gets that comes back more often than the input has answers: the end.
GONE = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
ACCEPT = accept_for(KEY).encode()
SWITCH = (
    b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %ACCEPT%"
)
# Between two connections.
NEXT = b"\n--\n"
MAX_ITEMS = 10_000


class Scripted:
    """A connector whose server has said everything already. See `Connector` for its methods.

    Attributes:
        answers: what is left to be said, connection by connection.
        far_ends: of the connections so far.
    """

    answers: ClassVar[list[bytes]] = []
    far_ends: ClassVar[list[socket.socket]] = []

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.was_cut = False
        self._sock: socket.socket | None = None

    def connect(self, deadline: Deadline) -> socket.socket:
        near, far = socket.socketpair()
        self._sock = near
        Scripted.far_ends.append(far)
        far.sendall(Scripted.answers.pop(0) if Scripted.answers else GONE)
        far.shutdown(socket.SHUT_WR)
        return near

    def take(self, sock: socket.socket) -> None:
        self._sock = None

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()

    def cut(self) -> None:
        self.was_cut = True


class Watching(logging.Handler):
    """Notes what must not be."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.wrong: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or not record.getMessage().isprintable():
            self.wrong.append(self.format(record))

    def note(self, failed: threading.ExceptHookArgs) -> None:
        """Be the hook for what ends a thread."""
        self.wrong.append(repr(failed.exc_value))


@contextlib.contextmanager
def hostile_server(answers: list[bytes]) -> Iterator[None]:
    """Let clients connect to a server that says this; fail if something else goes wrong."""
    watching = Watching()
    logger = logging.getLogger("broadcast_server.client")
    level = logger.level
    Scripted.answers, Scripted.far_ends = [a.replace(b"%ACCEPT%", ACCEPT) for a in answers], []
    logger.addHandler(watching)
    logger.setLevel(logging.DEBUG)
    try:
        with (
            mock.patch.object(dialer, "Connector", Scripted),
            mock.patch.object(http, "Connector", Scripted),
            mock.patch.object(threading, "excepthook", watching.note),
            mock.patch.object(logger, "propagate", False),
        ):
            try:
                yield
            finally:  # what ends a thread is told at its very end
                for thread in threading.enumerate():
                    if thread.name.startswith("client"):
                        thread.join(SECONDS)
                        assert not thread.is_alive(), thread
    finally:
        logger.setLevel(level)
        logger.removeHandler(watching)
        for sock in Scripted.far_ends:
            sock.close()
        # Here, and not behind it: mostly an exception is on its way.
        assert not watching.wrong, watching.wrong
        assert not _handshake.CookieJar.jar


def run(data: bytes) -> str:
    """Ask something of a server that answers the input."""
    if not data:
        return "short"
    answers = data[1:].split(NEXT)
    act = (_raw, _plain, _events, _events, _publish, _history)[data[0] % 6]
    try:
        return act(answers)
    except BroadcastServerError as error:
        assert str(error).isprintable(), error
        assert len(str(error)) < 2000
        return type(error).__name__


def _raw(answers: list[bytes]) -> str:
    """The answers are handshakes and what follows them."""
    return _talk(answers)


def _plain(answers: list[bytes]) -> str:
    """The answers are frames behind a good handshake."""
    return _talk([SWITCH + b"\r\n\r\n" + answer for answer in answers])


def _events(answers: list[bytes]) -> str:
    """The answers are lines, each of them an event, behind a good handshake and a welcome."""
    head = SWITCH + b"\r\nSec-WebSocket-Protocol: broadcast.v1.json\r\n\r\n"
    # One that begins with an empty line has no welcome but its own.
    return _talk([
        head + b"".join(map(_frame, filter(None, [*([] if answer[:1] == b"\n" else [WELCOME]),
                                                  *answer.split(b"\n")])))
        for answer in answers
    ])  # fmt: skip


def _frame(payload: bytes) -> bytes:
    if payload.startswith(b"close "):  # a reason
        payload = struct.pack("!H", 1012) + payload[6:129].decode("utf-8", "ignore").encode()
        return bytes((0x88, len(payload))) + payload
    return (
        struct.pack("!BBH", 0x80 | TEXT, 126, len(payload)) + payload
        if len(payload) > 125
        else bytes((0x80 | TEXT, len(payload))) + payload
    )


def _talk(answers: list[bytes]) -> str:
    refused: list[Any] = []
    with hostile_server(answers):
        client = BroadcastClient(
            URL,
            headers={"Sec-WebSocket-Key": KEY},
            presence=True,
            max_reconnect_delay=0.0,
            max_message_bytes=MAX_BYTES,
            open_timeout=SECONDS,
            on_error=refused.append,
        )
        try:
            client.connect()
            with contextlib.suppress(BroadcastServerError):
                client.send("x", timeout=SECONDS)
                client.rename("y", timeout=SECONDS)
            for _ in range(MAX_ITEMS):
                client.recv(SECONDS)
                assert len(client.members) <= MAX_KEPT_MEMBERS
            raise AssertionError("no end")
        finally:
            client.close(timeout=SECONDS)
            if client.close_code is not None:
                assert client.closed and client.state == "closed"


def _publish(answers: list[bytes]) -> str:
    with hostile_server(answers):
        try:
            assert isinstance(publish(URL, "x", timeout=SECONDS), str)
        except PublishFailed as error:
            assert error.detail and error.detail.count("") < 70_000
            raise
    return "published"


def _history(answers: list[bytes]) -> str:
    with hostile_server(answers):
        try:
            found = fetch_last(URL, "/r", 3, {})
        except LookupError as error:
            assert error.args[0]
            return "no history"
    return f"history of {min(len(found), 1)}"
