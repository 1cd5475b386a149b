"""Certificates and keys with a hub: what fails at the start, reloading, whom a client trusts."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from broadcast_server import (
    BroadcastClient,
    BroadcastHub,
    ConnectFailed,
    PublishFailed,
    TlsError,
    UsageError,
    publish,
)
from broadcast_server.transport import tls

from ..support import PYTHON, RawClient, running_hub, wait_until
from ..support.beside import during, in_thread
from ..support.certificates import Certificates
from ..support.command import assert_fails, environment, hub_command, run
from ..support.http_server import GOOD, answer, read_request
from ..support.inside import link_of, server_of, sessions_of
from ..support.raw_server import SUBPROTOCOL, listener, read_head, upgrade

pytestmark = pytest.mark.slow

SECONDS = 20.0


# Files that cannot be used.


def encrypted(key: Path, directory: Path) -> Path:
    """Return a copy of a key that wants a password."""
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    copy = directory / "encrypted.pem"
    copy.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    return copy


def bad_files(case: str, certificates: Certificates, directory: Path) -> tuple[Path, Path | None]:
    """Return a certificate and a key of which something is wrong."""
    cert, key = certificates.cert, certificates.key
    garbage = directory / "garbage.pem"
    garbage.write_bytes(bytes(range(256)))
    damaged = directory / "damaged.pem"
    damaged.write_bytes(cert.read_bytes().replace(b"\nMII", b"\nQUJD", 1))
    return {
        "no certificate": (directory / "missing.pem", key),
        "no key": (cert, directory / "missing.pem"),
        "certificate is a directory": (directory, key),
        "certificate is not PEM": (garbage, key),
        "key is not PEM": (cert, garbage),
        "certificate is damaged": (damaged, key),
        "certificate for a key": (cert, cert),
        "key for a certificate": (key, key),
        "another's key": (cert, certificates.issue("localhost")[1]),
        "key was not given": (cert, None),
        "key with a password": (cert, encrypted(key, directory)),
    }[case]


BAD = {
    "no certificate": "cannot read the certificate .*missing.pem: No such file or directory",
    "no key": "cannot read the key .*missing.pem: No such file or directory",
    "certificate is a directory": "cannot read the certificate .*: Is a directory",
    "certificate is not PEM": "no certificate in PEM form in .*garbage.pem",
    "key is not PEM": "no private key in PEM form in .*garbage.pem",
    "certificate is damaged": "cannot use the certificate .*damaged.pem with the key .*: ",
    "certificate for a key": "no private key in PEM form in ",
    "key for a certificate": "no certificate in PEM form in ",
    "another's key": "the key .* is not that of the certificate ",
    "key was not given": "the certificate .* needs a key: none was given, and none is in it",
    "key with a password": "the key .*encrypted.pem is encrypted: give one without a pass",
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_cannot_be_used_are_an_error(
    case: str, certificates: Certificates, tmp_path: Path
) -> None:
    """One line that says which file and why; the hub does not run, least of all without TLS."""
    cert, key = bad_files(case, certificates, tmp_path)
    hub = BroadcastHub(port=0, tls_cert=cert, tls_key=key)
    with pytest.raises(TlsError, match=BAD[case]) as raised:
        hub.start()
    assert "\n" not in str(raised.value) and "_ssl.c" not in str(raised.value)
    assert threading.active_count() == 1


def test_path_that_cannot_be_one_is_an_error(certificates: Certificates) -> None:
    """The system's own word for it is no OSError."""
    with pytest.raises(TlsError, match=r"cannot read the certificate 'a.x00b'"):
        BroadcastHub(port=0, tls_cert="a\0b", tls_key=certificates.key).start()


def test_key_may_be_in_the_file_of_the_certificate(
    certificates: Certificates, tmp_path: Path
) -> None:
    """As several programs want it."""
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.key.read_bytes() + certificates.cert.read_bytes())
    with running_hub(tls_cert=str(both)) as hub:
        certificates.connect(hub.port).leave()


