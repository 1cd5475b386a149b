"""Libraries that a test needs, but not every machine has."""

from __future__ import annotations

import importlib.util
from typing import Any


def needs_installed(name: str) -> None:
    """Skip the test where a library is not installed; the library is not imported here."""
    import pytest

    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed (make .venv)")


def needs_module(name: str) -> Any:
    """Import a peer's library; where it is not installed the test is skipped with a reason."""
    import pytest

    return pytest.importorskip(name, reason=f"{name} is not installed (make .venv)")
