"""A TLS server on loopback that asks for a client certificate and answers a page saying who the client is."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "no certificate"
"""What the server calls a client that completed the handshake without a certificate."""

_PATIENCE = 30.0
"""Seconds that a handshake may take, a person's answers to two dialogs included."""


_PAGE = """<!doctype html>
<title>client: {client}</title>
<body style="font: 20px sans-serif; margin: 3em">
<h1>{client}</h1>
<p>That is what your certificate says. The connection is {version}.</p>
"""


@dataclass(frozen=True, slots=True)
class Handshake:
    """A completed handshake with a request after it, as the server saw it."""

    version: str
    """`TLSv1.2` or `TLSv1.3`."""
    client: str
    """Common name in the client's certificate, verified together with its signature; NOBODY without one."""


class TlsServer:
    """The server, on an ephemeral port of 127.0.0.1, from `with` to the end of it.

    The page's title is `client: ` and the client's name. `handshakes` lists what happened, `failures` what did not.
    Sessions are never resumed: each connection is a full handshake with a signature by the client's key.
    """

    def __init__(self, version: ssl.TLSVersion, server_pem: Path, authority_pem: Path) -> None:
        self.handshakes: list[Handshake] = []
        self.failures: list[str] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = self._context.maximum_version = version
        self._context.options |= ssl.OP_NO_TICKET
        self._context.num_tickets = 0
        self._context.load_cert_chain(server_pem)
        self._context.load_verify_locations(authority_pem)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._acceptor = threading.Thread(target=self._accept, name="tls-server", daemon=True)

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"https://localhost:{self._listener.getsockname()[1]}/"

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would leave the thread waiting in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(_PATIENCE)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="tls-connection", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE)
        with connection:
            try:
                with self._context.wrap_socket(connection, server_side=True) as secure:
                    self._answer(secure)
            except OSError as failure:
                self.failures.append(str(failure))

    def _answer(self, secure: ssl.SSLSocket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            part = secure.recv(4096)
            if not part:
                return
            request += part
        handshake = Handshake(secure.version() or "", _common_name(secure))
        self.handshakes.append(handshake)
        body = _PAGE.format(client=handshake.client, version=handshake.version).encode()
        secure.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )


def _common_name(secure: ssl.SSLSocket) -> str:
    certificate = secure.getpeercert()
    if not certificate:
        return NOBODY
    subject = certificate["subject"]
    assert isinstance(subject, tuple)
    return next(str(pair[1]) for part in subject for pair in part if pair[0] == "commonName")
