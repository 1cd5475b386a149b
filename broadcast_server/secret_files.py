"""Files with secrets in them: tokens, one in each line, and keys.

Whoever reads one says what is wrong with it by name, never by what is in it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import AccessError
from .records import get_logger

logger = get_logger("broadcast_server.access")

MAX_FILE_BYTES = 64 * 1024


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return what is in a file.

    Raises:
        AccessError: it cannot be read, or nothing is in it.
    """
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise AccessError(f"cannot read {name}: {why}") from None
    if len(data) > MAX_FILE_BYTES:
        raise AccessError(f"{name} has more than {MAX_FILE_BYTES} bytes")
    if not data.strip():
        raise AccessError(f"{name} is empty")
    if stat.S_ISREG(mode) and mode & stat.S_IROTH and b"PUBLIC KEY" not in data:
        logger.warning("every user of this machine can read %s: chmod o= would mend it", name)
    return data


def read_tokens(
    value: str | None, path: str | os.PathLike[str] | None, name: str
) -> tuple[bytes, ...]:
    """Return the tokens of a setting or of a file, which has one in each line.

    Args:
        value: the setting; None for none.
        path: the file, which wins; None for none.
        name: what the setting is called.

    Raises:
        AccessError: there is none, or it cannot be one.
    """
    if value is None and path is None:
        return ()
    if path is not None:
        name = os.fspath(path)
        lines = [line.strip() for line in read_file(path).splitlines()]
    else:
        assert value is not None
        lines = [value.encode("ascii")]  # the settings have looked at it
    found = tuple(line for line in lines if line)
    if not found:
        raise AccessError(f"{name} is empty")
    # Others could not be shown in a header line.
    if not all(33 <= byte <= 126 for line in found for byte in line):
        raise AccessError(f"{name}: a token consists of visible ASCII characters")
    return found


def read_first_token(path: str | os.PathLike[str]) -> str:
    """Return the first token of a file, for a client that shows it.

    Raises:
        AccessError: there is none.
    """
    return read_tokens(None, path, "token")[0].decode("ascii")
