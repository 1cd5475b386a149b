"""A WebSocket broadcast hub for synchronous Python: what one client sends, all others get.

``BroadcastHub`` puts a hub into any threaded program, ``BroadcastClient`` talks to one, and the
``broadcast-server`` command does both from a shell.
"""

from __future__ import annotations

__version__ = "0.1.0"
