"""What a terminal shows of messages and of who comes and goes."""

from __future__ import annotations

import datetime

import pytest

from broadcast_server.cli.terminal.view import (
    MAX_LINES,
    NAME_COLOURS,
    QUIET_COLOUR,
    STYLES,
    Line,
    View,
    colour_of,
    columns,
    gap,
    mentions,
    visible,
    who,
)
from broadcast_server.messages import Gap, Member, Message, Presence

BOB = Member("c2", "bob", "/", "")
NAMELESS = Member("c3", None, "/", "")
ZONE = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
MOMENT = datetime.datetime(2020, 11, 25, 6, 0, 0, 123000, datetime.timezone.utc)


def plain(lines: list[Line]) -> list[str]:
    """Return lines without their styles."""
    return ["".join(text for _, text in line) for line in lines]


def message(
    data: str | bytes, sender: Member | None = BOB, time: datetime.datetime = MOMENT
) -> Message:
    return Message(data, "/", sender, time, "1000-1")


def shown(item: Message, *, named: bool = True, own: bool = False) -> list[str]:
    """Return the lines of a message without the line of the day."""
    lines = plain(View(ZONE).message(item, named=named, own=own))
    return lines[1:] if lines[0].startswith("-- ") else lines


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("hello, h\u00f6rst du?", None),
        ("\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u4f60\u597d", None),
        ("\U0001f469\u200d\U0001f4bb \u2764\ufe0f \U0001f44b\U0001f3fd", None),
        ("\U0001f3f3\ufe0f\u200d\U0001f308", None),
        ("e\u0301", None),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\x00\x07\x7f\x9b\r", "a\\x00\\x07\\x7f\\x9b\\r"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066a\u2069\u200f", "\\u2066a\\u2069\\u200f"),
        ("an\u200bn\u2060\ufeff\u00ad", "an\\u200bn\\u2060\\ufeff\\xad"),
        ("an\u200dn", "an\\u200dn"),
        ("^\u200d^", "^\\u200d^"),
        ("\u3164\u115f\u2800\u034f", "\\u3164\\u115f\\u2800\\u034f"),
        ("a\ufe0f\ufe01\U000e0101", "a\\ufe0f\\ufe01\\U000e0101"),
        ("\u2028\u2029\u0085", "\\u2028\\u2029\\x85"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("Z" + "\u0301" * 5, "Z" + "\u0301" * 3 + "\\u0301\\u0301"),
    ],
)
def test_what_is_not_to_be_seen_as_it_is_is_escaped(text: str, seen: str | None) -> None:
    """Control, direction, width and height; letters and pictures stay as they are."""
    assert visible(text) == (text if seen is None else seen)


def test_message_has_time_and_name() -> None:
    """The local time; a name; who has none is a guest, the hub's program is a star."""
    assert shown(message("one")) == ["11:30 bob: one"]
    assert shown(message("two", NAMELESS)) == ["11:30 guest c3: two"]
    assert shown(message("three", None)) == ["11:30 *: three"]
    assert shown(message("four", Member("", None, "/", ""))) == ["11:30 guest: four"]
    assert shown(message("five", Member("c4", "\x1b\u202e", "/", ""))) == [
        "11:30 \\x1b\\u202e: five"
    ]
    assert shown(message("six"), own=True) == ["11:30 bob: six"]


def test_message_of_a_plain_server_has_no_name() -> None:
    """Only one's own are told apart."""
    assert shown(message("one", None), named=False) == ["11:30 one"]
    assert shown(message("two"), named=False, own=True) == ["11:30 you: two"]


def test_day_is_told_when_it_changes() -> None:
    """Once a day, and not for today's first message."""
    view = View(ZONE)
    old = message("old")
    assert plain(view.message(old, named=True)) == ["-- 2020-11-25", "11:30 bob: old"]
    late = message("late", time=MOMENT + datetime.timedelta(hours=12))
    assert plain(view.message(late, named=True)) == [
        "11:30 bob: old".replace("11:30 bob: old", "23:30 bob: late")
    ]
    next_day = message("next", time=MOMENT + datetime.timedelta(hours=13))
    assert plain(view.message(next_day, named=True)) == ["-- 2020-11-26", "00:30 bob: next"]
    now = message("now", time=datetime.datetime.now(datetime.timezone.utc))
    assert len(View(ZONE).message(now, named=True)) == 1


@pytest.mark.parametrize("edge", [datetime.datetime.min, datetime.datetime.max])
def test_time_at_the_end_of_the_calendar_is_no_crash(edge: datetime.datetime) -> None:
    """A server that lies about the time."""
    item = message("x", time=edge.replace(tzinfo=datetime.timezone.utc))
    for hours in (-12, 12):
        zone = datetime.timezone(datetime.timedelta(hours=hours))
        assert plain(View(zone).message(item, named=True))[-1].endswith("bob: x")


def test_message_of_several_lines_forges_none() -> None:
    """Each line but the first has a bar."""
    assert shown(message("a\n12:00 eve: b\r\n\tc\r-\n\n")) == [
        "11:30 bob: a",
        "    | 12:00 eve: b",
        "    | \tc\\r-",
    ]


def test_long_message_is_cut_off_with_a_word() -> None:
    """A message cannot push the others out of the screen for good."""
    lines = shown(message("x\n" * 100))
    assert len(lines) == MAX_LINES + 1
    assert lines[-1] == "    | [cut off here: the message has 200 characters in 100 lines]"
    (first, last) = shown(message("x" * 20_000))
    assert len(first) < 11_000 and last == "    | [cut off here: the message has 20000 characters]"