@pytest.mark.parametrize("case", ["no certificate", "another's key", "key with a password"])
def test_start_without_a_good_certificate_is_one_line(
    case: str, certificates: Certificates, tmp_path: Path
) -> None:
    """Exit 1, and nobody is asked for a password."""
    cert, key = bad_files(case, certificates, tmp_path)
    files = ["--tls-cert", str(cert), "--tls-key", str(key)]
    result = run("start", "--port", "0", "--log-level", "error", *files)
    assert_fails(result, 1, str(cert if case == "no certificate" else key))


def test_start_with_a_key_alone_is_a_usage_error(certificates: Certificates) -> None:
    """Somebody believes that the hub has TLS."""
    key = str(certificates.key)
    result = run("start", "--port", "0", "--log-level", "error", "--tls-key", key)
    assert_fails(result, 2, "--tls-key is of no use without --tls-cert")


# A hub with a certificate.


def test_hub_calls_itself_wss(certificates: Certificates) -> None:
    """Its URL can be given to clients as it is."""
    with certificates.hub() as hub:
        assert hub.url == f"wss://127.0.0.1:{hub.port}/"
        with BroadcastClient(hub.url, ca_file=certificates.ca) as client:
            assert client.publish("x", timeout=SECONDS)
            assert [message.data for message in hub.history()] == ["x"]


def test_slow_handshakes_hold_up_nobody(certificates: Certificates) -> None:
    """They are made on the threads of the clients, and each in its time."""
    with certificates.hub(handshake_timeout=1.0) as hub, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(RawClient.open(port=hub.port)) for _ in range(50)]
        for number, client in enumerate(silent):
            client.sock.sendall(b"\x16\x03\x01\x02\x00\x01"[: number % 7])
        certificates.connect(hub.port).leave()
        for client in silent:
            with contextlib.suppress(ConnectionResetError):
                assert client.sock.recv(100) == b""


def test_stop_ends_a_handshake(certificates: Certificates) -> None:
    """It is no client yet, and gets no goodbye."""
    with certificates.hub() as hub, RawClient.open(port=hub.port) as client:
        client.sock.sendall(b"\x16")
        server = server_of(hub)
        assert wait_until(lambda: len(sessions_of(server)) == 1)
        hub.stop()
        with contextlib.suppress(ConnectionResetError):
            assert client.sock.recv(100) == b""


