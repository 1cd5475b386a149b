"""JSON is measured before it is parsed, and what would become too much is not parsed at all."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from broadcast_server.wire import json_bounds
from broadcast_server.wire.json_bounds import SMALL_BYTES, Bounds, TooMuch, check, loads

BOUNDS = Bounds(outside_bytes=1000, strings=100, bytes=1_000_000)


@pytest.mark.parametrize(
    "text",
    [
        b'{"type":"who","x":[' + b"[]," * 100_000 + b"0]}",
        b"[" * 100_000,
        b"1" * 100_000,
        b" " * 100_000,
        b'["",' * 50_000,
        b'"\\\\",[' * 20_000,
        b'["\\\\\\"", ' * 20_000,
        b'"' + b"x" * 1_000_001 + b'"',
        b'"' + b"\\n" * 1_000_001 + b'"',
        b'"' + b"\\u0001" * 1_000_001 + b'"',
        b'"' + b'\\"' * 1_000_001 + b'"',
        b'"' + b"\\\\" * 1_000_001 + b'"',
    ],
    ids=lambda text: f"{text[:20]!r}",
)
def test_what_would_become_too_much_is_not_parsed(
    text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many parts, many strings, or more than the longest lawful text."""
    parsed: list[bytes] = []
    monkeypatch.setattr(json, "loads", parsed.append)
    with pytest.raises(TooMuch):
        loads(text, BOUNDS)
    assert parsed == []


@pytest.mark.parametrize(
    "value",
    [
        {"data": "x" * 900_000, "type": "message"},
        {"data": "[,]{:}" * 100_000},
        {"data": '"' * 900_000},
        {"data": "\\" * 900_000},
        {"data": '\\"' * 400_000, "a": ["\\", '"', "\\\\"]},
        {"data": "\x01" * 900_000},
        {"data": "\u20ac" * 300_000},
    ],
    ids=lambda value: ascii(value["data"][:6]),
)
@pytest.mark.parametrize("escaped", [True, False])
def test_one_long_string_is_parsed(value: dict[str, Any], escaped: bool) -> None:
    """Whatever is in it, and however it is written."""
    text = json.dumps(value, ensure_ascii=escaped).encode()
    assert len(text) > SMALL_BYTES
    assert loads(text, BOUNDS) == value


def test_what_is_counted_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Just within each of the bounds, and one beyond, for many texts by chance."""
    monkeypatch.setattr(json_bounds, "SMALL_BYTES", 0)
    chance = random.Random(15)
    for _ in range(300):
        value = {
            "".join(chance.choices('ab"\\\n\u20ac', k=chance.randrange(6))) + str(number): [
                "".join(chance.choices('ab"\\\n\u20ac\x01', k=chance.randrange(9))), number, {}
            ]
            for number in range(chance.randrange(1, 9))
        }  # fmt: skip
        text = json.dumps(value, ensure_ascii=False).encode()
        strings = [*value, *(entry[0] for entry in value.values())]
        outside = len(text) - sum(len(json.dumps(s, ensure_ascii=False).encode()) for s in strings)
        size = len(text) - sum(
            len(json.dumps(s, ensure_ascii=False).encode()) - len(s.encode()) - 2
            for s in strings  # type: ignore[misc]
        )
        exact = Bounds(outside, len(strings), size)
        check(text, exact)
        for field in Bounds._fields:
            with pytest.raises(TooMuch):
                check(text, exact._replace(**{field: getattr(exact, field) - 1}))


def test_small_text_is_not_looked_at() -> None:
    """It cannot become much, and most events are small."""
    assert loads(b"[" + b"1," * 2000 + b"1]", BOUNDS._replace(outside_bytes=0)) == [1] * 2001
