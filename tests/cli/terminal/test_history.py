"""What a user has typed, kept between runs."""

from __future__ import annotations

import os
import pathlib
import resource
import stat

import pytest

from broadcast_server.cli.terminal import history
from broadcast_server.cli.terminal.history import MAX_ENTRIES, HistoryFile, default_path


def test_file_is_in_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG Base Directory Specification says; a path that is not absolute does not count."""
    monkeypatch.setenv("HOME", "/home/ann")
    where = pathlib.Path("/home/ann/.local/state/broadcast-server/history")
    assert default_path({}) == where
    assert default_path({"XDG_STATE_HOME": ""}) == where
    assert default_path({"XDG_STATE_HOME": "here"}) == where
    assert default_path({"XDG_STATE_HOME": "/x"}) == pathlib.Path("/x/broadcast-server/history")


def test_entries_come_back(tmp_path: pathlib.Path) -> None:
    """From another run; what is no line or too long is left out."""
    path = tmp_path / "a" / "b" / "history"
    file = HistoryFile(path)
    assert file.load() == []
    for entry in ("one", "", "two\nlines", "x" * 4001, "h\u00f6rst du?", "\ud800"):
        file.append(entry)
    assert HistoryFile(path).load() == ["one", "h\u00f6rst du?", "?"]
    assert file.failure is None


def test_only_the_user_can_read_it(tmp_path: pathlib.Path) -> None:
    """Whatever the umask, and whoever has made the file; also after it was cut down."""
    path = tmp_path / "folder" / "history"
    before = os.umask(0)
    try:
        HistoryFile(path).append("one")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        path.write_text("x\n" * (2 * MAX_ENTRIES + 1))
        path.chmod(0o644)
        HistoryFile(path).append("one")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        HistoryFile(path).load()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_file_is_bounded(tmp_path: pathlib.Path) -> None:
    """It is cut down when it is twice as long as it may be, and the newest entries stay."""
    path = tmp_path / "history"
    file = HistoryFile(path)
    count = 2 * MAX_ENTRIES
    path.write_text("".join(f"{number}\n" for number in range(count)))
    assert file.load() == [str(number) for number in range(count - MAX_ENTRIES, count)]
    assert len(path.read_text().split()) == count
    file.append("last")
    assert file.load()[-1] == "last"
    assert len(path.read_text().split()) == MAX_ENTRIES
    assert os.listdir(tmp_path) == ["history"]


def test_file_of_somebody_who_writes_a_lot_is_bounded(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no entry is not shown, and only the end of the file is read."""
    monkeypatch.setattr(history, "MAX_FILE_BYTES", 10_000)
    path = tmp_path / "history"
    path.write_text("first\n" + "x" * 20_000 + "\nlast\n")
    assert HistoryFile(path).load() == ["last"]
    assert path.read_text() == "last\n"


def test_entry_that_does_not_fit_is_a_failure(tmp_path: pathlib.Path) -> None:
    """The system writes a part of it, and no error, when the disk gets full meanwhile."""
    path = tmp_path / "history"
    file = HistoryFile(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        file.append("too long")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "too l"
    assert file.failure is not None and "No space left" in file.failure


@pytest.mark.parametrize("kind", ["folder", "no folder"])
def test_what_cannot_be_kept_is_no_crash(tmp_path: pathlib.Path, kind: str) -> None:
    """The reason is kept, to be told."""
    path = tmp_path / "history"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text("")
        path = path / "broadcast-server" / "history"
    file = HistoryFile(path)
    assert file.load() == []
    file.append("one")
    assert file.failure is not None and str(path) in file.failure


def test_cutting_down_that_fails_leaves_the_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs nothing that was there."""
    path = tmp_path / "history"
    path.write_text("x\n" * (2 * MAX_ENTRIES + 1))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history.os, "replace", fail)
    file = HistoryFile(path)
    assert len(file.load()) == MAX_ENTRIES
    assert file.failure is not None and "No space left" in file.failure
    assert os.listdir(tmp_path) == ["history"]
    assert len(path.read_text().split()) == 2 * MAX_ENTRIES + 1


def test_what_is_no_file_is_left_as_it_is(tmp_path: pathlib.Path) -> None:
    """A link to a device is the way to keep nothing: its mode is the system's."""
    path = tmp_path / "history"
    reader, terminal = os.openpty()
    try:
        name = os.ttyname(terminal)
        os.chmod(name, 0o620)
        mode = os.stat(name).st_mode
        path.symlink_to(name)
        file = HistoryFile(path)
        file.append("one")
        assert file.load() == []
        assert os.stat(name).st_mode == mode
        assert file.failure is None
    finally:
        os.close(reader)
        os.close(terminal)
