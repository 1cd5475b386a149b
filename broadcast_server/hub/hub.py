"""``BroadcastHub``: what a program can ask of a hub, from its start to its end.

The hub runs the accept loop on one thread, the fan-out on another, and each client's reader on one
more. All of them are daemons; what still runs at the interpreter's exit is stopped there. The parts
of one run are in ``run.py``. Here is decided which thread ends a run, and who waits for that: the
hub is started, drained and stopped by any thread, and by more than one of them.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from .. import arguments, exits
from ..errors import HubStopped, MessageTooBig, UsageError
from ..messages import Member, Message
from ..records import get_logger
from ..settings import HubSettings, Settings
from ..transport.tls_stream import Certificate
from . import given, system
from .core import Core, Filter
from .http.access import Authorize, is_loopback
from .http.keyring import Keyring
from .http.routes import check_room
from .rooms.entries import Draft, encode, to_message, to_messages
from .run import Run
from .server import HubServer
from .signals import Terminated, Terminations, has_interrupted_us, in_thread

if TYPE_CHECKING:
    # Newer than Python 3.10, and there for type checkers only, which bring it along.
    from typing_extensions import Unpack

logger = get_logger("broadcast_server.hub")

Data = str | bytes
Hub = TypeVar("Hub", bound="BroadcastHub")


class BroadcastHub:
    """A hub that relays each message of a client to all other clients of its room.

    All methods may be called from any thread, also in callbacks. Callbacks run on the reader thread
    of the client that they are about, without a lock: a slow one delays that client only, and what
    one raises is logged. A context manager: it starts on entering and stops on leaving.

    Example::

        with BroadcastHub(port=8765) as hub:
            hub.broadcast("kick-off", room="/scores")

    Args:
        host: the address or name to listen on, or a sequence of them; ``localhost`` is this machine
            over IPv4 and IPv6.
        port: the TCP port, the same on all; 0 for any free one, see ``hub.port``.
        on_message: called with each ``Message`` of a client once it is accepted; not for
            ``broadcast``.
        on_join: called with the ``Member`` that has joined.
        filter: called with each ``Message`` of a client or an HTTP publisher before it has an id,
            on that one's thread; returns it, or other data for it, or None to refuse it.
        on_leave: called with the ``Member`` that has left, the close code and the reason. When a
            client comes back while the hub still holds its old connection, ``on_join`` of the new
            one and ``on_leave`` of the old one (1008), both with the same id, come in any order.
        sockets: TCP sockets that listen already, instead of host and port. They stay the caller's,
            who closes them after the hub has stopped.
        authorize: called with an ``AccessRequest`` before anybody is let in, on that one's thread;
            returns a ``Grant``, or a ``Refusal``, or None for a plain 401. If it raises, the answer
            is 500. Takes the place of the settings of tokens and keys.
        settings: any limit or time in docs/reference/options.md, such as ``max_message_bytes`` or
            ``ping_interval``; and ``token``, ``publish_token``, ``jwt_key``.

    Raises:
        UsageError: a value can never work.
        TypeError: a value has a wrong type, or there is no setting of that name.
    """

    def __init__(
        self,
        host: str | Sequence[str] = "127.0.0.1",
        port: int = 8765,
        *,
        on_message: Callable[[Message], object] | None = None,
        on_join: Callable[[Member], object] | None = None,
        on_leave: Callable[[Member, int, str], object] | None = None,
        filter: Filter | None = None,
        sockets: Sequence[socket.socket] = (),
        authorize: Authorize | None = None,
        **settings: Unpack[HubSettings],
    ) -> None:
        given.check_callables(
            on_message=on_message,
            on_join=on_join,
            on_leave=on_leave,
            filter=filter,
            authorize=authorize,
        )
        self._sockets = given.checked_sockets(sockets)
        if self._sockets:
            self._places = [sock.getsockname()[:2] for sock in self._sockets]
            host, port = [place[0] for place in self._places], self._places[0][1]
        self._port = given.checked_port(port)
        self._hosts: tuple[str, ...] = given.checked_hosts(host)
        self._callbacks = (on_message, on_join, on_leave, filter)
        try:
            self._settings = Settings(**cast(dict[str, Any], settings))
        except TypeError as error:  # an unknown name; that of the class says nothing to the caller
            text = str(error).replace("Settings.__init__()", "BroadcastHub()")
            raise TypeError(text) from None
        if authorize is not None and self._settings.has_secrets:
            raise UsageError("give authorize, or tokens and keys, not both")
        self._authorize = authorize
        self._begin_empty()

    def _begin_empty(self) -> None:
        """Be a hub that does not run. Also in a forked child at its first start: what it has
        inherited may be locked by threads that it does not have."""
        self._pid = os.getpid()
        # Guards _run, _stopper and the step from one state to the next. Taken before every other
        # lock; never held while waiting for a name or a thread's end.
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._stopper: threading.Thread | None = None  # who is at work in stop()
        self._ended: queue.SimpleQueue[bool] | None = None  # serve_forever waits for it
        self._stopped = threading.Event()  # set while nothing runs
        self._stopped.set()

    # -- Life ----------------------------------------------------------------------------------

    def start(self: Hub) -> Hub:
        """Listen and serve on threads of the hub's own; return the hub.

        A hub that has stopped may be started again; it begins empty.

        Raises:
            OSError: the address cannot be listened on.
            AccessError: a file of tokens or a key cannot be used.
            TlsError: the certificate or its key cannot be used.
            UsageError: it runs already, or gevent or eventlet has replaced threads or sockets.
        """
        if self._pid != os.getpid():
            self._begin_empty()
        if self._run is not None:
            raise UsageError("the hub runs already")
        system.check()
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
                self._stop(0.0)
            else:
                run.abandon()
            raise
        return self

    def _announce(self, run: Run) -> None:
        urls = ", ".join(self.urls)
        logger.info("listening on %s", urls)
        if run.core.authorize is None and not all(map(is_loopback, run.server.addresses)):
            logger.warning(
                "no access control: anyone who can reach %s may read and write every room", urls
            )

    def serve_forever(self, *, signals: bool = False) -> None:
        """Start if it does not run, then block until ``stop()`` is called elsewhere.

        Args:
            signals: on the main thread: SIGTERM drains the hub, as ``drain`` does, and a second one
                ends everything at once; then this returns. In the meantime it takes the place of
                the program's own handler. Ctrl-C is ``KeyboardInterrupt`` as ever.

        Raises:
            OSError, AccessError, TlsError: as for ``start``.
            UsageError: as for ``start``; or signals are wanted, and this is not the main thread.
            HubStopped: a thread of the hub has died. The log says why.
        """
        arguments.check_type("signals", signals, arguments.FLAG)
        # A hub that runs now and is stopped before it is served is not started again.
        runs = self._run is not None and self._pid == os.getpid()
        if signals:
            with Terminations() as terminations:
                if not runs:
                    self.start()
                self._serve_until(terminations)
            return
        if not runs:
            self.start()
        # In pieces: on some systems a wait without an end keeps signals from being handled.
        while not self._stopped.wait(1.0):
            run = self._run
            if run is not None and run.has_failed:
                self.stop(0.0)
                raise HubStopped("the hub has failed, its log says why")

    def _serve_until(self, terminations: Terminations) -> None:
        """Serve until the hub is stopped, or SIGTERM has ended it. The main thread."""
        self._ended = terminations.received
        while not terminations.await_first():
            if self._stopped.is_set():
                return
        logger.info("SIGTERM: draining")
        try:
            terminations.is_ending = True
            self._drain(None, False)
            terminations.is_ending = False
        except Terminated:
            logger.info("SIGTERM again: stopping at once")
            self._stop(0.0)

    def stop(self, timeout: float | None = None) -> None:
        """Say goodbye and end everything that ``start`` began.

        Nobody is admitted any more, what was accepted is flushed, each client gets Close 1001 and
        may answer; then the connections are closed. Called in a callback it does not wait for the
        callback's own thread; if another thread is stopping the hub already, it does not wait
        there at all. Does nothing if the hub does not run, or not yet.

        A signal handler may call it. Where the signal has interrupted a method of the hub, such as
        ``serve_forever``, it goes on in a thread of its own, and this returns at once: the method
        may hold a lock. An exception in here, such as a second Ctrl-C, ends everything at once.

        Args:
            timeout: seconds for all of it, default ``stop_timeout``; it returns within one more
                second.
        """
        arguments.check_seconds("timeout", timeout)
        if has_interrupted_us(_HARMLESS):
            in_thread(self._stop, timeout)
        else:
            self._stop(timeout)

    def _stop(self, timeout: float | None) -> None:
        timeout = given.bounded(self._settings.stop_timeout if timeout is None else timeout)
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

        A signal handler may call it, as ``stop``; an exception in here ends everything at once.

        Args:
            timeout: seconds for all of it, default ``drain_delay`` + ``drain_seconds`` +
                ``stop_timeout``; given less, all three get shorter. It returns within one more
                second.
            restart: close with 1012 and the reason ``since=<id>``, from where a client goes on,
                instead of 1001.
        """
        arguments.check_seconds("timeout", timeout)
        arguments.check_type("restart", restart, arguments.FLAG)
        if has_interrupted_us(_HARMLESS):
            in_thread(self._drain, timeout, restart)
        else:
            self._drain(timeout, restart)

    def _drain(self, timeout: float | None, restart: bool) -> None:
        settings = self._settings
        delay, seconds = settings.drain_delay, settings.drain_seconds
        usual = delay + seconds + settings.stop_timeout
        timeout = given.bounded(usual if timeout is None else timeout)
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
        if self._ended is not None:
            self._ended.put(False)
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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a BroadcastHub cannot be pickled or copied: make a new one")

    # -- Messages ------------------------------------------------------------------------------

    def broadcast(self, data: Data, room: str = "/", timeout: float = 5.0) -> Message:
        """Send a message to all members of a room.

        Args:
            data: ``str`` goes out as text, ``bytes`` as binary.
            room: the room's path; the room is made if need be.
            timeout: seconds to wait while the fan-out is behind. It never waits for a slow client.

        Returns:
            The message as it was accepted, with its id.

        Raises:
            HubBusy: the fan-out was behind for all that time; nothing was sent.
            HubStopped: the hub does not run.
            MessageTooBig: it has more than ``max_message_bytes``.
            InvalidRoom: there can be no such room.
            TypeError: an argument has a wrong type; data is neither ``str`` nor ``bytes``.
            UsageError: the text has a lone surrogate, which UTF-8 cannot carry.
        """
        arguments.check_seconds("timeout", timeout, optional=False)
        draft = Draft(0, self._encode(data))
        check_room(room)
        core, _ = self._running_parts()
        ids = core.publish_one(room, draft, time.monotonic() + timeout)
        return to_messages(room, [draft], ids)[0]

    def send(self, client_id: str, data: Data, timeout: float = 5.0) -> bool:
        """Send a message to one client, after all that its room was sent before.

        Args:
            client_id: the ``id`` of a ``Member``.
            data: ``str`` goes out as text, ``bytes`` as binary.
            timeout: seconds to wait while too much waits for this client already.

        Returns:
            False if there is no such client (any more).

        Raises:
            HubBusy: the client did not take enough in that time; nothing was sent.
            HubStopped, MessageTooBig, TypeError, UsageError: as for ``broadcast``.
        """
        given.check_client_id(client_id)
        arguments.check_seconds("timeout", timeout, optional=False)
        frame = self._encode(data)
        run = self._serving_run()
        return run.send(client_id, frame, time.monotonic() + timeout)

    # -- Members -------------------------------------------------------------------------------

    def members(self, room: str = "/") -> list[Member]:
        """Return who is in a room now, in the order of joining; nobody if there is no such room.

        Raises:
            HubStopped: the hub does not run.
            InvalidRoom: there can be no such room.
            TypeError: the room is not ``str``.
        """
        check_room(room)
        core, _ = self._running_parts()
        found = core.rooms.find(room)
        return found.member_list() if found is not None else []

    def history(self, room: str = "/", count: int | None = None) -> list[Message]:
        """Return the last messages of a room that are still held, the oldest first.

        Args:
            room: the room's path; it is not made.
            count: how many at most; None for the setting ``history``.

        Raises:
            HubStopped: the hub does not run.
            InvalidRoom: there can be no such room.
            UsageError: the count is less than 0.
            TypeError: an argument has a wrong type.
        """
        check_room(room)
        given.check_count(count)
        core, _ = self._running_parts()
        found = core.rooms.find(room)
        if found is None:
            return []
        entries, *_ = found.last(self._settings.history if count is None else count, None)
        return [to_message(room, entry) for entry in entries]

    def rooms(self) -> list[str]:
        """Return the paths of the rooms that have members.

        Raises:
            HubStopped: the hub does not run.
        """
        core, _ = self._running_parts()
        return sorted(room.path for room in core.rooms.all() if room.members)

    def disconnect(self, client_id: str, code: int = 1000, reason: str = "disconnected") -> bool:
        """Close one client's connection after what it was sent; it is no member from now on.

        Args:
            client_id: the ``id`` of a ``Member``.
            code: the close code (RFC 6455 §7.4).
            reason: a short text; what exceeds 123 bytes of UTF-8 is cut off. With an empty one a
                client that closes with the same code just now takes ours for the answer to its own.

        Returns:
            False if there is no such client (any more).

        Raises:
            HubStopped: the hub does not run.
            UsageError: the code may not be sent, or the reason has a lone surrogate.
            TypeError: an argument has a wrong type.
        """
        given.check_client_id(client_id)
        given.check_close(code, reason)
        core, server = self._running_parts()
        while (connection := server.find(client_id)) is not None:
            if core.dismiss(connection, code, reason):
                return True
            # It ends just now; a newer one may have taken its place.
        return False

    # -- Facts ---------------------------------------------------------------------------------

    @property
    def urls(self) -> tuple[str, ...]:
        """The URL of the lobby at each of the hosts, or sockets, that were given."""
        places = self._places if self._sockets else [(host, self.port) for host in self._hosts]
        scheme = "ws" if self._settings.tls_cert is None else "wss"
        return tuple(
            f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"
            for host, port in places
        )

    @property
    def host(self) -> str:
        """The host that it listens on, as given; of several the first one."""
        return self._hosts[0]

    @property
    def port(self) -> int:
        """The port that it really listens on while it runs, else the one given."""
        server = self._server
        return server.port if server is not None else self._port

    @property
    def url(self) -> str:
        """The URL of the lobby; with several hosts that of the first one."""
        return self.urls[0]

    def stats(self) -> dict[str, int]:
        """Return counters since the start and present numbers.

        ``messages`` accepted, ``encodes`` (frames made of them), ``joins`` (batches joined),
        ``sends`` (calls to the kernel), ``deliveries``, ``bytes_out``, ``evictions``; ``clients``,
        ``rooms`` and ``log_bytes`` now. The same and more, for Prometheus, is at ``/metrics``:
        docs/reference/metrics.md.

        Raises:
            HubStopped: the hub does not run.
        """
        return self._serving_run().stats()

    # -- Inside --------------------------------------------------------------------------------

    def _make_run(self) -> Run:
        settings = self._settings
        # Before anything is opened: without its certificate there is no hub.
        tls = None
        if settings.tls_cert is not None:
            tls = Certificate(settings.tls_cert, settings.tls_key)
        keyring = Keyring(settings) if settings.has_secrets else None
        authorize = keyring.authorize if keyring is not None else self._authorize
        run = Run(self._hosts, self._port, settings, self._callbacks, self._sockets, authorize, tls)
        if keyring is not None:
            run.core.reloads.append(keyring.reload)
        return run

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
        if run is None:
            raise HubStopped("the hub does not run")
        # A forked child has this object, but none of the threads.
        if self._pid != os.getpid():
            raise HubStopped("the hub runs in the parent process, not in this one")
        if not run.is_serving:
            raise HubStopped("the hub is stopping")
        return run

    def _encode(self, data: Data) -> bytes:
        if isinstance(data, (str, bytes)):
            size = len(arguments.utf8("data", data) if isinstance(data, str) else data)
            if size > self._settings.max_message_bytes:
                raise MessageTooBig(
                    f"the message has {size} bytes, more than "
                    f"max_message_bytes ({self._settings.max_message_bytes})"
                )
        return encode(data)


_running: weakref.WeakSet[BroadcastHub] = weakref.WeakSet()


def _stop_all() -> None:
    for hub in list(_running):
        hub.stop()


# These call it by themselves, and hold no lock.
_HARMLESS = frozenset({_stop_all.__code__, BroadcastHub.__exit__.__code__})

exits.at_exit(exits.HUBS, _stop_all)
