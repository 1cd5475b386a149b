"""``BroadcastClient`` and a hub that speaks events: lost connections, nothing lost or doubled."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from broadcast_server import BroadcastClient, BroadcastHub, Gap, MessagesLost, Presence

from ..support import RawClient, lasting_port, running_hub, stress_size, wait_until
from ..support.inside import client_core_of, link_of
from ..support.raw_server import event_pair

SECONDS = 10.0
SOON = 0.01


def cut(client: BroadcastClient) -> None:
    """Break the client's connection off, as a network does."""
    link = link_of(client)
    assert link is not None
    link.channel.abort()


def cut_and_wait(client: BroadcastClient) -> None:
    """Break the connection off and wait until there is a new one."""
    old = link_of(client)
    cut(client)
    assert wait_until(lambda: link_of(client) is not old and client.state == "open", SECONDS)


def kinds(client: BroadcastClient, count: int) -> list[str]:
    """Receive so many presence events; return their kinds."""
    found = []
    while len(found) < count:
        item = client.recv(SECONDS)
        assert isinstance(item, Presence)
        found.append(item.kind)
    return found


def test_sender_id_and_presence() -> None:
    """Two clients and a plain one: who says what, and who is here."""
    with running_hub() as hub:
        url = f"{hub.url}r"
        with BroadcastClient(url, name="ann", presence=True) as ann:
            assert (ann.room, ann.name, [m.name for m in ann.members]) == ("/r", "ann", ["ann"])
            with BroadcastClient(url, name="bob") as bob:
                assert [member.name for member in bob.members] == ["ann", "bob"]
                place = bob.publish("x", timeout=SECONDS)
                assert kinds(ann, 2) == ["members", "join"]
                message = ann.recv(SECONDS)
                assert (message.data, message.id, message.sender.name) == ("x", place, "bob")
                assert message.sender.id == bob.id
                bob.rename("rob")
                rename = ann.recv(SECONDS)
                assert (rename.kind, rename.old, rename.member.name) == ("rename", "bob", "rob")
                with RawClient.connect(port=hub.port, path="/r?name=raw") as plain:
                    assert ann.recv(SECONDS).kind == "join"
                    plain.send(b"\0")
                    message = ann.recv(SECONDS)
                    assert (message.data, message.sender.name) == (b"\0", "raw")
                    ann.send(b"\xff")
                    assert plain.recv_message() == b"\xff"
            assert wait_until(lambda: [m.name for m in ann.members] == ["ann"])


def test_program_of_the_hub_has_no_name() -> None:
    """A broadcast has an id and no sender; what is for one alone has neither."""
    with running_hub() as hub, BroadcastClient(hub.url) as client:
        hub.broadcast("all")
        message = client.recv(SECONDS)
        assert (message.data, message.sender) == ("all", None) and message.id == client.newest
        assert client.id is not None
        hub.send(client.id, "you")
        message = client.recv(SECONDS)
        assert (message.data, message.sender, message.id) == ("you", None, None)


def test_client_keeps_its_id() -> None:
    """A new connection with the secret is the same member, also after the hub has seen it go."""
    with running_hub() as hub:
        with (
            BroadcastClient(hub.url, presence=True) as watching,
            BroadcastClient(hub.url, max_reconnect_delay=SOON) as client,
        ):
            assert kinds(watching, 2) == ["members", "join"]
            before = client.id
            cut_and_wait(client)
            assert client.id == before
            client.send("x")
            while isinstance(item := watching.recv(SECONDS), Presence):
                assert item.member is None or item.member.id == before
            assert (item.data, item.sender.id) == ("x", before)


def is_called(hub: BroadcastHub, client: BroadcastClient, name: str | None) -> bool:
    """Wait until hub and client agree on the name of the only member."""
    return wait_until(
        lambda: (
            (client.state, client.name, [m.name for m in hub.members("/")])
            == ("open", name, [name])
        ),
        SECONDS,
    )


