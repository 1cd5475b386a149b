"""A hub's life: started, drained, stopped, by any thread and more than one of them.

The hub runs the accept loop on one thread, the fan-out on another, and each client's reader on one
more. All of them are daemons; whatever still runs at the interpreter's exit is stopped there. The
parts of one run are in ``hub/run.py``; here is decided which thread ends it, and who waits for that.
"""

from __future__ import annotations

import abc
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from .. import exits
from ..errors import HubStopped, UsageError
from ..rules import MAX_SECONDS
from ..settings import Settings
from .core import Core
from .http.access import is_loopback
from .run import Run
from .server import HubServer

logger = logging.getLogger("broadcast_server.hub")

Hub = TypeVar("Hub", bound="HubLife")


class HubLife(abc.ABC):
    """What begins and ends. All methods may be called from any thread, also in callbacks.

    Args:
        settings: the hub's limits and times.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._begin_empty()

    @abc.abstractmethod
    def _make_run(self) -> Run:
        """Make the parts of a run.

        Raises:
            OSError: the address cannot be listened on.
        """

    @property
    @abc.abstractmethod
    def urls(self) -> tuple[str, ...]:
        """The URL of the lobby at each address."""

    def _begin_empty(self) -> None:
        """Be a hub that does not run. Also in a forked child at its first start: what it has
        inherited may be locked by threads that it does not have."""
        self._pid = os.getpid()
        # Guards _run, _stopper and the step from one state to the next. Taken before every other
        # lock; never held while waiting for a name or a thread's end.
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._stopper: threading.Thread | None = None  # who is at work in stop()
        self._stopped = threading.Event()  # set while nothing runs
        self._stopped.set()

    def start(self: Hub) -> Hub:
        """Listen and serve on threads of the hub's own; return the hub.

        A hub that has stopped may be started again; it begins empty.

        Raises:
            OSError: the address cannot be listened on.
            AccessError: a file of tokens or a key cannot be used.
            TlsError: the certificate or its key cannot be used.
            UsageError: it runs already.
        """
        if self._pid != os.getpid():
            self._begin_empty()
        if self._run is not None:
            raise UsageError("the hub runs already")
        # Without the lock, which stop() needs: to look up a name may take long.
        run = self._make_run()
        try:
            with self._lock:
                if self._run is not None:  # another thread was faster
                    raise UsageError("the hub runs already")
                run.begin()
                self._run = run
                self._stopper = None
                self._stopped.clear()
                _running.add(self)
            self._announce(run)
        except BaseException:
            if self._run is run:
                # Ctrl-C: who does not enter the `with` does not leave it either.
                self.stop(0.0)
            else:
                run.abandon()
            raise
        return self

    def _announce(self, run: Run) -> None:
        settings = self._settings
        if settings.switch_interval is not None:
            sys.setswitchinterval(settings.switch_interval)
        urls = ", ".join(self.urls)
        logger.info("listening on %s", urls)
        if run.core.authorize is None and not all(map(is_loopback, run.server.addresses)):
            logger.warning(
                "no access control: anyone who can reach %s may read and write every room", urls
            )

    def serve_forever(self) -> None:
        """Start if need be, then block until ``stop()`` is called elsewhere.

        Raises:
            OSError, AccessError, TlsError: as for ``start``.
        """
        if self._run is None or self._pid != os.getpid():
            self.start()
        # In pieces: on some systems a wait without an end keeps signals from being handled.
        while not self._stopped.wait(1.0):
            pass

    def stop(self, timeout: float | None = None) -> None:
        """Say goodbye and end everything that ``start`` began.

        Nobody is admitted any more, what was accepted is flushed, each client gets Close 1001 and
        may answer; then the connections are closed. Called in a callback it does not wait for the
        callback's own thread; if another thread is stopping the hub already, it does not wait
        there at all. Does nothing if the hub does not run, or not yet.

        Not for a signal handler, which may have interrupted the very code that holds a lock: set an
        event there, or use the command. An exception in here, such as a second Ctrl-C, ends
        everything at once.

        Args:
            timeout: seconds for all of it, default ``stop_timeout``; it returns within one more
                second.
        """
        timeout = _bounded(self._settings.stop_timeout if timeout is None else timeout)
        self._finish(timeout, lambda run: None, hurry=True)

    def drain(self, timeout: float | None = None, *, restart: bool = False) -> None:
        """Stop without sending a herd of clients away at the same moment; return when it is done.

        At once ``/healthz`` is answered 503; after ``drain_delay`` newcomers and publishers over
        HTTP are, too. More than 100 clients are told to go at random times within
        ``drain_seconds``, but in no longer time than 200 a second need; messages go on between
        those who are still there, and ``broadcast`` goes on to them. Then it is a ``stop``.

        Everything that was accepted before a client's goodbye is sent to that client. Called in a
        callback it tells that client first, and blocks its thread. ``stop()`` in another thread
        makes a drain say all its goodbyes at once; a second drain waits for the first. Does nothing
        if the hub does not run.

        Not for a signal handler, as ``stop``; an exception in here ends everything at once.

        Args:
            timeout: seconds for all of it, default ``drain_delay`` + ``drain_seconds`` +
                ``stop_timeout``; given less, all three get shorter. It returns within one more
                second.
            restart: close with 1012 and the reason ``since=<id>``, from where a client goes on,
                instead of 1001.
        """
        settings = self._settings
        delay, seconds = settings.drain_delay, settings.drain_seconds
        usual = delay + seconds + settings.stop_timeout
        timeout = _bounded(usual if timeout is None else timeout)
        share = min(1.0, timeout / usual) if usual else 1.0
        # What of its time the first two parts do not need is not the third one's.
        self._finish(
            timeout - (delay + seconds) * share,
            lambda run: run.drain(delay * share, seconds * share, restart),
            bound=timeout,
        )

    def reload(self) -> bool:
        """Read the files anew that the hub was given, such as certificates and tokens.

        Nobody is disconnected by it. What cannot be read stays as it was, and is logged. Where
        nothing can be read anew it does nothing. Of calls at the same time each does all of it.

        Returns:
            Whether all of it could be read.

        Raises:
            HubStopped: the hub does not run.
        """
        return self._serving_run().reload()

    def _finish(
        self,
        stop_seconds: float,
        begin: Callable[[Run], None],
        *,
        hurry: bool = False,
        bound: float | None = None,
    ) -> None:
        """Do what ``begin`` does, then end the run; or leave both to the thread that is at it.

        Args:
            stop_seconds: the time for the end.
            begin: what comes before it.
            hurry: the thread that is at it is not to take its time.
            bound: how long to wait for that thread, default ``stop_seconds``.
        """
        if self._pid != os.getpid():
            return  # before the lock, which a forked child may have inherited locked
        current = threading.current_thread()
        run: Run | None = None
        first = False
        try:
            with self._lock:
                run = self._run
                if run is None:
                    return
                first = self._stopper in (None, current)
                if first:
                    self._stopper = current
            if hurry:
                run.hurry(time.monotonic() + stop_seconds)
            if first:
                begin(run)
                self._end(run, time.monotonic() + stop_seconds)
            # The one who stops waits for the callbacks: none of them may wait for it.
            elif run.server.is_session():
                run.leave_own()
            else:
                self._stopped.wait((stop_seconds if bound is None else bound) + 0.5)
        except BaseException:
            if first and run is not None:
                self._end(run, time.monotonic())
            raise
        finally:
            # If that was interrupted, too, the next call does it, at exit at the latest.
            if first:
                with self._lock:
                    if self._stopper is current:
                        self._stopper = None

    def _end(self, run: Run, deadline: float) -> None:
        run.end(deadline)
        with self._lock:
            if self._run is run:
                self._run = None
                _running.discard(self)
                # Under the lock: what starts next must not be taken for stopped.
                self._stopped.set()
        logger.info("stopped")

    def __enter__(self: Hub) -> Hub:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- Inside --------------------------------------------------------------------------------

    @property
    def _core(self) -> Core | None:
        run = self._run
        return run.core if run is not None else None

    @property
    def _server(self) -> HubServer | None:
        run = self._run
        return run.server if run is not None else None

    def _running_parts(self) -> tuple[Core, HubServer]:
        run = self._serving_run()
        return run.core, run.server

    def _serving_run(self) -> Run:
        run = self._run
        # A forked child has this object, but none of the threads.
        if run is None or self._pid != os.getpid():
            raise HubStopped("the hub does not run")
        if not run.is_serving:
            raise HubStopped("the hub is stopping")
        return run


def _bounded(seconds: float) -> float:
    """Return a time-out that the system can wait for."""
    return min(max(0.0, seconds), MAX_SECONDS)


_running: weakref.WeakSet[HubLife] = weakref.WeakSet()


def _stop_all() -> None:
    for hub in list(_running):
        hub.stop()


exits.at_exit(exits.HUBS, _stop_all)
