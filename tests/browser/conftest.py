"""Windows of people, for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ..support import needs_module
from ..support.chat_page import Opener, Window, connected, hear_troubles

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub

expect = needs_module("playwright.sync_api").expect


@pytest.fixture
def window(browser: Any) -> Iterator[Opener]:
    """Open windows, each of a person of its own: ``window(hub, "/room", name="ann")``.

    ``site`` is the address of the page's server where that is not the hub itself, ``before`` a
    script that runs before the page's, and ``joins`` is False for a page that does not get in.
    """
    contexts: list[Any] = []
    troubles: list[str] = []

    def watch(page: Window) -> None:
        page.set_default_timeout(10_000)
        hear_troubles(page, troubles)

    def opened(
        hub: BroadcastHub,
        path: str = "/",
        *,
        name: str | None = None,
        before: str | None = None,
        site: str | None = None,
        joins: bool = True,
        **options: Any,
    ) -> Window:
        context = browser.new_context(locale="en-GB", **options)
        contexts.append(context)
        context.on("page", watch)
        if before is not None:
            context.add_init_script(before)
        page = context.new_page()
        page.goto((site or f"http://127.0.0.1:{hub.port}") + path)
        if joins:
            connected(page)
        if name is not None:
            page.fill("#name", name)
            page.press("#name", "Enter")
            expect(page.locator("#member-list li", has_text="(you)")).to_have_text(f"{name} (you)")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []
