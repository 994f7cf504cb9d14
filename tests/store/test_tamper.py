"""Somebody changes the file: what is noticed before login, what after, and that nobody ever gets a wrong value.

The raw connection of these tests is what an attacker with write access has; `checksum_of` is what he can compute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw
import pytest

from keyfob.spec.constants import CKA, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore
from keyfob.store.integrity import META_CHECKSUM, OBJECT_CHECKSUM, tag_of_meta, tag_of_object
from keyfob.store.meta import COUNTERS, GUARDED
from keyfob.store.record import encode
from tests.store.samples import FALSE, SERIAL, SO_PIN, USER_PIN, certificate, make, private_key, refused, trust

if TYPE_CHECKING:
    from pathlib import Path

    from keyfob.store import Attributes

OBJECTS: dict[int, Attributes] = {
    1: private_key(1),
    2: certificate(1),
    3: private_key(2),
    4: certificate(2),
    5: trust(1),
    6: certificate(3),  # written after the last login: no MAC yet
}
WITHOUT_MAC = 6
COLUMNS = {"object": ("version", "private", "record", "checksum", "mac"), "meta": ("value", "checksum", "mac")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed token with OBJECTS."""
    path = tmp_path / "slot-1.keyfob"
    store = make(path)
    store.login("user", USER_PIN)
    store.insert([OBJECTS[i] for i in range(1, WITHOUT_MAC)])
    store.logout()
    store.insert([OBJECTS[WITHOUT_MAC]])
    store.close()
    return path


def tamper(path: Path, sql: str, *values: Any) -> None:
    """Run a statement on the file; it must change something."""
    connection = apsw.Connection(str(path))
    connection.execute(sql, values).fetchall()
    assert connection.changes() > 0
    connection.close()


def fetch(path: Path, sql: str, *values: Any) -> Any:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    row = connection.execute(sql, values).fetchall()[0]
    connection.close()
    return row[0] if len(row) == 1 else row


def write_as_attacker(path: Path, number: int, **columns: Any) -> None:
    """Change columns of an object and make its checksum fit again."""
    names = ("version", "private", "record", "mac")
    found = fetch(path, "SELECT version, private, record, mac FROM object WHERE id = ?", number)
    row = dict(zip(names, found, strict=True)) | columns
    checksum = tag_of_object(OBJECT_CHECKSUM, number, row["version"], row["private"], row["record"])
    tamper(
        path,
        "UPDATE object SET version = ?, private = ?, record = ?, mac = ?, checksum = ? WHERE id = ?",
        *row.values(),
        checksum,
        number,
    )


def flipped(value: Any) -> Any:
    """Another value that the same column takes."""
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, bytes) and value:
        middle = len(value) // 2
        return value[:middle] + bytes((value[middle] ^ 0x20,)) + value[middle + 1 :]
    return b"something"


class Observation:
    """What a user of the token gets to see: objects before and after login, and everything that was said."""

    def __init__(self, path: Path) -> None:
        self.before: dict[int, Attributes] = {}
        self.after: dict[int, Attributes] = {}
        self.said_before: list[str] = []
        self.said_after: list[str] = []
        try:
            store = SqliteStore.open(path, log=self.said_before.append)
        except PKCS11Error as problem:
            self.said_before.append(problem.reason)
            return
        self._look(store, self.before, self.said_before)
        self.said_after = list(self.said_before)
        store._vault._log = self.said_after.append
        try:
            store.login("user", USER_PIN)
        except PKCS11Error as problem:
            self.said_after.append(problem.reason)
        else:
            self._look(store, self.after, self.said_after)
        store.close()

    @staticmethod
    def _look(store: SqliteStore, seen: dict[int, Attributes], said: list[str]) -> None:
        try:
            info = store.info()
            assert (info.label, info.serial, info.kind, info.epoch) == ("a token", SERIAL, "multipurpose", 1)
            assert (info.max_failures, info.settings, info.user_pin_set, info.so_pin_set) == (10, {}, True, True)
        except PKCS11Error as problem:
            said.append(problem.reason)
        found = set()
        for number in [*OBJECTS, *range(7, 10)]:
            try:
                attributes = store.get(number)
            except PKCS11Error as problem:
                said.append(problem.reason)
                continue
            if attributes is not None:
                seen[number] = attributes
        try:
            found = set(store.find([]))
            for number, attributes in seen.items():
                assert set(store.find(list(attributes.items()))) <= {number}
        except PKCS11Error as problem:
            said.append(problem.reason)
        assert found <= set(seen)
        said += store.verify()

    def names(self, what: str) -> bool:
        return any(what in line for line in self.said_after)

    def only_right_values(self) -> bool:
        return all(OBJECTS.get(i) == seen for table in (self.before, self.after) for i, seen in table.items())


