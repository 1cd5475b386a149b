"""``broadcast-server publish``: messages from the arguments or from standard input.

All of it runs on the main thread, and a signal ends it as it ends any program: nothing of it has to
be put in order, and a shell's loop around it stops, too.
"""

from __future__ import annotations

import os
import select
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...client.arguments import checked_name
from ...client.requests import KEY, Poster
from ...errors import PublishFailed, UsageError
from ..io import logs, signals, target
from ..io.streams import Lines, complain, warn

READ_BYTES = 64 * 1024


class _Unreadable(Exception):
    """Standard input cannot be read; the text says why."""


def publish(
    values: Mapping[str, Any], sources: Mapping[str, str], url: str | None, words: Sequence[str]
) -> int:
    """Publish the words as one message, or the lines of standard input.

    Args:
        values: the value of each option by its field name.
        sources: what the user would change to change it: ``--option`` or a variable's name.
        url: the room's address; None to make it of host, port and room.
        words: of the message; ``-`` alone stands for standard input.

    Returns:
        The exit status: 0 the hub has accepted everything; 1 there is no hub, or it has refused a
        message, or standard input cannot be read; 2 a value that cannot be; 3 the hub does not
        answer any more, and nobody knows whether it has the last message.
    """
    signals.end_at_once()
    logs.configure(values["log_level"], values["log_format"])
    try:
        checked_name(values["name"])
        _check(values, sources, words)
        destination = target.find("publish", values, sources, url)
        poster = Poster(
            destination.url,
            name=values["name"],
            token=destination.token,
            headers=destination.headers,
            trust=destination.trust,
            timeout=values["timeout"],
            reconnect=not values["no_reconnect"],
        )
    except target.FAILURES as error:
        return target.tell("publish", error)
    from_input = list(words) == ["-"]
    key = values["key"] or uuid.uuid4().hex
    number = 0
    try:
        if not from_input:
            poster.post(" ".join(words), key)
        else:
            for number, text in enumerate(_input_texts(), 1):
                poster.post(text, f"{key}-{number}")
    except PublishFailed as error:
        where = f"line {number}: " if from_input else ""
        hint = target.hint(error.status, poster.untrusted)
        may = "; it may have been published" if poster.lost else ""
        complain("publish", f"{where}{error}{hint}{may}")
        return 3 if poster.lost else 1
    except _Unreadable as error:
        complain("publish", str(error))
        return 1
    finally:
        poster.close()
    return 0


def _check(values: Mapping[str, Any], sources: Mapping[str, str], words: Sequence[str]) -> None:
    """Raise UsageError for what can be seen to be wrong."""
    if not words:
        raise UsageError("give a text, or - for the lines of standard input; what looks like a URL "
                         "is taken for one, unless --room is given")  # fmt: skip
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


def _input_texts() -> Iterator[str]:
    """Yield each line of standard input as soon as it is there."""
    descriptor = sys.stdin.fileno()
    lines = Lines()
    warned = False
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while True:
        poller.poll()  # whoever shares the stream may have made it non-blocking
        try:
            data = os.read(descriptor, READ_BYTES)
            found = lines.feed(data) if data else lines.end()
        except BlockingIOError:
            continue
        except OSError as error:
            raise _Unreadable(f"cannot read standard input: {error.strerror}") from None
        except ValueError as error:
            raise _Unreadable(str(error)) from None
        for line in found:
            try:
                yield line.decode()
            except UnicodeDecodeError:
                if not warned:
                    warned = True
                    warn("publish", "the input is not UTF-8; bad bytes are replaced")
                yield line.decode(errors="replace")
        if not data:
            return
