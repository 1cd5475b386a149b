"""The hub's RFC 6455 as bytes on a socket: what the Autobahn suite cannot see or does not grade.

``RawClient`` refuses masked or wasteful frames from the hub, so every test here checks that, too.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from ..support import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    RawClient,
    client_frame,
    mask_payload,
    running_hub,
    wait_until,
)

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub, Member

LIMIT = 1024 * 1024  # the default of max_message_bytes


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """Return a client's Close frame, lawful or not."""
    return client_frame(CLOSE, struct.pack("!H", code) + reason)


def echo_client(hub: BroadcastHub) -> RawClient:
    """Join a room wanting one's own messages, too."""
    return RawClient.connect(port=hub.port, path="/raw?echo=1")


# -- What the hub sends ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, b"\x82\x00"),
        (1, b"\x82\x01"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        (LIMIT, b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x00"),
    ],
)
def test_server_frame_is_unmasked_and_shortest(
    hub: BroadcastHub, length: int, header: bytes
) -> None:
    """RFC 6455 §5.1, §5.2: no mask from a server, and the length in as few bytes as it takes."""
    payload = os.urandom(length)
    with echo_client(hub) as client:
        client.send(payload)
        assert client.recv_exact(len(header)) == header
        assert client.recv_exact(length) == payload
        client.leave()


def test_fragmented_message_arrives_as_one_frame(hub: BroadcastHub) -> None:
    """Fragments, empty ones too, are joined; a ping between them is answered at once."""
    with echo_client(hub) as client:
        client.send_frame(TEXT, "a", fin=False)
        client.send_frame(CONTINUATION, "", fin=False)
        client.send_frame(PING, b"between")
        assert client.recv_frame() == (True, PONG, b"between")
        client.send_frame(CONTINUATION, "bc", fin=False)
        client.send_frame(CONTINUATION, "", fin=True)
        assert client.recv_frame() == (True, TEXT, b"abc")


def test_pong_carries_any_bytes(hub: BroadcastHub) -> None:
    """RFC 6455 §5.5.3: a pong has the ping's application data, which need not be text."""
    with echo_client(hub) as client:
        for payload in (b"", b"\xff\xfe\x00", bytes(range(125))):
            client.send_frame(PING, payload)
            assert client.recv_frame() == (True, PONG, payload)


def test_unasked_pong_is_ignored(hub: BroadcastHub) -> None:
    """RFC 6455 §5.5.3: a pong may come unasked and wants no answer."""
    with echo_client(hub) as client:
        client.send_frame(PONG, b"nobody asked")
        client.send("next")
        assert client.recv_message() == "next"


# -- What the hub refuses ----------------------------------------------------------------------

