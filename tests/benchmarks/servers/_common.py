"""What the benchmark servers share: options, talk with the driver, a thread that burns CPU.

A server prints one line, its port, when it listens. It then answers each line on its standard input
with one line of JSON (its counters, or ``{}``) and ends when its standard input ends.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import threading
from collections.abc import Callable


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every server has."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--ping-interval", type=float, default=20.0, metavar="SECONDS")
    result.add_argument("--cpu-thread", action="store_true", help="run one CPU-bound thread")
    result.add_argument("--switch-interval", type=float, default=None, metavar="SECONDS")
    return result


def prepare(options: argparse.Namespace) -> None:
    """Raise the descriptor limit, set the switch interval, start the CPU-bound thread if asked."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.switch_interval is not None:
        sys.setswitchinterval(options.switch_interval)
    if options.cpu_thread:
        threading.Thread(target=_burn, daemon=True).start()


def talk(port: int, stats: Callable[[], dict[str, int]] = dict) -> None:
    """Tell the port, answer until standard input ends."""
    print(port, flush=True)
    for _ in sys.stdin:
        print(json.dumps(stats()), flush=True)


def _burn() -> None:
    number = 0
    while True:
        number = (number * 31 + 7) % 1_000_003
