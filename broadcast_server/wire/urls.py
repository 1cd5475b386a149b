"""Addresses of rooms and hubs: checked, and written in ASCII as they go over the wire (RFC 3986).

People write addresses with umlauts and blanks in them, and the query parameters of the hub by hand.
What is quoted already stays as it is.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping

from ..arguments import TEXT, check_type, utf8
from ..errors import UsageError

WEBSOCKET = ("ws", "wss")
# A hub answers both kinds of requests at one address.
ANY = ("http", "https", *WEBSOCKET)

_PATH_SAFE = "%/:@!$&'()*+,;=-._~"
_QUERY_SAFE = _PATH_SAFE + "?"
# RFC 3986 §3.2, without a user: an IPv6 address or a name, and a port.
_AUTHORITY = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~%-]+)?\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]*)?"
)
_USER = re.compile("[^/?#]*//[^/?#]*@")


def split(url: str, schemes: tuple[str, ...] = ANY) -> urllib.parse.SplitResult:
    """Return the parts of an address in ASCII, without a fragment. Pure; any thread.

    Args:
        url: the address, with a query or without.
        schemes: those that it may have, in small letters.

    Raises:
        UsageError: it is none (RFC 3986 §3; RFC 6455 §3).
        TypeError: it is no text.
    """
    check_type("url", url, TEXT)
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        host = parts.netloc
        if not host.isascii():
            name, colon, port = host.partition(":")
            host = name.encode("idna").decode("ascii") + colon + port
        # What it is in ASCII must be a name, too: "⒈" is "1.", and may leave an empty label.
        usable = usable and _AUTHORITY.fullmatch(host) is not None
        (urllib.parse.urlsplit("//" + host).hostname or "").encode("idna")
    except ValueError:
        usable = False
    example = f"an address such as {schemes[0]}://127.0.0.1:8765/scores"
    if _USER.match(url):
        # Nobody would send it to the hub, and there may be a password in it.
        raise UsageError(f"what has a user's name in it is not {example}")
    if not usable or not url.isprintable() or " " in url:
        raise UsageError(f"{url!r} is not {example}")
    path = urllib.parse.quote(parts.path, safe=_PATH_SAFE)
    query = urllib.parse.quote(parts.query, safe=_QUERY_SAFE)
    return urllib.parse.SplitResult(parts.scheme, host, path, query, "")


def parameter(parts: urllib.parse.SplitResult, key: str) -> str | None:
    """Return a parameter of the query, the last one of that name; None if it is not there. Pure;
    any thread."""
    found = urllib.parse.parse_qs(parts.query).get(key)
    return found[-1] if found else None


def with_parameters(
    parts: urllib.parse.SplitResult, parameters: Mapping[str, str | None]
) -> urllib.parse.SplitResult:
    """Return an address with these parameters in its query. Pure; any thread.

    Args:
        parts: the address, as `split` returns it.
        parameters: each takes the place of all of its name that are there; None takes them away.

    Raises:
        UsageError: a value cannot be written in UTF-8.
    """
    kept = [part for part in parts.query.split("&") if part and _key_of(part) not in parameters]
    for key, value in parameters.items():
        if value is not None:
            kept.append(f"{key}={urllib.parse.quote(utf8(key, value), safe='')}")
    return parts._replace(query="&".join(kept))


def target(parts: urllib.parse.SplitResult) -> str:
    """Return what a request line asks for (RFC 9112 §3.2.1). Pure; any thread."""
    return f"{parts.path or '/'}?{parts.query}".removesuffix("?")


def _key_of(part: str) -> str:
    return urllib.parse.unquote_plus(part.partition("=")[0])
