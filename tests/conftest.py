"""Fixtures that drive the built libkeyfob.so through its C ABI, each test with tokens of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import keyfob
from keyfob.store import open_shelf
from tests.client import Client, ffi
from tests.postgres import Server

if TYPE_CHECKING:
    from keyfob.store import Shelf

os.environ.pop("KEYFOB_STORE", None)  # whose tokens are not for testing
SO_PIN = b"so-pin-12345"
PIN = b"user-pin-1"
# Cheap PIN hardening, so that a suite's hundreds of logins take seconds: the lowest that the store accepts.
# Wrong PINs are answered at once, too.
CHEAP_PINS = "[pin]\nmemory_kib = 8192\niterations = 1\ndelay = false\n"


def module_path() -> Path:
    path = Path(keyfob.__file__).resolve().parent / "libkeyfob.so"
    if not path.exists():
        pytest.fail(f"{path.name} is not built: run `make build`")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, for all tests of this process that want one."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def database_url(postgres: Server) -> str:
    """The URL of a fresh database that is ready for tokens."""
    from keyfob.store.postgres.server import Server as Place

    url = postgres.empty_database()
    assert Place(url, "/nowhere").initialise()
    return url


@pytest.fixture
def shelf(database_url: str, tmp_path: Path) -> Shelf:
    """Where tokens are kept in a PostgreSQL database."""
    return open_shelf(database_url, str(tmp_path))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """KEYFOB_HOME of this test."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "config.toml").write_text(CHEAP_PINS)
    monkeypatch.setenv("KEYFOB_HOME", str(folder))
    return folder


@pytest.fixture
def client(home: Path) -> Iterator[Client]:
    """The module, initialised, with its one uninitialised token in slot 1."""
    loaded = Client(str(module_path()))
    loaded.call("C_Finalize", ffi.NULL)
    loaded.initialize()
    yield loaded
    loaded.call("C_Finalize", ffi.NULL)


class Fob:
    """A token with PINs set, and an open read-write session of its user."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.slot = client.slots()[0]
        client.ok("C_InitToken", self.slot, SO_PIN, len(SO_PIN), b"test".ljust(32))
        session = client.open(self.slot)
        client.login(session, SO_PIN, 0)
        client.ok("C_InitPIN", session, PIN, len(PIN))
        client.ok("C_Logout", session)
        self.session = session
        client.login(session, PIN)


@pytest.fixture
def fob(client: Client) -> Fob:
    return Fob(client)