BREACHES = {
    "unmasked text": (client_frame(TEXT, b"x", mask=False), 1002),
    "unmasked close": (client_frame(CLOSE, b"\x03\xe8", mask=False), 1002),
    "rsv1": (client_frame(TEXT, b"x", rsv=4), 1002),
    "rsv2": (client_frame(TEXT, b"x", rsv=2), 1002),
    "rsv3": (client_frame(TEXT, b"x", rsv=1), 1002),
    "rsv on ping": (client_frame(PING, b"x", rsv=4), 1002),
    **{
        f"opcode {opcode}": (client_frame(opcode, b"x"), 1002)
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "ping of 126 bytes": (client_frame(PING, bytes(126)), 1002),
    "close of 126 bytes": (close_frame(1000, b"x" * 124), 1002),
    "fragmented ping": (client_frame(PING, b"x", fin=False), 1002),
    "fragmented close": (client_frame(CLOSE, b"\x03\xe8", fin=False), 1002),
    "continuation of nothing": (client_frame(CONTINUATION, b"x"), 1002),
    "text inside a message": (
        client_frame(TEXT, b"a", fin=False) + client_frame(TEXT, b"b"),
        1002,
    ),
    "rsv in a continuation": (
        client_frame(TEXT, b"a", fin=False) + client_frame(CONTINUATION, b"b", rsv=4),
        1002,
    ),
    "2 length bytes for 0": (client_frame(TEXT, b"", length_bytes=2), 1002),
    "2 length bytes for 125": (client_frame(TEXT, b"x" * 125, length_bytes=2), 1002),
    "8 length bytes for 5": (client_frame(BINARY, b"x" * 5, length_bytes=8), 1002),
    "8 length bytes for 126": (client_frame(BINARY, b"x" * 126, length_bytes=8), 1002),
    "8 length bytes for 65535": (client_frame(BINARY, b"x" * 65_535, length_bytes=8), 1002),
    "2 length bytes for a ping": (client_frame(PING, b"x", length_bytes=2), 1002),
    "length 2^63": (client_frame(BINARY, b"", claimed=1 << 63), 1002),
    "length 2^64-1": (client_frame(BINARY, b"", claimed=(1 << 64) - 1), 1002),
    "length 2^63-1": (client_frame(BINARY, b"", claimed=(1 << 63) - 1), 1009),
    "header of a message too big": (client_frame(TEXT, b"", claimed=LIMIT + 1), 1009),
    "fragments too big together": (
        client_frame(BINARY, bytes(LIMIT), fin=False)
        + client_frame(CONTINUATION, b"", fin=False, claimed=1),
        1009,
    ),
    "close of 1 byte": (client_frame(CLOSE, b"\x03"), 1002),
    **{
        f"close code {code}": (close_frame(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65_535)
    },
    "close reason not UTF-8": (close_frame(1000, b"\xff"), 1007),
    "close reason cut off": (close_frame(1000, "é".encode()[:1]), 1007),
    "text not UTF-8": (client_frame(TEXT, b"\xff"), 1007),
    "text with a surrogate": (client_frame(TEXT, b"\xed\xa0\x80"), 1007),
    "text beyond Unicode": (client_frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "overlong text": (client_frame(TEXT, b"\xc0\xaf"), 1007),
    "text that ends inside a character": (client_frame(TEXT, b"\xe2\x82"), 1007),
    "fragments that end inside a character": (
        client_frame(TEXT, b"\xe2", fin=False) + client_frame(CONTINUATION, b"\x82"),
        1007,
    ),
    "bad byte in an unfinished frame": (client_frame(TEXT, b"abc\xff", claimed=100), 1007),
    "bad byte in a long unfinished frame": (client_frame(TEXT, b"abc\xff", claimed=70_000), 1007),
    "bad byte in the first fragment": (client_frame(TEXT, b"\xff", fin=False), 1007),
    "surrogate begun in an unfinished frame": (
        client_frame(TEXT, b"\xed\xa0", claimed=3),
        1007,
    ),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_breach_ends_with_its_close_code(breach: str) -> None:
    """What came before is delivered, then comes Close with the right code, then the stream's end.

    Nothing after the offending bytes is needed, in particular no payload of a frame too big.
    """
    data, code = BREACHES[breach]
    left: list[tuple[int, str]] = []
    # In the middle of a frame there is no answer to its Close.
    with running_hub(
        close_timeout=0.3, on_leave=lambda member, code, reason: left.append((code, reason))
    ) as hub:
        with echo_client(hub) as client, RawClient.connect(port=hub.port, path="/raw") as other:
            client.sock.sendall(client_frame(TEXT, "before") + data)
            assert client.recv_message() == "before"
            got, reason = client.recv_close()
            assert got == code, reason
            client.recv_eof()
            # The others have what was valid, and go on.
            assert other.recv_message() == "before"
            client.close()
            assert wait_until(lambda: len(left) == 1)
            assert left[0][0] == code
            hub.broadcast("after", "/raw")
            assert other.recv_message() == "after"


def test_breach_with_input_behind_it_does_not_reset(hub: BroadcastHub) -> None:
    """Bytes that the hub never parses must not turn its Close into a TCP reset."""
    with echo_client(hub) as client:
        client.sock.sendall(client_frame(TEXT, b"\xff") + os.urandom(2 * LIMIT))
        assert client.recv_close()[0] == 1007
        client.recv_eof()


def test_too_many_fragments_are_refused() -> None:
    """``max_fragments`` frames are one message, one more is 1009, whatever their size."""
    with running_hub(max_fragments=10) as hub, echo_client(hub) as client:
        for _ in range(2):
            client.sock.sendall(
                client_frame(BINARY, b"x", fin=False)
                + client_frame(CONTINUATION, b"x", fin=False) * 8
                + client_frame(CONTINUATION, b"x")
            )
            assert client.recv_message() == b"x" * 10
        client.sock.sendall(
            client_frame(BINARY, b"", fin=False) + client_frame(CONTINUATION, b"", fin=False) * 10
        )
        assert client.recv_close()[0] == 1009
        client.recv_eof()


def test_message_of_the_limit_passes() -> None:
    """The limit is a size that is allowed, in one frame and in fragments."""
    with running_hub(max_message_bytes=1000, room_log_bytes=4000) as hub:
        with echo_client(hub) as client:
            client.send(b"x" * 1000)
            assert client.recv_message() == b"x" * 1000
            client.send_frame(BINARY, b"y" * 999, fin=False)
            client.send_frame(CONTINUATION, b"z")
            assert client.recv_message() == b"y" * 999 + b"z"
            client.sock.sendall(client_frame(BINARY, b"", claimed=1001))
            assert client.recv_close()[0] == 1009


# -- How frames may arrive ---------------------------------------------------------------------


def test_frames_byte_by_byte(hub: BroadcastHub) -> None:
    """Where the stream is cut does not matter."""
    messages = client_frame(TEXT, "grüße") + client_frame(BINARY, bytes(range(130)))
    fragments = (
        client_frame(TEXT, "a€", fin=False)
        + client_frame(PING, b"p")
        + client_frame(CONTINUATION, "b€")
        + close_frame(1000, "tschüß".encode())
    )
    with echo_client(hub) as client:
        for byte in messages:
            client.sock.sendall(bytes([byte]))
        assert client.recv_message() == "grüße"
        assert client.recv_message() == bytes(range(130))
        for byte in fragments:
            client.sock.sendall(bytes([byte]))
        assert client.recv_frame() == (True, PONG, b"p")
        assert client.recv_message() == "a€b€"
        assert client.recv_close()[0] == 1000
        client.recv_eof()


def test_large_frame_in_odd_pieces(hub: BroadcastHub) -> None:
    """A mask is four bytes, a piece is not: the unmasking keeps its place."""
    payload = os.urandom(300_000)
    frame = client_frame(BINARY, payload)
    with echo_client(hub) as client:
        for size in (1, 2, 3, 5, 1021, 4099):
            for position in range(0, min(len(frame), size * 40), size):
                client.sock.sendall(frame[position : min(position + size, size * 40)])
            client.sock.sendall(frame[size * 40 :])
            assert client.recv_message() == payload


def test_many_frames_in_one_segment(hub: BroadcastHub) -> None:
    """Thousands of frames in one write come out one by one, in order, to sender and others."""
    texts = [str(number) for number in range(5000)]
    stream = b"".join(client_frame(TEXT, text) for text in texts)
    with echo_client(hub) as client, RawClient.connect(port=hub.port, path="/raw") as other:
        client.sock.sendall(stream)
        assert [client.recv_message() for _ in texts] == texts
        assert [other.recv_message() for _ in texts] == texts


def test_frames_behind_the_upgrade_request(hub: BroadcastHub) -> None:
    """What a client sends together with its request, without waiting for the 101, is not lost."""
    extra = client_frame(TEXT, "early") + client_frame(PING, b"bird") + client_frame(TEXT, "cut")
    for cut in (len(extra), len(extra) - 1, 3):
        with RawClient.connect(
            port=hub.port, path=f"/early-{cut}?echo=1", extra=extra[:cut]
        ) as client:
            client.sock.sendall(extra[cut:])
            frames = [client.recv_frame() for _ in range(3)]
            assert [frame for frame in frames if frame[1] == TEXT] == [
                (True, TEXT, b"early"),
                (True, TEXT, b"cut"),
            ]
            # Urgent, it may overtake "early", but not what came after it.
            assert (True, PONG, b"bird") in frames[:2]


def test_mask_of_zeros_and_of_ones(hub: BroadcastHub) -> None:
    """Any mask will do (RFC 6455 §5.3)."""
    with echo_client(hub) as client:
        for mask in (bytes(4), b"\xff" * 4, b"\x00\x00\x00\x01", MASK):
            for payload in (b"a", b"ab", b"abc", b"abcd", b"abcde" * 100):
                header = client_frame(BINARY, payload)[: -len(payload) - 4]
                client.sock.sendall(header + mask + mask_payload(payload, mask))
                assert client.recv_message() == payload


# -- Order -------------------------------------------------------------------------------------


def test_echo_keeps_order(hub: BroadcastHub) -> None:
    """A sender with ``echo=1`` sees its own messages in the order in which it sent them."""
    with echo_client(hub) as client:
        for number in range(1000):
            client.send(str(number))
        assert [client.recv_message() for _ in range(1000)] == [str(n) for n in range(1000)]


def test_pong_is_not_overtaken_by_later_message(hub: BroadcastHub) -> None:
    """A pong comes before any message that came after its ping; a newer pong may replace it."""
    count = 300
    stream = b"".join(
        client_frame(PING, struct.pack("!H", number)) + client_frame(TEXT, str(number))
        for number in range(count)
    )
    with echo_client(hub) as client:
        for cut in (1, 100, len(stream) // 2, len(stream)):
            client.sock.sendall(stream[:cut])
            client.sock.sendall(stream[cut:])
            newest_ping = -1
            texts = []
            while len(texts) < count:
                _, opcode, payload = client.recv_frame()
                if opcode == PONG:
                    (number,) = struct.unpack("!H", payload)
                    assert number > newest_ping, "pongs out of order"
                    newest_ping = number
                else:
                    texts.append(int(payload))
                    # Its own pong, or one that replaced it, is here already.
                    assert newest_ping >= texts[-1]
            assert texts == list(range(count))
            assert newest_ping == count - 1


@pytest.mark.parametrize("count", [1, 300])
def test_close_echo_does_not_overtake_echoes(hub: BroadcastHub, count: int) -> None:
    """Everything sent before a Close comes back before the Close does."""
    with echo_client(hub) as client:
        client.sock.sendall(
            b"".join(client_frame(TEXT, str(number)) for number in range(count))
            + client_frame(PING, b"last")
            + close_frame(1000)
        )
        seen: list[str] = []
        while True:
            _, opcode, payload = client.recv_frame()
            if opcode == CLOSE:
                break
            seen.append("pong" if opcode == PONG else payload.decode())
        assert payload == b"\x03\xe8"
        client.recv_eof()
        assert [text for text in seen if text != "pong"] == [str(n) for n in range(count)]


# -- The end of a connection -------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999]
)
def test_close_is_echoed(code: int) -> None:
    """RFC 6455 §5.5.1: the peer's code comes back, with its reason, then the hub ends the TCP
    stream first."""
    left: list[tuple[Member, int, str]] = []
    with running_hub(on_leave=lambda *leave: left.append(leave)) as hub:
        with echo_client(hub) as client:
            client.send_close(code, "weil's endet ✓")
            assert client.recv_close() == (code, "weil's endet ✓")
            client.recv_eof()
            client.close()
            assert wait_until(lambda: len(left) == 1)
    assert left[0][1:] == (code, "weil's endet ✓")


def test_empty_close_is_echoed_empty() -> None:
    """A Close without a code is answered by one without a code; 1005 is never on the wire."""
    left: list[tuple[Member, int, str]] = []
    with running_hub(on_leave=lambda *leave: left.append(leave)) as hub:
        with echo_client(hub) as client:
            client.send_frame(CLOSE)
            assert client.recv_frame() == (True, CLOSE, b"")
            client.recv_eof()
            client.close()
            assert wait_until(lambda: len(left) == 1)
    assert left[0][1:] == (1005, "")


@pytest.mark.parametrize(
    "after",
    [
        client_frame(TEXT, "too late"),
        client_frame(PING, b"too late"),
        close_frame(1001),
        client_frame(TEXT, b"\xff"),
        b"no frame at all" * 1000,
    ],
    ids=["text", "ping", "second close", "breach", "garbage"],
)
def test_data_after_close_is_ignored(hub: BroadcastHub, after: bytes) -> None:
    """After its Close a client may say nothing more, and nobody hears it if it does."""
    with echo_client(hub) as client, RawClient.connect(port=hub.port, path="/raw") as other:
        client.sock.sendall(client_frame(TEXT, "in time") + close_frame(1000) + after)
        assert client.recv_message() == "in time"
        assert client.recv_close()[0] == 1000
        # Still no reset: the hub reads, and throws away, until our stream ends.
        client.recv_eof()
        client.sock.sendall(after)
        client.close()
        assert wait_until(lambda: len(hub.members("/raw")) == 1)
        hub.broadcast("after", "/raw")
        assert other.recv_message() == "in time"
        assert other.recv_message() == "after"


def test_close_twice_while_the_hub_closes(hub: BroadcastHub) -> None:
    """Both ends say Close at once: each gets one, and the stream ends in order."""
    with echo_client(hub) as client:
        (member,) = hub.members("/raw")
        assert hub.disconnect(member.id, 4001, "out")
        client.send_close(1000)
        assert client.recv_close() == (4001, "out")
        client.recv_eof()


def test_client_that_never_ends_its_stream_is_cut_off() -> None:
    """``close_timeout`` after the closing handshake the hub lets go, even of a silent peer."""
    with running_hub(close_timeout=0.2) as hub:
        with echo_client(hub) as client:
            client.send_close()
            assert client.recv_close()[0] == 1000
            client.recv_eof()
            # Our side stays open and silent; the client is off the hub's list all the same.
            assert wait_until(lambda: hub.stats()["clients"] == 0)


def test_end_of_stream_without_close_is_1006() -> None:
    """What came before a bare FIN is delivered; the leave callback is told 1006."""
    left: list[tuple[Member, int, str]] = []
    with running_hub(on_leave=lambda *leave: left.append(leave)) as hub:
        with RawClient.connect(port=hub.port, path="/raw") as other:
            with RawClient.connect(port=hub.port, path="/raw") as client:
                client.sock.sendall(client_frame(TEXT, "last words") + b"\x81")
            assert other.recv_message() == "last words"
            assert wait_until(lambda: len(left) == 1)
            other.leave()
            assert wait_until(lambda: len(left) == 2)
    assert [leave[1] for leave in left] == [1006, 1000]


def test_close_before_unread_messages_still_arrives(hub: BroadcastHub) -> None:
    """A client with a full receive buffer gets the messages, then Close, then the end."""
    with RawClient.connect(port=hub.port, path="/raw", rcvbuf=4096) as client:
        (member,) = hub.members("/raw")
        for number in range(100):
            hub.broadcast(struct.pack("!I", number) + bytes(20_000), "/raw")
        assert hub.disconnect(member.id, 1000, "done")
        for number in range(100):
            data = client.recv_message()
            assert isinstance(data, bytes) and data[:4] == struct.pack("!I", number)
        assert client.recv_close() == (1000, "done")
        client.recv_eof()


# -- Heartbeat ---------------------------------------------------------------------------------


def test_quiet_client_is_pinged_and_stays_if_it_answers() -> None:
    """A client that answers is never closed, one that sends anything else is as alive."""
    with running_hub(ping_interval=0.05, ping_timeout=0.5) as hub, echo_client(hub) as client:
        for _ in range(3):
            fin, opcode, payload = client.recv_frame()
            assert (fin, opcode) == (True, PING)
            client.send_frame(PONG, payload)
        for _ in range(3):
            # No pong, but a byte: RFC 6455 does not ask for more than life.
            assert client.recv_frame()[1] == PING
            client.sock.sendall(client_frame(TEXT, "x")[:1])
            client.sock.sendall(client_frame(TEXT, "x")[1:])
            assert client.recv_frame()[1:] == (TEXT, b"x")
        assert len(hub.members("/raw")) == 1


def test_answer_brings_the_next_ping_closer_than_a_long_time_out() -> None:
    """One that answers is pinged an interval later, however long it might have taken."""
    with running_hub(ping_interval=0.05, ping_timeout=3600.0) as hub, echo_client(hub) as client:
        for _ in range(5):
            fin, opcode, payload = client.recv_frame()
            assert (fin, opcode) == (True, PING)
            client.send_frame(PONG, payload)


def test_client_that_does_not_answer_is_closed() -> None:
    """Silence for ``ping_interval`` and ``ping_timeout``: 1011, "ping timeout"."""
    left: list[tuple[Member, int, str]] = []
    with running_hub(
        ping_interval=0.05, ping_timeout=0.05, on_leave=lambda *leave: left.append(leave)
    ) as hub:
        with RawClient.connect(port=hub.port) as client:
            assert client.recv_frame()[1] == PING
            assert client.recv_close() == (1011, "ping timeout")
            client.recv_eof()
            assert hub.members() == []
            client.close()
            assert wait_until(lambda: len(left) == 1)
    assert left[0][1:] == (1011, "ping timeout")
