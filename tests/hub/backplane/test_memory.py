"""Where messages get their ids: one clock for all rooms, which never goes back."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from broadcast_server.errors import HubStopped
from broadcast_server.hub.backplane import keys
from broadcast_server.hub.backplane.interface import SenderGone
from broadcast_server.hub.backplane.memory import MemoryBackplane
from broadcast_server.hub.rooms.entries import Accepted, Draft, Key, cost_of, fingerprint
from broadcast_server.messages import format_id, parse_id


class ManualClock:
    """A clock that shows what it is set to, in seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class RecordingLog:
    """The least that a backplane needs of a room."""

    def __init__(self) -> None:
        self.appended: list[tuple[list[Draft], int, int]] = []
        self.path = "/r"
        self.released: list[int] = []
        self.sender_is_here = True

    def release(self, cost: int) -> None:
        self.released.append(cost)

    def append(self, drafts: Sequence[Draft], ms: int, first_seq: int) -> bool:
        if self.sender_is_here:
            self.appended.append((list(drafts), ms, first_seq))
        return self.sender_is_here


def begun(clock: ManualClock) -> MemoryBackplane:
    """Return a backplane that has begun a second before the clock's time."""
    clock.now -= 1
    backplane = MemoryBackplane(clock)
    clock.now += 1
    return backplane


def drafts(count: int) -> list[Draft]:
    return [Draft(1, b"\x81\x00") for _ in range(count)]


def submit(backplane: MemoryBackplane, count: int, log: RecordingLog | None = None) -> Accepted:
    """Submit a batch; return the ids that it got."""
    done: list[Accepted] = []
    backplane.submit(log or RecordingLog(), drafts(count), done.append)
    (ids,) = done
    return ids


def test_batch_is_in_the_log_before_done_is_called() -> None:
    """``done`` says "accepted": by then the log has the batch with the same ids."""
    backplane, log, batch = begun(ManualClock(5.0)), RecordingLog(), drafts(3)
    seen: list[tuple[Accepted, int]] = []
    backplane.submit(log, batch, lambda ids: seen.append((ids, len(log.appended))))
    assert seen == [(Accepted(5000, 1, 3), 1)]
    assert log.appended == [(batch, 5000, 1)]


def test_done_runs_without_a_lock() -> None:
    """A callback may publish in its turn."""
    backplane, log = begun(ManualClock(5.0)), RecordingLog()
    inner: list[Accepted] = []
    backplane.submit(log, drafts(1), lambda _: inner.append(submit(backplane, 1, log)))
    assert inner == [Accepted(5000, 2, 1)]
    assert [ms_seq[1:] for ms_seq in log.appended] == [(5000, 1), (5000, 2)]


@pytest.mark.parametrize(
    ("times", "ids"),
    [
        ([5.0, 5.0, 5.0009], [(5000, 1), (5000, 3), (5000, 5)]),
        ([5.0, 5.001, 6.0], [(5000, 1), (5001, 1), (6000, 1)]),
        ([5.0, 4.0, 4.999, 5.0], [(5000, 1), (5000, 3), (5000, 5), (5000, 7)]),
        ([5.0, 1.0, 5.5], [(5000, 1), (5000, 3), (5500, 1)]),
    ],
    ids=["same millisecond", "later", "back", "back and on"],
)
def test_ids_follow_the_clock_but_never_back(
    times: list[float], ids: list[tuple[int, int]]
) -> None:
    """Within a millisecond, and while the system's clock is behind, the sequence counts on."""
    clock = ManualClock(0)
    backplane = begun(clock)
    got = []
    for clock.now in times:
        got.append(submit(backplane, 2)[:2])
    assert got == ids


def test_ids_grow_over_all_rooms() -> None:
    """Whatever the clock does: no id is given twice, and every later one is greater."""
    rng = random.Random(3)
    clock = ManualClock(100.0)
    backplane = begun(clock)
    logs = [RecordingLog(), RecordingLog()]
    given = []
    for _ in range(500):
        clock.now += rng.choice([0, 0, 0.0004, 0.001, 5, -3])
        ms, first, count, *_ = submit(backplane, rng.randrange(1, 5), rng.choice(logs))
        given += [(ms, seq) for seq in range(first, first + count)]
    assert all(earlier < later for earlier, later in itertools.pairwise(given))
    assert backplane.messages == len(given)
    for log in logs:
        ids = [appended[1:] for appended in log.appended]
        assert ids == sorted(ids)


def test_newest_is_the_last_id_or_the_clock() -> None:
    """A room that begins now misses nothing that comes after ``newest``, and all before it."""
    clock = ManualClock(5.0)
    backplane = begun(clock)
    assert backplane.newest() == (5000, 0)
    submit(backplane, 3)
    assert backplane.newest() == (5000, 3)
    clock.now = 4.0
    assert backplane.newest() == (5000, 3)
    clock.now = 5.001
    assert backplane.newest() == (5001, 0)
    assert submit(backplane, 1)[:2] > (5001, 0)


def test_newest_moves_the_clock() -> None:
    """A room that begins with it must not get older ids when the system's clock goes back."""
    clock = ManualClock(5.0)
    backplane = begun(clock)
    floor = backplane.newest()
    clock.now = 4.0
    assert submit(backplane, 1)[:2] > floor


def test_newest_can_be_given_back() -> None:
    """Who is evicted before its first message resumes from there: it must read as an id."""
    backplane = MemoryBackplane()
    newest = backplane.newest()
    assert parse_id(format_id(*newest)) == newest
    assert submit(backplane, 1)[:2] > newest


