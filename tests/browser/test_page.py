"""The page in a real browser: what people see and do, on a hub of its own for each test.

One Chromium and one Firefox serve all tests of this file; each is started before the first of its
tests, so that the check for threads and descriptors left behind counts what a test makes and not
the browser. A test of looks alone, or one that needs what only Chromium can be told, is not run in
Firefox.
After each test there must have been no error in a page's console, which is also where a violation
of the Content-Security-Policy would be told.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from broadcast_server import BroadcastHub

from ..support import RawClient, lasting_port, needs_module, running_hub, wait_until
from ..support.chat_page import (
    CONTRASTS,
    Opener,
    connected,
    here,
    is_sent,
    say,
    shows,
)

sync_api = needs_module("playwright.sync_api")
expect = sync_api.expect
pytestmark = pytest.mark.slow


def post(hub: BroadcastHub, target: str, body: str) -> None:
    """Publish as ``curl -d`` does."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=10)
    try:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", target, body.encode(), headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        assert json.loads(answer.read())["room"] == target.partition("?")[0]
    finally:
        connection.close()


def member_id(hub: BroadcastHub, path: str, name: str) -> str:
    """Return the id of the member of that name."""
    (found,) = [member.id for member in hub.members(path) if member.name == name]
    return found


# Talking.


def test_two_windows_talk_both_ways_in_one_order(hub: BroadcastHub, window: Opener) -> None:
    """What one types the other reads; both see one order, each message once, and from whom."""
    ann, bob = window(hub, "/talk", name="ann"), window(hub, "/talk", name="bob")
    for number in range(10):
        say(ann if number % 2 else bob, f"message {number}")
    is_sent(ann)
    is_sent(bob)
    expect(ann.locator("#log .body")).to_have_count(10)
    expect(bob.locator("#log .body")).to_have_count(10)
    order = ann.locator("#log .body").all_text_contents()
    assert sorted(order) == [f"message {number}" for number in range(10)]
    shows(bob, order)
    for page, own in ((ann, 1), (bob, 0)):
        names = page.locator("#log .said bdi").all_text_contents()
        assert names == [("bob", "ann")[int(text[-1]) % 2] for text in order]
        mine = page.locator("#log .own .body").all_text_contents()
        assert sorted(mine) == [f"message {number}" for number in range(10) if number % 2 == own]
    assert ann.locator("#log time").count() == 10


def test_keyboard_alone_is_enough(hub: BroadcastHub, window: Opener) -> None:
    """Tab leads to the box, Shift+Enter begins a line, Enter sends, and the focus is visible."""
    page = window(hub, "/keys")
    page.evaluate("document.activeElement.blur()")
    focused = "document.activeElement.id"
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate(focused) == "text":
            break
    assert page.evaluate(focused) == "text"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.type("first")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    shows(page, [])
    page.keyboard.press("Enter")
    shows(page, ["first\nsecond"])
    assert page.evaluate("document.getElementById('text').value") == ""
    page.keyboard.press("Enter")  # nothing typed, nothing sent
    page.keyboard.type("third")
    page.keyboard.press("Enter")
    shows(page, ["first\nsecond", "third"])
    order = []
    for _ in range(2):
        page.keyboard.press("Tab")
        order.append(page.evaluate(focused))
    assert order == ["send", "name"]


@pytest.mark.chromium
def test_history_is_there_on_load(hub: BroadcastHub, window: Opener) -> None:
    """A newcomer finds the last fifty messages, in order."""
    for number in range(60):
        hub.broadcast(f"line {number}", "/history")
    page = window(hub, "/history")
    shows(page, [f"line {number}" for number in range(10, 60)])
    hub.broadcast("now", "/history")
    shows(page, [f"line {number}" for number in range(10, 60)] + ["now"])
    expect(page.locator("#log")).to_have_attribute("aria-busy", "false")
    assert page.locator("#empty").is_hidden()


