"""The one place that knows private parts of the package: what tests look at, and what they replace.

Each function is named for what is asked. Functions that replace or set something take a
``MonkeyPatch``, which puts the old back when the test has ended; the others say so.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from broadcast_server.client import lifecycle
from broadcast_server.hub import server as server_module
from broadcast_server.hub.http import connection as http_connection
from broadcast_server.hub.http import media_types
from broadcast_server.hub.reader import Reader
from broadcast_server.transport import listeners
from broadcast_server.transport.tls_stream import TlsStream
from broadcast_server.wire import events

from .waiting import wait_until

if TYPE_CHECKING:
    import queue
    import ssl
    import subprocess

    import pytest

    from broadcast_server import BroadcastClient, BroadcastHub
    from broadcast_server.cli.commands.pipe import Pipe
    from broadcast_server.cli.commands.runner import Runner
    from broadcast_server.cli.io.logs import BackgroundHandler
    from broadcast_server.cli.terminal.plain import LineScreen
    from broadcast_server.client.core import ClientCore
    from broadcast_server.client.dialer import Dialing
    from broadcast_server.client.link import Link
    from broadcast_server.hub.admission import Admission
    from broadcast_server.hub.backplane.memory import MemoryBackplane
    from broadcast_server.hub.core import Core
    from broadcast_server.hub.delivery.batches import LogBatch
    from broadcast_server.hub.delivery.connection import Connection
    from broadcast_server.hub.delivery.fanout import FanOut
    from broadcast_server.hub.delivery.mailbox import Mailbox, Post
    from broadcast_server.hub.delivery.timers import Timed, Timers
    from broadcast_server.hub.delivery.writer import ClientWriter
    from broadcast_server.hub.handler import HubHandler
    from broadcast_server.hub.http.connection import HttpConnection
    from broadcast_server.hub.rates import SenderRates
    from broadcast_server.hub.rooms.encodings import Form
    from broadcast_server.hub.rooms.entries import Entry
    from broadcast_server.hub.rooms.registry import RoomRegistry
    from broadcast_server.hub.rooms.room import Room
    from broadcast_server.hub.rooms.shares import Sizes
    from broadcast_server.hub.rooms.waiters import Bells
    from broadcast_server.hub.run import Run
    from broadcast_server.hub.server import HubServer, Wire
    from broadcast_server.transport.channel import Channel
    from broadcast_server.transport.connector import Connector
    from broadcast_server.transport.deadlines import Deadline
    from broadcast_server.transport.tls_stream import Certificate
    from broadcast_server.wire.client_events import EventReader
    from broadcast_server.wire.frames import FrameDecoder


class HasLock(Protocol):
    """A hub, a mailbox, the rooms, the backplane, a channel, a TLS stream."""

    _lock: Any


def lock_of(owner: HasLock) -> threading.Lock:
    """Return the lock of an object that has one."""
    lock: threading.Lock = owner._lock
    return lock


def waiters_of(condition: threading.Condition) -> Collection[threading.Lock]:
    """Return a lock for each thread that waits for a condition; it changes as they do."""
    waiters: Collection[threading.Lock] = condition._waiters  # type: ignore[attr-defined]
    return waiters


# -- A hub ---------------------------------------------------------------------------------------


def run_of(hub: BroadcastHub) -> Run:
    """Return the run of a hub that runs."""
    assert hub._run is not None
    return hub._run


def core_of(hub: BroadcastHub) -> Core:
    """Return the core of a hub that runs."""
    return run_of(hub).core


def server_of(hub: BroadcastHub) -> HubServer:
    """Return the server of a hub that runs."""
    return run_of(hub).server


def fanout_of(hub: BroadcastHub) -> FanOut:
    """Return the fan-out of a hub that runs."""
    return core_of(hub).fanout


def is_draining(hub: BroadcastHub) -> bool:
    """Tell whether a hub runs and admits nobody any more."""
    run = hub._run
    return run is not None and run.core.draining


def has_ended(hub: BroadcastHub) -> bool:
    """Tell whether a hub has no run, and no thread is at work on its end."""
    return hub._run is None and hub._stopper is None


def stopped_of(hub: BroadcastHub) -> threading.Event:
    """Return the event that is set while a hub does not run."""
    return hub._stopped


def hurried_of(run: Run) -> threading.Event:
    """Return the event that makes a drain get on; the drain waits by it."""
    return run._hurried


def replace_hurried(patch: pytest.MonkeyPatch, run: Run, clock: object) -> None:
    """Let a drain wait by a clock of the test's."""
    patch.setattr(run, "_hurried", clock)


