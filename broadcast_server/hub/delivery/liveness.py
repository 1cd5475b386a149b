"""Which clients may stay: heartbeats, deadlines for those that take nothing, tokens that expire.

The ping clock runs only while the reader is blocked in ``recv``: a client whose reader is held
back by back-pressure, its rate or a callback is not dead. Everything here runs on the fan-out's
thread.
"""

from __future__ import annotations

import random
import socket

from ...records import get_logger
from ...settings import Settings
from ...transport.tls_stream import ByteStream
from .connection import Connection
from .timers import NEVER, Timers
from .writer import ClientWriter

logger = get_logger("broadcast_server.hub")

# Between two looks that both find no answer to a ping.
LAST_LOOK_SECONDS = 0.25


def latest_ping(settings: Settings) -> float:
    """Return after how many seconds of silence a client is pinged at the latest."""
    return 1.25 * settings.ping_interval


class Liveness:
    """Looks after the clients of one hub.

    Args:
        settings: the hub's times.
        timers: where a client's next look is kept.
        writer: sends pings and ends connections.
    """

    def __init__(self, settings: Settings, timers: Timers, writer: ClientWriter) -> None:
        self._settings = settings
        self._timers = timers
        self._writer = writer

    def begin(self, connection: Connection) -> None:
        """Start the ping clock of a client that was handed over."""
        due = connection.quiet_since + self._ping_interval()
        self._timers.schedule(connection, min(due, connection.expires))

    def check(self, connection: Connection, now: float) -> None:
        """See to a client's deadlines, and make the next appointment."""
        if connection.dropped:
            return
        if connection.deadline is not None:
            if now >= connection.deadline:
                self._writer.drop(connection)
            else:
                self._timers.schedule(connection, connection.deadline)
            return
        if now >= connection.expires:
            logger.info("the token of %s has expired", connection.member.id)
            self._writer.evict(connection, 1008, "token expired", blamed=False)
            return
        due = min(self._check_heartbeat(connection, now), connection.expires)
        if connection.blocked and connection.deadline is None:
            limit = connection.blocked_since + self._settings.write_timeout
            if now >= limit:
                self._writer.evict_slow(connection)
                return
            due = min(due, limit)
        if not connection.dropped:  # by a ping that could not be sent
            self._timers.schedule(connection, due)

    def _check_heartbeat(self, connection: Connection, now: float) -> float:
        """Ping a client that is quiet, end one that does not answer; return when to look again.

        The clock runs only while the reader is blocked in ``recv``: a client whose reader is held
        back by back-pressure, its rate or a callback is not dead.
        """
        interval = self._settings.ping_interval
        if connection.form.is_stream:
            # Its reader says nothing, ever. What it does not take ends it by the write time-out.
            if not connection.blocked:
                connection.queue_urgent(connection.form.ping())
                self._writer.attend(connection)
            return now + interval
        quiet_since = connection.quiet_since
        if not connection.waiting or connection.blocked:
            return now + interval
        if connection.pinged > quiet_since:
            limit = connection.pinged + self._settings.ping_timeout
            if now < limit:
                # The next ping is due an interval after the answer, and no event tells of that.
                return min(now + interval, limit)
            if _has_input(connection.sock):
                return now + interval  # the pong is here, its reader has not run yet
            if not connection.overdue:
                # Its reader may have the pong and not have run since, as when the whole process
                # was stopped for a while.
                connection.overdue = True
                return now + LAST_LOOK_SECONDS
            logger.info("%s has not answered a ping", connection.member.id)
            self._writer.evict(connection, 1011, "ping timeout")
            return NEVER
        if now < quiet_since + interval:
            return quiet_since + self._ping_interval()
        connection.pinged = now
        connection.overdue = False
        connection.queue_urgent(connection.form.ping())
        self._writer.attend(connection)
        return now + min(interval, self._settings.ping_timeout)

    def _ping_interval(self) -> float:
        # Up to a quarter more, so that clients that came together are not pinged together for ever.
        return random.uniform(self._settings.ping_interval, latest_ping(self._settings))


def _has_input(sock: ByteStream) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