def test_an_untouched_token_gives_no_cause_for_complaint(path: Path) -> None:
    seen = Observation(path)
    assert seen.said_after == [f"made without a login, and counts from now on: object {WITHOUT_MAC}"]
    assert seen.after == OBJECTS
    assert seen.before == {i: found for i, found in OBJECTS.items() if found[CKA.PRIVATE] == FALSE}


@pytest.mark.parametrize("column", COLUMNS["object"])
@pytest.mark.parametrize("number", OBJECTS)
def test_any_changed_column_of_an_object_is_noticed_and_named(path: Path, number: int, column: str) -> None:
    value = fetch(path, f"SELECT {column} FROM object WHERE id = ?", number)
    tamper(path, f"UPDATE object SET {column} = ? WHERE id = ?", flipped(value), number)
    seen = Observation(path)
    assert seen.names(f"object {number}: ")
    assert seen.only_right_values()
    others = {i: found for i, found in OBJECTS.items() if i != number}
    assert others == {i: found for i, found in seen.after.items() if i != number}
    # A MAC that fits vouches for the object whatever its checksum says.
    assert number not in seen.after or (column == "checksum" and number != WITHOUT_MAC)
    if column != "mac":
        assert any(f"object {number}: the checksum" in line for line in seen.said_before)
        assert number not in seen.before


@pytest.mark.parametrize("number", OBJECTS)
def test_an_object_under_another_number_is_noticed(path: Path, number: int) -> None:
    tamper(path, "UPDATE object SET id = 9 WHERE id = ?", number)
    seen = Observation(path)
    assert seen.names("object 9: the checksum does not fit")
    assert 9 not in seen.before
    assert 9 not in seen.after
    assert seen.only_right_values()


@pytest.mark.parametrize("number", [n for n in OBJECTS if n != WITHOUT_MAC])
def test_an_object_without_its_mac_is_noticed_after_login(path: Path, number: int) -> None:
    write_as_attacker(path, number, mac=None)
    seen = Observation(path)
    assert seen.names(f"object {number}: the MAC is missing")
    assert number not in seen.after


def test_a_private_object_is_never_believed_without_mac_however_new(path: Path) -> None:
    write_as_attacker(path, 1, mac=None, version=1 << 40)
    seen = Observation(path)
    assert seen.names("object 1: the MAC is missing")
    assert 1 not in seen.after


def test_trust_is_never_believed_without_mac_however_new(path: Path) -> None:
    forged = trust(1) | {CKA.SERIAL_NUMBER: b"666"}
    write_as_attacker(path, 5, mac=None, version=1 << 40, record=encode(forged))
    seen = Observation(path)
    assert seen.names("object 5: a trust object without a MAC")
    assert 5 not in seen.after


def test_two_sealed_records_changed_places_are_noticed(path: Path) -> None:
    columns = "version, record, mac"
    first = fetch(path, f"SELECT {columns} FROM object WHERE id = 1")
    second = fetch(path, f"SELECT {columns} FROM object WHERE id = 3")
    for number, (version, record, mac) in ((1, second), (3, first)):
        write_as_attacker(path, number, version=version, record=record, mac=mac)
    seen = Observation(path)
    assert seen.names("object 1: the MAC does not fit")
    assert seen.names("object 3: the MAC does not fit")
    assert not {1, 3} & set(seen.after)


def test_a_changed_flag_of_a_public_object_is_noticed_after_login(path: Path) -> None:
    forged = certificate(1) | {CKA.LABEL: b"the bank"}
    write_as_attacker(path, 2, record=encode(forged))
    seen = Observation(path)
    assert seen.before[2] == forged  # nobody can tell without the PIN
    assert seen.names("object 2: the MAC does not fit")
    assert 2 not in seen.after


def test_a_private_object_made_public_is_noticed_before_login(path: Path) -> None:
    write_as_attacker(path, 1, private=0)
    seen = Observation(path)
    assert any("object 1: " in line for line in seen.said_before)
    assert 1 not in seen.before
    assert 1 not in seen.after


def test_a_forged_plain_record_in_a_private_row_is_noticed(path: Path) -> None:
    write_as_attacker(path, 1, record=encode(private_key(1)))
    seen = Observation(path)
    assert 1 not in seen.after
    assert seen.names("object 1: ")


