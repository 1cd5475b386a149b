"""Origins: which web pages may use the hub, and what their browsers are told."""

from __future__ import annotations

import pytest

from broadcast_server.hub.http.cors import decide_options, foreign, may_use, shared_headers
from broadcast_server.hub.http.models import Preflight, Refusal, Request

PAGE = "https://page.example"


def ask(*lines: tuple[str, str], method: str = "GET", host: str = "hub:8765") -> Request:
    return Request(method, "/", "1.1", (("host", host), *lines))


@pytest.mark.parametrize(
    ("site", "mode", "method", "expected"),
    [
        (None, None, "POST", True),
        ("none", None, "GET", True),
        ("same-origin", "cors", "POST", True),
        ("same-site", "cors", "GET", False),
        ("cross-site", "no-cors", "GET", False),
        ("cross-site", "navigate", "GET", True),
        ("cross-site", "navigate", "HEAD", True),
        ("cross-site", "navigate", "POST", False),
        ("Cross-Site", None, "GET", False),
        ("same-origin, cross-site", None, "GET", False),
        ("something new", None, "GET", False),
    ],
)
def test_request_without_origin_is_judged_by_its_site(
    site: str | None, mode: str | None, method: str, expected: bool
) -> None:
    """A program sends nothing, a person follows links, a foreign page reads nothing."""
    lines = [("sec-fetch-site", site), ("sec-fetch-mode", mode)]
    request = ask(*[(name, value) for name, value in lines if value is not None], method=method)
    assert may_use(request, ()) is expected
    assert may_use(request, ("*",))


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "expected"),
    [
        ("http://hub:8765", "hub:8765", (), True),
        ("https://HUB", "hub:443", (), True),
        ("http://[::1]:8765", "[::1]:8765", (), True),
        ("http://hub:8766", "hub:8765", (), False),
        (PAGE, "hub:8765", (), False),
        (PAGE, "hub:8765", ("https://PAGE.example/",), True),
        # A slash at the end, as Go's x/net/websocket sends it.
        (f"{PAGE}/", "hub:8765", (PAGE,), True),
        (f"{PAGE}/", "hub:8765", (f"{PAGE}/",), True),
        (f"{PAGE}//", "hub:8765", (PAGE,), False),
        (f"{PAGE}/a", "hub:8765", (PAGE,), False),
        (f"{PAGE}/", "hub:8765", (), False),
        ("http://hub:8765/", "hub:8765", (), True),
        ("http://hub/", "hub", (), True),
        # Scheme, host and port, the default one or not.
        ("HTTPS://Page.Example:443", "hub:8765", (PAGE,), True),
        (f"{PAGE}.", "hub:8765", (PAGE,), True),
        (f"{PAGE}:", "hub:8765", (PAGE,), True),
        (PAGE, "hub:8765", (f"{PAGE}:443",), True),
        (PAGE, "hub:8765", (f"{PAGE}:00443",), True),
        (f"{PAGE}:80", "hub:8765", (PAGE,), False),
        ("http://page.example", "hub:8765", (PAGE,), False),
        ("http://[0:0::1]:8765", "[::1]:8765", (), True),
        ("http://[::1]", "hub:8765", ("http://[0:0:0:0:0:0:0:1]:80/",), True),
        ("https://xn--bcher-kva.example", "hub", ("https://bücher.example",), True),
        ("https://xn--bcher-kva.example:8443", "hub", ("https://BÜCHER.example:8443/",), True),
        (f"{PAGE}@evil.example", "hub:8765", (PAGE,), False),
        (f"{PAGE}:99999", "hub:8765", (PAGE,), False),
        # Others as they are sent.
        ("null", "hub:8765", ("null",), True),
        ("NULL", "hub:8765", ("null",), False),
        ("file://", "hub:8765", ("file://",), True),
        ("file://", "hub:8765", (PAGE,), False),
        ("file://", "hub:8765", ("FILE:///",), True),
        ("app://desk", "hub:8765", ("App://desk/",), True),
        ("app://desk/", "hub:8765", ("app://desk/",), True),
        ("app://desk", "hub:8765", ("app://desk",), True),
        ("app://desk/", "hub:8765", ("app://desk",), False),
        ("chrome-extension://abc", "hub:8765", ("chrome-extension://abc",), True),
        ("chrome-extension://abd", "hub:8765", ("chrome-extension://abc",), False),
        ("ftp://hub", "hub", (), False),
        ("null", "null", (), False),
        ("http://", "", (), False),
        ("http://:80", "", (), False),
        ("http://", ":80", (), False),
        ("http://:8765", ":8765", (), False),
        ("hub:8765", "hub:8765", (), False),
    ],
)
def test_origin_must_be_own_or_allowed(
    origin: str, host: str, allowed: tuple[str, ...], expected: bool
) -> None:
    """Whatever else the browser says: an allowed page of another site is allowed."""
    request = ask(("origin", origin), ("sec-fetch-site", "cross-site"), host=host)
    assert may_use(request, allowed) is expected


