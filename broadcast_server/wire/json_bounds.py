"""How much JSON may be made into objects: looked at before it is parsed; no I/O.

A JSON text of brackets and commas becomes thirty times its size in lists, and the parser does it in
one piece, without letting other threads run. A text that is one long string becomes no more than
itself. So the two are told apart first, at the speed of a search for bytes: what is not inside a
string, and the number of strings, have small bounds.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

# What is shorter cannot become more than about 3 MiB, and is not looked at.
SMALL_BYTES = 64 * 1024


class Bounds(NamedTuple):
    """What a JSON text may have.

    Attributes:
        outside_bytes: so much that is not inside a string: brackets, commas, numbers, space.
        strings: so many strings, names of members included.
        bytes: so much once the escapes in it are undone, at least.
    """

    outside_bytes: int
    strings: int
    bytes: int


class TooMuch(ValueError):
    """A JSON text is out of its bounds; it was not parsed."""


# A thousand members with ids and names have 10 KiB outside of 4,000 strings, with much space 50.
EVENT = Bounds(64 * 1024, 32_768, 1024 * 1024)


def loads(text: bytes, bounds: Bounds) -> Any:
    """Return what a JSON text says.

    Raises:
        TooMuch: it is out of its bounds.
        ValueError, RecursionError: it is no JSON.
    """
    check(text, bounds)
    return json.loads(text)


def check(text: bytes, bounds: Bounds) -> None:
    """Look at a JSON text before it is parsed.

    What is no JSON may be measured wrongly, but only behind the place at which the parser stops:
    outside of a string there is no backslash.

    Raises:
        TooMuch: it is out of its bounds.
    """
    if len(text) <= SMALL_BYTES:
        return
    escapes = 0  # bytes that go away when they are undone
    if b"\\" in text:
        size = len(text)
        text = text.replace(b"\\\\", b"")
        pairs = (size - len(text)) // 2
        escapes = pairs + text.count(b"\\") + 4 * text.count(b"\\u")
        text = text.replace(b'\\"', b"")  # what is left are the ends of strings
        if size - escapes > bounds.bytes:
            raise TooMuch("it is too long")
    elif len(text) > bounds.bytes:
        raise TooMuch("it is too long")
    outside = start = 0
    for _ in range(bounds.strings + 1):
        end = text.find(b'"', start)
        outside += (len(text) if end < 0 else end) - start
        if outside > bounds.outside_bytes:
            raise TooMuch("it has too many parts")
        if end < 0:
            return
        start = text.find(b'"', end + 1) + 1
        if not start:
            return  # a string without an end
    raise TooMuch("it has too many strings")
