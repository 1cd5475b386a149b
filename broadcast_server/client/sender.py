"""What a client's user sends, on its way into the queue; and the hub's answers to it.

A message is encoded on the thread of who sends it and without the client's lock: a big one takes
its time. It has a `ref` if an answer is wanted, and a `key` if it may have to be sent again.
"""

from __future__ import annotations

from ..errors import BroadcastServerError, UsageError
from ..transport.deadlines import Deadline
from ..wire import client_events, frames
from ..wire.client_events import SUBPROTOCOL
from .arguments import checked_key
from .core import ClientCore
from .queues import Outgoing


class ClientSender:
    """Sends for one client. Any thread; the arguments and what is raised are those of
    ``BroadcastClient.send`` and ``publish``.

    Args:
        core: what the client's threads share.
    """

    def __init__(self, core: ClientCore) -> None:
        self._core = core

    def send(self, data: str | bytes, deadline: Deadline, key: str | None) -> None:
        """Queue a message when there is room."""
        item, speaks = self._encode(data, key, wanted=False)
        with self._core.lock:
            self._put_locked(item, speaks, deadline)

    def publish(self, data: str | bytes, deadline: Deadline, key: str | None) -> str:
        """Queue a message and wait for its id."""
        core = self._core
        if core.is_own_thread():
            raise UsageError("a callback must not wait for the hub")
        item, speaks = self._encode(data, key, wanted=True)
        assert item.ref is not None
        with core.lock:
            try:
                self._put_locked(item, speaks, deadline)
                core.answers[item.ref] = None
                while (answer := core.answers[item.ref]) is None:
                    if core.ended:
                        raise core.closed_locked()
                    core.wait_locked(
                        core.changed, deadline, "the hub does not answer", for_answer=True
                    )
            finally:  # Ctrl-C may come at any place
                core.answers.pop(item.ref, None)
        if isinstance(answer, BroadcastServerError):
            raise answer
        return answer

    def _put_locked(self, item: Outgoing, speaks: bool, deadline: Deadline) -> None:
        """Queue what was encoded, for a server that speaks events or one that does not."""
        self._core.await_room_locked(deadline)
        if speaks is not self._core.speaks:  # connecting has failed, and was tried again
            raise self._core.closed_locked()
        self._core.outbox.put_locked(item)

    def _encode(self, data: str | bytes, key: str | None, *, wanted: bool) -> tuple[Outgoing, bool]:
        """Return a message as it is sent, and whether the server is one that speaks events."""
        core = self._core
        if not isinstance(data, (str, bytes)):
            raise TypeError(f"data must be str or bytes, not {type(data).__name__}")
        checked_key(key)
        with core.lock:
            if core.link is None:
                raise core.closed_locked()
            speaks = core.speaks
        if not speaks:
            if wanted or key is not None:
                raise UsageError(f"the server does not speak {SUBPROTOCOL}")
            if isinstance(data, str):
                return Outgoing(frames.TEXT, data.encode("utf-8"), None), speaks
            return Outgoing(frames.BINARY, data, None), speaks
        ref = None
        # Without either a pipe costs the hub no acknowledgements.
        if core.reconnect or wanted:
            ref = next(core.refs)
            key = key or f"{core.key_prefix}-{ref}"
        return Outgoing(frames.TEXT, client_events.encode_send(data, ref, key), ref), speaks
