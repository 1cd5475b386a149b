"""A fan-out without a thread of its own, and a clock for it that the test turns."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any

from broadcast_server import HubBusy
from broadcast_server.hub.delivery import accounts, fanout, writer
from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.delivery.fanout import FanOut
from broadcast_server.hub.rooms.encodings import RAW, Form
from broadcast_server.hub.rooms.entries import ENTRY_BYTES, Draft, cost_of, encode
from broadcast_server.hub.rooms.registry import RoomRegistry
from broadcast_server.hub.rooms.room import Room
from broadcast_server.messages import Member
from broadcast_server.settings import Settings
from broadcast_server.wire import frames

from .inside import activate, make_pass, turn

if TYPE_CHECKING:
    import pytest


class Clock:
    """A clock that the test turns, in the place of ``time`` in the modules of the fan-out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # What other modules have noted is not far away.
        self.now = time.monotonic()
        for module in (accounts, fanout, writer):
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now


class Bench:
    """A fan-out whose thread is the test's: what it does is done step by step."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.rooms = RoomRegistry(self.settings.room_log_bytes, 1000, lambda: (1, 0))
        self.room = self.rooms.open("/r")
        self.fanout = FanOut(self.settings, self.rooms)
        self.sockets: list[socket.socket] = []

    def client(
        self,
        history: int = 0,
        since: tuple[int, int] | None = None,
        form: Form = RAW,
        path: str | None = None,
        **more: Any,
    ) -> tuple[Connection, socket.socket]:
        """Return a member of a room, by default the bench's, that is not handed over yet, and its
        peer's socket."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(10)
        self.sockets += [ours, theirs]
        number = len(self.sockets)
        room = self.room if path is None else self.rooms.open(path)
        member = Member(f"c{number}", None, room.path, "x")
        connection = Connection(number, member, room, ours, echo=False, form=form)
        room.join(connection, history, since, **more)
        connection.share()
        return connection, theirs

    def member(
        self,
        path: str,
        form: Form = RAW,
        *,
        maker: str | None = None,
        buffer: int | None = None,
        **more: Any,
    ) -> tuple[Connection, socket.socket]:
        """Return a client of a room that was handed over, and its peer's socket, which does not
        block.

        Args:
            path, form, more: as for ``client``.
            maker: for whom the room counts, if it is a new one.
            buffer: how many bytes the client's socket takes, about; None for as many as usual.
        """
        self.rooms.open(path, maker, True)
        client, theirs = self.client(form=form, path=path, **more)
        theirs.setblocking(False)
        if buffer is not None:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        activate(self.fanout, client)
        return client, theirs

    def publish(self, count: int, size: int, path: str | None = None) -> None:
        """Publish messages without a pass of the fan-out."""
        for _ in range(count):
            assert self._append(frames.encode_frame(frames.BINARY, bytes(size)), path)

    def say(self, text: str, path: str | None = None) -> bool:
        """Publish a text and tell the fan-out of it; return False if publishers have to wait."""
        if not self._append(encode(text), path):
            return False
        self.fanout.notify(self._room(path))
        return True

    def _append(self, frame: bytes, path: str | None) -> bool:
        room = self._room(path)
        drafts = [Draft(0, frame)]
        try:
            assert room.reserve(cost_of(drafts), 0.0, lambda: False)  # it does not wait
        except HubBusy:
            return False
        return room.append(drafts, 2, room.head)

    def _room(self, path: str | None) -> Room[Connection]:
        return self.room if path is None else self.rooms.open(path)

    def turns(self, count: int = 1) -> None:
        """Take turns, also where there is nothing to do."""
        for _ in range(count):
            # Without anything new it would sleep.
            self.fanout.notify(self.room)
            turn(self.fanout)

    def held_bytes(self) -> int:
        """Return what all logs hold, counted out of what is there."""
        held = 0
        for room in self.rooms.all():
            entries = room.entries(room.base, room.head)
            held += sum(len(e.frame) + ENTRY_BYTES + e.forms_bytes() for e in entries)
        return held

    def fill(self, size: int) -> None:
        """Publish, pass by pass, until the ring has been trimmed."""
        while not self.room.base:
            self.publish(1, size)
            make_pass(self.fanout, self.room)

    def pass_whole(self) -> None:
        """Make a pass, and take turns until everybody has the forms that they want."""
        writer = self.fanout.writer
        make_pass(self.fanout, self.room)
        turns = 0
        while (
            writer.making is not None
            or writer.starved
            or writer.hungry
            or writer.active
            or writer.unfinished
        ):
            turn(self.fanout)
            turns += 1
            assert turns < 1000

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.fanout.close()
        for sock in self.sockets:
            sock.close()


def read_all(sock: socket.socket) -> bytes:
    """Return what there is to read on a socket that does not block."""
    found = b""
    with contextlib.suppress(BlockingIOError):
        while part := sock.recv(1 << 20):
            found += part
    return found
