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

# tail -F goes on with the new file after a rotation. When the hub was away the pipe is made anew;
# what was written meanwhile is in the file only. What others say in the room is not wanted here.
while :; do
    status=0
    tail -n 0 -F -- "$file" | broadcast-server connect "$room" >/dev/null || status=$?
    [ "$status" -ne 2 ] || exit 2 # the address cannot be one
    sleep 1
done
