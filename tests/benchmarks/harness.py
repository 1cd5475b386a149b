"""Starts benchmark servers and the load generator, one pair at a time, and describes the machine.

Every measurement gets a fresh server process, so that none inherits the memory or the threads of
the one before. Used by ``bench.py`` and ``guard.py``.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = HERE / "build"
GENERATOR = BUILD / "loadgen"

OURS = "ours"
WEBSOCKETS = "websockets_broadcast"
WEBSOCKET_SERVER = "websocket_server_loop"
SERVERS = (OURS, WEBSOCKETS, WEBSOCKET_SERVER)

Result = dict[str, Any]


class BenchmarkFailed(Exception):
    """A server or the generator did not do its part; the figures would mean nothing."""


def compile_generator() -> None:
    """Build the load generator if its source is newer."""
    source = HERE / "loadgen.c"
    if GENERATOR.exists() and GENERATOR.stat().st_mtime >= source.stat().st_mtime:
        return
    BUILD.mkdir(exist_ok=True)
    command = [
        os.environ.get("CC", "cc"),
        "-O2",
        "-Wall",
        "-Wextra",
        "-o",
        str(GENERATOR),
        str(source),
    ]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchmarkFailed(f"the load generator needs a C compiler: {error}") from error


@contextmanager
def serving(server: str, *options: str, root: Path = ROOT) -> Iterator[tuple[int, int]]:
    """Run a server of ``servers/`` for the length of the block; yield its port and process id.

    Args:
        root: the checkout whose package it imports.
    """
    process = subprocess.Popen(
        [sys.executable, HERE / "servers" / f"{server}.py", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # websocket-server prints a traceback for each client that leaves while it sends.
        stderr=None if server == OURS else subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise BenchmarkFailed(f"the server {server} did not start")
        yield int(line), process.pid
    finally:
        process.stdin.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def measure(
    server: str,
    mode: str,
    *,
    server_options: tuple[str, ...] = (),
    root: Path = ROOT,
    **load: Any,
) -> Result:
    """Run the generator once against a fresh server; return what it reports.

    Args:
        root: the checkout whose package the server imports.
        load: the generator's options, ``need_pings=1`` for ``--need-pings 1``.

    Raises:
        BenchmarkFailed: the generator could not finish its run.
    """
    with serving(server, *server_options, root=root) as (port, pid):
        command = [str(GENERATOR), "--mode", mode, "--port", str(port), "--pid", str(pid)]
        for name, value in load.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkFailed(f"{server}, {mode}: no end after 180 s") from error
        if done.returncode:
            raise BenchmarkFailed(f"{server}, {mode}: {done.stderr.strip()}")
        result: Result = json.loads(done.stdout)
        return result


def need_complete(server: str, result: Result) -> Result:
    """Return the result if every delivery arrived once, whole and in order; else raise."""
    if not result["complete"]:
        raise BenchmarkFailed(f"{server}, {result['mode']}: not every delivery was right: {result}")
    return result


def messages_for(server: str, seconds: float, **load: Any) -> int:
    """Return how many messages each sender must write for a run of about this length.

    The same number for all would be too short a run for the fast or too long a one for the slow.
    """
    messages = max(1, 1000 // int(load.get("senders", 1)))
    while True:
        result = need_complete(server, measure(server, "throughput", messages=messages, **load))
        if result["wall_s"] > seconds / 4:
            return max(1, round(messages * seconds / float(result["wall_s"])))
        messages *= 8


def median(values: list[float]) -> float:
    return statistics.median(values)


def machine() -> str:
    """Describe where the figures come from: processor, cores, kernel, Python, library versions."""
    from importlib.metadata import version

    model = platform.machine()
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    kernel = ".".join(platform.release().split("-")[0].split(".")[:3])
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, Linux {kernel}, "
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"websockets {version('websockets')}, websocket-server {version('websocket-server')}"
    )
