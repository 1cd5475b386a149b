"""What the kernel counts: threads, descriptors, memory."""

from __future__ import annotations

import contextlib
import os
import pathlib


def thread_count() -> int:
    """Return how many threads the kernel counts in this process."""
    return len(os.listdir("/proc/self/task"))


def descriptor_count() -> int:
    """Return how many descriptors are open in this process."""
    return len(descriptors())


def descriptors() -> dict[int, str]:
    """Return every open descriptor and what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listed the directory
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def resident_bytes(pid: int) -> int:
    """Return how much memory a process holds (VmRSS)."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has no VmRSS")