def test_binary_message_is_mentioned() -> None:
    """Its bytes are not for a terminal."""
    assert shown(message(b"\x1b[2J")) == ["11:30 bob: [binary message, 4 bytes]"]


def test_who_comes_and_goes() -> None:
    """A line for each change, none for a mere number."""
    view = View()

    def lines(kind: str, member: Member | None, old: str | None = None) -> list[str]:
        return plain(view.presence(Presence(kind, member, 3, (), old), "c1"))

    assert lines("join", BOB) == ["-- bob has joined"]
    assert lines("leave", NAMELESS) == ["-- guest c3 has left"]
    assert lines("rename", BOB) == ["-- guest c2 is now bob"]
    assert lines("rename", Member("c2", "\x07", "/", ""), "\x1b") == ["-- \\x1b is now \\x07"]
    assert lines("rename", Member("c1", "ann", "/", ""), "x") == ["-- you are now ann"]
    assert lines("count", None) == []


def test_two_of_the_same_name_are_told_apart() -> None:
    """By their ids, wherever they are named; what is nobody else's is left as it is."""
    ann, other, others_bob = BOB, NAMELESS, Member("c9", "bob", "/", "")
    members = [ann, other, others_bob]
    view = View(ZONE)
    lines = plain(view.message(message("x", others_bob), named=True, members=members))
    assert lines[-1] == "11:30 bob (c9): x"
    lines = plain(view.message(message("x", NAMELESS), named=True, members=members))
    assert lines == ["11:30 guest c3: x"]
    assert plain(view.presence(Presence("leave", BOB, 2, (), None), "c1", [other, others_bob])) == [
        "-- bob (c2) has left"
    ]
    event = Presence("rename", Member("c2", "rob", "/", ""), 3, (), "bob")
    assert plain(view.presence(event, "c1", members)) == ["-- bob (c2) is now rob"]
    assert plain(who(members, 3)) == ["-- 3 here: bob (c2), guest c3, bob (c9)"]


@pytest.mark.parametrize(
    ("name", "shown_as"),
    [
        (" ", '" "'),
        ("bob ", '"bob "'),
        ("*", '"*"'),
        ("guest", '"guest"'),
        ("guest c7", '"guest c7"'),
        ("guests", "guests"),
        ("b b", "b b"),
    ],
)
def test_name_that_looks_like_none_is_quoted(name: str, shown_as: str) -> None:
    """Or like somebody else's, or like the hub's program, which is a star."""
    sender = Member("c2", name, "/", "")
    assert shown(message("x", sender)) == [f"11:30 {shown_as}: x"]
    assert shown(message("x", None)) == ["11:30 *: x"]


def test_columns_are_read_from_top_to_bottom() -> None:
    """No word is broken, whatever it is wide; there is a word for those left out."""
    words = [f"w{number}" for number in range(7)]
    assert plain(columns(words, 17)) == ["-- w0  w3  w6", "-- w1  w4", "-- w2  w5"]
    assert plain(columns(words, 1)) == [f"-- {word}" for word in words]
    assert plain(columns(["\u4f60", "b"], 20, lambda text: 2 * len(text))) == ["-- \u4f60  b"]
    lines = plain(columns([f"{number:03}" for number in range(60)], 80))
    assert lines[-1] == "-- and 10 more"
    assert max(map(len, lines)) < 80


def test_list_of_who_is_here_is_bounded() -> None:
    """With a word for the others."""
    assert plain(who([BOB, NAMELESS], 2)) == ["-- 2 here: bob, guest c3"]
    many = [Member(f"c{number}", None, "/", "") for number in range(1000)]
    (line,) = plain(who(many, 1204))
    assert line.startswith("-- 1204 here: guest c0, ")
    assert line.endswith(", guest c49, and 1154 more")


@pytest.mark.parametrize("reason", ["trimmed", "restarted", "unknown", "\x1b"])
def test_gap_is_told(reason: str) -> None:
    """With its reason."""
    (line,) = plain(gap(Gap(reason, "1-0", "9-0")))
    assert line.startswith("-- messages are missing here: ") and "\x1b" not in line


@pytest.mark.parametrize(
    ("text", "name", "is_meant"),
    [
        ("ann: look", "ann", True),
        ("hello @Ann!", "ann", True),
        ("annual", "ann", False),
        ("Joann", "ann", False),
        ("a.b", "a.b", True),
        ("axb", "a.b", False),
        ("STRASSE", "stra\u00dfe", True),
        ("x", None, False),
        ("x", "", False),
    ],
)
def test_mention(text: str, name: str | None, is_meant: bool) -> None:
    """A name is a word of its own, in any case."""
    assert mentions(text, name) is is_meant


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", [*NAME_COLOURS, QUIET_COLOUR])
def test_colour_can_be_read_on_black_and_on_white(colour: str) -> None:
    """Nobody has to say which background it is."""
    light = luminance(colour) + 0.05
    assert min(light / 0.05, 1.05 / light) >= 3.7


def test_colour_of_a_name_is_always_the_same() -> None:
    """In every run, and whatever the id; all colours are used."""
    assert colour_of(BOB) == colour_of(Member("c99", "bob", "/x", "")) == "name2"
    names = {colour_of(Member("", f"name {number}", "/", "")) for number in range(500)}
    assert names == {f"name{number}" for number in range(len(NAME_COLOURS))}
    assert names < STYLES.keys()
