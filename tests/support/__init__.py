"""What the tests share, one noun per module; the names that most tests need are here."""

from __future__ import annotations

from .documents import code_blocks
from .frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    SAMPLE_ACCEPT,
    SAMPLE_KEY,
    TEXT,
    accept_for,
    client_frame,
    mask_payload,
    upgrade_request,
)
from .hubs import lasting_port, running_hub
from .libraries import needs_module
from .programs import PYTHON, ROOT, command_environment, python_environment, run_parent, run_python
from .raw_client import HandshakeRefused, RawClient, http_request
from .resources import descriptor_count, descriptors, resident_bytes, thread_count
from .sizes import stress_size
from .waiting import wait_until

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "MASK",
    "PING",
    "PONG",
    "PYTHON",
    "ROOT",
    "SAMPLE_ACCEPT",
    "SAMPLE_KEY",
    "TEXT",
    "HandshakeRefused",
    "RawClient",
    "accept_for",
    "client_frame",
    "code_blocks",
    "command_environment",
    "descriptor_count",
    "descriptors",
    "http_request",
    "lasting_port",
    "mask_payload",
    "needs_module",
    "python_environment",
    "resident_bytes",
    "run_parent",
    "run_python",
    "running_hub",
    "stress_size",
    "thread_count",
    "upgrade_request",
    "wait_until",
]
