"""Files with secrets, without a hub; what a hub makes of them is in hub/http/test_keyring.py."""

from __future__ import annotations

import pathlib

import pytest

from broadcast_server.errors import AccessError
from broadcast_server.secret_files import read_file, read_first_token, read_tokens


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """A file that only its owner can read."""
    found = tmp_path / "secret"
    found.touch(0o600)
    return found


def test_file_is_read_as_it_is(path: pathlib.Path) -> None:
    """A key may be any bytes."""
    path.write_bytes(b" \x00key\r\n")
    assert read_file(path) == read_file(str(path)) == b" \x00key\r\n"


def test_file_wins_over_a_setting(path: pathlib.Path) -> None:
    """Empty lines and blanks around a token do not count; without either there is no token."""
    path.write_bytes(b"\n  one \r\ntwo")
    assert read_tokens("three", path, "token") == (b"one", b"two")
    assert read_tokens("three", None, "token") == (b"three",)
    assert read_tokens(None, None, "token") == ()


def test_client_shows_the_first_token(path: pathlib.Path) -> None:
    """The others are those that are about to be taken back, or given out."""
    path.write_bytes(b"\nnew\nold\n")
    assert read_first_token(path) == "new"


def test_error_names_the_file_and_not_what_is_in_it(path: pathlib.Path) -> None:
    """It may end up in a log."""
    path.write_bytes(b"sec\xc3ret")
    with pytest.raises(AccessError) as caught:
        read_first_token(path)
    assert str(path) in str(caught.value) and "ret" not in str(caught.value).replace(str(path), "")


@pytest.mark.parametrize(
    ("mode", "content", "warned"),
    [
        (0o600, b"s", False),
        (0o640, b"s", False),
        (0o604, b"s", True),
        (0o644, b"PUBLIC KEY", False),
    ],
)
def test_file_that_all_can_read_is_warned_of(
    path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    mode: int,
    content: bytes,
    warned: bool,
) -> None:
    """Unless all may know what is in it."""
    path.write_bytes(content)
    path.chmod(mode)
    assert read_file(path) == content
    assert (f"every user of this machine can read {path}" in caplog.text) == warned
