"""The line below the one that is typed."""

from __future__ import annotations

import pytest

from broadcast_server.cli.terminal.status import Attention, Status

CALM = Status("/scores", 3, "open", 0, 0)
LOST = Status("/scores", 3, "waiting", 2, 5)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (CALM, "/scores · 3 here · connected"),
        (CALM._replace(unread=4), "/scores · 3 here · connected · 4 new"),
        (CALM._replace(unsent=1), "/scores · 3 here · connected"),
        (CALM._replace(unsent=1, late=True), "/scores · 3 here · connected · 1 not sent yet"),
        (CALM._replace(members=None), "/scores · connected"),
        (CALM._replace(room="/\x1b\u202e"), "/\\x1b\\u202e · 3 here · connected"),
        (LOST, "/scores · 3 here · connection lost, trying again · 2 not sent yet · 5 new"),
        (LOST._replace(state="connecting", unsent=0, unread=0), "/scores · 3 here · connecting …"),
    ],
)
def test_line_tells_all_where_there_is_room(status: Status, line: str) -> None:
    """Room, members, state, what waits and what is new; what is nothing is left out."""
    assert status.line(200) == line


@pytest.mark.parametrize("status", [CALM, CALM._replace(unread=4), LOST])
def test_line_is_never_too_long(status: Status) -> None:
    """At any width, also at none."""
    for width in range(-3, 100):
        assert len(status.line(width)) <= max(0, width)


def test_what_matters_most_stays() -> None:
    """That the connection is lost; else the room, and what is new."""
    assert LOST.line(50) == "connection lost, trying again · 2 not sent yet"
    assert LOST.line(29) == "connection lost, trying again"
    assert CALM._replace(unread=4).line(16) == "/scores · 4 new"
    assert CALM.line(8) == "/scores"


def test_messages_are_unread_since_the_last_key() -> None:
    """Where the terminal tells nothing else."""
    attention = Attention()
    attention.take_message()
    attention.take_message()
    assert attention.unread == 2
    attention.take_key()
    assert attention.unread == 0


def test_messages_are_unread_while_the_window_has_no_focus() -> None:
    """Where the terminal tells."""
    attention = Attention()
    attention.take_message()
    attention.take_focus(True)
    attention.take_message()
    assert attention.unread == 0
    attention.take_focus(False)
    attention.take_message()
    assert attention.unread == 1
    attention.take_focus(True)
    assert attention.unread == 0
