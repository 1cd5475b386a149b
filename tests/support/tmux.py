"""A real terminal for tests and pictures: a shell in a tmux of its own, whose screen can be read.

``make tmux`` installs tmux. Its server has its own socket and no configuration, so that nobody's
own tmux is touched.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator

from . import command_environment, wait_until

SECONDS = 20.0
PROMPT = "$"


def find_tmux() -> str | None:
    """Return the path of tmux; None if there is none."""
    return shutil.which("tmux")


class Tmux:
    """One window with a shell in it.

    Attributes:
        folder: a folder of its own, which is also the user's state folder.
        raw: the file with every byte that was written to the terminal.
    """

    def __init__(
        self, folder: pathlib.Path, columns: int, rows: int, environ: dict[str, str]
    ) -> None:
        self.folder = folder
        self.raw = folder / "raw"
        self._path = find_tmux() or "tmux"
        self._environ = command_environment(LC_ALL="C.UTF-8", XDG_STATE_HOME=str(folder))
        for name in ("NO_COLOR", "TMUX"):
            self._environ.pop(name, None)
        self._environ |= environ
        size = ["-x", str(columns), "-y", str(rows)]
        # tmux drops PS1.
        shell = f"env PS1='{PROMPT} ' sh"
        (folder / "tmux.conf").write_text("set-option -g history-limit 100000\n")
        self._tmux("-f", str(folder / "tmux.conf"), "new-session", "-d", *size, shell)
        self._tmux("pipe-pane", f"cat > {shlex.quote(str(self.raw))}")
        assert wait_until(lambda: self.screen() == [PROMPT], SECONDS)

    def _tmux(self, *arguments: str) -> str:
        command = [self._path, "-S", str(self.folder / "socket"), *arguments]
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, env=self._environ, check=True
        )
        return result.stdout

    def type(self, text: str) -> None:
        """Press keys; a line end is Enter."""
        for line in re.split("(\n)", text):
            if line == "\n":
                self.key("Enter")
            elif line:
                self._tmux("send-keys", "-l", "--", line)

    def key(self, *names: str) -> None:
        """Press keys by their names: C-c, Up, Tab, …"""
        self._tmux("send-keys", *names)

    def paste(self, text: str, *, marked: bool = True) -> None:
        """Paste as a terminal does: marked as pasted if the program has asked for that, and the
        terminal can."""
        # From a file: tmux takes no longer arguments than fit into one of its own messages.
        pasted = self.folder / "pasted"
        pasted.write_text(text)
        how = ["-p"] if marked else []
        self._tmux("load-buffer", str(pasted), ";", "paste-buffer", *how, "-r")

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self, *, all: bool = False, styles: bool = False, joined: bool = False) -> list[str]:
        """Return what is seen, without spaces at the ends of lines and empty lines at the end.

        Args:
            all: with what has scrolled out of the window.
            styles: with the escape sequences of colours and the like.
            joined: rows that the terminal has broken are one line.
        """
        more = ["-S", "-"] * all + ["-e"] * styles + ["-J"] * joined
        lines = [line.rstrip() for line in self._tmux("capture-pane", "-p", *more).split("\n")]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def talk(self) -> list[str]:
        """Return the screen with every time of a message as HH:MM."""
        return [re.sub(r"^\d\d:\d\d ", "HH:MM ", line) for line in self.screen()]

    def wait_for(self, wanted: str | Callable[[list[str]], bool]) -> list[str]:
        """Wait until a text is on the screen, or until the screen is as it should be; return it."""

        def is_there() -> bool:
            if isinstance(wanted, str):
                return any(wanted in line for line in self.screen(joined=True))
            return wanted(self.screen())

        assert wait_until(is_there, SECONDS), "\n".join(self.screen())
        return self.screen()

    def see(self, *lines: str, after: int = 0) -> None:
        """Wait until the screen is exactly this, with HH:MM for times; "" for an empty line.

        Args:
            after: so many lines at its top, whatever is in them.
        """
        wanted = list(lines)
        assert wait_until(lambda: self.talk()[after:] == wanted, SECONDS), "\n".join(self.talk())

    def start(self, command: str, until: str = "/help lists the commands") -> None:
        """Run a command on a cleared screen and wait for a text."""
        self.type(f"clear; {command}\n")
        self.wait_for(until)

    def status(self) -> int:
        """Wait until the shell is back; return the exit status of the last command."""
        self.wait_for(lambda screen: bool(screen) and screen[-1] == PROMPT)
        self.type("echo status $?\n")
        self.wait_for(lambda screen: len(screen) > 1 and screen[-2].startswith("status "))
        return int(self.screen()[-2].split()[1])

    def settings(self) -> str:
        """Return the modes of the terminal, as stty tells them, once the shell is back."""
        # What is waited for must not stand in the line that is typed.
        self.type("clear; stty -a > settings; stty -g >> settings; echo to''ld\n")
        self.wait_for("told")
        return (self.folder / "settings").read_text()

    def close_window(self) -> None:
        """Close the window; a server is left without one."""
        self._tmux("set-option", "-s", "exit-empty", "off", ";", "kill-pane")

    def end(self) -> None:
        """End the terminal and everything in it."""
        self._tmux("kill-server")

    def rang(self) -> bool:
        """Tell whether the bell was rung."""
        return b"\a" in self.raw.read_bytes()


@contextlib.contextmanager
def terminal(columns: int = 60, rows: int = 16, **environ: str) -> Iterator[Tmux]:
    """Run a shell in a terminal; the test is skipped where there is no tmux.

    Args:
        columns, rows: its size.
        environ: variables for the shell and what it starts.
    """
    import pytest

    if find_tmux() is None:
        pytest.skip("there is no tmux (as root: make tmux)")
    # A socket's path has 107 bytes at most: pytest's folders are too deep.
    with tempfile.TemporaryDirectory(prefix="tmux-") as folder:
        found = Tmux(pathlib.Path(folder), columns, rows, environ)
        try:
            found.type(f"cd {shlex.quote(folder)}; clear\n")
            found.see(PROMPT)
            yield found
        finally:
            found.end()
