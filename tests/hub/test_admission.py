"""Places for connections: bounded, shared by address, and never all taken by who says nothing."""

from __future__ import annotations

import threading

import pytest

from broadcast_server.hub.admission import Admission

from ..support.inside import joined_by_network, keeps_nothing


def admission(waiting: int, joined: int = 0) -> Admission[str]:
    return Admission(waiting, joined)


# -- Connections that wait ---------------------------------------------------------------------


def test_as_many_as_may_wait_are_admitted() -> None:
    """N pass; for one more the one that waits longest makes way."""
    places = admission(3)
    for key in "abc":
        assert places.begin(key, "192.0.2.1") == (True, None)
    assert places.waiting == 3
    assert places.begin("d", "192.0.2.1") == (True, "a")
    assert places.begin("e", "192.0.2.1") == (True, "b")
    assert places.waiting == 3


def test_address_with_most_makes_way() -> None:
    """Who opens many connections fights only himself, however long others wait already."""
    places = admission(5)
    places.begin("old", "192.0.2.1")
    places.begin("other", "2001:db8::1")
    for key in "abc":
        places.begin(key, "198.51.100.7")
    for number in range(20):
        admitted, dropped = places.begin(f"x{number}", "198.51.100.7")
        assert admitted and dropped not in ("old", "other", None)
        places.end(dropped)
    # A newcomer from a third address gets a place, too.
    assert places.begin("third", "203.0.113.5") == (True, "x17")


def test_addresses_of_one_64_are_one() -> None:
    """Else an attacker with a single IPv6 network would look like many."""
    places = admission(4)
    places.begin("honest", "2001:db8:1::1")
    for number in range(2):
        places.begin(f"a{number}", f"2001:db8:666::{number}")
    places.begin("also honest", "2001:db8:2::1")
    assert places.begin("a2", "2001:db8:666:0:ffff::") == (True, "a0")


def test_of_equals_the_longest_waiting_makes_way() -> None:
    """Where each address has one, and where two have most."""
    places = admission(3)
    for key in "abc":
        places.begin(key, f"192.0.2.{ord(key)}")
    assert places.begin("d", "192.0.2.1") == (True, "a")
    places = admission(5)
    for key, host in zip("pabcd", "12323", strict=True):
        places.begin(key, f"192.0.2.{host}")
    assert places.begin("e", "192.0.2.9") == (True, "a")


def test_answered_connection_begins_to_wait_anew() -> None:
    """Who publishes again and again is not the one that says nothing."""
    places = admission(3)
    for key in "abc":
        places.begin(key, "192.0.2.1")
    places.wait_again("a")
    assert places.begin("d", "192.0.2.1") == (True, "b")
    places.wait_again("b")  # which is gone
    places.wait_again("nobody")
    assert places.begin("e", "192.0.2.1") == (True, "c")


def test_answered_connection_learns_whether_others_want_its_place() -> None:
    """When all are taken, and only then."""
    places = admission(2)
    places.begin("a", "192.0.2.1")
    assert not places.wait_again("a")
    places.begin("b", "192.0.2.1")
    assert places.wait_again("a")


def test_those_that_make_way_are_bounded_too() -> None:
    """If their threads do not come to their end, nobody is admitted in their place."""
    places = admission(2)
    places.begin("a", "192.0.2.1")
    places.begin("b", "192.0.2.1")
    assert places.begin("c", "192.0.2.1") == (True, "a")
    assert places.late() == ([], None)
    assert places.begin("d", "192.0.2.1") == (True, "b")
    assert places.begin("e", "192.0.2.1") == (False, None)
    late, bell = places.late()
    assert late == ["a", "b"] and bell is not None and bell.empty()
    places.end("e")
    places.end("c")
    assert bell.empty()
    places.end("a")
    assert not bell.empty()
    assert places.begin("f", "192.0.2.1") == (True, None)
    assert places.begin("g", "192.0.2.1") == (True, "d")


def test_cut_off_connection_is_late_no_more() -> None:
    """It is cut off once, and counts until its thread has ended."""
    places = admission(1)
    places.begin("a", "192.0.2.1")
    assert not places.cut("a")
    assert places.begin("b", "192.0.2.1") == (True, "a")
    assert places.cut("a") and not places.cut("a") and not places.cut("nobody")
    assert places.late()[0] == []
    assert places.begin("c", "192.0.2.1") == (False, None)


