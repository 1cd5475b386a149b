"""The page's connection in real browsers: lines that die without a word."""

from __future__ import annotations

import pytest

from broadcast_server import BroadcastHub

from ..support import needs_module, wait_until
from ..support.chat_page import Opener, Window, connected, is_sent, say, shows
from ..support.dead_lines import dead_lines

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