def test_what_is_no_tls_leaves_a_line_for_the_curious(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback, and nothing at all at the usual level: every port is knocked at."""
    with certificates.hub() as hub, caplog.at_level(logging.DEBUG, "broadcast_server"):
        for request in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SSH-2.0-x\r\n", bytes(64)):
            with RawClient.open(port=hub.port) as client:
                client.sock.sendall(request)
                with contextlib.suppress(ConnectionResetError):
                    while client.sock.recv(1000):
                        pass
        server = server_of(hub)
        assert wait_until(lambda: not sessions_of(server))
        assert server.core.refused == {"tls": 3}
        certificates.connect(hub.port).leave()
    lost = [record for record in caplog.records if "lost before it joined" in record.message]
    assert len(lost) == 3 and {record.levelno for record in lost} == {logging.DEBUG}
    assert all(record.exc_info is None for record in caplog.records)


def test_slow_reader_is_evicted_and_can_resume(certificates: Certificates) -> None:
    """As without TLS: the frame in progress is finished, the rest of it and Close decrypt."""
    size = 100_000
    with certificates.hub(room_log_bytes=8 << 20) as hub:
        fast = certificates.connect(hub.port, "/room")
        stalled = certificates.connect(hub.port, "/room", rcvbuf=4096)
        published: list[str] = []
        while hub.stats()["evictions"] == 0:
            message = hub.broadcast(len(published).to_bytes(4, "big") * (size // 4), room="/room")
            assert message.id is not None
            published.append(message.id)
            assert fast.recv_message() == (len(published) - 1).to_bytes(4, "big") * (size // 4)
            assert len(published) < 1000, "never evicted"
        got, code, reason = stalled.recv_until_close()
        assert got == [number.to_bytes(4, "big") * (size // 4) for number in range(len(got))]
        assert (code, reason) == (1013, f"since={published[len(got) - 1]}")
        stalled.close()
        back = certificates.connect(hub.port, f"/room?since={published[len(got) - 1]}")
        for number in range(len(got), len(published)):
            assert back.recv_message() == number.to_bytes(4, "big") * (size // 4)
        back.leave()
        fast.leave()


def test_heartbeat_finds_who_is_there(certificates: Certificates) -> None:
    """A pong is life; silence behind TLS is none."""
    left: list[tuple[str, int]] = []
    with certificates.hub(
        ping_interval=0.2,
        ping_timeout=0.5,
        on_leave=lambda member, code, reason: left.append((member.name, code)),
    ) as hub:
        alive = certificates.connect(hub.port, "/?name=alive")
        silent = certificates.connect(hub.port, "/?name=silent")
        pings = 0
        while not left:
            _, opcode, payload = alive.recv_frame()
            assert opcode == 0x9
            alive.send_frame(0xA, payload)
            pings += 1
        assert left == [("silent", 1011)] and pings >= 2
        assert silent.recv_frame()[1] == 0x9
        assert silent.recv_close() == (1011, "ping timeout")
        silent.close()
        alive.close()


def test_stop_says_goodbye_in_order(certificates: Certificates) -> None:
    """What was accepted, Close 1001, TLS's own goodbye, end of stream; SSE ends well, too."""
    with certificates.hub() as hub:
        client = certificates.connect(hub.port)
        reader = http.client.HTTPSConnection(
            "localhost", hub.port, context=certificates.client_context(), timeout=SECONDS
        )
        reader.request("GET", "/", headers={"Accept": "text/event-stream"})
        stream = reader.getresponse()
        message = hub.broadcast("last")
        stopping = threading.Thread(target=hub.stop)
        stopping.start()
        assert client.recv_message() == "last"
        assert client.recv_close()[0] == 1001
        client.send_close(1001)
        client.recv_eof()
        client.close()
        text = stream.read().decode()
        assert f"id: {message.id}\n" in text and "data: last\n" in text
        reader.close()
        stopping.join(SECONDS)
        assert not stopping.is_alive()


# Reloading.


def test_reload_is_for_handshakes_from_then_on(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is there goes on; bad files change nothing, and the error says which."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(certificates.cert, cert)
    shutil.copy(certificates.key, key)
    other = Certificates(tmp_path)
    with running_hub(tls_cert=cert, tls_key=key) as hub:
        old = certificates.connect(hub.port)

        shutil.copy(other.cert, cert)
        assert not hub.reload()
        (record,) = (r for r in caplog.records if r.levelno == logging.ERROR)
        assert record.message.startswith("cannot reload certificate, the old stays in use: the key")
        certificates.connect(hub.port).leave()

        shutil.copy(other.key, key)
        assert hub.reload()
        with pytest.raises(ssl.SSLCertVerificationError):
            certificates.connect(hub.port)
        new = other.connect(hub.port)
        new.send("hello")
        assert old.recv_message() == "hello"
        old.send(bytes(100_000))
        assert new.recv_message() == bytes(100_000)
        old.leave()
        new.leave()


def test_sighup_takes_the_new_certificate(certificates: Certificates, tmp_path: Path) -> None:
    """As a renewal does it: who is connected does not notice."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(certificates.cert, cert)
    shutil.copy(certificates.key, key)
    other = Certificates(tmp_path)
    tls = ("--tls-cert", str(cert), "--tls-key", str(key))
    with hub_command("start", "--port", "0", "--log-level", "error", *tls) as hub:
        assert hub.line.startswith(f"Listening on wss://127.0.0.1:{hub.port}/")
        old = certificates.connect(hub.port)
        shutil.copy(other.cert, cert)
        shutil.copy(other.key, key)
        hub.process.send_signal(signal.SIGHUP)

        def is_new() -> bool:
            try:
                other.open(hub.port).close()
            except ssl.SSLCertVerificationError:
                return False
            return True

        assert wait_until(is_new, SECONDS)
        old.sync()
        hub.process.send_signal(signal.SIGTERM)
        assert old.recv_close()[0] == 1001
        old.close()
        _, log = hub.process.communicate(timeout=SECONDS)
        assert (hub.process.returncode, log) == (0, "")


# Whom a client trusts.


def refused(url: str, **arguments: object) -> ConnectFailed:
    """Return with what a connection is refused."""
    with pytest.raises(ConnectFailed) as raised:
        BroadcastClient(url, **arguments).connect()  # type: ignore[arg-type]
    return raised.value


def test_client_trusts_whom_it_is_told_to(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a stranger's authority, nor a certificate for another host; or it says so."""
    with certificates.hub() as hub:
        error = refused(hub.url)
        assert error.untrusted and error.status is None
        assert "its certificate is not valid: " in str(error) and "_ssl.c" not in str(error)
        assert caplog.records == []
        with BroadcastClient(hub.url, insecure=True) as client:
            assert client.publish("x", timeout=SECONDS)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING and record.message.startswith("insecure: ")


def test_certificate_for_another_host_is_not_valid(
    certificates: Certificates, tmp_path: Path
) -> None:
    """Nor one whose time is over; the error says what is wrong."""
    cert, key = certificates.issue("other.example")
    with running_hub(tls_cert=cert, tls_key=key) as hub:
        error = refused(hub.url, ca_file=certificates.ca)
        assert error.untrusted and "mismatch" in str(error)
    cert, key = certificates.issue("127.0.0.1", expired=True)
    with running_hub(tls_cert=cert, tls_key=key) as hub:
        error = refused(hub.url, ca_file=certificates.ca)
        assert error.untrusted and "expired" in str(error)


def test_client_tells_tls_from_none(certificates: Certificates) -> None:
    """Each way round, in words that say what to change."""
    with running_hub() as hub:
        error = refused(hub.url.replace("ws:", "wss:"))
        assert "it does not speak TLS" in str(error) and not error.untrusted
    with certificates.hub() as hub:
        error = refused(hub.url.replace("wss:", "ws:"))
        assert error.status == 400 and "this port speaks TLS: use https or wss" in str(error)


def test_redirect_is_not_followed_over_tls(certificates: Certificates) -> None:
    """It might lead to a place without TLS, and what is secret would go along."""

    answer = b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"

    def redirect(listening: socket.socket) -> None:
        with certificates.server_context().wrap_socket(
            listening.accept()[0], server_side=True
        ) as server:
            assert server.recv(4096).endswith(b"\r\n\r\n")
            server.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(SECONDS)
        thread = threading.Thread(target=redirect, args=(listening,))
        thread.start()
        error = refused(f"wss://localhost:{listening.getsockname()[1]}/", ca_file=certificates.ca)
        thread.join(SECONDS)
    assert error.status == 302 and "the answer is HTTP status 302" in str(error)


def test_arguments_that_help_nobody_are_mistakes(certificates: Certificates) -> None:
    """Where somebody would feel safe who is not."""
    for arguments in ({"ca_file": certificates.ca}, {"insecure": True}):
        with pytest.raises(UsageError, match=r"of no use without TLS.*wss://"):
            BroadcastClient("ws://127.0.0.1:1/", **arguments)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="of no use without TLS"):
            publish("http://127.0.0.1:1/", "x", **arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="give one"):
        BroadcastClient("wss://127.0.0.1:1/", ca_file=certificates.ca, insecure=True)
    cert = certificates.cert
    for arguments in ({"cert_file": cert}, {"ssl_context": ssl.create_default_context()}):
        with pytest.raises(UsageError, match="of no use without TLS"):
            BroadcastClient("ws://127.0.0.1:1/", **arguments)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="of no use without TLS"):
            publish("http://127.0.0.1:1/", "x", **arguments)  # type: ignore[arg-type]


