"""What a publisher has reserved. Interrupted publishers are in ``test_ctrl_c``."""

from __future__ import annotations

from broadcast_server.hub.rooms.entries import cost_of
from broadcast_server.hub.rooms.places import Place

from .test_room import drafts, never, room


def test_place_knows_what_of_it_is_still_to_be_given_back() -> None:
    """Whoever was interrupted looks there."""
    r = room()
    used, unused = Place(), Place()
    batch = drafts(1)
    for place in (used, unused):
        assert place.room is None
        assert r.reserve(cost_of(batch), None, never, place)
        assert (place.room, place.path, place.cost) == (r, "/r", cost_of(batch))
    assert used.append(batch, 10, 1)
    assert (used.cost, unused.cost, r._reserved) == (0, cost_of(batch), cost_of(batch))
    for _ in range(2):
        unused.release(unused.cost)
        assert (unused.cost, r._reserved) == (0, 0)
