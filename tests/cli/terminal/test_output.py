"""The terminal on which prompt_toolkit draws, without a screen; with one: test_app.py."""

from __future__ import annotations

import io
import os

import pytest

from ...support import needs_module

needs_module("prompt_toolkit")

from prompt_toolkit.data_structures import Size  # noqa: E402

from broadcast_server.cli.terminal.output import ColorDepth, SteadyOutput, terminal_output  # noqa: E402


class Writes(io.StringIO):
    """A terminal that notes each write."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[str] = []

    def write(self, text: str) -> int:
        """Note it; an empty one is none."""
        self.all += [text] * bool(text)
        return len(text)


def test_what_is_drawn_in_one_go_is_one_write() -> None:
    """No half of a picture is seen, and nothing is left behind after a failure."""
    terminal = Writes()
    output = SteadyOutput(terminal, lambda: Size(10, 80))
    with output.one_write():
        for text in ("one", "two"):
            output.write(text)
            output.flush()
        assert terminal.all == []
    assert terminal.all == ["onetwo"]
    with pytest.raises(OSError, match="made by the test"), output.one_write():
        output.write("three")
        raise OSError("made by the test")
    output.write("four")
    output.flush()
    assert "".join(terminal.all) == "onetwothreefour"


def test_modes_are_what_is_asked_for_and_last() -> None:
    """prompt_toolkit would take bracketed paste back with each drawing."""
    terminal = Writes()
    output = SteadyOutput(terminal, lambda: Size(10, 80))
    output.write_modes("\x1b[?2004h")
    output.disable_bracketed_paste()
    output.enable_bracketed_paste()
    output.flush()
    assert terminal.all == ["\x1b[?2004h"]


def test_colours_are_not_drawn_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR."""
    monkeypatch.setenv("NO_COLOR", "1")
    output = terminal_output()
    assert output.get_default_color_depth() == ColorDepth.DEPTH_1_BIT
    assert not output.responds_to_cpr


def test_what_a_signal_interrupts_is_written_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With PYTHONUNBUFFERED standard output gives up what the system has not taken at once."""
    with open(os.devnull, "wb", buffering=0) as raw:
        stream = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
        monkeypatch.setattr("sys.stdout", stream)
        output = terminal_output()
        assert isinstance(output.stdout, io.TextIOWrapper)
        assert isinstance(output.stdout.buffer, io.BufferedWriter)
        assert output.fileno() == raw.fileno()
        stream.detach()