@pytest.mark.chromium
def test_asks_for_no_more_than_the_hub_keeps(window: Opener) -> None:
    """A hub that keeps less than fifty messages gives what it has."""
    with running_hub(history=5) as hub:
        for number in range(20):
            hub.broadcast(f"line {number}", "/less")
        page = window(hub, "/less")
        shows(page, [f"line {number}" for number in range(15, 20)])
        page.context.close()


def test_own_messages_and_name_are_there_after_a_reload(hub: BroadcastHub, window: Opener) -> None:
    """The page that is loaded anew is the same client, with the same name."""
    page = window(hub, "/reload", name="ann")
    say(page, "before")
    shows(page, ["before"])
    before = member_id(hub, "/reload", "ann")
    page.reload()
    connected(page)
    shows(page, ["before"])
    here(page, ["ann (you)"])
    assert page.locator("#log .own").count() == 1
    assert page.locator("#name").input_value() == "ann"
    assert member_id(hub, "/reload", "ann") == before


def test_a_duplicated_tab_is_another_client(hub: BroadcastHub, window: Opener) -> None:
    """A browser copies the tab's store; the two must not push each other out."""
    page = window(hub, "/twice", name="ann")
    with page.context.expect_page() as opened:
        page.evaluate("window.open(location.href) && undefined")
    twin = opened.value
    connected(twin)
    here(twin, ["ann", "ann (you)"])
    here(page, ["ann (you)", "ann"])
    connected(page)


def test_works_without_any_storage(hub: BroadcastHub, window: Opener) -> None:
    """A browser that forbids localStorage and sessionStorage can talk all the same."""
    forbid = """for (const kind of ["localStorage", "sessionStorage"])
      Object.defineProperty(window, kind, {
        get() { throw new DOMException("no", "SecurityError"); } })"""
    page = window(hub, "/forbidden", name="ann", before=forbid)
    say(page, "hello")
    shows(page, ["hello"])
    page.reload()
    connected(page)
    shows(page, ["hello"])


@pytest.mark.chromium
def test_members_follow_join_rename_and_leave(hub: BroadcastHub, window: Opener) -> None:
    """The list is right at every moment, also about those who have no name."""
    ann = window(hub, "/who", name="ann")
    here(ann, ["ann (you)"])
    bob = window(hub, "/who")
    (guest,) = [member.id for member in hub.members("/who") if member.name is None]
    here(ann, ["ann (you)", f"guest {guest}"])
    bob.fill("#name", "  bob\u202e ")
    bob.press("#name", "Enter")
    here(ann, ["ann (you)", "bob"])
    here(bob, ["ann", "bob (you)"])
    bob.fill("#name", "")
    bob.press("#name", "Enter")
    here(ann, ["ann (you)", f"guest {guest}"])
    bob.close()
    here(ann, ["ann (you)"])


@pytest.mark.chromium
def test_a_crowd_is_counted_and_not_listed(hub: BroadcastHub, window: Opener) -> None:
    """Above a hundred only the number is shown; below it the list is right again."""
    page = window(hub, "/crowd", name="ann")
    with contextlib.ExitStack() as stack:
        crowd = [
            stack.enter_context(RawClient.connect(port=hub.port, path=f"/crowd?name=n{number}"))
            for number in range(102)
        ]
        expect(page.locator("#count")).to_have_text("103")
        expect(page.locator("#crowd")).to_be_visible()
        assert page.locator("#member-list li").count() == 0
        for client in crowd[2:5]:
            client.close()
        here(page, ["ann (you)", "n0", "n1", *(f"n{number}" for number in range(5, 102))])
        expect(page.locator("#crowd")).to_be_hidden()


