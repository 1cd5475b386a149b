"""Standard output, and lines of standard input."""

from __future__ import annotations

import os
import threading

import pytest

from broadcast_server import streams
from broadcast_server.streams import Lines


def test_lines_are_whole_and_without_their_ends() -> None:
    """However they come in pieces."""
    lines = Lines()
    assert lines.feed(b"on") == []
    assert lines.feed(b"e\n\ntwo\r") == [b"one", b""]
    assert lines.feed(b"\nthree") == [b"two"]
    assert lines.end() == [b"three"]
    assert Lines().end() == []


def test_line_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is not for whoever sends no line end."""
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 5)
    lines = Lines()
    assert lines.feed(b"12345") == []
    with pytest.raises(ValueError, match="more than 5 bytes"):
        lines.feed(b"6")


def test_bytes_are_written_whatever_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody else has made the stream non-blocking; the reader is waited for."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = b"x" * 300_000
    got = bytearray()

    def read() -> None:
        while piece := os.read(reader, 4096):
            got.extend(piece)

    thread = threading.Thread(target=read)
    with open(writer, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        thread.start()
        assert streams.write_bytes(data) is True
    thread.join(20)
    os.close(reader)
    assert bytes(got) == data


def test_reader_that_has_gone_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told apart from a full disk; what is written later goes nowhere."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert streams.write_bytes(b"x") is None
        assert streams.write_bytes(b"x") is True
    assert capsys.readouterr().err == ""
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert streams.write_bytes(b"x") is False
    assert "No space left" in capsys.readouterr().err
