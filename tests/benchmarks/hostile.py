"""``make hostile``: what attackers within a hub's limits do to others; exit 1 if it is too much.

For each kind of ``attackers.py`` and 1, 5 and 20 of them of one address: a fresh hub in a process
of its own, 1,000 idle members, two who talk in another room, newcomers, and a customer who has
left a message and used a key. The pair talks once without the attackers and once with them. All
but the hub, the pair and the newcomers are at ``nice 10``. What must hold stands in ``Row.broken``.

Figures are the medians of the rounds; they can only be compared within one run. ``--short`` is for
CI: few members, one round, and only what does not depend on the machine is asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from ..support import ROOT, resident_bytes
from ..support.hub_process import hub_process
from . import harness, hostile_servers
from .attackers import KINDS, Kind, Tally, raise_descriptor_limit
from .bystanders import LATE_SECONDS
from .helpers import Helper, RoundFailed, helper, peak_bytes, reset_peak

PAGE = ROOT / "docs" / "topics" / "reliability.md"
START, END = "<!-- hostile: begin -->", "<!-- hostile: end -->"

MIB = 1024 * 1024
REFERENCE = "ordinary"
SERVERS = "servers"  # the kind that attacks a client
# What must hold: the pair's p99 is at most so many times that without attackers or so long,
# whichever is larger, and not more than beside as many who send ordinary messages; a newcomer
# waits so long at most (the median); the hub's memory grows by so much at most.
MOST_RATIO = 5
MOST_SECONDS = 0.060
MOST_NEWCOMER_SECONDS = 0.2
MOST_BYTES = 150 * MIB
# Two medians of the same thing differ by so much on a machine that is shared.
NOISE_RATIO = 1.5
NOISE_SECONDS = 0.010

# The logs are allowed their memory whoever fills them. Less than the default leaves it visible
# what attackers take beside them. Nobody is pinged during a round: idle members only read.
LOG_BYTES = 64 * MIB
HUB: dict[str, Any] = {
    "trust_proxy": ["127.0.0.1"],
    "total_log_bytes": LOG_BYTES,
    "ping_interval": 600,
}
# As the unit and the image of the documentation set it: else each of many threads keeps free memory
# of its own, which says nothing about what the hub holds.
ARENAS = {"MALLOC_ARENA_MAX": "2"}
READY_SECONDS = 60.0
ANSWER_SECONDS = 30.0

Result = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is done for each kind.

    Attributes:
        members: how many idle ones there are.
        counts: how many attackers of one address.
        rounds: how often; the medians count.
        alone: seconds without attackers.
        seconds: seconds with them.
    """

    members: int = 1000
    counts: tuple[int, ...] = (1, 5, 20)
    rounds: int = 3
    alone: float = 1.5
    seconds: float = 3.0


SHORT = Plan(members=100, counts=(2,), rounds=1, alone=0.3, seconds=0.8)


def percentile(times: list[float], share: float) -> float:
    """Return the time within which this share of all is."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else LATE_SECONDS


# -- One round -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Round:
    """What one round has shown. Times are in seconds.

    Attributes:
        alone: the pair's p99 without the attackers.
        beside: the same with them; ``middle`` is the median.
        newcomer: how long it took to join, the median.
        growth: bytes of memory that the hub had more at its peak than before the attackers came.
        tally: what they have sent, and what was answered.
        lost: what somebody has lost, in words.
    """

    alone: float
    middle: float
    beside: float
    newcomer: float
    growth: int
    tally: Tally
    lost: list[str]


def play(plan: Plan, kind: Kind, clients: int) -> Round:
    """Run one round against a hub of its own.

    Raises:
        RoundFailed: somebody could not do his part.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        try:
            with hub_process(log=log, environment=ARENAS, **HUB) as (process, url):
                port = int(url.rsplit(":", 1)[1].strip("/"))
                found = _play(plan, kind, clients, process.pid, port)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            raise RoundFailed(f"the hub did not end in order: {error}") from error
        log.seek(0)
        if "Traceback" in (text := log.read()):
            found.lost.append(f"the hub's log: {text[text.index('Traceback') :][:2000]}")
        return found


