"""A room, what is said in it, and as much of a member as it needs."""

from __future__ import annotations

from typing import Any

from broadcast_server.hub.rooms.encodings import RAW
from broadcast_server.hub.rooms.entries import Draft, cost_of
from broadcast_server.hub.rooms.room import Room
from broadcast_server.messages import Member

RING = 64 * 1024


class Client:
    """What a room needs of a subscriber."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.member = Member(f"c{number}", None, "/r", "")
        self.form = RAW
        self.cursor = -1
        self.joined_after: tuple[int, int] | None = None
        self.skips_to = 0
        self.closing = False
        self.generation = 0


def client(number: int = 1) -> Any:
    """Return a client."""
    return Client(number)


def room(ring_bytes: int = RING) -> Room[Any]:
    """Return an empty room that began after id 5-0."""
    return Room("/r", (5, 0), ring_bytes)


def drafts(count: int, size: int = 10) -> list[Draft]:
    """Return messages of nobody."""
    return [Draft(0, bytes(size)) for _ in range(count)]


def publish(to: Room[Any], batch: list[Draft], ms: int) -> None:
    """Publish as a reader does."""
    assert to.reserve(cost_of(batch), None, lambda: False)
    to.append(batch, ms, 0)


def never() -> bool:
    """Tell a publisher that it need not give up."""
    return False
