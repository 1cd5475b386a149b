"""Who may do what: what a request asks for, what was granted, and whether that is enough.

A request shows a token or none (`find_token`). Somebody makes a ``Grant`` of it, or refuses: the
hub's own tokens (hub/http/keyring.py) or the program's ``authorize``. Both are called with an
``AccessRequest`` and give the same answer. `judge` then holds the grant against what is asked. No
I/O, no state; what fails on the way refuses.

Refusals are those of RFC 6750 §3: 401 for whoever is not known, 403 for whoever is known and may
not, each with a ``WWW-Authenticate: Bearer``.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable
from typing import Literal

from ... import rules
from ...arguments import TEXT_OR_NONE, check_type
from .models import (
    Asset,
    Decision,
    Headers,
    Health,
    Join,
    Page,
    Preflight,
    Publish,
    Recall,
    Refusal,
    Request,
    Response,
    RoomList,
    Stream,
)

# Scripts in a browser cannot set a header of an upgrade: they offer this subprotocol, too, with
# their token in base64url (RFC 4648 §5) behind it. It is never the one that is chosen.
TOKEN_PROTOCOL = "broadcast.token."

Action = Literal["subscribe", "publish", "look"]

_TOKEN = re.compile("[!-~]+")
_BEARER = re.compile("bearer(?: +|$)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do.

    A pattern is the path of a room; with ``*`` as its last character it stands for all that begin
    like it: ``/team/*``, ``*``.

    Attributes:
        name: the only name that they may have; None lets them choose.
        subscribe: patterns of the rooms that they may read; None for all, empty for none.
        publish: patterns of the rooms that they may write to, likewise.
        expires: when it all ends, in Unix seconds; their connections end then, too. None for never.

    Raises:
        TypeError: a list of patterns is no list of strings, or the end no number.
        ValueError: nobody can have such a name.
    """

    name: str | None = None
    subscribe: tuple[str, ...] | None = None
    publish: tuple[str, ...] | None = None
    expires: float | None = None

    def __post_init__(self) -> None:
        for field in ("subscribe", "publish"):
            patterns: object = getattr(self, field)
            if patterns is None:
                continue
            # Of "/a" each character would be a pattern.
            if not isinstance(patterns, (list, tuple, set, frozenset)):
                raise TypeError(f"{field} must be a list of patterns")
            if not all(isinstance(pattern, str) for pattern in patterns):
                raise TypeError(f"each pattern in {field} must be a string")
            object.__setattr__(self, field, tuple(patterns))
        expires: object = self.expires
        check_type("expires", expires, (int, float, None))
        if expires != expires:  # NaN
            raise TypeError("expires must be a number of seconds")
        check_type("name", self.name, TEXT_OR_NONE)
        if self.name is not None and rules.checked_name(self.name) is None:
            raise ValueError("a name has at least one character")

    def may_subscribe(self, room: str) -> bool:
        """Tell whether a room may be read."""
        return _matches(self.subscribe, room)

    def may_publish(self, room: str) -> bool:
        """Tell whether a room may be written to."""
        return _matches(self.publish, room)


# What everybody may do where there is no access control.
OPEN = Grant()


@dataclasses.dataclass(frozen=True, slots=True)
class AccessRequest:
    """What an ``authorize`` is asked. Its text form has no secrets in it.

    Attributes:
        action: "subscribe" to read a room, by whatever means; "publish" to write to it over HTTP;
            "look" for ``/metrics`` and the list of all rooms. Who joins by WebSocket is asked once,
            for "subscribe"; the grant tells whether they may write.
        room: the room's path; None for "look".
        token: what they show, or None.
        address: where they come from, ``host:port``.
        headers: those of the request, names in lower case: for cookies and the like.
    """

    action: Action
    room: str | None
    token: str | None = dataclasses.field(repr=False)
    address: str
    headers: Headers = dataclasses.field(default=(), repr=False)


Authorize = Callable[[AccessRequest], "Grant | Refusal | None"]


def asked(decision: Decision) -> tuple[Action, str | None] | None:
    """Return what a decision needs: the action and its room; None for what is open to all."""
    if isinstance(decision, (Page, Asset, Health, Preflight, Refusal, Response)):
        return None
    if isinstance(decision, (Join, Stream, Recall)):
        return "subscribe", decision.room
    if isinstance(decision, Publish):
        return "publish", decision.room
    if isinstance(decision, RoomList) and decision.room is not None:
        return "subscribe", decision.room
    return "look", None


def find_token(request: Request) -> str | None:
    """Return the token that a request shows, None if it shows none.

    Other schemes than Bearer are for others, such as a proxy with passwords of its own.

    Raises:
        ValueError: it shows two different ones (RFC 6750 §2), or one that cannot be read.
    """
    found = []
    for value in request.values("authorization"):
        scheme = _BEARER.match(value)
        if scheme is not None:
            found.append(value[scheme.end() :].strip())
    query = request.query()
    if query.get("access_token"):
        found.append(query["access_token"])
    for offered in request.elements("sec-websocket-protocol"):
        if offered.startswith(TOKEN_PROTOCOL):
            found.append(rules.decode_offered(offered.removeprefix(TOKEN_PROTOCOL)))
    if len(set(found)) > 1:
        raise ValueError("there is more than one token")
    return found[0] if found else None


def judge(grant: Grant, action: Action, room: str | None, now: float) -> Refusal | None:
    """Return why a grant is not enough, None if it is.

    Args:
        grant: what is allowed.
        action, room: as in ``AccessRequest``.
        now: Unix seconds.
    """
    if grant.expires is not None and now >= grant.expires:
        return unknown("the token has expired", invalid=True)
    if action == "subscribe" and not (room is not None and grant.may_subscribe(room)):
        return forbidden("you may not read this room")
    if action == "publish" and not (room is not None and grant.may_publish(room)):
        return forbidden("you may not write to this room")
    return None


def unknown(text: str = "a token is needed here", *, invalid: bool = False) -> Refusal:
    """Return the refusal of somebody who is not known.

    Args:
        text: one sentence for them.
        invalid: they have shown a token, and it is no good.
    """
    challenge = 'Bearer error="invalid_token"' if invalid else "Bearer"
    return Refusal(401, text, (("WWW-Authenticate", challenge),), "token")


def forbidden(text: str) -> Refusal:
    """Return the refusal of somebody who is known and may not do this."""
    challenge = 'Bearer error="insufficient_scope"'
    return Refusal(403, text, (("WWW-Authenticate", challenge),), "token")


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can reach an address that a hub listens on."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _matches(patterns: tuple[str, ...] | None, room: str) -> bool:
    if patterns is None:
        return True
    return any(
        room.startswith(pattern[:-1]) if pattern.endswith("*") else room == pattern
        for pattern in patterns
    )
