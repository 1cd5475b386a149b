"""What names, sessions and tokens may be, with a text for the one who sent them."""

from __future__ import annotations

from typing import Any

import pytest

from broadcast_server import rules
from broadcast_server.errors import UsageError
from broadcast_server.rules import bearer


def test_name_is_checked() -> None:
    """Nothing that could break a line or a terminal; an empty one is none."""
    longest = "\u00fc" * rules.MAX_NAME_CHARACTERS
    assert rules.checked_name(longest) == longest
    assert rules.checked_name("") is None and rules.checked_name(None) is None
    for bad in (longest + "x", "a\nb", "a\x7f", "\u2028", "\ud800"):
        with pytest.raises(ValueError, match=r"^a name has"):
            rules.checked_name(bad)


def test_session_is_checked() -> None:
    """Its form only: whether there is such a session is not for the parser to know."""
    longest = "x" * rules.MAX_SESSION_CHARACTERS
    assert rules.checked_session(longest) == longest
    assert rules.checked_session("") is None and rules.checked_session(None) is None
    for bad in (longest + "x", "a\0"):
        with pytest.raises(ValueError, match=r"^session must be"):
            rules.checked_session(bad)


def test_bearer_is_one_header_line() -> None:
    """What could end the line, or is no ASCII, is refused without being repeated."""
    assert bearer(None) == {} and bearer("a.b-c") == {"Authorization": "Bearer a.b-c"}
    for bad in ("", "a b", "a\r\nX: y", "\u00e9"):
        with pytest.raises(UsageError, match=r"^token must be visible ASCII characters$"):
            bearer(bad)
    wrong: Any = 5
    with pytest.raises(TypeError, match=r"^token must be str or None, not int$"):
        bearer(wrong)
