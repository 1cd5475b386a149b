"""A body in chunks (RFC 9112 §7.1), from bytes. No I/O.

h11 would let a bare CR pass in the extensions of a chunk. Some proxies take one for the end of the
line, and then a request can be smuggled in a body: so nothing but CRLF ends a line here, and no
line has a control character in it.
"""

from __future__ import annotations

import re

# More digits than any size has. What is behind it says nothing to the hub.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t -~\x80-\xff]*)?\r\n")
_TRAILER = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n")


class ChunkReader:
    """Takes one body apart.

    Args:
        max_line_bytes: the most that a line may have, and all trailers together.

    Attributes:
        done: the body is whole.
        rest: what has come and is not taken apart yet; once it is done, what comes behind the body.
        chunks: how many there were so far.
    """

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._left = 0  # bytes of the chunk that are still to come
        self._in_chunk = False
        self._in_trailers = False
        self._trailer_bytes = 0
        self.done = False
        self.rest = b""
        self.chunks = 0

    def next_piece(self) -> bytes | None:
        """Return the next part of the body, nothing at its end; None if there must be more in
        `rest` first.

        Raises:
            ValueError: it is broken.
        """
        while not self.done:
            if self._left:
                if not self.rest:
                    return None
                part, self.rest = self.rest[: self._left], self.rest[self._left :]
                self._left -= len(part)
                return part
            if self._in_chunk:
                if not b"\r\n".startswith(self.rest[:2]):
                    raise ValueError("a chunk is longer than it says")
                if len(self.rest) < 2:
                    return None
                self.rest = self.rest[2:]
                self._in_chunk = False
            line = self._next_line()
            if line is None:
                return None
            self._take_line(line)
        return b""

    def _next_line(self) -> bytes | None:
        end = self.rest.find(b"\n") + 1
        if (end or len(self.rest)) + self._trailer_bytes > self._max_line_bytes:
            raise ValueError("a line of a chunk is too long")
        if not end:
            return None
        line, self.rest = self.rest[:end], self.rest[end:]
        return line

    def _take_line(self, line: bytes) -> None:
        if not self._in_trailers:
            found = _SIZE.fullmatch(line)
            if found is None:
                raise ValueError("a chunk does not begin with its size")
            self._left = int(found[1], 16)
            self._in_chunk = self._left > 0
            self._in_trailers = not self._left
            self.chunks += self._in_chunk
        elif line == b"\r\n":
            self.done = True
        elif _TRAILER.fullmatch(line):
            self._trailer_bytes += len(line)
        else:
            raise ValueError("a trailer is not a header line")