BAD_TRUST: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"key_file": "k"}, UsageError, "give its cert_file"),
    ({"ssl_context": True}, TypeError, "ssl_context must be an ssl.SSLContext, not bool"),
    ({"cert_file": 5}, TypeError, "int"),
    ({"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, UsageError, "is for a server"),
    *(
        ({"ssl_context": ssl.create_default_context(), name: value}, UsageError, f"{name}, not")
        for name, value in (
            ("ca_file", "f"),
            ("insecure", True),
            ("cert_file", "f"),
            ("key_file", "f"),
        )
    ),
]


@pytest.mark.parametrize(("arguments", "kind", "words"), BAD_TRUST)
def test_trust_that_contradicts_itself_is_a_mistake(
    arguments: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """At the call, before anything is read or sent."""
    with pytest.raises(kind, match=words):
        BroadcastClient("wss://127.0.0.1:1/", **arguments)
    with pytest.raises(kind, match=words):
        publish("https://127.0.0.1:1/", "x", **arguments)


@pytest.mark.parametrize("case", BAD)
def test_certificate_of_a_client_that_cannot_be_used_is_an_error(
    case: str, certificates: Certificates, tmp_path: Path
) -> None:
    """In the words that a hub has for its own; nobody is asked for a password."""
    cert, key = bad_files(case, certificates, tmp_path)
    with pytest.raises(TlsError, match=BAD[case]):
        BroadcastClient("wss://127.0.0.1:1/", cert_file=cert, key_file=key)
    with pytest.raises(TlsError, match=BAD[case]):
        publish("wss://127.0.0.1:1/", "x", cert_file=cert, key_file=key)


@pytest.mark.parametrize("content", [None, b"", b"\x30\x82garbage", b"-----BEGIN CERTIFICATE-----"])
def test_ca_file_that_cannot_be_used_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    """Before anything is sent."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TlsError, match=r"ca\.pem"):
        tls.client_context(path)


def test_client_does_not_come_back_to_a_stranger(
    certificates: Certificates, tmp_path: Path
) -> None:
    """A certificate that is not valid will not be so a moment later: the client ends."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(certificates.cert, cert)
    shutil.copy(certificates.key, key)
    other = Certificates(tmp_path)
    with running_hub(tls_cert=cert, tls_key=key) as hub:
        client = BroadcastClient(hub.url, ca_file=certificates.ca, max_reconnect_delay=0.01)
        with client:
            shutil.copy(other.cert, cert)
            shutil.copy(other.key, key)
            link = link_of(client)
            assert hub.reload() and link is not None
            link.channel.abort()
            with pytest.raises(ConnectFailed, match="certificate is not valid") as raised:
                client.recv(SECONDS)
            assert raised.value.untrusted and client.state == "closed"


def test_client_comes_back_over_tls(certificates: Certificates) -> None:
    """With its session, and nothing lost or doubled."""
    with certificates.hub() as hub:
        with BroadcastClient(hub.url, ca_file=certificates.ca, max_reconnect_delay=0.01) as client:
            old = link_of(client)
            assert old is not None
            hub.broadcast("one")
            assert client.recv(SECONDS).data == "one"
            old.channel.abort()
            hub.broadcast("two")
            assert client.recv(SECONDS).data == "two"
            assert link_of(client) is not old


def test_publish_over_tls(certificates: Certificates) -> None:
    """One request; who is not trusted gets nothing."""
    with certificates.hub() as hub:
        for url in (hub.url, hub.url.replace("wss", "https")):
            assert publish(url, "x", ca_file=certificates.ca)
            assert publish(url, "x", insecure=True)
            with pytest.raises(PublishFailed, match="certificate is not valid") as raised:
                publish(url, "x")
            assert raised.value.status is None
        assert len(hub.history()) == 4


# What a client shows.


@contextlib.contextmanager
def asking_server(certificates: Certificates, answered: bytes, count: int = 1) -> Iterator[str]:
    """Run a server that wants to see a certificate, and gives an answer to so many requests; return
    its address without a scheme."""

    def serve(listening: socket.socket) -> None:
        context = certificates.server_context(asks=True)
        for _ in range(count):
            sock, _ = listening.accept()
            sock.settimeout(SECONDS)
            with sock, contextlib.suppress(ssl.SSLError):
                with context.wrap_socket(sock, server_side=True) as served:
                    with served.makefile("rb") as file:
                        assert read_request(file).headers and served.getpeercert()
                    served.sendall(answered)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(SECONDS)
        with during(serve, listening):
            yield f"localhost:{listening.getsockname()[1]}/"


@pytest.mark.parametrize("way", ["two files", "one file", "context"])
def test_client_shows_its_certificate(way: str, certificates: Certificates, tmp_path: Path) -> None:
    """To a server, or a proxy before a hub, that asks for one."""
    cert, key = certificates.issue("ann.example")
    both = tmp_path / "both.pem"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    context = certificates.client_context()
    context.load_cert_chain(cert, key)
    ca = {"ca_file": certificates.ca}
    shown: dict[str, Any] = {
        "two files": {**ca, "cert_file": cert, "key_file": str(key)},
        "one file": {**ca, "cert_file": str(both)},
        "context": {"ssl_context": context},
    }[way]
    with asking_server(certificates, GOOD) as place:
        assert publish(f"https://{place}", "x", **shown) == "7-0"
    with asking_server(certificates, answer("", "418 x")) as place:
        assert refused(f"wss://{place}", **shown).status == 418


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_whose_certificate_is_not_taken_is_told(
    version: ssl.TLSVersion, certificates: Certificates, tmp_path: Path
) -> None:
    """It has none, or one from a stranger; nothing was delivered."""
    stranger = Certificates(tmp_path)
    none = certificates.client_context()
    other = certificates.client_context()
    other.load_cert_chain(stranger.cert, stranger.key)
    for context in (none, other):
        context.maximum_version = version
        with asking_server(certificates, GOOD, 2) as place:
            with pytest.raises(PublishFailed) as failed:
                publish(f"https://{place}", "x", ssl_context=context)
            assert failed.value.status is None and not failed.value.maybe_delivered
            error = refused(f"wss://{place}", ssl_context=context)
        assert not error.untrusted
        for text in (str(failed.value), str(error)):
            if context is other:
                assert "it does not accept the certificate that was shown: unknown ca" in text
            elif version is ssl.TLSVersion.TLSv1_3:
                assert "it asks for a certificate, and none was shown" in text


def test_client_does_not_come_back_where_its_certificate_is_not_taken(
    certificates: Certificates,
) -> None:
    """It will not be taken a moment later: the client ends, and many messages are not repeated."""
    with listener() as listening:
        url = f"wss://localhost:{listening.port}/room"
        client = BroadcastClient(url, ca_file=certificates.ca, max_reconnect_delay=0.01)
        connecting = in_thread(client.connect)
        sock, _ = listening.sock.accept()
        sock = certificates.server_context().wrap_socket(sock, server_side=True)
        with sock:
            server = upgrade(sock, read_head(sock), SUBPROTOCOL)
            server.welcome()
            connecting.result(SECONDS)
        sock, _ = listening.sock.accept()
        with sock, contextlib.suppress(ssl.SSLError):
            with certificates.server_context(asks=True).wrap_socket(sock, server_side=True) as sock:
                sock.recv(1)
        with pytest.raises(ConnectFailed, match="asks for a certificate"):
            client.recv(SECONDS)
        assert client.state == "closed"


def test_context_of_the_program_is_used_as_it_is(certificates: Certificates) -> None:
    """Also when the client comes back."""
    context = certificates.client_context()
    with certificates.hub() as hub:
        with BroadcastClient(hub.url, ssl_context=context, max_reconnect_delay=0.01) as client:
            old = link_of(client)
            assert old is not None
            old.channel.abort()
            hub.broadcast("one")
            assert client.recv(SECONDS).data == "one"
        assert publish(hub.url, "x", ssl_context=context)
        with pytest.raises(PublishFailed, match="certificate is not valid"):
            publish(hub.url, "x", ssl_context=ssl.create_default_context())


# What Python 3.13 is strict about. Older ones are as strict when they are told to.


def strict(context: ssl.SSLContext) -> ssl.SSLContext:
    """Have a context check what Python 3.13 checks by itself."""
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def test_certificate_that_is_too_old_for_a_strict_check_is_told(
    certificates: Certificates,
) -> None:
    """With the page that says what to do; what it says helps."""
    ca, cert, key = certificates.issue_old()
    context = strict(ssl.create_default_context(cafile=ca))
    with running_hub(tls_cert=cert, tls_key=key) as hub:
        error = refused(hub.url, ssl_context=context)
        assert error.untrusted
        with pytest.raises(PublishFailed) as failed:
            publish(hub.url, "x", ssl_context=context)
        for text in (str(error), str(failed.value)):
            assert "not valid: Missing Authority Key Identifier; Python 3.13 and newer" in text
            assert "docs/howto/tls.md" in text
        # The hub's own certificate is trusted, or a program says how strict it is.
        assert publish(hub.url, "x", ssl_context=strict(ssl.create_default_context(cafile=cert)))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        assert publish(hub.url, "x", ssl_context=context)


def test_ca_file_may_be_the_certificate_of_the_hub(certificates: Certificates) -> None:
    """Without its authority's, which may be too old; that of another server helps nobody."""
    ca, cert, key = certificates.issue_old()
    with running_hub(tls_cert=cert, tls_key=key) as hub:
        assert publish(hub.url, "x", ca_file=cert)
        if sys.version_info >= (3, 13):
            assert "Missing Authority Key Identifier" in str(refused(hub.url, ca_file=ca))
        else:
            assert publish(hub.url, "x", ca_file=ca)
        assert refused(hub.url, ca_file=certificates.cert).untrusted


# The commands.


def connect(
    *arguments: str, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Send one line through the command."""
    return subprocess.run(
        [PYTHON, "-m", "broadcast_server", "connect", *arguments],
        env=environment(variables),
        input="hello\n",
        text=True,
        capture_output=True,
        timeout=SECONDS,
    )


def test_connect_and_who_over_tls(certificates: Certificates) -> None:
    """With the authority as an option or a variable."""
    with certificates.hub() as hub:
        with certificates.connect(hub.port, "/?name=ann") as ann:
            result = connect(hub.url, "--ca-file", str(certificates.ca))
            assert (result.returncode, result.stderr) == (0, "")
            assert ann.recv_message() == "hello"
            variables = {"BROADCAST_SERVER_CA_FILE": str(certificates.ca)}
            result = connect(hub.url, variables=variables)
            assert (result.returncode, result.stderr) == (0, "")
            result = run("who", hub.url.removesuffix("/"), variables=variables)
            assert (result.returncode, result.stderr) == (0, "") and "ann" in result.stdout


def test_publish_and_listen_over_tls(certificates: Certificates) -> None:
    """Over one connection each; what was published is heard."""
    ca = ("--ca-file", str(certificates.ca))
    with certificates.hub() as hub:
        result = run("publish", hub.url, *ca, "-", stdin=None, input="one\ntwo\n")
        assert (result.returncode, result.stderr) == (0, "")
        result = run("listen", hub.url, *ca, "--history", "2", "--count", "2")
        assert (result.returncode, result.stdout, result.stderr) == (0, "one\ntwo\n", "")


CLIENT_COMMANDS = ["connect", "who", "listen", "publish"]


def ask(command: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a client command, which publishes something if it publishes."""
    return run(command, *arguments, *(["hello"] if command == "publish" else []), **options)


@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_stranger_is_one_line_and_exit_1(command: str, certificates: Certificates) -> None:
    """It says what is wrong with the certificate, and what to do."""
    with certificates.hub() as hub:
        assert_fails(ask(command, hub.url), 1, "its certificate is not valid: ", "--ca-file")


@pytest.mark.parametrize("level", ["error", "warning"])
def test_insecure_says_so_every_time(level: str, certificates: Certificates) -> None:
    """In one line, at whatever level the log is."""
    with certificates.hub() as hub:
        result = connect(hub.url, "--insecure", "--log-level", level)
        assert result.returncode == 0
        (line,) = result.stderr.splitlines()
        assert line.startswith("broadcast-server connect: warning: INSECURE: ")
        result = run("who", hub.url.removesuffix("/"), variables={"BROADCAST_SERVER_INSECURE": "1"})
        assert result.returncode == 0 and len(result.stderr.splitlines()) == 1
        assert "INSECURE" in result.stderr


@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_options_of_tls_want_tls(command: str, certificates: Certificates) -> None:
    """Given for an address without it they are a mistake; a variable is for all addresses."""
    ca = str(certificates.ca)
    assert_fails(ask(command, "ws://127.0.0.1:1/", "--ca-file", ca), 2, "--ca-file", "wss://")
    assert_fails(ask(command, "--port", "1", "--insecure"), 2, "--insecure", "wss://")
    variables = {"BROADCAST_SERVER_CA_FILE": ca, "BROADCAST_SERVER_INSECURE": "yes"}
    assert_fails(ask(command, "ws://127.0.0.1:1/", variables=variables), 1, "refused")
    both = ask(command, "wss://127.0.0.1:1/", variables=variables)
    assert_fails(both, 2, "BROADCAST_SERVER_CA_FILE and BROADCAST_SERVER_INSECURE")
    assert_fails(ask(command, "wss://127.0.0.1:1/", "--ca-file", os.devnull), 1, os.devnull)
    bad = {"BROADCAST_SERVER_INSECURE": "maybe"}
    assert_fails(ask(command, "wss://127.0.0.1:1/", variables=bad), 2, "neither 1 nor 0")


@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_command_shows_a_certificate(command: str, certificates: Certificates) -> None:
    """By options or variables; the key may be called ``--key``, also beside that of a message."""
    cert, key = map(str, certificates.issue("ann.example"))
    teapot = answer("", "418 x")
    variables = {
        "BROADCAST_SERVER_CERT": cert,
        "BROADCAST_SERVER_CERT_KEY": key,
        "BROADCAST_SERVER_CA_FILE": str(certificates.ca),
    }
    ca = ("--ca-file", str(certificates.ca))
    with asking_server(certificates, teapot, 3) as place:
        url = f"wss://{place}"
        for arguments in (("--cert-key", key), ("--key", key)):
            assert_fails(ask(command, url, *ca, "--cert", cert, *arguments), 1, "418")
        assert_fails(ask(command, url, variables=variables), 1, "418")
    with asking_server(certificates, GOOD) as place:
        result = ask(command, f"wss://{place}", *ca)
        assert result.returncode == 1
        assert "it asks for a certificate, and none was shown" in result.stderr


def test_key_of_a_message_is_not_that_of_a_certificate(
    certificates: Certificates, tmp_path: Path
) -> None:
    """Unless it is a file with a private key, and no other key is named."""
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.key.read_bytes() + certificates.cert.read_bytes())
    tls = ("--ca-file", str(certificates.ca), "--cert")
    with certificates.hub() as hub:
        for _ in range(2):
            result = run("publish", hub.url, *tls, str(both), "--key", "k", "x")
            assert (result.returncode, result.stderr) == (0, "")
            key = ("--cert-key", str(certificates.key), "--key", str(both))
            result = run("publish", hub.url, *tls, str(certificates.cert), *key, "y")
            assert (result.returncode, result.stderr) == (0, "")
        assert [message.data for message in hub.history()] == ["x", "y"]


@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_certificate_that_a_command_cannot_show_is_one_line(
    command: str, certificates: Certificates
) -> None:
    """What is of no use is a mistake; a file that cannot be used is told."""
    cert, key = str(certificates.cert), str(certificates.key)
    assert_fails(ask(command, "ws://127.0.0.1:1/", "--cert", cert), 2, "--cert", "wss://")
    assert_fails(ask(command, "wss://127.0.0.1:1/", "--cert-key", key), 2, "--cert-key", "--cert ")
    assert_fails(ask(command, "wss://127.0.0.1:1/", "--cert", cert), 1, cert, "needs a key")
    assert_fails(ask(command, "wss://127.0.0.1:1/", "--cert", "none.pem"), 1, "none.pem")
