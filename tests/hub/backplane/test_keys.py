"""The memory of keys: whose go first, what it costs, and how much is done at once."""

from __future__ import annotations

import tracemalloc

import pytest

from broadcast_server.hub.backplane import keys
from broadcast_server.hub.backplane.keys import GROUP_BYTES, KEY_BYTES, KEY_SECONDS, KeyMemory
from broadcast_server.hub.rooms.entries import Key, fingerprint


class ManualClock:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def put(
    memory: KeyMemory, text: str, owner: str = "a", room: str = "/r", data: str | bytes = ""
) -> bool | None:
    """Show a key; return None if it was new, else whether it came with the same message."""
    name = memory.name(room, Key(text, owner, fingerprint(data)))
    found = memory.find(name)
    if found is None:
        memory.add(name, (1, len(memory)))
        return None
    return found[1]


def limit(monkeypatch: pytest.MonkeyPatch, count: int, groups: int) -> None:
    """Let there be no more keys than these, in so many groups."""
    monkeypatch.setattr(keys, "MAX_KEY_BYTES", count * KEY_BYTES + groups * GROUP_BYTES)


def test_key_stands_for_one_message() -> None:
    """Its kind and its content; who sends it does not matter, since people change networks."""
    memory = KeyMemory(ManualClock())
    assert put(memory, "k", data="x") is None
    assert put(memory, "k", data="x") is True
    assert put(memory, "k", "b", data="x") is True
    for other in ("", "X", b"x"):
        assert put(memory, "k", data=other) is False
    assert put(memory, "k", room="/s", data="other") is None
    assert put(memory, "k", data="x") is True


def test_whom_a_token_names_has_keys_of_its_own() -> None:
    """Nobody else can take one of them first, wherever they come from."""
    memory = KeyMemory(ManualClock())
    for owner in ("192.0.2.1", "sub:ann", "sub:bob", "sub:"):
        assert put(memory, "k", owner, data=owner) is None
    for owner in ("192.0.2.1", "sub:ann", "sub:bob", "sub:"):
        assert put(memory, "k", owner, data=owner) is True
    assert put(memory, "k", "198.51.100.1", data="other") is False


def test_texts_are_not_put_together() -> None:
    """Room, name and key are told apart, wherever one of them ends."""
    memory = KeyMemory(ManualClock())
    assert put(memory, "bc", room="/a") is None
    assert put(memory, "c", room="/ab") is None
    assert put(memory, "b", "sub:a") is None
    assert put(memory, "", "sub:ab") is None


def test_stranger_pushes_out_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has most gives first, the oldest of its keys."""
    limit(monkeypatch, 100, 3)
    memory = KeyMemory(ManualClock())
    for number in range(30):
        assert put(memory, f"{number}", "honest", "/invoices") is None
    for number in range(5000):
        assert put(memory, f"{number}", "stranger", "/junk") is None
        assert memory.key_bytes <= keys.MAX_KEY_BYTES
    assert len(memory) > 90
    for number in range(30):
        assert put(memory, f"{number}", "honest", "/invoices") is True
    assert put(memory, "4999", "stranger", "/junk") is True
    assert put(memory, "0", "stranger", "/junk") is None


def test_flood_of_one_address_stays_in_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy that nobody has listed all have one address; and so it is with many rooms."""
    limit(monkeypatch, 100, 20)
    memory = KeyMemory(ManualClock())
    for number in range(3):
        assert put(memory, f"{number}", "proxy", "/invoices") is None
    for number in range(3000):
        assert put(memory, f"{number}", "proxy", f"/junk-{number % 10}") is None
    for number in range(3):
        assert put(memory, f"{number}", "proxy", "/invoices") is True


def test_many_strangers_are_each_held_to_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each of them may have is what is left for it, and not what others have already."""
    limit(monkeypatch, 100, 11)
    memory = KeyMemory(ManualClock())
    for number in range(8):
        assert put(memory, f"{number}", "honest", "/invoices") is None
    for number in range(2000):
        assert put(memory, f"{number}", f"192.0.2.{number % 10}", "/junk") is None
    for number in range(8):
        assert put(memory, f"{number}", "honest", "/invoices") is True


def test_too_old_ones_go_a_few_at_a_time() -> None:
    """A hundred thousand at once would hold up everybody who publishes."""
    clock = ManualClock()
    memory = KeyMemory(clock)
    for number in range(1000):
        put(memory, f"{number}", f"{number % 10}")
    clock.now = KEY_SECONDS
    for number in range(1000):
        before = memory.dropped
        # The same keys in another order: each counts as new, and none is in the way.
        assert put(memory, f"{999 - number}", "b") is None
        assert memory.dropped - before <= keys.EXPIRED_AT_ONCE + 1
    assert len(memory) == 1000


def test_all_that_is_too_old_goes() -> None:
    """Whatever room it was for, as long as somebody sends anything."""
    clock = ManualClock()
    memory = KeyMemory(clock)
    for number in range(100):
        put(memory, "k", "a", f"/{number}")
    clock.now = KEY_SECONDS
    for number in range(200):
        put(memory, f"{number}", "b")
    assert len(memory) == 200 and memory.key_bytes == 200 * KEY_BYTES + GROUP_BYTES


def test_what_is_forgotten_costs_nothing() -> None:
    """Not its owner, nor its room."""
    memory = KeyMemory(ManualClock())
    names = [memory.name(f"/{n}", Key("k", f"{n % 3}", b"")) for n in range(10)]
    for name in names:
        memory.add(name, (1, 1))
    for name in names:
        memory.forget(name)
        memory.forget(name)
    assert (len(memory), memory.key_bytes) == (0, 0)


@pytest.mark.parametrize("kind", ["one room", "many rooms", "many owners", "rooms and owners"])
def test_memory_is_what_is_counted(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most; and with the longest keys, names and rooms it is within the limit."""
    monkeypatch.setattr(keys, "MAX_KEY_BYTES", 4 * 1024 * 1024)
    content = fingerprint("x")
    memory = KeyMemory(ManualClock())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(12_000):
            room = owner = ""
            if "rooms" in kind:
                room = f"{number}".ljust(128, "\U0001f600")
            if "owners" in kind:
                owner = f"sub:{number}".ljust(68, "\U0001f600")
            text = f"{number}".ljust(128, "\U0001f600")
            # As the hub's parts have them: each message has a text of its own.
            memory.add(
                memory.name(room, Key(text, owner, bytes(bytearray(content)))),
                (1 << 40, number + 1000),
            )
            del text, room, owner
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 2 * 1024 * 1024 < memory.key_bytes <= 4 * 1024 * 1024
    assert used <= memory.key_bytes, (used, memory.key_bytes, len(memory))
