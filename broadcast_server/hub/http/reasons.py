"""Why a request was refused: what the log says of it, besides what whoever asked is told. No I/O.

An operator must see what came and which option would let it in. What is repeated of a request is
cut; the package's loggers escape it. A query is left out, since there may be a token in it.
"""

from __future__ import annotations

from .models import Refusal, Request

# More than any name that people give, and too little to fill a log.
MAX_SEEN_CHARACTERS = 80

# What is repeated of a request that is refused for this reason.
SEEN = {
    "origin": ("origin", "sec-fetch-site", "host"),
    "host": ("host",),
    "forwarded": ("forwarded", "x-forwarded-for"),
    "too_big": ("content-length",),
}
# The option with which more would be let in.
OPTIONS = {
    "handshake_slots": "--max-handshakes",
    "max_clients": "--max-clients",
    "max_header_bytes": "--max-header-bytes",
    "max_rooms": "--max-rooms",
    "per_address": "--max-clients-per-address",
    "rate": "--max-rate",
    "rooms_per_address": "--max-rooms-per-address",
    "timeout": "--handshake-timeout",
    "too_big": "--max-message-bytes",
}


def cut(text: str) -> str:
    """Return as much of what a client has sent as is repeated."""
    if len(text) <= MAX_SEEN_CHARACTERS:
        return text
    return text[: MAX_SEEN_CHARACTERS - 1] + "…"


def for_log(refusal: Refusal, request: Request | None) -> str:
    """Return what the log says of a refusal.

    Args:
        refusal: the refusal.
        request: the request; None if it could not be read.
    """
    more = []
    if request is not None:
        more.append(f"{cut(request.method)} {cut(request.target.partition('?')[0])}")
        for name in SEEN.get(refusal.reason, ()):
            more += [f"{name.title()}: {cut(value)}" for value in request.values(name)[:2]]
    option = OPTIONS.get(refusal.reason)
    if option and option not in refusal.text:
        more.append(f"see {option}")
    return f"{refusal.text} ({'; '.join(more)})" if more else refusal.text
