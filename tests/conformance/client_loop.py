"""``BroadcastClient`` as the suite's testee: it echoes each message until the suite closes.

    python tests/conformance/client_loop.py ws://127.0.0.1:PORT

The suite's server counts its cases at ``/getCaseCount``, runs one at ``/runCase?case=N`` and writes
its report at ``/updateReports``.
"""

from __future__ import annotations

import sys

from broadcast_server import BroadcastClient, BroadcastServerError

AGENT = "broadcast_server"
# Group 9 has messages of 16 MiB.
MAX_MESSAGE_BYTES = 1 << 25
SECONDS = 30.0


def case_count(server: str) -> int:
    """Ask how many cases there are."""
    with BroadcastClient(f"{server}/getCaseCount") as client:
        return int(client.recv(timeout=SECONDS).data)


def run_case(server: str, number: int) -> None:
    """Echo what comes. Most cases break the protocol, so that any end is a good one here."""
    url = f"{server}/runCase?case={number}&agent={AGENT}"
    try:
        with BroadcastClient(url, max_message_bytes=MAX_MESSAGE_BYTES) as client:
            for message in client:
                client.send(message.data)
    except BroadcastServerError as error:
        print(f"case {number}: {error}", flush=True)


def main(server: str) -> None:
    """Run every case."""
    for number in range(1, case_count(server) + 1):
        run_case(server, number)
    with BroadcastClient(f"{server}/updateReports?agent={AGENT}") as client:
        for _ in client:
            pass


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
