"""A Close that the hub sends first, as a browser reports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ..support import needs_module, running_hub, wait_until
from ..support.beside import during

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub

needs_module("playwright.sync_api")
pytestmark = pytest.mark.slow

OPEN = """url => new Promise((opened, failed) => {
  const socket = new WebSocket(url);
  socket.onopen = () => opened();
  socket.onerror = failed;
  window.socket = socket;
  window.ending = new Promise(done => {
    socket.onclose = event => done([event.code, event.wasClean]);
  });
})"""


def stop(hub: BroadcastHub) -> None:
    hub.stop()


def restart(hub: BroadcastHub) -> None:
    hub.drain(restart=True)


@pytest.mark.parametrize("begin", ["disconnect", "too big", "stop", "restart"])
def test_close_that_the_hub_begins_is_clean(begin: str, browser: Any) -> None:
    """``wasClean`` is true: the stream does not end before the browser has answered."""
    with running_hub(max_message_bytes=1000) as hub:
        page = browser.new_page()
        try:
            page.goto(f"http://127.0.0.1:{hub.port}/?view=board")
            page.evaluate(OPEN, f"ws://127.0.0.1:{hub.port}/r")
            assert wait_until(lambda: len(hub.members("/r")) == 1)
            if begin == "disconnect":
                assert hub.disconnect(hub.members("/r")[0].id, 4001, "out")
                assert page.evaluate("window.ending") == [4001, True]
            elif begin == "too big":
                page.evaluate("window.socket.send('x'.repeat(3000))")
                assert page.evaluate("window.ending") == [1009, True]
            else:
                code = 1001 if begin == "stop" else 1012
                with during(stop if begin == "stop" else restart, hub):
                    assert page.evaluate("window.ending") == [code, True]
        finally:
            page.close()
