"""``make compare REV=…``: this hub and that of an earlier commit, side by side in one run.

Both run in turns under the same load, and the medians of the rounds are compared: what else the
machine does touches both. A ratio above 1 means that this one is better. Nothing fails here; two
runs differ by a tenth on a busy machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import harness
from harness import OURS, ROOT, median


class Load(NamedTuple):
    """One row.

    Attributes:
        name: what is measured.
        mode, options: of the load generator.
        key: the figure of its report.
        more_is_better: whether it should be large.
    """

    name: str
    mode: str
    options: dict[str, Any]
    key: str
    more_is_better: bool


LATENCY = {"clients": 1000, "senders": 50, "rate": 50}
LOADS = [
    Load(
        "100 clients, one busy sender: deliveries/s",
        "throughput",
        {"senders": 1},
        "deliveries_per_s",
        True,
    ),
    Load(
        "100 clients, all send: deliveries/s",
        "throughput",
        {"senders": 100},
        "deliveries_per_s",
        True,
    ),
    Load(
        "1,000 clients, 50 messages/s: deliveries per CPU-s",
        "latency",
        LATENCY,
        "deliveries_per_cpu_s",
        True,
    ),
    Load("… p99, ms", "latency", LATENCY, "p99_ms", False),
    Load("joins/s, 4 at a time", "connect", {"clients": 1000}, "connects_per_s", True),
    Load("2,000 idle clients: KiB for each", "idle", {"clients": 2000}, "rss_kib", False),
]


def run(load: Load, root: Path, messages: int, seconds: float) -> float:
    """Measure once; return the figure."""
    options = dict(load.options)
    server_options: tuple[str, ...] = ()
    if load.mode == "throughput":
        options["messages"] = messages
    elif load.mode == "latency":
        options["seconds"] = seconds
    elif load.mode == "idle":
        server_options, options["need_pings"] = ("--ping-interval", "3"), 1
    result = harness.measure(OURS, load.mode, server_options=server_options, root=root, **options)
    harness.need_complete(OURS, result)
    if load.mode == "idle":
        grown = result["rss_after_kib"] - result["rss_before_kib"]
        return float(grown) / int(options["clients"])
    return float(result[load.key])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rev", default="HEAD~1", help="the earlier commit (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a run")
    options = parser.parse_args()
    harness.compile_generator()
    print(f"| | {options.rev} | this | ratio |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", options.rev, "broadcast_server"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        for load in LOADS:
            messages = 0
            if load.mode == "throughput":
                messages = harness.messages_for(OURS, options.seconds, **load.options)
            found: dict[Path, list[float]] = {Path(folder): [], ROOT: []}
            for number in range(options.rounds):
                roots = list(found)
                for root in roots if number % 2 else reversed(roots):
                    found[root].append(run(load, root, messages, options.seconds))
            before, after = (median(values) for values in found.values())
            ratio = after / before if load.more_is_better else before / after
            print(f"| {load.name} | {before:,.4g} | {after:,.4g} | {ratio:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
