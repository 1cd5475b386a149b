"""The reader of plain upgrade requests, held against h11."""

from __future__ import annotations

import random

import pytest

from broadcast_server.hub.http.plain_request import parse_plain

from ...fuzz.target_http import read_by_h11

LINES = [
    b"GET /room?name=ann HTTP/1.1",
    b"Host: 127.0.0.1:8765",
    b"Upgrade: websocket",
    b"Connection: keep-alive, Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
    b"Origin:  http://127.0.0.1:8765  ",
    b"X-Empty:",
]
WHOLE = b"\r\n".join(LINES) + b"\r\n\r\n"


def test_reads_a_plain_request_as_h11_does() -> None:
    """What browsers and libraries send is read alike, with the frame behind it left over."""
    assert parse_plain(WHOLE + b"\x81\x80abcd", 16384) == read_by_h11(WHOLE + b"\x81\x80abcd")
    assert parse_plain(WHOLE, 16384) is not None


@pytest.mark.parametrize(
    "data",
    [
        WHOLE[:-1],
        WHOLE.replace(b"GET", b"get"),
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WHOLE.replace(b"Host: 127.0.0.1:8765\r\n", b""),
        WHOLE.replace(b"Host:", b"Host: a\r\nHost:"),
        WHOLE.replace(b"Upgrade: websocket\r\n", b""),
        WHOLE.replace(b"X-Empty:", b"Content-Length: 3"),
        WHOLE.replace(b"X-Empty:", b"Transfer-Encoding: chunked"),
        WHOLE.replace(b"X-Empty:", b"X-Empty :"),
        WHOLE.replace(b"X-Empty:", b" folded"),
        WHOLE.replace(b"X-Empty:", b"X-Empty: \xff"),
        WHOLE.replace(b"X-Empty:", b"X-Empty: a\nb"),
        WHOLE.replace(b"X-Empty:", b"X-Empty: " + b"a" * 16384),
    ],
)
def test_leaves_what_is_not_plain_to_h11(data: bytes) -> None:
    """Whatever is incomplete, unusual or wrong is for the strict parser to judge."""
    assert parse_plain(data, 16384) is None


def test_never_differs_from_h11_on_mutated_requests() -> None:
    """Of 20,000 requests with bytes put in, taken out or changed, those read are read alike."""
    chance = random.Random(1)
    interesting = b'\r\n\r\n \t:;,/?%\0\x7f\x80GHz=\\"()<>@[]{}'
    read = 0
    for _ in range(20_000):
        data = bytearray(WHOLE)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(data))
            byte = chance.choice(interesting)
            kind = chance.randrange(3)
            if kind == 0:
                data.insert(place, byte)
            elif kind == 1:
                data[place] = byte
            else:
                del data[place]
        plain = parse_plain(bytes(data), 16384)
        if plain is not None:
            read += 1
            assert plain == read_by_h11(bytes(data)), bytes(data)
    assert read > 1000
