"""Who may do what, without a socket: patterns, grants, what a request asks for and shows."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from broadcast_server.hub.http.access import (
    TOKEN_PROTOCOL,
    AccessRequest,
    Grant,
    asked,
    find_token,
    forbidden,
    is_loopback,
    judge,
    unknown,
)
from broadcast_server.hub.http.models import (
    Asset,
    Decision,
    Health,
    Join,
    Metrics,
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


def request(target: str = "/r", *headers: tuple[str, str]) -> Request:
    return Request("GET", target, "1.1", headers)


def as_protocol(token: str) -> str:
    return TOKEN_PROTOCOL + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


# -- Grants ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "room", "expected"),
    [
        (None, "/any", True),
        ([], "/any", False),
        (["/a"], "/a", True),
        (["/a"], "/a/", False),
        (["/a"], "/ab", False),
        (["/a"], "/A", False),
        (["/a", "/b"], "/b", True),
        (["/team/*"], "/team/red", True),
        (["/team/*"], "/team/", True),
        (["/team/*"], "/team", False),
        (["/team/*"], "/teams", False),
        (["/team*"], "/teams", True),
        (["*"], "/", True),
        (["/*"], "/", True),
        (["/a/*/c"], "/a/b/c", False),
        (["/a/*/c"], "/a/*/c", True),
        (["/a%20b"], "/a b", False),
        (["/a b"], "/a b", True),
        ([""], "/", False),
        (["a"], "/a", False),
        (["/.*"], "/ab", False),
        (["/?"], "/a", False),
        (["/[ab]"], "/a", False),
    ],
)
def test_pattern_is_a_path_or_its_beginning(
    patterns: list[str] | None, room: str, expected: bool
) -> None:
    """Only a star at the end stands for anything; what looks like more gives less."""
    given: Any = patterns
    assert Grant(subscribe=given).may_subscribe(room) is expected
    assert Grant(publish=given).may_publish(room) is expected


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"subscribe": "/a"}, TypeError),
        ({"publish": [b"/a"]}, TypeError),
        ({"publish": 5}, TypeError),
        ({"subscribe": {"/a": True}}, TypeError),
        ({"expires": "soon"}, TypeError),
        ({"expires": float("nan")}, TypeError),
        ({"name": 5}, TypeError),
        ({"name": ""}, ValueError),
        ({"name": "a\nb"}, ValueError),
        ({"name": "x" * 65}, ValueError),
    ],
)
def test_grant_of_what_nobody_can_have_is_an_error(
    fields: dict[str, Any], error: type[Exception]
) -> None:
    """One string for a list of patterns would open other rooms than it says."""
    with pytest.raises(error):
        Grant(**fields)


@pytest.mark.parametrize("kind", [list, set])
def test_grant_does_not_change_with_the_patterns_that_it_was_made_of(kind: type[Any]) -> None:
    """A grant has its own copy of the patterns, and is hashable."""
    patterns = kind(["/a"])
    grant = Grant(subscribe=patterns, publish=patterns)
    patterns.clear()
    assert grant.may_subscribe("/a") and grant.may_publish("/a")
    assert hash(grant) == hash(Grant(subscribe=("/a",), publish=("/a",)))


# -- What is asked -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (Join("/r", None, False, 0, None, "x"), ("subscribe", "/r")),
        (Stream("/r", None, 0, None, None, False), ("subscribe", "/r")),
        (Recall("/r", 1, None, None), ("subscribe", "/r")),
        (Publish("/r", None, None, True), ("publish", "/r")),
        (RoomList("/r"), ("subscribe", "/r")),
        (RoomList(None), ("look", None)),
        (Metrics(), ("look", None)),
        (Page("/r", False), None),
        (Asset("app.css"), None),
        (Health(), None),
        (Preflight(()), None),
        (Refusal(404, "x"), None),
        (Response(200), None),
    ],
)
def test_each_decision_needs_its_right(decision: Decision, expected: Any) -> None:
    """The page, its files, health and what is refused anyway need none."""
    assert asked(decision) == expected


def test_decision_that_is_not_known_needs_a_right() -> None:
    """What is added later and forgotten here is closed, not open."""
    new: Any = object()
    assert asked(new) == ("look", None)


# -- What is shown -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/r", [], None),
        ("/r", [("authorization", "Bearer abc")], "abc"),
        ("/r", [("authorization", "bearer   abc ")], "abc"),
        ("/r", [("authorization", "Bearer")], ""),
        ("/r", [("authorization", "Bearerabc")], None),
        ("/r", [("authorization", "Basic YTpi")], None),
        ("/r?access_token=a%2Bb", [], "a+b"),
        ("/r?access_token=", [], None),
        ("/r?access_token=abc", [("authorization", "Basic YTpi")], "abc"),
        ("/r?access_token=abc", [("authorization", "Bearer abc")], "abc"),
        ("http://h/r?access_token=abc", [], "abc"),
        ("/r", [("sec-websocket-protocol", f"broadcast.v1.json, {as_protocol('a~b?')}")], "a~b?"),
        ("/r", [("sec-websocket-protocol", "broadcast.v1.json")], None),
    ],
)
def test_token_is_found_where_it_may_be(
    target: str, headers: list[tuple[str, str]], expected: str | None
) -> None:
    """In the header, in the query, among the subprotocols; the same one twice is one."""
    assert find_token(request(target, *headers)) == expected


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/r?access_token=abc", [("authorization", "Bearer xyz")]),
        ("/r", [("authorization", "Bearer abc"), ("authorization", "Bearer xyz")]),
        ("/r", [("sec-websocket-protocol", f"{as_protocol('a')}, {as_protocol('b')}")]),
        ("/r", [("sec-websocket-protocol", f"{TOKEN_PROTOCOL}a+b")]),
        ("/r", [("sec-websocket-protocol", f"{TOKEN_PROTOCOL}a")]),
        ("/r", [("sec-websocket-protocol", f"{TOKEN_PROTOCOL}_w")]),
        ("/r?access_token=%", []),
    ],
)
def test_token_that_cannot_be_told_is_an_error(target: str, headers: list[Any]) -> None:
    """RFC 6750 §2: one way for each request; and the error has no token in it."""
    with pytest.raises(ValueError) as caught:
        find_token(request(target, *headers))
    assert not {"abc", "xyz", "a+b"} & set(str(caught.value).split())


def test_text_form_of_a_request_has_no_secret() -> None:
    """A program may log what it is asked."""
    shown = AccessRequest("subscribe", "/r", "s3cret", "[::1]:1", (("cookie", "s3cret"),))
    assert "s3cret" not in repr(shown) and "/r" in repr(shown)


# -- The judgement -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "action", "room", "status"),
    [
        (Grant(), "subscribe", "/r", None),
        (Grant(), "publish", "/r", None),
        (Grant(), "look", None, None),
        (Grant(subscribe=(), publish=()), "look", None, None),
        (Grant(subscribe=("/r",), publish=()), "subscribe", "/r", None),
        (Grant(subscribe=("/r",), publish=()), "publish", "/r", 403),
        (Grant(subscribe=(), publish=("/r",)), "subscribe", "/r", 403),
        (Grant(subscribe=(), publish=("/r",)), "publish", "/r", None),
        (Grant(), "subscribe", None, 403),
        (Grant(expires=1000.5), "subscribe", "/r", None),
        (Grant(expires=1000.0), "subscribe", "/r", 401),
        (Grant(expires=999.0), "look", None, 401),
    ],
)
def test_grant_is_held_against_what_is_asked(
    grant: Grant, action: Any, room: str | None, status: int | None
) -> None:
    """To read and to write are apart; at the very second of its end a grant is none."""
    refusal = judge(grant, action, room, 1000.0)
    assert (refusal.status if refusal else None) == status


def test_refusals_say_how_to_come_in() -> None:
    """RFC 6750 §3: no error for whoever has shown nothing."""
    assert unknown().headers == (("WWW-Authenticate", "Bearer"),)
    assert dict(unknown(invalid=True).headers)["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    challenge = dict(forbidden("no").headers)["WWW-Authenticate"]
    assert challenge == 'Bearer error="insufficient_scope"'
    assert (unknown().status, forbidden("no").status) == (401, 403)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_loopback_is_told_from_what_others_reach(address: str, expected: bool) -> None:
    """Addresses as a listening socket has them."""
    assert is_loopback(address) is expected
