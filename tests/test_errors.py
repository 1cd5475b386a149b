"""The tree of exceptions: who catches what, and what an exception tells."""

from __future__ import annotations

import inspect
import re

import pytest

import broadcast_server
from broadcast_server import errors
from broadcast_server.errors import (
    BroadcastServerError,
    ConnectFailed,
    ConnectionClosed,
    HubBusy,
    HubError,
    HubStopped,
    InvalidRoom,
    MessagesLost,
    MessageTooBig,
    ProtocolError,
    PublishFailed,
    SendRefused,
    UsageError,
)

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, Exception)
}


def documented_tree() -> dict[str, set[str]]:
    """Return the bases of each exception as the drawing at the module's top has them."""
    found: dict[str, set[str]] = {}
    path: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        match = re.match(r" {4}([│ ]*)(?:[├└]── )?([A-Z]\w+)(?: \((\w+)\))?", line)
        if match and ("──" in line or not path):
            del path[len(match[1]) // 4 + ("──" in line) :]
            found[match[2]] = {path[-1] if path else "Exception", *filter(None, [match[3]])}
            path.append(match[2])
    return found


def test_drawn_tree_is_the_real_one() -> None:
    """One look at the top of the module tells what to catch: every class stands there, rightly."""
    real = {name: {base.__name__ for base in value.__bases__} for name, value in CLASSES.items()}
    assert documented_tree() == real


def test_public_exceptions_are_those_of_this_module() -> None:
    """Who uses the library finds what it raises in the package itself, under one root."""
    assert all(issubclass(value, BroadcastServerError) for value in CLASSES.values())
    assert set(CLASSES) <= set(broadcast_server.__all__)
    assert all(getattr(broadcast_server, name) is value for name, value in CLASSES.items())


@pytest.mark.parametrize("kind", [HubError, HubStopped, HubBusy])
def test_hub_errors_carry_their_message(kind: type[HubError]) -> None:
    """The hub's state is not the caller's mistake: another family than ``UsageError``."""
    error = kind("not now")
    assert str(error) == "not now"
    assert isinstance(error, HubError) and not isinstance(error, ValueError)


@pytest.mark.parametrize("kind", [UsageError, MessageTooBig, InvalidRoom])
def test_mistakes_are_value_errors(kind: type[UsageError]) -> None:
    """Who does not know this package catches a ``ValueError``, as everywhere in Python."""
    error = kind("too big")
    assert str(error) == "too big"
    assert isinstance(error, ValueError)
    assert isinstance(error, UsageError)


def test_protocol_error_has_code_and_reason() -> None:
    """It tells with which Close to end the connection."""
    error = ProtocolError(1007, "text is not UTF-8")
    assert (error.code, error.reason) == (1007, "text is not UTF-8")
    assert str(error) == "1007 text is not UTF-8"


@pytest.mark.parametrize("status", [None, 403])
def test_connect_failed_has_the_status(status: int | None) -> None:
    """A refusal by HTTP can be told from a host that does not answer."""
    error = ConnectFailed("refused", status)
    assert (str(error), error.status) == ("refused", status)
    assert ConnectFailed("refused").status is None


@pytest.mark.parametrize(
    ("args", "code", "reason", "text"),
    [
        ((1000,), 1000, "", "1000"),
        ((1006, ""), 1006, "", "1006"),
        ((1013, "since=5-0"), 1013, "since=5-0", "1013 since=5-0"),
    ],
)
def test_connection_closed_has_code_and_reason(
    args: tuple[int] | tuple[int, str], code: int, reason: str, text: str
) -> None:
    """The peer's words are attributes; as text there is no blank where there is no reason."""
    error = ConnectionClosed(*args)
    assert (error.code, error.reason, str(error)) == (code, reason, text)


def test_messages_lost_says_where_the_gap_is() -> None:
    """Who keeps ids of their own learns which ones are missing."""
    error = MessagesLost("trimmed", "1-0", "9-3")
    assert (error.reason, error.since, error.after) == ("trimmed", "1-0", "9-3")
    assert str(error) == "messages between 1-0 and 9-3 are lost: trimmed"


@pytest.mark.parametrize("data", [None, "x", b"x"])
def test_send_refused_says_why_and_what(data: str | bytes | None) -> None:
    """The code is for programs, the text for people."""
    error = SendRefused("too_big", "2 bytes", data)
    assert (error.code, error.detail, error.data) == ("too_big", "2 bytes", data)
    assert str(error) == "too_big: 2 bytes"


def test_publish_failed_tells_what_the_hub_said() -> None:
    """Programs read the status and the wait, people the text."""
    error = PublishFailed("too many", 429, 0.5, message="cannot publish to x: too many")
    assert (error.detail, error.status, error.retry_after) == ("too many", 429, 0.5)
    assert str(error) == "cannot publish to x: too many"
    bare = PublishFailed("no answer")
    assert (str(bare), bare.status, bare.retry_after) == ("no answer", None, None)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionClosed(1000, "a\nb\x1b"),
        ConnectFailed("a\nb\x1b"),
        SendRefused("refused", "a\nb\x1b"),
        PublishFailed("a\nb\x1b"),
        MessagesLost("a\nb\x1b", "1-0", "2-0"),
        UsageError("a\nb\x1b"),
    ],
)
def test_text_of_an_error_is_one_line(error: BroadcastServerError) -> None:
    """A program that logs or prints it lets no peer forge a line; attributes are as they came."""
    assert r"a\nb\x1b" in str(error) and str(error).isprintable()
    for said in ("reason", "detail"):
        assert "\\n" not in getattr(error, said, "")
