"""Every limit of a hub is checked when the hub is made, and the error names it."""

from __future__ import annotations

import dataclasses
import select
import socket
import threading
from typing import Any

import pytest

from broadcast_server.errors import UsageError
from broadcast_server.rules import MAX_SECONDS
from broadcast_server.settings import Settings

MIB = 1024 * 1024

# The smallest value that is allowed, of a whole number.
AT_LEAST = {
    "max_message_bytes": 1,
    "max_fragments": 1,
    "max_clients": 1,
    "max_rooms": 1,
    "history": 0,
    "max_rate": 0,
    "max_header_bytes": 256,
    "stop_timeout": 0,
    "max_clients_per_address": 0,
    "max_handshakes": 1,
    "max_rooms_per_address": 0,
    "max_control_rate": 0,
    "drain_delay": 0,
    "drain_seconds": 0,
}
TEXTS = ["allow_origin", "allow_host", "trust_proxy"]
ABOVE_ZERO = [
    "handshake_timeout",
    "ping_interval",
    "ping_timeout",
    "write_timeout",
    "close_timeout",
    "http_idle_timeout",
    "switch_interval",
]


SECRETS = ["token", "publish_token", "jwt_key"]


def make(**values: Any) -> Settings:
    return Settings(**values)


def test_defaults_pass_their_own_checks() -> None:
    """A hub needs no settings; what they are by default is tested with the command's options."""
    settings = Settings()
    assert settings.allow_origin == ()
    assert settings.switch_interval is None
    assert settings.room_log_bytes >= 4 * settings.max_message_bytes


def test_every_setting_is_checked() -> None:
    """A setting that is added later must be added to a check, and here."""
    checked = {*AT_LEAST, *ABOVE_ZERO, *TEXTS, "room_log_bytes", "total_log_bytes"}
    checked |= {*SECRETS, *(f"{name}_file" for name in SECRETS)}
    checked |= {"tls_cert", "tls_key"}
    assert {field.name for field in dataclasses.fields(Settings)} == checked


def test_settings_do_not_change() -> None:
    """All threads of a hub read them without a lock."""
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.history = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], ()),
        (["https://a.example", "*"], ("https://a.example", "*")),
        (iter(["null"]), ("null",)),
        (("http://b.example",), ("http://b.example",)),
    ],
)
def test_origins_of_any_sequence_become_a_tuple(given: Any, kept: tuple[str, ...]) -> None:
    """What the caller does to its list later has no effect."""
    assert make(allow_origin=given).allow_origin == kept


@pytest.mark.parametrize("origins", ["https://a.example", "", None, 5])
def test_origins_must_be_a_sequence(origins: Any) -> None:
    """One string would be taken for a sequence of letters: no origin would ever match."""
    with pytest.raises(TypeError, match="allow_origin must be a sequence of origins"):
        make(allow_origin=origins)


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        ("example.org", "is not an origin such as https://example.org"),
        ("https://", "is not an origin such as https://example.org"),
        ("https://example.org/app", "has more than an origin has; give https://example.org"),
        ("https://example.org?x", "has more than an origin has; give https://example.org"),
        ("https://user@example.org", "is not an origin"),
        ("https://example.org:http", "is not an origin"),
        ("https://example.org:65536", "is not an origin"),
        ("https://[::g]", "is not an origin"),
        ("https://a b", "is not an origin"),
        ("", "is not an origin"),
        ("https://*.example.org", r"as a whole; \* alone is for all"),
        ("*.example.org", r"as a whole; \* alone is for all"),
        ("NULL", "is not an origin"),
    ],
)
def test_origin_that_no_browser_sends_is_refused(origin: str, why: str) -> None:
    """It would let nobody in."""
    with pytest.raises(UsageError, match=f"^allow_origin: .*{why}"):
        make(allow_origin=[origin])


@pytest.mark.parametrize("name", TEXTS)
def test_list_of_texts_must_be_one(name: str) -> None:
    """One string would be taken for a sequence of letters."""
    for bad, shown in ("::1", "one string"), (b"::1", "one string"), (5, "int"), (None, "None"):
        with pytest.raises(TypeError, match=f"^{name} must be a sequence of .*, not {shown}$"):
            make(**{name: bad})
    with pytest.raises(TypeError, match=f"^{name} must be a sequence of strings$"):
        make(**{name: [5]})


@pytest.mark.parametrize("name", ["*", "*.example", "hub.example:80", "http://hub.example", ""])
def test_allowed_host_must_be_a_name(name: str) -> None:
    """Else it would never match, and nobody would know why."""
    with pytest.raises(UsageError, match=r"^allow_host: "):
        make(allow_host=[name])
    assert make(allow_host=["hub.example", "box"]).allow_host == ("hub.example", "box")


@pytest.mark.parametrize("proxy", ["proxy.example", "10.0.0.1/8", "*", ""])
def test_proxy_must_be_an_address_or_a_network(proxy: str) -> None:
    """A name could mean another machine tomorrow."""
    with pytest.raises(UsageError, match=r"^trust_proxy: "):
        make(trust_proxy=[proxy])
    assert make(trust_proxy=["10.0.0.0/8", "::1"]).trust_proxy == ("10.0.0.0/8", "::1")


@pytest.mark.parametrize(("name", "least"), AT_LEAST.items())
def test_least_value_is_allowed_and_one_below_is_not(name: str, least: int) -> None:
    """The boundary itself is lawful; the error says what was wrong with which value."""
    assert getattr(make(**{name: least}), name) == least
    for value in (least - 1, -(10**9)):
        with pytest.raises(UsageError, match=f"^{name} must be at least {least}, not {value}$"):
            make(**{name: value})


