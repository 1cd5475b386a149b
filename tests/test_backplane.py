"""Where messages get their ids: one growing clock, appended in order, until it is closed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from broadcast_server.backplane import Ids, MemoryBackplane
from broadcast_server.errors import HubStopped
from broadcast_server.messages import Draft


class Log:
    """A room that remembers which ids came."""

    def __init__(self) -> None:
        self.ids: list[tuple[int, int]] = []

    def append(self, drafts: Sequence[Draft], ms: int, first_seq: int) -> None:
        """Take a batch."""
        self.ids += [(ms, first_seq + number) for number in range(len(drafts))]


def drafts(count: int) -> list[Draft]:
    return [Draft(0, b"") for _ in range(count)]


def test_ids_count_up_within_a_millisecond_and_never_go_back() -> None:
    """Whatever the system's clock does; one clock for all rooms."""
    clock = [10.0]
    backplane = MemoryBackplane(lambda: clock[0])
    log, other = Log(), Log()
    given: list[Ids] = []
    assert backplane.newest() == (10_000, -1)
    for now, room, count in ((10.0, log, 2), (10.0, other, 1), (9.0, log, 2), (10.002, log, 1)):
        clock[0] = now
        backplane.submit(room, drafts(count), given.append)
    assert given == [(10_000, 0, 2), (10_000, 2, 1), (10_000, 3, 2), (10_002, 0, 1)]
    assert log.ids == [(10_000, 0), (10_000, 1), (10_000, 3), (10_000, 4), (10_002, 0)]
    assert other.ids == [(10_000, 2)]
    assert backplane.newest() == (10_002, 0)
    assert backplane.messages == 6


def test_done_is_called_after_the_append_and_without_a_lock() -> None:
    """So that a callback may publish."""
    backplane = MemoryBackplane(lambda: 1.0)
    log = Log()
    seen: list[int] = []

    def again(ids: Ids) -> None:
        seen.append(len(log.ids))
        if len(log.ids) < 3:
            backplane.submit(log, drafts(1), again)

    backplane.submit(log, drafts(1), again)
    assert seen == [1, 2, 3]


def test_closed_backplane_accepts_nothing() -> None:
    """Nothing is half accepted: no id, no entry, no callback."""
    backplane = MemoryBackplane()
    log = Log()
    backplane.close()
    with pytest.raises(HubStopped):
        backplane.submit(log, drafts(1), lambda ids: pytest.fail("called"))
    assert log.ids == [] and backplane.messages == 0


def test_many_threads_append_in_the_order_of_their_ids() -> None:
    """The lock is held over both."""
    backplane = MemoryBackplane()
    log = Log()

    def publish() -> None:
        for _ in range(500):
            backplane.submit(log, drafts(2), lambda ids: None)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(log.ids) == 4000
    assert log.ids == sorted(set(log.ids))
