"""The page's prompt for a token in a real browser: asked for, taken, kept, lost and never shown.

As in test_page.py one browser serves all tests, and nothing may be in a page's console but what
browsers themselves write when a request is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server import AccessRequest, BroadcastHub, Grant, publish

from ..support import code_blocks, needs_module, running_hub, wait_until
from ..support.chat_page import CONTRASTS, Window, connected, hear_troubles, say, shows

sync_api = needs_module("playwright.sync_api")
jwt = needs_module("jwt")
expect = sync_api.expect
pytestmark = pytest.mark.slow

SECRET = "0123456789abcdef0123456789abcdef"


class Opened:
    """Windows that were opened, and every address that any of them has asked for."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self.contexts: list[Any] = []
        self.urls: list[str] = []
        self.troubles: list[str] = []

    def __call__(
        self, hub: BroadcastHub, path: str, *, before: str | None = None, **options: Any
    ) -> Window:
        context = self._browser.new_context(locale="en-GB", **options)
        self.contexts.append(context)
        if before is not None:
            context.add_init_script(before)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("websocket", lambda socket: self.urls.append(socket.url))
        hear_troubles(page, self.troubles)
        page.goto(f"http://127.0.0.1:{hub.port}{path}")
        return page


@pytest.fixture
def window(browser: Any) -> Iterator[Opened]:
    """Open windows, each of a person of its own."""
    opened = Opened(browser)
    yield opened
    for context in opened.contexts:
        context.close()
    assert opened.troubles == []


@pytest.fixture
def guarded() -> Iterator[BroadcastHub]:
    """A hub that wants the token "right"."""
    with running_hub(token="right") as hub:
        yield hub


def asks(page: Window, why: str) -> Any:
    """Wait for the prompt with this text; return its field."""
    prompt = page.get_by_role("dialog", name="Enter a token")
    expect(prompt.get_by_role("alert")).to_have_text(why, timeout=10_000)
    field = prompt.get_by_label("Token", exact=True)
    expect(field).to_be_focused()
    return field


def enter(page: Window, token: str, why: str = "This room wants a token.") -> None:
    """Type a token and press Enter."""
    asks(page, why).fill(token)
    page.keyboard.press("Enter")


def test_room_asks_for_a_token_and_opens_with_it(guarded: BroadcastHub, window: Opened) -> None:
    """The page loads without one; a wrong one is told; with the right one all is as ever."""
    guarded.broadcast("for members", "/den")
    page = window(guarded, "/den")
    enter(page, "wrong")
    assert page.locator("#log .body").count() == 0
    enter(page, "right", "The hub does not take this token: it is wrong, or has expired.")
    connected(page)
    expect(page.get_by_role("dialog")).to_have_count(0)
    shows(page, ["for members"])
    say(page, "hello")
    shows(page, ["for members", "hello"])
    assert wait_until(lambda: len(guarded.history("/den")) == 2)


def test_board_asks_for_a_token_and_opens_with_it(guarded: BroadcastHub, window: Opened) -> None:
    """Also after it was put off: there is a button for it."""
    guarded.broadcast("3:1", "/den")
    page = window(guarded, "/den?view=board")
    asks(page, "This room wants a token.")
    expect(page.locator("#newest")).to_have_text("This room wants a token.")
    page.get_by_role("button", name="Not now").click()
    page.get_by_role("button", name="Enter a token").click()
    enter(page, "right")
    connected(page)
    expect(page.locator("#newest")).to_have_text("3:1")
    assert page.locator("#unlock").is_hidden()
    guarded.broadcast("4:1", "/den")
    expect(page.locator("#newest")).to_have_text("4:1")


def test_keyboard_alone_is_enough_for_the_prompt(guarded: BroadcastHub, window: Opened) -> None:
    """Tab stays inside, Escape closes it, and the way back is a button that can be reached."""
    page = window(guarded, "/den")
    field = asks(page, "This room wants a token.")
    assert field.get_attribute("type") == "password"
    assert field.get_attribute("aria-describedby") == "prompt-why"
    order = []
    for _ in range(2):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.textContent"))
    assert order == ["Enter", "Not now"]
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("#state-text")).to_have_text("Token needed")
    expect(page.locator("#banner-text")).to_have_text("This room wants a token.")
    page.get_by_role("button", name="Enter a token").focus()
    page.keyboard.press("Enter")
    asks(page, "This room wants a token.")
    page.keyboard.type("two words")
    page.keyboard.press("Enter")
    field = asks(page, "A token has only visible ASCII characters, and no space.")
    field.fill("right")
    page.keyboard.press("Enter")
    connected(page)


@pytest.mark.chromium  # it tells the addresses of WebSockets
def test_token_is_kept_for_the_tab_and_in_no_address(guarded: BroadcastHub, window: Opened) -> None:
    """It is there after a reload and in another room of the tab, and not in another window."""
    page = window(guarded, "/den")
    enter(page, "right")
    connected(page)
    page.reload()
    connected(page)
    page.goto(f"http://127.0.0.1:{guarded.port}/other?view=board")
    connected(page)
    assert page.evaluate("localStorage.length") == 0
    asks(window(guarded, "/den"), "This room wants a token.")
    assert len([url for url in window.urls if url.startswith("ws:")]) >= 4
    encoded = "cmlnaHQ"  # base64 of the token
    assert not [url for url in window.urls if "right" in url or encoded in url]
    assert page.context.cookies() == []


