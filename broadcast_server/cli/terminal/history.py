"""What a user has typed, kept between runs.

A file of one line for each entry, the newest last, in the state folder of the XDG Base Directory
Specification. Only its user can read it. Several terminals may append to it at once; one that
begins cuts it down when it has become twice as long as it may be.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import stat
import tempfile
from collections.abc import Mapping

MAX_ENTRIES = 1000
# What is longer was pasted, and is not kept.
MAX_ENTRY_CHARACTERS = 4000
# No more than this is read, however long the file is: twice as many entries, all as long as may be.
MAX_FILE_BYTES = 2 * MAX_ENTRIES * (4 * MAX_ENTRY_CHARACTERS + 1)


def default_path(environ: Mapping[str, str]) -> pathlib.Path:
    """Return where the file is: ``$XDG_STATE_HOME/broadcast-server/history``."""
    folder = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(folder):  # which the specification says to ignore
        folder = os.path.join(os.path.expanduser("~"), ".local", "state")
    return pathlib.Path(folder) / "broadcast-server" / "history"


class HistoryFile:
    """The file. Not thread-safe within a process.

    What cannot be read or written is left out: nobody's conversation ends for that.

    Args:
        path: of the file; it and its folder need not be there.

    Attributes:
        failure: why the file could not be read or written, None if it could.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.failure: str | None = None

    def load(self) -> list[str]:
        """Return the entries, the oldest first."""
        try:
            if not self._path.is_file():
                return []
            with open(self._path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - MAX_FILE_BYTES))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            self._fail(error)
            return []
        lines = text.split("\n")
        entries = [line for line in lines if line and len(line) <= MAX_ENTRY_CHARACTERS]
        if len(entries) > 2 * MAX_ENTRIES or size > MAX_FILE_BYTES:
            try:
                self._rewrite(entries[-MAX_ENTRIES:])
            except OSError as error:
                self._fail(error)
        return entries[-MAX_ENTRIES:]

    def append(self, entry: str) -> None:
        """Keep an entry; one that is no line, or too long, is left out."""
        if not entry or "\n" in entry or len(entry) > MAX_ENTRY_CHARACTERS:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                # Whoever has made it. A link to /dev/null keeps nothing, and is not ours to change.
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    os.fchmod(descriptor, 0o600)
                data = (entry + "\n").encode("utf-8", "replace")
                if os.write(descriptor, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)
        except OSError as error:
            self._fail(error)

    def _rewrite(self, entries: list[str]) -> None:
        """Put a shorter file in place of the old one, in one step."""
        # mkstemp makes a file that only its user can read.
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix="history-")
        try:
            with open(descriptor, "wb") as file:
                file.write("".join(f"{entry}\n" for entry in entries).encode("utf-8", "replace"))
            os.replace(name, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

    def _fail(self, error: OSError) -> None:
        self.failure = f"{self._path}: {error.strerror or error}"
