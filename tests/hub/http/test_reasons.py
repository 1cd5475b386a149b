"""What the log says of a refusal."""

from __future__ import annotations

import pytest

from broadcast_server.cli.options.tables import START
from broadcast_server.hub import metrics
from broadcast_server.hub.http import reasons
from broadcast_server.hub.http.models import Refusal, Request

REQUEST = Request(
    "POST",
    "/r?access_token=secret",
    "1.1",
    (("host", "hub"), ("origin", "https://x"), ("content-length", "9"), ("authorization", "s3")),
)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("", "no (POST /r)"),
        ("token", "no (POST /r)"),
        ("origin", "no (POST /r; Origin: https://x; Host: hub)"),
        ("host", "no (POST /r; Host: hub)"),
        ("too_big", "no (POST /r; Content-Length: 9; see --max-message-bytes)"),
        ("max_clients", "no (POST /r; see --max-clients)"),
    ],
)
def test_it_names_what_came_and_the_option(reason: str, expected: str) -> None:
    """But no query and no token."""
    assert reasons.for_log(Refusal(403, "no", (), reason), REQUEST) == expected


def test_request_that_could_not_be_read_is_left_out() -> None:
    """Nothing is known of it."""
    assert reasons.for_log(Refusal(400, "no"), None) == "no"
    told = reasons.for_log(Refusal(408, "slow", (), "timeout"), None)
    assert told == "slow (see --handshake-timeout)"


def test_what_is_repeated_is_cut() -> None:
    """Nobody fills the log with one request."""
    request = Request("GET", "/" + "x" * 5000, "1.1", (("origin", "y" * 5000),) * 50)
    told = reasons.for_log(Refusal(403, "no", (), "origin"), request)
    assert len(told) < 300 and "/" + "x" * 78 + "…" in told


def test_every_option_is_one_and_every_reason_is_counted() -> None:
    """The names are those of the command line and of the metric."""
    known = {f"--{option.name}" for options in START.values() for option in options}
    assert set(reasons.OPTIONS.values()) <= known
    assert set(reasons.OPTIONS) | set(reasons.SEEN) <= set(metrics.REFUSALS)
