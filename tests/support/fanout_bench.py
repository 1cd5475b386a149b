"""A fan-out without a thread of its own."""

from __future__ import annotations

import socket
from typing import Any

from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.delivery.fanout import FanOut
from broadcast_server.hub.rooms.encodings import RAW, Form
from broadcast_server.hub.rooms.entries import Draft, cost_of
from broadcast_server.hub.rooms.registry import RoomRegistry
from broadcast_server.messages import Member
from broadcast_server.settings import Settings
from broadcast_server.wire import frames

from .inside import make_pass, turn


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

    def publish(self, count: int, size: int, path: str | None = None) -> None:
        """Publish messages without a pass of the fan-out."""
        room = self.room if path is None else self.rooms.open(path)
        for _ in range(count):
            drafts = [Draft(0, frames.encode_frame(frames.BINARY, bytes(size)))]
            assert room.reserve(cost_of(drafts), None, lambda: True)
            room.append(drafts, 2, room.head)

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

    def close(self) -> None:
        self.fanout.close()
        for sock in self.sockets:
            sock.close()
