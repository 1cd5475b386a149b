"""Libraries that a test needs, but not every machine has."""

from __future__ import annotations

from typing import Any


def needs_module(name: str) -> Any:
    """Import a peer's library; where it is not installed the test is skipped with a reason."""
    import pytest

    return pytest.importorskip(name, reason=f"{name} is not installed (make .venv)")
