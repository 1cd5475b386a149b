"""The files of the web page: what is given out, with which headers, what is not in them."""

from __future__ import annotations

import pathlib
import re
import urllib.parse

import pytest

import broadcast_server
from broadcast_server.hub.http.pages import WebFile, asset, page

WEB = pathlib.Path(broadcast_server.__file__).parent / "hub" / "http" / "static"
FILES = sorted(path.name for path in WEB.iterdir())
STATIC = [name for name in FILES if not name.endswith(".html")]
PAGES = {"index.html": page("/scores"), "board.html": page("/scores", board=True)}


def of(name: str) -> WebFile:
    """Return a file's asset, a page's, too."""
    found = PAGES.get(name) or asset(name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", FILES)
def test_gives_every_file_as_it_lies_there(name: str) -> None:
    """Nothing is built from the files, and none is forgotten."""
    assert of(name).body == (WEB / name).read_bytes()
    suffix = name.rpartition(".")[2]
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
    wanted = "image/svg+xml" if suffix == "svg" else f"{kinds[suffix]}; charset=utf-8"
    assert of(name).content_type == wanted


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_the_headers_that_keep_it_safe(name: str) -> None:
    """No script but ours, no guessing of types, no frame, no reader of another origin."""
    headers = dict(of(name).headers)
    assert len(headers) == len(of(name).headers)
    policy = dict(
        part.partition(" ")[::2] for part in headers.pop("Content-Security-Policy").split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers.pop("ETag") == of(name).etag
    if name in PAGES:
        assert headers.pop("Cross-Origin-Opener-Policy") == "same-origin"
        assert headers.pop("Vary") == "Accept"
        assert "camera=()" in headers.pop("Permissions-Policy")
    assert headers == {
        "Cache-Control": "no-cache",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def test_headers_can_go_over_the_wire() -> None:
    """Names and values are visible ASCII without line ends."""
    for name in FILES:
        for key, value in (*of(name).headers, ("Content-Type", of(name).content_type)):
            assert re.fullmatch(r"[A-Za-z-]+", key)
            assert re.fullmatch(r"[!-~]([ -~]*[!-~])?", value)


def test_the_page_is_the_same_for_every_room_of_a_folder() -> None:
    """No part of a URL gets into the page."""
    assert page("/a") is page('/<script>"') is page("/?/../") is page("/", board=False)
    assert page("/a/b") is page("/c/<script>")
    assert page("/a", board=True) is page("/b", True)
    assert page("/a") is not page("/a", board=True)


@pytest.mark.parametrize("prefix", ["", "/hub", "/a/b"])
@pytest.mark.parametrize("board", [False, True])
@pytest.mark.parametrize(
    "target",
    ["/", "/a", "/a/", "/a/b", "/a/b/c/", "/a%2Fb", "/a?x=/y/z", "http://h/a/b?c/d", "http://h"],
)
def test_page_finds_its_files_at_every_address(target: str, board: bool, prefix: str) -> None:
    """A browser puts the references together with the page's address, whatever is before it."""
    path = target.removeprefix("http://h") or "/"
    found = page(target, board)
    references = re.findall(r'(?:src|href)="([^"]*)"', found.body.decode())
    assert len(references) == 3
    for reference in references:
        url = urllib.parse.urljoin(f"http://h{prefix}{path}", reference)
        assert url.startswith(f"http://h{prefix}/-/static/")
        assert asset(url.rpartition("/")[2])
    assert dict(found.headers)["ETag"] == found.etag


def test_pages_of_other_folders_have_other_tags() -> None:
    """Else a browser would keep the one for the other."""
    tags = {page("/" + "a/" * depth, board).etag for depth in range(40) for board in (True, False)}
    assert len(tags) == 80


@pytest.mark.parametrize(
    "name",
    ["", "nothing.js", "index.html", "board.html", "../page.py", "../web/app.css", "APP.CSS"],
)
def test_gives_no_other_file(name: str) -> None:
    """A name is looked up, never opened; the pages have URLs of their own."""
    assert asset(name) is None


def test_every_file_has_its_own_tag() -> None:
    """Two versions of a file are never taken for one another."""
    tags = {of(name).etag for name in FILES}
    assert len(tags) == len(FILES)
    assert all(re.fullmatch(r'"[0-9a-f]{24}"', tag) for tag in tags)


def test_knows_what_the_browser_has_already() -> None:
    """If-None-Match is a list, compared weakly; ``*`` means any (RFC 9110 §13.1.2)."""
    room, board = page("/"), page("/", board=True)
    assert room.is_current(room.etag)
    assert room.is_current(f"W/{room.etag}")
    assert room.is_current(f'"a" , {board.etag},{room.etag}')
    assert room.is_current("*")
    assert not room.is_current(None)
    assert not room.is_current("")
    assert not room.is_current(board.etag)
    assert not room.is_current(room.etag.strip('"'))


@pytest.mark.parametrize("name", list(PAGES))
def test_pages_load_only_what_is_there(name: str) -> None:
    """Every reference leads to one of our own files."""
    references = re.findall(r'(?:src|href)="([^"]*)"', PAGES[name].body.decode())
    assert references
    for reference in references:
        assert reference.startswith("-/static/")
        assert asset(reference.removeprefix("-/static/"))


@pytest.mark.parametrize("name", list(PAGES))
def test_pages_have_no_script_or_style_of_their_own(name: str) -> None:
    """The policy forbids them, so they would do nothing."""
    text = PAGES[name].body.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", text, re.I)


@pytest.mark.parametrize("name", [name for name in STATIC if name.endswith(".js")])
def test_scripts_import_only_what_is_there(name: str) -> None:
    """Each module and each name that is imported exists."""
    text = of(name).body.decode()
    for names, module in re.findall(r'^import \{([^}]*)\} from "(.*)";$', text, re.MULTILINE):
        found = asset(module.removeprefix("./"))
        assert found is not None
        for word in names.replace(",", " ").split():
            assert re.search(rf"^export (async )?\w+ {word}\b", found.body.decode(), re.MULTILINE)
    assert text.count("import ") == len(re.findall(r"^import \{", text, re.MULTILINE))


@pytest.mark.parametrize("name", FILES)
def test_nothing_loads_from_elsewhere_or_makes_markup_of_text(name: str) -> None:
    """The hub may stand where there is no Internet, and a message never becomes an element."""
    text = of(name).body.decode()
    assert set(re.findall(r"https?://\w[^\s\"'`]*", text)) <= {"http://www.w3.org/2000/svg"}
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert not re.search(forbidden, text)
    if name.endswith(".css"):
        assert not re.search(r"@import|url\(", text)


def test_as_many_colours_as_the_scripts_count() -> None:
    """text.js numbers the colours that app.css has."""
    count = int(re.search(r"COLOURS = (\d+)", of("text.js").body.decode())[1])
    hues = re.findall(r"^\.c(\d+) \{ --hue: \d+; \}", of("app.css").body.decode(), re.MULTILINE)
    assert hues == [str(number) for number in range(count)]
