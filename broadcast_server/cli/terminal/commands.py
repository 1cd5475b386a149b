"""What a user types at a terminal, understood; no I/O.

A line is a message, unless it begins with one slash: then it is a command, or a mistake that is
told. With two slashes it is a message that begins with one. Tab completes the names of commands
and of those who are here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

# What each command takes, and what it does: for /help and for Tab.
COMMANDS = {
    "help": ("", "list the commands"),
    "history": ("N", "show the last N messages of the room again"),
    "name": ("NAME", "take another name; alone, tell yours"),
    "quit": ("", "leave; so do Ctrl-D on an empty line, and Ctrl-C at any time"),
    "room": ("PATH", "go to another room, such as /scores; alone, tell this one"),
    "who": ("", "list who is here"),
}
DEFAULT_HISTORY = 10

HELP = [
    *(f"/{name} {takes}".ljust(14) + text for name, (takes, text) in COMMANDS.items()),
    "//".ljust(14) + "begins a message that begins with a slash",
    "Tab".ljust(14) + "completes commands and names",
    "Up, Ctrl-R".ljust(14) + "bring back what you have typed before",
]


class Say(NamedTuple):
    """Send a message."""

    text: str


class Mistake(NamedTuple):
    """What cannot be done, and why."""

    text: str


class Command(NamedTuple):
    """Carry out a command.

    Attributes:
        name: a key of `COMMANDS`.
        argument: what stands behind it, "" for nothing.
    """

    name: str
    argument: str


class Completion(NamedTuple):
    """How the text before the cursor could go on.

    Attributes:
        length: how many of its last characters are replaced.
        insert: what takes their place: what all candidates have in common, or the only one.
        candidates: all that there are, in order.
    """

    length: int
    insert: str
    candidates: list[str]


def parse(line: str) -> Say | Command | Mistake | None:
    """Return what a line asks for; None for nothing.

    Args:
        line: what was typed, without its end.
    """
    if not line.strip():
        return None
    if line.startswith("//"):
        return Say(line[1:])
    if not line.startswith("/"):
        return Say(line)
    name, _, argument = line[1:].partition(" ")
    argument = argument.strip()
    if name not in COMMANDS:
        return Mistake(f"/{name} is no command; /help lists them, and // begins a message with /")
    takes, _ = COMMANDS[name]
    if argument and not takes:
        return Mistake(f"/{name} takes nothing behind it")
    if name == "history":
        if not argument:
            return Command(name, str(DEFAULT_HISTORY))
        if not (argument.isascii() and argument.isdigit() and 0 < int(argument[:9]) < 10**8):
            return Mistake(f"/history takes a number of messages, such as {DEFAULT_HISTORY}")
    if name == "room" and argument and not argument.startswith("/"):
        argument = "/" + argument
    return Command(name, argument)


def complete(before: str, names: Iterable[str]) -> Completion:
    """Return how a line could go on.

    Args:
        before: the line up to the cursor.
        names: of those who are here.
    """
    if before.startswith("/") and not before.startswith("//") and " " not in before:
        found = sorted(f"/{name}" for name in COMMANDS if f"/{name}".startswith(before))
        return _completion(before, found, " ")
    word = before.rpartition(" ")[2].removeprefix("@")
    if not word:
        return Completion(0, "", [])
    wanted = word.casefold()
    found = sorted({n for n in names if n.casefold().startswith(wanted)}, key=str.casefold)
    return _completion(word, found, ": " if word == before else " ")


def _completion(typed: str, found: list[str], end: str) -> Completion:
    if len(found) == 1:
        return Completion(len(typed), found[0] + end, found)
    # Names may differ in the case of what was typed already; then that stays.
    common = _common_beginning(found)
    return Completion(len(typed), common if len(common) > len(typed) else typed, found)


def _common_beginning(texts: list[str]) -> str:
    """Return what all texts begin with."""
    columns = zip(*texts, strict=False)
    return "".join(
        characters[0] for characters in itertools.takewhile(lambda c: len(set(c)) == 1, columns)
    )
