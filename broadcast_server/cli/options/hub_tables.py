"""The options of ``start``, which are the settings of a hub.

Each stands here once; the parser, the environment variables, help, man page, shell completions and
``docs/reference/options.md`` are made from it. Nothing but the standard library is imported: see
``cli/options/option.py``.
"""

from __future__ import annotations

from .option import Option, logging_options

MIB = 1024 * 1024

START: dict[str, list[Option]] = {
    "where to listen": [
        Option(
            "host ADDRESS",
            ("127.0.0.1",),
            "address or host name to listen on; localhost is this machine over IPv4 and IPv6; "
            "0.0.0.0 lets every machine in that can reach this one; without one of the options "
            "below everybody may then read and write; may be repeated",
            shown="127.0.0.1",
            many=True,
        ),
        Option("port PORT", 8765, "TCP port to listen on; 0 takes a free one"),
        Option(
            "allow-origin ORIGIN",
            (),
            "let web pages of this origin in, too, such as https://example.org, or * for all; may "
            "be repeated; programs other than browsers always come in",
            shown="only pages of the hub's own host and port",
            many=True,
        ),
        Option(
            "allow-host NAME",
            (),
            "answer to this host name, too, such as hub.example; a request that calls the hub by "
            "another name is refused with 421, since a page whose owner controls the name could "
            "have sent it; may be repeated",
            shown="only addresses, localhost and the names that --host gives",
            many=True,
        ),
        Option(
            "trust-proxy NETWORK",
            (),
            "believe a proxy at this address or in this network, such as 10.0.0.0/8, when it says "
            "in X-Forwarded-For or Forwarded for whom it calls; may be repeated",
            shown="nobody is believed",
            many=True,
        ),
    ],
    "who may come in": [
        Option(
            "token-file FILE",
            None,
            "file of tokens, one in each line; who shows one of them may read all rooms, and write "
            "if there are no publish tokens; nobody else may; a token may also be in the variable "
            "BROADCAST_SERVER_TOKEN, and none is ever an argument",
            shown="none",
        ),
        Option(
            "publish-token-file FILE",
            None,
            "file of tokens, one in each line, with which all rooms may be read and written; where "
            "this is the only control everybody may read; also BROADCAST_SERVER_PUBLISH_TOKEN",
            shown="none",
        ),
        Option(
            "jwt-key-file FILE",
            None,
            "file with what verifies JSON Web Tokens that say who may do what: a public key in PEM "
            "for RS256 or ES256, else a secret of at least 32 bytes for HS256",
            shown="none",
        ),
    ],
    "encryption": [
        Option(
            "tls-cert FILE",
            None,
            "speak TLS (https and wss) only, with the certificate in this PEM file, which may also "
            "hold those between it and its authority",
            shown="none, no TLS",
        ),
        Option(
            "tls-key FILE",
            None,
            "file with the private key of the certificate, in PEM form and without a password",
            shown="the file of --tls-cert",
        ),
    ],
    "limits": [
        Option(
            "max-clients COUNT",
            10_000,
            "clients at a time; one more is answered 503; each costs a thread and a descriptor",
        ),
        Option(
            "max-clients-per-address COUNT",
            2_500,
            "clients at a time of one IPv4 address or one IPv6 /64, 0 for no limit; one more is "
            "answered 429",
        ),
        Option(
            "max-handshakes COUNT",
            1_000,
            "connections at a time that are no clients: still in their handshake, or publishing; "
            "for one more, the one that has waited longest of the address with most is cut off",
        ),
        Option(
            "max-rooms COUNT",
            10_000,
            "rooms at a time; one more takes the place of the empty room that was opened the "
            "longest ago, and is answered 503 if none is empty",
        ),
        Option(
            "max-rooms-per-address COUNT",
            1_000,
            "rooms at a time that one IPv4 address or one IPv6 /64 has made, 0 for no limit; one "
            "more takes the place of an empty one of these, and is answered 503 if none is empty",
        ),
        Option(
            "max-message-bytes BYTES",
            MIB,
            "largest message taken; the sender of a bigger one is closed with 1009",
            shown="1048576, 1 MiB",
        ),
        Option(
            "max-fragments COUNT",
            131_072,
            "frames that one message may be split into; the sender of more is closed with 1009",
        ),
        Option(
            "max-header-bytes BYTES",
            16 * 1024,
            "largest HTTP request head taken; a bigger one is answered 431",
            shown="16384, 16 KiB",
        ),
        Option(
            "max-rate COUNT",
            10_000,
            "messages taken from one client in a second, 0 for no limit; a faster sender is slowed "
            "down, and nothing is lost",
        ),
        Option(
            "max-control-rate COUNT",
            10_000,
            "pings, pongs and fragments below 126 bytes taken from one client in a second, 0 for "
            "no limit; a faster sender is slowed down",
        ),
    ],
    "memory": [
        Option("history COUNT", 100, "messages of each room that a newcomer may ask to be shown"),
        Option(
            "room-log-bytes BYTES",
            8 * MIB,
            "memory for the messages of one room; a client that is more than half of it behind is "
            "closed with 1013; at least four times --max-message-bytes",
            shown="8388608, 8 MiB",
        ),
        Option(
            "total-log-bytes BYTES",
            256 * MIB,
            "memory for the messages of all rooms; above it empty rooms go first",
            shown="268435456, 256 MiB",
        ),
    ],
    "times": [
        Option(
            "handshake-timeout SECONDS",
            10,
            "time for the whole opening handshake; a slower client is answered 408",
        ),
        Option(
            "http-idle-timeout SECONDS",
            15,
            "time for which an HTTP connection may wait for its next request",
        ),
        Option(
            "ping-interval SECONDS",
            20,
            "silence after which a client is sent a ping; shorter finds dead clients sooner",
        ),
        Option("ping-timeout SECONDS", 20, "silence after a ping that closes the client with 1011"),
        Option(
            "write-timeout SECONDS",
            20,
            "time for which a client may take no byte while data waits for it; then it is closed",
        ),
        Option(
            "close-timeout SECONDS",
            5,
            "time for a client to answer a close; then its connection is cut",
        ),
        Option(
            "stop-timeout SECONDS",
            10,
            "time to deliver what was accepted and to say goodbye when the hub stops",
        ),
        Option(
            "drain-seconds SECONDS",
            5,
            "time over which SIGTERM spreads the goodbyes, so that not all clients come back at "
            "once; up to 100 clients get them at once, more at 200 in a second or faster",
        ),
        Option(
            "drain-delay SECONDS",
            0,
            "time after SIGTERM in which clients are still let in while /healthz says 503 already, "
            "for a load balancer to notice",
        ),
        Option(
            "restart-on-term",
            False,
            "on SIGTERM close with 1012 and the id to resume from, for a hub that will be started "
            "again, instead of 1001",
            shown="off",
        ),
        Option(
            "switch-interval SECONDS",
            0.0001,
            "time for which one thread may keep the interpreter from the others; shorter keeps "
            "latency low beside busy threads",
        ),
    ],
    "logging": logging_options("info"),
}
