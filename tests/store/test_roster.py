"""What MACs of single rows cannot tell: rows put back to an older version, rows removed, facts put back (roster.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw
import pytest

from keyfob.spec.constants import CKA, CKR
from keyfob.store import SqliteStore
from keyfob.store.integrity import META_CHECKSUM, tag_of_meta
from keyfob.store.meta import BOUND, STATE
from keyfob.store.roster import PER_BLOCK, TAG
from tests.store.samples import SO_PIN, USER_PIN, certificate, make, of_schema, private_key, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Private keys 1 and 3, certificates 2 and 4."""
    path = tmp_path / "slot-1.keyfob"
    store = make(path)
    store.login("user", USER_PIN)
    store.insert([private_key(1), certificate(1), private_key(2), certificate(2)])
    store.close()
    return path


def rows_of(path: Path, *tables: str) -> Rows:
    connection = apsw.Connection(str(path))
    found = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    connection.close()
    return found


def put_back(path: Path, rows: Rows, wanted: Callable[[str, tuple[Any, ...]], bool] = lambda *_: True) -> None:
    """What an attacker with write access does: these rows as they were."""
    connection = apsw.Connection(str(path))
    for table, content in rows.items():
        for row in content:
            if wanted(table, row):
                places = ", ".join("?" * len(row))
                connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", row).fetchall()
    connection.close()


def change(path: Path, *changes: Callable[[SqliteStore], object]) -> None:
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    for each in changes:
        each(store)
    store.close()


def opened(path: Path) -> tuple[SqliteStore, list[str]]:
    said: list[str] = []
    store = SqliteStore.open(path, log=said.append)
    store.login("user", USER_PIN)
    return store, said


def test_an_object_put_back_to_an_older_version_is_noticed(path: Path) -> None:
    before = rows_of(path, "object", "lookup")
    change(path, lambda store: store.update(1, private_key(1) | {CKA.LABEL: b"renamed"}))
    put_back(path, before, lambda table, row: row[0 if table == "object" else 1] == 1)
    store, said = opened(path)
    assert any("object 1: an older version was put back" in line for line in said)
    with refused(CKR.DEVICE_ERROR):
        store.get(1)
    assert store.find([(CKA.ID, private_key(1)[CKA.ID]), (CKA.CLASS, private_key(1)[CKA.CLASS])]) == []
    assert store.get(3) == private_key(2)
    store.close()


def test_a_removed_object_put_back_is_noticed(path: Path) -> None:
    before = rows_of(path, "object", "lookup")
    change(path, lambda store: store.delete([3]))
    put_back(path, before, lambda table, row: row[0 if table == "object" else 1] == 3)
    store, said = opened(path)
    assert any("object 3: it was removed and has been put back" in line for line in said)
    with refused(CKR.DEVICE_ERROR):
        store.get(3)
    store.close()


def test_an_older_version_with_the_roster_of_then_is_noticed(path: Path) -> None:
    before = rows_of(path, "object", "lookup", "roster")
    change(path, lambda store: store.update(1, private_key(1) | {CKA.LABEL: b"renamed"}))
    put_back(path, before)
    store, said = opened(path)
    assert any("roster: parts of it were removed or put back" in line for line in said)
    assert any("roster: parts of it" in line for line in store.verify())
    store.close()


@pytest.mark.parametrize("number", [1, 2])
def test_an_object_removed_from_the_file_is_noticed(path: Path, number: int) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM object WHERE id = ?", (number,)).fetchall()
    connection.execute("DELETE FROM lookup WHERE object = ?", (number,)).fetchall()
    connection.close()
    store, said = opened(path)
    assert any(f"object {number}: it is gone" in line for line in said)
    store.close()


