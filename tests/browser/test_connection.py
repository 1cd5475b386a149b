"""The page's connection in real browsers: lines that die without a word, proxies in front, who
refused it, sessions."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import socket
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server import AccessRequest, BroadcastHub, Grant

from ..support import RawClient, lasting_port, needs_module, running_hub, wait_until
from ..support.beside import during
from ..support.chat_page import Opener, Window, connected, is_sent, say, shows
from ..support.dead_lines import dead_lines
from ..support.inside import core_of, replace_clock_of_sessions
from ..support.proxies import changed, nginx, nginx_below, proxy

expect = needs_module("playwright.sync_api").expect
pytestmark = pytest.mark.slow

# The page's clock can be put forward.
CLOCK = """{
  const now = performance.now.bind(performance);
  window.ahead = 0;
  performance.now = () => now() + window.ahead;
}"""


def put_forward(page: Window, seconds: float) -> None:
    """Let that much time pass for the page."""
    page.evaluate("milliseconds => { window.ahead += milliseconds; }", seconds * 1000)


@pytest.mark.parametrize("view", ["", "?view=board"])
def test_dead_line_is_found_and_nothing_is_missed(
    hub: BroadcastHub, window: Opener, view: str
) -> None:
    """Nothing comes and nothing is said, yet the page notices, reconnects and catches up."""
    with dead_lines(hub.port) as relay:
        hub.broadcast("3:1", "/line")
        site = f"http://127.0.0.1:{relay.port}"
        page = window(hub, "/line" + view, before=CLOCK, site=site)
        told = page.locator("#newest" if view else "#log .body").last
        expect(told).to_have_text("3:1")
        relay.cut()
        hub.broadcast("4:1", "/line")
        put_forward(page, 52)
        assert wait_until(lambda: relay.swallowed > 0)  # it has asked
        put_forward(page, 22)
        expect(told).to_have_text("4:1")
        connected(page)
        if not view:
            shows(page, ["3:1", "4:1"])
            assert page.locator("#log .note").count() == 0
        page.context.close()


def test_quiet_line_that_answers_is_kept(hub: BroadcastHub, window: Opener) -> None:
    """The page asks again and again, and stays on its connection."""
    script = """{
      window.asked = [];
      const send = WebSocket.prototype.send;
      WebSocket.prototype.send = function (data) {
        window.asked.push(JSON.parse(data).type);
        send.call(this, data);
      };
      window.answers = 0;
      const parse = JSON.parse;
      JSON.parse = (text) => {
        const found = parse(text);
        if (found?.type === "members") window.answers += 1;
        return found;
      };
    }"""
    page = window(hub, "/line", before=CLOCK + script)
    (member,) = hub.members("/line")
    for times in (1, 2, 3):
        put_forward(page, 52)
        assert wait_until(lambda so_far=times: page.evaluate("window.answers") == so_far, 10)
    assert page.evaluate("window.asked") == ["who"] * 3
    assert hub.members("/line") == [member]
    connected(page)
    say(page, "still here")
    is_sent(page)
    shows(page, ["still here"])


# A hub behind a proxy.


@pytest.fixture
def below(tmp_path: pathlib.Path) -> Iterator[tuple[BroadcastHub, str]]:
    """A hub below ``/hub/`` of an nginx, and the address of the nginx."""
    port = lasting_port()  # a proxy cannot tell which one it has taken
    with running_hub(trust_proxy=("127.0.0.1",)) as hub:
        with proxy(nginx_below(tmp_path, port, hub.port, None), tmp_path, port):
            yield hub, f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("room", ["/", "/a/b/c", "/%E2%98%95"])
def test_page_works_below_a_prefix(
    below: tuple[BroadcastHub, str], window: Opener, room: str
) -> None:
    """It finds its files and the hub, and shows the name that the room has there."""
    hub, site = below
    page = window(hub, "/hub" + room, site=site, name="ann")
    say(page, "hello")
    is_sent(page)
    shows(page, ["hello"])
    path = urllib.parse.unquote(room)
    assert [member.name for member in hub.members(path)] == ["ann"]
    assert page.locator("h1").inner_text() == page.title() == path
    assert page.evaluate("getComputedStyle(document.body).display") == "grid"
    page.reload()
    connected(page)
    shows(page, ["hello"])
    page.context.close()


def test_board_works_below_a_prefix(below: tuple[BroadcastHub, str], window: Opener) -> None:
    """Also at the bare prefix, which nginx leads to the one with a slash."""
    hub, site = below
    hub.broadcast("3:1", "/")
    board = window(hub, "/hub?view=board", site=site)
    expect(board.locator("#newest")).to_have_text("3:1")
    board.context.close()


def test_tokens_of_two_hubs_of_one_site_are_kept_apart(
    tmp_path: pathlib.Path, window: Opener
) -> None:
    """The token for the hub below a prefix is not shown to the one beside it."""
    port = lasting_port()
    asked: list[str | None] = []

    def authorize(request: AccessRequest) -> Grant | None:
        asked.append(request.token)
        return Grant() if request.token == "right" else None

    with running_hub(trust_proxy=("127.0.0.1",), authorize=authorize) as hub:
        with proxy(nginx_below(tmp_path, port, hub.port, None), tmp_path, port):
            site = f"http://127.0.0.1:{port}"
            page = window(hub, "/hub/den?access_token=right", site=site)
            assert page.evaluate("Object.keys(sessionStorage)") == ["broadcast-server:token:/hub/"]
            page.context.close()
    assert set(asked) == {"right"}


# Who has refused a connection, and why.

REFUSED = (
    "The hub answers, but no WebSocket gets through. The hub may be full, or a proxy may be in the"
    " way; the log of the hub says more."
)
LOGIN = "You are not logged in any more. Reload the page to log in."


@contextlib.contextmanager
def behind_nginx(
    place: pathlib.Path, *changes: tuple[str, str], **settings: Any
) -> Iterator[tuple[BroadcastHub, str]]:
    """A hub behind an nginx that is not quite what the page of the documentation says."""
    port = lasting_port()
    with running_hub(trust_proxy=("127.0.0.1",), **settings) as hub:
        command = changed(nginx(place, port, hub.port, None), *changes)
        with proxy(command, place, port):
            yield hub, f"http://127.0.0.1:{port}"


def says(page: Window, state: str, text: str) -> None:
    """Wait until the page has this state and gives this reason."""
    expect(page.locator("#banner-text")).to_have_text(text, timeout=15_000)
    expect(page.locator("#state-text")).to_have_text(state)


def test_wrong_host_is_not_taken_for_a_hub_that_is_away(
    tmp_path: pathlib.Path, window: Opener
) -> None:
    """Behind a proxy that passes on another Host the hub refuses the page's origin."""
    wrong = ("Host $http_host;", "Host hub.test;")
    with behind_nginx(tmp_path, wrong) as (hub, site):
        page = window(hub, "/den", site=site, joins=False)
        says(page, "Reconnecting", REFUSED)
        board = window(hub, "/den?view=board", site=site, joins=False)
        expect(board.locator("#newest")).to_have_text(REFUSED, timeout=15_000)
        for opened in (page, board):
            opened.context.close()