@pytest.mark.chromium
def test_binary_and_the_hubs_own_messages(hub: BroadcastHub, window: Opener) -> None:
    """Binary data is a notice with its size; the hub's own program cannot be mistaken, and who has
    no name is a guest, as at a terminal."""
    page = window(hub, "/kinds", name="hub")
    hub.broadcast(b"\x00" * 3000, "/kinds")
    hub.broadcast("from the program", "/kinds")
    say(page, "not from the program")
    shows(page, ["2.9 KiB of binary data", "from the program", "not from the program"])
    post(hub, "/kinds", "by HTTP")
    shows(page, ["2.9 KiB of binary data", "from the program", "not from the program", "by HTTP"])
    authors = page.locator("#log bdi")
    assert authors.all_text_contents() == ["hub", "hub", "hub", "guest"]
    kinds = authors.evaluate_all("them => them.map(it => it.className)")
    assert [*kinds[:2], kinds[3]] == ["who unnamed"] * 3
    assert re.fullmatch(r"who c\d+", kinds[2])


# What others write is text.


@pytest.mark.parametrize("view", ["", "?view=board"])
def test_markup_of_others_is_shown_and_runs_nothing(
    hub: BroadcastHub, window: Opener, view: str
) -> None:
    """Scripts, images with handlers and links, in messages and in names, stay what they are."""
    page = window(hub, "/text" + view)
    texts = [
        "<img src=x onerror='window.ran = 1'>",
        "<script>window.ran = 1</script>",
        "javascript:window.ran=1 https://example.org/?a=1&b=2 &lt;b&gt;",
    ]
    for text in texts:
        post(hub, "/text?name=%3Cb%20onclick%3Dx%3Eann%3C%2Fb%3E", text)
    if view:
        expect(page.locator("#newest")).to_have_text(texts[-1])
    else:
        shows(page, texts)
    expect(page.locator("#source bdi" if view else "#log .said:first-child bdi")).to_have_text(
        "<b onclick=x>ann</b>"
    )
    assert page.evaluate("typeof window.ran") == "undefined"
    assert page.locator("main :is(img, script, a, b, iframe)").count() == 0


def test_unseen_characters_are_shown(hub: BroadcastHub, window: Opener) -> None:
    """What turns the direction of a text or cannot be seen stands there as its number."""
    page = window(hub, "/unseen")
    hub.broadcast("a\u202egnp.exe \x1b[31m \u2066x\r\nb", "/unseen")
    shows(page, ["aU+202Egnp.exe U+001B[31m U+2066x\nb"])
    assert page.locator("#log .unseen").count() == 3
    hub.broadcast("שלום", "/unseen")
    expect(page.locator("#log .body")).to_have_count(2)
    direction = "them => them.map(it => getComputedStyle(it).direction)"
    assert page.locator("#log .body").evaluate_all(direction) == ["ltr", "rtl"]


@pytest.mark.chromium
def test_a_text_that_is_too_long_is_cut_until_asked_for(hub: BroadcastHub, window: Opener) -> None:
    """One message of 100,000 characters does not bury the others."""
    page = window(hub, "/long")
    hub.broadcast("x" * 100_000, "/long")
    expect(page.locator("#log .body")).to_have_count(1)
    assert len(page.locator("#log .body").inner_text()) < 5000
    page.get_by_role("button", name="Show all 100,000 characters").click()
    shows(page, ["x" * 100_000])


# Coming back.


def test_survives_a_restart_of_the_hub(window: Opener) -> None:
    """On a new hub at the old port both come back by themselves, what was typed meanwhile arrives
    once, and a line says that something may be missing."""
    port = lasting_port()
    with running_hub(port=port) as hub:
        ann, bob = window(hub, "/restart", name="ann"), window(hub, "/restart", name="bob")
        say(ann, "before")
        shows(bob, ["before"])
    expect(ann.locator("#banner")).to_contain_text("Reconnecting")
    expect(ann.locator("#state")).not_to_have_attribute("data-kind", "open")
    for text in ("away 1", "away 2"):
        say(ann, text)
    expect(ann.locator("#outbox .fate")).to_have_text(["waits for the connection"] * 2)
    with running_hub(port=port) as hub:
        for page in (ann, bob):
            connected(page)
            assert page.locator("#banner").is_hidden()
            expect(page.locator("#log .note")).to_have_text(
                ["Messages may be missing here: the hub has been restarted."]
            )
        is_sent(ann)
        say(bob, "after")
        for page in (ann, bob):
            shows(page, ["before", "away 1", "away 2", "after"])
            names = page.locator("#log bdi").all_text_contents()
            assert names == ["ann", "ann", "ann", "bob"]
        assert len(hub.members("/restart")) == 2
        for context in (ann.context, bob.context):
            context.close()


