"""Objects come, change and go, all or nothing; private ones are there for the user only. In file and memory alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKA, CKR
from tests.store.samples import FALSE, SO_PIN, TRUE, USER_PIN, certificate, make, private_key, refused, trust, ulong

if TYPE_CHECKING:
    from pathlib import Path

    from keyfob.store import Attributes, SqliteStore, Store


def test_an_object_is_read_as_it_was_written(store: Store) -> None:
    store.login("user", USER_PIN)
    numbers = store.insert([private_key(1), certificate(1)])
    assert [store.get(number) for number in numbers] == [private_key(1), certificate(1)]


def test_an_update_leaves_exactly_the_new_attributes(store: Store) -> None:
    [number] = store.insert([certificate(1)])
    changed = certificate(1) | {CKA.LABEL: b"another"}
    del changed[CKA.SUBJECT]
    store.update(number, changed)
    assert store.get(number) == changed
    assert store.find([(CKA.LABEL, b"another")]) == [number]
    assert store.find([(CKA.LABEL, b"certificate 1")]) == []
    assert store.find([(CKA.SUBJECT, b"subject 1")]) == []


def test_a_deleted_object_is_gone_and_its_number_never_comes_back(store: Store) -> None:
    first, second = store.insert([certificate(1), certificate(2)])
    store.delete([second])
    assert store.get(second) is None
    assert store.find([]) == [first]
    [third] = store.insert([certificate(3)])
    assert third > second


def test_numbers_do_not_come_back_after_reopening_or_reset(path: Path) -> None:
    store = make(path)
    numbers = store.insert([certificate(1), certificate(2)])
    store.delete(numbers)
    store.reset("anew", SO_PIN)
    store.close()
    store = type(store).open(path)
    assert store.insert([certificate(3)])[0] > max(numbers)
    store.close()


def test_one_bad_object_keeps_all_others_out(store: Store) -> None:
    incomplete = certificate(2)
    del incomplete[CKA.PRIVATE]
    counter = store.change_counter()
    with refused(CKR.TEMPLATE_INCOMPLETE):
        store.insert([certificate(1), incomplete])
    assert store.find([]) == []
    with refused(CKR.USER_NOT_LOGGED_IN):
        store.insert([certificate(1), private_key(1)])
    assert store.find([]) == []
    assert store.change_counter() == counter


def test_replacing_and_inserting_are_one_step(store: Store) -> None:
    [old] = store.insert([certificate(1)])
    [new] = store.insert([certificate(2)], replacing=[old])
    assert store.find([]) == [new]
    with refused(CKR.OBJECT_HANDLE_INVALID):
        store.insert([certificate(3)], replacing=[new, old])
    assert store.find([]) == [new]


def test_deleting_is_all_or_nothing(store: Store) -> None:
    numbers = store.insert([certificate(1), certificate(2)])
    with refused(CKR.OBJECT_HANDLE_INVALID):
        store.delete([*numbers, 999])
    assert store.find([]) == numbers
    assert store.get(numbers[0]) == certificate(1)


def test_changes_to_no_object_are_refused(store: Store) -> None:
    with refused(CKR.OBJECT_HANDLE_INVALID):
        store.update(7, certificate(1))
    with refused(CKR.OBJECT_HANDLE_INVALID):
        store.delete([7])
    assert store.get(7) is None


@pytest.mark.parametrize("role", [None, "so"])
def test_only_the_user_sees_private_objects(store: Store, role: str | None) -> None:
    store.login("user", USER_PIN)
    private, public = store.insert([private_key(1), certificate(1)])
    assert store.get(private) == private_key(1)
    store.logout()
    if role is not None:
        store.login(role, SO_PIN)
    assert store.get(private) is None
    assert store.get(public) == certificate(1)
    assert store.find([(CKA.ID, private_key(1)[CKA.ID])]) == [public]
    assert store.find([]) == [public]
    with refused(CKR.OBJECT_HANDLE_INVALID):
        store.update(private, certificate(1))
    with refused(CKR.OBJECT_HANDLE_INVALID):
        store.delete([private])
    with refused(CKR.USER_NOT_LOGGED_IN):
        store.insert([private_key(2)])
    store.logout()
    store.login("user", USER_PIN)
    assert store.get(private) == private_key(1)


def test_public_objects_need_no_login(store: Store) -> None:
    [number] = store.insert([certificate(1)])
    store.update(number, certificate(2))
    assert store.get(number) == certificate(2)
    store.delete([number])
    store.insert([certificate(3)])
    store.login("user", USER_PIN)
    assert store.find([(CKA.SUBJECT, b"subject 3")]) != []
    assert store.verify() == []


def test_trust_needs_a_login(sqlite_store: SqliteStore) -> None:
    with refused(CKR.USER_NOT_LOGGED_IN):
        sqlite_store.insert([trust(1)])
    sqlite_store.login("user", USER_PIN)
    [number] = sqlite_store.insert([trust(1)])
    sqlite_store.logout()
    with refused(CKR.USER_NOT_LOGGED_IN):
        sqlite_store.update(number, trust(2))
    assert sqlite_store.get(number) == trust(1)


def test_an_attribute_beyond_32_bits_is_refused(sqlite_store: SqliteStore) -> None:
    with refused(CKR.ATTRIBUTE_TYPE_INVALID):
        sqlite_store.insert([certificate(1) | {1 << 40: b"x"}])


def test_an_object_may_become_private(store: Store) -> None:
    store.login("user", USER_PIN)
    [number] = store.insert([certificate(1)])
    store.update(number, certificate(1) | {CKA.PRIVATE: TRUE})
    assert store.find([(CKA.LABEL, b"certificate 1")]) == [number]
    assert store.verify() == []
    store.logout()
    assert store.find([(CKA.LABEL, b"certificate 1")]) == []


# Finding

EACH: list[tuple[str, int, bytes]] = [
    (name, attribute, value)
    for name, sample in (("private", private_key(2)), ("certificate", certificate(2)))
    for attribute, value in sample.items()
]


@pytest.fixture
def full(store: Store) -> Store:
    """Five pairs, numbers 1 to 10, logged in."""
    store.login("user", USER_PIN)
    store.insert([sample(i) for i in range(1, 6) for sample in (private_key, certificate)])
    return store


@pytest.mark.parametrize(("name", "attribute", "value"), EACH, ids=lambda part: str(part)[:12])
def test_search_by_any_attribute_finds_what_a_comparison_of_all_finds(
    full: Store, name: str, attribute: int, value: bytes
) -> None:
    del name
    every: dict[int, Attributes | None] = {i: full.get(i) for i in range(1, 11)}
    expected = [i for i, found in every.items() if found is not None and found.get(attribute) == value]
    assert expected
    assert full.find([(attribute, value)]) == expected


def test_the_order_of_a_template_does_not_matter(full: Store) -> None:
    template = [(CKA.CLASS, certificate(3)[CKA.CLASS]), (CKA.TOKEN, TRUE), (CKA.ID, certificate(3)[CKA.ID])]
    assert full.find(template) == full.find(template[::-1]) == [6]


def test_all_values_of_a_template_must_fit(full: Store) -> None:
    assert full.find([(CKA.ID, certificate(3)[CKA.ID]), (CKA.LABEL, b"certificate 2")]) == []
    assert full.find([(CKA.ID, certificate(3)[CKA.ID]), (CKA.SENSITIVE, FALSE)]) == []
    assert full.find([(CKA.LABEL, b"a"), (CKA.LABEL, b"b")]) == []


def test_stored_objects_are_token_objects(full: Store) -> None:
    assert full.find([(CKA.TOKEN, TRUE)]) == list(range(1, 11))
    assert full.find([(CKA.TOKEN, FALSE)]) == []


def test_search_by_privacy(full: Store) -> None:
    assert full.find([(CKA.PRIVATE, FALSE)]) == [2, 4, 6, 8, 10]
    assert full.find([(CKA.PRIVATE, TRUE), (CKA.ID, certificate(1)[CKA.ID])]) == [1]
    assert full.find([(CKA.PRIVATE, FALSE), (CKA.ID, certificate(1)[CKA.ID])]) == [2]


def test_search_by_empty_value(store: Store) -> None:
    numbers = store.insert([certificate(1) | {CKA.ID: b"", CKA.SUBJECT: b""}, certificate(2)])
    assert store.find([(CKA.ID, b"")]) == numbers[:1]
    assert store.find([(CKA.ID, b""), (CKA.LABEL, b"certificate 1")]) == numbers[:1]


def test_search_by_value_without_class_finds_other_objects_than_certificates(full: Store) -> None:
    assert full.find([(CKA.VALUE, private_key(4)[CKA.VALUE])]) == [7]
    assert full.find([(CKA.VALUE, certificate(4)[CKA.VALUE]), (CKA.CLASS, ulong(1))]) == [8]


def test_settings_and_label_are_kept(store: Store) -> None:
    with refused(CKR.USER_NOT_LOGGED_IN):
        store.set_label("refused")
    store.login("user", USER_PIN)
    store.set_label("gr\u00fcn")
    store.set_setting("colour", "red")
    store.set_setting("size", "")
    store.set_setting("colour", "green")
    assert store.info().label == "gr\u00fcn"
    assert store.info().settings == {"colour": "green", "size": ""}
    with refused(CKR.ARGUMENTS_BAD):
        store.set_label("\u00fc" * 17)


def test_a_closed_store_answers_that_it_is(store: Store) -> None:
    store.insert([certificate(1)])
    store.close()
    store.close()
    for call in (store.info, lambda: store.find([]), lambda: store.get(1), lambda: store.insert([certificate(2)])):
        with refused(CKR.CRYPTOKI_NOT_INITIALIZED):
            call()


def test_an_update_of_attributes_that_somebody_has_changed_is_none(store: Store) -> None:
    """Of two programs that change an object at once, the second decides again on what the first has left."""
    (number,) = store.insert([certificate(1)])
    first, second = certificate(1) | {CKA.LABEL: b"first"}, certificate(1) | {CKA.LABEL: b"second"}
    assert store.update(number, first, instead_of=certificate(1))
    assert not store.update(number, second, instead_of=certificate(1))
    assert store.get(number) == first
    assert store.update(number, second, instead_of=first)
    assert store.get(number) == second
