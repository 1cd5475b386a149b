"""Standard input, output and error of the command, and what may be wrong with them."""

from __future__ import annotations

import contextlib
import os
import sys

from . import logs


def complain(command: str, text: str) -> None:
    """Tell the user in one line on standard error what `command` could not do; "" for either."""
    _tell(command, f"error: {text}")


def warn(command: str, text: str) -> None:
    """Tell the user in one line on standard error what is dangerous in what `command` does."""
    _tell(command, f"warning: {text}")


def _tell(command: str, text: str) -> None:
    logs.flush()
    with contextlib.suppress(OSError):
        prog = f"broadcast-server {command}".rstrip()
        print(logs.printable(f"{prog}: {text}"), file=sys.stderr)


def open_standard_streams() -> None:
    """Put /dev/null where standard input, output or error is closed.

    Otherwise the first sockets would get their numbers, and a stray line of text a client.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    sys.stdin = sys.stdin or open(os.devnull)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")


def write_stdout(text: str = "") -> bool:
    """Write a text, and what the stream still holds, to standard output; tell whether it went out.

    If not, whatever follows goes nowhere: nothing that is written later can fail again.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # `| head` knows what it does
            complain("", f"cannot write to standard output: {error.strerror}")
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        return False
    return True