def test_name_is_the_last_one_that_was_asked_for() -> None:
    """Also where the hub has kept an older one with the session, and where asking was lost."""
    with running_hub() as hub:
        with BroadcastClient(hub.url, name="ann", max_reconnect_delay=SOON) as client:
            for name in ("bob", None, "eve"):
                client.rename(name)
                assert is_called(hub, client, name)
                cut_and_wait(client)
                assert is_called(hub, client, name)
            for name in (None, "zoe"):
                cut(client)
                client.rename(name)  # to the old connection, to none, or to the new one
                assert is_called(hub, client, name)


def test_own_messages_stay_left_out_after_coming_back() -> None:
    """Also those that the replay holds."""
    with running_hub() as hub:
        with BroadcastClient(hub.url, max_reconnect_delay=SOON) as client:
            hub.broadcast("1")
            assert client.recv(SECONDS).data == "1"
            for number in range(10):
                client.send(f"own {number}")
            cut_and_wait(client)
            hub.broadcast("2")
            assert client.recv(SECONDS).data == "2"


def test_what_was_missed_is_replayed_once() -> None:
    """Whatever is broadcast while there is no connection comes when there is one again."""
    with running_hub() as hub, BroadcastClient(hub.url, max_reconnect_delay=SOON) as client:
        for number in range(50):
            hub.broadcast(str(number))
            if number % 10 == 5:
                cut(client)
        assert [client.recv(SECONDS).data for _ in range(50)] == [str(n) for n in range(50)]
        with pytest.raises(TimeoutError):
            client.recv(0.05)


@pytest.mark.parametrize(
    "count", [2000, pytest.param(stress_size(100_000, 20_000), marks=pytest.mark.stress)]
)
def test_exactly_once_while_both_ends_are_cut_again_and_again(count: int) -> None:
    """A sender and a receiver over bad lines: every message, once, in order."""
    with running_hub(max_rate=0) as hub:
        sender = BroadcastClient(hub.url, max_reconnect_delay=SOON).connect()
        receiver = BroadcastClient(hub.url, max_reconnect_delay=SOON).connect()
        done = threading.Event()

        def interrupt() -> None:
            while not done.wait(0.03):
                cut(sender)
                cut(receiver)

        def send() -> None:
            for number in range(count):
                sender.send(str(number))

        threads = [threading.Thread(target=target) for target in (interrupt, send)]
        for thread in threads:
            thread.start()
        try:
            got = [receiver.recv(SECONDS * 2).data for _ in range(count)]
        finally:
            done.set()
            for thread in threads:
                thread.join(SECONDS)
        assert got == [str(number) for number in range(count)]
        assert sender.close() is True
        receiver.close()


def restart(hub: BroadcastHub, **settings: int) -> BroadcastHub:
    """Stop a hub; return another one, to be started at its address."""
    port = hub.port
    hub.stop()
    return BroadcastHub(port=port, **settings)


@pytest.mark.parametrize("presence", [True, False])
def test_restart_of_the_hub_is_a_gap(presence: bool) -> None:
    """It kept nothing: the client is back, and is told."""
    with running_hub(port=lasting_port()) as hub:
        options = {"presence": presence, "max_reconnect_delay": SOON}
        with BroadcastClient(hub.url, **options) as client:  # type: ignore[arg-type]
            hub.broadcast("1")
            items = [client.recv(SECONDS) for _ in range(1 + presence)]
            assert items[-1].data == "1"
            with restart(hub) as new:
                assert wait_until(lambda: len(new.members("/")) == 1, SECONDS)
                if presence:
                    assert client.recv(SECONDS).kind == "members"
                    gap = client.recv(SECONDS)
                    assert isinstance(gap, Gap) and gap.reason == "restarted"
                else:
                    with pytest.raises(MessagesLost, match="restarted"):
                        client.recv(SECONDS)
                new.broadcast("2")
                assert client.recv(SECONDS).data == "2"
                client.close()


def test_messages_wait_for_the_next_hub() -> None:
    """What was not acknowledged by the old one goes to the new one."""
    with running_hub(port=lasting_port()) as hub:
        client = BroadcastClient(hub.url, max_reconnect_delay=SOON).connect()
        port = hub.port
        hub.stop()
        assert wait_until(lambda: client.state != "open")
        client.send("x")
        seen: list[str | bytes] = []
        collect: Callable[..., None] = lambda message: seen.append(message.data)  # noqa: E731
        with BroadcastHub(port=port, on_message=collect):
            assert client.close(timeout=SECONDS) is True
        assert seen == ["x"]


