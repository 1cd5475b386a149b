"""Media types: what a body is, and which answer a client wants most."""

from __future__ import annotations

import pytest

from broadcast_server.hub.http.media_types import (
    EVENTS,
    HTML,
    JSON,
    MediaType,
    is_only,
    is_text,
    parse,
    prefer,
)

from ...support.inside import note_split


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        ("text/plain", "text/plain", {}),
        (" Text/HTML ", "text/html", {}),
        ("*/*", "*/*", {}),
        ("text/plain; Charset=UTF-8", "text/plain", {"charset": "UTF-8"}),
        ("text/plain;charset=utf-8;", "text/plain", {"charset": "utf-8"}),
        ('a/b; x="1;2,3"; y=z', "a/b", {"x": "1;2,3", "y": "z"}),
        (r'a/b; x="say \"hi\""', "a/b", {"x": 'say "hi"'}),
        ('a/b; x=""', "a/b", {"x": ""}),
    ],
)
def test_media_type_is_read(text: str, name: str, parameters: dict[str, str]) -> None:
    """RFC 9110 §8.3.1: in any case, with parameters in quotes or without."""
    assert parse(text) == MediaType(name, parameters)


@pytest.mark.parametrize(
    "text",
    ["", "text", "/", "text/", "/plain", "a text/plain", "text/plain/x", "a/b; x", "a/b; =1",
     "a/b; x=", "a/b; x=1 2", 'a/b; x="1', 'a/b; x="', "text/plain, text/html"],
)  # fmt: skip
def test_what_is_no_media_type_is_an_error(text: str) -> None:
    """It is not guessed what may have been meant."""
    with pytest.raises(ValueError, match=r"^not a"):
        parse(text)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ([], JSON),
        ([""], JSON),
        (["*/*"], JSON),
        (["*"], JSON),
        (["text/html, image/gif, *; q=.2, */*; q=.2"], HTML),
        (["text/html"], HTML),
        (["text/*"], HTML),
        (["application/*"], JSON),
        ([EVENTS], EVENTS),
        (["application/json", "text/event-stream"], JSON),
        (["text/event-stream;q=0.9,application/json;q=0.8"], EVENTS),
        # Of equal weight what is named more exactly.
        (["*/*, text/event-stream"], EVENTS),
        (["text/html;q=0.9,*/*;q=0.8"], HTML),
        # The most exact range decides, also against a type.
        (["text/html;q=0.1, text/*;q=0.9"], EVENTS),
        (["application/json;q=0, */*"], HTML),
        (["*/*;q=0"], None),
        (["text/html;q=0.000"], None),
        (["image/png"], None),
        # What cannot be read does not count.
        (["nonsense"], None),
        (["nonsense, text/html;q=0.1"], HTML),
        (["text/html;q=2, application/json;q=0.1"], JSON),
        (["text/html;q=x"], None),
        (["text/html;q=."], None),
        (["text/html;q=-1"], None),
        (['text/html;x="a,b", application/json;q=0.5'], HTML),
    ],
)
def test_client_gets_what_it_wants_most(accept: list[str], expected: str | None) -> None:
    """By weight, then by how exactly it is named, then in the order page, JSON, events."""
    assert prefer(accept) == expected


@pytest.mark.parametrize(
    "accept",
    [["a/b," * 64], ["a/b"] * 65, [","] * 33, ['"' * 200], ["a/b" + ";" * 257]],
    ids=["elements", "lines", "commas", "quotes", "parameters"],
)
def test_long_list_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch, accept: list[str]) -> None:
    """An element costs more than its bytes."""
    parsed = note_split(monkeypatch)
    with pytest.raises(ValueError, match="more than"):
        prefer(accept)
    with pytest.raises(ValueError, match="more than 32"):
        parse("a/b" + ";x=y" * 32)
    assert parsed == []


def test_list_of_the_most_elements_is_read() -> None:
    """And each of them counts."""
    assert prefer(["a/b;x=y;z=0," * 63 + "text/html"]) == HTML
    assert parse("a/b" + ";x=y" * 31).parameters == {"x": "y"}


def test_long_open_quotes_are_read_once() -> None:
    """What is quoted up to the end takes no time, whatever it is."""
    assert prefer(['"' * 127 + "x" * 16_000 + ","]) is None
    assert prefer(['a/b;x="' + "\\a" * 8_000]) is None


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/plain", True),
        ("text/csv; charset=utf8", True),
        ('text/plain; charset="UTF-8"', True),
        ("application/json; charset=utf-8", True),
        ("application/xml", True),
        ("application/ld+json", True),
        ("application/atom+xml", True),
        ("application/x-www-form-urlencoded", True),
        ("application/octet-stream", False),
        ("application/jsonl", False),
        ("image/png; charset=latin-1", False),
    ],
)
def test_type_says_whether_a_body_is_text(content_type: str, expected: bool) -> None:
    """Text is what people write and what programs write as text."""
    assert is_text(content_type) is expected


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=x", "text/plain; charset=utf-16"]
)
def test_body_that_is_not_taken_is_told(content_type: str) -> None:
    """Another exception than for what is no media type: another status."""
    with pytest.raises(LookupError):
        is_text(content_type)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (["text/event-stream"], True),
        ([" Text/Event-Stream ; charset=utf-8"], True),
        (["text/event-stream;q=0.5"], True),
        (["", "text/event-stream,"], True),
        (["text/event-stream;q=0"], False),
        (["text/event-stream, text/event-stream"], False),
        (["text/event-stream, */*;q=0.1"], False),
        (["text/event-stream", "text/html"], False),
        (["text/*"], False),
        (["*/*"], False),
        ([], False),
        (["text/event-stream;q=x"], False),
    ],
)
def test_is_only(accept: list[str], expected: bool) -> None:
    """One type and no other, as an ``EventSource`` asks."""
    assert is_only(accept, EVENTS) is expected
