"""Certificates that the tests make for themselves, and clients that trust them."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import itertools
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from . import RawClient, running_hub

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub

HOSTS = ("localhost", "127.0.0.1", "::1")


class Certificates:
    """An authority and the certificates that it has given out, as files in PEM form.

    Attributes:
        ca: the file with the authority's certificate.
        cert, key: those of a server on this machine.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count(1)
        self._authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.ca = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))
        self.cert, self.key = self.issue(*HOSTS)

    def issue(self, *hosts: str, expired: bool = False) -> tuple[Path, Path]:
        """Return the files of a new certificate and its key."""
        end = datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone.utc) if expired else None
        issued = self._authority.issue_cert(*hosts, not_after=end, key_type=trustme.KeyType.ECDSA)
        number = next(self._numbers)
        cert, key = self._directory / f"cert{number}.pem", self._directory / f"key{number}.pem"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return cert, key

    def issue_old(self) -> tuple[Path, Path, Path]:
        """Return the files of an old authority's certificate, of a server's that does not say who
        has given it out (no Authority Key Identifier), and of the latter's key."""
        number = next(self._numbers)
        paths = [self._directory / f"old-{what}{number}.pem" for what in ("ca", "cert", "key")]
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old authority")])
        now = datetime.datetime.now(datetime.timezone.utc)
        hosts = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        builder = (
            x509.CertificateBuilder()
            .issuer_name(issuer)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        authority = (
            builder.subject_name(issuer)
            .public_key(keys[0].public_key())
            .serial_number(1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        server = (
            builder.subject_name(subject)
            .public_key(keys[1].public_key())
            .serial_number(2)
            .add_extension(hosts, critical=False)
        )
        for path, made in zip(paths, (authority, server), strict=False):
            path.write_bytes(made.sign(keys[0], hashes.SHA256()).public_bytes(Encoding.PEM))
        paths[2].write_bytes(
            keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return paths[0], paths[1], paths[2]

    @property
    def of_hub(self) -> dict[str, Any]:
        """The settings of a hub that uses the certificate."""
        return {"tls_cert": self.cert, "tls_key": self.key}

    def client_context(self) -> ssl.SSLContext:
        """Return a context that trusts the authority."""
        return ssl.create_default_context(cafile=self.ca)

    def server_context(self, *, asks: bool = False) -> ssl.SSLContext:
        """Return a context with the certificate; one that asks wants a client's, from the same
        authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        if asks:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def open(
        self, port: int, rcvbuf: int | None = None, context: ssl.SSLContext | None = None
    ) -> RawClient:
        """Return a connection after the TLS handshake; a cut without a goodbye is an error."""
        client = RawClient.open(port=port, rcvbuf=rcvbuf)
        try:
            client.sock = (context or self.client_context()).wrap_socket(
                client.sock, server_hostname="localhost", suppress_ragged_eofs=False
            )
        except BaseException:
            client.close()
            raise
        return client

    def connect(
        self,
        port: int,
        path: str = "/",
        rcvbuf: int | None = None,
        context: ssl.SSLContext | None = None,
    ) -> RawClient:
        """Return a connection after the upgrade."""
        client = self.open(port, rcvbuf, context)
        try:
            client.upgrade(path)
        except BaseException:
            client.close()
            raise
        return client

    @contextlib.contextmanager
    def hub(self, **settings: Any) -> Iterator[BroadcastHub]:
        """Run a hub that speaks TLS."""
        with running_hub(**self.of_hub, **settings) as hub:
            yield hub
