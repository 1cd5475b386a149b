"""``broadcast-server who``: the hub's list of rooms and members as a table. Main thread."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

from ...client.http import Answer, exchange, why
from ...escapes import printable
from ...rules import bearer
from ...transport import tls
from ...transport.deadlines import Deadline
from ...wire import urls
from ...wire.json_bounds import Bounds
from ..io import signals, target
from ..io.formats import is_nameless, nameless
from ..io.streams import complain, write_stdout

# How long to wait for the hub's list, and how much of it to take.
WHO_SECONDS = 10.0
WHO_BYTES = 64 * 1024 * 1024
# A hundred thousand members in ten thousand rooms, about.
WHO_BOUNDS = Bounds(4 * 1024 * 1024, 500_000, WHO_BYTES)


def who(values: Mapping[str, Any], sources: Mapping[str, str], url: str | None) -> int:
    """Print who is in which room.

    Args:
        values: the value of each option by its field name.
        sources: as for `start`.
        url: the address of a room, or of a hub without a path; None to make it of host, port and
            room.

    Returns:
        The exit status: 0 printed, 1 there is no such list, 2 for an address that cannot be one.
    """
    signals.end_at_once()
    try:
        destination = target.find("who", values, sources, url)
        parts = urls.split(destination.url)
        shown = destination.url.partition("?")[0]  # a query may have a secret in it
        room = urllib.parse.unquote(parts.path) or None
        query = "" if room is None else f"?room={urllib.parse.quote(room)}"
        deadline = Deadline(WHO_SECONDS)
        headers = bearer(destination.token or urls.parameter(parts, "access_token"))
        context = tls.context_for(destination.url, **destination.trust)
        answer = exchange(
            parts, "GET", f"/-/rooms{query}", headers, None, deadline, WHO_BYTES, context
        )
        text = _who_table(answer, room)
    except target.FAILURES as error:
        return target.tell("who", error)
    except LookupError as error:
        complain("who", f"cannot ask {shown}: {error.args[0]}")
        return 1
    # All the ways in which there may be no whole answer.
    except (OSError, http.client.HTTPException, ValueError) as error:
        hint = target.hint(None, tls.is_untrusted(error))
        complain("who", f"cannot ask {shown}: {why(error, WHO_SECONDS)}{hint}")
        return 1
    return 0 if write_stdout(text) else 1


def _who_table(answer: Answer, room: str | None) -> str:
    """Return the hub's list for a person to read: a line for each room.

    Raises:
        LookupError: it is no such list; the text says what came instead.
    """
    if answer.status != 200:
        raise LookupError(answer.detail() + target.hint(answer.status, False))
    lines = [("ROOM", "COUNT", "MEMBERS")]
    try:
        for entry in answer.fields(WHO_BOUNDS)["rooms"]:
            members = [_who(member) for member in entry["members"]]
            more = int(entry["count"]) - len(members)
            if more > 0:  # the hub lists the first ones only
                members.append(f"and {more} more")
            path = printable(str(entry["room"]))
            lines.append((path, str(int(entry["count"])), ", ".join(members)))
    except (KeyError, TypeError, ValueError):
        raise LookupError("this is no hub: its answer has no rooms") from None
    if len(lines) == 1:
        return f"nobody is in {'any room' if room is None else printable(room)}\n"
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "".join(
        f"{path:{widths[0]}}  {count:>{widths[1]}}  {members}\n" for path, count, members in lines
    )


def _who(member: Mapping[str, Any]) -> str:
    """Return what a member is called in a list; nobody's name makes two of them."""
    name = member["name"]
    if not name:
        return nameless(str(member["id"]))
    name = printable(str(name))
    return json.dumps(name, ensure_ascii=False) if "," in name or is_nameless(name) else name