def replace_clock_of_sessions(
    patch: pytest.MonkeyPatch, core: Core, clock: Callable[[], float]
) -> None:
    """Let what a client comes back with end by another clock."""
    patch.setattr(core.sessions, "_clock", clock)


def replace_clock(
    patch: pytest.MonkeyPatch, backplane: MemoryBackplane, clock: Callable[[], float]
) -> None:
    """Let a backplane have the time of its ids from another clock."""
    patch.setattr(backplane, "_clock", clock)


def locks_of(core: Core) -> list[threading.Lock]:
    """Return the locks of a hub's parts, without those of rooms and clients."""
    fanout = core.fanout
    return [
        lock_of(core.rooms),
        lock_of(core.backplane),  # type: ignore[arg-type]
        end_lock_of(fanout),
        lock_of(mailbox_of(fanout)),
        pipe_lock_of(mailbox_of(fanout)),
        core._count_lock,
    ]


def set_count_lock(core: Core, lock: Any) -> None:
    """Let a hub count under another lock, for good."""
    core._count_lock = lock


# -- Its server ----------------------------------------------------------------------------------


def admission_of(server: HubServer) -> Admission[Wire]:
    """Return the places for connections."""
    return server._admission


def early_of(server: HubServer) -> Collection[Wire]:
    """Return the connections that make way before their threads have begun."""
    return server._early


def behind_since(server: HubServer) -> float | None:
    """Return since when newcomers find no place, however many make way; None if they do."""
    return server._behind_since


def bells_in_room(room: Room[Any]) -> Bells:
    """Return what wakes those who wait for place in a room."""
    return room._space


def set_max_waiting(patch: pytest.MonkeyPatch, server: HubServer, count: int) -> None:
    """Let no more than so many connections wait."""
    patch.setattr(server._admission, "_max_waiting", count)


def joined_by_network(admission: Admission[Any]) -> Mapping[str, int]:
    """Return how many clients each network has; 0 for one that has none."""
    return admission._clients


def keeps_nothing(admission: Admission[Any]) -> bool:
    """Tell whether nothing is left of all connections that were there."""
    waiting = (admission._network, admission._waiting, admission._order, admission._making_way)
    return not any(waiting) and not admission._joined and not admission._clients


def sessions_of(server: HubServer) -> dict[Wire, threading.Thread]:
    """Return the thread of each connection."""
    return server._sessions


def set_session(server: HubServer, request: Any, thread: threading.Thread) -> None:
    """Have the server take something for a connection, for good."""
    server._sessions[request] = thread


def watched_of(server: HubServer) -> Mapping[Wire, HttpConnection]:
    """Return the connections that are no clients yet, by which the server sees who waits."""
    return server._http


def registry_lock_of(server: HubServer) -> threading.Lock:
    """Return the lock of the list of clients."""
    return server._registry_lock


def is_consistent(server: HubServer) -> bool:
    """Tell whether the list of clients, its places and both indexes agree."""
    with server._registry_lock:
        places = [client["place"] for client in server.clients]
        handlers = {id(client["handler"]) for client in server.clients}
        return (
            places == list(range(len(server.clients)))
            and handlers == {id(handler) for handler in server._by_handler}
            and len(server._by_id) <= len(server.clients)
        )


def knows_nobody(server: HubServer) -> bool:
    """Tell whether nothing is left of all clients that were on the list."""
    return not (server.clients or server._by_id or server._by_handler or server._handed_over)


def is_idle(server: HubServer, request: Wire) -> bool:
    """Tell whether a session waits for its peer."""
    return server._is_idle(request)


