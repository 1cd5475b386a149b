"""The exceptions: one root, the tree as the module shows it, and what they carry."""

from __future__ import annotations

import inspect
import re

import pytest

from broadcast_server import errors

CLASSES = {name: c for name, c in vars(errors).items() if inspect.isclass(c)}


def test_tree_at_the_top_of_the_module_is_the_real_one() -> None:
    """Each class stands there, one level below its parent."""
    text = inspect.getdoc(errors)
    assert text
    parents: list[str] = []
    seen = {}
    for line in text.splitlines():
        found = re.match(r"^ {4}([│├└─ ]*)(\w+)", line)
        if not found:
            continue
        level = len(found[1]) // 4
        name = found[2]
        parents[level:] = [name]
        seen[name] = parents[level - 1] if level else "Exception"
    assert seen == {name: c.__mro__[1].__name__ for name, c in CLASSES.items()}


@pytest.mark.parametrize("kind", [errors.ProtocolError, errors.ConnectionClosed])
def test_code_and_reason_are_attributes(kind: type[errors.ProtocolError]) -> None:
    """And the text has both."""
    error = kind(1009, "too big")
    assert (error.code, error.reason, str(error)) == (1009, "too big", "1009 too big")


def test_text_of_a_close_without_a_reason_has_no_space_at_its_end() -> None:
    """It is shown to people."""
    assert str(errors.ConnectionClosed(1006)) == "1006"


def test_status_is_none_where_http_did_not_answer() -> None:
    """ConnectFailed has it in any case."""
    assert errors.ConnectFailed("no").status is None
    assert errors.ConnectFailed("no", 404).status == 404


def test_callers_mistakes_are_value_errors() -> None:
    """So that code which knows nothing of us catches them."""
    for name in ("UsageError", "MessageTooBig", "InvalidRoom"):
        assert issubclass(CLASSES[name], ValueError)
