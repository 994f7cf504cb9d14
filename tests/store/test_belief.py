"""What is kept about tokens on this machine is believed only where nobody else can have written it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore, counters, guesses, turns
from keyfob.store.database import SqliteDatabase
from keyfob.store.guesses import Guessed
from keyfob.store.reserve import BESIDE, Reserve
from keyfob.store.state import NOBODY
from keyfob.store.witness import MACHINE, NO_PUBLIC, Witness
from keyfob.token import pin_file
from tests.store.samples import SERIAL, USER_PIN, certificate, make, refused

if TYPE_CHECKING:
    from pathlib import Path

FULL = 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "slot-1.keyfob"
    make(path).close()
    return path


@pytest.mark.parametrize("changed", ["folder", "file"])
def test_a_lock_that_others_could_write_locks_nobody_out(path: Path, changed: str) -> None:
    seen = path.parent / "seen"
    store = SqliteStore.open(path, witness=str(seen))
    store.login("user", USER_PIN)
    store.close()
    [file] = seen.glob(f"{guesses.BEGINNING}*")
    file.write_bytes(Guessed(1 << 40, counters.MOST_FAILURES, NO_PUBLIC).encode())
    said: list[str] = []
    store = SqliteStore.open(path, witness=str(seen), log=said.append)
    with refused(CKR.PIN_LOCKED):
        store.login("user", USER_PIN)
    store.close()
    (seen if changed == "folder" else file).chmod(0o777)
    store = SqliteStore.open(path, witness=str(seen), log=said.append)
    store.login("user", USER_PIN)
    store.close()
    assert any("cannot be read" in line and "can be written by everybody" in line for line in said), said


def test_nothing_of_what_is_kept_is_read_unchecked(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir(mode=0o700)
    said: list[str] = []
    witness = Witness(str(seen), said.append)
    name = witness.machine
    (seen / SERIAL).write_bytes(b"")
    seen.chmod(0o777)
    other = Witness(str(seen), said.append)
    assert (other.machine, other.read(SERIAL)) == (NOBODY, None)
    assert len([line for line in said if "can be written by everybody" in line]) == 2
    seen.chmod(0o700)
    assert Witness(str(seen), said.append).machine == name


@pytest.mark.parametrize("left", [b"", b"abc"])
def test_a_machine_whose_name_was_cut_short_gets_another(tmp_path: Path, left: bytes) -> None:
    (tmp_path / MACHINE).write_bytes(left)
    name = Witness(str(tmp_path), print).machine
    assert name != NOBODY
    assert Witness(str(tmp_path), print).machine == name


def test_a_machine_without_a_place_for_its_name_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    said: list[str] = []
    assert Witness(str(tmp_path / "file" / "seen"), said.append).machine == NOBODY
    assert len(said) == 1


def test_a_login_that_cannot_set_durability_back_lets_no_later_write_go_unsynced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore.open(path)
    real, refusals = SqliteDatabase.run, ["once"]

    def run(self: SqliteDatabase, sql: str, values: tuple[object, ...] = ()) -> int:
        if sql == "PRAGMA synchronous = FULL" and refusals:
            refusals.clear()
            raise PKCS11Error(CKR.HOST_MEMORY, "out of memory")
        return real(self, sql, values)

    monkeypatch.setattr(SqliteDatabase, "run", run)
    store.login("user", USER_PIN)
    database = store._database
    assert isinstance(database, SqliteDatabase)
    assert not refusals
    assert database.number("PRAGMA synchronous") != FULL
    levels = []
    monkeypatch.setattr(SqliteDatabase, "committed", lambda self: levels.append(database.number("PRAGMA synchronous")))
    store.insert([certificate(1)])
    assert levels == [FULL]
    store.close()


def test_room_is_kept_beside_a_token_of_another_file_system(tmp_path: Path) -> None:
    """Before anything is remembered of it, too."""
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("/dev/shm is on the file system of the tests")
    reserve = Reserve("/dev/shm/slot-1.keyfob", str(tmp_path / "seen" / "slot-1"))
    assert reserve._path == f"/dev/shm/{BESIDE}"


class Host:
    """Closes the one descriptor that is waited with, and opens a file of its own under that number."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(b"data of the host")
        self.number = -1

    def take(self, number: int) -> None:
        if self.number < 0:
            os.close(number)
            self.number = os.open(self.file, os.O_RDWR)
            assert self.number == number

    def check(self) -> None:
        inode = f":{self.file.stat().st_ino} "
        with open("/proc/locks", encoding="ascii") as locks:
            assert not [line for line in locks if inode in line]
        os.close(self.number)
        assert self.file.read_bytes() == b"data of the host"


def test_who_waits_for_a_turn_locks_no_file_of_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MOST", 1)
    host = Host(tmp_path / "host")
    with turns.Turn(str(tmp_path)):
        second = turns.Turn(str(tmp_path))
        real = turns._take_one

        def refuse(number: int) -> bool:
            taken = real(number)
            host.take(number)
            return taken

        monkeypatch.setattr(turns, "_take_one", refuse)
        second.__enter__()
    second.__exit__()
    host.check()


def test_who_waits_for_a_pin_file_locks_no_file_of_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path / "host")
    with pin_file.Memory(str(tmp_path), SERIAL):
        second = pin_file.Memory(str(tmp_path), SERIAL)

        def sleep(_: float) -> None:
            assert second._held is not None
            host.take(second._held.number)

        monkeypatch.setattr("time.sleep", sleep)
        second.__enter__()
        assert second.mark == b""
        second.write(b"mark")
    second.__exit__()
    host.check()
