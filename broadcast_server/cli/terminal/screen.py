"""What a terminal and the conversation in it expect of each other.

The conversation (cli/terminal/app.py) is the `Host`; there are two screens, with prompt_toolkit
(cli/terminal/prompt.py) and without (cli/terminal/plain.py).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Protocol

from .commands import Completion
from .status import Status
from .view import Line

# What ends a conversation, beside keys.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Host(Protocol):
    """What a screen asks and tells, on the thread that runs the screen. None of it waits."""

    def enter(self, line: str) -> bool:
        """Take a line; return whether it is done with, else it stays to be changed."""

    def say(self, texts: Sequence[str]) -> int:
        """Send messages as they are, whatever they begin with; return how many are on their way."""

    def complete(self, before: str) -> Completion:
        """Return how the text before the cursor could go on."""

    def status(self) -> Status:
        """Return where the user is."""

    def take_key(self) -> None:
        """Note that the user has pressed a key."""

    def take_focus(self, focused: bool) -> None:
        """Note that the window has got or lost the focus."""


class Screen(Protocol):
    """One terminal.

    Attributes:
        keeps_typed: whether what was typed stays to be seen by itself.
    """

    keeps_typed: bool

    def run(self) -> None:
        """Show what comes and take what is typed until `leave`, or until the user wants to leave;
        the terminal then is as it was. Main thread, once.

        Raises:
            Exception: what went wrong in the screen or in its host.
        """

    def leave(self) -> None:
        """Have `run` return, also one that was not begun yet. Any thread, and a signal handler."""

    def give_back(self) -> None:
        """Put the terminal back, waiting for nothing: the process ends. For a signal handler."""

    def show(
        self,
        lines: Sequence[Line],
        *,
        bell: bool = False,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        """Show lines, in the order of the calls. Any thread.

        It waits while more are waiting than can be shown; not on the thread of `run`.

        Args:
            lines: what to show.
            bell: whether to ring.
            still: asked when their turn has come, with nobody else's in between, whether they are
                to be shown. It must not wait.
        """

    def update(self) -> None:
        """Have the status asked for again. Any thread."""
