"""Rooms: their members, their logs, and the forms of a message. State, no sockets."""
