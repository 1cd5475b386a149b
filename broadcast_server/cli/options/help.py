"""What ``--help`` shows: one screen. ``--help-all`` and the man page have the rest.

Without a command it says which there are. Of a command the options that most people need are
described, each by the first phrase of its help; the others are named, group by group. Nothing but
the standard library is imported: see ``cli/options/option.py``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence

from .option import Option

INDENT = 2
# Where descriptions begin.
COLUMN = 22


def overview(
    usage: str,
    description: str,
    sections: Mapping[str, Mapping[str, str]],
    examples: Sequence[str],
    closing: str,
    width: int,
) -> str:
    """Return the page of the program itself.

    Args:
        usage: the line that begins it.
        description: what the program does.
        sections: by their titles, what can be typed and what that does.
        examples: what one could type.
        closing: the last sentences.
        width: columns that may be used.
    """
    lines = [usage, "", *textwrap.wrap(description, width)]
    for title, entries in sections.items():
        lines += ["", f"{title}:"]
        for name, text in entries.items():
            lines += _described(name, text, width)
    return "\n".join([*lines, *_ending(examples, closing, width)]) + "\n"


def page(
    usage: str,
    description: str,
    operands: Mapping[str, str],
    groups: Mapping[str, Sequence[Option]],
    common: Collection[str],
    examples: Sequence[str],
    closing: str,
    width: int,
) -> str:
    """Return the page of a command.

    Args:
        usage: the line that begins it.
        description: what the command does.
        operands: what is no option, and what each is.
        groups: the options under their titles.
        common: the names of those that are described.
        examples: what one could type.
        closing: the last sentences.
        width: columns that may be used.
    """
    lines = [usage, "", *textwrap.wrap(description, width), ""]
    for name, text in operands.items():
        lines += _described(name, text.partition(";")[0], width)
    options = [option for group in groups.values() for option in group]
    for option in options:
        if option.name in common:
            default = option.shown or str(option.default)
            ending = "" if default in ("none", "off") else f" ({default})"
            lines += _described(option.shown_flags, option.help.partition(";")[0] + ending, width)
    lines += ["", "more options:"]
    for title, group in groups.items():
        named = [option.shown_flags for option in group if option.name not in common]
        if named:
            text = f"{title}: " + " ".join(name.replace(" ", "\0") for name in named)
            wrapped = textwrap.wrap(
                text,
                width,
                initial_indent=" " * INDENT,
                subsequent_indent=" " * INDENT * 2,
                break_on_hyphens=False,
            )
            lines += [line.replace("\0", " ") for line in wrapped]
    return "\n".join([*lines, *_ending(examples, closing, width)]) + "\n"


def _ending(examples: Sequence[str], closing: str, width: int) -> list[str]:
    indented = [" " * INDENT + example for example in examples]
    return ["", "examples:", *indented, "", *textwrap.wrap(closing, width)]


def _described(name: str, text: str, width: int) -> list[str]:
    """Return a name on the left and what it is on the right."""
    head = " " * INDENT + name
    wrapped = textwrap.wrap(
        text,
        max(width, COLUMN + 20),
        initial_indent=" " * COLUMN,
        subsequent_indent=" " * COLUMN,
        break_on_hyphens=False,
        break_long_words=False,
    )
    if len(head) + 2 > COLUMN:
        return [head, *wrapped]
    return [head.ljust(COLUMN) + wrapped[0].lstrip(), *wrapped[1:]]
