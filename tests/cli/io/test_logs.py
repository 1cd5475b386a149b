"""The command's log: what a peer has sent stays text, and nobody waits for who reads it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import Any

import pytest

from broadcast_server.cli.io import logs

from ...support import wait_until
from ...support.inside import lines_in, set_log_handler


def record_of(message: str, **extra: Any) -> logging.LogRecord:
    fields = {"name": "broadcast_server.hub", "levelname": "INFO", "msg": message, "created": 0.25}
    return logging.makeLogRecord(fields | extra)


def test_text_log_escapes_what_a_peer_could_have_sent() -> None:
    """A client's name can neither forge a line nor steer the terminal."""
    line = logs.TextFormatter().format(record_of("n\nm\x1b[2J\u202e é"))
    assert line == "1970-01-01T00:00:00.250Z INFO broadcast_server.hub: n\\nm\\x1b[2J\\u202e é"


def test_log_is_redirected_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who draws on the terminal gets its lines, all of them before it ends."""
    reader, writer = os.pipe()
    handler = logs.BackgroundHandler(writer)
    set_log_handler(monkeypatch, handler)
    shown: list[str] = []
    try:
        with logs.redirected(shown.append):
            for text in ("one", "two\nthree"):
                handler.handle(logging.LogRecord("n", logging.INFO, "f", 1, text, None, None))
        handler.handle(logging.LogRecord("n", logging.INFO, "f", 1, "four", None, None))
        handler.close()
        assert shown == ["one", "two", "three"]
        assert os.read(reader, 100) == b"four\n"
    finally:
        os.close(reader)
        os.close(writer)
    set_log_handler(monkeypatch, None)
    with logs.redirected(shown.append):
        pass


def test_log_is_kept_back_until_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it then, in order; dropped where nobody asks for it, also by who fails."""
    reader, writer = os.pipe()
    handler = logs.BackgroundHandler(writer)
    set_log_handler(monkeypatch, handler)

    def log(text: str) -> None:
        handler.handle(logging.LogRecord("n", logging.INFO, "f", 1, text, None, None))

    try:
        with logs.held():
            log("dropped")
        with pytest.raises(KeyError), logs.held():
            log("dropped as well")
            raise KeyError
        with logs.held() as write:
            log("one")
            log("two")
            write()
            log("three")
        log("four")
        handler.close()
        assert os.read(reader, 100) == b"one\ntwo\nthree\nfour\n"
    finally:
        os.close(reader)
        os.close(writer)
    set_log_handler(monkeypatch, None)
    with logs.held() as write:
        write()


@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JSONFormatter()])
def test_log_has_the_traceback(formatter: logging.Formatter) -> None:
    """A failure in user code can be found by its log."""
    try:
        raise KeyError("gone")
    except KeyError as error:
        record = record_of("failed", exc_info=(KeyError, error, error.__traceback__))
    assert "KeyError: 'gone'" in formatter.format(record)


def test_traceback_in_the_log_is_escaped() -> None:
    """An exception may repeat what somebody has sent."""
    try:
        raise ValueError("\x1b[2J\u202e")
    except ValueError as error:
        record = record_of("failed", exc_info=(ValueError, error, error.__traceback__))
    lines = logs.TextFormatter().format(record).split("\n")
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: \\x1b[2J\\u202e"


def test_json_log_is_one_object_a_line() -> None:
    """A machine gets every field of a record, also those of ``extra``."""
    line = logs.JSONFormatter().format(record_of("a\nb", client="c1"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "info",
        "logger": "broadcast_server.hub",
        "message": "a\nb",
        "client": "c1",
    }


def test_log_that_nobody_reads_holds_nobody_up() -> None:
    """Who logs goes on; what was left out is counted in its place, and the rest is in order."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    handler = logs.BackgroundHandler(writer, limit=100)
    handler.setFormatter(logging.Formatter("%(message)s"))
    try:
        handler.handle(record_of("in the making"))
        assert wait_until(lines_in(handler).empty)
        for number in range(150):
            handler.handle(record_of(str(number)))
        with open(reader, "rb", closefd=False) as log:
            assert log.read(filled) == bytes(filled)
            expected = ["in the making", *map(str, range(100))]
            assert [log.readline().decode().strip() for _ in expected] == expected
            handler.handle(record_of("late"))
            assert log.readline() == b"50 records were left out: the log is read too slowly\n"
            assert log.readline() == b"late\n"
    finally:
        os.close(reader)
        handler.close()
        os.close(writer)