def test_goes_on_without_a_gap_after_a_lost_connection(hub: BroadcastHub, window: Opener) -> None:
    """What was said while a client was away is there once, and to others it never was away."""
    ann, bob = window(hub, "/resume", name="ann"), window(hub, "/resume", name="bob")
    say(ann, "one")
    shows(bob, ["one"])
    before = member_id(hub, "/resume", "bob")
    assert hub.disconnect(before, 1012, "restart")
    hub.broadcast("two", "/resume")
    say(bob, "three")
    for page in (ann, bob):
        shows(page, ["one", "two", "three"])
        assert page.locator("#log .note").count() == 0
    is_sent(bob)
    assert member_id(hub, "/resume", "bob") == before


def test_a_message_whose_ack_was_lost_is_taken_once(window: Opener) -> None:
    """The connection ends between the acceptance and the ack; the page asks again with its key."""
    cut: list[str] = []

    def cut_once(message: Any) -> None:
        if message.data == "once" and not cut:
            assert message.sender is not None
            cut.append(message.sender.id)
            hub.disconnect(message.sender.id, 1012, "restart")

    with running_hub(on_message=cut_once) as hub:
        ann, bob = window(hub, "/once", name="ann"), window(hub, "/once", name="bob")
        say(ann, "once")
        assert wait_until(lambda: bool(cut))
        say(ann, "more")
        for page in (ann, bob):
            shows(page, ["once", "more"])
        is_sent(ann)
        shows(ann, ["once", "more"])
        for context in (ann.context, bob.context):
            context.close()


def test_closed_for_good_says_why_and_waits_for_the_user(hub: BroadcastHub, window: Opener) -> None:
    """After 1008 the page does not come back by itself; what is typed is kept, if reloaded, too."""
    page = window(hub, "/closed", name="ann")
    hub.disconnect(member_id(hub, "/closed", "ann"), 1008, "no <i>shouting</i>")
    expect(page.locator("#state-text")).to_have_text("Closed")
    expect(page.locator("#banner-text")).to_have_text(
        "The hub does not allow this connection. It says: no <i>shouting</i>"
    )
    say(page, "later")
    expect(page.locator("#outbox .fate")).to_have_text("waits for the connection")
    assert hub.members("/closed") == []
    page.reload()
    connected(page)
    shows(page, ["later"])
    hub.disconnect(member_id(hub, "/closed", "ann"), 1008, "again")
    page.get_by_role("button", name="Connect again").click()
    connected(page)
    shows(page, ["later"])


@pytest.mark.chromium
def test_too_long_is_told_before_it_is_sent(window: Opener) -> None:
    """What the hub would refuse stays in the box, with the reason beside it."""
    with running_hub(max_message_bytes=100) as hub:
        page = window(hub, "/big")
        say(page, "ä" * 51)
        expect(page.get_by_role("alert")).to_contain_text("102 bytes, and the hub takes 100")
        assert page.locator("#text").input_value() == "ä" * 51
        say(page, "ä" * 50)
        shows(page, ["ä" * 50])
        expect(page.get_by_role("alert")).to_be_empty()
        page.context.close()


# What it looks like.


