"""Tokens that older versions of keyfob wrote: nothing is lost, and what is new holds for them, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw
import pytest

from keyfob.spec.constants import CKA
from keyfob.store import SqliteStore, schema
from tests.store.samples import (
    SO_PIN,
    TRUE,
    USER_PIN,
    certificate,
    of_schema,
    private_key,
    trust,
)

if TYPE_CHECKING:
    from pathlib import Path

OLD = range(1, schema.VERSION)
CONTENT = {
    1: private_key(1),
    2: certificate(1) | {CKA.LABEL: b"renamed"},
    3: private_key(2) | {CKA.ALWAYS_AUTHENTICATE: TRUE},
    5: trust(1),
    6: certificate(3),
}


def test_every_older_schema_is_kept_as_a_fixture() -> None:
    assert len(schema.MIGRATIONS) == schema.VERSION - 1
    for number in OLD:
        assert (folder := of_schema.__globals__["FIXTURES"] / f"schema-{number}").is_dir(), folder


@pytest.mark.parametrize("number", OLD)
def test_a_token_of_an_older_schema_keeps_all_it_has(tmp_path: Path, number: int) -> None:
    said: list[str] = []
    path = of_schema(number, "pin", tmp_path)
    for _ in range(2):
        store = SqliteStore.open(path, log=said.append)
        assert store.verify() == []
        store.login("user", USER_PIN)
        assert {i: store.get(i) for i in store.find([])} == CONTENT
        assert store.find([(CKA.ALWAYS_AUTHENTICATE, TRUE)]) == [3]
        assert store.verify() == []
        store.close()
    assert said == ["made without a login, and counts from now on: object 6"]


@pytest.mark.parametrize("number", OLD)
def test_a_token_of_an_older_schema_is_changed_like_any(tmp_path: Path, number: int) -> None:
    said: list[str] = []
    store = SqliteStore.open(of_schema(number, "pin", tmp_path), log=said.append)
    store.login("so", SO_PIN)  # builds no roster, and does without
    store.set_pin("user", USER_PIN)
    store.update(2, certificate(1))
    store.logout()
    store.delete([6])
    store.login("user", USER_PIN)
    store.delete([1])
    assert store.insert([private_key(7)]) == [7]
    store.set_label("renamed")
    assert store.verify() == []
    store.close()
    assert said == []


@pytest.mark.parametrize("number", OLD)
def test_a_token_without_pin_of_an_older_schema_opens(tmp_path: Path, number: int) -> None:
    store = SqliteStore.open(of_schema(number, "general", tmp_path))
    store.unlock_with_key_file()
    assert store.get(1) == private_key(1)
    assert store._vault.facts().has_roster
    assert store.verify() == []
    store.close()


@pytest.mark.parametrize("number", OLD)
@pytest.mark.parametrize(("name", "so_pin"), [("first-pin", SO_PIN), ("empty-so-pin", b"")])
def test_a_token_of_an_older_schema_gets_its_first_pin(tmp_path: Path, number: int, name: str, so_pin: bytes) -> None:
    said: list[str] = []
    store = SqliteStore.open(of_schema(number, name, tmp_path), log=said.append)
    store.login("so", so_pin)
    store.set_pin("user", USER_PIN)
    store.logout()
    store.login("user", USER_PIN)
    store.insert([private_key(1)])
    assert store._vault.facts().has_roster
    assert store.verify() == []
    store.close()
    assert said == (["made without a login, and counts from now on: object 1"] if name == "first-pin" else [])


@pytest.mark.parametrize("number", OLD)
def test_what_a_login_made_of_an_older_schema_cannot_be_taken_back(tmp_path: Path, number: int) -> None:
    """An attacker empties the roster, as a token has it that was not opened since it was migrated."""
    path = of_schema(number, "pin", tmp_path)
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    store.close()
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM roster").fetchall()
    empty = (
        schema.MIGRATIONS[2][-1].replace("INSERT OR IGNORE", "INSERT OR REPLACE").replace(" ON CONFLICT DO NOTHING", "")
    )
    connection.execute("DELETE FROM meta WHERE name = 'roster'").fetchall()
    connection.execute(empty).fetchall()
    connection.close()
    said: list[str] = []
    store = SqliteStore.open(path, log=said.append)
    store.login("user", USER_PIN)
    assert any("meta roster: the MAC does not fit" in line for line in said), said
    assert {i: store.get(i) for i in store.find([])} == CONTENT
    store.close()