def test_two_origins_or_hosts_are_nobody() -> None:
    """What can be read in two ways is not the hub's own."""
    own = ("origin", "http://hub:8765")
    assert may_use(ask(own), ())
    assert not may_use(ask(own, own), ())
    assert not may_use(ask(own, ("host", "hub:8765")), ())


def test_navigation_does_not_excuse_an_origin() -> None:
    """A form of a foreign page is sent as a navigation, too."""
    lines = (("origin", PAGE), ("sec-fetch-mode", "navigate"))
    assert not may_use(ask(*lines, method="POST"), ())
    assert not may_use(ask(*lines), ())


def test_answer_says_on_what_it_depends() -> None:
    """A cache must not give one page's answer to another."""
    assert shared_headers(ask(), ()) == ()
    assert shared_headers(ask(), (), "Accept") == (("Vary", "Accept"),)
    assert shared_headers(ask(("origin", "http://hub:8765")), ()) == ()
    page = ask(("origin", PAGE))
    assert shared_headers(page, ()) == (("Vary", "Origin"),)
    assert shared_headers(page, (PAGE,), "Accept") == (
        ("Access-Control-Allow-Origin", PAGE),
        ("Vary", "Accept, Origin"),
    )
    assert shared_headers(page, ("*",))[0] == ("Access-Control-Allow-Origin", "*")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("origin", PAGE)], [PAGE, "called hub:8765", f"--allow-origin {PAGE}", "proxy"]),
        ([("origin", "x" * 500)], ["x" * 79 + "…"]),
        ([("sec-fetch-site", "cross-site")], ["Sec-Fetch-Site: cross-site", "--allow-origin"]),
        ([("origin", PAGE), ("origin", PAGE)], ["one Origin"]),
    ],
)
def test_refusal_says_what_came_and_what_would_help(
    lines: list[tuple[str, str]], expected: list[str]
) -> None:
    """The one who asked knows it anyway."""
    refusal = foreign(ask(*lines))
    assert all(part in refusal.text for part in expected), refusal.text
    assert len(refusal.text) < 500


def test_options_without_a_question_lists_the_methods() -> None:
    """OPTIONS is a preflight only with both headers."""
    plain = Preflight((("Allow", "GET, POST, OPTIONS"),))
    assert decide_options(ask(), (), ("GET", "POST")) == plain
    assert decide_options(ask(("origin", PAGE)), (), ("GET", "POST")) == plain


def test_preflight_of_a_foreign_page_is_refused() -> None:
    """No header of the refusal lets its browser go on."""
    request = ask(("origin", PAGE), ("access-control-request-method", "POST"))
    decision = decide_options(request, (), ("GET", "POST"))
    assert decision == foreign(request)
    assert isinstance(decision, Refusal)
    assert "Access-Control-Allow-Origin" not in dict(decision.headers)
    allowed = decide_options(request, (PAGE,), ("GET", "HEAD", "POST"))
    assert dict(allowed.headers)["Access-Control-Allow-Methods"] == "GET, POST"
