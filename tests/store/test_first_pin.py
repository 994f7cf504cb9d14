"""The first user PIN by NSS's empty SO PIN on a token with another SO PIN, which goes on working (P6, handover.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw
import pytest

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import MemoryStore, SqliteStore, handover, meta, schema
from keyfob.store.info import DEFAULT_MAX_FAILURES
from keyfob.store.integrity import META_CHECKSUM, tag_of_meta
from keyfob.store.seal import WRAPPING, Keys
from tests.store.samples import (
    CHEAP,
    SERIAL,
    SO_PIN,
    USER_PIN,
    certificate,
    make,
    make_in_memory,
    of_schema,
    output_of,
    private_key,
    refused,
    trust,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyfob.store import Store

OTHER_PIN = b"another secret"


def make_waiting(path: Path, so_pin: bytes = SO_PIN, **more: Any) -> SqliteStore:
    """A token as C_InitToken leaves it."""
    return SqliteStore.create(
        path, label="a token", serial=SERIAL, kind="multipurpose", so_pin=so_pin, hardening=CHEAP, **more
    )


@pytest.fixture(params=["sqlite", "memory"])
def waiting(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    store: Store
    if request.param == "sqlite":
        store = make_waiting(path)
    else:
        store = MemoryStore(label="a token", serial=SERIAL, so_pin=SO_PIN)
    yield store
    store.close()


@pytest.fixture
def token(path: Path, log: list[str]) -> Iterator[SqliteStore]:
    store = make_waiting(path, log=log.append)
    yield store
    store.close()


def set_first_pin(store: Store, pin: bytes = USER_PIN) -> None:
    """As NSS does."""
    store.login("so", b"")
    store.set_pin("user", pin)
    store.logout()


def fact(path: Path, name: str) -> bytes:
    connection = apsw.Connection(str(path))
    (value,) = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchall()[0]
    connection.close()
    assert isinstance(value, bytes)
    return value


def write_fact(path: Path, name: str, value: bytes, keys: Keys | None = None) -> None:
    """What somebody with write access can do: the checksum fits, and a MAC to master keys that he made up."""
    connection = apsw.Connection(str(path))
    checksum = tag_of_meta(META_CHECKSUM, name, value)
    values: tuple[bytes | str, ...] = (value, checksum, name)
    connection.execute("UPDATE meta SET value = ?, checksum = ? WHERE name = ?", values).fetchall()
    assert connection.changes() == 1
    if keys is not None:
        values = (tag_of_meta(keys.mac_meta, name, value), name)
        connection.execute("UPDATE meta SET mac = ? WHERE name = ?", values).fetchall()
    connection.close()


# What the empty SO PIN sets, and what it does not touch


def test_the_so_pin_outlives_a_first_pin_that_was_set_without_it(waiting: Store) -> None:
    set_first_pin(waiting)
    assert (waiting.info().user_pin_set, waiting.info().so_pin_set) == (True, True)
    waiting.login("user", USER_PIN)
    [number] = waiting.insert([private_key(1)])
    waiting.logout()
    for pin in (OTHER_PIN, USER_PIN):  # the first login of the SO takes over the key, the second has it
        waiting.login("so", SO_PIN)
        assert waiting.get(number) is None
        waiting.set_pin("user", pin)
        waiting.logout()
        waiting.login("user", pin)
        assert waiting.get(number) == private_key(1)
        assert waiting.verify() == []
        waiting.logout()


def test_the_empty_so_pin_ends_with_the_first_user_pin(waiting: Store) -> None:
    set_first_pin(waiting)
    with refused(CKR.PIN_INCORRECT):
        waiting.login("so", b"")
    assert waiting.info().failed_so == 1
    waiting.login("so", SO_PIN)
    assert waiting.info().failed_so == 0


def test_the_empty_so_pin_ends_when_the_so_sets_the_first_pin(waiting: Store) -> None:
    waiting.login("so", SO_PIN)
    waiting.set_pin("user", USER_PIN)
    waiting.logout()
    with refused(CKR.PIN_INCORRECT):
        waiting.login("so", b"")


def test_wrong_so_pins_count_and_the_empty_one_does_not(waiting: Store) -> None:
    for i in range(1, DEFAULT_MAX_FAILURES + 1):
        waiting.login("so", b"")
        waiting.logout()
        with refused(CKR.PIN_INCORRECT):
            waiting.login("so", b"wrong")
        assert waiting.info().failed_so == i
        assert not waiting.unlocked
    with refused(CKR.PIN_LOCKED):
        waiting.login("so", SO_PIN)
    set_first_pin(waiting)
    waiting.login("user", USER_PIN)
    assert waiting.info().failed_so == DEFAULT_MAX_FAILURES


def test_the_empty_so_pin_is_good_for_the_user_pin_alone(waiting: Store) -> None:
    waiting.login("so", b"")
    assert waiting.unlocked
    for _ in range(2):
        with refused(CKR.USER_NOT_LOGGED_IN):
            waiting.set_pin("so", b"usurped")
        with refused(CKR.PIN_INCORRECT):
            waiting.verify_pin("so", b"")
        with refused(CKR.USER_NOT_LOGGED_IN):
            waiting.insert([private_key(1)])
        if not waiting.info().user_pin_set:
            with refused(CKR.USER_NOT_LOGGED_IN):
                waiting.set_label("usurped")
            with refused(CKR.USER_NOT_LOGGED_IN):
                waiting.set_setting("colour", "red")
            with refused(CKR.PIN_LEN_RANGE):
                waiting.set_pin("user", b"")
            waiting.set_pin("user", OTHER_PIN)
    waiting.set_pin("user", USER_PIN)
    waiting.logout()
    waiting.login("user", USER_PIN)
    waiting.logout()
    waiting.login("so", SO_PIN)
    assert waiting.info().label == "a token"


def test_the_empty_so_pin_does_not_erase(waiting: Store) -> None:
    with refused(CKR.PIN_INCORRECT):
        waiting.reset("erased", b"")
    waiting.login("so", b"")
    with refused(CKR.PIN_INCORRECT):
        waiting.reset("erased", b"")
    assert waiting.info().epoch == 1


@pytest.mark.parametrize("taken_over", [False, True])
def test_a_token_initialised_anew_waits_for_its_first_pin_again(waiting: Store, *, taken_over: bool) -> None:
    set_first_pin(waiting)
    if taken_over:
        waiting.login("so", SO_PIN)
        waiting.logout()
    waiting.login("user", USER_PIN)
    waiting.insert([private_key(1)])
    waiting.reset("anew", SO_PIN)
    assert (waiting.info().epoch, waiting.info().user_pin_set) == (2, False)
    set_first_pin(waiting, OTHER_PIN)
    waiting.login("user", OTHER_PIN)
    assert waiting.find([]) == []
    waiting.logout()
    waiting.login("so", SO_PIN)
    assert waiting.verify() == []


def test_an_so_pin_changed_before_the_first_user_pin_is_the_one_that_works(waiting: Store) -> None:
    waiting.login("so", SO_PIN)
    waiting.set_pin("so", OTHER_PIN)
    waiting.logout()
    set_first_pin(waiting)
    with refused(CKR.PIN_INCORRECT):
        waiting.login("so", SO_PIN)
    waiting.login("so", OTHER_PIN)
    waiting.set_pin("user", b"unblocked")


def test_a_user_who_sets_the_so_pin_ends_the_old_one(waiting: Store) -> None:
    set_first_pin(waiting)
    waiting.login("user", USER_PIN)
    waiting.set_pin("so", OTHER_PIN)
    waiting.logout()
    with refused(CKR.PIN_INCORRECT):
        waiting.login("so", SO_PIN)
    waiting.login("so", OTHER_PIN)
    assert waiting.verify() == []


def test_a_token_of_general_access_takes_no_empty_so_pin(path: Path) -> None:
    memory = MemoryStore(label="open", serial=SERIAL, so_pin=SO_PIN, general_access=True)
    stored = make_waiting(path, general_access=True)
    for store in (memory, stored):
        with refused(CKR.PIN_INCORRECT):
            store.login("so", b"")
        assert not store.unlocked
        store.close()
    assert fact(path, "so_key") == b""


# What lies in the file


def test_the_new_master_key_is_another_one_and_the_so_takes_it_over(
    token: SqliteStore, path: Path, log: list[str]
) -> None:
    token.login("so", SO_PIN)
    assert token._vault.keys is not None
    first = bytes(token._vault.keys.master)
    token.logout()
    assert fact(path, "so_key") == handover.public_key(first)
    set_first_pin(token)
    assert fact(path, "so_key") == b""
    assert len(fact(path, "so_wrapping")) == WRAPPING.size + handover.SIZE
    token.login("user", USER_PIN)
    second = bytes(token._vault.keys.master)
    assert second != first
    token.logout()
    for _ in range(2):
        token.login("so", SO_PIN)
        assert bytes(token._vault.keys.master) == second
        assert len(fact(path, "so_wrapping")) == WRAPPING.size
        token.logout()
    assert len([line for line in log if "set without the SO PIN" in line]) == 1
    assert not any(secret in b"".join(f.read_bytes() for f in path.parent.iterdir()) for secret in (first, second))


def test_nothing_is_ever_sealed_to_an_empty_so_pin(path: Path) -> None:
    """Under it the master key is open to every reader, so whatever is sealed to that key would be, too."""
    store = make_waiting(path, so_pin=b"")
    assert fact(path, "so_key") == b""
    store.login("so", b"")
    store.logout()
    assert fact(path, "so_key") == b""
    store.reset("again", b"")
    assert fact(path, "so_key") == b""
    set_first_pin(store)
    assert fact(path, "so_wrapping") == b""
    with refused(CKR.PIN_INCORRECT):
        store.login("so", b"")
    store.close()


def test_a_first_so_pin_lets_the_first_user_pin_be_set_without_it(path: Path) -> None:
    store = make_waiting(path, so_pin=b"")
    store.login("so", b"")
    store.set_pin("so", SO_PIN)
    store.logout()
    set_first_pin(store)
    store.login("so", SO_PIN)
    store.set_pin("user", OTHER_PIN)
    assert store.verify() == []
    store.close()


def test_public_objects_from_before_stay_and_trust_objects_are_not_believed(token: SqliteStore, log: list[str]) -> None:
    [without_login] = token.insert([certificate(1)])
    token.login("so", SO_PIN)
    [of_the_so, trusted] = token.insert([certificate(2), trust(1)])
    token.logout()
    token.login("so", b"")
    [of_nss] = token.insert([certificate(3)])
    with refused(CKR.USER_NOT_LOGGED_IN):
        token.insert([trust(2)])
    token.set_pin("user", USER_PIN)
    token.logout()
    token.login("user", USER_PIN)
    for number, attributes in ((without_login, 1), (of_the_so, 2), (of_nss, 3)):
        assert token.get(number) == certificate(attributes)
    with refused(CKR.DEVICE_ERROR):
        token.get(trusted)
    assert any(f"object {trusted}: a trust object without a MAC" in line for line in log)
    token.delete([trusted])
    assert token.verify() == []


# Several processes, and failures


def test_who_waits_to_set_the_first_pin_is_logged_out_when_the_so_does(token: SqliteStore, path: Path) -> None:
    so = SqliteStore.open(path)
    token.login("so", b"")
    so.login("so", SO_PIN)
    so.set_pin("user", USER_PIN)
    assert not token.unlocked
    with refused(CKR.USER_NOT_LOGGED_IN):
        token.set_pin("user", b"hijacked")
    so.close()
    token.login("user", USER_PIN)


def test_who_waits_to_set_the_first_pin_is_logged_out_by_c_inittoken(token: SqliteStore, path: Path) -> None:
    other = SqliteStore.open(path)
    token.login("so", b"")
    other.reset("anew", SO_PIN)
    assert not token.unlocked
    with refused(CKR.USER_NOT_LOGGED_IN):
        token.set_pin("user", USER_PIN)
    other.close()


def test_of_two_who_set_the_first_pin_one_does(token: SqliteStore, path: Path) -> None:
    other = SqliteStore.open(path)
    token.login("so", b"")
    other.login("so", b"")
    token.set_pin("user", USER_PIN)
    with refused(CKR.USER_NOT_LOGGED_IN):
        other.set_pin("user", OTHER_PIN)
    with refused(CKR.PIN_INCORRECT):
        other.login("user", OTHER_PIN)
    other.login("user", USER_PIN)
    other.close()


def test_the_so_who_is_logged_in_is_logged_out_by_a_first_pin_set_without_him(token: SqliteStore, path: Path) -> None:
    other = SqliteStore.open(path)
    other.login("so", SO_PIN)
    set_first_pin(token)
    with refused(CKR.USER_NOT_LOGGED_IN):
        other.set_pin("user", OTHER_PIN)
    other.login("so", SO_PIN)
    other.set_pin("user", OTHER_PIN)
    other.close()


def test_a_first_pin_that_cannot_be_written_changes_nothing(
    token: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [number] = token.insert([certificate(1)])
    before = {name: fact(path, name) for name in meta.GUARDED}

    def fails(*_: object) -> None:
        raise PKCS11Error(CKR.DEVICE_MEMORY, "no room")

    token.login("so", b"")
    with monkeypatch.context() as patch:
        patch.setattr(meta, "write_counters", fails)  # the last write of the transaction
        with refused(CKR.DEVICE_MEMORY):
            token.set_pin("user", USER_PIN)
    assert {name: fact(path, name) for name in meta.GUARDED} == before
    assert not token.info().user_pin_set
    token.set_pin("user", USER_PIN)
    token.logout()
    token.login("so", SO_PIN)
    assert token.get(number) == certificate(1)
    assert token.verify() == []


def test_the_so_gets_in_where_the_key_cannot_be_renewed(
    token: SqliteStore, path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_first_pin(token)

    def fails(*_: object) -> None:
        raise PKCS11Error(CKR.DEVICE_MEMORY, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(meta, "write", fails)
        token.login("so", SO_PIN)
    assert token.unlocked
    assert any("not renewed" in line for line in log)
    token.set_pin("user", OTHER_PIN)
    token.logout()
    token.login("so", SO_PIN)
    assert len(fact(path, "so_wrapping")) == WRAPPING.size


def test_a_token_that_can_only_be_read_gets_no_first_pin(token: SqliteStore, path: Path) -> None:
    reader = SqliteStore.open(path, read_only=True)
    reader.login("so", b"")
    with refused(CKR.TOKEN_WRITE_PROTECTED):
        reader.set_pin("user", USER_PIN)
    reader.logout()
    set_first_pin(token)
    reader.login("so", SO_PIN)
    assert reader.unlocked
    reader.close()


# Somebody writes to the file


def test_a_replaced_so_key_costs_the_so_his_way_in_and_is_noticed(
    token: SqliteStore, path: Path, log: list[str]
) -> None:
    """Nobody can notice it at the first PIN: whoever could write the file then could have replaced all of it."""
    write_fact(path, "so_key", handover.public_key(b"his own master key".ljust(32)))
    set_first_pin(token)
    with refused(CKR.DEVICE_ERROR):
        token.login("so", SO_PIN)
    assert (token.unlocked, token.info().failed_so) == (False, 0)
    token.login("user", USER_PIN)
    token.set_pin("so", SO_PIN)
    token.logout()
    token.login("so", SO_PIN)
    assert token.verify() == []


def test_a_replaced_so_key_is_noticed_and_mended_by_the_sos_login(
    token: SqliteStore, path: Path, log: list[str]
) -> None:
    right = fact(path, "so_key")
    write_fact(path, "so_key", handover.public_key(b"his own master key".ljust(32)))
    token.login("so", SO_PIN)
    assert any("meta so_key: the MAC does not fit" in line for line in log)
    assert fact(path, "so_key") == right
    assert token.verify() == []


@pytest.mark.parametrize("key", [bytes(32), b"short", b"x" * 33])
def test_what_is_no_public_key_is_sealed_to_by_nobody(token: SqliteStore, path: Path, key: bytes) -> None:
    write_fact(path, "so_key", key)
    token.login("so", b"")
    with refused(CKR.DEVICE_ERROR):
        token.set_pin("user", USER_PIN)
    assert not token.info().user_pin_set


def test_an_so_key_put_beside_a_user_pin_lets_nobody_in(path: Path) -> None:
    store = make(path)
    write_fact(path, "so_key", handover.public_key(bytes(32)))
    with refused(CKR.PIN_INCORRECT):
        store.login("so", b"")
    assert not store.unlocked
    store.close()


@pytest.mark.parametrize("place", [WRAPPING.size, WRAPPING.size + 40, -1])
def test_a_changed_seal_for_the_so_is_noticed(token: SqliteStore, path: Path, place: int) -> None:
    set_first_pin(token)
    value = bytearray(fact(path, "so_wrapping"))
    value[place] ^= 0x20
    for changed in (bytes(value), bytes(value[:-1])):
        write_fact(path, "so_wrapping", changed)
        with refused(CKR.DEVICE_ERROR):
            token.login("so", SO_PIN)
    assert token.info().failed_so == 0
    token.login("user", USER_PIN)


def test_another_master_key_sealed_for_the_so_is_not_the_tokens(token: SqliteStore, path: Path) -> None:
    """Anybody who has seen `so_key` can seal to it; what opens must still be the master key of this token."""
    public = fact(path, "so_key")
    set_first_pin(token)
    forged = fact(path, "so_wrapping")[: WRAPPING.size] + handover.seal(bytes(32), public)
    write_fact(path, "so_wrapping", forged)
    with refused(CKR.DEVICE_ERROR):
        token.login("so", SO_PIN)
    assert not token.unlocked


def test_nothing_opens_from_behind_the_users_wrapping(path: Path) -> None:
    """Or whoever has seen `so_key` could give the user a master key of his own, where the SO set the first PIN."""
    store = make_waiting(path)
    public = fact(path, "so_key")
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.logout()
    his = Keys(bytes(32))
    forged = {name: fact(path, name) for name in meta.GUARDED} | {"key_id": his.key_id}
    forged["user_wrapping"] += handover.seal(bytes(his.master), public)
    for name, value in forged.items():
        write_fact(path, name, value, his)
    with refused(CKR.DEVICE_ERROR):
        store.login("user", USER_PIN)
    store.close()


# Tokens of schema 2


def test_a_token_of_schema_2_takes_the_empty_so_pin_after_the_sos_next_login(path: Path, log: list[str]) -> None:
    store = SqliteStore.open(of_schema(2, "first-pin", path.parent), log=log.append)
    assert store._database.number("PRAGMA user_version") == schema.VERSION
    assert store.verify() == []
    with refused(CKR.PIN_INCORRECT):
        store.login("so", b"")
    store.login("so", SO_PIN)
    assert store.verify() == []
    store.logout()
    set_first_pin(store)
    store.login("so", SO_PIN)
    assert store.verify() == []
    store.close()
    assert not any("meta" in line for line in log)


def test_a_token_of_schema_2_with_a_user_pin_goes_on(path: Path, log: list[str]) -> None:
    store = SqliteStore.open(of_schema(2, "pin", path.parent), log=log.append)
    for role, pin in (("user", USER_PIN), ("so", SO_PIN)):
        store.login(role, pin)
        assert store.verify() == []
        store.set_pin(role, pin)
        assert store.verify() == []
        store.logout()
    with refused(CKR.PIN_INCORRECT):
        store.login("so", b"")
    assert log == ["made without a login, and counts from now on: object 6"]
    store.close()


def test_the_empty_so_pin_of_a_token_of_schema_2_still_sets_the_first_pin(path: Path) -> None:
    store = SqliteStore.open(of_schema(2, "empty-so-pin", path.parent))
    set_first_pin(store)
    store.login("user", USER_PIN)
    assert store.verify() == []
    store.close()


# What it costs


def test_logins_of_an_ordinary_token_do_not_import_what_the_first_pin_needs(path: Path) -> None:
    make(path).close()
    program = """
import sys
from keyfob.store import SqliteStore
store = SqliteStore.open(sys.argv[1])
for role, pin in (("user", sys.argv[2]), ("so", sys.argv[3])):
    store.login(role, pin.encode())
    store.logout()
store.close()
print([name for name in sys.modules if name.endswith(("handover", "rekey", "hpke", "x25519"))])
"""
    assert output_of(program, path, USER_PIN.decode(), SO_PIN.decode()).strip() == "[]"


def test_a_store_in_memory_that_has_a_user_pin_takes_no_empty_so_pin() -> None:
    store = make_in_memory()
    with refused(CKR.PIN_INCORRECT):
        store.login("so", b"")
    store.close()
