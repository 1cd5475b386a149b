"""What a client may be given, and what is told before anything is tried."""

from __future__ import annotations

from typing import Any

import pytest

from broadcast_server import BroadcastClient, UsageError
from broadcast_server.client.arguments import (
    checked_count,
    checked_id,
    checked_key,
    checked_name,
    checked_seconds,
)

URL = "ws://127.0.0.1:1/"


def test_what_can_be_is_returned_as_it_is() -> None:
    """Also nothing, an empty name, which takes one in the URL away, and an endless time."""
    assert [checked_name(name) for name in (None, "", "x" * 64)] == [None, "", "x" * 64]
    assert [checked_key(key) for key in (None, "k" * 128)] == [None, "k" * 128]
    assert [checked_id(place) for place in (None, "1-0")] == [None, "1-0"]
    assert [checked_count("n", count, 0) for count in (0, 5)] == [0, 5]
    assert [checked_seconds("t", t) for t in (0, 1.5, float("inf"))] == [0, 1.5, float("inf")]


@pytest.mark.parametrize(
    "options",
    [
        {"name": "x" * 65},
        {"name": "a\nb"},
        {"name": "a\u2028b"},
        {"name": "\ud800"},
        {"since": "x"},
        {"since": ""},
        {"history": -1},
        {"max_message_bytes": 0},
        {"open_timeout": -1},
        {"wait": -1},
        {"wait": float("nan")},
        {"max_reconnect_delay": float("nan")},
    ],
)
def test_what_can_never_work_is_the_callers_mistake(options: dict[str, Any]) -> None:
    """It does not come out later, on a thread of which nobody hears."""
    with pytest.raises(UsageError):
        BroadcastClient(URL, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"history": "3"},
        {"history": True},
        {"max_message_bytes": 1.5},
        {"open_timeout": "5"},
        {"close_timeout": None},
        {"close_timeout": True},
    ],
)
def test_wrong_type_is_a_type_error(options: dict[str, Any]) -> None:
    """As for any argument: promises/test_arguments.py has them all."""
    with pytest.raises(TypeError, match=next(iter(options))):
        BroadcastClient(URL, **options)


@pytest.mark.parametrize("key", ["", "k" * 129])
def test_key_has_a_length(key: str) -> None:
    """As many characters as a hub takes."""
    with pytest.raises(UsageError, match="128"):
        checked_key(key)