def test_default_clock_is_the_systems() -> None:
    """Accepted of one hub after another grow, because the time does."""
    before = MemoryBackplane().newest()
    assert before[0] > 1_700_000_000_000
    assert submit(MemoryBackplane(), 1)[:2] > before


def test_nothing_is_accepted_after_close() -> None:
    """A batch is in the log with its ids, or it is refused: nothing in between."""
    backplane, log = begun(ManualClock(5.0)), RecordingLog()
    submit(backplane, 1, log)
    backplane.close()
    backplane.close()
    for _ in range(2):
        with pytest.raises(HubStopped):
            backplane.submit(log, drafts(1), lambda ids: pytest.fail(f"accepted as {ids}"))
    assert len(log.appended) == 1
    assert backplane.messages == 1
    assert backplane.newest() == (5000, 1)


def keyed(*keys: str | None, data: str = "") -> list[Draft]:
    """Return messages with these keys, all of one content."""
    content = fingerprint(data)
    return [
        Draft(1, b"\x81\x00", None, None if key is None else Key(key, "192.0.2.1", content))
        for key in keys
    ]


def submit_keyed(
    backplane: MemoryBackplane, log: RecordingLog, *keys: str | None, data: str = ""
) -> Accepted:
    """Submit messages with these keys; return the ids that they got."""
    done: list[Accepted] = []
    backplane.submit(log, keyed(*keys, data=data), done.append)
    (ids,) = done
    return ids


def test_hub_that_begins_in_the_same_millisecond_gives_later_ids() -> None:
    """And what the one before has given is known to be from before."""
    clock = ManualClock(5.0)
    last = submit(begun(clock), 3)
    backplane = MemoryBackplane(clock)
    assert (last.ms, last.first + 2) < backplane.started < submit(backplane, 1)[:2]


def test_known_key_gets_the_first_id_and_is_not_appended() -> None:
    """Also within one batch; its place in the log is given back, and the others follow closely."""
    backplane, log = begun(ManualClock(5.0)), RecordingLog()
    submit_keyed(backplane, log, "a", None)
    ids = submit_keyed(backplane, log, "b", "a", None, "b")
    assert list(ids.ids(4)) == [
        ((5000, 3), False),
        ((5000, 1), True),
        ((5000, 4), False),
        ((5000, 3), True),
    ]
    assert [len(appended[0]) for appended in log.appended] == [2, 2]
    assert log.released == [cost_of(keyed("a", "b"))]
    assert (backplane.messages, backplane.duplicates) == (4, 2)


def test_key_of_another_message_is_told_and_nothing_is_appended() -> None:
    """The others of the batch are accepted as if it were not there, and the key stays the first
    one's."""
    backplane, log = begun(ManualClock(5.0)), RecordingLog()
    submit_keyed(backplane, log, "a", data="first")
    ids = submit_keyed(backplane, log, "b", "a", None, "b", data="second")
    assert ids == Accepted(5000, 2, 2, {3: (5000, 2)}, {1})
    assert list(ids.ids(4)) == [
        ((5000, 2), False),
        (None, False),
        ((5000, 3), False),
        ((5000, 2), True),
    ]
    assert [len(appended[0]) for appended in log.appended] == [1, 2]
    assert log.released == [cost_of(keyed("a", "b"))]
    assert (backplane.messages, backplane.duplicates) == (3, 1)
    assert submit_keyed(backplane, log, "a", data="first").repeated == {0: (5000, 1)}


def test_batch_of_a_sender_that_has_left_is_refused_and_may_come_again() -> None:
    """Its keys are not remembered: whoever sends it again would be told that it was delivered."""
    backplane, log = begun(ManualClock(5.0)), RecordingLog()
    submit_keyed(backplane, log, "a")
    log.sender_is_here = False
    for names in (("b", None, "b"), ("a", "b")):
        with pytest.raises(SenderGone):
            submit_keyed(backplane, log, *names)
    assert (backplane.messages, len(log.appended)) == (1, 1)
    assert log.released == []  # whoever has reserved the place gives all of it back
    log.sender_is_here = True
    ids = submit_keyed(backplane, log, "a", "b")
    assert [repeated for _, repeated in ids.ids(2)] == [True, False]
    assert log.appended[1][1:] > log.appended[0][1:]
    assert backplane.messages == 2


def test_key_counts_in_its_room_and_for_ten_minutes() -> None:
    """Another room has keys of its own; an old one is as good as new."""
    monotonic = ManualClock(0.0)
    backplane, log, other = MemoryBackplane(monotonic=monotonic), RecordingLog(), RecordingLog()
    other.path = "/other"
    submit_keyed(backplane, log, "a")
    assert not submit_keyed(backplane, other, "a").repeated
    monotonic.now = 599.0
    assert submit_keyed(backplane, log, "a").repeated
    monotonic.now = 600.0
    assert not submit_keyed(backplane, log, "a").repeated


def test_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes. The oldest of one owner go first."""
    bound = keys.GROUP_BYTES + 3 * keys.KEY_BYTES
    monkeypatch.setattr(keys, "MAX_KEY_BYTES", bound)
    backplane, log = MemoryBackplane(), RecordingLog()
    for key in "abcd":
        submit_keyed(backplane, log, key)
        assert backplane.key_bytes <= bound
    assert submit_keyed(backplane, log, "d").repeated
    assert not submit_keyed(backplane, log, "a").repeated
