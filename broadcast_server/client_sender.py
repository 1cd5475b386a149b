"""What a client's user sends, on its way into the queue; and the hub's answers to it.

A message is encoded on the thread of who sends it and without the client's lock: a big one takes
its time. It has a `ref` if an answer is wanted, and a `key` if it may have to be sent again.
"""

from __future__ import annotations

from . import client_events, frames
from .client_arguments import checked_key
from .client_core import ClientCore
from .client_events import SUBPROTOCOL
from .client_queues import Outgoing
from .deadlines import Deadline
from .errors import SendRefused, UsageError


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
        self._queue(data, deadline, key, wanted=False)

    def publish(self, data: str | bytes, deadline: Deadline, key: str | None) -> str:
        """Queue a message and wait for its id."""
        core = self._core
        if core.is_own_thread():
            raise UsageError("a callback must not wait for the hub")
        ref = self._queue(data, deadline, key, wanted=True)
        assert ref is not None
        with core.lock:
            try:
                while (answer := core.answers[ref]) is None:
                    if core.ended:
                        raise core.closed_locked()
                    core.wait_locked(
                        core.changed, deadline, "the hub does not answer", for_answer=True
                    )
            finally:
                del core.answers[ref]
        if isinstance(answer, SendRefused):
            raise answer
        return answer

    def _queue(
        self, data: str | bytes, deadline: Deadline, key: str | None, *, wanted: bool
    ) -> int | None:
        """Queue a message; return its ref, if it has one."""
        core = self._core
        if not isinstance(data, (str, bytes)):
            raise TypeError(f"data must be str or bytes, not {type(data).__name__}")
        checked_key(key)
        with core.lock:
            if core.link is None:
                raise core.closed_locked()
            speaks = core.speaks
        item = self._encode(data, key, wanted, speaks)
        with core.lock:
            core.await_room_locked(deadline)
            if speaks is not core.speaks:  # connecting has failed, and was tried again
                raise core.closed_locked()
            if wanted:
                assert item.ref is not None
                core.answers[item.ref] = None
            core.outbox.put_locked(item)
        return item.ref

    def _encode(self, data: str | bytes, key: str | None, wanted: bool, speaks: bool) -> Outgoing:
        core = self._core
        if not speaks:
            if wanted or key is not None:
                raise UsageError(f"the server does not speak {SUBPROTOCOL}")
            if isinstance(data, str):
                return Outgoing(frames.TEXT, data.encode("utf-8"), None)
            return Outgoing(frames.BINARY, data, None)
        ref = None
        # Without either a pipe costs the hub no acknowledgements.
        if core.reconnect or wanted:
            ref = next(core.refs)
            key = key or f"{core.key_prefix}-{ref}"
        return Outgoing(frames.TEXT, client_events.encode_send(data, ref, key), ref)
