"""``make hostile`` in small: each kind of attacker does what it says, and nobody loses anything.

No time is asked for: what a machine in CI needs says nothing. Memory is a count, and so is what the
pair beside the attackers gets.
"""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess

import pytest

from broadcast_server import BroadcastHub

from ..support import PYTHON, ROOT, python_environment, wait_until
from . import hostile, hostile_servers
from .attackers import (
    KINDS,
    Attackers,
    Burst,
    Kind,
    Line,
    Tally,
    for_ever,
    raise_descriptor_limit,
    text,
    upgrade,
)
from .bystanders import LATE_SECONDS, Pair

pytestmark = pytest.mark.slow


# Of those that fill rooms with large messages, five do what two do not: all logs are full then.
FILLING = ("base64s", "controls", "deaf", "feeds", "forms", "halves", "histories", "rooms")


@pytest.mark.stress
@pytest.mark.parametrize(
    ("kind", "clients"), [(kind, 2) for kind in KINDS] + [(kind, 5) for kind in FILLING]
)
def test_attackers_of_each_kind_hurt_nobody(kind: str, clients: int) -> None:
    """The pair loses nothing, the hub's memory stays within its bound, and what it was sent and has
    answered says that they were there."""
    raise_descriptor_limit()
    assert hostile.run(hostile.SHORT, KINDS[kind], clients).broken(None, short=True) == []


@pytest.mark.stress
@pytest.mark.parametrize("words", hostile_servers.EVENTS)
def test_event_of_a_server_costs_a_client_no_more_than_its_bound(words: str) -> None:
    """The client goes on or ends the connection."""
    assert hostile.broken_clients({words: hostile_servers.measure(words)}) == []


def test_one_kind_as_the_command_runs_it() -> None:
    """A line for the kind, a table, and the exit status 0."""
    done = subprocess.run(
        [PYTHON, "-m", "tests.benchmarks.hostile", "--short", "--only", "ordinary"],
        env=python_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| attackers | number |")
    assert f"| {KINDS['ordinary'].words} | 3 | " in done.stdout


# -- The check itself ------------------------------------------------------------------------------

GOOD = hostile.Round(
    alone=0.001,
    middle=0.001,
    beside=0.050,
    newcomer=0.010,
    growth=10 * hostile.MIB,
    tally=Tally(sent_bytes=1, answered=1),
    lost=[],
)


def row_of(*rounds: hostile.Round, kind: str = "who") -> hostile.Row:
    return hostile.Row(KINDS[kind], 5, list(rounds), [])


def test_row_within_all_bounds_is_good() -> None:
    """60 ms are allowed where five times the time alone is less, and what is ordinary."""
    assert row_of(GOOD).broken(row_of(GOOD, kind="ordinary")) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"beside": 0.061}, "p99 61.0 ms, at most 60"),
        ({"beside": 0.061, "alone": 0.0121}, "p99 61.0 ms, beside ordinary messages 1.0"),
        ({"beside": 0.012}, "p99 12.0 ms, beside ordinary messages 1.0"),
        ({"newcomer": 0.201}, "newcomers wait 201 ms, at most 200"),
        ({"growth": 151 * hostile.MIB}, "memory grew by 151 MiB, at most 150"),
        ({"lost": ["the pair lost something"]}, "the pair lost something"),
        ({"lost": ["the hub's log: Traceback"]}, "the hub's log: Traceback"),
        ({"tally": Tally(answered=1)}, "the attackers sent nothing"),
        ({"tally": Tally(sent_bytes=1)}, "the attackers were not answered"),
    ],
)
def test_each_bound_is_found_broken(change: dict[str, object], said: str) -> None:
    """By one line that names the kind and the number of clients."""
    ordinary = row_of(dataclasses.replace(GOOD, beside=0.001), kind="ordinary")
    good = dataclasses.replace(GOOD, beside=0.001)
    row = row_of(dataclasses.replace(good, **change))  # type: ignore[arg-type]
    assert any(line.startswith(f"who, 5 clients: {said}") for line in row.broken(ordinary))


def test_medians_count() -> None:
    """One slow round of three is no breach; one that loses something is."""
    slow = dataclasses.replace(GOOD, beside=3.0, newcomer=3.0, growth=10**9)
    assert row_of(GOOD, slow, GOOD).broken(None) == []
    assert len(row_of(GOOD, slow, slow).broken(None)) == 3
    loss = dataclasses.replace(GOOD, lost=["the pair beside them: a message"])
    assert len(row_of(GOOD, GOOD, loss).broken(None, short=True)) == 1


