"""System calls that never wait, made without letting go of the GIL.

Python gives the GIL away around each call into the kernel. A thread that computes takes it then,
and keeps it for the switch interval, 5 ms: the fan-out would pay that for each client of each
message. A send that does not wait takes some microseconds, so it is made through ``ctypes.PyDLL``,
which keeps the GIL.

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
from collections.abc import Callable, Sequence
from typing import Any, Protocol

Data = bytes | memoryview


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


def send_of(sock: Sender) -> Callable[[Data, int], int]:
    """Return what sends on a socket as its own ``send`` does, with flags that have MSG_DONTWAIT
    and MSG_NOSIGNAL in them."""
    if calls is None or type(sock) is not socket.socket:
        return sock.send
    call, size_of, fileno = calls.send, ctypes.c_size_t, sock.fileno

    def send(data: Data, flags: int) -> int:
        if type(data) is bytes:
            sent: int = call(fileno(), data, size_of(len(data)), flags)
            return sent if sent >= 0 else _fail()
        with _Address(data) as address:
            sent = call(fileno(), address, size_of(len(data)), flags)
            return sent if sent >= 0 else _fail()

    return send


def send_ranges(sock: Sender, data: bytes, ranges: Sequence[tuple[int, int]], flags: int) -> int:
    """Send parts of some bytes, at most 1,024 of them, as ``sendmsg`` does."""
    if calls is None or type(sock) is not socket.socket:
        view = memoryview(data)
        return sock.sendmsg([view[start:stop] for start, stop in ranges], (), flags)
    address = calls.address(ctypes.py_object(data))
    numbers = [number for start, stop in ranges for number in (address + start, stop - start)]
    message = _Message(iov=struct.pack(f"{len(numbers)}N", *numbers), iovlen=len(ranges))
    sent: int = calls.sendmsg(sock.fileno(), ctypes.byref(message), flags)
    return sent if sent >= 0 else _fail()


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
