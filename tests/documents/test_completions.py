"""Shell completion: the committed scripts, in the shells themselves, at a terminal.

A key is pressed where a user would press it, and what the shell has made of the line is told by a
command of that name, which prints its arguments.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import runpy
import shutil
from collections.abc import Iterator

import pytest

from ..support import ROOT, needs_module, python_environment
from ..support.pseudo_terminal import PseudoTerminal

pytestmark = pytest.mark.slow

FOLDER = ROOT / "docs" / "completions"
BASH_COMPLETION = pathlib.Path("/usr/share/bash-completion/bash_completion")

# Where each is installed, below share/ (setup.cfg).
PLACES = {
    "bash": ("bash/broadcast-server", "bash-completion/completions"),
    "zsh": ("zsh/_broadcast-server", "zsh/site-functions"),
    "fish": ("fish/broadcast-server.fish", "fish/vendor_completions.d"),
}
COMMANDS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--private", "--interactive"],
}
# What a user's own start-up file does, or the system's.
BEGINNINGS = {
    "bash": f". {BASH_COMPLETION}",
    "zsh": "fpath=($SHARE/zsh/site-functions $fpath); autoload -U compinit; compinit -u -D",
    "fish": "set -g fish_greeting",
}


def test_scripts_are_fresh() -> None:
    """The committed files are what the parser gives now (make docs)."""
    needs_module("shtab")
    made = runpy.run_path(str(FOLDER / "make_completions.py"))
    for shell, path in made["FILES"].items():
        assert path.read_text(encoding="utf-8") == made["completion"](shell), shell


class Shell(PseudoTerminal):
    """A shell at a terminal, with the completion where the package puts it."""

    def __init__(self, shell: str, place: pathlib.Path) -> None:
        share, home, binaries = place / "share", place / "home", place / "bin"
        source, folder = PLACES[shell]
        (share / folder).mkdir(parents=True)
        shutil.copy(FOLDER / source, share / folder)
        home.mkdir()
        binaries.mkdir()
        command = binaries / "broadcast-server"
        command.write_text('#!/bin/sh\nprintf "<%s>" "$@"\necho "<end"">"\n')
        command.chmod(0o755)
        environment = {
            **python_environment(),
            "HOME": str(home),
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "SHARE": str(share),
            "XDG_DATA_DIRS": f"{share}:/usr/local/share:/usr/share",
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "data"),
            "TERM": "xterm",
            "PS1": "$ ",
        }
        super().__init__(COMMANDS[shell], env=environment, cwd=place)
        self.type(f"{BEGINNINGS[shell]}\r")
        self.type("broadcast-server ready\r")
        self.wait_for("<ready><end>")

    def complete(self, line: str, *arguments: str) -> None:
        """Type a line, press TAB and Enter; check with which arguments the command was run."""
        self.shown = ""
        self.type(f"broadcast-server {line}\t\r")
        self.wait_for("".join(f"<{argument}>" for argument in arguments) + "<end>")


@contextlib.contextmanager
def shell_at_terminal(shell: str, place: pathlib.Path) -> Iterator[Shell]:
    """Run a shell; it is skipped where it is missing."""
    if shutil.which(shell) is None or (shell == "bash" and not BASH_COMPLETION.exists()):
        pytest.skip(f"{shell} or its completion is missing (make shells)")
    with contextlib.closing(Shell(shell, place)) as found:
        yield found


@pytest.mark.parametrize("shell", COMMANDS)
def test_shell_completes_commands_options_and_values(shell: str, tmp_path: pathlib.Path) -> None:
    """By TAB, from where the package is installed."""
    (tmp_path / "my-token").touch()
    with shell_at_terminal(shell, tmp_path) as terminal:
        terminal.complete("li", "listen")
        terminal.complete("pub", "publish")
        terminal.complete("--vers", "--version")
        terminal.complete("listen --cou", "listen", "--count")
        terminal.complete("listen --format js", "listen", "--format", "json")
        terminal.complete("start --log-level war", "start", "--log-level", "warning")
        terminal.complete("start --max-clients 5 --max-fra", *"start --max-clients 5".split(),
                          "--max-fragments")  # fmt: skip
        terminal.complete("publish hello --tok", "publish", "hello", "--token-file")
        terminal.complete("who --token-file my-t", "who", "--token-file", "my-token")