def test_row_without_a_round_is_broken_and_has_a_line_in_the_table() -> None:
    """A hub that does not end in order, say."""
    row = hostile.Row(KINDS["who"], 5, [], ["the hub did not end"])
    plan = hostile.Plan(counts=(5,))
    assert "who, 5 clients: the hub did not end" in row.broken(None)
    assert "| 2 | – | – | – |" in hostile.table([row], plan)


def test_table_has_a_line_for_each_kind_and_a_column_for_each_number() -> None:
    """The worst of a newcomer's wait and of memory stands at the end."""
    worse = dataclasses.replace(GOOD, newcomer=0.15, growth=20 * hostile.MIB)
    rows = [hostile.Row(KINDS["who"], 1, [GOOD], []), hostile.Row(KINDS["who"], 5, [worse], [])]
    lines = hostile.table(rows, hostile.Plan(counts=(1, 5), rounds=1)).splitlines()
    assert lines[0] == ("| attackers | number | p99, 1 | p99, 5 | a newcomer waits | memory, MiB |")
    assert lines[2] == f"| {KINDS['who'].words} | 2 | 50.0 | 50.0 | 150 | 20 |"


def test_client_has_a_bound_and_a_table() -> None:
    """Of memory only."""
    grown = {"lists": 151 * hostile.MIB, "numbers": 150 * hostile.MIB}
    said = "lists: the client's memory grew by 151 MiB, at most 150"
    assert hostile.broken_clients(grown) == [said]
    assert hostile.client_table(grown).splitlines()[2:] == [
        "| lists | 15 | 151 |",
        "| numbers | 15 | 150 |",
    ]


def test_table_goes_between_the_markers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else of the page changes."""
    page = tmp_path / "page.md"
    monkeypatch.setattr(hostile, "PAGE", page)
    page.write_text(f"before\n\n{hostile.START}\nold\n{hostile.END}\n\nafter\n")
    hostile.write("new")
    assert page.read_text() == f"before\n\n{hostile.START}\nnew\n{hostile.END}\n\nafter\n"


def test_percentile_is_one_of_the_times() -> None:
    """Of 100 the 99th but one; of none, all that was waited for."""
    assert hostile.percentile([float(n) for n in range(100)], 0.99) == 99
    assert hostile.percentile([3.0, 1.0, 2.0], 0.5) == 2
    assert hostile.percentile([], 0.99) == LATE_SECONDS


# -- The attackers and the pair --------------------------------------------------------------------


def test_attackers_send_read_and_come_back(hub: BroadcastHub) -> None:
    """What is sent and answered is counted; a connection that the hub ends is opened again."""
    made = Kind(
        "test",
        0,
        "errors",
        lambda number: [
            Line(
                for_ever(Burst(text("{}") * 10, 10)),
                upgrade(f"/own-{number}", "Sec-WebSocket-Protocol: broadcast.v1.json"),
                answer=b'"type":"error"',
            )
        ],
    )
    attackers = Attackers(hub.port, made, 2)
    try:
        attackers.join()
        assert attackers.tally.opened == 2 and hub.stats()["messages"] == 0

        def attacked() -> bool:
            attackers.attack(0.05)
            tally = attackers.tally
            return tally.ended >= 2 and tally.opened >= 4 and tally.answered >= 20

        # They do not answer a Close, so the hub waits for that for a while.
        assert wait_until(attacked, 30), attackers.tally
        assert attackers.tally.opened >= 4 and attackers.tally.sent >= 40
    finally:
        attackers.close()


def test_what_comes_before_the_attack_is_answered_before_it(hub: BroadcastHub) -> None:
    """A room whose history is asked for is filled by then."""
    attackers = Attackers(hub.port, KINDS["histories"], 1)
    try:
        attackers.join()
        assert attackers.tally.answered == hub.stats()["messages"] == 100
    finally:
        attackers.close()


def test_pair_talks_and_loses_nothing(hub: BroadcastHub) -> None:
    """A round trip for each message that was due."""
    pair = Pair(hub.port)
    try:
        result = pair.talk(0.1)
    finally:
        pair.close()
    assert (result["missing"], result["wrong"], result["fault"]) == (0, 0, "")
    assert len(result["times"]) == 20


def test_pair_notices_that_the_hub_is_gone(hub: BroadcastHub) -> None:
    """It does not wait until the time is over."""
    pair = Pair(hub.port)
    try:
        hub.stop()
        result = pair.talk(0.1)
        assert result["fault"] and max(result["times"]) == LATE_SECONDS
    finally:
        pair.close()
