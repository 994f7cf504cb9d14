"""What a token says before a PIN has opened it has no effect on the machine: no path, no mode, no endless cost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import Hardening, SqliteStore, hardening, key_file, seal
from keyfob.store.integrity import META_CHECKSUM, tag_of_meta
from keyfob.store.meta import HARDENING, NUMBER, WRAPPING_OF
from tests.client import Client
from tests.store.samples import CHEAP, SERIAL, SO_PIN, USER_PIN, make, private_key, refused

if TYPE_CHECKING:
    from keyfob.store import Shelf

SET = "UPDATE meta SET value = ?, checksum = ? WHERE name = ?"
FLOOR = Hardening(8192, 2)


def put(path: Path, name: str, value: bytes) -> None:
    """As anybody can who writes the file."""
    connection = apsw.Connection(str(path))
    connection.execute(SET, (value, tag_of_meta(META_CHECKSUM, name, value), name))
    connection.close()


def get(path: Path, name: str) -> bytes:
    connection = apsw.Connection(str(path))
    [(value,)] = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchall()
    connection.close()
    assert isinstance(value, bytes)
    return value


def make_open(path: Path) -> None:
    SqliteStore.create(
        path, label="open", serial=SERIAL, kind="multipurpose", so_pin=b"", hardening=CHEAP, general_access=True
    ).close()


# Paths and modes


@pytest.mark.parametrize("name", ["folder", "file", "fifo", "../outside", "/etc/passwd", ""])
def test_a_token_names_no_key_file(path: Path, tmp_path: Path, name: str) -> None:
    """Nothing that its row leads to is opened, waited for, closed to others or deleted."""
    make_open(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for each in ("folder", "file", "fifo"):
        (tmp_path / each).chmod(0o755)
    before = {each: each.lstat().st_mode for each in tmp_path.iterdir()}
    put(path, "key_file", os.path.join(tmp_path, name).encode() if name else b"")
    said: list[str] = []
    store = SqliteStore.open(path, log=said.append)
    store.unlock_with_key_file()
    store.insert([private_key(1)])
    assert {each: each.lstat().st_mode for each in before} == before
    assert not any("other users" in line for line in said)
    store.close()


def test_the_key_file_that_goes_is_the_tokens_own(path: Path, tmp_path: Path) -> None:
    make_open(path)
    victim = tmp_path / "victim.key"
    victim.write_bytes(bytes(32))
    put(path, "key_file", str(victim).encode())
    store = SqliteStore.open(path)
    store.unlock_with_key_file()
    store.set_pin("user", USER_PIN)
    assert victim.exists()
    store.close()


def test_a_link_in_the_place_of_a_key_file_leads_nowhere(path: Path, tmp_path: Path) -> None:
    make_open(path)
    own = Path(key_file.beside(str(path)))
    own.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o644)
    own.symlink_to("elsewhere")
    store = SqliteStore.open(path)
    with pytest.raises(PKCS11Error, match="it is a symbolic link"):
        store.unlock_with_key_file()
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o644
    own.unlink()
    os.mkfifo(own)
    with pytest.raises(PKCS11Error, match="it is no file"):
        store.unlock_with_key_file()
    store.close()


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("what", ["link", "other name", "fifo"])
def test_what_lies_beside_a_token_leads_to_no_other_file(
    path: Path, tmp_path: Path, client: Client, end: str, what: str
) -> None:
    """Refused with a reason; and in the module SQLite itself, which looks again and again, neither waits nor writes."""
    assert client.slots()  # its SQLite has the guarded calls of abi/descriptors.c
    make(path).close()
    victim, beside = tmp_path / "victim", Path(f"{path}{end}")
    victim.write_bytes(b"mine" * 2000)
    beside.unlink(missing_ok=True)
    if what == "link":
        beside.symlink_to(victim)
    elif what == "other name":
        beside.hardlink_to(victim)
    else:
        os.mkfifo(beside)
    with pytest.RaisesExc(PKCS11Error, check=lambda problem: str(beside) in problem.reason):
        SqliteStore.open(path)
    with pytest.raises((apsw.CantOpenError, apsw.IOError, apsw.PermissionsError)):
        apsw.Connection(str(path)).execute("UPDATE meta SET value = value")
    assert victim.read_bytes() == b"mine" * 2000


@pytest.mark.parametrize("what", ["link", "fifo", "folder"])
def test_a_token_is_a_file_and_not_a_way_to_one(path: Path, tmp_path: Path, what: str) -> None:
    make(tmp_path / "elsewhere").close()
    if what == "link":
        path.symlink_to("elsewhere")
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with refused(CKR.DEVICE_ERROR):
        SqliteStore.open(path)


@pytest.mark.interop
def test_a_token_on_a_server_names_no_key_file(shelf: Shelf, tmp_path: Path) -> None:
    store = shelf.create(
        1, print, label="open", serial=SERIAL, kind="signing", so_pin=b"", hardening=CHEAP, general_access=True
    )
    victim = tmp_path / "victim"
    victim.touch()
    victim.chmod(0o644)
    value = str(victim).encode()
    database = store._database  # type: ignore[attr-defined]
    with database.writing():
        database.run(SET, (value, tag_of_meta(META_CHECKSUM, "key_file", value), "key_file"))
    store.unlock_with_key_file()
    assert victim.stat().st_mode & 0o777 == 0o644
    store.close()


# What it costs


@pytest.mark.parametrize(
    "asked",
    [
        (8 * 1024, 1024, 1),
        (2 * 1024 * 1024, 1, 1),
        (1024 * 1024, 6, 1),
        (64 * 1024, 1, 17),
        (1 << 31, 1, 1),
        (0, 1, 1),
        (8192, 0, 1),
        (8192, 1, 0),
    ],
)
def test_nothing_is_computed_of_what_costs_too_much(
    path: Path, asked: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no attempt is counted: the PIN was not tried."""
    make(path).close()
    wrapping = get(path, WRAPPING_OF["user"])
    put(path, WRAPPING_OF["user"], seal.WRAPPING.pack(*asked, *seal.WRAPPING.unpack_from(wrapping)[3:]))
    monkeypatch.setattr(seal, "Argon2id", None)
    store = SqliteStore.open(path)
    with refused(CKR.DEVICE_ERROR):
        store.login("user", USER_PIN)
    with refused(CKR.DEVICE_ERROR):
        store.hardening("user")
    assert store.info().failed_user == 0
    store.close()


