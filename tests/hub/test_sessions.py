"""Sessions: who may come back as the client that it was, and for how long."""

from __future__ import annotations

import pytest

from broadcast_server import rules
from broadcast_server.hub import sessions
from broadcast_server.hub.sessions import Session, Sessions


class ManualClock:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_token_gives_the_number_back_in_its_room_only() -> None:
    """With the name that the client had, and in the next generation."""
    found = Sessions(ManualClock())
    first = found.open(None, 7, "/a")
    assert first == Session(7, "/a", None, 0)
    token = found.token(first, "ann")
    assert found.open(token, 8, "/a") == Session(7, "/a", None, 1, "ann")
    assert found.open(token, 8, "/b") == Session(8, "/b", None)
    again = found.token(found.open(token, 8, "/a"), None)
    assert found.open(again, 8, "/a") == Session(7, "/a", None, 2)


def test_token_is_no_good_to_another_user() -> None:
    """Whose name is fixed can be followed by nobody else, and takes over nobody without one."""
    found = Sessions(ManualClock())
    ann = found.token(found.open(None, 7, "/a", "ann"), "ann")
    assert found.open(ann, 8, "/a", "ann").number == 7
    assert found.open(ann, 8, "/a", "bob").number == 8
    assert found.open(ann, 9, "/a").number == 9
    guest = found.token(found.open(None, 10, "/a"), "ann")
    assert found.open(guest, 11, "/a", "ann").number == 11


def test_session_ends_a_day_after_its_token_was_made() -> None:
    """The next token counts from when it was made."""
    clock = ManualClock()
    found = Sessions(clock)
    session = found.open(None, 7, "/a")
    first = found.token(session, None)
    clock.now = sessions.RENEW_SECONDS
    second = found.token(session, None)
    clock.now = sessions.KEEP_SECONDS - 1
    assert found.open(first, 8, "/a").number == 7
    clock.now += 1
    assert found.open(first, 8, "/a").number == 8
    assert found.open(second, 8, "/a").number == 7
    assert sessions.KEEP_SECONDS == 24 * 3600


def test_sessions_of_strangers_push_nobody_out() -> None:
    """There is no list of them: what a hub has given out costs it nothing."""
    found = Sessions(ManualClock())
    before = dict(vars(found))
    mine = found.token(found.open(None, 1, "/a"), "ann")
    for number in range(2, 101_000):
        found.open(None, number, "/a")
    assert found.open(mine, 99, "/a").number == 1
    assert vars(found) == before


def test_token_is_short_whatever_the_name_is() -> None:
    """A name that has no place in it is given again by its owner."""
    found = Sessions(ManualClock())
    longest = 2**64 - 1
    room = "/" + "\U0001f600" * 127
    for name in (None, "x" * 64, "\u00e9" * 64, "\u20ac" * 64, "\U0001f600" * 64):
        session = Session(longest, room, "\U0001f600" * 64, longest - 1)
        token = found.token(session, name)
        assert len(token) <= rules.MAX_SESSION_CHARACTERS == 256
        assert rules.checked_session(token) == token and token.isascii()
        kept = name if name is None or len(name.encode()) <= 156 else None
        assert found.open(token, 8, room, session.user) == Session(
            longest, room, session.user, longest, kept
        )


def test_token_that_was_changed_is_none() -> None:
    """Each of its characters counts; nor is one of another hub, or of an earlier run, any good."""
    found = Sessions(ManualClock())
    session = found.open(None, 7, "/a")
    token = found.token(session, "ann")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place, letter in enumerate(token):
        other = letters[letters.index(letter) ^ 32]
        assert found.open(token[:place] + other + token[place + 1 :], 8, "/a").number == 8
    for bad in (
        "",
        "x",
        "é",
        "=",
        "a b",
        token[:-1],
        token + "A",
        token[:22],
        "A" * 256,
        "A" * 255,
    ):
        assert found.open(bad, 8, "/a").number == 8
    assert Sessions(ManualClock()).open(token, 8, "/a").number == 8


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("/ab", None), ("/a", "b")),
        (("/a", "bc"), ("/ab", "c")),
        (("/a", ""), ("/a", None)),
    ],
)
def test_parts_that_read_alike_are_not_the_same(
    one: tuple[str, str | None], other: tuple[str, str | None]
) -> None:
    """What is signed cannot be cut in another way."""
    found = Sessions(ManualClock())
    token = found.token(found.open(None, 7, *one), None)
    assert found.open(token, 8, *one).number == 7
    assert found.open(token, 8, *other).number == 8
