"""Settings: what each limit may be, and what is said when it is not."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from broadcast_server.errors import UsageError
from broadcast_server.settings import Settings


def test_defaults_are_lawful_and_cannot_be_changed() -> None:
    """A hub's limits are fixed while it runs."""
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.history = 1  # type: ignore[misc]


AT_LEAST = {
    "max_message_bytes": 1, "max_fragments": 1, "max_clients": 1, "max_rooms": 1, "history": 0,
    "max_rate": 0, "max_header_bytes": 256, "stop_timeout": 0,
}  # fmt: skip
ABOVE = {
    "handshake_timeout": 0, "ping_interval": 0, "ping_timeout": 0, "write_timeout": 0,
    "close_timeout": 0, "http_idle_timeout": 0, "switch_interval": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", AT_LEAST)
def test_least_value_is_taken_and_less_is_not(name: str) -> None:
    """The message names the setting and the bound."""
    least = AT_LEAST[name]
    assert getattr(Settings(**{name: least}), name) == least
    with pytest.raises(UsageError, match=f"{name} must be at least {least}"):
        Settings(**{name: least - 1})


@pytest.mark.parametrize("name", ABOVE)
def test_time_must_be_more_than_nothing(name: str) -> None:
    """A little is enough."""
    assert getattr(Settings(**{name: 0.001}), name) == 0.001
    for value in (0, -1):
        with pytest.raises(UsageError, match=f"{name} must be more than 0"):
            Settings(**{name: value})


@pytest.mark.parametrize("name", AT_LEAST | ABOVE)
@pytest.mark.parametrize("value", ["5", True, math.nan, [1]])
def test_what_is_no_number_is_refused(name: str, value: Any) -> None:
    """Neither text nor a truth value nor NaN."""
    with pytest.raises(UsageError, match=f"{name} must be a number"):
        Settings(**{name: value})


def test_logs_must_hold_the_largest_message_and_each_other() -> None:
    """Four of the largest messages fit a room's log, a room's log the total."""
    assert Settings(max_message_bytes=1 << 20, room_log_bytes=4 << 20, total_log_bytes=4 << 20)
    with pytest.raises(UsageError, match=r"room_log_bytes .* four times"):
        Settings(max_message_bytes=1 << 20, room_log_bytes=(4 << 20) - 1)
    with pytest.raises(UsageError, match=r"total_log_bytes .* at least"):
        Settings(room_log_bytes=8 << 20, total_log_bytes=(8 << 20) - 1)


@pytest.mark.parametrize("value", ["https://a.example", 5, None])
def test_origins_are_a_sequence(value: Any) -> None:
    """One string would be taken letter by letter."""
    with pytest.raises(UsageError, match="allow_origin"):
        Settings(allow_origin=value)
    origins: Any = ["https://a.example"]
    assert Settings(allow_origin=origins).allow_origin == ("https://a.example",)
