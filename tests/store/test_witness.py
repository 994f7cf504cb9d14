"""Older copies of a whole token, in which everything fits together: a second place knows better (witness.py)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKR
from keyfob.store import SqliteStore
from tests.store.samples import (
    SERIAL,
    SO_PIN,
    USER_PIN,
    certificate,
    make,
    of_schema,
    private_key,
    refused,
    start_program,
)

if TYPE_CHECKING:
    from pathlib import Path

COPY = "an older copy of the token was put back"
MISSING = "1 writes and 1 attempts at a PIN are missing in it"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "slot-1.keyfob"
    make(path).close()
    return path


class Machine:
    """Opens the token, and remembers it in `seen`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = path.parent / "seen"
        self.said: list[str] = []

    def open(self) -> SqliteStore:
        self.said = []
        return SqliteStore.open(self.path, log=self.said.append, witness=str(self.seen))

    def guess(self, pin: bytes, rv: int = CKR.OK) -> None:
        store = self.open()
        if rv:
            with refused(rv):
                store.login("user", pin)
        else:
            store.login("user", pin)
        store.close()

    @property
    def warned(self) -> bool:
        return any(COPY in line for line in self.said)


def test_an_older_copy_of_the_token_is_noticed_once(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    copy = path.read_bytes()
    store = machine.open()
    store.login("user", USER_PIN)
    store.insert([private_key(1)])
    store.close()
    assert machine.said == []
    path.write_bytes(copy)
    machine.guess(USER_PIN)
    assert machine.said == [f"{COPY}, or its write-ahead log is damaged: {MISSING}"]
    machine.guess(USER_PIN)
    assert machine.said == []


def test_an_older_copy_is_noticed_after_writes_of_the_same_login(path: Path) -> None:
    machine = Machine(path)
    store = machine.open()
    store.login("user", USER_PIN)
    copy = path.with_name("copy")
    store._database.checkpoint()
    copy.write_bytes(path.read_bytes())
    store.insert([private_key(1)])
    store.delete([1])
    store.close()
    path.write_bytes(copy.read_bytes())
    machine.guess(USER_PIN)
    assert machine.warned


def test_wrong_pins_are_not_forgotten_by_an_older_copy(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    copy = path.read_bytes()
    for attempt in range(10):
        path.write_bytes(copy)
        machine.guess(b"%d" % attempt * 6, CKR.PIN_INCORRECT)
    path.write_bytes(copy)
    machine.guess(USER_PIN, CKR.PIN_LOCKED)
    assert machine.warned
    store = machine.open()
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.close()
    machine.guess(USER_PIN)
    assert not machine.warned


def test_a_token_that_went_on_elsewhere_raises_no_alarm(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    store = SqliteStore.open(path, witness=str(path.parent / "elsewhere"))
    store.login("user", USER_PIN)
    store.insert([private_key(1)])
    store.close()
    machine.guess(USER_PIN)
    assert machine.said == []


def test_two_processes_raise_no_alarm(path: Path) -> None:
    machine = Machine(path)
    one, other = machine.open(), SqliteStore.open(path, log=machine.said.append, witness=str(machine.seen))
    for store in (one, other) * 3:
        store.login("user", USER_PIN)
        store.insert([private_key(1)])
        store.logout()
    one.close()
    other.close()
    machine.guess(USER_PIN)
    assert machine.said == []


def test_a_token_without_pin_is_watched_too(tmp_path: Path) -> None:
    machine = Machine(of_schema(3, "general", tmp_path))
    store = machine.open()
    store.unlock_with_key_file()
    store.close()
    copy = machine.path.read_bytes()
    store = machine.open()
    store.unlock_with_key_file()
    store.insert([private_key(7)])
    store.close()
    machine.path.write_bytes(copy)
    for warned in (True, False):
        store = machine.open()
        store.unlock_with_key_file()
        store.close()
        assert machine.warned == warned


def test_a_new_token_of_the_slot_is_not_the_old_one(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    store = machine.open()
    store.reset("another", SO_PIN)
    store.close()
    assert machine.said == []
    assert [file.name for file in machine.seen.glob("[!.]*")] == [SERIAL]


def test_a_damaged_witness_is_named_and_written_anew(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    [file] = machine.seen.glob("[!.]*")
    file.write_bytes(b"\0" * file.stat().st_size)
    machine.guess(USER_PIN)
    assert any("is damaged" in line for line in machine.said)
    machine.guess(USER_PIN)
    assert machine.said == []


def test_without_a_place_for_it_the_token_works(path: Path) -> None:
    machine = Machine(path)
    machine.seen.write_bytes(b"a file, not a folder")
    machine.guess(USER_PIN)
    assert any("nobody" in line for line in machine.said)


@pytest.mark.parametrize("name", ["general.keyfob", "general.key"])
def test_a_file_that_others_can_read_is_closed_to_them(tmp_path: Path, name: str) -> None:
    path = of_schema(3, "general", tmp_path)
    (tmp_path / name).chmod(0o664)
    said: list[str] = []
    for _ in range(2):
        store = SqliteStore.open(path, log=said.append)
        store.unlock_with_key_file()
        store.close()
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert said == [f"{tmp_path / name} was open to other users of this machine (mode 0664): it is 0600 now"]


def test_a_file_that_cannot_be_closed_to_others_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(0o644)
    said: list[str] = []
    monkeypatch.setattr(os, "chmod", lambda *_: None)  # as on a stick with FAT
    SqliteStore.open(path, log=said.append).close()
    assert any("knows no modes" in line for line in said)


def test_an_older_copy_is_noticed_without_login(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    copy = path.read_bytes()
    store = machine.open()
    store.insert([certificate(1)])
    store.close()
    path.write_bytes(copy)
    machine.open().close()
    assert machine.warned


@pytest.mark.parametrize("change", ["label", "setting", "user PIN", "reset"])
def test_an_older_copy_from_before_a_change_of_facts_is_noticed(path: Path, change: str) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    copy = path.read_bytes()
    store = machine.open()
    store.login("user", USER_PIN)
    if change == "label":
        store.set_label("another")
    elif change == "setting":
        store.set_setting("colour", "red")
    elif change == "user PIN":
        store.set_pin("user", b"another")
    else:
        store.reset("anew", SO_PIN)
    store.close()
    path.write_bytes(copy)
    machine.open().close()
    assert machine.warned


def test_a_damaged_write_ahead_log_is_noticed(path: Path) -> None:
    """SQLite drops what follows the damage: older values come back."""
    make_changes = """
import os, sys
from keyfob.store import SqliteStore
from tests.store.samples import certificate
store = SqliteStore.open(sys.argv[1], witness=sys.argv[2])
for number in range(5):
    store.insert([certificate(number)])
os.kill(os.getpid(), 9)
"""
    machine = Machine(path)
    with start_program(make_changes, path, machine.seen):
        pass
    log = path.with_name(f"{path.name}-wal")
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    store = machine.open()
    assert len(store.find([])) < 5
    assert machine.warned
    store.close()
