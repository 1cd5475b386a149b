"""Which large form is made next.

The fan-out makes one large form after the other. Senders that have made rooms take turns, and then
the rooms of each: a stranger with a thousand rooms delays the form of another sender by one form.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from ..rooms.encodings import Form

R = TypeVar("R")


class Wanted(Generic[R]):
    """At which position, and in which form, rooms want one made. Of the fan-out's thread."""

    def __init__(self) -> None:
        self._found: dict[R, tuple[int, Form]] = {}
        # The rooms of each maker; whose turn it is comes first.
        self._makers: dict[str | None, dict[R, None]] = {}

    def add(self, room: R, maker: str | None, position: int, form: Form) -> None:
        """Put a room at the end of those of its maker; one that is there already stays as it is,
        and asks for more when it has that."""
        if room not in self._found:
            self._found[room] = (position, form)
            self._makers.setdefault(maker, {})[room] = None

    def pop(self) -> tuple[R, int, Form] | None:
        """Return what is made next; None if nothing is wanted."""
        if not self._makers:
            return None
        maker, rooms = next(iter(self._makers.items()))
        room = next(iter(rooms))
        del rooms[room], self._makers[maker]
        if rooms:
            self._makers[maker] = rooms
        return (room, *self._found.pop(room))

    def __len__(self) -> int:
        """Return how many rooms want one."""
        return len(self._found)
