"""For programs that are frozen with PyInstaller, which finds this by an entry point."""

from __future__ import annotations

import os


def get_hook_dirs() -> list[str]:
    """Return the folders with hooks."""
    return [os.path.dirname(__file__)]
