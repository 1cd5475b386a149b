"""What a terminal shows of messages and of who comes and goes; no I/O.

Each thing becomes lines, and each line pieces of text with the name of a style, so that whoever
draws them may have colours or not. What others have written is text only: whatever could steer a
terminal, turn the direction of writing, hide, or climb into the lines around it is escaped. A
message of several lines is drawn with a bar before each but the first, so that none of them looks
like the line of somebody else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Sequence

from ...escapes import printable
from ...messages import Gap, Member, Message, Presence
from ..io.formats import is_nameless, nameless

Line = list[tuple[str, str]]  # (style, text)

# A colour that can be read on black and on white: the contrast is 3.7 or more with both. All are
# of the 256 colours that nearly every terminal has.
NAME_COLOURS = (
    "#008700 #0087af #5f5fd7 #875fff #af00d7 #af5f00 #af5f5f #af5faf #d70000 #d7005f #d700af "
    "#878700 #00875f #005fff"
).split()
QUIET_COLOUR = "#767676"
STYLES = {
    "time": QUIET_COLOUR,
    "notice": QUIET_COLOUR,
    "warning": "bold",
    "own": "bold",
    **{f"name{number}": colour for number, colour in enumerate(NAME_COLOURS)},
}

# More of one message floods the screen; `listen` shows it whole.
MAX_LINES = 40
MAX_CHARACTERS = 10_000
# More marks on one character climb over the lines above and below; no language needs so many.
MAX_MARKS = 3
MAX_LISTED = 50

_JOINER, _EMOJI = "\u200d", "\ufe0f"


def visible(text: str) -> str:
    """Return a text of somebody else with everything escaped that is not to be seen as it is.

    A joiner is left between two pictures, which it makes one, and a selector behind one.
    """
    if text.isascii():
        return printable(text)
    shown: list[str] = []
    marks = 0  # on the character before
    for place, character in enumerate(text):
        keep = printable(character) == character
        if unicodedata.category(character) in ("Mn", "Me"):
            marks += 1
            if "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef":
                keep = character == _EMOJI and _is_picture(text, place - 1)
            keep = keep and marks <= MAX_MARKS
        else:
            marks = 0
            if character == _JOINER:
                before = place - (text[place - 1 : place] == _EMOJI)
                keep = _is_picture(text, before - 1) and _is_picture(text, place + 1)
        shown.append(character if keep else ascii(character)[1:-1])
    return "".join(shown)


def called(member: Member | None, *, is_shared: bool = False) -> str:
    """Return what a user sees of who has sent a message: the hub's program is a star.

    Args:
        is_shared: whether somebody else has the same name; then the id is told with it.
    """
    if member is None:
        return "*"
    if not member.name:
        return nameless(member.id)
    name = visible(member.name)
    # Nobody is called nothing, or looks like the hub's program or somebody else.
    if name != name.strip() or name == "*" or is_nameless(name):
        name = f'"{name}"'
    return f"{name} ({visible(member.id)})" if is_shared else name


def is_shared(member: Member | None, members: Iterable[Member]) -> bool:
    """Tell whether somebody else of these has the same name."""
    return (
        member is not None
        and member.name is not None
        and any(other.name == member.name and other.id != member.id for other in members)
    )


def colour_of(member: Member | None) -> str:
    """Return the style of a name: always the same one, here and at others' terminals."""
    if member is None:
        return "notice"
    key = member.name or member.id
    return f"name{zlib.crc32(key.encode('utf-8', 'replace')) % len(NAME_COLOURS)}"


def mentions(text: str, name: str | None) -> bool:
    """Tell whether a name stands in a text, as a word of its own."""
    if not name:
        return False
    return re.search(rf"(?<!\w){re.escape(name.casefold())}(?!\w)", text.casefold()) is not None


def notice(text: str, style: str = "notice") -> Line:
    """Return a line that is not a message; what is others' in it is escaped already."""
    return [(style, f"-- {text}")]


