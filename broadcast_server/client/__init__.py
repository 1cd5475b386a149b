"""``BroadcastClient`` and ``publish``: a member of a room, and single requests to a hub."""