def pause_seconds() -> float:
    """Return how long the accept loop rests when it cannot accept."""
    return server_module._EXHAUSTED_PAUSE_SECONDS


def receive_bytes(handler: HubHandler) -> int:
    """Return how much a session reads at a time now."""
    return handler._recv_bytes


def replace_reader(patch: pytest.MonkeyPatch, handler: HubHandler, reader: object) -> None:
    """Let a session give what it reads to something else."""
    patch.setattr(handler, "_reader", reader)


def replace_accepted(
    patch: pytest.MonkeyPatch, acknowledge: Callable[..., None]
) -> Callable[..., None]:
    """Replace what every reader does once messages are accepted; return what it did."""
    real = Reader._accepted
    patch.setattr(Reader, "_accepted", acknowledge)
    return real


def set_max_chunks(patch: pytest.MonkeyPatch, count: int) -> None:
    """Let a body have no more than so many chunks."""
    patch.setattr(http_connection, "_MAX_CHUNKS", count)


# -- The fan-out -----------------------------------------------------------------------------------


def mailbox_of(fanout: FanOut) -> Mailbox:
    """Return what other threads leave for it."""
    return fanout._mailbox


def timers_of(fanout: FanOut) -> Timers:
    """Return its appointments."""
    return fanout._timers


def end_lock_of(fanout: FanOut) -> threading.Lock:
    """Return the lock that guards its end."""
    return fanout._end_lock


def total_cost(fanout: FanOut) -> int:
    """Return what it takes all logs to hold."""
    return fanout._accounts.total


def is_asleep(fanout: FanOut) -> bool:
    """Tell whether the thread waits in its selector, or is about to."""
    return fanout._mailbox._sleeping


def sleeps(fanout: FanOut) -> bool:
    """Wait until the thread has nothing to do; return whether it came so far in time."""
    return wait_until(lambda: is_asleep(fanout))


def make_pass(fanout: FanOut, room: Room[Connection]) -> bool:
    """Offer what is new in a room; return whether there is more to do at once."""
    return fanout._pass(room)


def replace_pass(
    patch: pytest.MonkeyPatch, fanout: FanOut, one_pass: Callable[..., bool]
) -> Callable[[Room[Connection]], bool]:
    """Have each pass done by something else; return what did it."""
    real = fanout._pass
    patch.setattr(fanout, "_pass", one_pass)
    return real


def activate(fanout: FanOut, connection: Connection) -> None:
    """Take a client over, as its thread does with one that was posted."""
    fanout._do_activate(connection)


def bound_held(fanout: FanOut) -> None:
    """Bound what clients hold of messages that no log holds, as at the end of a turn."""
    fanout._accounts.bound_held()


def replace_shorten_one(
    patch: pytest.MonkeyPatch, fanout: FanOut, shorten_one: Callable[..., bool]
) -> Callable[..., bool]:
    """Have a log lose its oldest messages for all others by something else; return what did it."""
    real = fanout._accounts._shorten_one
    patch.setattr(fanout._accounts, "_shorten_one", shorten_one)
    return real


def forget_dropped(fanout: FanOut) -> None:
    """Let go of the rooms that were dropped."""
    fanout._accounts.forget_dropped()


def pipe_lock_of(mailbox: Mailbox) -> threading.Lock:
    """Return the lock that guards the pipe."""
    return mailbox._pipe_lock


def pipe_end_of(mailbox: Mailbox) -> int:
    """Return the descriptor that others write to."""
    return mailbox._writer


def posts_in(mailbox: Mailbox) -> list[Post]:
    """Return what was posted and not taken."""
    return mailbox._posts


def wakes_by(mailbox: Mailbox) -> float:
    """Return when the thread wakes by itself, if it sleeps."""
    return mailbox._wakes_by


def pretend_awake(mailbox: Mailbox) -> None:
    """Note that the thread does not sleep, as somebody does who is interrupted then."""
    mailbox._sleeping = False


def count_wakes(patch: pytest.MonkeyPatch, mailbox: Mailbox) -> list[None]:
    """Return a list that grows when the thread is woken."""
    wakes: list[None] = []
    wake = mailbox._wake

    def count() -> None:
        wakes.append(None)
        wake()

    patch.setattr(mailbox, "_wake", count)
    return wakes


