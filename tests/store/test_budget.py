"""A file whose pages lead to the same pages again and again costs no more than a whole one of its size."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import apsw
import pytest

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore, budget, copying
from keyfob.store.database import SqliteDatabase
from tests.store.samples import SO_PIN, USER_PIN, certificate, make, private_key, start_program

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
LEVELS, CHILDREN = 14, 50  # 50 ** 14 rows
TABLE, INDEX = 5, 2
FIRST_PAGE_HEADER = 100
MAGIC = bytes.fromhex("d9d505f920a163d7")  # of journals
PATIENCE = 120  # seconds for what takes less than one
# What stands in the inner pages of a table without row numbers, as records: a name of meta; a digest of lookup.
RECORDS = {
    "meta": b"\x05\x13\x0c\x0c\x00abc",
    "lookup": b"\x04\x2c\x01\x14" + bytes(16) + b"\x01" + bytes(4),
}


def endless(path: Path, table: str) -> None:
    """Make the table's root the first of 14 pages that each lead to the next one 50 times, the last to its old root."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    statement = "SELECT rootpage FROM (SELECT 1 AS rootpage, 'sqlite_schema' AS name UNION ALL SELECT rootpage, name"
    [(root,)] = connection.execute(f"{statement} FROM sqlite_schema) WHERE name = ?", (table,)).fetchall()
    connection.close()
    assert isinstance(root, int)
    content = bytearray(path.read_bytes())
    pages = len(content) // PAGE
    start = (root - 1) * PAGE
    header = FIRST_PAGE_HEADER if root == 1 else 0
    old = content[start + header : start + PAGE]
    if header:  # the list of cells moves to the front; they themselves stay where they are
        cells = 8 + 2 * int.from_bytes(old[3:5], "big")
        old = old[:cells] + bytes(header) + old[cells:]
    inner = [_inner(pages + 1 + level, RECORDS.get(table), header if not level else 0) for level in range(LEVELS)]
    content[start + header : start + PAGE] = inner[0][header:]
    content += b"".join(inner[1:]) + old
    content[28:32] = struct.pack(">I", len(content) // PAGE)
    path.write_bytes(content)


def _inner(child: int, record: bytes | None, header: int) -> bytes:
    page = bytearray(PAGE)
    end, places = PAGE, []
    for number in range(CHILDREN):
        cell = struct.pack(">I", child) + (bytes([number]) if record is None else bytes([len(record)]) + record)
        end -= len(cell)
        page[end : end + len(cell)] = cell
        places.append(end)
    kind = TABLE if record is None else INDEX
    struct.pack_into(f">BHHHBI{CHILDREN}H", page, header, kind, 0, CHILDREN, end, 0, child, *places)
    return bytes(page)


# Opens the token whose file is given, does all that reads it, and prints what each step was answered.
LOOK = """
import json, sys
from keyfob.spec.errors import PKCS11Error
from keyfob.store import Hardening, SqliteStore, copying, hardening
from tests.store.samples import USER_PIN, certificate

hardening.require(Hardening.for_tests())
said = {}

def step(name, action):
    try:
        action()
    except PKCS11Error as problem:
        said[name] = [problem.rv, problem.reason]

def with_others_in_between(database, table):
    for _ in database.rows(f"SELECT 1 FROM {table}"):
        database.number("PRAGMA user_version")

try:
    store = SqliteStore.open(sys.argv[1])
except PKCS11Error as problem:
    said["open"] = [problem.rv, problem.reason]
else:
    database = store._database
    step("info", store.info)
    step("find", lambda: store.find([]))
    step("insert", lambda: store.insert([certificate(9)]))
    step("verify", store.verify)
    step("one by one", lambda: with_others_in_between(database, sys.argv[2]))
    step("at once", lambda: list(database.rows(f"SELECT 1 FROM {sys.argv[2]}")))
    step("counted", lambda: database.number(f"SELECT count(1) FROM {sys.argv[2]}"))
    step("copy", lambda: copying.fingerprint(database))
    step("login", lambda: store.login("user", USER_PIN))
    step("verify again", store.verify)
    step("close", store.close)
print(json.dumps(said))
"""


@pytest.fixture
def token(path: Path) -> Path:
    """With rows in every table."""
    store = make(path)
    store.login("user", USER_PIN)
    store.insert([certificate(1), private_key(2)])
    store.close()
    store = SqliteStore.open(path)
    store.insert([certificate(3)])
    store.delete([1])
    store.close()
    return path


@pytest.mark.parametrize("table", ["sqlite_schema", "meta", "object", "lookup", "roster", "pending"])
def test_every_look_at_an_endless_table_ends(token: Path, table: str) -> None:
    endless(token, table)
    child = start_program(LOOK, token, table)
    try:
        output, _ = child.communicate(timeout=PATIENCE)
    finally:
        child.kill()
    said = json.loads(output)
    assert {rv for rv, _ in said.values()} == {CKR.DEVICE_ERROR}
    for step in ["open"] if table == "sqlite_schema" else ["one by one", "at once", "counted"]:
        assert said[step][1].endswith(f"damaged: {budget.EXCEEDED}")
    if table == "meta":
        assert said["info"][1].endswith("meta has too many rows")
    assert "close" not in said


def test_a_whole_token_needs_a_tenth_of_what_it_may_at_most(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[int, int]] = []

    def spend(self: budget.Budget) -> bool:
        self.spent += budget.EVERY
        looks.append((self.spent, self._size()))
        return False

    monkeypatch.setattr(budget, "EVERY", 100)
    monkeypatch.setattr(budget.Budget, "_spend", spend)
    store = make(path)
    store.login("user", USER_PIN)
    store.insert([sample(number) for number in range(300) for sample in (certificate, private_key)])
    store.logout()
    store.insert([certificate(number) for number in range(300, 400)])
    store.login("user", USER_PIN)
    assert len(store.find([])) == 700
    assert store.verify() == []
    copying.fingerprint(store._database)
    store.reset("again", SO_PIN)
    store.close()
    assert len(looks) > 1000
    assert all(budget.PER_BYTE * size >= 10 * spent for spent, size in looks)


def test_a_statement_that_is_ended_leaves_the_connection_as_it_was(
    sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction is undone, and the next one is made."""
    sqlite_store.login("user", USER_PIN)
    numbers = sqlite_store.insert([certificate(number) for number in range(20)])
    database = sqlite_store._database
    assert isinstance(database, SqliteDatabase)
    with monkeypatch.context() as patch:
        patch.setattr(budget, "EVERY", 10)
        patch.setattr(budget, "LEAST", 0)
        patch.setattr(budget, "PER_BYTE", 0)
        database._budget.limit(database.connection)
        with pytest.raises(PKCS11Error, match=budget.EXCEEDED), database.writing():
            database.run("UPDATE object SET version = version + 1")
        assert not database.connection.in_transaction
        with pytest.raises(PKCS11Error, match=budget.EXCEEDED):
            list(database.rows("SELECT * FROM object, object AS other"))
    database._budget.limit(database.connection)
    assert sqlite_store.find([]) == numbers
    assert sqlite_store.insert([certificate(20)]) == [numbers[-1] + 1]
    assert sqlite_store.verify() == []


def test_a_token_with_a_rollback_journal_is_refused(token: Path, tmp_path: Path) -> None:
    """No token ever has one; it may name any file as another journal, which some versions of SQLite delete."""
    victim = tmp_path / "victim"
    victim.write_text("a thesis")
    name = str(victim).encode()
    content = token.read_bytes()
    header = MAGIC + struct.pack(">5I", 0, 0, len(content) // PAGE, 512, PAGE)
    end = struct.pack(">I", 0x40000000 // PAGE + 1) + name + struct.pack(">II", len(name), sum(name)) + MAGIC
    journal = token.with_name(token.name + "-journal")
    journal.write_bytes(header.ljust(512, b"\0") + end)
    for read_only in (False, True):
        with pytest.raises(PKCS11Error, match="rollback journal") as refusal:
            SqliteStore.open(token, read_only=read_only)
        assert refusal.value.rv == CKR.DEVICE_ERROR
    assert (victim.read_text(), token.read_bytes()) == ("a thesis", content)
    journal.write_bytes(b"")  # as some file systems leave one that was deleted
    SqliteStore.open(token).close()
