"""A reader of server-sent events over a bare socket."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .raw_client import RawClient

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub


class Stream:
    """The events of one request, from its head on.

    Attributes:
        head: the head of the answer.
        after: the id with which the stream begins; empty if it begins with a gap, which is the next
            event.
    """

    def __init__(self, hub: BroadcastHub, path: str, *headers: str) -> None:
        self.raw = RawClient.open(port=hub.port)
        lines = [f"GET {path} HTTP/1.1", "Host: x", "Accept: text/event-stream", *headers, "", ""]
        self.raw.sock.sendall("\r\n".join(lines).encode())
        self.head = self._until(b"\r\n\r\n")
        if " 200 " in self.head:
            assert re.fullmatch(r"retry: \d+", self.event())
            first = self.event()
            found = re.fullmatch(r"id: (\d+-\d+)", first)
            self.after = found[1] if found else ""
            if not found:
                self.raw.buffer = f"{first}\n\n".encode() + self.raw.buffer

    def _until(self, end: bytes) -> str:
        while end not in self.raw.buffer:
            self.raw.fill()
        found, _, self.raw.buffer = self.raw.buffer.partition(end)
        return found.decode()

    def event(self) -> str:
        """Return the next event without its empty line."""
        return self._until(b"\n\n")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()
