"""What holds for ws and http holds for wss and https: the tests of both, once more over TLS.

Each test is the one of its own module; here the hub has a certificate, and every connection that a
test opens makes a handshake first. A cut without TLS's goodbye is an error to these clients.
"""

from __future__ import annotations

import functools
import socket
import ssl
from typing import Any

import pytest

import broadcast_server.hub.hub
from broadcast_server.settings import Settings

from ..hub import test_endpoints, test_handler, test_hub
from ..hub.delivery import test_fanout
from ..support import RawClient
from ..support.certificates import Certificates
from . import (
    test_delivery,
    test_handshake,
    test_raw_protocol,
    test_shutdown,
    test_subprotocol,
    test_websocket_server_defects,
)

AT_ONCE = [test_handler, test_endpoints, test_subprotocol]

pytestmark = pytest.mark.slow

IN_FULL = [
    test_delivery,
    test_fanout,
    test_handshake,
    test_hub,
    test_raw_protocol,
    test_shutdown,
    test_websocket_server_defects,
]
# They run a hub in another process, look at its URL, or have a client that connects by itself.
LEFT_OUT = {
    "test_claimed_length_reserves_no_memory",
    "test_curl_that_waits_for_100_gets_it",
    "test_curl_that_waits_for_100_is_told_413_instead",
    "test_interpreter_ends_although_nobody_stopped_the_hub",
    "test_ipv6_works",
    "test_memory_is_bounded_by_the_settings",
    "test_url_before_and_while_it_runs",
}


def _collect() -> dict[str, Any]:
    """Return the tests of the modules, and the fixtures that they use."""
    found: dict[str, Any] = {}
    for module in AT_ONCE + IN_FULL:
        for name, value in vars(module).items():
            if name.startswith("test_") and callable(value) and name not in LEFT_OUT:
                # A copy: a mark on the test itself would hold in its own module, too.
                copy = functools.wraps(value)(functools.partial(value))
                copy.pytestmark = list(getattr(value, "pytestmark", []))
                if module in IN_FULL:
                    copy.pytestmark.append(pytest.mark.stress.mark)
                found[f"{name}_{module.__name__.rpartition('.test_')[2]}"] = copy
            elif type(value).__name__ == "FixtureFunctionDefinition":
                found[name] = value
    return found


globals().update(_collect())


class Socket(ssl.SSLSocket):
    """Tests half-close a socket and go on reading, for which ``ssl`` has no call."""

    def shutdown(self, how: int) -> None:
        socket.socket.shutdown(self, how)


@pytest.fixture(autouse=True)
def over_tls(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every hub a certificate, and make a handshake on every connection to it."""
    context = certificates.client_context()
    context.sslsocket_class = Socket

    def wrap(sock: socket.socket) -> ssl.SSLSocket:
        try:
            return context.wrap_socket(
                sock, server_hostname="localhost", suppress_ragged_eofs=False
            )
        except BaseException:
            sock.close()
            raise

    open_plain = RawClient.open.__func__  # type: ignore[attr-defined]
    connect_plain = socket.create_connection

    def open_wrapped(cls: type[RawClient], *args: Any, **kwargs: Any) -> RawClient:
        client: RawClient = open_plain(cls, *args, **kwargs)
        client.sock = wrap(client.sock)
        return client

    monkeypatch.setattr(RawClient, "open", classmethod(open_wrapped))
    monkeypatch.setattr(
        socket, "create_connection", lambda *args, **kw: wrap(connect_plain(*args, **kw))
    )

    class WithCertificate(Settings):
        def __init__(self, **given: Any) -> None:
            super().__init__(**{**certificates.of_hub, **given})

    monkeypatch.setattr(broadcast_server.hub.hub, "Settings", WithCertificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))  # for publish()