def test_refused_messages_are_told() -> None:
    """Too big for the hub: the connection goes on."""
    with running_hub(max_message_bytes=1000) as hub, BroadcastClient(hub.url) as client:
        client.send("x" * 1001)
        client.publish("x" * 1000, timeout=SECONDS)
        assert [error.code for error in client.refused] == ["too_big"]
        assert client.close() is False


def test_key_is_good_for_one_message() -> None:
    """Also from another client: the id is the first one's."""
    with running_hub() as hub, BroadcastClient(hub.url) as one, BroadcastClient(hub.url) as two:
        place = one.publish("x", key="k", timeout=SECONDS)
        assert two.publish("x", key="k", timeout=SECONDS) == place
        assert two.recv(SECONDS).id == place
        one.send("y")
        assert two.recv(SECONDS).data == "y"


def test_newer_connection_takes_the_session() -> None:
    """1008 is the end of the older client, not a fight."""
    with running_hub() as hub, BroadcastClient(hub.url, max_reconnect_delay=SOON) as old:
        token = client_core_of(old).membership.token
        with BroadcastClient(f"{hub.url}?session={token}") as new:
            assert new.id == old.id
            assert wait_until(lambda: old.state == "closed", SECONDS)
            assert old.close_code == 1008
            assert [member.id for member in hub.members("/")] == [new.id]


def test_client_keeps_nothing_of_what_is_done() -> None:
    """Messages, answers, refusals and questions, over lost connections: nothing grows."""
    options = {"max_rate": 0, "max_message_bytes": 1000}
    with (
        running_hub(**options) as hub,
        BroadcastClient(hub.url, max_reconnect_delay=SOON, on_error=lambda _: None) as client,
    ):
        core = client_core_of(client)
        for number in range(300):
            client.send(str(number), timeout=SECONDS)
            if number % 3 == 0:
                client.publish(str(number), timeout=SECONDS)
                client.who(timeout=SECONDS)
                client.send("x" * 1001, timeout=SECONDS)
            if number % 30 == 0:
                with contextlib.suppress(TimeoutError):
                    client.publish("nobody waits", timeout=0)
                cut(client)
        assert wait_until(lambda: client.unaccepted == 0 and core.asked is None, SECONDS)
        assert (core.answers, core.outbox.bytes, core.outbox.pending) == ({}, 0, False)
        assert len(client.refused) == 100


def test_room_above_a_hundred_members_is_counted_and_listed_again() -> None:
    """While it is too big there is only the number; when it has shrunk the list is true again."""
    with running_hub() as hub, BroadcastClient(hub.url) as client:
        others = [RawClient.connect(port=hub.port) for _ in range(105)]
        try:
            assert wait_until(lambda: client.member_count == 106, SECONDS)
        finally:
            for other in others[:20]:
                other.close()
        assert wait_until(lambda: client.member_count == 86 == len(client.members), SECONDS)
        for other in others[20:]:
            other.close()
        assert wait_until(lambda: [m.id for m in client.members] == [client.id], SECONDS)


def test_unaccepted_counts_what_waits_for_the_hub() -> None:
    """Messages without an answer, sent or not; of a client that has ended they stay counted."""
    with event_pair() as (client, server, listening):
        assert client.unaccepted == 0
        client.send("one")
        client.send("two")
        first, second = server.recv_event(), server.recv_event()
        assert client.unaccepted == 2
        server.ack(first, 1)
        assert wait_until(lambda: client.unaccepted == 1)
        server.reset()
        assert wait_until(lambda: client.state != "open")
        client.send("three")
        assert client.unaccepted == 2
        again = listening.accept_events()
        with again.sock:
            for number, key in ((2, second["key"]), (3, None)):
                event = again.recv_event()
                assert key in (None, event["key"])
                again.ack(event, number)
            assert wait_until(lambda: client.unaccepted == 0)
