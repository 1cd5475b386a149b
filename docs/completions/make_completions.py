"""Writes the shell completions beside this file from ``broadcast_server/cli/options/parser.py``.

Run it as ``make docs``; a test fails when the committed files differ. shtab writes them, from a
parser that is told what its options take: files, or one of a few words.
"""

from __future__ import annotations

import argparse
import pathlib

import shtab

from broadcast_server.cli.options.option import OneOf
from broadcast_server.cli.options.parser import PROG, build_parser
from broadcast_server.cli.options.words import SUMMARIES

HERE = pathlib.Path(__file__).parent
# Where each shell looks for it, below share/, is in setup.cfg.
FILES = {
    "bash": HERE / "bash" / PROG,
    "zsh": HERE / "zsh" / f"_{PROG}",
    "fish": HERE / "fish" / f"{PROG}.fish",
}
# shtab gives these names to functions in every script that it writes: those of two programs, made
# by different versions of it, would get into each other's way.
SHARED = (
    "_set_parser_defaults",
    "_set_new_action",
    "_shtab_compgen_files",
    "_shtab_compgen_dirs",
    "_shtab_replace_nonword",
)


def completion(shell: str) -> str:
    """Return the script for a shell."""
    text = shtab.complete(_parser(), shell=shell)
    for name in SHARED:
        text = text.replace(name, "_broadcast_server" + name)
    return text.rstrip() + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = build_parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, sub in action.choices.items():
                sub.description = SUMMARIES[command]
                for option in sub._actions:
                    _tell(option)
    return parser


def _tell(action: argparse.Action) -> None:
    """Add to an option what a shell can offer for it."""
    if action.help != argparse.SUPPRESS:
        action.help = (action.help or "").partition(";")[0].partition(" (default")[0]
    if action.dest in ("url", "urls", "words"):
        # Nothing can be offered. zsh would say so, and wait for a second TAB.
        action.complete = {"zsh": "( )"}  # type: ignore[attr-defined]
    if action.metavar == "FILE":
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    if isinstance(action.type, OneOf):
        action.choices = action.type.words


if __name__ == "__main__":
    for shell, path in FILES.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(completion(shell), encoding="utf-8")