def test_works_without_any_storage(guarded: BroadcastHub, window: Opened) -> None:
    """A browser that forbids storage keeps the token as long as the page lives."""
    forbid = """for (const kind of ["localStorage", "sessionStorage"])
      Object.defineProperty(window, kind, {
        get() { throw new DOMException("no", "SecurityError"); } })"""
    page = window(guarded, "/den", before=forbid)
    enter(page, "right")
    connected(page)
    (member,) = guarded.members("/den")
    assert guarded.disconnect(member.id, 1012, "restart")
    guarded.broadcast("after", "/den")
    shows(page, ["after"])


def test_token_of_a_link_is_taken_out_of_the_address(guarded: BroadcastHub, window: Opened) -> None:
    """What was given in a link is used, and neither shown nor passed on any more."""
    page = window(guarded, "/den?view=board&access_token=right")
    connected(page)
    assert page.url == f"http://127.0.0.1:{guarded.port}/den?view=board"
    page.reload()
    connected(page)


def test_readers_may_read_and_can_become_writers(window: Opened) -> None:
    """Where writing alone is protected nobody is asked, but there is no box to write into."""
    with running_hub(publish_token="writer") as hub:
        publish(hub.url + "s", "1:0", token="writer")
        page = window(hub, "/s")
        connected(page)
        shows(page, ["1:0"])
        expect(page.locator("#reader")).to_be_visible()
        assert page.locator("#text").is_hidden() and page.locator("#send").is_hidden()
        page.get_by_role("button", name="Enter a token").click()
        enter(page, "writer", "With a token you may be allowed to write.")
        expect(page.locator("#text")).to_be_visible()
        connected(page)
        say(page, "2:0")
        shows(page, ["1:0", "2:0"])
        assert page.locator("#reader").is_hidden()
        page.context.close()


def test_name_of_the_token_is_the_name(window: Opened) -> None:
    """What the browser remembers does not count, and the field says so."""
    rights = {"subscribe": ["/den"], "publish": ["/den"]}
    claims = {"sub": "ann", "exp": time.time() + 600, "broadcast": rights}
    token = jwt.encode(claims, SECRET, "HS256")
    # Not for the empty page before the first one, where Firefox forbids it.
    remembered = "if (origin !== 'null') localStorage.setItem('broadcast-server:name', 'bob')"
    with running_hub(jwt_key=SECRET) as hub:
        page = window(hub, "/den", before=remembered)
        enter(page, token)
        connected(page)
        expect(page.locator("#name")).to_be_disabled()
        expect(page.locator("#name")).to_have_value("ann")
        expect(page.locator("#member-list li")).to_have_text(["ann (you)"])
        say(page, "me")
        shows(page, ["me"])
        expect(page.get_by_role("alert")).to_be_empty()
        page.goto(f"http://127.0.0.1:{hub.port}/other")
        asks(page, "This token does not allow to read this room.")
        page.context.close()


def test_expired_token_is_asked_for_anew_and_nothing_is_missed(window: Opened) -> None:
    """What was typed meanwhile is sent, what was said meanwhile is shown, each once."""
    valid = {"first": 1.0, "second": None}

    def authorize(request: AccessRequest) -> Grant | None:
        if request.token not in valid:
            return None
        seconds = valid[request.token]
        return Grant(expires=None if seconds is None else time.time() + seconds)

    with running_hub(authorize=authorize) as hub:
        page = window(hub, "/den")
        enter(page, "first")
        asks(page, "The token has expired.")
        assert hub.members("/den") == []
        hub.broadcast("meanwhile", "/den")
        page.keyboard.press("Escape")
        say(page, "typed")
        expect(page.locator("#outbox .fate")).to_have_text("waits for the connection")
        page.locator("#retry").click()
        enter(page, "second", "The token has expired.")
        shows(page, ["meanwhile", "typed"])
        assert page.locator("#log .note").count() == 0
        page.context.close()


@pytest.mark.chromium  # it can be told what its user prefers
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_prompt_can_be_read_and_fits_a_phone(
    guarded: BroadcastHub, window: Opened, scheme: str
) -> None:
    """Contrast of 4.5:1, in a window of 320 pixels."""
    page = window(
        guarded, "/den", color_scheme=scheme, viewport={"width": 320, "height": 500}, has_touch=True
    )
    asks(page, "This room wants a token.")
    found = page.evaluate(CONTRASTS)
    texts = {text for _, text in found}
    assert {"Enter a token", "This room wants a token.", "Enter", "Not now"} <= texts
    assert [item for item in found if item[0] < 4.5] == []
    box = page.locator("#prompt").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 320 and box["y"] >= 0
    for button in page.locator("#prompt button, #prompt input").all():
        assert button.bounding_box()["height"] >= 40


def test_script_of_the_how_to_shows_its_token(window: Opened) -> None:
    """As it stands on the page for other people's pages, also for what base64 writes as + and /."""
    (script,) = code_blocks("docs/howto/tokens.md", "js")
    secret = ">>>???~~~right"
    with running_hub(token=secret) as hub:
        page = window(hub, "/")
        script = script.replace("wss://hub.example", f"ws://127.0.0.1:{hub.port}")
        *lines, last = script.strip().split("\n")
        body = "\n".join([*lines, f"window.socket = {last}"])
        for token, count in (("wrong", 0), (secret, 1)):
            page.evaluate(
                f"token => new Promise(done => {{ {body}\n"
                "window.socket.onopen = window.socket.onclose = () => done(); })",
                token,
            )
            assert len(hub.members("/team/red")) == count
        assert wait_until(lambda: page.evaluate("window.socket.protocol") == "broadcast.v1.json")
