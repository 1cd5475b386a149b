"""A whole hub under attack: many broken clients at once, and two good ones that must not notice.

The hub is a process of its own (``victim.py``), the good ones are a `Pair`. Threads here make one
attack after the other, while the main thread lets a pair of good clients talk in a room of theirs
and looks after the hub. What must hold all along: the pair gets every message, each connection that
we end the hub ends too within ``HANG_SECONDS``, nothing is answered with 500, the hub's standard
error has no traceback. At the end the hub's threads and descriptors are as many as before, and its
memory has grown by less than ``MAX_GROWTH_BYTES`` a minute after the warm-up.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re
import socket
import threading
import time
from collections.abc import Callable

from ..support import RawClient, wait_until
from .attacks import Attack, Attacks, from_line, to_line
from .memory import MIB, Growth
from .pair import Pair
from .victim import HubProcess, Wrong, hub_process

ATTACKERS = 6
# A bound, no expectation: a busy machine is no hang.
HANG_SECONDS = 60.0
MAX_GROWTH_BYTES = 1 * MIB
# A pair stays so long, then another one joins.
PAIR_TALKS = 200
# So many attacks that came last go into a finding.
KEPT_ATTACKS = 60

_SILENCE_SECONDS = 0.2
_LOOK_SECONDS = 0.05
_STATUS = re.compile(rb"HTTP/1\.1 (?!500)[1-5][0-9]{2} ")


@dataclasses.dataclass
class Report:
    """What came of an attack.

    Attributes:
        attacks: how many connections were made.
        talks: how often the good pair has exchanged messages.
        growth: of the hub's memory, in bytes a minute; None if it was watched for too short a time.
        resident: what the hub held at the end, in bytes.
        wrong: what the hub has done wrong; empty is good.
        attack_log: the attacks that came last.
    """

    attacks: int = 0
    talks: int = 0
    growth: float | None = None
    resident: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    attack_log: list[Attack] = dataclasses.field(default_factory=list)


# -- The bad ones ------------------------------------------------------------------------------


def perform(attack: Attack, port: int) -> None:
    """Make an attack to its end.

    Raises:
        Wrong: the hub does not end the connection, or answers with nonsense.
    """
    deadline = time.monotonic() + HANG_SECONDS
    with RawClient.open(port=port, timeout=HANG_SECONDS) as client:
        sock = client.sock
        try:
            for piece in attack.pieces:
                sock.sendall(piece)
            if attack.ending == "close":
                return
            if attack.ending == "reset":
                client.reset()
                return
            if attack.ending == "silent":
                _read(sock, time.monotonic() + _SILENCE_SECONDS, b"")
            sock.shutdown(socket.SHUT_WR)
            _read(sock, deadline, b"?" if attack.ending == "half" else b"")
        except TimeoutError:
            raise Wrong(f"the hub took nothing for {HANG_SECONDS} s") from None
        except OSError:
            return  # it may send us away while we are sending
        if time.monotonic() >= deadline:
            raise Wrong(f"the hub did not end a connection within {HANG_SECONDS} s")


def _read(sock: socket.socket, deadline: float, first: bytes) -> None:
    """Read to the end of the stream or to the deadline.

    Args:
        first: empty if what comes need not be an answer from its beginning.
    """
    head = b""
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            data = sock.recv(65536)
        except TimeoutError:
            return
        if not data:
            break
        if len(head) < 16:
            head += data[:16]
    if first and len(head) >= 16 and not _STATUS.match(head):
        raise Wrong(f"the hub answers {head!r}")


class Attacker(threading.Thread):
    """Makes one attack after the other until it is told to stop or there are no more."""

    def __init__(
        self,
        port: int,
        source: Callable[[], Attack | None],
        log: collections.deque[Attack],
        stop: threading.Event,
    ) -> None:
        super().__init__(daemon=True)
        self.wrong: str | None = None
        self.done = 0
        self._port = port
        self._source = source
        self._log = log
        self._stop_asked = stop

    def run(self) -> None:
        while not self._stop_asked.is_set() and (attack := self._source()) is not None:
            self._log.append(attack)
            try:
                perform(attack, self._port)
            except (Wrong, OSError) as error:
                self.wrong = f"{error} after {to_line(attack)[:2000]}"
                return
            self.done += 1


# -- All together ------------------------------------------------------------------------------


def attack_hub(
    seed: int,
    *,
    seconds: float = 600.0,
    attacks: int | None = None,
    warm_up: float = 0.0,
    replay: list[Attack] | None = None,
) -> Report:
    """Attack a hub and report.

    Args:
        seed: which attacks.
        seconds: for so long at most.
        attacks: so many from each attacker at most.
        warm_up: seconds after which its memory is watched.
        replay: make these attacks instead, one after the other.
    """
    report = Report()
    log: collections.deque[Attack] = collections.deque(maxlen=KEPT_ATTACKS)
    stop = threading.Event()
    attackers: list[Attacker] = []
    try:
        with hub_process() as hub:
            if replay is not None:
                sources = [_listed(replay)]
            else:
                until = time.monotonic() + seconds
                sources = [_made((seed, k), until, attacks) for k in range(ATTACKERS)]
            attackers += [Attacker(hub.port, source, log, stop) for source in sources]
            try:
                _watch(hub, attackers, Growth(hub.pid, warm_up), report)
            except (OSError, EOFError, AssertionError, LookupError, ValueError) as error:
                hub.check()  # it may have said why
                raise Wrong(f"the good clients got {type(error).__name__}: {error}") from error
    except Wrong as error:
        report.wrong.append(str(error))
    finally:
        # The hub has gone by now, so no attack lasts.
        stop.set()
        for attacker in attackers:
            if attacker.ident is not None:
                attacker.join(HANG_SECONDS)
    report.attacks = sum(attacker.done for attacker in attackers)
    report.attack_log = list(log)
    return report


def _listed(attacks: list[Attack]) -> Callable[[], Attack | None]:
    left = iter(attacks)
    return lambda: next(left, None)


def _made(seed: object, until: float, most: int | None) -> Callable[[], Attack | None]:
    attacks = Attacks(seed)
    count = 0

    def source() -> Attack | None:
        nonlocal count
        count += 1
        if time.monotonic() >= until or (most is not None and count > most):
            return None
        return attacks.make()

    return source


def _watch(hub: HubProcess, attackers: list[Attacker], growth: Growth, report: Report) -> None:
    """Let the attackers loose, and look after the hub and the good pair until they have ended."""
    pair = Pair(hub.port)
    try:
        pair.talk()
        before = hub.counts()
        for attacker in attackers:
            attacker.start()
        while any(attacker.is_alive() for attacker in attackers):
            pair.talk()
            report.talks += 1
            if report.talks % PAIR_TALKS == 0:
                pair.leave()
                pair = Pair(hub.port)
            growth.sample()
            hub.check()
            for attacker in attackers:
                if attacker.wrong is not None:
                    raise Wrong(attacker.wrong)
            attackers[0].join(_LOOK_SECONDS)
        for attacker in attackers:
            attacker.join(HANG_SECONDS)
            if attacker.wrong is not None:
                raise Wrong(attacker.wrong)
        if not wait_until(lambda: max(map(int.__sub__, hub.counts(), before)) <= 0, HANG_SECONDS):
            raise Wrong(f"threads and descriptors were {before}, and are {hub.counts()}")
        pair.talk()
        report.talks += 1
        hub.check()
        report.growth, report.resident = growth.per_minute(), growth.last
        if report.growth is not None and report.growth > MAX_GROWTH_BYTES:
            raise Wrong(f"the hub grows by {report.growth / MIB:.2f} MiB a minute")
    finally:
        pair.close()


def save(report: Report, folder: pathlib.Path, seed: int) -> pathlib.Path:
    """Write what went wrong, and the attacks before it, to a file; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"hub-{seed}.txt"
    lines = [*("# " + line for text in report.wrong for line in text.splitlines())]
    path.write_text("\n".join([*lines, *map(to_line, report.attack_log), ""]), encoding="utf-8")
    return path


def load(path: pathlib.Path) -> list[Attack]:
    """Return the attacks of such a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [from_line(line) for line in lines if line and not line.startswith("#")]