def test_a_login_looks_through_one_block_of_a_large_token(path: Path) -> None:
    change(path, lambda store: store.insert([certificate(number) for number in range(10, 10 + 3 * PER_BLOCK)]))
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM object WHERE id % 2 = 1").fetchall()  # in each block
    connection.close()
    store, said = opened(path)
    blocks = {int(line.split()[1].rstrip(":")) // PER_BLOCK for line in said if "it is gone" in line}
    assert len(blocks) == 1
    assert {store._vault.roster.drawn_by_lot() for _ in range(200)} == {0, 1, 2, 3}
    store.close()


def test_a_private_object_removed_as_if_without_login_is_noticed(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM object WHERE id = 1; DELETE FROM lookup WHERE object = 1").fetchall()
    connection.execute("INSERT INTO pending (object) VALUES (1)").fetchall()
    connection.close()
    store, said = opened(path)
    assert any("object 1: what was kept of it is not what a login had left" in line for line in said)
    assert any("object 1: it is gone" in line for line in said)
    store.close()


def test_the_so_changes_public_objects_too(path: Path) -> None:
    store = SqliteStore.open(path)
    store.login("so", SO_PIN)
    store.update(2, certificate(1) | {CKA.LABEL: b"renamed"})
    store.delete([4])
    assert store.verify() == []
    store.close()
    store, said = opened(path)
    assert store.find([]) == [1, 2, 3]
    assert said == []
    store.close()


def test_a_block_that_is_damaged_costs_no_object(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE roster SET versions = zeroblob(1024)").fetchall()
    connection.close()
    store, said = opened(path)
    assert any("roster: block 0" in line for line in said)
    assert store.find([]) == [1, 2, 3, 4]
    assert store.get(1) == private_key(1)
    store.update(1, private_key(1) | {CKA.LABEL: b"renamed"})  # mends the block
    assert store.verify() == []
    store.close()


@pytest.mark.parametrize("name", [name for name in BOUND if name not in ("created", "kind", "serial", "max_failures")])
def test_a_fact_put_back_to_an_older_value_is_noticed(path: Path, name: str) -> None:
    before = rows_of(path, "meta")
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    keys = store._vault.keys
    assert keys is not None
    older = b"\x07" * 16
    row = (name, older, tag_of_meta(META_CHECKSUM, name, older), tag_of_meta(keys.mac_meta, name, older))
    store.close()
    put_back(path, {"meta": [row]})
    said: list[str] = []
    store = SqliteStore.open(path, log=said.append)
    if name in ("user_wrapping", "key_id"):
        with refused(CKR.DEVICE_ERROR):
            store.login("user", USER_PIN)
    else:
        store.login("user", USER_PIN)
        assert any(f"meta {name}: an older value was put back" in line for line in said), said
    store.close()
    put_back(path, before)
    store, said = opened(path)
    assert said == []
    store.close()


def test_an_old_pin_put_back_opens_nothing(path: Path) -> None:
    """The wrapping of the master key under a PIN that somebody learnt before it was changed."""
    before = rows_of(path, "meta")
    change(path, lambda store: store.set_pin("user", b"the new secret"))
    put_back(path, before, lambda _, row: row[0] == "user_wrapping")
    said: list[str] = []
    store = SqliteStore.open(path, log=said.append)
    with refused(CKR.DEVICE_ERROR):
        store.login("user", USER_PIN)
    assert any("meta user_wrapping: an older value was put back" in line for line in said)
    assert not store.unlocked
    store.login("so", SO_PIN)  # mends it
    store.set_pin("user", b"the new secret")
    store.logout()
    store.login("user", b"the new secret")
    assert store.get(1) == private_key(1)
    store.close()


def test_a_roster_that_cannot_be_believed_is_not_made_believable_by_a_write(path: Path) -> None:
    connection = apsw.Connection(str(path))
    value = b"\x01" * 200
    values = (value, tag_of_meta(META_CHECKSUM, "roster", value))
    connection.execute("UPDATE meta SET value = ?, checksum = ? WHERE name = 'roster'", values).fetchall()
    connection.close()
    change(path, lambda store: store.insert([private_key(5)]), lambda store: store.set_label("another"))
    store, said = opened(path)
    assert any("roster: parts of it" in line for line in said)
    assert store.find([]) == [1, 2, 3, 4, 5]
    store.accept()
    assert store.verify() == []
    store.close()
    store, said = opened(path)
    assert said == []
    store.close()


def test_the_roster_grows_and_shrinks_with_the_store(path: Path) -> None:
    store, said = opened(path)
    many = store.insert([certificate(i) for i in range(10, 3 * PER_BLOCK)])
    assert store._vault.roster.blocks() == [0, 1, 2]
    store.delete([number for number in many if PER_BLOCK <= number < 2 * PER_BLOCK])
    assert store._vault.roster.blocks() == [0, 2]
    assert store.verify() == []
    store.close()
    store, again = opened(path)  # a part of it is looked through
    assert store.verify() == []
    assert said == again == []
    store.close()


def test_a_change_that_fails_leaves_the_roster_as_it_was(path: Path) -> None:
    store, said = opened(path)
    with refused(CKR.OBJECT_HANDLE_INVALID):
        store.insert([private_key(5)], replacing=[1, 99])
    with refused(CKR.OBJECT_HANDLE_INVALID):
        store.delete([2, 99])
    assert store.get(1) == private_key(1)
    assert store.get(2) == certificate(1)
    store.insert([private_key(6)])
    assert store.verify() == []
    assert said == []
    store.close()


def test_two_stores_keep_one_roster(path: Path) -> None:
    (one, said), (other, heard) = opened(path), opened(path)
    for number in range(10, 20):
        [first] = one.insert([private_key(number)])
        [second] = other.insert([certificate(number)])
        other.update(first, private_key(number) | {CKA.LABEL: b"renamed"})
        one.delete([second])
        assert one.get(first) == private_key(number) | {CKA.LABEL: b"renamed"}
        assert other.get(second) is None
    assert one.verify() == other.verify() == []
    assert said == heard == []
    one.close()
    other.close()


def stored_total(path: Path) -> bytes:
    [row] = [row for row in rows_of(path, "meta")["meta"] if row[0] == "roster"]
    value: bytes = row[1]
    return value[:TAG]


def test_neither_the_sum_nor_what_it_is_made_of_stands_in_the_file(path: Path) -> None:
    """Of sums in clear somebody could find another set of older blocks that has the right one."""
    change(path, lambda store: store.insert([certificate(number) for number in range(10, 2 * PER_BLOCK)]))
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    facts, keys = store._vault.facts(), store._vault.keys
    assert keys is not None
    total = facts.total(keys)
    assert store._vault.roster.adds_up_to(total, keys)
    store.close()
    tags = [row[2] for row in rows_of(path, "roster")["roster"]]
    in_clear = sum(int.from_bytes(tag, "little") for tag in tags) % (1 << 8 * TAG)
    assert int.from_bytes(total, "little") != in_clear
    assert stored_total(path) not in (total, in_clear.to_bytes(TAG, "little"))


def test_the_same_sum_is_stored_in_another_way_by_each_state(path: Path) -> None:
    """Two sums that are stored tell nothing of what was added between them."""
    sums, stored = set(), set()
    for label in ("one", "other", "third"):
        store = SqliteStore.open(path)
        store.login("user", USER_PIN)
        store.set_label(label)
        keys = store._vault.keys
        assert keys is not None
        sums.add(store._vault.facts().total(keys))
        store.close()
        stored.add(stored_total(path))
    assert (len(sums), len(stored)) == (1, 3)


def test_blocks_that_changed_places_do_not_add_up(path: Path) -> None:
    change(path, lambda store: store.insert([certificate(number) for number in range(10, 3 * PER_BLOCK)]))
    connection = apsw.Connection(str(path))
    for old, new in ((0, 9), (1, 0), (9, 1)):
        connection.execute("UPDATE roster SET block = ? WHERE block = ?", (new, old)).fetchall()
    connection.close()
    store, said = opened(path)
    assert any("roster: parts of it" in line for line in said)
    store.close()


@pytest.mark.parametrize("tampered", [False, True])
def test_the_sum_of_schema_4_is_taken_over_only_where_it_is_right(tmp_path: Path, tampered: bool) -> None:
    path = of_schema(4, "pin", tmp_path)
    if tampered:
        connection = apsw.Connection(str(path))
        connection.execute("UPDATE roster SET tag = zeroblob(32)").fetchall()
        connection.close()
    for _ in range(2):
        store, said = opened(path)
        assert any("roster: parts of it were removed or put back" in line for line in said) == tampered
        store.insert([private_key(7)])
        store.close()
    assert len(next(row for row in rows_of(path, "meta")["meta"] if row[0] == "roster")[1]) > STATE
