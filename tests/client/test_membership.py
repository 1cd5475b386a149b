"""What a client knows of its room, and where it would go on."""

from __future__ import annotations

import datetime

from broadcast_server.client.membership import MAX_KEPT_MEMBERS, Membership
from broadcast_server.messages import Gap, Member, Message, Presence
from broadcast_server.wire.client_events import Ack, Welcome

NOW = datetime.datetime(2026, 11, 25, tzinfo=datetime.timezone.utc)


def member(number: int, name: str | None = None) -> Member:
    return Member(f"c{number}", name, "/r", "")


def message(place: str | None) -> Message:
    return Message("x", "/r", None, NOW, place)


def welcome(after: str = "10-0", *, newest: str = "10-0", count: int = 2) -> Welcome:
    return Welcome("c1", "s", "ann", "/r", (member(2), member(1, "ann")), count, newest, after)


def welcomed() -> Membership:
    membership = Membership("/?", None)
    membership.take_welcome(welcome())
    return membership


def test_welcome_tells_who_and_where_we_are() -> None:
    """Before it there is nothing to come back to."""
    membership = Membership("/?", "nobody")
    assert (membership.id, membership.resume, membership.newest, membership.room) == (
        None,
        None,
        None,
        "/?",
    )
    here = membership.take_welcome(welcome(after="9-0"))
    assert here == Presence("members", None, 2, (member(2), member(1, "ann")), None)
    assert (membership.id, membership.token, membership.name, membership.room) == (
        "c1",
        "s",
        "ann",
        "/r",
    )
    assert (membership.resume, membership.newest, membership.count) == ("9-0", "10-0", 2)
    assert membership.members() == [member(2), member(1, "ann")]


def test_no_message_is_taken_twice() -> None:
    """Ids are compared as numbers, not as texts; what has no id is always new."""
    membership = welcomed()
    for place, is_new in [
        ("10-0", False),
        ("10-1", True),
        ("10-1", False),
        ("10-10", True),
        ("10-9", False),
        ("9-99", False),
        (None, True),
        ("100-0", True),
        ("99-0", False),
    ]:
        assert membership.take_message(message(place)) is is_new, place
    assert (membership.resume, membership.newest) == ("100-0", "100-0")


def test_coming_back_keeps_the_place() -> None:
    """A later welcome tells what is new in the room, not where we are."""
    membership = welcomed()
    membership.take_message(message("11-0"))
    membership.take_welcome(welcome(after="10-0", newest="20-0"))
    assert (membership.resume, membership.newest) == ("11-0", "20-0")
    assert not membership.take_message(message("11-0"))
    assert membership.take_message(message("12-0"))


def test_acknowledgement_moves_the_place_but_hides_nothing() -> None:
    """A client that only sends keeps up; a duplicate's old id says nothing about now."""
    membership = welcomed()
    membership.take_ack(Ack(1, "15-0", False))
    assert (membership.resume, membership.newest) == ("15-0", "15-0")
    membership.take_ack(Ack(2, "14-0", False))
    membership.take_ack(Ack(3, "99-0", True))
    assert membership.resume == "15-0"
    assert membership.take_message(message("12-0"))
    assert membership.resume == "15-0"


def test_gap_sets_the_place_also_backwards() -> None:
    """After a restart with a clock that was put back, ids may be lower than before."""
    membership = welcomed()
    membership.take_gap(Gap("restarted", "10-0", "5-0"))
    assert membership.resume == "5-0"
    assert membership.take_message(message("6-0"))
    membership.take_gap(Gap("trimmed", "6-0", "50-0"))
    assert not membership.take_message(message("50-0"))
    assert membership.take_message(message("50-1"))


def test_members_follow_the_events() -> None:
    """Join, leave and rename; our own name is ours."""
    membership = welcomed()
    membership.take_presence(Presence("join", member(3, "bob"), 3, (), None))
    membership.take_presence(Presence("rename", member(1, "anna"), 3, (), "ann"))
    membership.take_presence(Presence("leave", member(2), 2, (), None))
    membership.take_presence(Presence("leave", member(9), 2, (), None))
    membership.take_presence(Presence("rename", member(9, "x"), 2, (), None))
    assert membership.members() == [member(1, "anna"), member(3, "bob")]
    assert (membership.name, membership.count, membership.incomplete) == ("anna", 2, False)


def test_list_of_a_room_that_was_too_big_is_asked_for_again() -> None:
    """Above 100 members there is only a number; when it falls below, the list is out of date."""
    membership = welcomed()
    membership.take_welcome(welcome(count=150))
    assert (membership.count, membership.incomplete) == (150, False)
    membership.take_presence(Presence("count", None, 101, (), None))
    assert not membership.incomplete
    membership.take_presence(Presence("count", None, 100, (), None))
    assert membership.incomplete
    membership.take_presence(Presence("members", None, 2, (member(2), member(1)), None))
    assert not membership.incomplete
    membership.take_presence(Presence("join", member(3), 3, (), None))
    assert not membership.incomplete


def test_members_are_not_kept_without_end() -> None:
    """A hub that tells of ever more joins has the list asked for, as where a room is too big."""
    membership = welcomed()
    for number in range(3, MAX_KEPT_MEMBERS + 500):
        membership.take_presence(Presence("join", member(number), 50, (), None))
    assert len(membership.members()) == MAX_KEPT_MEMBERS
    assert membership.incomplete
    membership.take_presence(Presence("rename", member(3, "x"), 50, (), None))
    assert member(3, "x") in membership.members()
