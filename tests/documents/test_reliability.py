"""docs/topics/reliability.md: every fault in its tables has a test, and that test exists."""

from __future__ import annotations

import re

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
