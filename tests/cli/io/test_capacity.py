"""How many clients a process can have: with the files of other systems, and its own limits."""

from __future__ import annotations

import os
import pathlib
import resource
import subprocess
from collections.abc import Iterator

import pytest

from broadcast_server.cli.io import capacity
from broadcast_server.cli.io.capacity import (
    MAPS_OF_A_THREAD,
    OWN_DESCRIPTORS,
    OWN_MAPS,
    OWN_THREADS,
    Limit,
    tightest,
)

from ...support import PYTHON, python_environment


@pytest.fixture(autouse=True)
def _limits_as_before() -> Iterator[None]:
    """The soft ones are raised by what is tested."""
    names = (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    before = [resource.getrlimit(name) for name in names]
    yield
    for name, limit in zip(names, before, strict=True):
        resource.setrlimit(name, limit)


def make(root: pathlib.Path, **files: str) -> None:
    """Write files below a folder; in a name two underscores are a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def rooms(root: pathlib.Path) -> dict[str, int]:
    """Return the room of each limit that is found below a folder, by the first word that tells."""
    found: dict[str, int] = {}
    for word in ("pids.max", "RLIMIT_NPROC", "threads-max", "pid_max", "max_map_count"):
        for limit in capacity.limits(root):
            if word in limit.name:
                found[word] = min(limit.room, found.get(word, limit.room))
    return found


def test_group_of_a_container_with_version_2(tmp_path: pathlib.Path) -> None:
    """Its own path is the root; what others in it have is taken off."""
    group = {"sys__fs__cgroup__pids.max": "60\n", "sys__fs__cgroup__pids.current": "12\n"}
    make(tmp_path, proc__self__cgroup="0::/\n", **group)
    assert rooms(tmp_path) == {"pids.max": 60 - 12 - OWN_THREADS}


def test_tightest_group_of_those_around_it_counts(tmp_path: pathlib.Path) -> None:
    """A slice may have less left than the unit may have."""
    make(
        tmp_path,
        proc__self__cgroup="0::/system.slice/hub.service\n",
        **{
            "sys__fs__cgroup__system.slice__hub.service__pids.max": "20000\n",
            "sys__fs__cgroup__system.slice__hub.service__pids.current": "3\n",
            "sys__fs__cgroup__system.slice__pids.max": "500\n",
            "sys__fs__cgroup__system.slice__pids.current": "400\n",
        },
    )
    assert rooms(tmp_path) == {"pids.max": 100 - OWN_THREADS}


@pytest.mark.parametrize("shown", ["/docker/0123", "/"])
def test_group_of_a_container_with_version_1(shown: str, tmp_path: pathlib.Path) -> None:
    """Its path may be the host's, and the tree that it sees its own."""
    make(
        tmp_path,
        proc__self__cgroup=f"8:pids:{shown}\n3:cpuset:/\n0::/\n",
        **{"sys__fs__cgroup__pids__pids.max": "60\n", "sys__fs__cgroup__pids__pids.current": "1\n"},
    )
    assert rooms(tmp_path) == {"pids.max": 59 - OWN_THREADS}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc__self__cgroup": "0::/\n"},
        {"proc__self__cgroup": "0::/\n", "sys__fs__cgroup__pids.max": "max\n"},
        {"proc__self__cgroup": "0::/\n", "sys__fs__cgroup__pids.max": ""},
        {"proc__self__cgroup": "nonsense\n"},
        {"proc__self__status": "Name:\tpython\nnonsense\nCapEff:\n"},
        {"proc__sys__kernel__pid_max": "many\n"},
    ],
    ids=["nothing", "no file", "max", "empty", "nonsense", "no capability", "no number"],
)
def test_what_cannot_be_read_is_no_limit(files: dict[str, str], tmp_path: pathlib.Path) -> None:
    """As on macOS, and with what some container forbids."""
    make(tmp_path, **files)
    assert rooms(tmp_path) == {}


def test_limits_of_the_machine(tmp_path: pathlib.Path) -> None:
    """Threads have numbers as processes have, and three maps each."""
    make(
        tmp_path,
        **{
            "proc__sys__kernel__threads-max": "1000\n",
            "proc__sys__kernel__pid_max": "2000\n",
            "proc__sys__vm__max_map_count": "65530\n",
        },
    )
    assert rooms(tmp_path) == {
        "threads-max": 1000 - OWN_THREADS,
        "pid_max": 2000 - OWN_THREADS,
        "max_map_count": (65_530 - OWN_MAPS) // MAPS_OF_A_THREAD,
    }


ALONE = """
import os, pathlib, resource, sys
from broadcast_server.cli.io import capacity
os.chdir(sys.argv[2])
os.setuid(int(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NPROC, (300, 400))
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1000))
print(capacity.tightest(pathlib.Path()))  # others may not look at what is above
print(resource.getrlimit(resource.RLIMIT_NPROC), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.slow
def test_threads_of_the_user_count(tmp_path: pathlib.Path) -> None:
    """Also those of its other processes; and the soft limits are raised."""
    uid = str(os.getuid() or 54_321)
    make(
        tmp_path,
        proc__self__status="CapEff:\t0000000000000000\n",
        proc__1__status="Uid:\t0\t0\t0\t0\nThreads:\t50\n",
        proc__7__status=f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nThreads:\t30\n",
        proc__8__status=f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nThreads:\t1\n",
        proc__9__stat="a process that has just ended has no status",
    )
    tmp_path.chmod(0o755)
    ended = subprocess.run(
        [PYTHON, "-c", ALONE, uid, str(tmp_path)],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    name = "the limit of 400 threads of its user (RLIMIT_NPROC)"
    assert ended.stdout.splitlines() == [
        str(Limit(400 - 31 - OWN_THREADS, 400, name)),
        "(400, 400) (1000, 1000)",
    ], ended.stderr


def test_root_has_any_number_of_threads(tmp_path: pathlib.Path) -> None:
    """The kernel does not count them: nor those of who may do what root may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    make(tmp_path, proc__self__status=f"CapEff:\t{1 << 24:016x}\n")
    assert rooms(tmp_path) == {}
    assert resource.getrlimit(resource.RLIMIT_NPROC) in ((soft, hard), (hard, hard))


def test_descriptors_are_the_limit_where_nothing_else_is(tmp_path: pathlib.Path) -> None:
    """As it was before threads were looked at."""
    found = tightest(tmp_path)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert found == Limit(hard - OWN_DESCRIPTORS, hard, f"the limit of {hard} descriptors")


def test_limits_of_this_machine_are_read() -> None:
    """Whatever they are: some number of clients is left."""
    found = capacity.tightest()
    assert found is not None and 0 < found.room < found.most