def appointments_in(timers: Timers) -> list[Timed]:
    """Return whose appointments are kept, those that will be skipped included."""
    return [timed for _, _, timed in timers._heap]


def batches_of(writer: ClientWriter) -> Mapping[Any, LogBatch]:
    """Return the batches that are kept until the end of the turn."""
    return writer._batches


def replace_on_left(
    patch: pytest.MonkeyPatch, writer: ClientWriter, on_left: Callable[..., None]
) -> Callable[..., None]:
    """Replace what is called when a member has left; return what was."""
    real = writer._on_left
    patch.setattr(writer, "_on_left", on_left)
    return real


# -- Rooms ---------------------------------------------------------------------------------------


def reserved_bytes(room: Room[Any]) -> int:
    """Return the cost of what publishers have reserved and not appended."""
    return room._reserved


def is_paused(room: Room[Any]) -> bool:
    """Tell whether publishers wait for the fan-out."""
    return room._paused


def entries_of(room: Room[Any]) -> list[Entry]:
    """Return the entries of the log."""
    return room._entries


def made_in(rooms: RoomRegistry[Any]) -> Mapping[str | None, Mapping[str, Room[Any]]]:
    """Return the rooms that count for each sender."""
    return rooms._made


def bells_in(bells: Bells) -> Collection[object]:
    """Return a bell for each thread that waits."""
    return bells._bells


# -- A client --------------------------------------------------------------------------------------


def client_core_of(client: BroadcastClient) -> ClientCore:
    """Return the core of a client."""
    return client._core


def link_of(client: BroadcastClient) -> Link | None:
    """Return a client's connection; None if it has none now."""
    return client._core.link


def dialing_of(client: BroadcastClient) -> Dialing | None:
    """Return the attempt to come back that a client makes; None if it makes none."""
    return client._core.dialing


def close_position(link: Link) -> int | None:
    """Return how many bytes will have been sent when Close has; None if there is no Close."""
    return link._close_at


def replace_end(patch: pytest.MonkeyPatch) -> None:
    """Let clients begin and await their end without doing anything."""
    patch.setattr(lifecycle, "_begin", lambda *_, **__: True)
    patch.setattr(lifecycle, "_await_end", lambda *_, **__: None)


# -- Sockets ---------------------------------------------------------------------------------------


def socket_of(channel: Channel) -> Any:
    """Return the socket of a channel; one of TLS is of another class than a plain one."""
    return channel._sock


def connector_of(dialing: Dialing) -> Connector:
    """Return what connects to an address for a client."""
    return dialing._connector


def sockets_of(connector: Connector) -> Collection[socket.socket]:
    """Return the sockets of the addresses that are being tried."""
    return connector._sockets


def replace_open(
    patch: pytest.MonkeyPatch, open_one: Callable[..., socket.socket]
) -> Callable[..., socket.socket]:
    """Replace what opens one listening socket; return what did it."""
    real = listeners._open
    patch.setattr(listeners, "_open", open_one)
    return real


def context_of(certificate: Certificate) -> ssl.SSLContext:
    """Return what a certificate was read into."""
    return certificate._context


def shake_hands(stream: TlsStream, deadline: Deadline) -> None:
    """Make the handshake, as the first call of its reader does."""
    stream._handshake(deadline)


def replace_tls(patch: pytest.MonkeyPatch) -> None:
    """Let every TLS stream take its handshake for done, and have nothing to write."""
    patch.setattr(TlsStream, "_shake_hands", lambda self: True)
    patch.setattr(TlsStream, "_flush", lambda self, deadline: None)


# -- Bytes -----------------------------------------------------------------------------------------


def tail_of(decoder: FrameDecoder) -> bytes:
    """Return the bytes of a frame that is not all there."""
    return decoder._tail


def message_of(decoder: FrameDecoder) -> bytes | bytearray | None:
    """Return the fragments of a message that is not all there; None if there is none."""
    return decoder._message


def senders_in(reader: EventReader) -> Collection[object]:
    """Return the senders that are kept."""
    return reader._senders