def _play(plan: Plan, kind: Kind, clients: int, pid: int, port: int) -> Round:
    with contextlib.ExitStack() as stack:

        def start(module: str, **options: Any) -> Helper:
            return stack.enter_context(helper(module, port=port, **options))

        # All at once: most of the time of a round is that of their start.
        pair = start("bystanders", role="pair")
        members = start("bystanders", role="members", count=plan.members)
        customer = start("bystanders", role="customer")
        newcomers = start("bystanders", role="newcomers")
        attackers = start("attackers", kind=kind.name, clients=clients)
        for one in (pair, members, customer, newcomers, attackers):
            one.read(READY_SECONDS)
        pair.ask(plan.alone)
        alone = pair.answer(plan.alone + LATE_SECONDS + ANSWER_SECONDS)
        reset_peak(pid)
        before = resident_bytes(pid)

        attackers.ask("join")
        attackers.read(READY_SECONDS)
        for one in (attackers, pair, newcomers):
            one.ask(plan.seconds)
        beside = pair.answer(plan.seconds + LATE_SECONDS + ANSWER_SECONDS)
        joined = newcomers.answer(plan.seconds + 2 * LATE_SECONDS + ANSWER_SECONDS)
        tally = Tally(**attackers.answer(ANSWER_SECONDS))
        growth = peak_bytes(pid) - before
        customer.ask("look")
        kept = customer.answer(3 * LATE_SECONDS + ANSWER_SECONDS)
        members.ask("count")
        there = members.answer(ANSWER_SECONDS)

        lost = []
        for words, talk in (("alone", alone), ("beside them", beside)):
            if talk["fault"] or talk["wrong"] or talk["missing"]:
                lost.append(
                    f"the pair {words}: {talk['missing']} messages missing after"
                    f" {LATE_SECONDS:g} s, {talk['wrong']} wrong, {talk['fault'] or 'no fault'}"
                )
        quiet = plan.members - plan.members // 2
        if there["/quiet"] != quiet:
            lost.append(f"{quiet - there['/quiet']} idle members of another room were ended")
        if joined["refused"]:
            lost.append(f"{joined['refused']} of {len(joined['times'])} newcomers were refused")
        if not kept["key"]:
            lost.append("another address's key: the message was delivered twice")
        if not kept["room"]:
            lost.append("another address's empty room lost its message")
        return Round(
            alone=percentile(alone["times"], 0.99),
            middle=percentile(beside["times"], 0.5),
            beside=percentile(beside["times"], 0.99),
            newcomer=percentile(joined["times"], 0.5),
            growth=growth,
            tally=tally,
            lost=lost,
        )


# -- The table -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Row:
    """All rounds of one kind with one number of clients."""

    kind: Kind
    clients: int
    rounds: list[Round]
    failures: list[str]

    def median(self, name: str) -> float:
        """Return the median of a figure; of no round at all, infinity."""
        values = [float(getattr(one, name)) for one in self.rounds]
        return statistics.median(values) if values else float("inf")

    def broken(self, reference: Row | None, *, short: bool = False) -> list[str]:
        """Return what does not hold, in words.

        Args:
            reference: as many clients that send ordinary messages; None if there is none.
            short: leave out what depends on how fast the machine is.
        """
        found = list(self.failures)
        for one in self.rounds:
            # Newcomers may be kept out, and a key or a room lost, only by what takes its time.
            always = ("the pair", "the hub's log")
            found += [words for words in one.lost if not short or words.startswith(always)]
            if not one.tally.sent_bytes:
                found.append("the attackers sent nothing")
            if self.kind.answered and not one.tally.answered + one.tally.ended:
                found.append(f"the attackers were not answered: {one.tally}")
        growth = self.median("growth")
        if growth > MOST_BYTES:
            found.append(f"memory grew by {growth / MIB:.0f} MiB, at most {MOST_BYTES // MIB}")
        if not short:
            found += self._slow(reference)
        return [f"{self.kind.name}, {self.clients} clients: {words}" for words in found]

    def _slow(self, reference: Row | None) -> Iterator[str]:
        beside = self.median("beside")
        most = max(MOST_RATIO * self.median("alone"), MOST_SECONDS)
        if beside > most:
            yield f"p99 {beside * 1e3:.1f} ms, at most {most * 1e3:.0f}"
        if reference is not None and reference is not self:
            ordinary = reference.median("beside")
            if beside > max(NOISE_RATIO * ordinary, ordinary + NOISE_SECONDS):
                yield f"p99 {beside * 1e3:.1f} ms, beside ordinary messages {ordinary * 1e3:.1f}"
        newcomer = self.median("newcomer")
        if newcomer > MOST_NEWCOMER_SECONDS:
            most_ms = MOST_NEWCOMER_SECONDS * 1e3
            yield f"newcomers wait {newcomer * 1e3:.0f} ms, at most {most_ms:.0f}"


def run(plan: Plan, kind: Kind, clients: int) -> Row:
    """Run all rounds of one kind."""
    row = Row(kind, clients, [], [])
    for _ in range(plan.rounds):
        try:
            row.rounds.append(play(plan, kind, clients))
        except RoundFailed as error:
            row.failures.append(str(error))
    return row


def milliseconds(seconds: float) -> str:
    """Return a time as it stands in the table."""
    if seconds == float("inf"):
        return "–"
    return f"{seconds * 1e3:,.1f}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"


