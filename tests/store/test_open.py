"""Making and opening tokens: atomically, only ours, whatever the file system does."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from keyfob import files
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore, open_store, schema
from keyfob.store.connecting import connect_immutable
from keyfob.store.database import SqliteDatabase
from tests.store.samples import (
    CHEAP,
    SERIAL,
    SO_PIN,
    USER_PIN,
    certificate,
    make,
    output_of,
    private_key,
    refused,
    start_program,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def create(path: Path, label: str = "a token") -> SqliteStore:
    return SqliteStore.create(path, label=label, serial=SERIAL, kind="signing", so_pin=SO_PIN, hardening=CHEAP)


# Making


def test_a_new_token_is_one_file_for_its_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        create(path).close()
    finally:
        os.umask(before)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600


def test_files_beside_an_open_token_are_for_its_owner_only(path: Path) -> None:
    store = create(path)
    store.insert([certificate(1)])
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    store.close()


def test_an_existing_file_is_never_overwritten(path: Path) -> None:
    path.write_text("somebody's diary")
    with refused(CKR.FUNCTION_FAILED):
        create(path)
    assert path.read_text() == "somebody's diary"
    assert len(list(path.parent.iterdir())) == 1


def test_of_two_who_make_a_token_at_once_one_wins(path: Path) -> None:
    won: list[str] = []
    lost: list[PKCS11Error] = []
    barrier = threading.Barrier(6)

    def attempt(label: str) -> None:
        barrier.wait()
        try:
            create(path, label).close()
            won.append(label)
        except PKCS11Error as problem:
            lost.append(problem)

    threads = [threading.Thread(target=attempt, args=(f"token {i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert [problem.rv for problem in lost] == [CKR.FUNCTION_FAILED] * 5
    store = SqliteStore.open(path)
    assert store.info().label == won[0]
    store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("step", ["write", "fsync", "link"])
def test_a_kill_while_a_token_is_made_leaves_no_token(path: Path, step: str) -> None:
    program = """
import os, signal, sys
from keyfob.store import Hardening, SqliteStore
def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], killed)
SqliteStore.create(sys.argv[1], label="l", serial="s", kind="k", so_pin=b"1234", hardening=Hardening.for_tests())
"""
    with start_program(program, path, step) as process:
        pass
    assert process.returncode == -9
    assert not path.exists()
    assert all(file.name.startswith(".") and file.name.endswith(".new") for file in path.parent.iterdir())
    create(path).close()


def test_a_failure_while_a_token_is_made_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write", fails)
    with refused(CKR.DEVICE_MEMORY):
        create(path)
    assert list(path.parent.iterdir()) == []


def test_no_token_is_made_in_a_missing_folder(tmp_path: Path) -> None:
    with refused(CKR.DEVICE_ERROR):
        create(tmp_path / "missing" / "token")


@pytest.mark.parametrize(
    ("change", "rv"),
    [
        ({"label": "x" * 33}, CKR.ARGUMENTS_BAD),
        ({"serial": "x" * 17}, CKR.ARGUMENTS_BAD),
        ({"so_pin": b"1"}, CKR.PIN_LEN_RANGE),
    ],
)
def test_a_token_that_cannot_be_described_is_not_made(path: Path, change: dict[str, object], rv: int) -> None:
    settings: dict[str, object] = {"label": "l", "serial": SERIAL, "kind": "k", "so_pin": SO_PIN, "hardening": CHEAP}
    with refused(rv):
        SqliteStore.create(path, **(settings | change))  # type: ignore[arg-type]
    assert not path.exists()


# Opening


def test_a_missing_token_is_said_so(path: Path) -> None:
    with refused(CKR.TOKEN_NOT_PRESENT):
        open_store(path)
    assert not path.exists()


def test_other_files_are_not_tokens(path: Path) -> None:
    path.write_bytes(b"")
    with refused(CKR.TOKEN_NOT_RECOGNIZED):
        SqliteStore.open(path)
    path.write_bytes(b"no database at all " * 100)
    with refused(CKR.DEVICE_ERROR):
        SqliteStore.open(path)
    path.unlink()
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE cookies (name)").fetchall()
    other.close()
    before = path.read_bytes()
    with refused(CKR.TOKEN_NOT_RECOGNIZED):
        SqliteStore.open(path)
    assert path.read_bytes() == before
    with refused(CKR.DEVICE_ERROR):
        SqliteStore.open(path.parent)


def test_a_token_of_a_newer_schema_is_refused_untouched(path: Path) -> None:
    make(path).close()
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}").fetchall()
    # Left as a killed process leaves it: with changes in the WAL.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close()
    wal = path.with_name(path.name + "-wal")
    before = (path.read_bytes(), wal.read_bytes())
    assert before[1]
    with refused(CKR.TOKEN_NOT_RECOGNIZED):
        SqliteStore.open(path)
    assert (path.read_bytes(), wal.read_bytes()) == before


def test_a_token_of_an_older_schema_is_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to the next schema, tried before there is one."""
    store = make(path)
    [number] = store.insert([certificate(1)])
    store.close()
    extra = "CREATE TABLE extra (number INTEGER) STRICT"
    following = schema.VERSION + 1
    monkeypatch.setattr(schema, "VERSION", following)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, (extra, "INSERT INTO extra VALUES (42)")))
    monkeypatch.setattr(schema, "TABLES", (*schema.TABLES, extra))
    with refused(CKR.TOKEN_WRITE_PROTECTED):
        SqliteStore.open(path, read_only=True)
    for _ in range(2):
        store = SqliteStore.open(path)
        assert store._database.number("PRAGMA user_version") == following
        assert store._database.number("SELECT count(*) FROM extra") == 1
        assert store.get(number) == certificate(1)
        store.close()


