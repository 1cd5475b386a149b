"""How a client gets its first connection: dialling, its two threads, the hub's welcome.

All of it runs on the user's thread that calls ``connect()``, and may fail or be interrupted at any
point. Then nothing is left, no thread, no descriptor, and the client may try again. Who closes the
client meanwhile, from another thread, wins.
"""

from __future__ import annotations

import threading

from ..errors import ConnectFailed, UsageError
from ..transport.deadlines import Deadline
from ..wire import frames
from .core import LOOK_SECONDS, ClientCore
from .link import Link
from .loop import ClientLife


def open_client(core: ClientCore) -> None:
    """Connect and join the room.

    Raises:
        ConnectFailed: there is no connection.
        UsageError: the client has been connected, or closed, before.
    """
    with core.lock:
        if core.connecting or core.ended:
            raise UsageError("a client connects once; make a new one")
        core.connecting = True
        core.state = "connecting"
    link = _dial(core)
    try:
        _start(core, link)
        _await_welcome(core, link)
    except BaseException:  # Ctrl-C, too
        _give_up(core, link)
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
        failure = core.failure
        why = failure or core.closed_locked()
    core.await_thread(Deadline(core.close_timeout))  # a callback may hold it
    shown = core.url.partition("?")[0]
    raise ConnectFailed(f"cannot connect to {shown}: {why}") from failure


def _give_up(core: ClientCore, link: Link) -> None:
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
