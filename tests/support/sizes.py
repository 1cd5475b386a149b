"""How large a stress test is."""

from __future__ import annotations

import os


def stress_size(full: int, short: int) -> int:
    """Return the size of a stress test: the stated one, or where ``STRESS=short`` is set, one
    that is small enough to be run at each change."""
    chosen = os.environ.get("STRESS") or "full"
    return {"full": full, "short": short}[chosen]
