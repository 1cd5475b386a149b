"""Every tunable of a hub with its default, checked once when the hub is made.

The sentence that explains each one to a user stands in ``cli/options/tables.py``, from which the
help, the man page and the reference are made; a test keeps the defaults here and there the same.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from pathlib import PurePath
from typing import TypedDict

from . import origins
from .arguments import TEXT_OR_NONE, check_type, kind_of
from .errors import UsageError
from .networks import check_host_name, parse_network
from .rules import MAX_SECONDS

# What a list of texts may be given as: one text alone is a mistake.
Texts = list[str] | tuple[str, ...] | AbstractSet[str]

_VISIBLE = re.compile("[!-~]+")


class HubSettings(TypedDict, total=False):
    """The arguments of a hub that are settings, for type checkers; a test compares them with those
    of `Settings`."""

    max_message_bytes: int
    max_fragments: int
    history: int
    room_log_bytes: int
    total_log_bytes: int
    max_clients: int
    max_rooms: int
    handshake_timeout: float
    max_header_bytes: int
    ping_interval: float
    ping_timeout: float
    write_timeout: float
    close_timeout: float
    max_rate: float
    stop_timeout: float
    http_idle_timeout: float
    allow_origin: Texts
    switch_interval: float | None
    max_clients_per_address: int
    max_handshakes: int
    max_rooms_per_address: int
    max_control_rate: float
    allow_host: Texts
    trust_proxy: Texts
    token_file: str | PurePath | None
    publish_token_file: str | PurePath | None
    jwt_key_file: str | PurePath | None
    token: str | None
    publish_token: str | None
    jwt_key: str | bytes | None
    drain_delay: float
    drain_seconds: float
    tls_cert: str | PurePath | None
    tls_key: str | PurePath | None


@dataclasses.dataclass(frozen=True)
class Settings:
    """The limits and times of one hub. Times are in seconds, at most ``MAX_SECONDS``; sizes are in
    bytes.

    Raises:
        UsageError: a value is out of its range; the message says which and why.
        TypeError: a value has a wrong type.
    """

    max_message_bytes: int = 1024 * 1024
    max_fragments: int = 131_072
    history: int = 100
    room_log_bytes: int = 8 * 1024 * 1024
    total_log_bytes: int = 256 * 1024 * 1024
    max_clients: int = 10_000
    max_rooms: int = 10_000
    handshake_timeout: float = 10.0
    max_header_bytes: int = 16 * 1024
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    write_timeout: float = 20.0
    close_timeout: float = 5.0
    max_rate: float = 10_000
    stop_timeout: float = 10.0
    http_idle_timeout: float = 15.0
    allow_origin: tuple[str, ...] = ()
    switch_interval: float | None = None
    max_clients_per_address: int = 2_500
    max_handshakes: int = 1_000
    max_rooms_per_address: int = 1_000
    max_control_rate: float = 10_000
    allow_host: tuple[str, ...] = ()
    trust_proxy: tuple[str, ...] = ()
    # Access control (hub/http/keyring.py). The values are secrets: no text form shows them.
    token_file: str | PurePath | None = None
    publish_token_file: str | PurePath | None = None
    jwt_key_file: str | PurePath | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    publish_token: str | None = dataclasses.field(default=None, repr=False)
    jwt_key: str | bytes | None = dataclasses.field(default=None, repr=False)
    drain_delay: float = 0.0
    drain_seconds: float = 5.0
    # TLS (transport/tls.py)
    tls_cert: str | PurePath | None = None
    tls_key: str | PurePath | None = None

    def __post_init__(self) -> None:
        self._need_texts("allow_origin", "origins", origins.check_allowed)
        self._need_texts("allow_host", "names", check_host_name)
        self._need_texts("trust_proxy", "addresses", parse_network)
        for name in (
            "max_message_bytes",
            "max_fragments",
            "max_clients",
            "max_rooms",
            "room_log_bytes",
            "total_log_bytes",
            "max_handshakes",
        ):
            self._need(name, at_least=1, whole=True)
        for name in ("max_clients_per_address", "max_rooms_per_address"):
            self._need(name, at_least=0, whole=True)
        self._need("history", at_least=0, whole=True)
        self._need("max_rate", at_least=0)
        self._need("max_control_rate", at_least=0)
        self._need("max_header_bytes", at_least=256, whole=True)
        for name in (
            "handshake_timeout",
            "ping_interval",
            "ping_timeout",
            "write_timeout",
            "close_timeout",
            "http_idle_timeout",
        ):
            self._need(name, above=0, at_most=MAX_SECONDS)
        for name in ("stop_timeout", "drain_delay", "drain_seconds"):
            self._need(name, at_least=0, at_most=MAX_SECONDS)
        if self.switch_interval is not None:
            self._need("switch_interval", above=0, at_most=MAX_SECONDS)
        for name in ("tls_cert", "tls_key"):
            self._need_path(name)
        if self.tls_key is not None and self.tls_cert is None:
            raise UsageError("tls_key is of no use without tls_cert")
        # A publisher waits at a quarter of the ring; below this one message could fill that window
        # alone, and no cursor could be promised to lie inside the ring.
        if self.room_log_bytes < 4 * self.max_message_bytes:
            raise UsageError(
                f"room_log_bytes ({self.room_log_bytes}) must be at least four times "
                f"max_message_bytes ({self.max_message_bytes})"
            )
        if self.total_log_bytes < self.room_log_bytes:
            raise UsageError(
                f"total_log_bytes ({self.total_log_bytes}) must be at least "
                f"room_log_bytes ({self.room_log_bytes})"
            )
        for name in ("token", "publish_token", "jwt_key"):
            self._check_secret(name)

    @property
    def has_secrets(self) -> bool:
        """Whether there is a token or a key, and so an access control of the hub's own."""
        return any(
            value is not None
            for value in (
                *(self.token, self.publish_token, self.jwt_key),
                *(self.token_file, self.publish_token_file, self.jwt_key_file),
            )
        )

    def _check_secret(self, name: str) -> None:
        """Check a secret and the file that it may come from; no message has the secret in it."""
        value, path = getattr(self, name), getattr(self, f"{name}_file")
        check_type(name, value, (str, bytes, None) if name == "jwt_key" else TEXT_OR_NONE)
        if value is not None and not value:
            raise UsageError(f"{name} must be a text that is not empty")
        # Others could not be shown in a header line.
        if name != "jwt_key" and isinstance(value, str) and not _VISIBLE.fullmatch(value):
            raise UsageError(f"{name} must consist of visible ASCII characters")
        self._need_path(f"{name}_file")
        if value is not None and path is not None:
            raise UsageError(f"give {name} or {name}_file, not both")

    def _need_path(self, name: str) -> None:
        path = getattr(self, name)
        check_type(name, path, (str, PurePath, None))
        if path is not None and not str(path):
            raise UsageError(f"{name} must be the path of a file")

    def _need_texts(
        self, name: str, what: str, check: Callable[[str], object] | None = None
    ) -> None:
        given: object = getattr(self, name)
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            kind = "one string" if isinstance(given, (str, bytes)) else kind_of(given)
            raise TypeError(f"{name} must be a sequence of {what}, not {kind}")
        texts = tuple(given)
        object.__setattr__(self, name, texts)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"{name} must be a sequence of strings")
        if check is not None:
            for text in texts:
                try:
                    check(text)
                except ValueError as error:
                    raise UsageError(f"{name}: {error}") from None

    def _need(
        self,
        name: str,
        *,
        at_least: float | None = None,
        above: float | None = None,
        at_most: int | None = None,
        whole: bool = False,
    ) -> None:
        value = getattr(self, name)
        # Half a position in a log is none.
        check_type(name, value, (int,) if whole else (int, float))
        if value != value:
            raise UsageError(f"{name} must be a number, not {value!r}")
        if at_least is not None and value < at_least:
            raise UsageError(f"{name} must be at least {at_least:g}, not {value!r}")
        if above is not None and value <= above:
            raise UsageError(f"{name} must be more than {above:g}, not {value!r}")
        if at_most is not None and value > at_most:
            raise UsageError(f"{name} must be at most {at_most}, not {value!r}")
