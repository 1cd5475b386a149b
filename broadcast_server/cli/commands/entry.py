"""From the arguments of the process to its exit status: the command that was asked for is run.

The module of a command is imported only when it is the one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from ... import __version__
from ..io.streams import complain, open_standard_streams, write_stdout
from ..io.target import is_room
from ..options import words
from ..options.parser import Asked, command_first, count_literal, parse, resolve


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's) and return its exit status.

    It takes over the signals and the logging of the process: call it where it is the program, in
    the main thread.
    """
    if os.name != "posix":
        complain("", "the command needs Linux, macOS or another POSIX system")
        return 1
    open_standard_streams()
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # before a command has taken the signals over
        status = 130
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        complain("", "the system gives this process no more threads (ulimit -u, pids.max)")
        status = 1
    return status if write_stdout() else status or 1


def _run(argv: Sequence[str]) -> int:
    command = ""
    try:
        arguments = command_first(argv)
        command = arguments[0]
        given = parse(arguments, __version__)
        literal = count_literal(argv)
        url = take_url(given, literal)
        values, sources = resolve(command, given, os.environ)
    except Asked as asked:
        return 0 if write_stdout(asked.text) else 1
    except ValueError as error:
        complain(command, str(error))
        return 2
    if command == "start":
        from .start import start

        return start(values, sources)
    if command == "connect":
        from .connect import connect

        return connect(values, sources, url)
    if command == "publish":
        from .publish import publish

        return publish(values, sources, url, given.get("words", []), literal)
    if command == "listen":
        from .listen import listen

        return listen(values, sources, given.get("urls", []))
    from .who import who

    return who(values, sources, url)


def take_url(given: dict[str, Any], literal: int = 0) -> str | None:
    """Return the URL among the arguments, None if there is none; what is left of `words` is text.

    Args:
        given: what the parser has found. The words of a message change.
        literal: how many words stand behind ``--``.

    Raises:
        ValueError: the room is given twice.
    """
    apart = not given.keys().isdisjoint(("host", "port", "room"))
    url: str | None = given.get("url")
    # Where there is a text, its first word stands in the place of a URL that is not given.
    has_text = "TEXT" in words.OPERANDS[given["command"]]
    if url is not None and has_text:
        more = given.get("words", [])
        is_text = apart or literal > len(more)
        has_message = bool(more) or "file" in given
        if is_text or not is_room(url, has_text=has_message):
            given["words"] = [url, *more]
            url = None
    for word in [url] if url is not None else given.get("urls", []):
        # A path alone needs host and port.
        if apart and ("room" in given or not word.startswith("/")):
            raise ValueError("give a URL or --host, --port and --room, not both")
    return url