class View:
    """What one terminal shows. It remembers the day of the last line.

    Not thread-safe.

    Args:
        zone: of the times; None for the machine's own.
    """

    def __init__(self, zone: datetime.tzinfo | None = None) -> None:
        self._zone = zone
        self._day: datetime.date | None = None

    def message(
        self,
        message: Message,
        *,
        named: bool,
        own: bool = False,
        members: Iterable[Member] = (),
    ) -> list[Line]:
        """Return the lines of a message.

        Args:
            named: whether the server tells who has sent it.
            own: it is the user's.
            members: who is here.
        """
        moment = message.time
        with contextlib.suppress(OverflowError):  # in the year 1, or 9999
            moment = moment.astimezone(self._zone)
        lines: list[Line] = []
        if self._day != moment.date():
            if self._day is not None or moment.date() != datetime.datetime.now(self._zone).date():
                lines.append(notice(moment.date().isoformat()))
            self._day = moment.date()
        first: Line = [("time", moment.strftime("%H:%M "))]
        if own:
            first.append(("own", f"{called(message.sender) if named else 'you'}: "))
        elif named:
            who = called(message.sender, is_shared=is_shared(message.sender, members))
            first.append((colour_of(message.sender), f"{who}: "))
        body, *rest = _body(message.data)
        first.append(("", body))
        lines.append(first)
        lines += [[("notice", "    | "), ("", text)] for text in rest]
        return lines

    def presence(
        self, event: Presence, own_id: str | None, members: Iterable[Member] = ()
    ) -> list[Line]:
        """Return the lines for who comes, goes or has another name; a mere number is not worth one.

        Args:
            own_id: the user's own id in the hub.
            members: who is here.
        """
        member = event.member
        if member is None:
            return []
        if event.kind == "rename":
            if member.id == own_id:
                return [notice(f"you are now {called(member)}")]
            before = dataclasses.replace(member, name=event.old)
            old = called(before, is_shared=is_shared(before, members))
            return [notice(f"{old} is now {called(member, is_shared=is_shared(member, members))}")]
        who = called(member, is_shared=is_shared(member, members))
        return [notice(f"{who} has {'joined' if event.kind == 'join' else 'left'}")]


def who(members: Sequence[Member], count: int) -> list[Line]:
    """Return the line for who is here."""
    shown = [
        called(member, is_shared=is_shared(member, members)) for member in members[:MAX_LISTED]
    ]
    if count > len(shown):
        shown.append(f"and {count - len(shown)} more")
    return [notice(f"{count} here: {', '.join(shown)}")]


def gap(event: Gap) -> list[Line]:
    """Return the line for messages that are lost."""
    why = {
        "trimmed": "the hub does not hold them any more",
        "restarted": "the hub was started anew",
    }.get(event.reason, f"the hub does not know them: {visible(event.reason)}")
    return [notice(f"messages are missing here: {why}", "warning")]


def columns(words: Sequence[str], width: int, width_of: Callable[[str], int] = len) -> list[Line]:
    """Return the lines that list words one below the other, as a shell lists what Tab has found.

    Args:
        words: as the user would type them.
        width: of the window.
        width_of: how many columns a text takes.
    """
    shown = list(words[:MAX_LISTED])
    widest = max(map(width_of, shown), default=0) + 2
    # Before each line stand three characters, and the last column stays free.
    per_line = max(1, (width - 4 + 2) // widest)
    rows = -(-len(shown) // per_line)
    lines = [
        "".join(word + " " * (widest - width_of(word)) for word in shown[row::rows]).rstrip()
        for row in range(rows)
    ]
    if len(words) > len(shown):
        lines.append(f"and {len(words) - len(shown)} more")
    return [notice(line) for line in lines]


def _body(data: str | bytes) -> list[str]:
    """Return the lines of a message, fit to be shown."""
    if isinstance(data, bytes):
        return [f"[binary message, {len(data)} bytes]"]
    cut = data[:MAX_CHARACTERS].replace("\r\n", "\n").rstrip("\n").split("\n")
    lines = ["\t".join(map(visible, line.split("\t"))) for line in cut[:MAX_LINES]]
    if len(data) > MAX_CHARACTERS or len(cut) > MAX_LINES:
        count = data.replace("\r\n", "\n").rstrip("\n").count("\n") + 1
        size = f"{len(data)} characters" + (f" in {count} lines" if count > 1 else "")
        lines.append(f"[cut off here: the message has {size}]")
    return lines


def _is_picture(text: str, place: int) -> bool:
    """Tell whether an emoji, or the tone of one's skin, stands at a place."""
    if not 0 <= place < len(text):
        return False
    return unicodedata.category(text[place]) == "So" or "\U0001f3fb" <= text[place] <= "\U0001f3ff"
