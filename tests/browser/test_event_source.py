"""A browser's own ``EventSource`` through a drain of some seconds, and a hub that comes back."""

from __future__ import annotations

from typing import Any

import pytest

from broadcast_server.hub.rooms import encodings

from ..support import RawClient, lasting_port, running_hub, wait_until
from ..support.beside import during
from ..support.inside import core_of, is_draining

pytestmark = pytest.mark.slow

# What the page hears, and the state of its EventSource: 2 is the end.
LISTEN = """
() => {
  window.heard = [];
  window.source = new EventSource("/r");
  source.onmessage = (event) => heard.push(event.data);
  return new Promise((resolve) => { source.onopen = () => resolve(true); });
}
"""


def test_event_source_outlives_a_drain(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back while a silent WebSocket keeps the hub draining, is told to come later, and
    goes on with the next hub."""
    monkeypatch.setattr(encodings, "RETRY_MS", (1, 10))
    port = lasting_port()
    settings = {"port": port, "close_timeout": 2.0}
    context = browser.new_context()
    try:
        page = context.new_page()
        with running_hub(**settings) as hub:
            page.goto(f"http://127.0.0.1:{port}/other")
            assert page.evaluate(LISTEN)
            hub.broadcast("before", "/r")
            assert wait_until(lambda: page.evaluate("heard.includes('before')"))
            with RawClient.connect(port=port, path="/r") as silent, during(hub.drain):
                assert wait_until(lambda: is_draining(hub))
                silent.recv_close()
                # The page's own WebSocket may come back as well.
                assert wait_until(lambda: core_of(hub).counts().refused.get("stopping", 0) > 0)
                assert wait_until(lambda: page.evaluate("source.readyState") == 0)
        with running_hub(**settings) as hub:
            assert wait_until(lambda: bool(hub.members("/r")), 30)
            hub.broadcast("after", "/r")
            assert wait_until(lambda: page.evaluate("heard.includes('after')"))
    finally:
        context.close()
