"""What strangers wrote, made fit to stand in one line of a log or on a terminal.

A name, a reason, a header or a room may hold a line feed, which would begin a line of its own in a
log, or an escape sequence, which would steer the terminal that shows it. ``printable`` is the one
place where such characters are escaped.
"""

from __future__ import annotations

import re

# What str.isprintable() takes for a letter, a mark or a symbol, and nobody sees.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0]")


def printable(text: str) -> str:
    """Return `text` with every character escaped that could steer a terminal or forge a line.

    Among them are those that turn the direction of writing and those that have no width. Letters of
    every script stay as they are.
    """
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(
        ascii(c)[1:-1] if not c.isprintable() or _INVISIBLE.match(c) else c for c in text
    )
