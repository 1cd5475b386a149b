"""What ``COMMAND --help`` shows: one screen. ``--help-all`` and the man page have the rest.

Options that most people need are described, each by the first phrase of its help; the others are
named, group by group. Nothing but the standard library is imported: see ``options.py``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence

from broadcast_server.options import Option

INDENT = 2
# Where descriptions begin.
COLUMN = 22


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
    """Return the page.

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
            lines += _described(_called(option), option.help.partition(";")[0] + ending, width)
    lines += ["", "more options:"]
    for title, group in groups.items():
        named = [_called(option) for option in group if option.name not in common]
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
    lines += ["", "examples:", *(" " * INDENT + example for example in examples)]
    lines += ["", *textwrap.wrap(closing, width)]
    return "\n".join(lines) + "\n"


def _called(option: Option) -> str:
    return f"{', '.join(option.flags)} {option.metavar}".rstrip()


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
