"""What a user types at a terminal, understood."""

from __future__ import annotations

import pytest

from broadcast_server.cli.terminal.commands import (
    COMMANDS,
    HELP,
    Command,
    Completion,
    Mistake,
    Say,
    complete,
    parse,
)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("", None),
        ("   ", None),
        ("hello", Say("hello")),
        ("  hello /quit ", Say("  hello /quit ")),
        ("//who", Say("/who")),
        ("//", Say("/")),
        ("///", Say("//")),
        ("/who", Command("who", "")),
        ("/who ", Command("who", "")),
        ("/name  Ann Lee ", Command("name", "Ann Lee")),
        ("/name", Command("name", "")),
        ("/room", Command("room", "")),
        ("/room scores", Command("room", "/scores")),
        ("/room /a b", Command("room", "/a b")),
        ("/history", Command("history", "10")),
        ("/history 3", Command("history", "3")),
        ("/quit", Command("quit", "")),
        ("/help", Command("help", "")),
    ],
)
def test_line_is_a_message_or_a_command(line: str, asked: object) -> None:
    """One slash is a command, two are a message that begins with one."""
    assert parse(line) == asked


@pytest.mark.parametrize(
    "line",
    [
        "/",
        "/ who",
        "/Who",
        "/nobody",
        "/usr/bin",
        "/who ann",
        "/quit now",
        "/history 0",
        "/history -1",
        "/history x",
        "/history \u0663",
        "/history 1234567890123",
    ],
)
def test_mistake_is_told_and_not_sent(line: str) -> None:
    """What was meant as a command must not go to the whole room."""
    asked = parse(line)
    assert isinstance(asked, Mistake) and asked.text


def test_help_names_every_command() -> None:
    """And each is understood; no line is broken in a window of 80 columns."""
    assert max(map(len, HELP)) <= 76  # three more stand before each
    for name in COMMANDS:
        assert any(line.startswith(f"/{name}") for line in HELP)
        assert isinstance(parse(f"/{name}"), Command)


@pytest.mark.parametrize(
    ("before", "completion"),
    [
        ("/w", Completion(2, "/who ", ["/who"])),
        ("/h", Completion(2, "/h", ["/help", "/history"])),
        ("/hi", Completion(3, "/history ", ["/history"])),
        ("/x", Completion(2, "/x", [])),
        ("//w", Completion(3, "//w", [])),
        ("", Completion(0, "", [])),
        ("x ", Completion(0, "", [])),
        ("be", Completion(2, "Bert", ["Bert", "Berta"])),
        ("bert", Completion(4, "bert", ["Bert", "Berta"])),
        ("berta", Completion(5, "Berta: ", ["Berta"])),
        ("hello berta", Completion(5, "Berta ", ["Berta"])),
        ("hello @c", Completion(1, "cem ", ["cem"])),
        ("z", Completion(1, "z", [])),
    ],
)
def test_completion(before: str, completion: Completion) -> None:
    """Commands at the beginning, names everywhere; as much as all candidates have in common."""
    assert complete(before, ["cem", "Berta", "Bert", "Bert"]) == completion
