"""How a client gets its first connection, and how it ends.

**Connecting** runs on the user's thread that calls ``connect()``: it dials, starts the client's two
threads and waits for the hub's welcome. It may fail or be interrupted at any point. Then nothing is
left, no thread and no descriptor, and the client may try again; it does so itself as long as it is
to wait for a hub that is not there yet. If another thread closes the client in the meantime, the
close wins.

**The end** comes with ``close()``, with the last reference to the client, or with the program. What
is queued goes out first, then Close; then the client's own thread ends, and with it everything that
the client has. ``close()`` waits for that, and cuts the connection when it takes too long.

Nobody waits for a client that the program has lost sight of. The client's threads hold no reference
to the ``BroadcastClient``, only to its core, so they do not keep it alive. Its finalizer may run
anywhere, also on a thread that holds a lock of this or another client, so it must take no lock: it
leaves the closing to a new thread. No thread can be started when the program is at its end, so all
clients that are left are closed before that. (Python 3.12 starts none by that time either: a client
that has just lost its connection does not come back there, and says so.)
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Callable

from .. import exits
from ..errors import ConnectFailed, UsageError
from ..records import get_logger
from ..transport.deadlines import Deadline
from ..wire import frames
from .core import LOOK_SECONDS, ClientCore, all_clients
from .link import Link
from .loop import ClientLife
from .retries import Waiting

# What was cut off ends at once, but for a callback of the user's that takes its time.
CUT_SECONDS = 1.0
# How long the end of a program waits for its clients, all of them together.
EXIT_SECONDS = 5.0
# How many connections, one after the other, may have their time although none brings an answer.
MAX_LINKS = 2

logger = get_logger("broadcast_server.client")


# -- Connecting --------------------------------------------------------------------------------


def connect(core: ClientCore) -> None:
    """Connect and join the room; wait for a hub that is not there yet.

    Raises:
        ConnectFailed: there is no connection.
        UsageError: the client has been connected, or closed, before.
    """
    with core.lock:
        if core.connecting or core.ended:
            raise UsageError("a client connects once; make a new one")
        core.connecting = True
        core.state = "connecting"
    waiting = Waiting(core.wait)
    while True:
        try:
            return _connect_once(core)
        except ConnectFailed as error:
            pause = waiting.pause(error)
            if pause is None or not _pause(core, pause, error):
                raise


def _pause(core: ClientCore, seconds: float, error: ConnectFailed) -> bool:
    """Wait before the next attempt; return False if there can be none.

    Raises:
        ConnectFailed: the client was closed.
    """
    deadline = Deadline(seconds)
    with core.lock:
        if core.left is None and core.connecting:
            return False  # a callback holds the client's thread, or another thread has connected
        logger.info("%s; once more in %.2f s", error, seconds)
        core.connecting, core.state = True, "connecting"
        is_wanted = False
        try:
            while core.left is None and (left := deadline.left()):
                core.changed.wait(left)
            is_wanted = core.left is None
        finally:  # Ctrl-C, too
            if not is_wanted:
                core.connecting, core.state = False, "closed"
        if not is_wanted:
            raise _closed_meanwhile(core) from error
    return True


def _connect_once(core: ClientCore) -> None:
    link = _dial(core)
    try:
        _start(core, link)
        _await_welcome(core, link)
    except BaseException:  # Ctrl-C, too
        _undo(core, link)
        raise


def _dial(core: ClientCore) -> Link:
    try:
        dialing = core.dial(core.url)
        with core.lock:
            core.dialing = dialing  # close() cuts it off
            if core.left is not None:
                dialing.cut()
        sock, chosen = dialing.dial()
    except BaseException as error:  # Ctrl-C, too
        with core.lock:
            core.state, core.connecting = "closed", False
            if core.left is not None and isinstance(error, ConnectFailed):
                raise _closed_meanwhile(core) from error
        raise
    finally:
        with core.lock:
            core.dialing = None
    return core.make_link(sock, chosen)


def _start(core: ClientCore, link: Link) -> None:
    """Start the link's writer and the client's own thread."""
    life = ClientLife(core, link)
    thread = threading.Thread(target=life.run, name="client", daemon=True)
    with core.lock:
        if core.left is not None:
            raise _closed_meanwhile(core)
        core.speaks = link.events is not None
        core.link, core.thread = link, thread
        if link.welcomed:
            core.state = "open"
        # Under the lock, so that close() finds them alive; the one joins the other.
        link.start_locked()
        core.is_living = True
        try:
            thread.start()
        except RuntimeError:
            core.is_living = False
            raise


def _await_welcome(core: ClientCore, link: Link) -> None:
    with core.lock:
        while not (link.welcomed or core.ended):
            core.changed.wait(LOOK_SECONDS)  # which the client's own thread lets end in time
        if link.welcomed:
            return
        why = core.failure or core.closed_locked()
    core.await_thread(Deadline(core.close_timeout))  # a callback may hold it
    shown = core.url.partition("?")[0]
    raise ConnectFailed(f"cannot connect to {shown}: {why}") from why


def _undo(core: ClientCore, link: Link) -> None:
    """Leave nothing behind of a connection that nobody has got."""
    with core.lock:
        was_living = core.is_living
        link.end_locked()
        core.end_locked(frames.ABNORMAL, "never connected")
    if was_living:
        link.channel.abort()
        core.await_thread(Deadline(core.close_timeout))
    else:
        link.leave(0)
    with core.lock:
        # A callback that takes its time may hold the thread: such a client is not used again.
        if core.left is None and not core.is_living:
            core.forget_locked()


def _closed_meanwhile(core: ClientCore) -> ConnectFailed:
    return ConnectFailed(f"{core.url}: closed while it connected")


# -- The end -----------------------------------------------------------------------------------


def close(
    core: ClientCore, code: int, reason: str, timeout: float | None, *, keep_reading: bool = False
) -> bool:
    """Close a client; the arguments, and what is returned, are those of ``BroadcastClient.close``.
    Any thread."""
    if not _begin(core, code, reason, keep_reading=keep_reading):
        return False
    if not core.is_own_thread():
        try:
            _await_end(core, Deadline(timeout), while_moving=timeout is None)
            # Looking up a name cannot be interrupted.
            core.await_thread(Deadline(CUT_SECONDS if core.dialing is None else LOOK_SECONDS))
        except BaseException:  # Ctrl-C: the end of the program must not wait once more
            core.is_given_up = True
            raise
    with core.lock:
        return core.accepted_locked()


def drop(
    core: ClientCore, client: object, _is_finalizing: Callable[[], bool] = sys.is_finalizing
) -> None:
    """Close a client to which nobody refers any more. Its finalizer, on any thread.

    Args:
        core: what its threads share.
        client: itself, for the warning.
    """
    # Bound above: when the interpreter ends the names of this module may be None already.
    if _is_finalizing() or core.left is not None or core.ended or not core.is_living:
        return
    closer = threading.Thread(
        target=close,
        args=(core, 1001, "", core.close_timeout),
        name="client-closer",
        daemon=True,
    )
    with contextlib.suppress(RuntimeError):  # no thread is to be had
        closer.start()
    warnings.warn(f"unclosed client of {core.url}", ResourceWarning, stacklevel=3, source=client)


def close_all() -> None:
    """Close the clients that are left when the program ends, within ``EXIT_SECONDS``."""
    left = []
    for core in all_clients():
        if core.connecting and not core.ended:
            seconds = 0.0 if core.is_given_up else min(EXIT_SECONDS, core.close_timeout)
            deadline = Deadline(seconds)
            if _begin(core, 1001, "", keep_reading=False):
                left.append((core, deadline))
    for core, deadline in left:
        _await_end(core, deadline, while_moving=False)
        with core.lock:
            if core.timed_out and not core.accepted_locked():
                logger.warning(
                    "%s: the program ends, and the server may not have taken everything", core.url
                )


def _begin(core: ClientCore, code: int, reason: str, *, keep_reading: bool) -> bool:
    """Have a client end; return whether it was connected, and so takes its time."""
    with core.lock:
        if core.left is None:
            core.left = (code, reason)
        link, dialing = core.link, core.dialing
        if link is None:
            core.ended = True
            core.state = "closed"
            core.changed.notify_all()
        else:
            if not keep_reading:
                core.inbox.discard_locked()
            core.outbox.space.notify_all()
            if not link.ended:
                link.close_locked(*core.left)
                dialing = None
            elif core.outbox.pending:
                dialing = None
            elif dialing is not None:
                core.end_locked(frames.ABNORMAL, "closed here")
            core.changed.notify_all()
    if dialing is not None:
        dialing.cut()
    return link is not None


def _await_end(core: ClientCore, deadline: Deadline, *, while_moving: bool) -> None:
    """Wait until a client's thread has ended, or give up: then it ends as soon as it can.

    Args:
        deadline: until when.
        while_moving: instead, as long as bytes move.
    """
    seen: object = None
    newest: Link | None = None
    links = 0  # since the hub has accepted something
    pending = -1
    silence = Deadline(core.close_timeout)
    while True:
        with core.lock:
            link = core.link
            if not core.is_living or (core.ended and core.dialing is not None):
                return  # the latter was cut off
            if core.outbox.count != pending:
                pending, links = core.outbox.count, 0
            if link is not newest:
                newest, links = link, links + 1
        assert link is not None
        moved = (link, link.channel.progress(), core.inbox.taken)
        # What cuts off one connection after the other, and accepts nothing, would keep us for ever.
        if moved != seen and links <= MAX_LINKS:
            seen = moved
            silence = Deadline(core.close_timeout)
        left = (silence if while_moving else deadline).left()
        if left == 0:
            return _cut_off(core)
        core.await_thread(Deadline(LOOK_SECONDS if left is None else min(LOOK_SECONDS, left)))


def _cut_off(core: ClientCore) -> None:
    logger.debug("%s: no answer to Close", core.url)
    with core.lock:
        link, dialing = core.link, core.dialing  # which may have come just now
        assert link is not None
        core.timed_out = not link.echoed
        link.end_locked()
        core.end_locked(frames.ABNORMAL, "no answer to Close")
        core.inbox.discard_locked()
    if dialing is not None:
        dialing.cut()
    else:
        link.channel.abort(reset=True)


exits.at_exit(exits.CLIENTS, close_all)
