"""Who may do what: a parsed HTTP request in, a decision out. No I/O, no state.

The order of the checks is the order of the answers: a path that is no room is 404 even for an
upgrade, a method that is not understood is 405 from everywhere, and a foreign origin is 403 before
the hub looks at what it asked for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from ... import origins, rules
from ...arguments import kind_of
from ...errors import InvalidRoom
from ...messages import parse_id
from . import cors, media_types
from .models import (
    NEVER_GIVEN,
    Asset,
    Decision,
    Headers,
    Health,
    Id,
    Join,
    Metrics,
    Page,
    Preflight,
    Publish,
    Recall,
    Refusal,
    Request,
    RoomList,
    Stream,
)
from .query import checked_count, checked_flag, checked_word, decode

SUBPROTOCOL = "broadcast.v1.json"
MAX_ROOM_CHARACTERS = 128
MAX_KEY_CHARACTERS = 128
# What is left of an id that is none: enough to see what it was.
MAX_SINCE_CHARACTERS = 64
RESERVED_PATHS = frozenset({"/healthz", "/metrics", "/favicon.ico", "/robots.txt", "/-"})
RESERVED_PREFIX = "/-/"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_AUTHORITY = re.compile("^[^/?#]*")  # RFC 3986 §3.2
_ASSET = re.compile(r"/-/static/((?!.*\.\.)[a-z0-9_.-]+)")
_VISIBLE = re.compile("[!-~]+")

_LONG_PATH = f"a room's path has at most {MAX_ROOM_CHARACTERS} characters"
# Each of them has at most four bytes, and each of those at most three characters.
_MAX_RAW_PATH = 12 * MAX_ROOM_CHARACTERS

_ROOM_METHODS = ("GET", "HEAD", "POST", "PUT")
_RESERVED_METHODS = ("GET", "HEAD")


def decide(request: Request, allow_origin: tuple[str, ...], max_history: int) -> Decision:
    """Return what to do with a request that h11 has found to be well-formed HTTP.

    Args:
        request: the request, without its body.
        allow_origin: origins that may use the hub besides its own; ``*`` for all.
        max_history: the most messages that ``history=`` can ask for; more is cut to it.
    """
    target = request.target
    if target == "*" and request.method == "OPTIONS":
        # RFC 9110 §9.3.7: about the hub as a whole.
        return cors.decide_options(request, allow_origin, _ROOM_METHODS)
    if not target.startswith("/"):
        # RFC 9112 §3.2.2: a server must accept the absolute form, too.
        scheme, separator, rest = target.partition("://")
        if scheme.lower() not in origins.DEFAULT_PORTS or not separator:
            return Refusal(400, "the request target must be a path")
        target = _AUTHORITY.sub("", rest, count=1)
    raw_path = target.partition("?")[0]
    try:
        if len(raw_path) > _MAX_RAW_PATH:
            raise InvalidRoom(_LONG_PATH)  # before it is decoded
        path = decode(raw_path or "/")
        if path in RESERVED_PATHS or path.startswith(RESERVED_PREFIX):
            return _decide_reserved(request, path, allow_origin)
        check_room(path)
    except InvalidRoom as error:
        return Refusal(400, str(error))
    except ValueError as error:
        return Refusal(400, f"bad path: {error}")
    if request.method == "OPTIONS":
        return cors.decide_options(request, allow_origin, _ROOM_METHODS)
    if request.method not in _ROOM_METHODS:
        return _wrong_method(_ROOM_METHODS)
    if request.method == "GET" and "websocket" in request.tokens("upgrade"):
        if not cors.may_use(request, allow_origin):
            return cors.foreign(request)
        return _decide_upgrade(request, path, max_history)
    if request.method in ("GET", "HEAD"):
        return _decide_look(request, path, allow_origin, max_history)
    if not cors.may_use(request, allow_origin):
        return cors.foreign(request)
    headers = cors.shared_headers(request, allow_origin)
    return _decide_publish(request, path, headers)


def _decide_upgrade(request: Request, path: str, max_history: int) -> Join | Refusal:
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
    # What else is offered is for others; the answer then names none (RFC 6455 §4.2.2).
    offered = SUBPROTOCOL in request.elements("sec-websocket-protocol")
    try:
        query = request.query()
        since, since_text = _since(query.get("since"))
        return Join(
            path,
            rules.checked_name(query.get("name")),
            checked_flag(query, "echo"),
            checked_count(query, "history", 0, max_history),
            since,
            accept_key(keys[0]),
            _session(request, query.get("session")),
            SUBPROTOCOL if offered else None,
            since_text,
        )
    except ValueError as error:
        return Refusal(400, f"bad query: {error}")


def _decide_look(
    request: Request, path: str, allow_origin: tuple[str, ...], max_history: int
) -> Page | Recall | Stream | Refusal:
    """Choose between the page, the last messages and the stream of events.

    An ``Upgrade`` to something else than a WebSocket is ignored (RFC 9110 §7.8), and so is one that
    comes with HEAD.
    """
    headers = cors.shared_headers(request, allow_origin, "Accept")
    try:
        kind = media_types.prefer(request.values("accept"))
    except ValueError as error:
        return Refusal(400, f"bad header: Accept: {error}", headers)
    # The page itself tells nothing of the room: everybody may have it.
    if kind != media_types.HTML and not cors.may_use(request, allow_origin):
        return cors.foreign(request)
    if kind is None:
        text = "a room can be had as text/html, application/json or text/event-stream"
        return Refusal(406, text, headers)
    try:
        query = request.query()
        if kind == media_types.HTML:
            return Page(path, checked_word(query, "view", "board"), headers)
        since, since_text = _since(query.get("since"))
        if kind == media_types.JSON:
            history = checked_count(query, "history", 1, max_history)
            return Recall(path, history, since, since_text, headers)
        since, since_text = _last_event_id(request) or (since, since_text)
        return Stream(
            path,
            rules.checked_name(query.get("name")),
            checked_count(query, "history", 0, max_history),
            since,
            since_text,
            checked_word(query, "format", "json"),
            headers,
            media_types.is_only(request.values("accept"), media_types.EVENTS),
        )
    except ValueError as error:
        return Refusal(400, f"bad query: {error}", headers)


def _decide_publish(request: Request, path: str, headers: Headers) -> Publish | Refusal:
    """Check what comes with a message: its form, its key and who sends it.

    Of a name in the query and one in the header ``Broadcast-Name`` the one in the query counts: it
    is in every log of the request.
    """
    if not {"identity"}.issuperset(request.tokens("content-encoding")):
        # RFC 9110 §15.5.16: say what is understood.
        accepted = (("Accept-Encoding", "identity"), *headers)
        return Refusal(415, "a message must come without Content-Encoding", accepted)
    try:
        content_type = _only_value(request, "content-type")
        is_text = media_types.is_text(content_type) if content_type else None
        key = _only_value(request, "idempotency-key")
        if key is not None and not (len(key) <= MAX_KEY_CHARACTERS and _VISIBLE.fullmatch(key)):
            raise ValueError(
                f"Idempotency-Key must be 1 to {MAX_KEY_CHARACTERS} visible characters"
            )
        header_name = _only_value(request, "broadcast-name")
    except LookupError as error:
        return Refusal(415, str(error.args[0]), headers)
    except ValueError as error:
        return Refusal(400, f"bad header: {error}", headers)
    try:
        name = rules.checked_name(request.query().get("name"))
    except ValueError as error:
        return Refusal(400, f"bad query: {error}", headers)
    if name is None and header_name is not None:
        try:
            name = rules.checked_name(header_name.encode("latin-1").decode("utf-8"))
        except UnicodeDecodeError:
            return Refusal(400, "bad header: Broadcast-Name is not UTF-8", headers)
        except ValueError as error:
            return Refusal(400, f"bad header: Broadcast-Name: {error}", headers)
    return Publish(path, name, key, is_text, headers)


def _decide_reserved(
    request: Request, path: str, allow_origin: tuple[str, ...]
) -> RoomList | Health | Metrics | Asset | Preflight | Refusal:
    """Decide about a path that is no room."""
    asset = _ASSET.fullmatch(path)
    known = asset is not None or path in ("/healthz", "/metrics", "/-/rooms")
    # Who wants to join finds nothing here, whatever a GET would get.
    if not known or "websocket" in request.tokens("upgrade"):
        return Refusal(404, "there is nothing here")
    if request.method == "OPTIONS":
        return cors.decide_options(request, allow_origin, _RESERVED_METHODS)
    if request.method not in _RESERVED_METHODS:
        return _wrong_method(_RESERVED_METHODS)
    if asset is not None:
        return Asset(asset[1])
    if path == "/healthz":
        return Health()
    if not cors.may_use(request, allow_origin):
        return cors.foreign(request)
    if path == "/metrics":
        return Metrics(cors.shared_headers(request, allow_origin, "Accept"))
    headers = cors.shared_headers(request, allow_origin)
    try:
        room = request.query().get("room")
        if room is not None:
            check_room(room)
    except ValueError as error:
        return Refusal(400, f"bad query: {error}", headers)
    return RoomList(room, headers)


def _wrong_method(methods: tuple[str, ...]) -> Refusal:
    allow = ", ".join((*methods, "OPTIONS"))
    return Refusal(405, f"only {allow} are understood here", (("Allow", allow),))


def accept_key(key: str) -> str:
    """Return the ``Sec-WebSocket-Accept`` for a key (RFC 6455 §4.2.2, step 5.4)."""
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def check_room(path: str) -> None:
    """Check a room's path, already percent-decoded.

    Raises:
        InvalidRoom: no client could join a room of this path.
        TypeError: it is not ``str``.
    """
    if not isinstance(path, str):
        raise TypeError(f"room must be str, not {kind_of(path)}")
    if not path.startswith("/"):
        raise InvalidRoom(f"a room is a path that begins with '/', not {path!r}")
    if len(path) > MAX_ROOM_CHARACTERS:
        raise InvalidRoom(_LONG_PATH)
    if rules.has_control(path):
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


def _since(text: str | None) -> tuple[Id | None, str | None]:
    return (parse_id(text), text) if text is not None else (None, None)


def _session(request: Request, in_query: str | None) -> str | None:
    """Return the session that a client shows, in the query or among the subprotocols.

    Raises:
        ValueError: it shows two different ones, or one that cannot be read.
    """
    found = {
        rules.decode_offered(offered.removeprefix(rules.SESSION_PROTOCOL))
        for offered in request.elements("sec-websocket-protocol")
        if offered.startswith(rules.SESSION_PROTOCOL)
    }
    if in_query:
        found.add(in_query)
    if len(found) > 1:
        raise ValueError("there is more than one session")
    return rules.checked_session(found.pop()) if found else None


def _last_event_id(request: Request) -> tuple[Id, str] | None:
    """Return the id after which a reader wants to go on; None if it names none.

    What is no id was not given out by this hub: the reader gets a gap, not an error after which a
    browser would never come back (WHATWG HTML §9.2.3).
    """
    text = ", ".join(request.values("last-event-id"))
    text = text.encode("latin-1").decode("utf-8", "replace")
    if not text:
        return None
    try:
        return parse_id(text), text
    except ValueError:
        return NEVER_GIVEN, text[:MAX_SINCE_CHARACTERS]


def _only_value(request: Request, name: str) -> str | None:
    """Return the value of a header that may come once; None if it does not come.

    Raises:
        ValueError: it comes twice, and nobody knows which one is meant.
    """
    values = request.values(name)
    if len(values) > 1:
        raise ValueError(f"{name} comes twice")
    return values[0] if values else None
