"""Who may join what: a parsed HTTP request in, a decision out. No I/O, no state.

The order of the checks is the order of the answers: a path that is no room is 404 even for an
upgrade, a foreign origin is 403 before the hub looks at what it asked for.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import re
import unicodedata
import urllib.parse

from .errors import InvalidRoom
from .messages import parse_id

MAX_ROOM_CHARACTERS = 128
MAX_NAME_CHARACTERS = 64
RESERVED_PATHS = frozenset({"/healthz", "/metrics", "/favicon.ico", "/robots.txt", "/-"})
RESERVED_PREFIX = "/-/"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_AUTHORITY = re.compile("^[^/?#]*")  # RFC 3986 §3.2
_DEFAULT_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443"}

Headers = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request without its body.

    Attributes:
        method, target: as in the request line.
        version: "1.0" or "1.1".
        headers: names in lower case, values as they came, without outer spaces.
    """

    method: str
    target: str
    version: str
    headers: Headers

    def values(self, name: str) -> list[str]:
        """Return the values of every header line of that name."""
        return [value for key, value in self.headers if key == name]

    def tokens(self, name: str) -> list[str]:
        """Return the comma-separated tokens of a header, in lower case (RFC 9110 §5.6.1)."""
        return [
            token.strip().lower()
            for value in self.values(name)
            for token in value.split(",")
            if token.strip()
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class Join:
    """The request is a WebSocket upgrade that may go on.

    Attributes:
        room: the room's path.
        name: what the client calls itself, or None.
        echo: it wants its own messages too.
        history: how many of the last messages it wants first; 0 for none.
        since: it wants everything after this id first; None for "from now on".
        accept: the value of ``Sec-WebSocket-Accept``.
    """

    room: str
    name: str | None
    echo: bool
    history: int
    since: tuple[int, int] | None
    accept: str


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """The request gets an HTTP answer and no connection."""

    status: int
    text: str
    headers: Headers = ()


def decide(request: Request, allow_origin: tuple[str, ...], max_history: int) -> Join | Refusal:
    """Return what to do with a request that h11 has found to be well-formed HTTP.

    Args:
        request: the request, without its body.
        allow_origin: origins that may join besides the hub's own; ``*`` for all.
        max_history: the most messages that ``history=`` can ask for; more is cut to it.
    """
    target = request.target
    if not target.startswith("/"):
        # RFC 9112 §3.2.2: a server must accept the absolute form, too.
        scheme, separator, rest = target.partition("://")
        if scheme.lower() not in _DEFAULT_PORTS or not separator:
            return Refusal(400, "the request target must be a path")
        target = _AUTHORITY.sub("", rest, count=1)
    raw_path, _, raw_query = target.partition("?")
    raw_path = raw_path or "/"
    try:
        path = _decode(raw_path)
        if path in RESERVED_PATHS or path.startswith(RESERVED_PREFIX):
            return Refusal(404, "there is nothing here")
        check_room(path)
    except InvalidRoom as error:
        return Refusal(400, str(error))
    except ValueError as error:
        return Refusal(400, f"bad path: {error}")
    if request.method not in ("GET", "HEAD"):
        return Refusal(405, "only GET is understood here", (("Allow", "GET, HEAD"),))
    if not _is_allowed_origin(request, allow_origin):
        return Refusal(403, "this origin may not use the hub")
    if request.method == "HEAD" or "websocket" not in request.tokens("upgrade"):
        return Refusal(
            426,
            "this is a WebSocket room: connect with ws://",
            (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
        )
    return _decide_upgrade(request, path, raw_query, max_history)


def _decide_upgrade(
    request: Request, path: str, raw_query: str, max_history: int
) -> Join | Refusal:
    """Check an upgrade request (RFC 6455 §4.2.1) and its query."""
    if request.version < "1.1":
        return Refusal(400, "a WebSocket upgrade needs HTTP/1.1")
    if request.values("transfer-encoding") or request.values("content-length") not in ([], ["0"]):
        return Refusal(400, "an upgrade request has no body")
    if "upgrade" not in request.tokens("connection"):
        return Refusal(400, "the Connection header must name Upgrade")
    if request.values("sec-websocket-version") != ["13"]:
        # RFC 6455 §4.4: say which version is understood.
        return Refusal(
            426,
            "only WebSocket version 13 is understood",
            (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
        )
    keys = request.values("sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        return Refusal(400, "Sec-WebSocket-Key must be the base64 of 16 bytes")
    try:
        query = _parse_query(raw_query)
        name = _checked_name(query.get("name"))
        echo = _checked_flag("echo", query.get("echo", "0"))
        history = _checked_count("history", query.get("history", "0"))
        since = parse_id(query["since"]) if "since" in query else None
    except ValueError as error:
        return Refusal(400, f"bad query: {error}")
    return Join(path, name, echo, min(history, max_history), since, accept_key(keys[0]))


def accept_key(key: str) -> str:
    """Return the ``Sec-WebSocket-Accept`` for a key (RFC 6455 §4.2.2, step 5.4)."""
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def check_room(path: str) -> None:
    """Check a room's path, already percent-decoded.

    Raises:
        InvalidRoom: no client could join a room of this path.
    """
    if not isinstance(path, str) or not path.startswith("/"):
        raise InvalidRoom(f"a room is a path that begins with '/', not {path!r}")
    if len(path) > MAX_ROOM_CHARACTERS:
        raise InvalidRoom(f"a room's path has at most {MAX_ROOM_CHARACTERS} characters")
    if _has_control(path):
        raise InvalidRoom("a room's path has no control characters")
    if "//" in path or not {".", ".."}.isdisjoint(path.split("/")):
        raise InvalidRoom("a room's path has no empty, '.' or '..' segments")
    if path in RESERVED_PATHS or path.startswith(RESERVED_PREFIX):
        raise InvalidRoom(f"{path} is reserved")


def _is_key(key: str) -> bool:
    try:
        return len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _is_allowed_origin(request: Request, allow_origin: tuple[str, ...]) -> bool:
    """Tell whether a browser's page may use the hub (RFC 6455 §10.2); a program sends no Origin."""
    origins = request.values("origin")
    if not origins or "*" in allow_origin:
        return True
    if len(origins) != 1:
        return False
    origin = origins[0].lower()
    if origin in (allowed.lower().rstrip("/") for allowed in allow_origin):
        return True
    scheme, separator, netloc = origin.partition("://")
    hosts = request.values("host")
    if not separator or scheme not in _DEFAULT_PORTS or len(hosts) != 1:
        return False
    default = ":" + _DEFAULT_PORTS[scheme]
    return netloc.removesuffix(default) == hosts[0].lower().removesuffix(default)


def _parse_query(raw: str) -> dict[str, str]:
    query = {}
    for part in raw.split("&"):
        key, _, value = part.partition("=")
        query[_decode(key.replace("+", " "))] = _decode(value.replace("+", " "))
    return query


def _decode(raw: str) -> str:
    """Percent-decode once; bad escapes and bad UTF-8 are errors, not characters."""
    pieces = raw.split("%")
    for piece in pieces[1:]:
        if len(piece) < 2 or not all(digit in "0123456789abcdefABCDEF" for digit in piece[:2]):
            raise ValueError("'%' is not followed by two hexadecimal digits")
    try:
        return urllib.parse.unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


def _checked_name(name: str | None) -> str | None:
    if not name:
        return None
    if len(name) > MAX_NAME_CHARACTERS:
        raise ValueError(f"a name has at most {MAX_NAME_CHARACTERS} characters")
    if _has_control(name):
        raise ValueError("a name has no control characters")
    return name


def _checked_flag(key: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError(f"{key} must be 0 or 1")
    return value == "1"


def _checked_count(key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise ValueError(f"{key} must be a whole number")
    return int(value)


def _has_control(text: str) -> bool:
    # Zl and Zp are U+2028 and U+2029, which end a line as control characters do.
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)
