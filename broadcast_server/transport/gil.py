"""System calls that never wait, made without letting go of the GIL.

Python gives the GIL away around each call into the kernel. A thread that computes takes it then,
and keeps it for the switch interval, 5 ms: the fan-out would pay that for each client of each
message. A send that does not wait takes some microseconds, so it can be made through
``ctypes.PyDLL``, which keeps the GIL. That costs half a microsecond more, so `Sends` does it only
while it is seen that others want the GIL.

Only for plain sockets and pipes, with CPython; everything else goes through the standard library
as before. Errors are those of the standard library. A descriptor's number is asked of the socket
at each call, since the kernel gives the number of a closed one to somebody else.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

Data = bytes | memoryview

# A send neither waits nor raises a signal.
SEND_FLAGS = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)
# What a send that lets go of the GIL may take; and how much longer than that all of them together,
# before the next ones keep it, and for how long they do.
SEND_SECONDS = 0.00003
LOST_SECONDS = 0.001
KEEP_SECONDS = 0.5


class Sender(Protocol):
    """What is asked of something that can be written to: a ``socket.socket`` or a stand-in."""

    def send(self, data: Data, flags: int = 0, /) -> int: ...
    def sendmsg(
        self, buffers: Sequence[Data], ancdata: tuple[()] = ..., flags: int = 0, /
    ) -> int: ...


class _Message(ctypes.Structure):
    """``struct msghdr``. Where ``iovlen`` is an int, as in musl, its padding behind it is 0."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_char_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Calls:
    """The functions of the C library and of CPython.

    Raises:
        AttributeError, OSError, TypeError: there is one that this system does not have.
    """

    def __init__(self) -> None:
        if sys.implementation.name != "cpython" or sys.byteorder != "little":
            raise AttributeError("made for CPython")
        if not sys.platform.startswith("linux"):
            raise AttributeError("made for Linux")  # another `struct msghdr`, no MSG_NOSIGNAL
        library = ctypes.PyDLL(None, use_errno=True)
        # Without `argtypes`, which take as long as the call itself: each argument is an int for a
        # C int, bytes for a pointer, or says its type.
        self.send: Any = library["send"]
        self.sendmsg: Any = library["sendmsg"]
        self.read: Any = library["read"]
        self.poll: Any = library["poll"]
        for function in (self.send, self.sendmsg, self.read):
            function.restype = ctypes.c_ssize_t
        self.get_buffer: Any = ctypes.pythonapi["PyObject_GetBuffer"]
        self.release_buffer: Any = ctypes.pythonapi["PyBuffer_Release"]
        self.address: Any = ctypes.pythonapi["PyBytes_AsString"]
        self.address.restype = ctypes.c_void_p


def _find() -> _Calls | None:
    try:
        return _Calls()
    except (AttributeError, OSError, TypeError, ValueError):
        return None


calls = _find()

# More than a ``Py_buffer`` needs; its first member is the address.
_BUFFER_BYTES = 128
_DRAIN_BYTES = 4096


def send(sock: Sender, data: Data) -> int:
    """Send as ``sock.send`` does with `SEND_FLAGS`."""
    if calls is None or type(sock) is not socket.socket:
        return sock.send(data, SEND_FLAGS)
    if type(data) is bytes:
        sent: int = calls.send(sock.fileno(), data, ctypes.c_size_t(len(data)), SEND_FLAGS)
        return sent if sent >= 0 else _fail()
    with _Address(data) as address:
        sent = calls.send(sock.fileno(), address, ctypes.c_size_t(len(data)), SEND_FLAGS)
        return sent if sent >= 0 else _fail()


class Sends:
    """One thread's sends. They keep the GIL for a while after those that let go of it have taken
    longer than sends take.

    Args:
        clock: returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._keeps_until = 0.0

    def begin(self) -> tuple[bool, float]:
        """Return whether the next sends are to keep the GIL; and until when they may let go of it
        if they take no time at all: ``SEND_SECONDS`` more for each."""
        now = self._clock()
        return now < self._keeps_until, now + LOST_SECONDS

    def keep(self) -> bool:
        """Keep the GIL from now on: sends have taken too long. Returns True."""
        self._keeps_until = self._clock() + KEEP_SECONDS
        return True

    def send(self, sock: Sender, data: Data) -> int:
        """Send as ``sock.send`` does with `SEND_FLAGS`."""
        keeps, limit = self.begin()
        if keeps:
            return send(sock, data)
        sent = sock.send(data, SEND_FLAGS)
        if self._clock() > limit:
            self.keep()
        return sent

    def send_ranges(self, sock: Sender, data: bytes, ranges: Sequence[tuple[int, int]]) -> int:
        """Send parts of some bytes, at most 1,024 of them, as ``sock.sendmsg`` does."""
        keeps, limit = self.begin()
        if keeps:
            return send_ranges(sock, data, ranges)
        sent = _send_ranges(sock, data, ranges)
        if self._clock() > limit:
            self.keep()
        return sent


def send_ranges(sock: Sender, data: bytes, ranges: Sequence[tuple[int, int]]) -> int:
    """Send parts of some bytes, at most 1,024 of them, as ``sendmsg`` does."""
    if calls is None or type(sock) is not socket.socket:
        return _send_ranges(sock, data, ranges)
    address = calls.address(ctypes.py_object(data))
    numbers = [number for start, stop in ranges for number in (address + start, stop - start)]
    message = _Message(iov=struct.pack(f"{len(numbers)}N", *numbers), iovlen=len(ranges))
    sent: int = calls.sendmsg(sock.fileno(), ctypes.byref(message), SEND_FLAGS)
    return sent if sent >= 0 else _fail()


def _send_ranges(sock: Sender, data: bytes, ranges: Sequence[tuple[int, int]]) -> int:
    view = memoryview(data)
    return sock.sendmsg([view[start:stop] for start, stop in ranges], (), SEND_FLAGS)


def drain(descriptor: int) -> None:
    """Read a pipe that does not block until it is empty."""
    if calls is None:
        try:
            while len(os.read(descriptor, _DRAIN_BYTES)) == _DRAIN_BYTES:
                pass
        except BlockingIOError:
            pass
        return
    buffer = ctypes.create_string_buffer(_DRAIN_BYTES)
    while calls.read(descriptor, buffer, ctypes.c_size_t(_DRAIN_BYTES)) == _DRAIN_BYTES:
        pass


def is_readable(descriptor: int) -> bool:
    """Tell whether a descriptor can be read now; so is that of an epoll that has something to
    tell."""
    if calls is None:
        return True  # who looks will see
    asked = struct.pack("ihh", descriptor, select.POLLIN, 0)
    return bool(calls.poll(asked, ctypes.c_ulong(1), 0))


class _Address:
    """The address of a contiguous buffer, for the time of a ``with``."""

    __slots__ = ("_buffer", "_data")

    def __init__(self, data: Data) -> None:
        self._data = data
        self._buffer = ctypes.create_string_buffer(_BUFFER_BYTES)

    def __enter__(self) -> ctypes.c_void_p:
        assert calls is not None
        calls.get_buffer(ctypes.py_object(self._data), self._buffer, 0)
        return ctypes.c_void_p.from_buffer(self._buffer)

    def __exit__(self, *_: object) -> None:
        assert calls is not None
        calls.release_buffer(self._buffer)


def _fail() -> int:
    """Raise what the standard library would have raised."""
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