@pytest.mark.parametrize("name", ABOVE_ZERO)
def test_time_must_be_more_than_nothing(name: str) -> None:
    """A limit of no time would end every connection at once, or spin."""
    for good in (0.001, 1, 3600.5):
        assert getattr(make(**{name: good}), name) == good
    for bad in (0, 0.0, -0.001):
        with pytest.raises(UsageError, match=f"^{name} must be more than 0, not {bad!r}$"):
            make(**{name: bad})


@pytest.mark.parametrize("name", [*ABOVE_ZERO, "stop_timeout"])
def test_time_has_a_longest(name: str) -> None:
    """What the system cannot wait for is refused at once, not when a thread waits for it."""
    assert getattr(make(**{name: MAX_SECONDS}), name) == MAX_SECONDS
    for bad in (MAX_SECONDS + 1, 1e9, float("inf")):
        with pytest.raises(UsageError) as caught:
            make(**{name: bad})
        assert str(caught.value) == f"{name} must be at most 1000000, not {bad!r}"


def test_system_can_wait_for_the_longest_time() -> None:
    """In each of the ways that the hub waits; the longest is a ping a quarter later."""
    longest = 1.25 * MAX_SECONDS
    ours, theirs = socket.socketpair()
    with ours, theirs, select.epoll() as epoll:
        theirs.send(b"x")
        epoll.register(ours, select.EPOLLIN)
        assert epoll.poll(longest) == [(ours.fileno(), select.EPOLLIN)]
        ours.settimeout(longest)
        assert ours.recv(1) == b"x"
    thread = threading.Thread(target=int)
    thread.start()
    thread.join(longest)
    assert not thread.is_alive()


@pytest.mark.parametrize("name", SECRETS)
def test_secret_is_a_text_given_once_and_never_shown(name: str) -> None:
    """Neither in the text form of the settings nor in an error."""
    settings = make(**{name: "s3cret"})
    assert settings.has_secrets and "s3cret" not in repr(settings)
    assert make(**{f"{name}_file": "/etc/s"}).has_secrets and not make().has_secrets
    if name != "jwt_key":
        with pytest.raises(UsageError, match=f"^{name} must consist of visible ASCII characters$"):
            make(**{name: "s3 cret"})
    for bad in ({name: ""}, {f"{name}_file": ""}):
        with pytest.raises(UsageError, match=f"^{name}"):
            make(**bad)
    for wrong in ({name: 5}, {f"{name}_file": 5}):
        with pytest.raises(TypeError, match=f"^{name}"):
            make(**wrong)
    with pytest.raises(UsageError, match=f"^give {name} or {name}_file, not both$"):
        make(**{name: "s3cret", f"{name}_file": "/etc/s"})


@pytest.mark.parametrize("value", ["10", True, [1], b"1", 1j])
@pytest.mark.parametrize("name", [*AT_LEAST, *ABOVE_ZERO])
def test_value_must_be_a_number(name: str, value: Any) -> None:
    """A string from a configuration file or a flag is the caller's mistake, said at once."""
    with pytest.raises(TypeError, match=f"^{name} must be int.*, not {type(value).__name__}$"):
        make(**{name: value})


@pytest.mark.parametrize("name", ["max_rate", *ABOVE_ZERO])
def test_nan_is_no_number(name: str) -> None:
    """It is neither more nor less than any limit."""
    with pytest.raises(UsageError, match=f"^{name} must be a number, not nan$"):
        make(**{name: float("nan")})


@pytest.mark.parametrize("name", [*AT_LEAST, *ABOVE_ZERO[:-1]])
def test_none_is_no_number(name: str) -> None:
    """Only ``switch_interval`` knows a None: it leaves Python's own."""
    assert make(switch_interval=None).switch_interval is None
    with pytest.raises(TypeError, match=f"^{name} must be int.*, not None$"):
        make(**{name: None})


def test_room_log_holds_four_messages() -> None:
    """Below four times the largest message one message alone could hold up all publishers."""
    limits = {"max_message_bytes": MIB, "total_log_bytes": 100 * MIB}
    assert make(room_log_bytes=4 * MIB, **limits).room_log_bytes == 4 * MIB
    with pytest.raises(UsageError, match=r"^room_log_bytes \(4194303\) .* \(1048576\)$"):
        make(room_log_bytes=4 * MIB - 1, **limits)
    with pytest.raises(UsageError, match="max_message_bytes"):
        make(max_message_bytes=2 * MIB + 1)  # of the default room_log_bytes


def test_total_holds_one_room_log() -> None:
    """All logs together have at least the place of one."""
    assert make(room_log_bytes=8 * MIB, total_log_bytes=8 * MIB).total_log_bytes == 8 * MIB
    with pytest.raises(UsageError, match=r"^total_log_bytes \(8388607\) .* \(8388608\)$"):
        make(room_log_bytes=8 * MIB, total_log_bytes=8 * MIB - 1)


@pytest.mark.parametrize("name", ["tls_cert", "tls_key"])
def test_file_is_the_path_of_one(name: str) -> None:
    """Whether there is such a file is found at the start of the hub."""
    with pytest.raises(UsageError, match=f"{name} must be the path of a file"):
        make(**{name: ""})
    for wrong in 5, b"cert.pem":
        with pytest.raises(TypeError, match=f"^{name} must be str or PurePath or None, not "):
            make(**{name: wrong})


def test_key_without_certificate_is_a_mistake() -> None:
    """The hub would have no TLS, and somebody would believe that it has."""
    with pytest.raises(UsageError, match="tls_key is of no use without tls_cert"):
        make(tls_key="key.pem")
