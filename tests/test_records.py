"""No record of the package has a line, or a control character, that a stranger has chosen."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import pathlib
import traceback
from collections.abc import Iterator

import pytest

import broadcast_server
from broadcast_server import BroadcastClient, Message
from broadcast_server.records import get_logger, traceback_text

from .support import RawClient, running_hub, wait_until
from .support.beside import in_thread
from .support.raw_server import SECONDS, event_pair

PACKAGE = pathlib.Path(broadcast_server.__file__).parent
METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
FORGED = "\n2026-11-25 INFO forged\x1b[2J\u202e"
ESCAPED = r"\n2026-11-25 INFO forged\x1b[2J\u202e"


@contextlib.contextmanager
def written(level: int = logging.DEBUG) -> Iterator[io.StringIO]:
    """Log as a program does that knows nothing of strangers: the default formatter, to a file."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    top = logging.getLogger("broadcast_server")
    before = top.level
    top.addHandler(handler)
    top.setLevel(level)
    try:
        yield stream
    finally:
        top.removeHandler(handler)
        top.setLevel(before)


def test_arguments_are_escaped_and_numbers_stay() -> None:
    """Texts, objects and mappings, whatever formatter writes them."""
    logger = get_logger("broadcast_server.test")
    with written() as log:
        logger.warning("%s is %d and %.1f of %s", FORGED, 1, 0.5, ValueError(FORGED))
        logger.warning("%(who)s left", {"who": FORGED})
        logger.warning("%s %s", None, [FORGED])
    assert log.getvalue().splitlines() == [
        f"{ESCAPED} is 1 and 0.5 of {ESCAPED}",
        f"{ESCAPED} left",
        f"None [{FORGED!r}]",
    ]


def test_object_that_cannot_be_shown_is_named() -> None:
    """A log does not fail because of somebody's ``__str__``."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    logger = get_logger("broadcast_server.test")
    with written() as log:
        logger.warning("%s", Broken())
    assert log.getvalue() == "<Broken that cannot be shown>\n"


def test_filter_is_there_once() -> None:
    """Six modules share one logger."""
    assert get_logger("broadcast_server.hub") is get_logger("broadcast_server.hub")
    assert len(get_logger("broadcast_server.hub").filters) == 1


def test_traceback_is_that_of_the_standard_library() -> None:
    """With causes and contexts; only what an exception says is one line each."""

    def fail(text: str) -> BaseException:
        try:
            try:
                try:
                    raise KeyError("first")
                except KeyError:
                    raise broadcast_server.UsageError(text)  # noqa: B904
            except ValueError as error:
                raise RuntimeError from error
        except RuntimeError as error:
            return error

    plain = fail("text")
    assert traceback_text(plain) == "".join(traceback.format_exception(plain)).rstrip("\n")
    forged = fail(FORGED)
    text = traceback_text(forged)
    assert ESCAPED in text and "\n2026" not in text and "\x1b" not in text
    lone = ValueError(FORGED)
    lone.__context__ = lone
    assert traceback_text(lone) == f"ValueError: {ESCAPED}"


def test_every_logger_of_the_package_is_one_that_escapes() -> None:
    """And every record is a constant with arguments, so nothing gets past the filter."""
    calls = 0
    others = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        made = {
            ast.unparse(step.value.func)
            for step in ast.walk(tree)
            if isinstance(step, ast.Assign)
            and ast.unparse(step.targets[0]) == "logger"
            and isinstance(step.value, ast.Call)
        }
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            owner, method = ast.unparse(call.func.value), call.func.attr
            where = f"{path.name}:{call.lineno}"
            if method == "getLogger":
                others.add(path.relative_to(PACKAGE).as_posix())
            assert owner != "logging" or method not in METHODS, where
            if owner == "logger":
                assert made == {"get_logger"} and method in METHODS, where
                message = call.args[method == "log"]
                assert isinstance(message, ast.Constant), where
                assert isinstance(message.value, str), where
                calls += 1
    assert calls > 40
    # These set the root logger or a level; none of them logs by what it gets.
    assert others == {"records.py", "hub/handler.py", "cli/io/logs.py", "cli/io/target.py"}


def test_close_reason_forges_no_line_in_the_log_of_a_client() -> None:
    """Neither in the library's own records nor in what a program logs of its exceptions."""
    reason = "bye" + FORGED
    with written() as log, event_pair(reconnect=True) as (client, server, listening):
        coming_back = in_thread(listening.refuse, 410)
        server.send_close(1012, reason)
        coming_back.result(SECONDS)
        with pytest.raises(broadcast_server.ConnectFailed):
            client.recv(SECONDS)
    assert f"connection lost, coming back: 1012 bye{ESCAPED}\n" in log.getvalue()
    with event_pair(reconnect=False) as (client, server, _):
        server.send_close(1000, reason)
        with pytest.raises(broadcast_server.ConnectionClosed) as caught:
            client.recv(SECONDS)
    assert str(caught.value) == f"1000 bye{ESCAPED}"
    assert caught.value.reason == client.close_reason == reason


def test_hub_writes_nothing_that_strangers_chose_as_it_is() -> None:
    """A Close reason, a header, a path, a name; and what a filter says of a message."""

    def refuse(message: Message) -> Message:
        raise ValueError(f"bad {message.data!s}")

    with written() as log, running_hub(filter=refuse) as hub:
        with RawClient.connect(port=hub.port) as client:
            client.send(FORGED)
            client.send_close(1000, FORGED)
            client.recv_close()
            client.recv_eof()
        with BroadcastClient(hub.url + "r%E2%80%AEoom"):
            pass
        assert wait_until(lambda: log.getvalue().count(" left ") == 2)
    lines = log.getvalue().splitlines()
    assert f"ValueError: bad {ESCAPED}" in lines
    assert any(line.endswith(f"left /: 1000 {ESCAPED}") for line in lines)
    assert not any(line.startswith("2026") for line in lines)
    assert log.getvalue().replace("\n", "").isprintable()