def test_a_failed_migration_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path).close()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "VERSION", schema.VERSION + 1)
        broken = ("CREATE TABLE extra (number INTEGER) STRICT", "no SQL")
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        with refused(CKR.DEVICE_ERROR):
            SqliteStore.open(path)
    store = SqliteStore.open(path)
    assert store.verify() == []
    store.close()


# Only readable


def test_a_store_opened_for_reading_refuses_every_change(path: Path) -> None:
    store = make(path)
    store.login("user", USER_PIN)
    private, public = store.insert([private_key(1), certificate(1)])
    before = store.find([])
    reader = SqliteStore.open(path, read_only=True)
    assert reader.read_only
    assert not store.read_only
    reader.login("user", USER_PIN)
    assert reader.get(private) == private_key(1)
    for change in (
        lambda: reader.insert([certificate(2)]),
        lambda: reader.update(public, certificate(2)),
        lambda: reader.delete([public]),
        lambda: reader.set_label("other"),
        lambda: reader.set_pin("user", b"other pin"),
    ):
        with refused(CKR.TOKEN_WRITE_PROTECTED):
            change()
    assert reader.find([]) == before
    store.insert([certificate(3)])
    assert len(reader.find([])) == len(before) + 1
    reader.close()
    store.close()


def test_wrong_pins_on_a_read_only_store_are_counted_in_the_process(path: Path) -> None:
    make(path).close()
    store = SqliteStore.open(path, read_only=True)
    for _ in range(store.info().max_failures):
        with refused(CKR.PIN_INCORRECT):
            store.login("user", b"wrong")
    with refused(CKR.PIN_LOCKED):
        store.login("user", USER_PIN)
    store.close()


