"""A PostgreSQL server of the tests' own: made, started, stopped, killed, and gone in the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

ROLE = "postgres"
SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
max_connections = 200
# No test cuts the power: what a killed server has written is with the kernel.
fsync = off
log_min_messages = warning
restart_after_crash = on
"""


def program(name: str) -> str:
    """A program of the newest PostgreSQL here; Debian keeps them out of PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which(name)
    if found is None:
        text = f"PostgreSQL's {name} is not here (Debian, Ubuntu: apt install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return found


class Server:
    """One server in a folder of its own, reached by its socket or by TCP on this machine."""

    def __init__(self) -> None:
        program("initdb")
        self.folder = Path(tempfile.mkdtemp(prefix="keyfob-pg-", dir="/tmp"))
        self.data = self.folder / "data"
        self.port = _free_port()
        self._owner = self._give_away()
        self._run("initdb", "-D", self.data, "-A", "trust", "-U", ROLE, "-N", "-E", "UTF8", "--locale", "C")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS.format(port=self.port, folder=self.folder))
        self.start()

    def _give_away(self) -> dict[str, int]:
        """PostgreSQL refuses to run as root: then it runs as the user of Debian's package, or as nobody."""
        if os.geteuid() != 0:
            return {}
        names = {entry.pw_name for entry in pwd.getpwall()}
        entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        return {"user": entry.pw_uid, "group": entry.pw_gid}

    def _run(self, name: str, *arguments: object) -> None:
        done = subprocess.run(
            [program(name), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            check=False,
            extra_groups=[] if self._owner else None,
            user=self._owner.get("user"),
            group=self._owner.get("group"),
        )
        assert done.returncode == 0, done.stdout.decode()

    def start(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    @property
    def process(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def kill(self) -> None:
        """As a crash of the server does: every process of it at once, then wait until they are gone."""
        processes = self._stopped()
        for each in processes:
            try:
                os.kill(each, signal.SIGKILL)
            except ProcessLookupError:
                continue
        while any(_is_alive(each) for each in processes):
            time.sleep(0.01)
        # Where nobody reaps orphans the dead process still has its number, and the next server would take it for alive.
        for lock in (self.data / "postmaster.pid", self.folder / f".s.PGSQL.{self.port}.lock"):
            lock.unlink()

    def _stopped(self) -> list[int]:
        """Every process, stopped: the first one before the others are looked for, so that there come no more."""
        parent = self.process
        os.kill(parent, signal.SIGSTOP)
        children = [int(each) for each in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        for each in children:
            os.kill(each, signal.SIGSTOP)
        return [parent, *children]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While the block runs no process of the server does."""
        processes = self._stopped()
        try:
            yield
        finally:
            for each in processes:
                os.kill(each, signal.SIGCONT)

    def empty_database(self) -> str:
        """The URL, by the socket, of the one database that all tests use in turn: without any store in it."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = 'tokens'").fetchone() is None:
                connection.execute("CREATE DATABASE tokens")
        with psycopg.connect(self.url("tokens"), autocommit=True) as connection:
            for (name,) in connection.execute(
                "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'keyfob%'"
            ).fetchall():
                connection.execute(f"DROP SCHEMA {name} CASCADE".encode())
        return self.url("tokens")

    def url(self, database: str) -> str:
        return f"postgresql://{ROLE}@/{database}?host={quote(str(self.folder), safe='')}&port={self.port}"

    def tcp_url(self, database: str, host: str = "127.0.0.1") -> str:
        return f"postgresql://{ROLE}@{host}:{self.port}/{database}"

    def use_tls(self) -> Path:
        """Give the server a certificate for 127.0.0.1 and localhost; the file of the authority that signed it."""
        key, certificate, authority = self.data / "server.key", self.data / "server.crt", self.folder / "ca.crt"
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        make = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2 -subj /CN=localhost"
        done = subprocess.run(
            [*make.split(), "-addext", names, "-keyout", str(key), "-out", str(certificate)],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        shutil.copy(certificate, authority)
        for path in (key, certificate):
            if self._owner:
                os.chown(path, self._owner["user"], self._owner["group"])
            path.chmod(0o600)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("ssl = on\n")
        self.stop()
        self.start()
        return authority

    def close(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
