"""The request that nearly every client sends: an upgrade in one piece without anything unusual.

It is read here and not by h11. That is not for speed: building an h11 connection on a client's
thread leaves one more page of its stack in memory, 4 of the 20 KiB of an idle client. A test holds
both against each other.
"""

from __future__ import annotations

import re

from .models import MAX_HEADER_LINES, Request

# RFC 9110 §5.6.2 and RFC 9112 §3, narrower than both: no obsolete forms.
_LINE = re.compile(rb"GET (/[!-~]*) HTTP/1\.1")
_NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[ -~]*")
# With one of these there is more to an upgrade request than its headers.
_NOT_PLAIN = frozenset({"content-length", "transfer-encoding", "expect"})


def parse_plain(data: bytes, max_bytes: int) -> tuple[Request, bytes] | None:
    """Read an upgrade request that is whole and without anything unusual.

    Returns:
        The request, as h11 would give it, and the bytes behind it; None to leave it to h11.
    """
    end = data.find(b"\r\n\r\n")
    if not 0 <= end <= max_bytes - 4:
        return None
    first, *lines = data[:end].split(b"\r\n")
    target = _LINE.fullmatch(first)
    if target is None or len(lines) > MAX_HEADER_LINES:
        return None
    headers = []
    hosts = 0
    upgrade = False
    for line in lines:
        raw_name, colon, raw_value = line.partition(b":")
        if not (colon and _NAME.fullmatch(raw_name) and _VALUE.fullmatch(raw_value)):
            return None
        name = raw_name.decode("ascii").lower()
        if name in _NOT_PLAIN:
            return None
        hosts += name == "host"
        upgrade = upgrade or name == "upgrade"
        headers.append((name, raw_value.decode("ascii").strip(" ")))
    if hosts != 1 or not upgrade:
        return None
    request = Request("GET", target[1].decode("ascii"), "1.1", tuple(headers))
    return request, data[end + 4 :]