def test_end_gives_the_place_back() -> None:
    """Whatever the connection was."""
    places = admission(1, 1)
    places.begin("a", "192.0.2.1")
    places.end("a")
    places.end("a")
    assert places.begin("b", "192.0.2.1") == (True, None)
    assert places.join("b", "192.0.2.1")
    assert places.waiting == 0
    places.end("b")
    places.begin("c", "192.0.2.1")
    assert places.join("c", "192.0.2.1")


# -- Clients -----------------------------------------------------------------------------------


def test_address_has_as_many_clients_as_it_may() -> None:
    """N pass, one more is refused, and may join once another has left."""
    places = admission(10, 2)
    for key in "abc":
        places.begin(key, "192.0.2.1")
    assert places.join("a", "192.0.2.1") and places.join("b", "192.0.2.1")
    assert not places.join("c", "192.0.2.1")
    assert joined_by_network(places)["192.0.2.1"] == 2 and places.waiting == 1
    places.leave("a")
    places.leave("a")
    assert joined_by_network(places)["192.0.2.1"] == 1
    assert places.join("c", "192.0.2.1")


def test_ipv6_clients_count_by_their_64() -> None:
    """Two addresses of one network are one, neighbours are not."""
    places = admission(10, 1)
    for key in "abc":
        places.begin(key, "2001:db8::1")
    assert places.join("a", "2001:db8:0:1::1")
    assert not places.join("b", "2001:db8:0:1:ffff:ffff:ffff:ffff")
    assert places.join("b", "2001:db8:0:2::1")
    assert places.join("c", "::ffff:192.0.2.1")
    assert joined_by_network(places)["192.0.2.1"] == 1


def test_without_a_limit_all_join() -> None:
    """Zero is none."""
    places = admission(100, 0)
    for number in range(100):
        places.begin(str(number), "192.0.2.1")
        assert places.join(str(number), "192.0.2.1")
    assert joined_by_network(places)["192.0.2.1"] == 100


def test_client_that_cannot_join_waits_again() -> None:
    """For the peer of its socket, not for the client that a proxy has named."""
    places = admission(2, 5)
    places.begin("a", "10.0.0.1")
    assert places.join("a", "192.0.2.1")
    places.unjoin("a", "10.0.0.1")
    assert places.waiting == 1 and joined_by_network(places)["192.0.2.1"] == 0
    places.unjoin("a", "10.0.0.1")
    assert places.waiting == 1


def test_cut_off_connection_cannot_join() -> None:
    """Its socket is shut down: it would be a ghost."""
    places = admission(1)
    places.begin("a", "192.0.2.1")
    assert places.begin("b", "192.0.2.1") == (True, "a")
    assert places.cut("a")
    with pytest.raises(ConnectionAbortedError):
        places.join("a", "192.0.2.1")
    places.unjoin("a", "192.0.2.1")
    assert places.waiting == 1


def test_connection_that_makes_way_may_still_join() -> None:
    """The hub had not got to it; then it is cut off no more, and makes room for the next one."""
    places = admission(1)
    places.begin("a", "192.0.2.1")
    assert places.begin("b", "192.0.2.1") == (True, "a")
    bell = places.late()[1]
    assert places.join("a", "192.0.2.1")
    assert bell is not None and not bell.empty()
    assert not places.cut("a")
    assert places.begin("c", "192.0.2.1") == (True, "b")
    places.unjoin("a", "192.0.2.1")
    assert places.waiting == 2


def test_nothing_is_left_of_many_that_came_and_went() -> None:
    """Counts that drift would keep people out one day."""
    places = admission(50, 30)

    def come_and_go(thread: int) -> None:
        for number in range(300):
            key, host = f"{thread}-{number}", f"192.0.2.{number % 7}"
            admitted, loser = places.begin(key, host)
            if loser is not None and number % 5:
                places.cut(loser)
            if admitted:
                try:
                    if places.join(key, host) and number % 3:
                        places.unjoin(key, host)
                except ConnectionAbortedError:
                    pass
            if number % 2:
                places.leave(key)
            places.end(key)

    threads = [threading.Thread(target=come_and_go, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert places.waiting == 0
    assert keeps_nothing(places)
