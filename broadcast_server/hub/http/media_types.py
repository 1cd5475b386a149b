"""Media types: what a header says about a body, and which of our answers a client wants most.

RFC 9110 §8.3.1 and §12.5.1. A room's GET has three answers: the page, the last messages as JSON,
and the stream of events. Whoever accepts anything gets the JSON; the others have to be named.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

HTML = "text/html"
JSON = "application/json"
EVENTS = "text/event-stream"

# Of equally wanted ones the first is taken.
_OFFERS = (HTML, JSON, EVENTS)
_OFFERS_TO_ANYBODY = (JSON, HTML, EVENTS)

# More than any program sends: each costs the hub more than its bytes.
MAX_RANGES = 64
MAX_PARAMETERS = 32

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
# The closing quote may be missing: then everything up to the end is quoted, and nothing is read
# twice.
_QUOTED_OR_SEPARATOR = re.compile(r'"(?:[^"\\]+|\\.)*"?|[,;]')
# RFC 9110 §12.4.2, and the ".2" of old Java clients.
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?|\.[0-9]{1,3}")


@dataclasses.dataclass(frozen=True, slots=True)
class MediaType:
    """A media type or a media range, in lower case.

    Attributes:
        name: such as ``text/html``, ``text/*`` or ``*/*``.
        parameters: names in lower case, values without quotes.
    """

    name: str
    parameters: dict[str, str]


def parse(text: str) -> MediaType:
    """Read one media type with its parameters.

    Raises:
        ValueError: it is none, or has too many parameters.
    """
    _check_number(text, ";", MAX_PARAMETERS, "parameters of a media type")
    name, *rest = _split(text, ";")
    kind, slash, subtype = name.partition("/")
    if not (slash and _TOKEN.fullmatch(kind) and _TOKEN.fullmatch(subtype)):
        raise ValueError(f"not a media type: {text[:64]!r}")
    parameters = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not part:
            continue
        if not (equals and _TOKEN.fullmatch(key)):
            raise ValueError(f"not a parameter of a media type: {part[:64]!r}")
        if value[:1] == '"':
            if len(value) < 2 or value[-1] != '"':
                raise ValueError(f"not a quoted string: {value[:64]!r}")
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        elif not _TOKEN.fullmatch(value):
            raise ValueError(f"not a parameter of a media type: {part[:64]!r}")
        parameters[key.lower()] = value
    return MediaType(name.lower(), parameters)


def prefer(accept: Iterable[str]) -> str | None:
    """Return which of ``HTML``, ``JSON`` and ``EVENTS`` a client wants most; None for none of them.

    The highest weight wins, then what is named more exactly, then the order of the three. An
    element that cannot be read does not count.

    Args:
        accept: the values of all ``Accept`` header lines; none and empty ones accept anything.

    Raises:
        ValueError: there are too many elements.
    """
    accept = list(accept)
    _check_number(",".join(accept), ",", MAX_RANGES, "elements")
    if sum(value.count(";") for value in accept) > 4 * MAX_RANGES:
        raise ValueError(f"there are more than {4 * MAX_RANGES} parameters")
    elements = [part for value in accept for part in _split(value, ",") if part]
    if not elements:
        return JSON
    ranges = [found for found in map(_parse_range, elements) if found is not None]
    best = None
    for offer in _OFFERS:
        # RFC 9110 §12.5.1: the most specific range that fits decides about a type.
        exactness, weight = max(
            ((_exactness(named, offer), weight) for named, weight in ranges), default=(0, 0.0)
        )
        if not exactness or not weight:
            continue
        order = _OFFERS if exactness > 1 else _OFFERS_TO_ANYBODY
        rank = (weight, exactness, -order.index(offer), offer)
        best = rank if best is None else max(best, rank)
    return best[-1] if best is not None else None


def is_only(accept: Iterable[str], kind: str) -> bool:
    """Tell whether a client accepts this type and names no other, as an ``EventSource`` does.

    Args:
        accept: the values of all ``Accept`` header lines.
        kind: one of ``HTML``, ``JSON`` and ``EVENTS``.
    """
    named = [part for value in accept for part in _split(value, ",") if part]
    found = _parse_range(named[0]) if len(named) == 1 else None
    return found is not None and found[0].name == kind and found[1] > 0


def is_text(content_type: str) -> bool:
    """Tell whether a body of this type is text, in UTF-8.

    Raises:
        ValueError: this is no media type.
        LookupError: the hub does not take such bodies; the text says why.
    """
    media = parse(content_type)
    kind, _, subtype = media.name.partition("/")
    if kind == "multipart":
        raise LookupError("a message is one body; multipart bodies are not taken apart")
    if not (
        kind == "text"
        or subtype.endswith(("+json", "+xml"))
        or media.name
        in ("application/json", "application/xml", "application/x-www-form-urlencoded")
    ):
        return False
    if media.parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise LookupError("text must be in UTF-8")
    return True


def _check_number(text: str, separator: str, most: int, what: str) -> None:
    """Look how many parts a text has at most before it is taken apart; quotes count as well, in
    which a separator would be none."""
    if text.count(separator) >= most or text.count('"') >= 2 * most:
        raise ValueError(f"there are more than {most} {what}")


def _parse_range(element: str) -> tuple[MediaType, float] | None:
    try:
        # Old Java clients say "*" for "*/*".
        named = parse(re.sub(r"^\*(?=\s*(;|$))", "*/*", element))
    except ValueError:
        return None
    weight = named.parameters.pop("q", "1")
    return (named, float(weight)) if _WEIGHT.fullmatch(weight) and weight != "." else None


def _exactness(named: MediaType, offer: str) -> int:
    """Return how exactly a range names one of our types; 0 if it does not fit at all."""
    if named.name == offer:
        return 3 if named.parameters else 4
    if named.name == offer.partition("/")[0] + "/*":
        return 2
    return 1 if named.name == "*/*" else 0


def _split(text: str, separator: str) -> list[str]:
    """Return the parts between separators that do not stand in quotes, without outer blanks."""
    parts, start = [], 0
    for found in _QUOTED_OR_SEPARATOR.finditer(text):
        if found[0] == separator:
            parts.append(text[start : found.start()])
            start = found.end()
    return [part.strip(" \t") for part in [*parts, text[start:]]]
