"""The terminal on which prompt_toolkit draws, and where it has to do so otherwise than by itself.

What is drawn in one go is one write, the modes of the terminal stay while it runs, and a terminal
that gets narrower is cleared of what it has broken anew.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from prompt_toolkit.application import Application
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output


class SteadyOutput(Vt100_Output):
    """The terminal's output. Its modes stay for all of a run, and what is drawn in one go is one
    write.

    prompt_toolkit takes bracketed paste back with each drawing; what is pasted just then would come
    as if it were typed.
    """

    holding = False
    # What the terminal is asked to report, written before the next drawing.
    first_modes = ""

    def enable_bracketed_paste(self) -> None:
        """Write `first_modes`, once: prompt_toolkit calls this before each drawing."""
        modes, self.first_modes = self.first_modes, ""
        self.write_raw(modes)

    def disable_bracketed_paste(self) -> None:
        """Do nothing: `write_modes` does it."""

    def write_modes(self, modes: str) -> None:
        """Begin or end what the terminal is to report."""
        self.write_raw(modes)
        self.flush()

    def flush(self) -> None:
        """Write what was drawn, unless more is to come."""
        if not self.holding:
            super().flush()

    @contextlib.contextmanager
    def one_write(self) -> Iterator[None]:
        """Write nothing before the end of this."""
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
        self.flush()


def terminal_output() -> SteadyOutput:
    """Return standard output as the terminal that it is; ``NO_COLOR`` takes its colours."""
    # Of a stream without a buffer (PYTHONUNBUFFERED), what a signal interrupts would be lost.
    stream = open(sys.stdout.fileno(), "w", encoding=sys.stdout.encoding, closefd=False)
    output = SteadyOutput.from_pty(
        stream, term=os.environ.get("TERM"), default_color_depth=ColorDepth.from_env()
    )
    assert isinstance(output, SteadyOutput)
    output.enable_cpr = False
    return output


class ReflowedApplication(Application[None]):
    """An application in a terminal that breaks its rows anew when it gets narrower.

    Nearly all of them do. Then the cursor is further below what was drawn first than it was, and
    the rows above it would stay behind.
    """

    def _on_resize(self) -> None:
        self.output.cursor_up(self._rows_more())
        super()._on_resize()

    def _rows_more(self) -> int:
        """Return how many rows more there are above the cursor than were drawn."""
        screen = self.renderer.last_rendered_screen
        if screen is None:
            return 0
        width = self.output.get_size().columns
        cursor = screen.get_cursor_position(self.layout.current_window)
        rows = [screen.data_buffer[number] for number in range(cursor.y)]
        ends = [max((x for x, cell in row.items() if cell.char != " "), default=0) for row in rows]
        return sum(end // width for end in ends) + cursor.x // width
