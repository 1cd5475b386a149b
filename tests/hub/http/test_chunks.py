"""Bodies in chunks, held against h11 where both must agree."""

from __future__ import annotations

import random

import h11
import pytest

from broadcast_server.hub.http.chunks import ChunkReader

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = (
    b'3;x=y; z="a b"\r\nhel\r\n2 \t\r\nlo\r\n00A\r\n0123456789\r\n0;last\r\nX-T: z\r\nY:\r\n\r\n'
)

# The body and what is behind it; None for an incomplete body.
Body = tuple[bytes, bytes] | None


def read(*pieces: bytes, limit: int = 1000) -> Body:
    """Read a body that comes in pieces; ValueError if it is broken."""
    reader = ChunkReader(limit)
    body = b""
    for piece in pieces:
        reader.rest += piece
        while (part := reader.next_piece()) is not None:
            if not part:
                assert reader.done
                break
            body += part
    return (body, reader.rest) if reader.done else None


def read_by_h11(data: bytes) -> Body:
    """The same by h11."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1000)
    connection.receive_data(HEAD + data)
    body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise ValueError(str(error)) from None
        if event is h11.NEED_DATA:
            return None
        if isinstance(event, h11.EndOfMessage):
            return body, connection.trailing_data[0]
        if isinstance(event, h11.Data):
            body += event.data


def test_body_in_chunks_is_read_wherever_it_is_cut() -> None:
    """With extensions and trailers, which say nothing to the hub; what follows is left over."""
    expected = (b"hello0123456789", b"GET /")
    assert read_by_h11(WHOLE + b"GET /") == expected
    assert read(WHOLE + b"GET /") == expected
    for cut in range(len(WHOLE)):
        assert read(WHOLE[:cut]) is None
        assert read(WHOLE[:cut], WHOLE[cut:] + b"GET /") == expected
    assert read(*[WHOLE[at : at + 1] for at in range(len(WHOLE))]) == (expected[0], b"")


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 1\r\n",
        b"\r\n",
        b"1" * 17 + b"\r\n",
        b"1;a\rb\r\n",
        b"1;a=\r\r\nx",
        b"1\r\r\nx",
        b"1;\0\r\nx",
        b"1;\x7f\r\nx",
        b"1\nx",
        b"1;a\nx",
        b"1\r\nxy",
        b"1\r\nx\n",
        b"1\r\nx\ry",
        b"0\r\na\rb: c\r\n\r\n",
        b"0\r\na: b\rc\r\n\r\n",
        b"0\r\na: b\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n: no name\r\n\r\n",
        b"0\r\n\n",
        b"1;" + b"a" * 1000,
        b"0\r\n" + b"a: b\r\n" * 200,
    ],
)
def test_broken_body_is_refused(data: bytes) -> None:
    """In particular a CR or an LF alone, which a proxy may take for the end of a line."""
    with pytest.raises(ValueError):
        read(data)
    with pytest.raises(ValueError):
        read(*[data[at : at + 1] for at in range(len(data))])


def test_never_takes_more_than_h11_does() -> None:
    """Of 20,000 bodies with bytes put in, taken out or changed, those read are read alike."""
    chance = random.Random(1)
    interesting = b'\r\n\r\n \t:;,"=0123aAfFxX\0\x7f\x80'
    whole = 0
    for _ in range(20_000):
        data = bytearray(WHOLE)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(data))
            kind = chance.randrange(3)
            if kind == 0:
                data.insert(place, chance.choice(interesting))
            elif kind == 1:
                data[place] = chance.choice(interesting)
            else:
                del data[place]
        try:
            found = read(bytes(data))
        except ValueError:
            continue
        try:
            expected = read_by_h11(bytes(data))
        except ValueError:
            # A blank before the semicolon is allowed (RFC 9112 §7.1.1), and h11 takes none.
            assert b" ;" in data or b"\t;" in data or b"\t " in data, bytes(data)
            continue
        if found is not None:
            whole += 1
            assert found == expected, bytes(data)
    assert whole > 1000
