"""The hub's own tokens and keys: what files may hold, and which token gives what."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import logging
import pathlib
import time
from typing import Any

import pytest

from broadcast_server import AccessError, AccessRequest, Grant, Refusal
from broadcast_server.hub.http.keyring import AUDIENCE, LEEWAY_SECONDS, Keyring, read_key
from broadcast_server.secret_files import MAX_FILE_BYTES
from broadcast_server.settings import Settings

from ...support import needs_module, run_python

jwt = needs_module("jwt")
serialization = needs_module("cryptography.hazmat.primitives.serialization")
ec = needs_module("cryptography.hazmat.primitives.asymmetric.ec")
rsa = needs_module("cryptography.hazmat.primitives.asymmetric.rsa")
ed25519 = needs_module("cryptography.hazmat.primitives.asymmetric.ed25519")

SECRET = b"0123456789abcdef0123456789abcdef"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def public(key: Any, form: str = "PEM") -> bytes:
    """Return the public half of a key."""
    encoding = getattr(serialization.Encoding, form)
    found: bytes = key.public_key().public_bytes(
        encoding, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


def private(key: Any) -> bytes:
    """Return a key that nobody should give to the hub."""
    found: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return found


def sign(key: Any = SECRET, algorithm: str = "HS256", **changed: Any) -> str:
    """Return a token; a claim that is None is left out."""
    rights = {"subscribe": ["/r"], "publish": ["/r"]}
    claims = {"sub": "ann", "exp": time.time() + 600, "broadcast": rights} | changed
    kept = {name: value for name, value in claims.items() if value is not None}
    found: str = jwt.encode(kept, key, algorithm)
    return found


def forge(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None) -> str:
    """Return a token made by hand, as no library would: signed with HMAC, or not at all."""
    parts = [json.dumps(part).encode() for part in (header, claims)]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = b"" if secret is None else hmac.digest(secret, text, hashlib.sha256)
    return (text + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


def ask(
    keyring: Keyring, token: str | None, action: Any = "subscribe", room: str | None = "/r"
) -> Grant | Refusal:
    return keyring.authorize(AccessRequest(action, room, token, "127.0.0.1:1"))


def status(found: Grant | Refusal) -> int:
    return found.status if isinstance(found, Refusal) else 200


# -- Shared secrets ----------------------------------------------------------------------------

READ, WRITE = Grant(publish=()), Grant()


@pytest.mark.parametrize(
    ("settings", "shown", "action", "expected"),
    [
        ({"token": "t"}, None, "subscribe", 401),
        ({"token": "t"}, None, "publish", 401),
        ({"token": "t"}, "t", "subscribe", WRITE),
        ({"token": "t"}, "t", "look", WRITE),
        ({"token": "t"}, "T", "subscribe", 401),
        ({"token": "t"}, "", "subscribe", 401),
        ({"token": "t"}, "tt", "subscribe", 401),
        ({"token": "t"}, "\u00e9\udc80", "subscribe", 401),
        ({"publish_token": "p"}, None, "subscribe", READ),
        ({"publish_token": "p"}, None, "publish", 401),
        ({"publish_token": "p"}, None, "look", 401),
        ({"publish_token": "p"}, "p", "publish", WRITE),
        ({"publish_token": "p"}, "x", "subscribe", 401),
        ({"token": "t", "publish_token": "p"}, None, "subscribe", 401),
        ({"token": "t", "publish_token": "p"}, "t", "subscribe", READ),
        ({"token": "t", "publish_token": "p"}, "p", "subscribe", WRITE),
        ({"token": "t", "publish_token": "t"}, "t", "subscribe", WRITE),
        ({"publish_token": "p", "jwt_key": SECRET}, None, "subscribe", 401),
        ({"publish_token": "p", "jwt_key": SECRET}, "p", "subscribe", WRITE),
        ({"token": "t", "jwt_key": SECRET}, "t", "subscribe", WRITE),
        ({"token": "t", "jwt_key": SECRET}, "x", "subscribe", 401),
    ],
)
def test_shared_secrets_give_rights(
    settings: dict[str, Any], shown: str | None, action: str, expected: Grant | int
) -> None:
    """A wrong token is refused also where none would be needed."""
    found = ask(Keyring(Settings(**settings)), shown, action)
    assert (found.status if isinstance(found, Refusal) else found) == expected


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one, as bytes and by hmac, whichever of them it is."""
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def note(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", note)
    keyring = Keyring(Settings(token="first", publish_token="second"))
    for shown in ("first", "second", "third"):
        compared.clear()
        ask(keyring, shown)
        assert compared == [(b"second", shown.encode()), (b"first", shown.encode())]


def test_file_has_a_token_in_each_line(tmp_path: pathlib.Path) -> None:
    """So that a new one can be given out before the old one is taken back."""
    path = tmp_path / "tokens"
    path.write_bytes(b"\n  old \r\nnew")
    path.chmod(0o600)
    keyring = Keyring(Settings(token_file=path))
    assert [status(ask(keyring, token)) for token in ("old", "new", "ol", "old new")] == [
        200,
        200,
        401,
        401,
    ]


@pytest.mark.parametrize("field", ["token_file", "publish_token_file", "jwt_key_file"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read {path}: No such file or directory"),
        (b"", "{path} is empty"),
        (b" \n\t\n", "{path} is empty"),
        (b"x" * (MAX_FILE_BYTES + 1), "{path} has more than 65536 bytes"),
    ],
)
def test_file_that_cannot_be_used_is_an_error(
    tmp_path: pathlib.Path, field: str, content: bytes | None, words: str
) -> None:
    """Named, in one line: nobody is let in by a file that is not there."""
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    settings: dict[str, Any] = {field: path}
    with pytest.raises(AccessError) as caught:
        Keyring(Settings(**settings))
    assert str(caught.value) == words.format(path=path)


@pytest.mark.parametrize("content", ["two words", "\u00fcber", "a\x00b"])
def test_token_that_no_header_could_carry_is_an_error(tmp_path: pathlib.Path, content: str) -> None:
    """Nobody could ever show it; the error does not repeat it."""
    path = tmp_path / "tokens"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(AccessError, match="a token consists of visible ASCII") as caught:
        Keyring(Settings(token_file=str(path)))
    assert content not in str(caught.value)


def test_directory_and_strange_path_are_errors(tmp_path: pathlib.Path) -> None:
    """In the system's words."""
    for path in (str(tmp_path), "a\0b"):
        with pytest.raises(AccessError, match=r"^cannot read "):
            Keyring(Settings(token_file=path))


@pytest.mark.parametrize(
    ("mode", "content", "warned"),
    [
        (0o600, b"s3cret-token", False),
        (0o640, b"s3cret-token", False),
        (0o644, b"s3cret-token", True),
        (0o644, public(EC_KEY), False),
    ],
)
def test_file_that_every_user_can_read_is_warned_of(
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    mode: int,
    content: bytes,
    warned: bool,
) -> None:
    """It works all the same; a public key is for everybody."""
    path = tmp_path / "file"
    path.write_bytes(content)
    path.chmod(mode)
    field = "jwt_key_file" if b"KEY" in content else "token_file"
    settings: dict[str, Any] = {field: path}
    Keyring(Settings(**settings))
    expected = [f"every user of this machine can read {path}: chmod o= would mend it"]
    assert caplog.messages == (expected if warned else [])


def test_reload_takes_what_is_there_now(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All files or none: what fails leaves everything as it was."""
    tokens, key = tmp_path / "tokens", tmp_path / "key"
    tokens.write_text("old\n")
    key.write_bytes(SECRET + b"\n")
    keyring = Keyring(Settings(token_file=tokens, jwt_key_file=key))
    assert status(ask(keyring, sign())) == 200
    tokens.write_text("new\n")
    key.write_text("short\n")
    with pytest.raises(AccessError, match="at least 32 bytes"):
        keyring.reload()
    assert [status(ask(keyring, token)) for token in ("old", "new", sign())] == [200, 401, 200]
    key.write_bytes(public(EC_KEY))
    keyring.reload()
    found = [status(ask(keyring, t)) for t in ("old", "new", sign(), sign(EC_KEY, "ES256"))]
    assert found == [401, 200, 401, 200]
    assert not any(word in caplog.text for word in ("old\n", "short"))


# -- Keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (SECRET, "HS256"),
        (SECRET.decode(), "HS256"),
        (bytes(range(128, 160)) + b"\n ", "HS256"),
        (public(RSA_KEY), "RS256"),
        (public(EC_KEY).decode(), "ES256"),
        (b"\n# for the hub\n" + public(EC_KEY), "ES256"),
    ],
    ids=itertools.count(),  # the keys are others in each process
)
def test_kind_of_key_says_the_algorithm(key: str | bytes, algorithm: str) -> None:
    """The owner of the hub has chosen it; nobody else is asked."""
    assert read_key(key, "key").algorithm == algorithm


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (b"x" * 31, "at least 32 bytes"),
        (private(EC_KEY), "is a private key"),
        (private(RSA_KEY), "is a private key"),
        (public(rsa.generate_private_key(65537, 1024)), "at least 2048 bits"),
        (public(ec.generate_private_key(ec.SECP384R1())), "on the curve P-256"),
        (public(ed25519.Ed25519PrivateKey.generate()), "must be RSA, or EC"),
        pytest.param(public(RSA_KEY, "DER"), "not DER", id="RSA in DER"),
        pytest.param(public(EC_KEY, "DER"), "not DER", id="EC in DER"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key in PEM"),
        (public(RSA_KEY).replace(b"-----END", b"-----"), "no public key in PEM"),
        (b'{"kty": "RSA", "n": "0123456789abcdef", "e": "AQAB"}', "must be in PEM"),
        (b"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 ann", "must be in PEM"),
        (b"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlz ann", "must be in PEM"),
    ],
    ids=itertools.count(),  # the keys are others in each process
)
def test_key_that_would_be_weak_or_mistaken_is_an_error(key: bytes, words: str) -> None:
    """Above all a public key that would count as a secret, which everybody knows."""
    with pytest.raises(AccessError, match=words) as caught:
        read_key(key, "/etc/key")
    assert str(caught.value).startswith("/etc/key")


def test_key_without_pyjwt_is_one_clear_line() -> None:
    """The library runs without it, as long as there is no key."""
    code = """
import sys
sys.modules["jwt"] = None
from broadcast_server import AccessError, BroadcastHub
with BroadcastHub(port=0, token="t"):
    pass
try:
    BroadcastHub(port=0, jwt_key="x" * 32).start()
except AccessError as error:
    print(error)
"""
    done = run_python(code)
    expected = "jwt_key needs PyJWT and cryptography: pip install 'broadcast-server[jwt]'\n"
    assert (done.stdout, done.stderr) == (expected, "")


# -- Signed tokens -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "signer", "algorithm"),
    [
        (SECRET, SECRET, "HS256"),
        (public(RSA_KEY), RSA_KEY, "RS256"),
        (public(EC_KEY), EC_KEY, "ES256"),
    ],
)
def test_signed_token_says_who_and_what(key: bytes, signer: Any, algorithm: str) -> None:
    """Name, rooms and end are those of the claims; the end is that of a slow clock."""
    keyring = Keyring(Settings(jwt_key=key))
    exp = int(time.time()) + 60
    rights = {"subscribe": ["/a", "/team/*"], "publish": ["/a"]}
    token = sign(signer, algorithm, exp=exp, broadcast=rights)
    assert ask(keyring, token) == Grant("ann", ("/a", "/team/*"), ("/a",), exp + LEEWAY_SECONDS)
    assert status(ask(keyring, None)) == 401
    assert status(ask(keyring, token[:-2])) == 401


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, 200),
        ({"sub": None}, 200),
        ({"exp": None}, 401),
        ({"exp": "soon"}, 401),
        ({"exp": float("inf")}, 401),
        ({"exp": -1}, 401),
        ({"nbf": 9e9}, 401),
        ({"iat": 9e9}, 401),
        ({"sub": ""}, 401),
        ({"sub": "x" * 65}, 401),
        ({"sub": "a\nb"}, 401),
        ({"aud": "somebody else"}, 401),
        ({"aud": ["x", AUDIENCE]}, 200),
        ({"aud": AUDIENCE}, 200),
        ({"aud": {}}, 401),
        ({"broadcast": None}, 403),
        ({"broadcast": []}, 401),
        ({"broadcast": "*"}, 401),
        ({"broadcast": {"subscribe": "*"}}, 401),
        ({"broadcast": {"subscribe": None}}, 401),
        ({"broadcast": {"publish": [1]}}, 401),
        ({"broadcast": {}}, 200),
        ({"subscribe": ["*"], "broadcast": {}}, 200),
    ],
)
def test_claims_are_checked(claims: dict[str, Any], expected: int) -> None:
    """What is signed and makes no sense gives nothing; lists that are missing are empty."""
    found = ask(Keyring(Settings(jwt_key=SECRET)), sign(**claims))
    assert status(found) == expected
    if isinstance(found, Grant) and claims.get("broadcast") == {}:
        assert (found.subscribe, found.publish) == ((), ())


def test_clocks_may_differ_a_little() -> None:
    """In both directions, and no more than is written."""
    keyring = Keyring(Settings(jwt_key=SECRET))
    now = time.time()
    assert status(ask(keyring, sign(exp=now - LEEWAY_SECONDS + 20))) == 200
    assert status(ask(keyring, sign(exp=now - LEEWAY_SECONDS - 1))) == 401
    assert status(ask(keyring, sign(nbf=now + LEEWAY_SECONDS - 1))) == 200
    assert status(ask(keyring, sign(nbf=now + LEEWAY_SECONDS + 20))) == 401
    assert LEEWAY_SECONDS == 30


@pytest.mark.parametrize("key", [public(RSA_KEY), public(EC_KEY), SECRET])
@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "HS512", "RS256", "", None])
def test_token_does_not_choose_its_algorithm(key: bytes, algorithm: str | None) -> None:
    """No signature at all, and one with the public key as a secret (RFC 8725 §2.1)."""
    keyring = Keyring(Settings(jwt_key=key))
    claims = {"sub": "ann", "exp": time.time() + 600, "broadcast": {"subscribe": ["*"]}}
    header = {"typ": "JWT"} | ({} if algorithm is None else {"alg": algorithm})
    for secret in (None, b"", public(RSA_KEY), public(EC_KEY), public(EC_KEY).strip()):
        assert status(ask(keyring, forge(header, claims, secret))) == 401


def test_forged_token_would_be_good_with_the_secret() -> None:
    """The tokens of the test before fail for their algorithm, not for how they are made."""
    claims = {"sub": "ann", "exp": time.time() + 600, "broadcast": {"subscribe": ["*"]}}
    keyring = Keyring(Settings(jwt_key=SECRET))
    assert status(ask(keyring, forge({"alg": "HS256"}, claims, SECRET))) == 200
    # RFC 7515 §4.1.11: an extension that is not understood must not be passed over.
    crit = {"alg": "HS256", "crit": ["x"], "x": 1}
    assert status(ask(keyring, forge(crit, claims, SECRET))) == 401


@pytest.mark.parametrize("other", [("HS384", SECRET), ("RS384", RSA_KEY), ("PS256", RSA_KEY)])
def test_other_algorithm_with_the_right_key_is_refused(other: tuple[str, Any]) -> None:
    """There is one algorithm for each kind of key."""
    algorithm, signer = other
    key = SECRET if signer is SECRET else public(RSA_KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # the secret is short for HS384
        token = sign(signer, algorithm)
    assert status(ask(Keyring(Settings(jwt_key=key)), token)) == 401


def test_key_in_the_token_is_not_used() -> None:
    """Neither jwk nor jku nor kid of the header."""
    claims = {"exp": time.time() + 600, "broadcast": {"subscribe": ["*"]}}
    jwk = {"kty": "oct", "k": base64.urlsafe_b64encode(b"y" * 32).decode()}
    header = {"alg": "HS256", "jwk": jwk, "jku": "http://127.0.0.1:1/", "kid": "/dev/null"}
    assert status(ask(Keyring(Settings(jwt_key=SECRET)), forge(header, claims, b"y" * 32))) == 401


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b.c", "\udc80", "\u00e9" * 100, "e30.e30.", "e30.e30.e30",
     "eyJhbGciOiJIUzI1NiJ9." + "W1tb" * 30_000 + ".x", "=" * 10_000],
)  # fmt: skip
def test_what_is_no_token_is_refused(token: str) -> None:
    """Nothing that is shown raises anything."""
    assert status(ask(Keyring(Settings(jwt_key=SECRET)), token)) == 401


def test_no_refusal_repeats_the_token(caplog: pytest.LogCaptureFixture) -> None:
    """Neither to whoever has shown it nor to the log."""
    caplog.set_level(logging.DEBUG)
    keyring = Keyring(Settings(jwt_key=SECRET, token="t"))
    for token in ("s3cret.s3cret.s3cret", sign(b"y" * 32), sign(exp=1), sign(sub="s3cret\n")):
        found = ask(keyring, token)
        assert isinstance(found, Refusal)
        assert token not in repr(found) and "s3cret" not in repr(found)
        assert token not in caplog.text
