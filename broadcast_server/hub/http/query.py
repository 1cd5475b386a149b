"""The path and the query of a request's target, decoded once and checked.

Every function raises ``ValueError`` with a text for whoever sent the request.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping

# More than any request needs: each costs the hub more than its sender.
MAX_PARAMETERS = 64
MAX_ESCAPES = 1024

_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


def decode(raw: str) -> str:
    """Percent-decode once; bad escapes and bad UTF-8 are errors, not characters."""
    if "%" not in raw:
        return raw
    _check_escapes(raw)
    if _BAD_ESCAPE.search(raw):
        raise ValueError("'%' is not followed by two hexadecimal digits")
    try:
        return urllib.parse.unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


def parse_query(raw: str) -> dict[str, str]:
    """Return the parameters of a query; of two with one name the last counts."""
    if raw.count("&") >= MAX_PARAMETERS:
        raise ValueError(f"there are more than {MAX_PARAMETERS} parameters")
    _check_escapes(raw)
    query = {}
    for part in raw.split("&"):
        key, _, value = part.partition("=")
        query[decode(key.replace("+", " "))] = decode(value.replace("+", " "))
    return query


def _check_escapes(raw: str) -> None:
    if raw.count("%") > MAX_ESCAPES:
        raise ValueError(f"there are more than {MAX_ESCAPES} characters with a '%'")


def checked_flag(query: Mapping[str, str], key: str) -> bool:
    """Return a parameter that is 0 or 1, False if it is not there."""
    value = query.get(key, "0")
    if value not in ("0", "1"):
        raise ValueError(f"{key} must be 0 or 1")
    return value == "1"


def checked_word(query: Mapping[str, str], key: str, word: str) -> bool:
    """Tell whether a parameter is there, which can have one value only."""
    if key not in query:
        return False
    if query[key] != word:
        raise ValueError(f"{key} must be {word}")
    return True


def checked_count(query: Mapping[str, str], key: str, default: int, most: int) -> int:
    """Return a parameter that is a whole number, cut to what it may be at most."""
    value = query.get(key, str(default))
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise ValueError(f"{key} must be a whole number")
    return min(int(value), most)
