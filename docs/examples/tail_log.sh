#!/bin/sh
# Show a growing log on every terminal that joins its room:
#
#     tail_log.sh FILE [ROOM-URL]
#
# and on each desk
#
#     broadcast-server connect ws://HOST:8765/log
#
# or http://HOST:8765/log in a browser.
set -eu

file=${1:?usage: tail_log.sh FILE [ROOM-URL]}
room=${2:-ws://127.0.0.1:8765/log}

# tail -F goes on with the new file after a rotation. While the hub is away, for up to a day, publish
# waits for it and the lines wait in the file. Its exit status is the script's: 1 and 3 may be
# tried again, by a service manager for example, 2 is an address that cannot be one.
tail -n 0 -F -- "$file" | broadcast-server publish --timeout 86400 "$room" -