@pytest.mark.chromium
def test_fits_a_phone(hub: BroadcastHub, window: Opener) -> None:
    """At 360 pixels nothing runs out of the window, and the members are behind a button."""
    page = window(hub, "/phone", viewport={"width": 360, "height": 640}, has_touch=True)
    hub.broadcast("w" * 300 + "\n" + "word " * 80, "/phone")
    for number in range(40):
        post(hub, f"/phone?name={'n' * 64}", f"line {number}")
    expect(page.locator("#log .body")).to_have_count(41)
    wide = """() => [...document.querySelectorAll(":not(.same bdi)")]
      .filter(it => it.getBoundingClientRect().right > innerWidth).map(it => it.outerHTML)"""
    scrolls = "document.documentElement.scrollWidth > innerWidth"
    assert page.evaluate(wide) == [] and not page.evaluate(scrolls)
    for part in ("#text", "#send", "#name", "#toggle"):
        box = page.locator(part).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 640 and box["height"] >= 30
    assert page.locator("#members").is_hidden()
    toggle = page.get_by_role("button", name="1 here")
    toggle.click()
    expect(page.locator("#members")).to_be_visible()
    expect(toggle).to_have_attribute("aria-expanded", "true")
    assert page.evaluate(wide) == []
    page.keyboard.press("Escape")
    expect(page.locator("#members")).to_be_hidden()


@pytest.mark.chromium
def test_stays_where_the_reader_is(hub: BroadcastHub, window: Opener) -> None:
    """At the end it goes along; further up it does not move, also when old lines go."""
    page = window(hub, "/scroll")
    place = "document.getElementById('scroller')"
    for number in range(50):
        hub.broadcast(f"line {number}", "/scroll")
    expect(page.locator("#log .body").last).to_be_in_viewport()
    expect(page.locator("#log .body").last).to_have_text("line 49")
    line = page.locator("#log .body", has_text=re.compile("^line 25$"))
    line.evaluate("it => it.scrollIntoView({ block: 'center' })")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    before = line.bounding_box()["y"]
    hub.broadcast("new", "/scroll")
    expect(page.locator("#newer")).to_have_text("1 new message")
    assert line.bounding_box()["y"] == before
    for number in range(965):
        hub.broadcast(f"more {number}", "/scroll")
    expect(page.locator("#newer")).to_have_text("966 new messages")
    assert page.locator("#log > *").count() == 1000
    assert abs(line.bounding_box()["y"] - before) < 1
    page.locator("#newer").click()
    expect(page.locator("#newer")).to_be_hidden()
    expect(page.locator("#log .body").last).to_be_in_viewport()
    hub.broadcast("last", "/scroll")
    expect(page.locator("#log .body").last).to_have_text("last")
    expect(page.locator("#log .body").last).to_be_in_viewport()
    assert page.evaluate(f"{place}.scrollHeight > {place}.clientHeight")


@pytest.mark.chromium
def test_title_counts_what_is_unread(hub: BroadcastHub, window: Opener) -> None:
    """In a tab that is not looked at the title says how much is new."""
    page = window(hub, "/title")
    assert page.title() == "/title"
    hide = """hidden => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange")); }"""
    page.evaluate(hide, True)
    hub.broadcast("one", "/title")
    hub.broadcast("two", "/title")
    shows(page, ["one", "two"])
    assert page.title() == "(2) /title"
    page.evaluate(hide, False)
    assert page.title() == "/title"


@pytest.mark.chromium  # it can be told what its user prefers
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_and_light_can_be_read(hub: BroadcastHub, window: Opener, scheme: str) -> None:
    """Every text has a contrast of 4.5:1 or more on what is behind it, and the picture is as
    dark or light as was asked for."""
    page = window(hub, "/scheme", name="ann", color_scheme=scheme)
    for name in "abcdefghijklmnopqrstuvwxyz":
        post(hub, f"/scheme?name={name}", "text\u202e")
    post(hub, "/scheme", "unnamed")
    say(page, "own")
    expect(page.locator("#log .body")).to_have_count(28)
    colours = page.locator("#log bdi").evaluate_all("them => them.map(it => it.className)")
    assert len(set(colours)) == 13  # twelve colours, and none
    found = page.evaluate(CONTRASTS)
    assert len(found) > 80
    assert [item for item in found if item[0] < 4.5] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    level = int(re.findall(r"\d+", background)[0])
    assert (level > 240) if scheme == "light" else (level < 40)
    assert len(page.screenshot()) > 10_000


