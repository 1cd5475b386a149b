"""``make walks``: it still finds its way through the package, wherever the modules are."""

from __future__ import annotations

import subprocess

import pytest

from ..support import PYTHON, ROOT, python_environment

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "tests" / "benchmarks" / "walks.py"
NAMES = ["join", "POST", "message", "eviction", "send to ack"]


def test_each_walk_has_its_row() -> None:
    """Each walk leads through several files; it has at least as many functions as files."""
    done = subprocess.run(
        [PYTHON, SCRIPT, "--takes", "1"],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    table, _, package = done.stdout.partition("\n\n")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert [name for name, *_ in rows] == NAMES
    for _, *counts in rows:
        files, functions, returns = map(int, counts)
        assert 1 < files <= functions < 1000
        assert 0 < returns < 1000
    assert package.startswith("The package: ")
