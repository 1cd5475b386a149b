"""When to try again: pauses, and what a server asks for."""

from __future__ import annotations

import email.utils
import errno
import http.client
import os
import socket
import ssl
import time

import pytest

from broadcast_server import ConnectFailed, ConnectionClosed, PublishFailed
from broadcast_server.client.http import NotSent
from broadcast_server.client.retries import Waiting, back_off, is_absent, retry_after
from broadcast_server.rules import MAX_SECONDS
from broadcast_server.transport.proxies import ProxyError


def test_pauses_grow_to_the_limit_with_full_jitter() -> None:
    """Between nothing and twice as much each time: not all clients come back at once."""
    assert [back_off(n, 30.0, 1.0) for n in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert back_off(3, 30.0, 0.0) == 0
    assert back_off(3, 30.0, 0.25) == 1
    assert back_off(10**9, 30.0, 1.0) == 30
    assert back_off(0, 0.1, 1.0) == 0.1


def test_pause_is_as_long_as_the_server_asks_up_to_the_limit() -> None:
    """The random part comes on top, so that those who were refused together are kept apart."""
    assert [back_off(2, 30.0, chance, 5.0) for chance in (0.0, 0.5, 1.0)] == [5, 6, 7]
    assert back_off(2, 30.0, 0.5, 3600.0) == 30
    assert back_off(2, 0.1, 0.0, 5.0) == 0.1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("\u0663", None),
        ("0", 0),
        ("120", 120),
        ("9" * 400, MAX_SECONDS),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_SECONDS),
    ],
)
def test_wait_is_told_in_seconds_or_not_at_all(text: str | None, seconds: float | None) -> None:
    """RFC 9110 §10.2.3; nonsense is no wait, and no wait is longer than the system can."""
    assert retry_after(text) == seconds


def test_wait_may_be_told_as_a_date() -> None:
    """It is the time from now until then."""
    wait = retry_after(email.utils.formatdate(time.time() + 100, usegmt=True))
    assert wait is not None and 0 < wait <= 100


# -- A hub that is not there yet ---------------------------------------------------------------


def failed(cause: Exception | None, status: int | None = None) -> ConnectFailed:
    """Return how an attempt fails because of something."""
    error = ConnectFailed("x", status)
    error.__cause__ = cause
    return error


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def told(error: Exception, cause: Exception) -> Exception:
    """Return an error that says in other words what has caused it."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "cause",
    [
        system(errno.ECONNREFUSED),
        system(errno.ECONNRESET),
        system(errno.EPIPE),
        system(errno.EHOSTUNREACH),
        system(errno.ENETUNREACH),
        system(errno.ETIMEDOUT),
        system(errno.EADDRNOTAVAIL),
        TimeoutError(),
        socket.gaierror(socket.EAI_NONAME, "x"),
        socket.gaierror(socket.EAI_AGAIN, "x"),
        http.client.RemoteDisconnected(),
        http.client.IncompleteRead(b""),
        ssl.SSLEOFError(),
        ProxyError("it answers 502", 502),
        told(ProxyError("cannot be used"), system(errno.ECONNREFUSED)),
        told(ProxyError("cannot be used"), socket.gaierror(socket.EAI_NONAME, "x")),
        told(NotSent("x"), ConnectionResetError(errno.ECONNRESET, "x")),
        told(NotSent("x"), ssl.SSLEOFError()),
        ConnectionClosed(1006, "no welcome"),
        ConnectionClosed(1001),
        ConnectionClosed(1012),
    ],
)
def test_hub_that_cannot_be_reached_is_not_there_yet(cause: Exception) -> None:
    """The machine, its name, its proxy or the hub itself still starts."""
    assert is_absent(failed(cause))


@pytest.mark.parametrize(
    "cause",
    [
        None,
        ssl.SSLCertVerificationError(),
        ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"),
        system(errno.EMFILE),
        system(errno.EACCES),
        ValueError("no name"),
        ProxyError("it answers 407", 407),
        ProxyError("the environment names no proxy"),
        ConnectionClosed(1008, "no"),
        ConnectionClosed(1000),
    ],
)
def test_what_waiting_does_not_change_is_final(cause: Exception | None) -> None:
    """Who waits for it would wait in vain."""
    assert not is_absent(failed(cause))


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 407, 421, 429, 500])
def test_an_answer_is_final_unless_it_says_that_nobody_is_there(status: int) -> None:
    """Whatever has caused it."""
    assert not is_absent(failed(TimeoutError(), status))
    assert not is_absent(PublishFailed("x", status))
    for absent in (502, 503, 504):
        assert is_absent(failed(None, absent)) and is_absent(PublishFailed("x", absent))


def test_waiting_ends_with_its_time() -> None:
    """The last attempt is made then, also where the hub asks for a longer pause."""
    refused = failed(system(errno.ECONNREFUSED))
    assert Waiting(0).pause(refused) is None
    waiting = Waiting(3600)
    for _ in range(20):
        pause = waiting.pause(refused)
        assert pause is not None and 0 <= pause <= 2
    assert waiting.pause(failed(None, 401)) is None
    busy = ConnectFailed("x", 503, 60.0)
    pause = Waiting(3600).pause(busy)
    assert pause is not None and 60 <= pause <= 60.5
    pause = Waiting(20).pause(busy)
    assert pause is not None and 19 < pause <= 20