# The board.


@pytest.mark.chromium
def test_board_shows_the_newest_message_and_follows(hub: BroadcastHub, window: Opener) -> None:
    """What is published over HTTP is on the board at once, and only the newest."""
    post(hub, "/board", "old")
    post(hub, "/board?name=ann", "3:1")
    page = window(hub, "/board?view=board", viewport={"width": 800, "height": 450})
    newest = page.locator("#newest")
    expect(newest).to_have_text("3:1")
    expect(page.locator("#source")).to_contain_text("ann")
    assert page.locator("h1").inner_text() == "/board"
    post(hub, "/board", "4:1")
    expect(newest).to_have_text("4:1")
    assert page.title() == "/board"


@pytest.mark.chromium
def test_board_follows_curl(hub: BroadcastHub, window: Opener) -> None:
    """The command that the page itself proposes is understood."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    room = window(hub, "/curl")
    board = window(hub, "/curl?view=board")
    command = room.locator("#example").inner_text().split()
    assert command == ["curl", "-d", "hello", f"http://127.0.0.1:{hub.port}/curl"]
    command[1:1] = ["--silent", "--fail", "--max-time", "10"]
    answer = subprocess.run([curl, *command[1:]], capture_output=True, timeout=20, check=True)
    assert json.loads(answer.stdout)["room"] == "/curl"
    expect(board.locator("#newest")).to_have_text("hello")
    shows(room, ["hello"])


@pytest.mark.chromium
@pytest.mark.parametrize(
    "text",
    [
        "7",
        "3:1",
        "The next train leaves from platform 7",
        "a\nb\nc\nd\ne\nf",
        "w" * 200,
        "é" * 500,
    ],
)
def test_board_fills_the_window(hub: BroadcastHub, window: Opener, text: str) -> None:
    """One character or many lines: as large as fits, in any window, nothing cut off."""
    hub.broadcast(text, "/fit")
    page = window(hub, "/fit?view=board", viewport={"width": 900, "height": 500})
    fits = """() => {
      const stage = document.getElementById("stage").getBoundingClientRect();
      const text = document.getElementById("newest").getBoundingClientRect();
      const over = text.width > stage.width + 1 || text.height > stage.height + 1;
      return over ? 0 : Math.max(text.width / stage.width, text.height / stage.height); }"""
    sizes = []
    for width, height in ((900, 500), (300, 600), (1600, 300)):
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        expect(page.locator("#newest")).to_have_text(text)
        assert page.evaluate(fits) > 0.7
        sizes.append(page.evaluate("parseFloat(document.getElementById('newest').style.fontSize)"))
    assert len(set(sizes)) > 1


@pytest.mark.chromium
def test_board_can_be_scrolled_where_nothing_fits(hub: BroadcastHub, window: Opener) -> None:
    """A text of very many lines begins at the top and is readable."""
    hub.broadcast("\n".join(f"line {number}" for number in range(50)), "/lines")
    page = window(hub, "/lines?view=board", viewport={"width": 500, "height": 300})
    expect(page.locator("#newest")).to_contain_text("line 49")
    assert page.evaluate("parseFloat(document.getElementById('newest').style.fontSize)") == 16
    stage = page.locator("#stage")
    assert stage.evaluate("it => [it.scrollTop, getComputedStyle(it).overflowY]") == [0, "auto"]
    assert stage.evaluate("it => it.scrollHeight > it.clientHeight")
    hub.broadcast("short", "/lines")
    expect(page.locator("#newest")).to_have_text("short")
    assert stage.evaluate("it => getComputedStyle(it).overflowY") == "hidden"
