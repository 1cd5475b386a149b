"""How fast a process grows: samples of its VmRSS, and the slope of the line through them."""

from __future__ import annotations

import contextlib
import time

from ..support import resident_bytes

MIB = 1024 * 1024
# A line through less than this says nothing about a minute.
MIN_SECONDS = 20.0


class Growth:
    """The memory of one process over time.

    Args:
        pid: the process.
        warm_up: seconds from now that do not count: caches, arenas and logs fill.

    Attributes:
        last: what it held when it was looked at last, in bytes.
    """

    def __init__(self, pid: int, warm_up: float) -> None:
        self._pid = pid
        self._begin = time.monotonic() + warm_up
        self.last = 0
        self._samples: list[tuple[float, int]] = []

    def sample(self) -> None:
        """Note what the process holds now, if it still runs."""
        now = time.monotonic()
        # A process that is just ending has no memory, or no line about it.
        with contextlib.suppress(OSError, LookupError):
            self.last = resident_bytes(self._pid)
            if now >= self._begin:
                self._samples.append((now, self.last))

    def per_minute(self) -> float | None:
        """Return the growth in bytes a minute; None if it was watched for too short a time."""
        return slope(self._samples)


def slope(samples: list[tuple[float, int]]) -> float | None:
    """Return the slope of the line of least squares through (seconds, bytes), in bytes a minute;
    None if the samples span less than ``MIN_SECONDS``."""
    if not samples or samples[-1][0] - samples[0][0] < MIN_SECONDS:
        return None
    mean_time = sum(at for at, _ in samples) / len(samples)
    mean_size = sum(size for _, size in samples) / len(samples)
    above = sum((at - mean_time) * (size - mean_size) for at, size in samples)
    below = sum((at - mean_time) ** 2 for at, _ in samples)
    return 60.0 * above / below


def describe(growth: float | None) -> str:
    """Return a growth as text."""
    return "growth not judged" if growth is None else f"{growth / MIB:+.2f} MiB a minute"
