"""``broadcast-server publish``: messages from the arguments, from standard input or a file.

All of it runs on the main thread, and a signal ends it as it ends any program: nothing of it has to
be put in order, and a shell's loop around it stops, too.
"""

from __future__ import annotations

import os
import select
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...client.arguments import checked_name
from ...client.requests import KEY, Poster
from ...errors import PublishFailed, UsageError
from ...wire import urls
from ..io import logs, signals, target
from ..io.streams import CUT_OFF, Lines, complain, is_cut_off, warn

READ_BYTES = 64 * 1024
# What is published as one message; a hub takes far less.
MAX_FILE_BYTES = 256 * 1024 * 1024


class _Unreadable(Exception):
    """Standard input, or a file, cannot be read; the text says why."""


class _Source(NamedTuple):
    """What is published: a file, else lines of standard input, else a text."""

    file: str | None
    from_input: bool
    text: str
    binary: bool


def publish(
    values: Mapping[str, Any],
    sources: Mapping[str, str],
    url: str | None,
    words: Sequence[str],
    literal: int = 0,
) -> int:
    """Publish the words as one message, or the lines of standard input, or a file.

    Args:
        values: the value of each option by its field name.
        sources: what the user would change to change it: ``--option`` or a variable's name.
        url: the room's address; None to make it of host, port and room.
        words: of the message; ``-`` alone stands for standard input.
        literal: how many words, the last ones, stand behind ``--``. They are text.

    Returns:
        The exit status: 0 the hub has accepted everything; 1 there is no hub, or it has refused a
        message, or standard input or the file cannot be read; 2 a value that cannot be; 3 the hub
        does not answer any more, and nobody knows whether it has the last message.
    """
    signals.end_at_once()
    logs.configure(values["log_level"], values["log_format"])
    values = _with_cert_key(values)
    text_hint = "" if values["file"] else target.text_hint(url)
    try:
        if url is not None:
            urls.split(target.completed(url, values["host"]))
    except UsageError as error:
        return target.tell("publish", error, text_hint)
    try:
        checked_name(values["name"])
        _check(values, sources, words)
        wait = target.wait_of(values, sources)
        destination = target.find("publish", values, sources, url)
        poster = Poster(
            destination.url,
            name=values["name"],
            token=destination.token,
            headers=destination.headers,
            trust=destination.trust,
            timeout=values["timeout"],
            wait=wait,
            reconnect=not values["no_reconnect"],
        )
    except target.FAILURES as error:
        return target.tell("publish", error)
    source = _Source(
        None if words else values["file"],
        list(words) == ["-"] and not literal,
        " ".join(words),
        values["binary"],
    )
    key = values["key"] or uuid.uuid4().hex
    number = 0
    try:
        for number, data in _messages(source):
            with target.awaited("publish", destination.url, wait if number <= 1 else 0):
                poster.post(data, f"{key}-{number}" if number else key)
    except PublishFailed as error:
        where = f"line {number}: " if number else ""
        hint = target.hint(error.status, poster.untrusted)
        if error.status is None and number <= 1:
            hint += text_hint
        may = "; it may have been published" if error.maybe_delivered else ""
        complain("publish", f"{where}{error}{hint}{may}")
        return 3 if error.maybe_delivered else 1
    except _Unreadable as error:
        complain("publish", str(error))
        return 1
    finally:
        poster.close()
    return 0


def _with_cert_key(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values with what is meant by ``--key``: beside ``--cert``, a file with a private
    key is that of the certificate, as for the other commands."""
    key = values["key"]
    if key is None or values["cert"] is None or values["cert_key"] is not None:
        return values
    try:
        with open(key, "rb") as file:
            is_cert_key = b"PRIVATE KEY-----" in file.read(READ_BYTES)
    except (OSError, ValueError):
        is_cert_key = False
    return {**values, "cert_key": key, "key": None} if is_cert_key else values


def _check(values: Mapping[str, Any], sources: Mapping[str, str], words: Sequence[str]) -> None:
    """Raise UsageError for what can be seen to be wrong."""
    if words and values["file"] and sources["file"].startswith("-"):
        raise UsageError("give a text or --file, not both")
    if not words and not values["file"]:
        raise UsageError(
            "give a text, or - for the lines of standard input; what looks like a URL is taken for "
            "one, unless --room is given or -- stands before it"
        )
    if not values["timeout"] > 0:
        raise UsageError(f"{sources['timeout']} must be more than 0")
    key = values["key"]
    # Room for a dash and the number of a line.
    if key is not None and not (KEY.fullmatch(key) and len(key) <= 100):
        raise UsageError(f"{sources['key']} must be 1 to 100 visible ASCII characters")
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError("the text is not UTF-8") from None


def _messages(source: _Source) -> Iterator[tuple[int, str | bytes]]:
    """Yield each message with the number of its line, 0 where there are no lines."""
    if source.file is not None:
        yield 0, _file_message(_read_whole(source.file), binary=source.binary)
    elif not source.from_input:
        yield 0, source.text.encode() if source.binary else source.text
    else:
        yield from enumerate(_input_lines(is_text=False) if source.binary else _input_texts(), 1)


# A file.


def _read_whole(name: str) -> bytes:
    """Return what is in a file; ``-`` is standard input."""
    try:
        if name == "-":
            return _bounded(_input_pieces(), "standard input")
        with open(name, "rb") as file:
            return _bounded(iter(lambda: file.read(READ_BYTES), b""), name)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        why = getattr(error, "strerror", None) or error
        raise _Unreadable(f"cannot read {name}: {why}") from None


def _bounded(pieces: Iterator[bytes], name: str) -> bytes:
    found = bytearray()
    for piece in pieces:
        found += piece
        if len(found) > MAX_FILE_BYTES:
            raise _Unreadable(f"{name} has more than {MAX_FILE_BYTES} bytes")
    return bytes(found)


def _file_message(data: bytes, *, binary: bool) -> str | bytes:
    """Return a file as a message: a text where it can be one, without a byte order mark."""
    if binary or b"\0" in data:
        return data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data


# Standard input.


def _input_pieces() -> Iterator[bytes]:
    """Yield what is on standard input as soon as it is there."""
    descriptor = sys.stdin.fileno()
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while True:
        poller.poll()  # whoever shares the stream may have made it non-blocking
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            continue
        except OSError as error:
            raise _Unreadable(f"cannot read standard input: {error.strerror}") from None
        if not data:
            return
        yield data


def _input_lines(*, is_text: bool = True) -> Iterator[bytes]:
    """Yield each line of standard input as soon as it is there."""
    lines = Lines(is_text=is_text)
    try:
        for data in _input_pieces():
            for line in lines.feed(data):
                if is_cut_off(line, sys.stdin.fileno()):
                    raise _Unreadable(f"{CUT_OFF}; --file or a pipe takes it")
                yield line
        yield from lines.end()
    except ValueError as error:
        raise _Unreadable(str(error)) from None


def _input_texts() -> Iterator[str]:
    """Yield each line of standard input as a text."""
    warned = False
    for line in _input_lines():
        try:
            yield line.decode()
        except UnicodeDecodeError:
            if not warned:
                warned = True
                warn("publish", "the input is not UTF-8; bad bytes are replaced")
            yield line.decode(errors="replace")
