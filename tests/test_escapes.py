"""What strangers wrote stays text, wherever it is shown."""

from __future__ import annotations

import pytest

from broadcast_server.escapes import printable


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J",
        "\r\n",
        "\u202e",
        "\u2066",
        "\u200b",
        "\ufeff",
        "\u2028",
        "\u3164",
        "\u115f",
        "\u034f",
        "\ud800",
    ],
)
def test_what_nobody_sees_is_escaped(text: str) -> None:
    """Control, direction and no width, one by one; letters of all scripts stay."""
    assert printable(f"a{text}b").isascii() and printable(text).isprintable()
    assert printable("h\u00f6rst \u05d3\u05d5 \u4f60") == "h\u00f6rst \u05d3\u05d5 \u4f60"
    assert printable(printable(text)) == printable(text)
