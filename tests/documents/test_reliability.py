"""docs/topics/reliability.md: each fault and each input of strangers in its tables has a test, and
that test exists."""

from __future__ import annotations

import re

import pytest

from ..benchmarks import hostile
from ..benchmarks.attackers import KINDS
from ..support import ROOT

PAGE = (ROOT / "docs" / "topics" / "reliability.md").read_text(encoding="utf-8")
NAME = re.compile(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(test_\w+))?`")


def test_named_tests_exist() -> None:
    """By file and function, wherever the page names one."""
    found = NAME.findall(PAGE)
    assert len(found) > 50
    for file, function in found:
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not function or f"\ndef {function}(" in text, f"{file}::{function}"


def test_every_fault_has_a_test() -> None:
    """No row without one in its last column."""
    tables = [part for part in PAGE.split("\n\n") if part.startswith("| fault |")]
    rows = [row for table in tables for row in table.splitlines()[2:]]
    assert len(rows) > 25
    for row in rows:
        *_, shown, rest = row.split(" |")
        assert not rest and NAME.search(shown), row


def input_rows() -> list[list[str]]:
    """Return the cells of each row of the tables of what strangers may cost."""
    tables = [part for part in PAGE.split("\n\n") if part.startswith("| input |")]
    rows = [row for table in tables for row in table.splitlines()[2:]]
    return [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]


def test_every_input_has_its_cost_its_bound_and_a_test() -> None:
    """No cell is empty, none is a dash, and the last one names a test."""
    rows = input_rows()
    assert len(rows) > 30
    for row in rows:
        assert len(row) == 4 and all(len(cell) > 3 for cell in row), row
        assert NAME.search(row[3]), row


@pytest.mark.parametrize(
    "what",
    [
        *("bytes", "messages", "`send`", "requests", "connections", "clients", "rooms", "names"),
        *("keys", "sessions", "headers", "head", "body", "path", "query", "tokens", "fragments"),
        *("pings", "joining", "`who`", "acknowledgements", "mistakes", "not read", "log"),
    ],
)
def test_everything_that_a_stranger_controls_has_a_row(what: str) -> None:
    """By the word that its first cell has."""
    headings = PAGE.partition("\n## What strangers may cost\n")[2].partition("\n## ")[0]
    found = [row for row in input_rows() if what in row[0].lower()]
    assert found or f"### {what.capitalize()}\n" in headings


def test_attackers_of_each_kind_belong_to_an_input() -> None:
    """The table names those whom the benchmark has, and no others."""
    cells = [cell for row in input_rows() for cell in row]
    found = re.findall(r"kinds? ((?:`[a-z0-9-]+`(?:, )?)+)", " ; ".join(cells))
    named = [name for group in found for name in re.findall(r"`([a-z0-9-]+)`", group)]
    assert set(named) == set(KINDS)


def test_bounds_are_those_that_are_measured() -> None:
    """What the page says of `make hostile` is what it asks for."""
    text = " ".join(PAGE.partition("\n### Measured\n")[2].partition("\n## ")[0].split())
    assert f"at most {hostile.MOST_RATIO} times that without attackers or" in text
    assert f"or {hostile.MOST_SECONDS * 1e3:.0f} ms, whichever is larger" in text
    assert f"within {hostile.MOST_NEWCOMER_SECONDS:g} s (the median)" in text
    assert f"at most {hostile.MOST_BYTES // hostile.MIB} MiB above" in text
    assert f"{hostile.NOISE_RATIO:g} times that and {hostile.NOISE_SECONDS * 1e3:.0f} ms" in text
    assert f"`--total-log-bytes` of {hostile.LOG_BYTES // hostile.MIB} MiB" in text
    assert f"{hostile.Plan.members:,} idle members" in text
    assert PAGE.count(hostile.START) == PAGE.count(hostile.END) == 1
