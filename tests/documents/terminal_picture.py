"""Makes the README's picture of a terminal, ``docs/images/terminal.svg``: part of ``make
screenshots``.

A hub, a real tmux with the command in it, and others who talk; what the window then shows, with its
colours, becomes an SVG. Nothing in it is drawn by hand. The times in it are those of the day on
which it is made.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from broadcast_server import BroadcastClient, publish

from ..support import ROOT, running_hub
from ..support.tmux import terminal

COLUMNS, ROWS = 76, 15
PICTURE = ROOT / "docs" / "images" / "terminal.svg"

# Pixels of one character, and of the border.
WIDTH, HEIGHT, BORDER = 8.4, 19, 14
FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
PAPER, INK = "#16181d", "#d5d9e0"
# Of the 256 colours the 6 x 6 x 6 cube and the greys, as xterm has them.
STEPS = (0, 95, 135, 175, 215, 255)

_SGR = re.compile(r"\x1b\[([0-9;]*)m")


def colour(number: int) -> str:
    """Return one of the 256 colours from 16 on as #rrggbb."""
    if number >= 232:
        grey = 8 + 10 * (number - 232)
        return f"#{grey:02x}{grey:02x}{grey:02x}"
    red, rest = divmod(number - 16, 36)
    green, blue = divmod(rest, 6)
    return f"#{STEPS[red]:02x}{STEPS[green]:02x}{STEPS[blue]:02x}"


class Style:
    """What the escape sequences have said so far."""

    def __init__(self) -> None:
        self.ink = INK
        self.bold = self.reverse = False

    def take(self, numbers: list[int]) -> None:
        """Change with one sequence (ECMA-48 §8.3.117, and xterm's 38;5)."""
        rest = iter(numbers or [0])
        for number in rest:
            if number == 0:
                self.__init__()  # type: ignore[misc]
            elif number in (1, 22):
                self.bold = number == 1
            elif number in (7, 27):
                self.reverse = number == 7
            elif number == 39:
                self.ink = INK
            elif number == 49:
                pass  # the paper is never coloured
            elif number == 38 and next(rest) == 5:
                self.ink = colour(next(rest))
            else:
                raise ValueError(f"an escape sequence that this script does not know: {number}")


def pieces(line: str, style: Style) -> Iterator[tuple[str, str, bool, bool]]:
    """Yield (text, colour, bold, reverse) of a line; the style goes on in the next one."""
    place = 0
    for found in _SGR.finditer(line):
        if found.start() > place:
            yield line[place : found.start()], style.ink, style.bold, style.reverse
        style.take([int(number or 0) for number in found[1].split(";")])
        place = found.end()
    if place < len(line):
        yield line[place:], style.ink, style.bold, style.reverse


def draw(lines: list[str]) -> str:
    """Return the SVG of the lines of a terminal."""
    wide, high = COLUMNS * WIDTH + 2 * BORDER, len(lines) * HEIGHT + 2 * BORDER
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {high:g}" width="{wide:g}"'
        f' height="{high:g}" role="img" aria-label="broadcast-server connect in a terminal">',
        f'<rect width="{wide:g}" height="{high:g}" rx="8" fill="{PAPER}"/>',
        f'<g font-family="{html.escape(FONT)}" font-size="14">',
    ]
    style = Style()
    for row, line in enumerate(lines):
        column = 0
        for text, ink, bold, reverse in pieces(line, style):
            x, y = BORDER + column * WIDTH, BORDER + row * HEIGHT
            length = len(text) * WIDTH
            if reverse:
                parts.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{HEIGHT}" '
                    f'fill="{ink}"/>'
                )
            # Other spaces would be joined, and those at the ends be left out.
            shown = html.escape(text).replace(" ", "\N{NO-BREAK SPACE}")
            weight = ' font-weight="bold"' if bold else ""
            parts.append(
                f'<text x="{x:.1f}" y="{y + 14}" textLength="{length:.1f}" '
                f'fill="{PAPER if reverse else ink}"{weight}>{shown}</text>'
            )
            column += len(text)
    return "\n".join([*parts, "</g>", "</svg>", ""])


def main() -> None:
    """Make the picture."""
    with running_hub() as hub, terminal(COLUMNS, ROWS) as ann:
        room = hub.url + "release"
        publish(room, "build 4711 is green", name="ci")
        with (
            BroadcastClient(room, name="bea") as bea,
            BroadcastClient(room, name="cem", presence=True) as cem,
        ):
            ann.start(f"broadcast-server connect {room} --name ann", "connected")
            bea.publish("good morning! who has the notes?")
            ann.wait_for("the notes?")
            ann.type("cem has, I think\n")
            ann.wait_for("I think")
            cem.publish("here you are:\n- TLS for hubs and clients\n- this terminal client")
            ann.wait_for("| - this terminal client")
            publish(room, "\x1b[2J\u202eevil\u202c deploys to staging", name="deploy.sh")
            ann.wait_for("staging")
            ann.type("thanks, I shall read them and ")
            bea.publish("@ann: it begins at ten")
            ann.wait_for("at ten")
            ann.wait_for("1 new")
            PICTURE.write_text(draw(ann.screen(styles=True)), encoding="utf-8")
            ann.key("C-c")


if __name__ == "__main__":
    main()
