"""What an option of the command is: its name, its default, how its value is read.

The options themselves are in ``cli/options/tables.py``. argparse-manpage makes the man page from
them in a build that has none of our dependencies, so nothing but the standard library is imported.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple


def _port(text: str) -> int:
    number = _whole(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not between 0 and 65535")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from None
    return text


class OneOf:
    """Takes one of a few words.

    Attributes:
        words: which; shells complete them.
    """

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, text: str) -> str:
        if text not in self.words:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(self.words)}")
        return text


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither 1 nor 0")


# What a value stands for says how it is read. An option without one is a flag; only its variable
# has a value.
KINDS: dict[str, Callable[[str], Any]] = {
    "": _flag,
    "ADDRESS": _text,
    "BYTES": _whole,
    "COMMAND": _text,
    "COUNT": _whole,
    "FILE": _text,
    "FORM": OneOf("text", "json", "raw"),
    "FORMAT": OneOf("text", "json"),
    "HEADER": _text,
    "ID": _text,
    "KEY": _text,
    "LEVEL": OneOf("debug", "info", "warning", "error"),
    "NAME": _text,
    "NETWORK": _text,
    "ORIGIN": _text,
    "PATH": _text,
    "PORT": _port,
    "PROTOCOL": _text,
    "SECONDS": _seconds,
}


class Option(NamedTuple):
    """One option of a command."""

    # Its name without dashes, a space, and what its value is: a key of KINDS. Of a flag the name.
    spec: str
    default: Any
    help: str
    shown: str = ""  # how the default reads, where str() does not say it
    many: bool = False
    letter: str = ""  # a short name, of one letter
    alias: str = ""  # another name, without dashes

    @property
    def name(self) -> str:
        return self.spec.partition(" ")[0]

    @property
    def flags(self) -> list[str]:
        """How it is written on the command line."""
        short = [f"-{self.letter}"] if self.letter else []
        return [*short, *([f"--{self.alias}"] if self.alias else []), f"--{self.name}"]

    @property
    def metavar(self) -> str:
        return self.spec.partition(" ")[2]

    @property
    def shown_flags(self) -> str:
        """All that it is called, and what its value is: ``-H, --header HEADER``."""
        return f"{', '.join(self.flags)} {self.metavar}".rstrip()

    @property
    def type(self) -> Callable[[str], Any]:
        return KINDS[self.metavar]

    @property
    def dest(self) -> str:
        return self.name.replace("-", "_")

    def variable(self, command: str) -> str:
        """The environment variable that sets this option of `command`."""
        # A shell that runs both wants them apart: the hub listens on 0.0.0.0, no client can
        # connect there; and what a hub keeps is not what everybody wants to see.
        apart = command != "start" and self.name in ("host", "port", "history")
        return "BROADCAST_SERVER_" + ("CONNECT_" if apart else "") + self.dest.upper()

    def parse_variable(self, text: str) -> Any:
        """The value of a variable; a repeatable option takes a list parted by commas or spaces,
        but header lines by line ends."""
        if self.many:
            between = r"\n" if self.metavar == "HEADER" else r"[\s,]+"
            return [self.type(word) for word in re.split(between, text.strip()) if word]
        return self.type(text)

    def full_help(self) -> str:
        return f"{self.help} (default: {self.shown or self.default})"

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        """Let a parser take it."""
        text = self.full_help()
        if not self.metavar:
            group.add_argument(
                *self.flags,
                dest=self.dest,
                action="store_true",
                default=argparse.SUPPRESS,
                help=text,
            )
            return
        group.add_argument(
            *self.flags,
            dest=self.dest,
            action="append" if self.many else "store",
            type=self.type,
            metavar=self.metavar,
            default=argparse.SUPPRESS,
            help=text,
        )


def logging_options(level: str) -> list[Option]:
    return [
        Option(
            "log-level LEVEL",
            level,
            "least serious log records to write to standard error: debug, info, warning or error",
        ),
        Option(
            "log-format FORMAT",
            "text",
            "form of the log: text for people, json for one JSON object a line",
        ),
    ]


def did_you_mean(typed: Sequence[str], known: Collection[str]) -> str:
    """Return what to put behind an error about a word that is not known: the one it is like, if
    there is any.

    Args:
        typed: the words; only the first one counts, up to a ``=``.
        known: all that there are.
    """
    word = typed[0].partition("=")[0] if typed else ""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f" (did you mean {found[0]}?)" if found else ""
