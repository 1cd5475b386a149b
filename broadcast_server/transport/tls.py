"""What TLS is set up with: the hub's certificate and key, and whom a client trusts.

A certificate that cannot be used is an error at the start, in one line that says which file and
why, and never a hub without TLS. Files are read anew when the hub is told to reload: connections
that are there go on, handshakes from then on are made with the new certificate, and if the new
files cannot be used the old ones stay.
"""

from __future__ import annotations

import os
import ssl
import urllib.parse

from ..arguments import FLAG, check_type
from ..errors import TlsError, UsageError
from ..records import get_logger

StrPath = str | os.PathLike[str]

logger = get_logger("broadcast_server.client")


class _Encrypted(Exception):
    """OpenSSL has asked for a password."""


def server_context(cert: str, key: str | None) -> ssl.SSLContext:
    """Return what a server makes handshakes with.

    Raises:
        TlsError: a file cannot be read or used; the text says which and why.
    """
    if b"-----BEGIN CERTIFICATE-----" not in _read(cert, "certificate"):
        raise TlsError(f"there is no certificate in PEM form in {cert}")
    if key is None and b"PRIVATE KEY-----" not in _read(cert, "certificate"):
        raise TlsError(f"the certificate {cert} needs a key: none was given, and none is in it")
    if key is not None and b"PRIVATE KEY-----" not in _read(key, "key"):
        raise TlsError(f"there is no private key in PEM form in {key}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client's wish to begin anew in the middle (TLS 1.2) costs it nothing and us much.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])

    def refuse() -> str:
        # Without this OpenSSL would ask whoever sits at the terminal, and wait.
        raise _Encrypted

    try:
        context.load_cert_chain(cert, key, password=refuse)
    except _Encrypted:
        raise TlsError(
            f"the key {key or cert} is encrypted: the hub needs one without a password"
        ) from None
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise TlsError(f"the key {key or cert} is not that of the certificate {cert}") from None
        files = cert if key is None else f"{cert} with the key {key}"
        raise TlsError(f"cannot use the certificate {files}: {reason(error)}") from None
    except OSError as error:  # it has gone since
        raise TlsError(f"cannot read {cert}: {error.strerror}") from None
    return context


def client_context(ca_file: StrPath | None = None, insecure: bool = False) -> ssl.SSLContext:
    """Return what a client makes handshakes with.

    Args:
        ca_file: a file of certificates in PEM form: only who has one of them, or one from them, is
            trusted; None for the authorities that the system trusts.
        insecure: trust everybody.

    Raises:
        TlsError: the file cannot be used.
        UsageError: both are given.
    """
    if ca_file is not None:
        if insecure:
            raise UsageError("ca_file says whom to trust and insecure to trust everybody: give one")
        _read(os.fspath(ca_file), "certificates")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise TlsError(f"there is no certificate in PEM form in {ca_file}") from None
    except OSError as error:
        raise TlsError(f"cannot read {ca_file}: {error.strerror}") from None
    if context.minimum_version < ssl.TLSVersion.TLSv1_2:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def context_for(
    url: str, ca_file: StrPath | None = None, insecure: bool = False
) -> ssl.SSLContext | None:
    """Return what a client makes handshakes with at an address; None if that wants no TLS.

    Raises:
        TlsError: the file cannot be used.
        UsageError: both are given; or one where nobody proves anything, and somebody may believe to
            be safe.
        TypeError: one of them has a wrong type.
    """
    check_type("ca_file", ca_file, (str, os.PathLike, None))
    check_type("insecure", insecure, FLAG)
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("wss", "https"):
        if ca_file is not None or insecure:
            what = "insecure" if ca_file is None else "ca_file"
            raise UsageError(f"{what} is of no use without TLS: the address must begin with wss://")
        return None
    context = client_context(ca_file, insecure)
    if insecure:
        logger.warning(
            "insecure: whoever answers as %s is believed, and may read and change everything",
            parts.netloc.rpartition("@")[2],
        )
    return context


def is_untrusted(error: BaseException | None) -> bool:
    """Tell whether a handshake has failed because the server's certificate is not valid."""
    return isinstance(error, ssl.SSLCertVerificationError)


def reason(error: ssl.SSLError) -> str:
    """Return in a few words why something of TLS has failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message.rstrip('.')}"
    # What OpenSSL makes of an answer that is not TLS at all.
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return "it does not speak TLS"
    if isinstance(error, ssl.SSLEOFError):
        return "it ended the connection in the middle of TLS"
    # The rest is spoken of by OpenSSL in capitals, or in a text with a place in its source.
    return (error.reason or error.strerror or str(error)).lower().replace("_", " ")


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise TlsError(f"cannot read the {what} {path}: {error.strerror}") from None
    except ValueError as error:  # a null character in the path
        raise TlsError(f"cannot read the {what} {path!r}: {error}") from None
