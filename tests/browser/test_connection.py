"""The page's connection in real browsers: lines that die without a word, proxies in front."""

from __future__ import annotations

import pathlib
import urllib.parse
from collections.abc import Iterator

import pytest

from broadcast_server import AccessRequest, BroadcastHub, Grant

from ..support import lasting_port, needs_module, running_hub, wait_until
from ..support.chat_page import Opener, Window, connected, is_sent, say, shows
from ..support.dead_lines import dead_lines
from ..support.proxies import nginx_below, proxy

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