def test_a_sealed_record_does_not_open_in_another_place(path: Path) -> None:
    """The seal itself binds number and version, whatever becomes of the MAC."""
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    keys = store._vault.keys
    assert keys is not None
    sealed = keys.seal(1, 5, b"content")
    assert keys.open(1, 5, sealed) == b"content"
    for place in ((2, 5), (1, 6)):
        with pytest.raises(ValueError, match="does not open"):
            keys.open(*place, sealed)
    store.close()


@pytest.mark.parametrize("sql", ["DELETE FROM lookup", "UPDATE lookup SET digest = randomblob(16)"])
def test_look_up_rows_removed_or_altered_are_noticed(path: Path, sql: str) -> None:
    digests = fetch(path, "SELECT group_concat(hex(digest)) FROM lookup").split(",")
    for digest in set(digests[:: len(digests) // 4]):
        copy = path.with_name(f"copy-{digest}")
        copy.write_bytes(path.read_bytes())
        number = fetch(copy, "SELECT object FROM lookup WHERE digest = ?", bytes.fromhex(digest))
        number = number if isinstance(number, int) else number[0]
        tamper(copy, f"{sql} WHERE digest = ? AND object = ?", bytes.fromhex(digest), number)
        seen = Observation(copy)
        assert seen.names(f"object {number}: 1 look-up rows are missing")
        assert seen.after == OBJECTS


def test_a_wrong_look_up_row_finds_no_wrong_object(path: Path) -> None:
    store = SqliteStore.open(path)
    tamper(path, "UPDATE OR IGNORE lookup SET object = 2 WHERE object = 4")
    assert store.find([(CKA.LABEL, b"certificate 2")]) == []
    assert store.find([(CKA.LABEL, b"certificate 1")]) == [2]
    assert any("object 4: " in line for line in store.verify())
    assert any("too many" in line for line in store.verify())
    store.close()


def test_look_up_rows_for_no_object_are_named(path: Path) -> None:
    tamper(path, "DELETE FROM object WHERE id = 2")
    seen = Observation(path)
    assert seen.names("lookup: ")
    assert seen.names("for the object 2, which is not there")


@pytest.mark.parametrize("column", COLUMNS["meta"])
@pytest.mark.parametrize("name", [*GUARDED, COUNTERS])
def test_any_changed_column_of_the_facts_is_noticed_and_named(path: Path, name: str, column: str) -> None:
    if (name, column) == (COUNTERS, "mac"):
        return  # it has none
    value = fetch(path, f"SELECT {column} FROM meta WHERE name = ?", name)
    tamper(path, f"UPDATE meta SET {column} = ? WHERE name = ?", flipped(value), name)
    seen = Observation(path)
    assert seen.names(f"meta {name}: ")
    assert seen.only_right_values()
    if name != "user_wrapping":
        # What is undamaged stays usable. Without the state nobody can say whether the row without a MAC is old or new.
        assert set(OBJECTS) - set(seen.after) <= ({WITHOUT_MAC} if name == "roster" else set())


@pytest.mark.parametrize("name", [*GUARDED, COUNTERS])
def test_a_missing_fact_is_noticed_and_named(path: Path, name: str) -> None:
    tamper(path, "DELETE FROM meta WHERE name = ?", name)
    seen = Observation(path)
    assert seen.names(f"meta {name}: missing")
    assert seen.only_right_values()


def test_an_unknown_fact_is_named(path: Path) -> None:
    tamper(path, "INSERT INTO meta (name, value, checksum) VALUES ('back door', x'00', x'00')")
    assert Observation(path).names("meta back door: ")


@pytest.mark.parametrize("name", ["label", "kind", "max_failures", "settings", "hardening", "serial", "epoch"])
def test_a_fact_forged_with_its_checksum_is_noticed_after_login(path: Path, name: str) -> None:
    value = fetch(path, "SELECT value FROM meta WHERE name = ?", name)
    forged = flipped(value)
    checksum = tag_of_meta(META_CHECKSUM, name, forged)
    tamper(path, "UPDATE meta SET value = ?, checksum = ? WHERE name = ?", forged, checksum, name)
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    assert any(f"meta {name}: the MAC does not fit" in line for line in store.verify())
    if name != "hardening":
        with refused(CKR.DEVICE_ERROR):
            store.info()
    assert store.get(1) == private_key(1)
    store.close()


def test_the_other_pin_mends_a_spoilt_wrapping(path: Path) -> None:
    tamper(path, "UPDATE meta SET value = zeroblob(108) WHERE name = 'user_wrapping'")
    store = SqliteStore.open(path)
    with refused(CKR.DEVICE_ERROR):
        store.login("user", USER_PIN)
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.logout()
    store.login("user", USER_PIN)
    assert store.get(1) == private_key(1)
    assert store.verify() == []
    store.close()


def test_another_tokens_master_key_is_noticed(path: Path, tmp_path: Path) -> None:
    """An attacker puts in the wrapping of a token whose PIN he knows."""
    make(tmp_path / "his").close()
    value, checksum, mac = fetch(tmp_path / "his", "SELECT value, checksum, mac FROM meta WHERE name = 'user_wrapping'")
    sql = "UPDATE meta SET value = ?, checksum = ?, mac = ? WHERE name = 'user_wrapping'"
    tamper(path, sql, value, checksum, mac)
    store = SqliteStore.open(path)
    with refused(CKR.DEVICE_ERROR):
        store.login("user", USER_PIN)
    assert not store.unlocked
    assert store.info().failed_user == 0
    store.close()


def test_the_sos_wrapping_does_not_serve_the_user(path: Path) -> None:
    value, _, mac = fetch(path, "SELECT value, checksum, mac FROM meta WHERE name = 'so_wrapping'")
    checksum = tag_of_meta(META_CHECKSUM, "user_wrapping", value)
    sql = "UPDATE meta SET value = ?, checksum = ?, mac = ? WHERE name = 'user_wrapping'"
    tamper(path, sql, value, checksum, mac)
    store = SqliteStore.open(path)
    with refused(CKR.PIN_INCORRECT):
        store.login("user", SO_PIN)
    store.close()


def test_spoilt_counters_leave_one_attempt_and_heal(path: Path) -> None:
    tamper(path, "UPDATE meta SET value = x'00' WHERE name = 'counters'")
    store = SqliteStore.open(path)
    assert store.info().failed_user == store.info().max_failures - 1
    store.login("user", USER_PIN)
    [number] = store.insert([certificate(9)])
    assert number == 7
    assert store.verify() == []
    store.close()


def test_versions_go_on_above_what_the_last_login_saw(path: Path) -> None:
    """Counters put back must not make new objects look like old ones that lost their MAC."""
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    store.logout()
    value = bytearray(fetch(path, "SELECT value FROM meta WHERE name = 'counters'"))
    value[:8] = bytes(8)
    checksum = tag_of_meta(META_CHECKSUM, COUNTERS, bytes(value))
    tamper(path, "UPDATE meta SET value = ?, checksum = ? WHERE name = 'counters'", bytes(value), checksum)
    [number] = store.insert([certificate(9)])
    store.login("user", USER_PIN)
    assert store.get(number) == certificate(9)
    assert store.verify() == []
    store.close()


def test_a_sequence_put_back_gives_no_number_twice(path: Path) -> None:
    tamper(path, "UPDATE sqlite_sequence SET seq = 1")
    store = SqliteStore.open(path)
    assert any("sqlite_sequence" in line for line in store.verify())
    assert store.insert([certificate(9)]) == [7]
    store.close()


@pytest.mark.parametrize("last", [2**32 - 2, 2**40, 2**63 - 2])
def test_an_object_gets_no_number_that_no_handle_finds(path: Path, last: int) -> None:
    tamper(path, "UPDATE sqlite_sequence SET seq = ?", last)
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    before = store.find([])
    with refused(CKR.DEVICE_ERROR):
        store.insert([certificate(8), certificate(9)])
    assert store.find([]) == before
    assert any("is no number of an object" in problem for problem in store.verify()) == (last > 2**32)
    store.close()


def test_something_slipped_into_the_schema_is_refused(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TRIGGER evil AFTER INSERT ON object BEGIN DELETE FROM object; END").fetchall()
    connection.close()
    with refused(CKR.DEVICE_ERROR):
        SqliteStore.open(path)


def test_a_damaged_object_can_be_removed_and_replaced(path: Path) -> None:
    tamper(path, "UPDATE object SET record = x'00' WHERE id IN (2, 4)")
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    with refused(CKR.DEVICE_ERROR):
        store.get(2)
    store.delete([2])
    store.update(4, certificate(9))
    assert store.get(4) == certificate(9)
    assert store.verify() == []
    store.close()


def test_what_changes_under_an_open_store_is_noticed_too(path: Path) -> None:
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    assert store.get(2) == certificate(1)
    assert store.get(1) == private_key(1)
    write_as_attacker(path, 2, record=encode(certificate(7)))
    with refused(CKR.DEVICE_ERROR):
        store.get(2)
    assert store.get(1) == private_key(1)
    store.close()