def table(rows: list[Row], plan: Plan) -> str:
    """Return the figures in Markdown: one line for each kind."""
    by = {(row.kind.name, row.clients): row for row in rows}
    heads = " | ".join(f"p99, {clients}" for clients in plan.counts)
    lines = [
        f"| attackers | number | {heads} | a newcomer waits | memory, MiB |",
        "|---|---:|" + "---:|" * (len(plan.counts) + 2),
    ]
    for kind in dict.fromkeys(row.kind.name for row in rows):
        own = [by[kind, clients] for clients in plan.counts if (kind, clients) in by]
        cells = [milliseconds(row.median("beside")) for row in own]
        newcomer = milliseconds(max(row.median("newcomer") for row in own))
        growth = max(row.median("growth") for row in own)
        memory = "–" if growth == float("inf") else f"{growth / MIB:.0f}"
        found = own[0].kind
        cells = [found.words, str(found.number), *cells, newcomer, memory]
        lines.append(f"| {' | '.join(cells)} |")
    alone = [one.alone for row in rows for one in row.rounds]
    if alone:
        lines += [
            "",
            f"Times in ms. Without attackers p99 is {milliseconds(statistics.median(alone))} ms"
            f" (median of {len(alone)} rounds, {milliseconds(min(alone))} to"
            f" {milliseconds(max(alone))}). {plan.members:,} idle members; the worst of"
            f" {', '.join(map(str, plan.counts))} clients in the last two columns."
            f" {harness.machine()}; medians of {plan.rounds} rounds,"
            f" {datetime.date.today():%d %B %Y}.",
        ]
    return "\n".join(lines)


def client_table(grown: dict[str, int]) -> str:
    """Return what servers have cost a client, in Markdown."""
    lines = ["| a server sends a client | number | memory, MiB |", "|---|---:|---:|"]
    lines += [f"| {words} | 15 | {growth / MIB:.0f} |" for words, growth in grown.items()]
    return "\n".join(lines)


def broken_clients(grown: dict[str, int]) -> list[str]:
    """Return which events have cost a client too much, in words."""
    return [
        f"{words}: the client's memory grew by {growth / MIB:.0f} MiB, at most {MOST_BYTES // MIB}"
        for words, growth in grown.items()
        if growth > MOST_BYTES
    ]


def write(text: str) -> None:
    """Put the table between the markers of the page."""
    content = PAGE.read_text(encoding="utf-8")
    if content.count(START) != 1 or content.count(END) != 1:
        raise ValueError(f"{PAGE} needs one {START} and one {END}")
    before, rest = content.split(START)
    PAGE.write_text(f"{before}{START}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def say(text: str) -> None:
    """Print progress, beside the table."""
    print(text, file=sys.stderr, flush=True)


def show(row: Row) -> None:
    """Say what one row has found."""
    name = f"{row.kind.name} × {row.clients}"
    if not row.rounds:
        say(f"{name:24} no round: {row.failures}")
        return
    tally = row.rounds[-1].tally
    say(
        f"{name:24} p50 {milliseconds(row.median('middle')):>8} "
        f"p99 {milliseconds(row.median('beside')):>8} (alone {milliseconds(row.median('alone'))}) "
        f"newcomer {milliseconds(row.median('newcomer')):>7} "
        f"memory {row.median('growth') / MIB:5.0f} MiB  "
        f"sent {tally.sent} answered {tally.answered} refused {tally.refused} ended {tally.ended}"
    )


def parse() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.hostile",
        description="Attack a hub within its limits, and measure what all others notice.",
    )
    parser.add_argument("--short", action="store_true", help="small, and without the times (CI)")
    parser.add_argument(
        "--only", choices=[*KINDS, SERVERS], action="append", help="only this kind (repeat)"
    )
    parser.add_argument("--clients", type=int, action="append", help="only so many (repeat)")
    parser.add_argument("--rounds", type=int, help=f"(default: {Plan.rounds})")
    parser.add_argument("--seconds", type=float, help=f"of a round (default: {Plan.seconds:g})")
    parser.add_argument("--members", type=int, help=f"idle ones (default: {Plan.members})")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    return parser.parse_args()


def main() -> int:
    """Run what the arguments say; return 1 if a bound is broken."""
    options = parse()
    raise_descriptor_limit()
    given = {"rounds": options.rounds, "seconds": options.seconds, "members": options.members}
    if options.clients:
        given["counts"] = tuple(options.clients)
    chosen = {name: value for name, value in given.items() if value is not None}
    plan = dataclasses.replace(SHORT if options.short else Plan(), **chosen)
    names = options.only or [*KINDS, SERVERS]
    with_servers = SERVERS in names
    names = [name for name in names if name != SERVERS]
    if names and not options.short:
        # First, since all others are compared with it.
        names = list(dict.fromkeys([REFERENCE, *names]))
    started = time.monotonic()
    rows: list[Row] = []
    broken: list[str] = []
    for name in names:
        for clients in plan.counts:
            row = run(plan, KINDS[name], clients)
            rows.append(row)
            show(row)
            references = [one for one in rows if one.kind.name == REFERENCE]
            reference = next((one for one in references if one.clients == clients), None)
            found = row.broken(reference, short=options.short)
            for line in found:
                say(f"    {line}")
            broken += found
    text = table(rows, plan) if rows else ""
    if with_servers:
        grown = {words: hostile_servers.measure(words) for words in hostile_servers.EVENTS}
        broken += broken_clients(grown)
        text = f"{text}\n\n{client_table(grown)}".strip()
    say(f"took {time.monotonic() - started:.0f} s")
    print(text)
    if options.write:
        write(text)
    say(f"hostile: {len(broken)} bounds are broken" if broken else "hostile: all bounds hold")
    for line in broken:
        say(f"  {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
