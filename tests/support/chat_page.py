"""The hub's page in a browser: what a person types there and sees."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .libraries import needs_module

expect = needs_module("playwright.sync_api").expect

Window = Any  # playwright.sync_api.Page
Opener = Callable[..., Window]

# What browsers themselves write when there is no hub, or one that refuses, or when a test forbids
# them to remember: nothing that the page could do about it.
EXPECTED = re.compile(
    r"WebSocket connection to .* failed|status of (401|403|429|50[0-9])|ERR_CONNECTION_REFUSED"
    r"|blocked the loading of a resource \(connect-src\) at https://login\.example/"
    r"|Firefox can.t establish a connection"
)

# [contrast (WCAG 2.2), text] of each piece of text that is there.
CONTRASTS = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (colour) => colour.map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const nodes = [...element.childNodes].filter((node) => node.nodeType === 3);
    const own = nodes.map((node) => node.data).join("").trim();
    const text = own || element.placeholder;
    if (!text || !element.checkVisibility()) continue;
    const behind = [];
    for (let at = element; at; at = at.parentElement) {
      behind.unshift(getComputedStyle(at).backgroundColor);
    }
    const front = getComputedStyle(element, own ? null : "::placeholder").color;
    const pair = [luminance(rgb(behind)), luminance(rgb([...behind, front]))].sort((a, b) => b - a);
    found.push([(pair[0] + 0.05) / (pair[1] + 0.05), text]);
  }
  return found;
}"""


def hear_troubles(page: Window, troubles: list[str]) -> None:
    """Add to the list what goes wrong in a page: errors, and warnings in its console."""

    def hear(message: Any) -> None:
        if message.type in ("error", "warning") and not EXPECTED.search(message.text):
            troubles.append(f"{message.type}: {message.text}")

    def fail(error: Any) -> None:
        if not EXPECTED.search(str(error)):
            troubles.append(f"uncaught: {error}")

    page.on("console", hear)
    page.on("pageerror", fail)


def connected(page: Window) -> None:
    """Wait until the page says that it is connected."""
    expect(page.locator("#state")).to_have_attribute("data-kind", "open", timeout=10_000)


def say(page: Window, text: str) -> None:
    """Type a message and send it."""
    page.fill("#text", text)
    page.press("#text", "Enter")


def shows(page: Window, texts: list[str]) -> None:
    """Wait until these are the messages of the log, no more and no fewer."""
    expect(page.locator("#log .body")).to_have_text(texts, timeout=10_000)


def is_sent(page: Window) -> None:
    """Wait until nothing is in the outbox."""
    expect(page.locator("#outbox li")).to_have_count(0, timeout=10_000)


def here(page: Window, names: list[str]) -> None:
    """Wait until these are the members that the page lists."""
    expect(page.locator("#member-list li")).to_have_text(names, timeout=10_000)
    expect(page.locator("#count")).to_have_text(str(len(names)))
