"""How many clients this process can have: each costs a thread and a descriptor.

The tightest limit counts. A container or a unit of systemd is a control group, which may have so
many tasks (``pids.max``; threads count); a user may have so many (``RLIMIT_NPROC``), root any
number; the kernel has its own bounds. What others in the same group or of the same user have
already is taken off. What cannot be read is no limit: a hub that meets one that it did not know
refuses further clients, and goes on.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
from collections.abc import Iterator
from typing import NamedTuple

# Descriptors that no client can have: standard streams, listener, poller and wake-up pipe.
OWN_DESCRIPTORS = 32
# Threads that no client can have: main, accept, fan-out, log, and some of the host program's.
OWN_THREADS = 8
# Memory maps of a thread: its stack, the guard of that, and what malloc has for it.
MAPS_OF_A_THREAD = 3
# Maps of a process without clients, with a good margin.
OWN_MAPS = 1000

# capabilities(7): with one of them RLIMIT_NPROC does not count.
_CAP_SYS_ADMIN, _CAP_SYS_RESOURCE = 21, 24


class Limit(NamedTuple):
    """How many connections one limit allows, how many if nobody else had any, and what the log
    calls it."""

    room: int
    most: int
    name: str


def tightest(root: pathlib.Path = pathlib.Path("/")) -> Limit | None:
    """Return the limit that allows fewest connections; None if there is none. The soft limits of
    this process are raised as far as they may be.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    return min(limits(root), default=None)


def limits(root: pathlib.Path) -> Iterator[Limit]:
    """Yield each limit that there is, as `tightest` does."""
    descriptors = _raise_limit(resource.RLIMIT_NOFILE)
    if descriptors is not None:
        name = f"the limit of {descriptors} descriptors"
        yield Limit(descriptors - OWN_DESCRIPTORS, descriptors, name)
    for folder in _task_groups(root):
        most = _number(folder / "pids.max")
        if most is not None:
            left = most - (_number(folder / "pids.current") or 1)
            name = f"the limit of {most} threads of its control group (pids.max)"
            yield Limit(left - OWN_THREADS, most, name)
    most = _raise_limit(resource.RLIMIT_NPROC)
    if most is not None and not _may_exceed(root):
        left = most - _threads_of_user(root, os.getuid())
        name = f"the limit of {most} threads of its user (RLIMIT_NPROC)"
        yield Limit(left - OWN_THREADS, most, name)
    kernel = root / "proc/sys"
    for path, own, each in (
        ("kernel/threads-max", OWN_THREADS, 1),
        ("kernel/pid_max", OWN_THREADS, 1),
        ("vm/max_map_count", OWN_MAPS, MAPS_OF_A_THREAD),
    ):
        most = _number(kernel / path)
        if most is not None:
            name = f"{path.replace('/', '.')}, which is {most},"
            yield Limit((most - own) // each, most // each, name)


def _raise_limit(which: int) -> int | None:
    """Raise a limit of this process as far as it may be; return it, None for no limit."""
    soft, hard = resource.getrlimit(which)
    # macOS says "unlimited" of descriptors and refuses it. The old limit then stays.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(which, (hard, hard))
        soft = hard
    return None if soft == resource.RLIM_INFINITY else soft


def _task_groups(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the folders of the control groups that count the tasks of this process: its own and
    those around it, as far as they can be seen from here."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers and path:  # version 2: one tree for all
            tops = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        elif "pids" in controllers.split(","):
            tops = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/pids"]
        else:
            continue
        for top in dict.fromkeys(tops):
            # In a container the path may be that of the host, and the tree that of the container.
            folder = root / top / path.strip("/")
            yield folder
            while folder != root / top:
                folder = folder.parent
                yield folder


def _number(path: pathlib.Path) -> int | None:
    """Return the number that a file holds; None if it holds none, or cannot be read."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _may_exceed(root: pathlib.Path) -> bool:
    """Tell whether this process may have more threads than ``RLIMIT_NPROC`` says: elsewhere than
    on Linux it counts processes."""
    held = _status(root / "proc/self/status").get("CapEff")
    if held is None or os.getuid() == 0:
        return True
    return bool(int(held, 16) & (1 << _CAP_SYS_ADMIN | 1 << _CAP_SYS_RESOURCE))


def _threads_of_user(root: pathlib.Path, uid: int) -> int:
    """Return how many threads a user has, as far as they can be seen; at least this process's."""
    count = 0
    for folder in (root / "proc").glob("[0-9]*"):
        status = _status(folder / "status")
        if status.get("Uid", "").split()[:1] == [str(uid)]:
            with contextlib.suppress(KeyError, ValueError):
                count += int(status["Threads"])
    return max(count, 1)


def _status(path: pathlib.Path) -> dict[str, str]:
    """Return the lines of a ``status`` of proc(5)."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