# Everything that it may need is imported before another user may be unable to read the sources.
READER = """
import importlib, os, pathlib, pkgutil, sys
import keyfob.spec.names
import keyfob.store
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore
for each in pkgutil.iter_modules(keyfob.store.__path__):
    if not each.ispkg:
        importlib.import_module(f"keyfob.store.{each.name}")
if os.getuid() == 0:
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
try:
    store = SqliteStore.open(sys.argv[1])
    store.login("user", sys.argv[2].encode())
    print("read", len(store.find([])), store.read_only)
    try:
        store.insert([{2: b"\\0"}])
        print("wrote")
    except PKCS11Error as problem:
        print(str(problem).split(":")[0])
    store.close()
except PKCS11Error as problem:
    print(str(problem))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="keyfob-test-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [0o555, 0o777], ids=["folder read-only", "folder writable"])
def test_a_token_that_cannot_be_written_can_be_read(folder: Path, mode: int) -> None:
    path = folder / "token"
    store = make(path)
    store.insert([certificate(1), certificate(2)])
    store.close()
    path.chmod(0o444)
    folder.chmod(mode)
    assert output_of(READER, path, USER_PIN.decode()).splitlines() == ["read 2 True", "CKR_TOKEN_WRITE_PROTECTED"]


def test_a_reader_beside_a_writer_sees_its_changes(folder: Path) -> None:
    path = folder / "token"
    store = make(path)
    store.insert([certificate(1)])
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    assert output_of(READER, path, USER_PIN.decode()).splitlines() == ["read 1 True", "CKR_TOKEN_WRITE_PROTECTED"]
    store.close()


def test_a_reader_without_wal_index_notices_changes(folder: Path) -> None:
    """Where not even -shm can be made the file is read alone, and read again when it has changed."""
    path = folder / "token"
    store = make(path)
    [number] = store.insert([certificate(1)])
    store.close()
    connection, watcher, _ = connect_immutable(str(path), apsw.CantOpenError("no -shm"))
    reader = SqliteStore(SqliteDatabase(connection, str(path), read_only=True, watcher=watcher), lambda _: None)
    assert reader.read_only
    assert reader.get(number) == certificate(1)
    counter = reader.change_counter()
    assert reader.change_counter() == counter
    store = SqliteStore.open(path)
    store.update(number, certificate(2))
    store.close()
    assert reader.get(number) == certificate(2)
    assert reader.change_counter() != counter
    reader.close()


def test_changes_that_only_the_wal_has_are_not_overlooked(folder: Path) -> None:
    """A writer was killed, its folder is read-only now: better no answer than an old one."""
    path = folder / "token"
    store = make(path)
    store.insert([certificate(1)])
    database = store._database
    assert isinstance(database, SqliteDatabase)
    database.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    database.connection.close()
    database._connection = None
    path.with_name("token-shm").unlink()
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    said = output_of(READER, path, USER_PIN.decode())
    assert said.startswith("CKR_DEVICE_ERROR")
    assert "token-wal" in said
    folder.chmod(0o755)
    path.chmod(0o600)
    store = SqliteStore.open(path)
    assert len(store.find([])) == 1
    store.close()


def test_an_unreadable_token_is_said_so(folder: Path) -> None:
    path = folder / "token"
    make(path).close()
    path.chmod(0)
    said = output_of(READER, path, USER_PIN.decode())
    assert said.startswith("CKR_DEVICE_ERROR")
    assert "permission" in said


# No room


def test_a_full_store_refuses_and_keeps_what_it_has(path: Path) -> None:
    """SQLite's own limit stands for a full disk: it gives the same error at the same places."""
    store = make(path)
    kept = store.insert([certificate(1)])
    pages = store._database.number("PRAGMA page_count")
    store._database.number(f"PRAGMA max_page_count = {pages + 4}")
    with refused(CKR.DEVICE_MEMORY):
        for i in range(2, 500):
            kept += store.insert([certificate(i)])
    assert len(kept) > 1
    assert store.find([]) == kept
    store.delete(kept[:1])
    assert store.verify() == []
    store.close()
    store = SqliteStore.open(path)
    assert store.find([]) == kept[1:]
    assert store.verify() == []
    store.close()


FULL = """
import os, sys
from pathlib import Path
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore
from tests.store.samples import USER_PIN, certificate, make
folder, filler = sys.argv[1], os.path.join(sys.argv[1], "filler")
path = os.path.join(folder, "token")
store = make(Path(path))
kept = store.insert([certificate(1)])
with open(filler, "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
try:
    for i in range(2, 2000):
        kept += store.insert([certificate(i)])
    print("never full")
except PKCS11Error as problem:
    print(str(problem).split(":")[0])
print(store.find([]) == kept and store.verify() == [])
store.close()
for attempt in ("full", "again"):
    store = SqliteStore.open(path)
    print(store.find([]) == kept and store.verify() == [], store.read_only)
    try:
        store.insert([certificate(9999)])
        print("wrote")
    except PKCS11Error as problem:
        print(str(problem).split(":")[0])
    store.close()
    if os.path.exists(filler):
        os.unlink(filler)
"""


def test_a_really_full_disk_keeps_what_it_has(tmp_path: Path) -> None:
    """On a small file system of its own, which only root can mount."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    try:
        lines = output_of(FULL, tmp_path).splitlines()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert lines[:2] == ["CKR_DEVICE_MEMORY", "True"]
    assert lines[2].startswith("True")
    assert lines[3] in ("CKR_DEVICE_MEMORY", "CKR_TOKEN_WRITE_PROTECTED", "wrote")
    assert lines[4:] == ["True False", "wrote"]
