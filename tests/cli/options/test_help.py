"""The page that ``COMMAND --help`` shows."""

from __future__ import annotations

from broadcast_server.cli.options.help import page
from broadcast_server.cli.options.option import Option

GROUPS = {
    "where": [
        Option("host ADDRESS", "127.0.0.1", "address of the hub; more of it"),
        Option("name NAME", None, "name " + "of the client " * 6, shown="none"),
        Option("a-rather-long-option FILE", None, "file", shown="nothing"),
        Option("header HEADER", (), "header line", shown="none", letter="H"),
        Option("quick", False, "be quick; or not", shown="off"),
    ],
    "rare": [Option(f"option{number} COUNT", 1, "a number") for number in range(9)],
    "none": [],
}
COMMON = ["host", "name", "a-rather-long-option", "header"]


def shown(width: int) -> list[str]:
    """Return the lines of the page, the ones that are empty left out."""
    text = page(
        "usage: prog", "What it does.", {"URL": "address; more"}, GROUPS, COMMON,
        ["prog --host x"], "See more.", width,
    )  # fmt: skip
    assert text.endswith("See more.\n")
    return [line for line in text.splitlines() if line]


def test_common_options_are_described_by_their_first_phrase() -> None:
    """With the default, if there is one."""
    lines = shown(79)
    assert lines[:2] == ["usage: prog", "What it does."]
    assert "  URL                 address" in lines
    assert "  --host ADDRESS      address of the hub (127.0.0.1)" in lines
    place = lines.index("  --a-rather-long-option FILE")
    assert lines[place + 1] == " " * 22 + "file (nothing)"
    assert "  -H, --header HEADER" in lines
    assert "  prog --host x" in lines


def test_other_options_are_named_under_their_titles() -> None:
    """No option is parted from what stands for its value, and no title has nothing behind it."""
    text = "\n".join(shown(40))
    assert "  where: --quick" in text and "none:" not in text
    for number in range(9):
        assert f"--option{number} COUNT" in text


def test_lines_fit_the_width() -> None:
    """Down to that of a telephone."""
    for width in (45, 60, 79):
        assert max(map(len, shown(width))) <= width
