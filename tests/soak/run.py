"""A soak from the first join to the last check."""

from __future__ import annotations

import dataclasses
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable

from ..support import wait_until
from . import hub
from .abusers import Abuser, Publisher
from .driver import Driver, Latency
from .members import Member, StreamMember
from .order import Order, Violation
from .peers import Peer
from .senders import JsonMember, PlainMember, Referee, Speaker

MAX_MESSAGE_BYTES = 16 * 1024
RING_BYTES = 256 * 1024
# Members of a room on the average; the first room has some times as many.
_ROOM_MEMBERS = 35
_CROWD = 4
# Of the members, who speaks; and how many messages a second all speakers and publishers send
# together, for each client.
_SPEAKERS = 0.3
_RATE = 0.12
_PUBLISHERS = 0.04
_ABUSERS = 0.04
_ABUSE_SECONDS = 4.0
# Seconds between two bursts and two floods, somewhere.
_BURST_SECONDS = 4.0
_BURST = 100
_FLOOD = 400
# All joins are spread over so long, and so long all that was begun may take to end.
_JOIN_SECONDS = 0.01
_END_SECONDS = 90.0
# What grows for ten minutes, such as the keys of messages, is there by then.
_WARM_SECONDS = 12 * 60.0
_GROWTH = 1.1
_GROWTH_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        seconds: how long clients come and go.
        clients: how many there are.
        seed: of everything that is left to chance.
        every: seconds between two lines of the report.
        haste: how many times as fast as usual all clients come, speak and go.
    """

    seconds: float
    clients: int
    seed: int
    every: float = 60.0
    haste: float = 1.0


class Soak:
    """One run.

    Args:
        plan: what to do.
        process: the hub.
        token: what allows to write there.
        report: takes a line of the report.
    """

    def __init__(
        self, plan: Plan, process: hub.Hub, token: str, report: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.hub = process
        self.report = report
        rooms = max(2, plan.clients // _ROOM_MEMBERS - _CROWD)
        self.orders = [Order(f"/soak/{number}", RING_BYTES) for number in range(rooms)]
        self.driver = Driver(process.port, token, plan.seed, self.orders, plan.haste)
        self.referees = [Referee(self.driver, order) for order in self.orders]
        self.members: list[Member] = []
        self.publishers: list[Publisher] = []
        self.abusers: list[Abuser] = []
        self.latency = Latency()
        self._usages: list[tuple[float, hub.Usage]] = []
        self._populate()

    def _populate(self) -> None:
        """Make up who there is: of all kinds, in all rooms."""
        driver, plan = self.driver, self.plan
        publishers, abusers = (
            max(2, int(share * plan.clients)) for share in (_PUBLISHERS, _ABUSERS)
        )
        members = plan.clients - publishers - abusers - len(self.orders)
        speakers = _SPEAKERS * members
        mean = (0.75 * speakers + publishers) / (_RATE * plan.clients)
        places = [*self.orders, *[self.orders[0]] * (_CROWD - 1)]
        for number in range(members):
            order = places[number % len(places)]
            speaks = driver.chance(_SPEAKERS)
            kind = driver.random.choice(("plain", "plain", "json", "json", "json", "sse"))
            if kind == "plain":
                self.members.append(PlainMember(driver, order, speaks=speaks, mean=mean))
            elif kind == "json":
                self.members.append(JsonMember(driver, order, speaks=speaks, mean=mean))
            else:
                self.members.append(StreamMember(driver, order, as_json=driver.chance(0.5)))
        for _ in range(publishers):
            self.publishers.append(Publisher(driver, driver.random.choice(self.orders), mean))
        for _ in range(abusers):
            order = driver.random.choice(self.orders)
            self.abusers.append(Abuser(driver, order, _ABUSE_SECONDS, MAX_MESSAGE_BYTES))

    # -- From the first join to the last check -------------------------------------------------

    def run(self) -> None:
        """Do all of it.

        Raises:
            Violation: the hub has broken a promise.
        """
        before = self.hub.usage()
        began = time.monotonic()
        try:
            for referee in self.referees:
                referee.join()
            self._drive(30, lambda: all(referee.here for referee in self.referees), "referees")
            for number, member in enumerate(self.members):
                self.driver.after(number * _JOIN_SECONDS, member.join)
            for publisher in self.publishers:
                publisher.start()
            for abuser in self.abusers:
                abuser.start()
            self.driver.after(_BURST_SECONDS / 2, self._burst)
            self.driver.after(_BURST_SECONDS, self._flood)
            end = began + self.plan.seconds
            while (now := time.monotonic()) < end:
                self.driver.run_until(min(end, now + self.plan.every))
                self._report_line(time.monotonic() - began)
            self._finish()
        finally:
            for peer in (*self.members, *self.referees, *self.publishers, *self.abusers):
                peer.close()
            self.driver.close()
        self._check_left(before)
        self._check_growth()
        self.hub.stop()
        if bad := self.hub.bad_lines():
            raise Violation("the hub's log has: " + "; ".join(bad[:5]))
        self._report_end()

    def _drive(self, seconds: float, done: Callable[[], bool], what: str) -> None:
        if not self.driver.run_until(time.monotonic() + seconds, done):
            left = ", ".join(
                map(str, (self._connected() if self.driver.over else self._busy())[:10])
            )
            raise Violation(f"after {seconds:.0f} s there is still no end: {what}: {left}")

    def _finish(self) -> None:
        """Begin nothing new; let everybody come back and get everything; compare; say goodbye."""
        driver = self.driver
        driver.quiet = True
        for member in self.members:
            member.wake()
            if member.sock is None:
                member.join()
        self._drive(_END_SECONDS, lambda: not self._busy(), "somebody has not got everything")
        ends = [len(order) for order in self.orders]
        # All that can still come was sent before this: then nothing more does.
        for order in self.orders:
            order.is_complete = True
        for member in self.members:
            member.track.complete()
            member.track.settle()
            if not member.track.is_settled:
                raise Violation(f"{member} has got what never was in its room's order")
        for order in self.orders:
            order.check_senders()
            order.settle(math.inf)
        driver.over = True
        everybody = [*self.members, *self.referees]
        for member in everybody:
            if isinstance(member, Speaker):
                member.leave()
            else:
                member.close()
        self._drive(_END_SECONDS, lambda: not self._connected(), "not all were let go")
        for order in self.orders:
            order.check_senders()
        if ends != [len(order) for order in self.orders]:
            raise Violation("there came messages that nobody had sent")

    def _busy(self) -> list[Peer]:
        """Return who is not here, has not got everything, or waits for an answer."""
        return [
            *(publisher for publisher in self.publishers if not publisher.is_idle),
            *(abuser for abuser in self.abusers if abuser.sock is not None),
            *(member for member in self.members if not member.is_up_to_date),
        ]

    def _connected(self) -> list[Peer]:
        return [peer for peer in (*self.members, *self.referees) if peer.sock is not None]

    # -- Trouble for the rooms -----------------------------------------------------------------

    def _speaker(self) -> Speaker | None:
        """Return somebody who can speak, but in the crowd."""
        found = [
            member
            for member in self.members
            if isinstance(member, Speaker) and member.may_speak and member.order != self.orders[0]
        ]
        return self.driver.random.choice(found) if found else None

    def _burst(self) -> None:
        if (speaker := self._speaker()) is not None:
            self.driver.counts["bursts"] += 1
            speaker.burst(_BURST)
        self.driver.after(self.driver.pause(_BURST_SECONDS), self._burst)

    def _flood(self) -> None:
        if (speaker := self._speaker()) is not None:
            self.driver.counts["floods"] += 1
            speaker.flood(_FLOOD)
        self.driver.after(self.driver.pause(3 * _BURST_SECONDS), self._flood)

    # -- What is reported ----------------------------------------------------------------------

    def _report_line(self, seconds: float) -> None:
        driver = self.driver
        usage = self.hub.usage()
        self._usages.append((seconds, usage))
        latency, driver.latency = driver.latency, Latency()
        self.latency.merge(latency)
        p50, p99, p999 = latency.milliseconds(0.5, 0.99, 0.999)
        self.report(
            f"{seconds / 60:5.1f} min  {usage.resident_bytes / 2**20:6.1f} MiB"
            f"  {usage.descriptors:5d} fds  {usage.threads:5d} threads"
            f"  {usage.cpu_seconds:6.0f} s CPU"
            f"  {sum(member.here for member in self.members):5d} here"
            f"  {driver.counts['messages']:8d} messages  {driver.counts['received']:9d} received"
            f"  p50 {p50:.1f} p99 {p99:.1f} p99.9 {p999:.1f} ms"
            f"  longest turn of the driver {driver.longest_turn * 1000:.0f} ms"
        )
        driver.longest_turn = 0.0

    def _report_end(self) -> None:
        self.latency.merge(self.driver.latency)
        names, shares = ("p50", "p90", "p99", "p99.9", "max"), (0.5, 0.9, 0.99, 0.999, 1.0)
        found = zip(names, self.latency.milliseconds(*shares), strict=True)
        self.report("latency in ms: " + ", ".join(f"{name} {ms:.1f}" for name, ms in found))
        for name, count in sorted(self.driver.counts.items()):
            self.report(f"{count:10d}  {name}")

    # -- What must be left of it ---------------------------------------------------------------

    def _check_left(self, before: hub.Usage) -> None:
        """Threads and descriptors of the hub must be back where they were."""
        usage = before

        def is_as_before() -> bool:
            nonlocal usage
            usage = self.hub.usage()
            return usage.threads <= before.threads and usage.descriptors <= before.descriptors

        if not wait_until(is_as_before, _END_SECONDS):
            raise Violation(f"the hub was {before}, and now that all have left is {usage}")
        self.report(
            f"all have left: {usage.resident_bytes / 2**20:.1f} MiB, {usage.descriptors} fds, "
            f"{usage.threads} threads; before the first {before.resident_bytes / 2**20:.1f} MiB, "
            f"{before.descriptors} fds, {before.threads} threads"
        )

    def _check_growth(self) -> None:
        """What it holds must not grow for ever."""
        warm = [usage for seconds, usage in self._usages if seconds >= _WARM_SECONDS]
        if len(warm) > 1:
            limit = warm[0].resident_bytes * _GROWTH + _GROWTH_BYTES
            if warm[-1].resident_bytes > limit:
                raise Violation(f"memory has grown from {warm[0]} to {warm[-1]}")


def soak(plan: Plan, report: Callable[[str], None]) -> Counter[str]:
    """Run a hub and everything against it; return how often what has happened.

    Raises:
        Violation: the hub has broken a promise.
    """
    token = secrets.token_urlsafe()
    options = [f"--max-message-bytes={MAX_MESSAGE_BYTES}", f"--room-log-bytes={RING_BYTES}"]
    with hub.running(token, *options) as process:
        try:
            run = Soak(plan, process, token, report)
            run.run()
            return run.driver.counts
        except Violation:
            for line in process.bad_lines()[:20]:
                report(line)
            raise
