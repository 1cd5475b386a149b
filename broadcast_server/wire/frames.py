"""RFC 6455 frames from bytes and back, without any I/O.

``FrameDecoder`` takes what the socket gave, in pieces of any size, and returns whole messages and
control frames. The hub's side takes masked frames only, the client's only unmasked ones. Each limit
is checked as soon as the header that breaks it is there, before its payload is waited for, and text
is checked as UTF-8 while it arrives. An error does not raise: what came before it is still
returned, and ``decoder.failure`` then tells the close code, so that nothing valid is lost because
of a bad frame behind it in the same segment. ``skip`` goes on from there, to find the peer's Close.
"""

from __future__ import annotations

import codecs
import struct

from ..errors import ProtocolError

CONTINUATION, TEXT, BINARY = 0x0, 0x1, 0x2
CLOSE, PING, PONG = 0x8, 0x9, 0xA

FIN = 0x80
MASKED = 0x80
MAX_CONTROL_BYTES = 125
# The longest header: two bytes, eight of the length, four of the mask.
MAX_HEADER_BYTES = 14
# So many frames are skipped in search of a Close: more than the buffers of a connection hold.
MAX_SKIPPED = 65_536

NO_CODE = 1005  # RFC 6455 §7.4.1: "no status received", never on the wire
ABNORMAL = 1006  # the connection ended without a Close frame, never on the wire

_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")

# The header of every message short enough for one length byte; made once, looked up for each
# message.
_SHORT_HEADERS = {
    opcode: [bytes((FIN | opcode, length)) for length in range(126)]
    for opcode in (TEXT, BINARY, CLOSE, PING, PONG)
}


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """Return one final, unmasked frame with the shortest possible length field (RFC 6455 §5.2)."""
    length = len(payload)
    if length < 126:
        return _SHORT_HEADERS[opcode][length] + payload
    if length < 0x10000:
        return struct.pack("!BBH", FIN | opcode, 126, length) + payload
    return struct.pack("!BBQ", FIN | opcode, 127, length) + payload


def encode_close(code: int, reason: str = "") -> bytes:
    """Return a Close frame; the reason is cut to what a control frame holds (RFC 6455 §5.5).

    Args:
        code: a code that may be sent; ``NO_CODE`` makes an empty Close.
        reason: a text; a character that does not fit whole into 123 bytes is left out.
    """
    if code == NO_CODE:
        return encode_frame(CLOSE, b"")
    cut = reason.encode("utf-8", "replace")[: MAX_CONTROL_BYTES - 2]
    payload = struct.pack("!H", code) + cut.decode("utf-8", "ignore").encode("utf-8")
    return encode_frame(CLOSE, payload)


def parse_close(payload: bytes) -> tuple[int, str]:
    """Return code and reason of a Close payload that the decoder let through."""
    if not payload:
        return NO_CODE, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode("utf-8")


