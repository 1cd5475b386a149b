"""The hub under test, as a benchmark server.

``max_rate`` is off by default here: the hub's own default of 10,000 messages a second for one
client is a courtesy towards slow listeners and would be all that a one-sender benchmark measures.
"""

from __future__ import annotations

import _common

from broadcast_server import BroadcastHub


def main() -> None:
    parser = _common.parser(__doc__)
    parser.add_argument("--max-rate", type=float, default=0)
    options = parser.parse_args()
    _common.prepare(options)
    hub = BroadcastHub(
        port=0,
        max_rate=options.max_rate,
        ping_interval=options.ping_interval,
        switch_interval=options.switch_interval,
    )
    with hub:
        _common.talk(hub.port, hub.stats)


if __name__ == "__main__":
    main()
