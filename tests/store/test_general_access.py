"""Tokens without PIN: what opens them, and how the first PIN takes the key file's place (S12, S14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKA, CKO, CKR
from keyfob.store import MemoryStore, SqliteStore, key_file, schema
from tests.store.samples import CHEAP, SERIAL, SO_PIN, TRUE, USER_PIN, make, of_schema, private_key, refused, ulong

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyfob.store import Attributes, Store

ASKING = [(CKA.ALWAYS_AUTHENTICATE, TRUE), (CKA.CLASS, ulong(CKO.PRIVATE_KEY))]


def make_open(path: Path, *, empty_pin: bool) -> SqliteStore:
    return SqliteStore.create(
        path,
        label="open",
        serial=SERIAL,
        kind="multipurpose",
        so_pin=SO_PIN,
        hardening=CHEAP,
        general_access=True,
        empty_pin=empty_pin,
    )


@pytest.fixture(params=["sqlite", "memory"])
def empty(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    """A token of general access with the empty PIN and an SO PIN, opened."""
    store: Store
    if request.param == "sqlite":
        store = make_open(path, empty_pin=True)
    else:
        store = MemoryStore(label="open", serial=SERIAL, so_pin=SO_PIN, general_access=True, empty_pin=True)
    store.unlock_with_key_file()
    yield store
    store.close()


def state(store: Store) -> tuple[bool, bool, bool]:
    info = store.info()
    return info.login_required, info.user_pin_set, info.empty_pin


def test_the_first_pin_takes_the_place_of_the_key_file(empty: Store) -> None:
    [number] = empty.insert([private_key(1)])
    assert state(empty) == (False, True, True)
    empty.set_pin("user", USER_PIN)
    assert state(empty) == (True, True, False)
    assert empty.get(number) == private_key(1), "who has set the PIN is the user"
    empty.logout()
    with refused(CKR.USER_NOT_LOGGED_IN):
        empty.unlock_with_key_file()
    assert empty.get(number) is None
    empty.login("user", USER_PIN)
    assert empty.get(number) == private_key(1)


def test_the_so_pin_outlives_the_first_user_pin(empty: Store) -> None:
    empty.set_pin("user", USER_PIN)
    empty.logout()
    empty.login("so", SO_PIN)
    empty.set_pin("user", b"another one")
    empty.logout()
    empty.login("user", b"another one")


def test_the_so_sets_the_first_pin(empty: Store) -> None:
    empty.logout()
    empty.login("so", SO_PIN)
    empty.set_pin("user", USER_PIN)
    assert state(empty) == (True, True, False)
    empty.logout()
    empty.login("user", USER_PIN)


def test_a_token_initialised_anew_has_no_key_file(empty: Store) -> None:
    empty.reset("again", SO_PIN)
    assert state(empty) == (True, False, False)
    with refused(CKR.USER_NOT_LOGGED_IN):
        empty.unlock_with_key_file()


def test_without_general_access_there_is_no_empty_pin(path: Path) -> None:
    with refused(CKR.ARGUMENTS_BAD):
        MemoryStore(label="open", serial=SERIAL, empty_pin=True)
    with refused(CKR.ARGUMENTS_BAD):
        SqliteStore.create(
            path, label="open", serial=SERIAL, kind="signing", so_pin=SO_PIN, hardening=CHEAP, empty_pin=True
        )


@pytest.mark.parametrize("how", ["first PIN", "SO", "C_InitToken"])
def test_the_key_file_is_deleted_where_it_is_the_tokens_own(path: Path, how: str) -> None:
    store = make_open(path, empty_pin=True)
    assert path.with_suffix(".key").exists()
    if how == "first PIN":
        store.unlock_with_key_file()
        store.set_pin("user", USER_PIN)
    elif how == "SO":
        store.login("so", SO_PIN)
        store.set_pin("user", USER_PIN)
    else:
        store.reset("again", SO_PIN)
    assert not path.with_suffix(".key").exists()
    assert store.verify() == []
    store.close()


def test_a_key_file_left_by_a_kill_opens_nothing_and_goes_with_the_next_login(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_open(path, empty_pin=True)
    key = path.with_suffix(".key").read_bytes()
    store.unlock_with_key_file()
    [number] = store.insert([private_key(1)])
    with monkeypatch.context() as patch:
        patch.setattr(key_file, "remove", _killed)
        with pytest.raises(KeyboardInterrupt):
            store.set_pin("user", USER_PIN)
    store.close()
    assert path.with_suffix(".key").read_bytes() == key
    store = SqliteStore.open(path)
    assert state(store) == (True, True, False)
    with refused(CKR.USER_NOT_LOGGED_IN):
        store.unlock_with_key_file()
    store.login("user", USER_PIN)
    assert not path.with_suffix(".key").exists()
    assert store.get(number) == private_key(1)
    assert store.verify() == []
    store.close()


def _killed(*_: object) -> bool:
    raise KeyboardInterrupt


def test_a_store_that_the_key_file_opened_closes_when_another_sets_the_pin(path: Path) -> None:
    one, other = make_open(path, empty_pin=True), SqliteStore.open(path)
    one.unlock_with_key_file()
    other.unlock_with_key_file()
    [number] = one.insert([private_key(1)])
    assert other.get(number) == private_key(1)
    one.set_pin("user", USER_PIN)
    assert other.get(number) is None
    assert not other.unlocked
    with refused(CKR.USER_NOT_LOGGED_IN):
        other.insert([private_key(2)])
    one.close()
    other.close()


# What the first look-up for keys that ask each time rests on (P5)


def asking_key(number: int) -> Attributes:
    return {**private_key(number), CKA.ALWAYS_AUTHENTICATE: TRUE}


def test_whether_something_is_there_is_answered_without_finding_all(store: Store) -> None:
    store.login("user", USER_PIN)
    store.insert([private_key(1)])
    assert not store.exists(ASKING)
    [number] = store.insert([asking_key(2)])
    assert store.exists(ASKING)
    assert store.find(ASKING) == [number]
    store.logout()
    assert not store.exists(ASKING)
    store.login("user", USER_PIN)
    store.delete([number])
    assert not store.exists(ASKING)


def test_a_search_for_keys_that_do_not_ask_finds_them(store: Store) -> None:
    store.login("user", USER_PIN)
    plain = {**private_key(1), CKA.ALWAYS_AUTHENTICATE: b"\x00"}
    [number, _] = store.insert([plain, asking_key(2)])
    assert store.find([(CKA.ALWAYS_AUTHENTICATE, b"\x00")]) == [number]


def test_a_look_up_reads_no_other_keys(path: Path) -> None:
    store = make(path)
    store.login("user", USER_PIN)
    store.insert([private_key(number) for number in range(200)] + [asking_key(1000 + number) for number in range(50)])
    read = 0
    original = store._read

    def counted(*arguments: object, **named: object) -> object:
        nonlocal read
        read += 1
        return original(*arguments, **named)  # type: ignore[arg-type]

    store._recent.clear()
    patch = pytest.MonkeyPatch()
    patch.setattr(SqliteStore, "_read", lambda _, *arguments, **named: counted(*arguments, **named))
    assert store.exists(ASKING)
    patch.undo()
    assert read == 1
    store.close()


@pytest.mark.parametrize("general_access", [False, True])
def test_keys_of_schema_1_are_indexed_when_they_can_be_read(path: Path, *, general_access: bool) -> None:
    store = SqliteStore.open(of_schema(1, "general" if general_access else "pin", path.parent))
    plain, asking = 1, 3
    assert store._database.number("PRAGMA user_version") == schema.VERSION
    assert store._database.number("SELECT count(*) FROM unindexed") == 2
    store.login("so", SO_PIN)  # who cannot read them
    store.logout()
    assert store._database.number("SELECT count(*) FROM unindexed") == 2
    if general_access:
        store.unlock_with_key_file()
    else:
        store.login("user", USER_PIN)
    assert store._database.number("SELECT count(*) FROM unindexed") == 0
    assert store.find(ASKING) == [asking]
    assert store.get(plain) == private_key(1)
    assert store.verify() == []
    store.close()
