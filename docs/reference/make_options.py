"""Writes ``docs/reference/options.md`` from the options and operands of the commands.

Run it as ``make docs``; a test fails when the committed page differs.
"""

from __future__ import annotations

import pathlib
import re

from broadcast_server.cli.options import words
from broadcast_server.cli.options.option import Option
from broadcast_server.cli.options.parser import PROG
from broadcast_server.cli.options.tables import OPTIONS

HEAD = """\
<!-- Made by make_options.py from tables.py and words.py in broadcast_server/cli/options/: edit
those, then run `make docs`. -->
# Options

Each option can be given on the command line or by its environment variable; the command line wins.
An empty variable counts as unset, and so does one that begins `tcp://`. The limits of `start` are
also keywords of `BroadcastHub`, under the name of the option with underscores:
`--ping-interval 5` is `BroadcastHub(ping_interval=5)`. The defaults are the same, but for
`switch_interval`, which a library leaves alone.

Tokens are no options, because every user of a machine can read the arguments of a process. They
come from the files that are named here, or from the variables `BROADCAST_SERVER_TOKEN` and
`BROADCAST_SERVER_PUBLISH_TOKEN`; `BroadcastHub` has `token=`, `publish_token=` and `jwt_key=`, too.
"""


def page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD]
    for command, groups in OPTIONS.items():
        parts.append(f"\n## `{PROG} {command}`\n\n{marked(words.DESCRIPTIONS[command])}\n")
        parts.append(f"\n    {PROG} {command} {words.USAGES[command]}\n")
        operands = words.OPERANDS[command]
        parts += ["\n"] * bool(operands)
        parts += [f"- `{name}`: {marked(text)}\n" for name, text in operands.items()]
        for title, options in groups.items():
            parts.append(f"\n### {title.capitalize()}\n\n")
            parts += [_entry(option, command) for option in options]
    return "".join(parts)


def _entry(option: Option, command: str) -> str:
    """Return an option as an item of a list: a table of all this is too wide for a page."""
    default = marked(option.shown) if option.shown else f"`{option.default}`"
    return (
        f"- **`{option.shown_flags}`**\\\n"
        f"  {marked(option.help)}\\\n"
        f"  default: {default}; variable: `{option.variable(command)}`\n"
    )


def marked(text: str) -> str:
    """Return a text of the help with the names in it as code."""
    return re.sub(r"(--[a-z][a-z-]*\w|BROADCAST_\w+|\w+://[\w./:-]*\w|'.*?')", r"`\1`", text)


if __name__ == "__main__":
    pathlib.Path(__file__).with_name("options.md").write_text(page(), encoding="utf-8")
