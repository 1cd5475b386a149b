"""The arguments of a client by name, for type checkers; what they mean: client/client.py."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import TypedDict

from ..errors import SendRefused
from ..transport.tls import StrPath


class ClientOptions(TypedDict, total=False):
    """All of them but ``presence``, which tells what a client receives."""

    name: str | None
    since: str | None
    history: int
    token: str | None
    reconnect: bool
    max_reconnect_delay: float
    headers: Mapping[str, str] | None
    ca_file: StrPath | None
    insecure: bool
    cert_file: StrPath | None
    key_file: StrPath | None
    ssl_context: ssl.SSLContext | None
    wait: float
    open_timeout: float
    close_timeout: float
    max_message_bytes: int
    max_queued_bytes: int
    on_state: Callable[[str], object] | None
    on_error: Callable[[SendRefused], object] | None