def test_what_the_user_has_configured_may_cost_more() -> None:
    with refused(CKR.DEVICE_ERROR):
        Hardening.stored(2 * 1024 * 1024, 3, 1)
    hardening.agree((2 * 1024 * 1024, 3))
    assert Hardening.stored(2 * 1024 * 1024, 3, 1).work == 6 * 1024 * 1024
    with refused(CKR.DEVICE_ERROR):
        Hardening.stored(3 * 1024 * 1024, 3, 1)


@pytest.mark.parametrize("memory_kib", [8, 8192, 700_000, 1024 * 1024])
@pytest.mark.parametrize("iterations", [1, 3, 64])
@pytest.mark.parametrize("configured", [None, (8192, 1), (8192, 64), (1024 * 1024, 4), (3 * 1024 * 1024, 9)])
def test_what_a_pin_is_raised_to_can_be_read_again(
    memory_kib: int, iterations: int, configured: tuple[int, int] | None
) -> None:
    hardening.agree(configured)
    try:
        found = Hardening.stored(memory_kib, iterations, 4)
    except PKCS11Error:
        return
    raised = found.raised_to(hardening.least())
    assert raised.memory_kib >= max(found.memory_kib, hardening.least().memory_kib)
    assert raised.work >= max(found.work, hardening.least().work)
    again = Hardening.stored(raised.memory_kib, raised.iterations, raised.lanes)
    assert again.raised_to(hardening.least()) is again


def test_a_token_allows_no_more_wrong_pins_than_it_was_made_with(path: Path) -> None:
    make(path).close()
    put(path, "max_failures", NUMBER.pack(1_000_000))
    store = SqliteStore.open(path)
    for _ in range(10):
        with refused(CKR.PIN_INCORRECT):
            store.login("user", b"wrong")
    with refused(CKR.PIN_LOCKED):
        store.login("user", b"wrong")
    assert store.info().max_failures == 10
    store.close()


@pytest.mark.parametrize("way", ["first PIN", "SO sets it", "new PIN", "C_InitToken", "pepper"])
def test_no_pin_is_wrapped_with_less_than_the_floor(path: Path, tmp_path: Path, way: str) -> None:
    """Whatever the token says, which nobody has authenticated before the first PIN."""
    if way == "first PIN":
        SqliteStore.create(
            path, label="t", serial=SERIAL, kind="signing", so_pin=SO_PIN, hardening=Hardening(8192, 1)
        ).close()
    else:
        make(path).close()
    put(path, "hardening", HARDENING.pack(8, 1, 1))
    hardening.require(FLOOR)
    store = SqliteStore.open(path)
    role = "user"
    if way == "first PIN":
        store.login("so", b"")
        store.set_pin("user", USER_PIN)
    elif way == "SO sets it":
        store.login("so", SO_PIN)
        store.set_pin("user", USER_PIN)
    elif way == "new PIN":
        store.login("user", USER_PIN)
        store.set_pin("user", b"another PIN")
    elif way == "pepper":
        (tmp_path / "pepper").write_bytes(os.urandom(32))
        store.login("user", USER_PIN)
        store.set_pepper(str(tmp_path / "pepper"), {"user": USER_PIN})
    else:
        role = "so"
        store.reset("new", SO_PIN)
    found = store.hardening(role)
    assert found is not None
    assert (found.memory_kib, found.iterations, found.lanes) == (8192, 2, 1)
    store.close()