@pytest.mark.chromium
def test_proxy_that_passes_no_upgrade_is_told(tmp_path: pathlib.Path, window: Opener) -> None:
    """The hub then sees an ordinary request, and answers it."""
    with behind_nginx(tmp_path, ("Upgrade $http_upgrade;", "X-Upgrade no;")) as (hub, site):
        page = window(hub, "/den", site=site, joins=False)
        says(page, "Reconnecting", REFUSED)
        page.context.close()


@pytest.mark.chromium
def test_proxy_that_swallows_upgrades_is_told(tmp_path: pathlib.Path, window: Opener) -> None:
    """No answer to an upgrade in time, but one to the question over HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = f"http://127.0.0.1:{silent.getsockname()[1]}"
        there = "proxy_pass http://hub;"
        swallow = (there, f"if ($http_upgrade) {{ proxy_pass {to}; }} {there}")
        with behind_nginx(tmp_path, swallow) as (hub, site):
            page = window(hub, "/den", site=site, joins=False, before=CLOCK)

            def is_told() -> bool:
                put_forward(page, 16)
                return bool(page.locator("#banner-text").inner_text() == REFUSED)

            assert wait_until(is_told, 20)
            page.context.close()


@pytest.mark.chromium
def test_hub_that_is_away_behind_a_proxy_is_told(tmp_path: pathlib.Path, window: Opener) -> None:
    """The proxy's 502 is not the hub's; the page comes back when the hub does."""
    port = lasting_port()
    with contextlib.ExitStack() as stack:
        with running_hub(port=port, trust_proxy=("127.0.0.1",)) as hub:
            outer = lasting_port()
            command = nginx(tmp_path, outer, port, None)
            stack.enter_context(proxy(command, tmp_path, outer))
            page = window(hub, "/den", site=f"http://127.0.0.1:{outer}")
        away = "A server in front of the hub answers, but not the hub (status 502)."
        says(page, "Reconnecting", away)
        with running_hub(port=port, trust_proxy=("127.0.0.1",)):
            connected(page)
            assert page.locator("#banner").is_hidden()
            page.context.close()


@pytest.mark.chromium
def test_full_hub_says_so(window: Opener) -> None:
    """Whoever waits for a place gets in when there is one."""
    with running_hub(max_clients=1) as hub:
        with RawClient.connect(port=hub.port, path="/den"):
            page = window(hub, "/den", joins=False)
            says(page, "Reconnecting", REFUSED)
        connected(page)
        page.context.close()


@pytest.mark.chromium
def test_hub_that_is_leaving_says_so(window: Opener) -> None:
    """It answers 503 while it waits for a client that does not answer its goodbye."""
    with running_hub(close_timeout=60) as hub:
        with RawClient.connect(port=hub.port, path="/other"):
            page = window(hub, "/den")
            with during(hub.drain):
                says(page, "Reconnecting", "The hub lets nobody in at the moment (status 503).")
                page.context.close()
                hub.stop(timeout=0)


@pytest.mark.chromium
def test_answers_of_hub_and_others_are_told_apart(hub: BroadcastHub, window: Opener) -> None:
    """What ends the attempts and what does not, for answers that no test above gets."""
    page = window(hub, "/den")
    closed, locked, again = "closed", "locked", None
    rows: list[tuple[str, int, bool, bool, str | None, str]] = [
        ("hub", 401, True, False, locked, "wants a token"),
        ("hub", 401, True, True, locked, "does not take this token"),
        ("hub", 403, True, False, locked, "does not let you read"),
        ("hub", 403, True, True, locked, "does not allow to read"),
        ("hub", 403, False, False, closed, "The hub refuses this page (status 403)"),
        ("hub", 421, False, True, closed, "The hub refuses this page (status 421)"),
        ("hub", 429, False, True, again, "lets nobody in at the moment (status 429)"),
        ("other", 401, True, True, closed, "not logged in"),
        ("other", 407, False, False, closed, "not logged in"),
        ("other", 200, False, False, closed, "not logged in"),
        ("redirect", 0, False, False, closed, "not logged in"),
        ("other", 403, False, False, closed, "in front of the hub does not let you in"),
        ("other", 404, False, False, again, "answers, but not the hub (status 404)"),
        ("other", 504, False, False, again, "answers, but not the hub (status 504)"),
    ]
    found = page.evaluate(
        """async (rows) => {
          const { explain } = await import("/-/static/refusal.js");
          return rows.map(([kind, status, wantsToken, hasToken]) =>
            explain({ kind, status, wantsToken }, hasToken, false));
        }""",
        rows,
    )
    for (*row, ends, words), answer in zip(rows, found, strict=True):
        assert answer.get("ends") == ends, row
        assert words in answer["why"], row
    nothing = "async () => (await import('/-/static/refusal.js')).explain(null, false, true)"
    assert page.evaluate(nothing) == {}


@pytest.mark.parametrize("refusal", ["401", "302 /login", "302 https://login.example/"])
def test_login_in_front_is_not_the_hubs_token(
    tmp_path: pathlib.Path, window: Opener, refusal: str
) -> None:
    """When a login has expired the page asks for no token and does not try for ever."""
    there = "proxy_pass http://hub;"
    wall = f'if ($cookie_login != "yes") {{ return {refusal}; }}'
    with behind_nginx(tmp_path, (there, f"{wall} {there}"), token="right") as (hub, site):
        cookie = {"name": "login", "value": "yes", "domain": "127.0.0.1", "path": "/"}
        before = {"cookies": [cookie], "origins": []}
        page = window(hub, "/den?access_token=right", site=site, storage_state=before)
        page.context.clear_cookies()
        (member,) = hub.members("/den")
        assert hub.disconnect(member.id, 1012, "restart")
        says(page, "Closed", LOGIN)
        assert page.get_by_role("dialog").count() == 0
        page.context.add_cookies([cookie])
        page.locator("#retry").click()
        connected(page)  # with the token that it still has
        page.context.close()


# Sessions.

# Notes the sessions that the hub gives, and which one each connection shows.
NOTES = """{
  window.given = [];
  window.shown = [];
  window.WebSocket = class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols);
      const mark = "broadcast.session.";
      const [entry] = protocols.filter((one) => one.startsWith(mark));
      const text = entry?.slice(mark.length).replaceAll("-", "+").replaceAll("_", "/");
      window.shown.push(entry ? atob(text) : null);
      this.addEventListener("message", ({ data }) => {
        const { type, session } = JSON.parse(data);
        if (session) window.given.push([type, session]);
      });
    }
  };
}"""


def test_page_comes_back_with_the_session_that_was_renewed(
    hub: BroadcastHub, window: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that stays open for days is still the same client after a cut and after a reload."""
    monkeypatch.setattr("broadcast_server.hub.reader.RENEW_SECONDS", 0.0)
    # Each says when it ends, in whole seconds.
    seconds = itertools.count(time.time())
    replace_clock_of_sessions(monkeypatch, core_of(hub), lambda: next(seconds))
    page = window(hub, "/days", before=NOTES, name="ann")
    (member,) = hub.members("/days")

    def renewed(text: str) -> str:
        say(page, text)
        is_sent(page)
        assert wait_until(lambda: page.evaluate("window.given.at(-1)[0]") == "session")
        return str(page.evaluate("window.given.at(-1)[1]"))

    newest = renewed("one")
    assert newest != page.evaluate("window.given[0][1]")
    assert hub.disconnect(member.id, 1012, "restart")
    assert wait_until(lambda: page.evaluate("window.shown.length") == 2, 10)
    assert page.evaluate("window.shown") == [None, newest]
    connected(page)
    assert [other.id for other in hub.members("/days")] == [member.id]
    newest = renewed("two")
    page.reload()
    connected(page)
    assert page.evaluate("window.shown") == [newest]
    assert [other.id for other in hub.members("/days")] == [member.id]
    shows(page, ["one", "two"])
