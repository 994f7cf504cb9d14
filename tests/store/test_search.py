"""What a search remembers never hides an object: which classes there are, and what it read lately."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKA, CKO
from keyfob.store import SqliteStore
from keyfob.store.integrity import PUBLIC_INDEX, class_mark, index_digest
from tests.store.samples import FALSE, TRUE, USER_PIN, certificate, private_key, ulong

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyfob.store import Attributes, Store

ID = (7).to_bytes(20, "big")
CERTIFICATE = [(CKA.CLASS, ulong(CKO.CERTIFICATE)), (CKA.ID, ID)]
PRIVATE_KEY = [(CKA.CLASS, ulong(CKO.PRIVATE_KEY)), (CKA.ID, ID)]


@pytest.fixture
def other(path: Path, sqlite_store: SqliteStore) -> Iterator[SqliteStore]:
    """As another process has the same token open."""
    sqlite_store.login("user", USER_PIN)
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    yield store
    store.close()


def unusual(number: int) -> tuple[Attributes, Attributes]:
    """A private certificate and a private key that is public: the halves that most tokens have none of."""
    return {**certificate(number), CKA.PRIVATE: TRUE}, {**private_key(number), CKA.PRIVATE: FALSE}


def test_the_first_object_of_a_kind_is_found_at_once(store: Store) -> None:
    store.login("user", USER_PIN)
    for objects in ((certificate(7), private_key(7)), unusual(7)):
        before = store.find(CERTIFICATE), store.find(PRIVATE_KEY)
        a_certificate, a_key = store.insert(objects)
        assert store.find(CERTIFICATE) == [*before[0], a_certificate]
        assert store.find(PRIVATE_KEY) == [*before[1], a_key]


def test_the_first_object_of_a_kind_from_another_process_is_found_at_once(
    sqlite_store: SqliteStore, other: SqliteStore
) -> None:
    for objects in ((certificate(7), private_key(7)), unusual(7)):
        before = sqlite_store.find(CERTIFICATE), sqlite_store.find(PRIVATE_KEY)
        a_certificate, a_key = other.insert(objects)
        assert sqlite_store.find(CERTIFICATE) == [*before[0], a_certificate]
        assert sqlite_store.find(PRIVATE_KEY) == [*before[1], a_key]


def test_an_object_that_becomes_the_first_of_its_class_is_found(store: Store) -> None:
    store.login("user", USER_PIN)
    number = store.insert([certificate(7)])[0]
    data = [(CKA.CLASS, ulong(CKO.DATA)), (CKA.ID, ID)]
    assert store.find(data) == []
    store.update(number, {**certificate(7), CKA.CLASS: ulong(CKO.DATA)})
    assert store.find(data) == [number]
    assert store.find(CERTIFICATE) == []


def test_what_a_login_shows_is_found_after_a_search_without_it(store: Store) -> None:
    store.login("user", USER_PIN)
    numbers = store.insert(unusual(7))
    store.logout()
    assert (store.find(CERTIFICATE), store.find(PRIVATE_KEY)) == ([], [numbers[1]])
    store.login("user", USER_PIN)
    assert (store.find(CERTIFICATE), store.find(PRIVATE_KEY)) == ([numbers[0]], [numbers[1]])


def test_the_attributes_of_what_a_search_met_are_all_of_them(store: Store) -> None:
    store.login("user", USER_PIN)
    objects = [certificate(7), private_key(7)]
    numbers = store.insert(objects)
    assert store.find([(CKA.ID, ID)]) == numbers
    assert [store.get(number) for number in numbers] == objects
    assert [store.get(number) for number in numbers] == objects
    store.update(numbers[0], {**objects[0], CKA.LABEL: b"another"})
    assert store.find([(CKA.ID, ID), (CKA.LABEL, b"another")]) == [numbers[0]]
    assert store.get(numbers[0]) == {**objects[0], CKA.LABEL: b"another"}


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_forged_look_ups_find_no_object_twice(sqlite_store: SqliteStore, most: int) -> None:
    sqlite_store.login("user", USER_PIN)
    numbers = sqlite_store.insert([private_key(7), certificate(7), private_key(7)])
    database = sqlite_store._database
    with database.writing():
        for number in numbers:
            mark = class_mark(PUBLIC_INDEX, ulong(CKO.PRIVATE_KEY))
            row = (index_digest(PUBLIC_INDEX, CKA.ID, ID), number, mark)
            database.run("INSERT INTO lookup VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row)
    found: list[int] = []
    after: int | None = 0
    while after is not None:
        part, after = sqlite_store.find_some([(CKA.ID, ID)], after, most)
        found += part
    assert found == numbers


def test_after_objects_that_were_in_memory_another_is_read_and_checked(sqlite_store: SqliteStore) -> None:
    sqlite_store.login("user", USER_PIN)
    known, unknown, damaged, gone = sqlite_store.insert([certificate(number) for number in range(4)])
    with sqlite_store._database.writing():
        sqlite_store._database.run("UPDATE object SET record = zeroblob(9) WHERE id = ?", (damaged,))
        sqlite_store._database.run("DELETE FROM object WHERE id = ?", (gone,))
    for number, found in ((0, [known]), (1, [unknown]), (2, []), (3, [])):
        for _ in range(2):
            assert sqlite_store.find([(CKA.LABEL, b"certificate 0")]) == [known]
        assert sqlite_store._recalls
        assert sqlite_store.find([(CKA.LABEL, b"certificate %d" % number)]) == found


def test_what_another_process_changed_is_not_taken_from_memory(sqlite_store: SqliteStore, other: SqliteStore) -> None:
    numbers = sqlite_store.insert([certificate(number) for number in range(3)])
    for _ in range(2):
        assert sqlite_store.find([(CKA.ISSUER, b"the issuer")]) == numbers
    other.update(numbers[0], {**certificate(0), CKA.LABEL: b"another"})
    other.delete([numbers[1]])
    assert sqlite_store.find([(CKA.ISSUER, b"the issuer")]) == [numbers[0], numbers[2]]
    assert sqlite_store.find([(CKA.ISSUER, b"the issuer"), (CKA.LABEL, b"another")]) == [numbers[0]]
    assert sqlite_store.find([(CKA.LABEL, b"certificate 0")]) == []
