"""When to try again: pauses, and what a server asks for."""

from __future__ import annotations

import email.utils
import time

import pytest

from broadcast_server.client.retries import back_off, retry_after
from broadcast_server.rules import MAX_SECONDS


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
