"""A run of log entries joined once for all the clients that need it.

Most clients get ``data`` as it is, one object for all. A client whose own messages are among them
gets the slices between those. After a send that took less, ``locate`` tells where the client is
now.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right

from ..rooms.encodings import RAW, Form
from ..rooms.entries import Entry

Range = tuple[int, int]


class LogBatch:
    """The entries from position ``start`` up to ``stop``, never none.

    Used by the fan-out's thread only.
    """

    __slots__ = (
        "_ends",
        "_entries",
        "_own",
        "_pieces",
        "count",
        "data",
        "origins",
        "start",
        "stop",
    )

    def __init__(self, start: int, entries: list[Entry], form: Form = RAW) -> None:
        self.start = start
        self.stop = start + len(entries)
        self.count = len(entries)
        self._entries = entries
        slot = form.slot
        # Each entry has the form by now: whoever makes a batch sees to that, and counts it.
        self._pieces: list[bytes] = [getattr(entry, slot) for entry in entries]
        self._ends: list[int] | None = None
        # A single entry needs no join: its own bytes are what goes out.
        self.data = self._pieces[0] if self.count == 1 else b"".join(self._pieces)
        self.origins = {entry.origin for entry in entries}
        self._own: dict[int, tuple[list[Range], int]] | None = None

    def _ends_of_pieces(self) -> list[int]:
        if self._ends is None:
            self._ends = list(itertools.accumulate(map(len, self._pieces)))
        return self._ends

    def without(self, origin: int) -> tuple[list[Range], int]:
        """Return the byte ranges that are not of an origin in ``origins``, and how many entries
        they are."""
        if len(self.origins) == 1:
            return [], 0
        if self._own is None:
            self._own = self._tabulate()
        own, count = self._own[origin]
        ranges = []
        position = 0
        for start, stop in own:
            if start > position:
                ranges.append((position, start))
            position = stop
        if position < len(self.data):
            ranges.append((position, len(self.data)))
        return ranges, self.count - count

    def _tabulate(self) -> dict[int, tuple[list[Range], int]]:
        """Return for each origin its own ranges, neighbours merged, and its number of entries."""
        runs: dict[int, list[Range]] = {origin: [] for origin in self.origins}
        counts = dict.fromkeys(self.origins, 0)
        start = 0
        for entry, stop in zip(self._entries, self._ends_of_pieces(), strict=True):
            ranges = runs[entry.origin]
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], stop)
            else:
                ranges.append((start, stop))
            counts[entry.origin] += 1
            start = stop
        return {origin: (ranges, counts[origin]) for origin, ranges in runs.items()}

    def locate(self, sent: int, ranges: list[Range] | None) -> tuple[int, memoryview | None]:
        """Tell where a client is that took only part.

        Args:
            sent: how many bytes it took.
            ranges: what it was offered, if not all of ``data``.

        Returns:
            The position of the next entry to begin, and the unsent rest of the entry in progress.
        """
        offset = sent
        if ranges is not None:
            # Where in `data` the last byte that was taken lies; what is skipped behind it is
            # skipped again by the next batch.
            offset = 0
            for start, stop in ranges:
                length = min(sent, stop - start)
                if length:
                    offset = start + length
                sent -= length
        ends = self._ends_of_pieces()
        index = bisect_right(ends, offset)
        rest = None
        if index < self.count:
            begun = offset - (ends[index - 1] if index else 0)
            if begun:
                rest = memoryview(self._pieces[index])[begun:]
                index += 1
        return self.start + index, rest

    def count_others(self, stop: int, origin: int) -> int:
        """Return how many entries before position ``stop`` are not of an origin."""
        return sum(entry.origin != origin for entry in self._entries[: stop - self.start])
