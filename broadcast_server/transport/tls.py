"""What TLS is set up with: the hub's certificate and key, whom a client trusts and what it shows.

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

# Where to read what to do about certificates that are too old for Python 3.13.
STRICT_PAGE = "docs/howto/tls.md"


# What Python 3.13 and newer refuse, and older ones do not (VERIFY_X509_STRICT): from
# X509_V_ERR_PATHLEN_INVALID_FOR_NON_CA to X509_V_ERR_EC_KEY_EXPLICIT_PARAMS.
_STRICT_CODES = range(80, 95)
# Alerts (RFC 8446 §6.2) about the certificate that a client has shown, or has not.
_CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")


class _Encrypted(Exception):
    """OpenSSL has asked for a password."""


def server_context(cert: str, key: str | None) -> ssl.SSLContext:
    """Return what a server makes handshakes with.

    Raises:
        TlsError: a file cannot be read or used; the text says which and why.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client's wish to begin anew in the middle (TLS 1.2) costs it nothing and us much.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, cert, key)
    return context


def _load(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    """Have a context show a certificate.

    Raises:
        TlsError: a file cannot be read or used; the text says which and why.
    """
    content = _read(cert, "certificate")
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise TlsError(f"there is no certificate in PEM form in {cert}")
    if key is None and b"PRIVATE KEY-----" not in content:
        raise TlsError(f"the certificate {cert} needs a key: none was given, and none is in it")
    if key is not None and b"PRIVATE KEY-----" not in _read(key, "key"):
        raise TlsError(f"there is no private key in PEM form in {key}")

    def refuse() -> str:
        # Without this OpenSSL would ask whoever sits at the terminal, and wait.
        raise _Encrypted

    try:
        context.load_cert_chain(cert, key, password=refuse)
    except _Encrypted:
        raise TlsError(f"the key {key or cert} is encrypted: give one without a password") from None
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise TlsError(f"the key {key or cert} is not that of the certificate {cert}") from None
        files = cert if key is None else f"{cert} with the key {key}"
        raise TlsError(f"cannot use the certificate {files}: {reason(error)}") from None
    except OSError as error:  # it has gone since
        raise TlsError(f"cannot read {cert}: {error.strerror}") from None


def client_context(
    ca_file: StrPath | None = None,
    insecure: bool = False,
    cert_file: StrPath | None = None,
    key_file: StrPath | None = None,
) -> ssl.SSLContext:
    """Return what a client makes handshakes with.

    Args:
        ca_file: a file of certificates in PEM form: only who has one of them, or one from them, is
            trusted; None for the authorities that the system trusts.
        insecure: trust everybody.
        cert_file: what is shown to a server that asks for a certificate; None for nothing.
        key_file: its key; None if that is in the file of the certificate.

    Raises:
        TlsError: a file cannot be used.
        UsageError: the first two are given, or a key without a certificate.
    """
    if key_file is not None and cert_file is None:
        raise UsageError("key_file is the key of a certificate: give its cert_file as well")
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
    if ca_file is not None:
        # A certificate in the file is trusted although the file has not its authority's; Python
        # 3.13 does so by itself.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if context.minimum_version < ssl.TLSVersion.TLSv1_2:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        _load(context, os.fspath(cert_file), None if key_file is None else os.fspath(key_file))
    return context


def context_for(
    url: str,
    ca_file: StrPath | None = None,
    insecure: bool = False,
    *,
    cert_file: StrPath | None = None,
    key_file: StrPath | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> ssl.SSLContext | None:
    """Return what a client makes handshakes with at an address; None if that wants no TLS.

    Args:
        ssl_context: takes the place of all the others; it is used as it is.

    Raises:
        TlsError: a file cannot be used.
        UsageError: two contradict each other; or one is given where nobody proves anything, and
            somebody may believe to be safe.
        TypeError: one of them has a wrong type.
    """
    for what, value in (("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)):
        check_type(what, value, (str, os.PathLike, None))
    check_type("insecure", insecure, FLAG)
    others = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
    given = [name for name, value in others.items() if value is not None]
    given += ["insecure"] * insecure
    if ssl_context is not None:
        if not isinstance(ssl_context, ssl.SSLContext):
            raise TypeError(
                f"ssl_context must be an ssl.SSLContext, not {type(ssl_context).__name__}"
            )
        if given:
            raise UsageError(f"give ssl_context or {given[0]}, not both: a context has its own")
        if ssl_context.protocol == ssl.PROTOCOL_TLS_SERVER:
            raise UsageError(
                "ssl_context is for a server: make one for a client, as "
                "ssl.create_default_context() does"
            )
        given = ["ssl_context"]
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("wss", "https"):
        if given:
            raise UsageError(
                f"{given[0]} is of no use without TLS: the address must begin with wss://"
            )
        return None
    if ssl_context is not None:
        return ssl_context
    context = client_context(ca_file, insecure, cert_file, key_file)
    if insecure:
        logger.warning(
            "insecure: whoever answers as %s is believed, and may read and change everything",
            parts.netloc.rpartition("@")[2],
        )
    return context


def is_untrusted(error: BaseException | None) -> bool:
    """Tell whether a handshake has failed because the server's certificate is not valid."""
    return isinstance(error, ssl.SSLCertVerificationError)


def is_refused(error: BaseException | None) -> bool:
    """Tell whether the server has refused the client for its certificate, or for having none: then
    it has taken no request."""
    why = (isinstance(error, ssl.SSLError) and error.reason) or ""
    return "ALERT" in why and any(word in why for word in _CERTIFICATE_ALERTS)


def reason(error: ssl.SSLError) -> str:
    """Return in a few words why something of TLS has failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"its certificate is not valid: {error.verify_message.rstrip('.')}"
        if error.verify_code in _STRICT_CODES:
            text += f"; Python 3.13 and newer require it ({STRICT_PAGE} says what to do)"
        return text
    if is_refused(error):
        assert error.reason is not None
        alert = error.reason.partition("ALERT_")[2].lower().replace("_", " ")
        if alert == "certificate required":
            return "it asks for a certificate, and none was shown"
        return f"it does not accept the certificate that was shown: {alert}"
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
