"""Standard output, and lines of standard input."""

from __future__ import annotations

import io
import os
import subprocess
import threading
from collections.abc import Callable

import pytest

from broadcast_server.cli.io import streams
from broadcast_server.cli.io.streams import Lines

from ...support import PYTHON, RawClient, command_environment, running_hub


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


@pytest.mark.parametrize(
    "write",
    [
        lambda: streams.write_bytes(b"x" * 300_000),
        lambda: streams.write_stdout("x" * 300_000),
    ],
)
def test_all_is_written_whatever_it_takes(
    monkeypatch: pytest.MonkeyPatch, write: Callable[[], bool | None]
) -> None:
    """Also where somebody else has made the stream non-blocking; the reader is waited for."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    got = bytearray()

    def read() -> None:
        while piece := os.read(reader, 4096):
            got.extend(piece)

    thread = threading.Thread(target=read)
    with open(writer, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        thread.start()
        assert write() is True
    thread.join(20)
    os.close(reader)
    assert bytes(got) == b"x" * 300_000


def test_what_a_character_set_has_not_is_escaped() -> None:
    """Others choose their names, and are listed in every locale."""
    with running_hub() as hub, RawClient.connect(port=hub.port, path="/?name=h%C3%B6rst%E2%82%AC"):
        finished = subprocess.run(
            [PYTHON, "-m", "broadcast_server", "who", hub.url],
            env=command_environment(PYTHONIOENCODING="latin-1"),
            capture_output=True,
            timeout=20,
        )
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert finished.stdout.split()[-1] == b"h\xf6rst\\u20ac"


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


def test_write_stdout_tells_when_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed write the stream leads nowhere, so that the interpreter's own cannot fail."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert not streams.write_stdout("text")
        assert streams.write_stdout("more")


def test_complain_survives_a_closed_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody left to tell."""
    reader, writer = os.pipe()
    os.close(reader)
    with io.TextIOWrapper(open(writer, "wb", buffering=0), write_through=True) as stream:
        monkeypatch.setattr("sys.stderr", stream)
        streams.complain("start", "nothing")
