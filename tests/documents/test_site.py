"""The site that ``make docs`` has built: whole, linked, nothing from elsewhere."""

from __future__ import annotations

import html.parser
import pathlib
import re
import urllib.parse
from typing import Any

import pytest

from ..support import ROOT
from ..support.documents import PAGES, name_of

pytestmark = pytest.mark.site

SITE = ROOT / "build" / "site"
# Namespaces and where something is from, in comments; nothing is loaded from there.
IN_COMMENTS = re.compile(r"/\*.*?\*/|^\s*(?://|\*).*?$", re.DOTALL | re.MULTILINE)
NAMESPACE = "http://www.w3.org/2000/svg"
SECONDS = 30.0


class Elements(html.parser.HTMLParser):
    """What a page links to, what it loads, and the places in it that have a name."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.names |= {found[name] for name in ("id", "name") if name in found}
        if "href" in found:
            (self.links if tag == "a" else self.loaded).append(found["href"])
        loading = ("src", "srcset", "poster", "data")
        self.loaded += [found[name] for name in loading if name in found]
        self.loaded += re.findall(r"url\((.*?)\)", found.get("style", ""))


@pytest.fixture(scope="module")
def site() -> dict[pathlib.Path, Elements]:
    """Every page of the site."""
    assert (SITE / "index.html").exists(), "make docs builds it"
    return {path: Elements(path) for path in SITE.rglob("*.html")}


def test_every_page_is_there(site: dict[pathlib.Path, Elements]) -> None:
    """And each can be reached from the first one by the navigation."""
    built = {SITE / name_of(page).replace(".md", ".html") for page in PAGES}
    assert built <= set(site)
    start = SITE / "index.html"
    linked = {(start.parent / link.partition("#")[0]).resolve() for link in site[start].links}
    assert built - {SITE / "README.html"} <= linked


def test_links_lead_somewhere(site: dict[pathlib.Path, Elements]) -> None:
    """Each link within the site names a file, and a place in it, that are there."""
    checked = 0
    for path, page in site.items():
        for link in page.links + page.loaded:
            if re.match(r"[a-z]+:", link):
                continue
            name, _, fragment = urllib.parse.unquote(link).partition("#")
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            assert target.is_file() and target.is_relative_to(SITE), f"{path}: {link}"
            if fragment:
                assert fragment in site[target].names, f"{path}: {link}"
            checked += 1
    assert checked > 1000


def test_nothing_is_loaded_from_elsewhere(site: dict[pathlib.Path, Elements]) -> None:
    """No font, no script, no picture: the pages can be read where there is no Internet."""
    for path, page in site.items():
        for target in page.loaded:
            assert not re.match(r"([a-z]+:)?//", target), f"{path}: {target}"
    files = [path for path in SITE.rglob("*") if path.suffix in (".css", ".js")]
    assert len(files) > 5
    for path in files:
        text = path.read_text(encoding="utf-8").replace(NAMESPACE, "")
        if path.name == "searchindex.js":
            continue  # the words of the pages
        text = IN_COMMENTS.sub("", text)
        assert not re.search(r"https?://|@import|url\(['\"]?//", text), path


# -- In a browser ------------------------------------------------------------------------------

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DESK = {"viewport": {"width": 1280, "height": 900}}
# The tables that are wider than their place, in which one then has to scroll.
WIDE_TABLES = """() => [...document.querySelectorAll("article .table-wrapper")]
    .filter(place => place.scrollWidth > place.clientWidth + 1)
    .map(place => place.innerText.slice(0, 60))"""


@pytest.mark.parametrize("window", [DESK, PHONE], ids=["desk", "phone"])
def test_pages_fit_the_window(
    window: dict[str, Any], site: dict[pathlib.Path, Elements], browser: Any
) -> None:
    """None has to be moved to be read; on a desk no table either. Nobody's console has an error."""
    context = browser.new_context(**window)
    errors: list[str] = []
    try:
        page = context.new_page()
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        for path in site:
            page.goto(path.as_uri())
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= window["viewport"]["width"], path
            if window is DESK:
                assert page.evaluate(WIDE_TABLES) == [], path
    finally:
        context.close()
    assert errors == []


@pytest.mark.parametrize("window", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize(
    ("words", "title"),
    [("HubBusy", "Errors"), ("systemd", "Under systemd"), ("BROADCAST_SERVER_TOKEN", "Options")],
)
def test_search_finds_what_is_there(
    window: dict[str, Any], words: str, title: str, browser: Any
) -> None:
    """Without a server: the site may be read from the disk."""
    from playwright.sync_api import expect

    context = browser.new_context(**window)
    try:
        page = context.new_page()
        page.goto((SITE / "index.html").as_uri())
        if window is PHONE:
            page.locator("label.nav-overlay-icon").click()
        page.fill("input.sidebar-search", words)
        page.press("input.sidebar-search", "Enter")
        found = page.locator("#search-results li a").filter(has_text=title).first
        expect(found).to_be_visible(timeout=SECONDS * 1000)
    finally:
        context.close()