def payload_of(frame: bytes) -> bytes:
    """Return the payload of what ``encode_frame`` made."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def payload_view(frame: bytes) -> memoryview:
    """Return the payload of what ``encode_frame`` made, without a copy."""
    return memoryview(frame)[{126: 4, 127: 10}.get(frame[1], 2) :]


def is_text(frame: bytes) -> bool:
    """Tell whether what ``encode_frame`` made is a TEXT frame."""
    return frame[0] & 0x0F == TEXT


def data_of(frame: bytes) -> str | bytes:
    """Return what ``encode_frame`` made a TEXT or BINARY frame of, text as ``str``."""
    payload = payload_of(frame)
    return payload.decode("utf-8") if is_text(frame) else payload


def is_sendable_close_code(code: int) -> bool:
    """Tell whether an endpoint may put the code on the wire (RFC 6455 §7.4, IANA's registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


class FrameDecoder:
    """Turns the bytes of one peer into messages and control frames.

    Not thread-safe: one thread feeds it.

    Args:
        max_message_bytes: the largest payload of one message, fragments added up; else 1009.
        max_fragments: the largest number of frames of one message; else 1009.
        masked: whether the peer must mask its frames, as a client must, or must not, as a server
            (RFC 6455 §5.1); else 1002.

    Attributes:
        failure: what the peer did wrong, with the close code, once it did; nothing is decoded then.
        closed: True once a Close frame has arrived, or was skipped; what follows it is ignored
            (RFC 6455 §5.5.1).
        crumbs: fragments so far that end no message and have less than 126 bytes: frames that cost
            the decoder as much as a message each. Whoever feeds it may set it back.
    """

    __slots__ = (
        "_final",
        "_fragments",
        "_key_bytes",
        "_left",
        "_mask",
        "_max_fragments",
        "_max_message_bytes",
        "_message",
        "_opcode",
        "_skipped",
        "_tail",
        "_utf8",
        "closed",
        "crumbs",
        "failure",
    )

    def __init__(self, max_message_bytes: int, max_fragments: int, *, masked: bool = True) -> None:
        self._key_bytes = 4 if masked else 0
        self._max_message_bytes = max_message_bytes
        self._max_fragments = max_fragments
        self.failure: ProtocolError | None = None
        self.closed = False
        self.crumbs = 0
        # An incomplete header, a control frame that is not all here, or what could not be decoded.
        self._tail = b""
        self._skipped = 0  # frames that were skipped
        # The message in progress; `_opcode` is 0 between messages.
        self._opcode = 0
        self._message: bytearray | None = None
        self._fragments = 0
        self._utf8: codecs.IncrementalDecoder | None = None
        # The data frame in progress: payload bytes still to come, its mask turned to the next byte.
        self._left = 0
        self._final = False
        self._mask = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the (opcode, payload) of everything that is complete now, in order of arrival.

        A TEXT payload is valid UTF-8, a CLOSE payload a valid one. Fragments are joined.
        """
        events: list[tuple[int, bytes]] = []
        if self.failure is not None or self.closed:
            return events
        if self._tail:
            data = self._tail + data
            self._tail = b""
        try:
            self._decode(data, events)
        except ProtocolError as error:
            self.failure = error
            self._message = None
        return events

    def needed(self, least: int) -> int:
        """Return how many bytes the message in progress may need in memory until it is whole; 0 if
        that is not more than `least` as far as is known, or there is none."""
        message = self._message
        if message is None:
            return 0
        size = len(message) + self._left
        if size <= least:
            return 0
        # The size of its other fragments is not known.
        return size if self._final else self._max_message_bytes

    def received(self) -> int:
        """Return how many bytes of the message in progress have come. Any thread."""
        message = self._message
        return 0 if message is None else len(message)

    def forget(self) -> None:
        """Let go of the message in progress: nothing is fed any more, and no thread is in
        ``feed``."""
        self._message = None
        self._utf8 = None

    def skip(self, data: bytes) -> bool:
        """Skip what arrives of a peer whose messages nobody wants any more, and what could not be
        decoded; return whether its Close has arrived.

        A frame is skipped by its length alone, whatever is wrong with it. After `MAX_SKIPPED` of
        them no Close is found any more: each costs as much as a message.
        """
        if self.closed or self._skipped > MAX_SKIPPED:
            return self.closed
        data = self._tail + data
        self._tail = b""
        position = 0
        while self._skipped <= MAX_SKIPPED:
            step = min(self._left, len(data) - position)
            self._left -= step
            position += step
            if self._left or position == len(data):
                break
            size, payload_bytes = _measure(data[position : position + MAX_HEADER_BYTES])
            if not size:
                self._tail = data[position:]
                break
            if data[position] & 0x0F == CLOSE:
                self.closed = True
                break
            self._left = size + payload_bytes
            self._skipped += 1
        return self.closed

    def _decode(self, data: bytes, events: list[tuple[int, bytes]]) -> None:
        position = 0
        end = len(data)
        from_bytes = int.from_bytes
        limit = self._max_message_bytes
        try:
            while position < end:
                if self._left:
                    position = self._take_payload(data, position, events)
                    continue
                # The fast path: whole, unfragmented, masked messages. Whatever is not one, or is
                # wrong, is left to the rest.
                if self._key_bytes and not self._opcode:
                    while end - position >= 6:
                        first = data[position]
                        length = data[position + 1] - MASKED
                        start = position + 6
                        if not 0 <= length < 126:
                            if length != 126 or end - position < 8:
                                break
                            length = data[position + 2] << 8 | data[position + 3]
                            start = position + 8
                            if length < 126:
                                break
                        stop = start + length
                        if stop > end or length > limit or (first != 0x81 and first != 0x82):
                            break
                        key = data[start - 4 : start] * ((length + 3) >> 2)
                        payload = (
                            from_bytes(data[start:stop], "little")
                            ^ from_bytes(key[:length], "little")
                        ).to_bytes(length, "little")
                        if first == 0x81:
                            if not payload.isascii():
                                _check_utf8(payload)
                            events.append((TEXT, payload))
                        else:
                            events.append((BINARY, payload))
                        position = stop
                    if position == end:
                        return
                header_end = self._start_frame(data, position, events)
                if header_end < 0:
                    self._tail = data[position:]
                    return
                if self.closed:
                    return
                position = header_end
        except ProtocolError:
            self._tail = data[position:]
            raise

    def _start_frame(self, data: bytes, position: int, events: list[tuple[int, bytes]]) -> int:
        """Check one header (and take a whole control frame); return where to go on, -1 for
        "more"."""
        available = len(data) - position
        first = data[position]
        # Everything that one byte can get wrong is refused without waiting for the second.
        if first & 0x70:
            raise ProtocolError(1002, "reserved bits are set")
        opcode = first & 0x0F
        final = first >= FIN
        if opcode > PONG or BINARY < opcode < CLOSE:
            raise ProtocolError(1002, "unknown opcode")
        if opcode >= CLOSE and not final:
            raise ProtocolError(1002, "fragmented control frame")
        if opcode == CONTINUATION and not self._opcode:
            raise ProtocolError(1002, "continuation of nothing")
        if TEXT <= opcode <= BINARY and self._opcode:
            raise ProtocolError(1002, "new message inside a fragmented one")
        if available < 2:
            return -1
        second = data[position + 1]
        key_bytes = self._key_bytes
        if (second >= MASKED) != bool(key_bytes):
            raise ProtocolError(1002, f"frame is {'not ' if key_bytes else ''}masked")
        length = second & ~MASKED
        if opcode >= CLOSE:
            if length > MAX_CONTROL_BYTES:
                raise ProtocolError(1002, "control frame is too long")
            start = position + 2 + key_bytes
            stop = start + length
            if stop > len(data):
                return -1
            mask = data[position + 2 : start]
            self._take_control(opcode, _unmask(data[start:stop], mask), events)
            return stop
        start = position + 2
        if length == 126:
            if available < 4:
                return -1
            length = int.from_bytes(data[start : start + 2], "big")
            start += 2
            if length < 126:
                raise ProtocolError(1002, "length is not in its shortest form")
        elif length == 127:
            if available < 10:
                return -1
            length = int.from_bytes(data[start : start + 8], "big")
            start += 8
            if length >> 63:
                raise ProtocolError(1002, "most significant bit of the length is set")
            if length < 0x10000:
                raise ProtocolError(1002, "length is not in its shortest form")
        so_far = len(self._message) if self._message is not None else 0
        if so_far + length > self._max_message_bytes:
            raise ProtocolError(1009, f"message has more than {self._max_message_bytes} bytes")
        if self._fragments >= self._max_fragments:
            raise ProtocolError(1009, f"message has more than {self._max_fragments} fragments")
        if len(data) < start + key_bytes:
            return -1
        if opcode:
            self._opcode = opcode
            self._message = bytearray()
            self._utf8 = _new_utf8_decoder() if opcode == TEXT else None
        self._fragments += 1
        self._mask = data[start : start + key_bytes]
        self._left = length
        self._final = final
        if length < 126 and not final:
            self.crumbs += 1
        if not length:
            self._end_frame(events)
        return start + key_bytes

    def _take_payload(self, data: bytes, position: int, events: list[tuple[int, bytes]]) -> int:
        """Take what is there of the data frame in progress; return where it ends."""
        stop = min(position + self._left, len(data))
        piece = _unmask(data[position:stop], self._mask)
        if self._utf8 is not None:
            # Decoding piece by piece finds a bad byte as soon as it is here (RFC 6455 §8.1).
            try:
                self._utf8.decode(piece)
            except UnicodeDecodeError:
                raise ProtocolError(1007, "text is not UTF-8") from None
            # Python waits for the third byte of a surrogate before it says that there is none.
            pending = self._utf8.getstate()[0]
            if len(pending) == 2 and pending >= b"\xed\xa0" and pending[0] == 0xED:
                raise ProtocolError(1007, "text is not UTF-8")
        assert self._message is not None
        self._message += piece
        if len(piece) == self._left:
            self._end_frame(events)
        # Last: `skip` goes on at the piece if there is something wrong with it.
        self._left -= len(piece)
        if self._left:
            turn = len(piece) & 3  # of no effect where there is no mask
            self._mask = self._mask[turn:] + self._mask[:turn]
        return stop

    def _end_frame(self, events: list[tuple[int, bytes]]) -> None:
        if not self._final:
            return
        if self._utf8 is not None:
            try:
                self._utf8.decode(b"", True)
            except UnicodeDecodeError:
                raise ProtocolError(1007, "text is not UTF-8") from None
        assert self._message is not None
        events.append((self._opcode, bytes(self._message)))
        self._message = None
        self._utf8 = None
        self._opcode = 0
        self._fragments = 0

    def _take_control(self, opcode: int, payload: bytes, events: list[tuple[int, bytes]]) -> None:
        if opcode == CLOSE:
            if len(payload) == 1:
                raise ProtocolError(1002, "close payload of one byte")
            if payload and not is_sendable_close_code(int.from_bytes(payload[:2], "big")):
                raise ProtocolError(1002, "close code is not allowed")
            _check_utf8(payload[2:])
            self.closed = True
        events.append((opcode, payload))


def _unmask(data: bytes, mask: bytes) -> bytes:
    if not mask:
        return data
    # One exclusive-or of two big integers: about 30 times a loop over the bytes.
    length = len(data)
    key = (mask * ((length + 3) >> 2))[:length]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(
        length, "little"
    )


def _measure(start: bytes) -> tuple[int, int]:
    """Return the bytes of the header of a frame that begins so, and of its payload; (0, 0) for
    "more"."""
    if len(start) < 2:
        return 0, 0
    masked, length = start[1] >= MASKED, start[1] & ~MASKED
    size = 2
    if length > MAX_CONTROL_BYTES:
        size += 2 if length == 126 else 8
        length = int.from_bytes(start[2:size], "big")
    if len(start) < size:
        return 0, 0
    return size + 4 * masked, length


def _check_utf8(payload: bytes) -> None:
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError(1007, "text is not UTF-8") from None
