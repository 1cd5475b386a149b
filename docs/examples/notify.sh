#!/bin/sh
# Publish one message to a room, from cron or from any script:
#
#     notify.sh http://HOST:8765/alerts 'the backup has failed'
#
# It is silent if the hub has accepted the message, so that cron sends no mail; else it says why and
# fails. RETRIES=0 makes it try only once.
set -eu

url=${1:?usage: notify.sh ROOM-URL TEXT}
text=${2?usage: notify.sh ROOM-URL TEXT}

# The hub delivers a key once. So curl may try again, also when only the answer was lost.
key=$(cat /proc/sys/kernel/random/uuid)

# What curl says of a try that failed is of interest only if the last one does, too.
said=$(curl --silent --show-error --fail --output /dev/null --max-time 10 \
    --retry "${RETRIES:-5}" --retry-max-time 60 --retry-connrefused --retry-all-errors \
    --header "Idempotency-Key: $key" \
    --header 'Broadcast-Name: cron' \
    --header 'Content-Type: text/plain; charset=utf-8' \
    --data-raw "$text" -- "$url" 2>&1) || {
    status=$?
    printf '%s\n' "$said" >&2
    exit "$status"
}
