"""A hostile web page in a real browser: it can neither read a room nor write to it.

The browser runs on the machine of a person whom the hub trusts, and shows a page that the hub does
not: one of another origin (cross-site WebSocket hijacking, forged requests), or one whose name
means the hub's address by now (DNS rebinding). Each test is done once more with the page's origin
or name allowed: there everything succeeds that else must fail, so it is the hub that refuses it.
"""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server import BroadcastHub

from ..support import RawClient, needs_module, running_hub
from ..support.inside import core_of

needs_module("playwright.sync_api")
pytestmark = pytest.mark.slow

# Everything by which a page can reach a server; each way tells what it got.
ATTACK = """
async (hub) => {
  const http = "http://" + hub, ws = "ws://" + hub;
  const settle = (start) => new Promise((resolve) => {
    setTimeout(() => resolve("nothing"), 5000);
    start(resolve);
  });
  const read = (options) => fetch(http + "/room?history=9", options)
    .then(async (answer) => answer.type === "opaque" ? "opaque" :
      `${answer.status} ${(await answer.text()).includes("secret")}`, () => "failed");
  const write = (how, options) => fetch(http + "/room", {method: "POST", body: how, ...options})
    .then((answer) => answer.type === "opaque" ? "opaque" : String(answer.status), () => "failed");
  const found = {};
  for (const protocol of ["", "broadcast.v1.json"]) {
    found["websocket " + protocol] = await settle((resolve) => {
      const socket = new WebSocket(ws + "/room?history=9", protocol ? [protocol] : []);
      socket.onopen = () => protocol || socket.send("websocket");
      socket.onmessage = (event) => event.data.includes("secret") && resolve("read");
      socket.onerror = () => resolve("failed");
    });
  }
  found.events = await settle((resolve) => {
    const events = new EventSource(http + "/room?history=9");
    events.onmessage = (event) => resolve("read");
    events.onerror = () => { events.close(); resolve("failed"); };
  });
  found.get = await read({headers: {Accept: "application/json"}});
  found["get no-cors"] = await read({mode: "no-cors", headers: {Accept: "application/json"}});
  found.post = await write("post", {headers: {"Content-Type": "text/plain"}});
  found["post no-cors"] = await write("post no-cors", {mode: "no-cors"});
  found.put = await write("put", {method: "PUT", headers: {"Content-Type": "application/json"}});
  found.image = await settle((resolve) => {
    const image = new Image();
    image.onload = () => resolve("read");
    image.onerror = () => resolve("failed");
    image.src = http + "/-/static/icon.svg";
  });
  found.script = await settle((resolve) => {
    const script = document.createElement("script");
    script.onload = () => resolve("read");
    script.onerror = () => resolve("failed");
    script.src = http + "/-/static/text.js";
    document.head.append(script);
  });
  navigator.sendBeacon(http + "/room", "beacon");
  await settle((resolve) => {
    const frame = document.createElement("iframe");
    frame.name = "target";
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, {method: "POST", enctype: "text/plain", target: "target"});
    form.action = http + "/room";
    form.innerHTML = "<input name=form>";
    document.body.append(form);
    frame.onload = () => resolve("loaded");
    form.submit();
  });
  found.frame = await settle((resolve) => {
    const frame = document.createElement("iframe");
    frame.onload = () => {
      try { resolve(frame.contentDocument?.title ?? "closed"); } catch { resolve("closed"); }
    };
    frame.src = http + "/room";
    document.body.append(frame);
  });
  // Firefox does not always tell of a frame that it does not show.
  if (found.frame === "nothing") found.frame = "closed";
  return found;
}
"""

# What each way gives that leads nowhere. An opaque answer is one that the page cannot look into.
NOTHING = {
    "websocket ": "failed",
    "websocket broadcast.v1.json": "failed",
    "events": "failed",
    "get": "failed",
    "get no-cors": "failed",
    "post": "failed",
    "post no-cors": "failed",
    "put": "failed",
    "image": "failed",
    "script": "failed",
    "frame": "closed",
}


