"""selfserv, NSS's own TLS server, on a free port; always stopped, by asking it to if possible.

It listens on all interfaces, because it cannot be told otherwise; our clients come by the loopback interface.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from demo.nss import Outcome, StepFailedError, kill, require
from demo.stage import DATABASE, PINS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.stage import Stage

START_LIMIT = 15.0  # seconds until the server listens
STOP_LIMIT = 10.0  # seconds from the request to stop (or the signal) to the end
ATTEMPTS = 3  # another program may take the free port before the server does
GET, STOP = "request-get", "request-stop"


class Server:
    """A running server: its port, and after its end what it said."""

    def __init__(self, command: tuple[str, ...], port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        """Take a process just started with ``command``, which writes to ``log``."""
        self.command = command
        self.port = port
        self.process = process
        self._log = log
        self._start = time.monotonic()

    @property
    def output(self) -> str:
        """What the server has said so far."""
        return self._log.read_text(errors="replace")

    def stop(self, *, asked: bool) -> str:
        """Wait for the end of a server that was asked to stop, or signal it; gives what went wrong, or an empty string.

        selfserv waits in PR_Accept for five seconds before it notices that it should stop, unless somebody connects.
        """
        if not asked:
            self.process.terminate()
        deadline = time.monotonic() + STOP_LIMIT
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=0.2):
                pass
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)
        code = self.process.poll()
        if code is None:
            return f"{self.command[0]} did not stop when {'asked' if asked else 'terminated'}"
        return f"{self.command[0]} ended with exit code {code}" if asked and code else ""

    def outcome(self, *, principal: bool = False) -> Outcome:
        """Give the server's run for the record."""
        seconds = time.monotonic() - self._start
        return Outcome(self.command, self.process.poll(), self.output, seconds, principal)


def free_port() -> int:
    """Give a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(pid: int, port: int) -> bool:
    """Say whether this very process listens on the port, without connecting (a connection would be a handshake)."""
    entries = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    inodes = {
        f"socket:[{entry[9]}]" for entry in entries if entry[3] == "0A" and int(entry[1].rsplit(":")[-1], 16) == port
    }
    with contextlib.suppress(OSError):
        return any(str(link.readlink()) in inodes for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


@contextlib.contextmanager
def serve(stage: Stage, *command: str, asked: bool = False, principal: bool = False) -> Iterator[Server]:
    """Run a server whose command has ``PORT`` where the port number belongs.

    With ``asked`` the block must have asked the server to stop, and the server must then end with exit code 0, so that
    its NSS shuts down and finalises the module. Otherwise it is ended by SIGTERM. Raises StepFailedError when it does
    not start; its output is part of the step's record in every case.
    """
    server = start_server(stage, command)
    failure = ""
    try:
        yield server
        failure = server.stop(asked=asked)
    finally:
        kill(server.process)
        outcome = server.outcome(principal=principal)
        stage.tools.transcript.append(outcome)
    require(not failure, failure, outcome)


def start_server(stage: Stage, command: tuple[str, ...]) -> Server:
    """Start the server on a free port and wait until it listens."""
    for attempt in range(1, ATTEMPTS + 1):
        port = free_port()
        arguments = tuple(word.replace("PORT", str(port)) for word in command)
        log = stage.folder / f"server-{port}.log"
        with log.open("wb") as output:
            process = stage.tools.start(*arguments, stdin=subprocess.DEVNULL, stdout=output.fileno())
        server = Server(arguments, port, process, log)
        deadline = time.monotonic() + START_LIMIT
        while process.poll() is None and time.monotonic() < deadline:
            if listens(process.pid, port):
                return server
            time.sleep(0.02)
        hung = process.poll() is None
        kill(process)
        if attempt == ATTEMPTS or "ADDRESS_IN_USE" not in server.output:
            break
    outcome = server.outcome(principal=True)
    stage.tools.transcript.append(outcome)
    raise StepFailedError(f"{command[0]} {'hung' if hung else 'ended'} before it listened", outcome)


def selfserv(stage: Stage, name: str, *options: str) -> contextlib.AbstractContextManager[Server]:
    """Serve with the token's certificate ``name``; a client must ask it to stop (the request in the file STOP)."""
    stage.write(GET, "GET / HTTP/1.0\r\n\r\n")
    stage.write(STOP, "GET /stop HTTP/1.0\r\n\r\n")
    command = ("selfserv", "-d", DATABASE, "-f", PINS, "-n", stage.nick(name), "-p", "PORT", "-v", *options)
    return serve(stage, *command, asked=True, principal=True)


def tstclnt(stage: Stage, port: int, *options: str, request: str = STOP, code: int | None = 0) -> Outcome:
    """Connect as a client that expects a certificate for localhost, send ``request``, and read the answer."""
    command = ("tstclnt", "-d", DATABASE, "-h", "127.0.0.1", "-a", "localhost", "-p", str(port), "-v", *options)
    return stage.run(*command, "-A", request, code=code)
