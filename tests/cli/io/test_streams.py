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


# Lines.


def lines_of(*pieces: bytes, is_text: bool = True) -> list[bytes]:
    """Return the lines of a stream that is read in these pieces."""
    lines = streams.Lines(is_text=is_text)
    return [line for piece in pieces for line in lines.feed(piece)] + lines.end()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"\n", [b""]),
        (b"a\r\nb\n\n", [b"a", b"b", b""]),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", [b"a", b"\xef\xbb\xbfb"]),
        (b"\xef\xbb\xbf\n", [b""]),
        (b"\xef\xbb\n", [b"\xef\xbb"]),
        (b"ab\0c\n", [b"ab\0c"]),
        (b"\0\0\n", [b"\0\0"]),
    ],
)
def test_lines_are_the_same_in_all_pieces(text: bytes, lines: list[bytes]) -> None:
    """Also where a byte order mark comes byte by byte."""
    assert lines_of(text) == lines
    assert lines_of(*(text[at : at + 1] for at in range(len(text)))) == lines
    plain = lines_of(text, is_text=False)
    assert b"\n".join(plain) == text.removesuffix(b"\n").replace(b"\r", b"")


def test_first_line_is_there_with_its_end() -> None:
    """Nobody waits for a second one, however short it is."""
    assert streams.Lines().feed(b"\n") == [b""]
    assert streams.Lines().feed(b"a\n") == [b"a"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_utf_16_is_no_text_of_ours(encoding: str) -> None:
    """With a byte order mark or without; as lines of bytes it may be anything."""
    text = "h\u00e9llo\n".encode(encoding)
    if encoding == "utf-32-be":
        text = "\ufeffx".encode(encoding)
    for pieces in ([text], [text[at : at + 1] for at in range(len(text))]):
        with pytest.raises(ValueError, match="UTF-16"):
            lines_of(*pieces)
        assert b"\n".join(lines_of(*pieces, is_text=False)).rstrip(b"\n") == text.rstrip(b"\n")
    with pytest.raises(ValueError, match="UTF-16"):
        lines_of("a".encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-16"):
        lines_of("a".encode("utf-16-le"))