# -- The command -----------------------------------------------------------------------------------


def lines_in(handler: BackgroundHandler) -> queue.Queue[Any]:
    """Return the lines of the log that nobody has read."""
    return handler._waiting


def set_log_handler(patch: pytest.MonkeyPatch, handler: BackgroundHandler | None) -> None:
    """Let the command log to a handler of the test's."""
    patch.setattr("broadcast_server.cli.io.logs._handler", handler)


def wake_pipe_of(screen: LineScreen) -> tuple[int, int]:
    """Return the two ends of the pipe by which signals wake a screen."""
    return screen._wake_reader, screen._wake_writer


def replace_start(
    patch: pytest.MonkeyPatch, runner: Runner, start: Callable[..., subprocess.Popen[bytes]]
) -> Callable[..., subprocess.Popen[bytes]]:
    """Replace what starts the process for a message; return what did it."""
    real = runner._start
    patch.setattr(runner, "_start", start)
    return real


def replace_await_answers(wait: Callable[[Pipe], bool]) -> Callable[[Pipe], bool]:
    """Replace how a pipe waits for answers when its input has ended, for good: in a program that is
    run; return what did it."""
    from broadcast_server.cli.commands import pipe

    real = pipe.Pipe._await_answers
    pipe.Pipe._await_answers = wait  # type: ignore[method-assign, assignment]
    return real


def noted_sizes(sizes: Sizes[Any]) -> int:
    """Return how many sizes are kept, with those that are not true any more."""
    return len(sizes._heap)


def bytes_by_maker(fanout: FanOut) -> dict[str | None, int]:
    """Return what the logs of each maker's rooms cost."""
    sizes = fanout._accounts._sizes
    return {maker: sizes[maker] for maker in sizes.descending()}


def drop_forms(fanout: FanOut) -> bool:
    """Let it drop the forms of one room."""
    return fanout._accounts.drop_forms()


def needed_from(fanout: FanOut, room: Room[Connection]) -> Mapping[Form, int]:
    """Return from where on it keeps each form of a room."""
    return fanout._accounts.needed_from(room)


# -- Parsers -----------------------------------------------------------------------------------


def lines_of_head(before: bytes, data: bytes) -> tuple[int, bytes]:
    """Return how many lines of a request's head are in what came, and what to go on with."""
    return http_connection._lines_of_head(before, data)


def load_long(text: str, max_characters: int) -> object:
    """Return an event read as a large one is, whatever its size."""
    return events._load_long(text, max_characters)


def read_text(text: str, at: int, max_characters: int) -> tuple[str, int]:
    """Return a string of JSON read in pieces, and where it ends."""
    return events._read_text(text, at, max_characters)


def note_parsed(patch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the size of each piece of JSON is added that is read at once."""
    sizes: list[int] = []

    def note(function: Callable[..., object]) -> Callable[..., object]:
        def noted(text: str, *rest: object) -> object:
            sizes.append(len(text))
            found = function(text, *rest)
            if isinstance(found, tuple):
                sizes[-1] = found[1]  # so far it was read
            return found

        return noted

    patch.setattr(events, "_scan_text", note(events._scan_text))
    patch.setattr(events, "_scan_value", note(events._scan_value))
    patch.setattr(json, "loads", note(json.loads))
    return sizes


def note_events(patch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that grows with each look of a connection at what its parser makes."""
    seen: list[object] = []
    patch.setattr(http_connection.HttpConnection, "_next_event", lambda *given: seen.append(given))
    return seen


def note_split(patch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each header value is added that is taken apart."""
    seen: list[str] = []
    patch.setattr(media_types, "_split", lambda text, _: seen.append(text) or [])
    return seen


def bucket_of(rates: SenderRates, sender: str) -> Any:
    """Return what is kept of a sender."""
    return rates._buckets[sender]


def turn(fanout: FanOut) -> bool:
    """Let a fan-out whose thread does not run do one turn of its loop."""
    return fanout._turn()


def post_count(fanout: FanOut) -> int:
    """Return how many clients wait for something to be done for them."""
    return len(fanout._mailbox._posts) + len(fanout._taken) + len(fanout._again)