class Page(http.server.BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        """Send it, whatever is asked for."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>evil</title><body>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def attackers_server() -> Iterator[int]:
    """Serve the attacker's page; yield the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@contextlib.contextmanager
def shown(browser: Any, url: str) -> Iterator[Any]:
    """Show a page."""
    context = browser.new_context()
    try:
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(url)
        yield page
    finally:
        context.close()


@contextlib.contextmanager
def rebound(browser: Any, **settings: Any) -> Iterator[tuple[Any, BroadcastHub]]:
    """Show a page of the attacker's server, then let its name and port mean a hub."""
    with contextlib.ExitStack() as stack:
        for tries_left in (4, 3, 2, 1, 0):
            with attackers_server() as port, contextlib.ExitStack() as opened:
                url = f"http://evil.example:{port}/"
                page = opened.enter_context(shown(browser, url))
                kept = opened.pop_all()
            stack.push(kept)
            try:
                hub = stack.enter_context(running_hub(port=port, **settings))
                break
            except OSError:  # somebody else has taken the port in between
                if not tries_left:
                    raise
        yield page, hub


@contextlib.contextmanager
def victim(hub: BroadcastHub) -> Iterator[RawClient]:
    """Fill a room with something secret; yield a member that hears what is published."""
    hub.broadcast("secret", "/room")
    with RawClient.connect(port=hub.port, path="/room") as client:
        client.sync()
        yield client


def assert_untouched(hub: BroadcastHub, client: RawClient) -> None:
    """Check that nothing was published, and nobody is or was in the room but its member."""
    client.sync()  # with a message in front of the pong it fails
    assert hub.stats()["messages"] == 1
    assert len(hub.members("/room")) == 1
    client.leave()
    with RawClient.connect(port=hub.port, path="/room"):
        (member,) = hub.members("/room")
    assert member.id == "c2"  # nobody else has ever had a number


@pytest.mark.parametrize("site", ["localhost", "127.0.0.1", "evil.example"])
def test_page_of_another_origin_reaches_nothing(browser: Any, site: str) -> None:
    """Another port of the same machine included: its pages are somebody else's."""
    with (
        running_hub() as hub,
        attackers_server() as port,
        victim(hub) as client,
        shown(browser, f"http://{site}:{port}/") as page,
    ):
        assert page.evaluate(ATTACK, f"127.0.0.1:{hub.port}") == NOTHING
        assert_untouched(hub, client)
        assert core_of(hub).counts().refused["origin"] >= 9


def test_page_of_an_allowed_origin_reaches_everything_it_may(browser: Any) -> None:
    """The same attack is none where the origin is allowed."""
    with (
        attackers_server() as port,
        running_hub(allow_origin=[f"http://localhost:{port}"]) as hub,
        victim(hub),
        shown(browser, f"http://localhost:{port}/") as page,
    ):
        found = page.evaluate(ATTACK, f"127.0.0.1:{hub.port}")
        assert {way for way, result in found.items() if result == NOTHING[way]} == {
            # Requests without an Origin, of which nobody knows whether it is the allowed one; files
            # of the page, which are for the page; and the page is for no frame.
            "get no-cors",
            "image",
            "script",
            "frame",
        }
        texts = {message.data for message in hub.history("/room")}
        assert texts >= {"secret", "websocket", "post", "post no-cors", "put", "beacon"}
        assert any("form=" in str(text) for text in texts)


def test_name_that_means_the_hub_by_now_reaches_nothing(browser: Any) -> None:
    """DNS rebinding: to the browser the hub is the page's own server; its name gives it away."""
    with rebound(browser) as (page, hub), victim(hub) as client:
        found = page.evaluate(ATTACK, f"evil.example:{hub.port}")
        # The page may read these answers: each is a 421.
        refused = dict.fromkeys(("post", "post no-cors", "put"), "421")
        refused |= dict.fromkeys(("get", "get no-cors"), "421 false")
        assert found == {way: refused.get(way, result) for way, result in NOTHING.items()}
        assert_untouched(hub, client)
        assert core_of(hub).counts().refused["host"] >= 9


def test_name_that_is_allowed_reaches_everything(browser: Any) -> None:
    """The same page, where ``--allow-host`` names its name, is the hub's own."""
    with rebound(browser, allow_host=["evil.example"]) as (page, hub), victim(hub):
        found = page.evaluate(ATTACK, f"evil.example:{hub.port}")
        # Not even the hub's own pages may frame it.
        assert {way for way, result in found.items() if result == NOTHING[way]} == {"frame"}
        texts = {message.data for message in hub.history("/room")}
        assert texts >= {"secret", "websocket", "post", "post no-cors", "put", "beacon"}
