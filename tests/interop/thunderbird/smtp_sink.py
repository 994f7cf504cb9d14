"""An SMTP server on loopback that keeps every message and delivers none."""

from __future__ import annotations

import socketserver
import threading
from typing import Self

_PATIENCE = 60.0
"""Seconds of silence after which a client is given up."""


class _Conversation(socketserver.StreamRequestHandler):
    """One client: EHLO, MAIL, RCPT, DATA, QUIT, and RSET and NOOP for politeness (RFC 5321)."""

    timeout = _PATIENCE
    server: _Server

    def handle(self) -> None:
        self._say("220 sink ESMTP")
        while line := self.rfile.readline():
            verb = line.strip().partition(b" ")[0].upper()
            if verb == b"EHLO":
                self._say("250-sink", "250 8BITMIME")
            elif verb == b"DATA":
                self._say("354 go on")
                self.server.messages.append(self._message())
                self._say("250 kept")
            elif verb == b"QUIT":
                self._say("221 bye")
                return
            elif verb in {b"HELO", b"MAIL", b"RCPT", b"RSET", b"NOOP"}:
                self._say("250 fine")
            else:
                self._say("502 not here")

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def _message(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.messages: list[bytes] = []


class SmtpSink:
    """The server, on an ephemeral port of 127.0.0.1 from `with` to the end of it. `messages` lists what came in."""

    def __init__(self) -> None:
        self._server = _Server()
        self._thread = threading.Thread(target=self._server.serve_forever, name="smtp-sink", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def messages(self) -> list[bytes]:
        """The messages so far, as they came: with headers, lines ended by CR LF."""
        return self._server.messages

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_PATIENCE)
