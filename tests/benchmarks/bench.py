"""``make bench``: this hub and two rivals, side by side in one run.

Each row is measured in rounds; in a round the servers take turns, so that what else the machine
does touches all of them, and the median of the rounds counts. What the rows mean is told in
``docs/topics/performance.md``.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import decode
import harness
from harness import OURS, SERVERS, WEBSOCKET_SERVER, WEBSOCKETS, Result, median

IDLE_CLIENTS = 2000
# Beside a thread that computes, at the default switch interval.
CPU_BOUND_P99_MS = 40
START, END = "<!-- bench -->", "<!-- /bench -->"


@dataclass
class Row:
    """One line of the table; an aim without a verdict has none that could be missed."""

    name: str
    cells: dict[str, str]
    aim: str = ""
    met: bool | None = None

    def markdown(self) -> str:
        verdict = {None: "", True: "yes", False: "**no**"}[self.met]
        cells = [self.cells.get(server, "–") for server in SERVERS]
        return "| " + " | ".join([self.name, *cells, self.aim, verdict]) + " |"


@dataclass
class Bench:
    """The measurements; each method adds its rows."""

    rounds: int
    seconds: float
    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        name: str,
        values: dict[str, float],
        show: Callable[[float], str],
        aim: str = "",
        met: bool | None = None,
    ) -> None:
        cells = {server: show(value) for server, value in values.items()}
        self.rows.append(Row(name, cells, aim, met))

    def rounds_of(
        self,
        mode: str,
        rounds: int | None = None,
        **load: Any,
    ) -> dict[str, list[Result]]:
        """Let the servers take turns; every delivery has to be right."""
        results: dict[str, list[Result]] = {server: [] for server in SERVERS}
        for _ in range(rounds or self.rounds):
            for server in SERVERS:
                own = {
                    name: value[server] if isinstance(value, dict) else value
                    for name, value in load.items()
                }
                result = harness.measure(server, mode, **own)
                results[server].append(harness.need_complete(server, result))
        return results

    def busy(self) -> None:
        for senders in (1, 100):
            messages = {
                server: harness.messages_for(server, self.seconds / 3, senders=senders)
                for server in SERVERS
            }
            results = self.rounds_of("throughput", senders=senders, messages=messages)
            rates = medians(results, "deliveries_per_s")
            ratio = rates[OURS] / rates[WEBSOCKETS]
            who = "one busy sender" if senders == 1 else "all send"
            aims: tuple[str, bool | None] = ("", None)
            if senders == 1:
                aims = (f"≥ 20 × websockets (is {ratio:.1f})", ratio >= 20)
            self.add(f"100 clients, {who}: deliveries/s", rates, thousands, *aims)
            per_cpu = medians(results, "deliveries_per_cpu_s")
            self.add(f"… deliveries per CPU-second, {who}", per_cpu, thousands)
            if senders == 1:
                self.busy_and_stalled(messages)

    def busy_and_stalled(self, messages: dict[str, int]) -> None:
        cells = {}
        for server in SERVERS:
            runs = [
                harness.measure(
                    server, "throughput", messages=messages[server], stalled=1, timeout=5
                )
                for _ in range(self.rounds if server == OURS else 1)
            ]
            rate = median([run["deliveries_per_s"] for run in runs])
            cells[server] = late_cell(runs) or thousands(rate)
        self.rows.append(Row("… deliveries/s, one more client that never reads", cells))

    def latency(self) -> None:
        results = self.rounds_of("latency", clients=1000, senders=50, rate=50, seconds=self.seconds)
        name = "1,000 clients, 50 messages/s: "
        per_cpu = medians(results, "deliveries_per_cpu_s")
        met = per_cpu[OURS] >= max(per_cpu.values())
        self.add(name + "deliveries per CPU-second", per_cpu, thousands, "≥ both", met)
        self.add("… p50, ms", medians(results, "p50_ms"), decimals)
        p99 = medians(results, "p99_ms")
        self.add("… p99, ms", p99, decimals, "≤ both", p99[OURS] <= min(p99.values()))

    def idle(self) -> None:
        kib: dict[str, float] = {}
        for server in SERVERS:
            result = harness.measure(
                server,
                "idle",
                server_options=("--ping-interval", "3"),
                clients=IDLE_CLIENTS,
                # websocket-server never pings.
                need_pings=0 if server == WEBSOCKET_SERVER else 1,
            )
            harness.need_complete(server, result)
            kib[server] = (result["rss_after_kib"] - result["rss_before_kib"]) / IDLE_CLIENTS
        name = "2,000 idle clients: KiB for each"
        self.add(name, kib, decimals, "≤ 22", kib[OURS] <= 22)

    def connects(self) -> None:
        # Short runs with a thread started for each client: noisier than the others.
        results = self.rounds_of("connect", rounds=self.rounds * 3, clients=1000)
        rates = medians(results, "connects_per_s")
        shares = [rates[OURS] / rates[rival] for rival in (WEBSOCKETS, WEBSOCKET_SERVER)]
        aim = (
            f"≥ 0.9 × websockets (is {shares[0]:.2f}), "
            f"≥ 0.7 × websocket-server (is {shares[1]:.2f})"
        )
        met = shares[0] >= 0.9 and shares[1] >= 0.7
        self.add("joins/s, 4 at a time", rates, thousands, aim, met)

    def cpu_bound(self) -> None:
        """Not everyone keeps up here, so a run that falls behind is shown as such."""
        for label, options in (
            ("5 ms (Python's default)", ("--cpu-thread",)),
            ("0.1 ms", ("--cpu-thread", "--switch-interval", "0.0001")),
        ):
            cells = {}
            aims: tuple[str, bool | None] = ("", None)
            for server in SERVERS:
                runs = [
                    harness.measure(
                        server,
                        "latency",
                        server_options=options,
                        clients=100,
                        senders=10,
                        rate=50,
                        seconds=self.seconds * 0.6,
                        timeout=3,
                    )
                    for _ in range(self.rounds if server == OURS else 1)
                ]
                cells[server] = latency_cell(runs)
                if server == OURS and len(options) == 1:
                    p99 = median([run["p99_ms"] for run in runs])
                    aims = (f"p99 ≤ {CPU_BOUND_P99_MS}", p99 <= CPU_BOUND_P99_MS)
            name = (
                f"100 clients, 50 messages/s, a CPU-bound thread, switching {label}: p50 / p99, ms"
            )
            self.rows.append(Row(name, cells, *aims))

    def stalled(self) -> None:
        """One client that never reads; the rate is such that the hub evicts it half-way."""
        load: dict[str, Any] = {
            "clients": 100,
            "senders": 10,
            "rate": 200,
            "size": 8192,
            "timeout": 3,
        }
        runs: dict[tuple[str, int], list[Result]] = {}
        for number in range(1 if self.rounds == 1 else self.rounds + 2):
            for server in SERVERS:
                for stalled in (0, 1):
                    if number and server == WEBSOCKET_SERVER:
                        continue  # with a stalled client it stops for good: once is enough
                    result = harness.measure(server, "latency", seconds=4, stalled=stalled, **load)
                    runs.setdefault((server, stalled), []).append(result)
        name = "100 clients, 200 messages/s of 8 KiB: "
        without = {server: latency_cell(runs[server, 0]) for server in SERVERS}
        self.rows.append(Row(name + "p50 / p99, ms", without))
        p99 = [median([run["p99_ms"] for run in runs[OURS, stalled]]) for stalled in (0, 1)]
        for run in runs[OURS, 0] + runs[OURS, 1]:
            harness.need_complete(OURS, run)
        ratio = p99[1] / p99[0]
        cells = {server: latency_cell(runs[server, 1]) for server in SERVERS}
        aim = f"p99 ≤ 1.2 × without (is {ratio:.2f})"
        self.rows.append(Row("… and one more client that never reads", cells, aim, ratio <= 1.2))
        codes = {run["stalled_close_code"] for run in runs[OURS, 1]}
        if codes != {1013}:
            raise harness.BenchmarkFailed(f"the stalled client was closed with {codes}, not 1013")

    def decoding(self) -> None:
        ours, reference = decode.measure()
        ratio = ours / reference
        cells = {OURS: f"{ours:.2f}"}
        aim = f"≤ 2 × a bare loop, {reference:.2f} (is {ratio:.2f})"
        self.rows.append(Row("decoding a masked frame of 64 bytes, µs", cells, aim, ratio <= 2))

    def table(self) -> str:
        head = "| | broadcast-server | websockets | websocket-server | aim | met |"
        lines = [head, "|---|---:|---:|---:|---|---|"]
        lines += [row.markdown() for row in self.rows]
        today = datetime.date.today()
        times = "once" if self.rounds == 1 else f"in {self.rounds} rounds or more"
        lines += ["", f"{harness.machine()}; measured {times}, {today:%d %B %Y}."]
        return "\n".join(lines)


def medians(results: dict[str, list[Result]], key: str) -> dict[str, float]:
    return {server: median([run[key] for run in runs]) for server, runs in results.items()}


def latency_cell(runs: list[Result]) -> str:
    if any(run["damaged"] for run in runs):
        raise harness.BenchmarkFailed(f"damaged messages: {runs}")
    if late := late_cell(runs):
        return late
    p50, p99 = (median([run[key] for run in runs]) for key in ("p50_ms", "p99_ms"))
    return f"{decimals(p50)} / {decimals(p99)}"


def late_cell(runs: list[Result]) -> str | None:
    """Return what to show where not all was delivered before the run was given up."""
    delivered = sum(run["deliveries"] for run in runs) / sum(run["expected"] for run in runs)
    return None if delivered == 1 else f"{int(delivered * 100)} % delivered in time"


def thousands(value: float) -> str:
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{float(f'{value:.3g}'):,.0f}"


def decimals(value: float) -> str:
    return f"{value:.1f}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def replace_between_markers(file: Path, text: str) -> None:
    """Put the text between the two markers of the file.

    Raises:
        ValueError: the file has not exactly one pair of markers.
    """
    content = file.read_text(encoding="utf-8")
    if content.count(START) != 1 or content.count(END) != 1:
        raise ValueError(f"{file} needs one {START} and one {END}")
    before, rest = content.split(START)
    after = rest.split(END)[1]
    file.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="measure the hub and two rivals side by side")
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    names = ("busy", "latency", "idle", "connects", "cpu_bound", "stalled", "decoding")
    parser.add_argument("--only", choices=names, action="append", help="measure only this")
    parser.add_argument(
        "--write",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help=f"put the table between {START} and {END} in FILE (can be repeated)",
    )
    options = parser.parse_args()
    bench = Bench(rounds=1, seconds=2) if options.quick else Bench(rounds=3, seconds=5)
    start = time.monotonic()
    try:
        harness.compile_generator()
        for name in options.only or names:
            say(f"{name} …")
            getattr(bench, name)()
    except harness.BenchmarkFailed as error:
        say(f"bench: {error}")
        return 1
    say(f"took {time.monotonic() - start:.0f} s")
    table = bench.table()
    print(table)
    for file in options.write:
        replace_between_markers(file, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
