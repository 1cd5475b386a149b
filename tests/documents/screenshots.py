"""Makes the README's pictures of the page, ``docs/images/``: ``make screenshots``.

A hub, four people and a script that publishes over HTTP; what they say is below. The times in the
pictures are those of the day on which they are made.
"""

from __future__ import annotations

import http.client
import pathlib
from typing import Any

from ..support import ROOT, running_hub
from ..support.browser import running_browser

IMAGES = ROOT / "docs" / "images"
MAX_BYTES = 150_000

ROOM = "/release"
TALK = [
    ("ann", "Build 412 is green. Shall we?"),
    ("Björn", "The graphs are quiet, go ahead."),
    ("carol", "Half of the machines first, please.\nThe rest after lunch."),
    (None, "deploy: 12 of 24 machines are on 412"),
    ("ann", "So far so good."),
    ("ann", "By the way, <script>alert(1)</script> is only text here."),
    ("dmitri", "Nothing in the error log since 10:02, reading along from the train."),
    (None, "deploy: 24 of 24 machines are on 412"),
    ("Björn", "Done. Thank you all!"),
]


def post(port: int, target: str, text: str) -> None:
    """Publish over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", target, text.encode(), {"Content-Type": "text/plain"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status} {answer.reason}")
    connection.close()


def picture(page: Any, name: str) -> None:
    """Save what the window shows."""
    path: pathlib.Path = IMAGES / name
    page.screenshot(path=path)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size} bytes")
    if size > MAX_BYTES:
        raise RuntimeError(f"{name} is too big for the README")


def main() -> None:
    """Let them talk and take the pictures."""
    from playwright.sync_api import expect

    IMAGES.mkdir(parents=True, exist_ok=True)
    wide = {"viewport": {"width": 860, "height": 540}}
    phone = {"viewport": {"width": 360, "height": 600}, "is_mobile": True, "has_touch": True}
    windows = {
        "ann": wide,
        "Björn": {**wide, "color_scheme": "dark"},
        "carol": wide,
        "dmitri": phone,
    }
    with running_hub() as hub, running_browser() as browser:
        url = f"http://127.0.0.1:{hub.port}"
        pages = {}
        for name, options in windows.items():
            page = browser.new_context(locale="en-GB", **options).new_page()
            page.goto(url + ROOM)
            page.fill("#name", name)
            page.press("#name", "Enter")
            expect(page.locator("#member-list")).to_contain_text(f"{name} (you)")
            pages[name] = page
        for number, (name, text) in enumerate(TALK, 1):
            if name is None:
                post(hub.port, f"{ROOM}?name=deploy.sh", text)
            else:
                pages[name].fill("#text", text)
                pages[name].press("#text", "Enter")
            for page in pages.values():
                expect(page.locator("#log .body")).to_have_count(number)
        for name in ("ann", "Björn"):
            pages[name].fill("#text", "See you on Thursday")
        picture(pages["ann"], "room.png")
        picture(pages["Björn"], "room-dark.png")
        picture(pages["dmitri"], "phone.png")

        post(hub.port, "/scores?name=referee", "3:1")
        page = browser.new_context(
            locale="en-GB", viewport={"width": 640, "height": 320}, color_scheme="dark"
        ).new_page()
        page.goto(f"{url}/scores?view=board")
        expect(page.locator("#newest")).to_have_text("3:1")
        picture(page, "board.png")


if __name__ == "__main__":
    main()
