"""Public objects that come, change or go without a login: what may, what counts of it, and what is told (adoption.py).

Each case of a forger is one for a file and one for PostgreSQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from keyfob.spec.constants import CK, CKA, CKK, CKO, CKR
from keyfob.store import SqliteStore
from keyfob.store.integrity import OBJECT_CHECKSUM, tag_of_object
from keyfob.store.rows import CLAIMS
from tests.store.forging import Forger, in_file, in_server
from tests.store.samples import (
    FALSE,
    SO_PIN,
    TRUE,
    USER_PIN,
    certificate,
    make,
    make_on,
    of_schema,
    private_key,
    refused,
    trust,
    ulong,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keyfob.store import Attributes, Shelf, Store

KEY, CERTIFICATE, TRUST, PUBLIC_KEY = 1, 2, 3, 4
PUT_BACK = "without a login, and is put back: it was tampered with"


def public_key(number: int) -> Attributes:
    return {
        CKA.CLASS: ulong(CKO.PUBLIC_KEY),
        CKA.TOKEN: TRUE,
        CKA.PRIVATE: FALSE,
        CKA.LABEL: b"recipient",
        CKA.KEY_TYPE: ulong(CKK.RSA),
        CKA.ID: number.to_bytes(20, "big"),
        CKA.MODULUS: b"modulus %d" % number,
        CKA.TRUSTED: FALSE,
        CKA.LOCAL: FALSE,
        CKA.KEY_GEN_MECHANISM: ulong(CK.UNAVAILABLE_INFORMATION),
        CKA.UNIQUE_ID: b"public-%d" % number,
    }


CLAIMING = {
    CKA.TRUSTED: TRUE,
    CKA.LOCAL: TRUE,
    CKA.ALWAYS_SENSITIVE: TRUE,
    CKA.NEVER_EXTRACTABLE: TRUE,
    CKA.KEY_GEN_MECHANISM: ulong(0),
    CKA.OBJECT_VALIDATION_FLAGS: ulong(1),
}


class Token:
    """Opens the token, and lets somebody change its tables while nobody has it open."""

    def __init__(self, reopen: Callable[[Callable[[str], None]], Store], forge: Callable[..., None]) -> None:
        self._reopen = reopen
        self.forge = forge
        self.said: list[str] = []

    def open(self, *, login: bool = True) -> Store:
        self.said = []
        store = self._reopen(self.said.append)
        if login:
            store.login("user", USER_PIN)
        return store

    def says(self, text: str) -> bool:
        return any(text in line for line in self.said)


@pytest.fixture(params=["file", pytest.param("postgresql", marks=pytest.mark.interop)])
def token(request: pytest.FixtureRequest, tmp_path: Path) -> Token:
    """With a private key, a certificate, a trust object and a public key, all written under a login."""
    if request.param == "file":
        path = tmp_path / "slot-1.keyfob"
        store: Store = make(path)
        made = Token(lambda log: SqliteStore.open(path, log=log), lambda change: in_file(path, change))
    else:
        shelf: Shelf = request.getfixturevalue("shelf")
        url: str = request.getfixturevalue("database_url")
        store = make_on(shelf)
        made = Token(lambda log: shelf.open(1, log), lambda change: in_server(url, 1, change))
    store.login("user", USER_PIN)
    assert store.insert([private_key(1), certificate(1), trust(1), public_key(1)]) == [1, 2, 3, 4]
    store.close()
    return made


# What may happen without a login


def test_what_may_happen_without_a_login_counts_after_the_next_and_is_told(token: Token) -> None:
    store = token.open(login=False)
    store.update(CERTIFICATE, certificate(1) | {CKA.LABEL: b"renamed"})
    store.delete([PUBLIC_KEY])
    [made] = store.insert([certificate(5)])
    assert (store.verify(), store.remarks()) == ([], [])
    assert set(store.find([])) == {CERTIFICATE, TRUST, made}
    store.close()
    store = token.open()
    assert store.find([(CKA.LABEL, b"renamed")]) == [CERTIFICATE]
    assert set(store.find([])) == {KEY, CERTIFICATE, TRUST, made}
    assert token.said == [
        f"renamed without a login, and counts from now on: object {CERTIFICATE}",
        f"removed without a login, and counts from now on: object {PUBLIC_KEY}",
        f"made without a login, and counts from now on: object {made}",
    ]
    told = [
        f"renamed without a login: object {CERTIFICATE} (CKO_CERTIFICATE 'certificate 1 -> renamed')",
        f"removed without a login: object {PUBLIC_KEY} (CKO_PUBLIC_KEY 'recipient')",
        f"made without a login: object {made} (CKO_CERTIFICATE 'certificate 5')",
    ]
    assert [line.split("Z: ", 1)[1] for line in store.remarks()] == told
    assert (store.verify(), store.complaints()) == ([], [])
    store.close()
    store = token.open()
    assert token.said == []
    assert len(store.remarks()) == 3
    store.accept()
    assert (store.remarks(), store.verify()) == ([], [])
    store.close()


def test_another_process_with_a_login_sees_what_happens_without_one(token: Token) -> None:
    reader, writer = token.open(), token.open(login=False)
    writer.update(CERTIFICATE, certificate(1) | {CKA.LABEL: b"renamed"})
    writer.delete([PUBLIC_KEY])
    [made] = writer.insert([public_key(7) | CLAIMING])
    assert reader.get(CERTIFICATE) == certificate(1) | {CKA.LABEL: b"renamed"}
    assert reader.get(PUBLIC_KEY) is None
    assert reader.get(made) == public_key(7) | CLAIMS
    reader.insert([private_key(9)])  # adopts it all
    assert reader.get(made) == public_key(7) | CLAIMS
    assert (reader.verify(), reader.complaints()) == ([], [])
    assert len(reader.remarks()) == 3
    reader.close()
    writer.close()


def test_an_object_that_is_renamed_twice_and_removed_without_a_login_is_gone(token: Token) -> None:
    store = token.open(login=False)
    for label in (b"one", b"other"):
        store.update(CERTIFICATE, certificate(1) | {CKA.LABEL: label})
    store.delete([CERTIFICATE])
    store.close()
    store = token.open()
    assert store.get(CERTIFICATE) is None
    assert (store.verify(), store.complaints()) == ([], [])
    assert "(CKO_CERTIFICATE 'certificate 1')" in store.remarks()[0]
    store.close()


def test_what_somebody_with_a_login_does_with_an_object_outranks_what_happened_without_one(token: Token) -> None:
    writer, reader = token.open(login=False), token.open()
    writer.update(CERTIFICATE, certificate(1) | {CKA.LABEL: b"renamed"})
    reader.update(CERTIFICATE, certificate(1) | {CKA.LABEL: b"final"})
    writer.close()
    assert reader.get(CERTIFICATE) == certificate(1) | {CKA.LABEL: b"final"}
    assert (reader.verify(), reader.remarks()) == ([], [])
    reader.close()


# What needs one


@pytest.mark.parametrize(
    "change", [{CKA.ID: b"another"}, {CKA.VALUE: b"another"}, {CKA.LABEL: b"renamed", CKA.TRUSTED: TRUE}]
)
def test_only_the_label_of_a_certificate_that_a_login_has_vouched_for_changes_without_one(
    token: Token, change: dict[int, bytes]
) -> None:
    store = token.open(login=False)
    with refused(CKR.USER_NOT_LOGGED_IN):
        store.update(CERTIFICATE, certificate(1) | change)
    assert store.get(CERTIFICATE) == certificate(1)
    store.update(CERTIFICATE, certificate(1) | {CKA.LABEL: b"another"})
    with refused(CKR.USER_NOT_LOGGED_IN):
        store.update(CERTIFICATE, certificate(1) | change)
    assert store.get(CERTIFICATE) == certificate(1) | {CKA.LABEL: b"another"}
    store.close()


def test_a_public_key_that_a_login_has_vouched_for_does_not_change_without_one(token: Token) -> None:
    store = token.open(login=False)
    with refused(CKR.USER_NOT_LOGGED_IN):
        store.update(PUBLIC_KEY, public_key(1) | {CKA.LABEL: b"renamed"})
    store.update(PUBLIC_KEY, public_key(1))  # which changes nothing
    store.close()
    store = token.open()
    assert store.get(PUBLIC_KEY) == public_key(1)
    assert (store.remarks(), store.verify(), token.said) == ([], [], [])
    store.close()


def test_a_trust_object_is_not_removed_without_a_login(token: Token) -> None:
    store = token.open(login=False)
    with refused(CKR.USER_NOT_LOGGED_IN):
        store.delete([TRUST])
    assert store.get(TRUST) == trust(1)
    store.close()


def test_objects_that_nobody_has_vouched_for_yet_change_without_a_login(token: Token) -> None:
    store = token.open(login=False)
    [made] = store.insert([public_key(7)])
    store.update(made, public_key(8))
    [other] = store.insert([certificate(9)])
    store.delete([other])
    store.close()
    store = token.open()
    assert store.get(made) == public_key(8)
    assert store.get(other) is None
    assert token.said == [f"made without a login, and counts from now on: object {made}"]
    store.close()


# Claims


def test_what_an_object_claims_without_a_login_is_never_adopted(token: Token) -> None:
    assert set(CLAIMING) == set(CLAIMS)
    store = token.open(login=False)
    [made] = store.insert([public_key(7) | CLAIMING])
    store.close()
    for _ in range(2):
        store = token.open()
        assert store.get(made) == public_key(7) | CLAIMS
        assert store.find([(CKA.MODULUS, public_key(7)[CKA.MODULUS])]) == [made]
        store.close()


def test_what_the_token_says_of_an_object_under_a_login_stays(token: Token) -> None:
    store = token.open()
    [made] = store.insert([public_key(7) | CLAIMING])
    store.close()
    store = token.open()
    assert store.get(made) == public_key(7) | CLAIMING
    store.close()


# Forgers


def replace_public_key(forger: Forger) -> None:
    forger.replace(PUBLIC_KEY, forger.attributes(PUBLIC_KEY) | {CKA.MODULUS: b"the forger's", CKA.TRUSTED: TRUE})


def test_a_public_key_that_is_replaced_by_one_without_a_mac_is_refused_and_named(token: Token) -> None:
    token.forge(replace_public_key)
    for late in (False, True, True):  # no login takes it over
        store = token.open()
        # Once a login has written something it is too old for an object without a MAC in any case.
        assert token.says(f"object {PUBLIC_KEY}: {'the MAC is missing' if late else 'it was replaced without a login'}")
        with refused(CKR.DEVICE_ERROR):
            store.get(PUBLIC_KEY)
        assert store.find([(CKA.LABEL, b"recipient")]) == []
        store.insert([private_key(9)])
        assert any(f"object {PUBLIC_KEY}: " in line and "tampered with" in line for line in store.verify())
        assert store.remarks() == []
        store.close()


def test_a_replaced_object_is_put_back_from_what_the_forger_left_where_a_program_would(token: Token) -> None:
    token.forge(lambda forger: forger.keep(PUBLIC_KEY))
    token.forge(replace_public_key)
    store = token.open()
    assert token.says(f"object {PUBLIC_KEY}: it was replaced {PUT_BACK}")
    assert store.get(PUBLIC_KEY) == public_key(1)
    assert store.find([(CKA.MODULUS, public_key(1)[CKA.MODULUS])]) == [PUBLIC_KEY]
    store.close()
    store = token.open()
    [problem] = store.verify()
    assert problem.startswith("since 20")
    assert problem.endswith(f"object {PUBLIC_KEY}: it was replaced {PUT_BACK}")
    store.accept()
    assert store.verify() == []
    store.close()


def test_a_certificate_is_not_replaced_under_the_pretext_of_a_new_label(token: Token) -> None:
    def forge(forger: Forger) -> None:
        forger.keep(CERTIFICATE)
        forger.replace(CERTIFICATE, certificate(1) | {CKA.LABEL: b"renamed", CKA.VALUE: b"the forger's"})

    token.forge(forge)
    store = token.open()
    assert token.says(f"object {CERTIFICATE}: it was replaced {PUT_BACK}")
    assert store.get(CERTIFICATE) == certificate(1)
    store.close()


@pytest.mark.parametrize("number", [KEY, TRUST])
def test_a_guarded_object_that_is_moved_to_the_removed_ones_is_put_back_and_named(token: Token, number: int) -> None:
    def forge(forger: Forger) -> None:
        forger.keep(number)
        forger.remove(number)

    token.forge(forge)
    store = token.open()
    assert token.says(f"object {number}: it was removed {PUT_BACK}")
    assert store.get(number) == {KEY: private_key(1), TRUST: trust(1)}[number]
    assert store.find([]) == [1, 2, 3, 4]
    assert any(f"object {number}: it was removed" in line for line in store.verify())
    store.close()


@pytest.mark.parametrize("number", [KEY, CERTIFICATE, TRUST, PUBLIC_KEY])
@pytest.mark.parametrize("entered", [True, False])
def test_an_object_that_is_struck_out_is_named_whatever_is_entered_for_it(
    token: Token, number: int, entered: bool
) -> None:
    def forge(forger: Forger) -> None:
        forger.remove(number)
        if entered:
            forger.do("INSERT INTO pending (object) VALUES (?)", number)

    token.forge(forge)
    for _ in range(2):
        store = token.open()
        assert token.says(f"object {number}: it is gone, and was not removed through a token")
        assert any(f"object {number}: it is gone" in line for line in store.verify())
        assert store.remarks() == []
        store.close()


def test_a_version_that_no_object_can_have_is_refused(token: Token) -> None:
    store = token.open(login=False)
    [made] = store.insert([certificate(7)])
    store.close()
    version = (1 << 62) + 1

    def lift(forger: Forger) -> None:
        record = bytes(forger.one("SELECT record FROM object WHERE id = ?", made))
        checksum = tag_of_object(OBJECT_CHECKSUM, made, version, 0, record)
        forger.do("UPDATE object SET version = ?, checksum = ? WHERE id = ?", version, checksum, made)

    token.forge(lift)
    store = token.open()
    assert token.says(f"object {made}: its version {version} is above the token's counter")
    with refused(CKR.DEVICE_ERROR):
        store.get(made)
    store.insert([private_key(9)])
    store.close()


def test_a_damaged_block_of_the_roster_makes_no_room_for_replacements(token: Token) -> None:
    """Whoever damages the list cannot have it rewritten around his own object."""
    token.forge(replace_public_key)
    token.forge(lambda forger: forger.do("UPDATE roster SET versions = ?", bytes(1024)))
    store = token.open(login=False)
    store.login("so", SO_PIN)
    store.update(CERTIFICATE, certificate(1) | {CKA.LABEL: b"renamed"})  # rewrites the block
    store.close()
    store = token.open()
    assert token.says(f"object {PUBLIC_KEY}: it was replaced without a login")
    with refused(CKR.DEVICE_ERROR):
        store.get(PUBLIC_KEY)
    [made] = store.insert([public_key(5)])
    assert store.get(made) == public_key(5)
    store.close()
    store = token.open(login=False)
    [made] = store.insert([public_key(6)])
    store.close()
    store = token.open()
    assert store.get(made) == public_key(6)
    store.close()


def test_nothing_is_adopted_while_parts_of_the_roster_are_missing(token: Token) -> None:
    """With a block of before it had the public key, that would be a new object."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}

    def note(kept: dict[str, Any]) -> Callable[[Forger], None]:
        return lambda forger: kept.update(row=forger.one("SELECT versions, tag FROM roster WHERE block = 0"))

    token.forge(note(before))
    store = token.open()
    [made] = store.insert([public_key(5)])
    store.close()
    token.forge(note(after))
    assert before != after

    def forge(forger: Forger) -> None:
        forger.replace(made, forger.attributes(made) | {CKA.MODULUS: b"the forger's"})
        forger.do("UPDATE roster SET versions = ?, tag = ? WHERE block = 0", *before["row"])

    token.forge(forge)
    for _ in range(2):
        store = token.open()
        assert token.says("roster: parts of it were removed or put back")
        assert store.remarks() == []
        store.insert([private_key(9)])
        store.close()
    store = token.open()
    assert "made without a login" not in "".join(store.remarks())
    store.close()


@pytest.mark.parametrize("statement", ["DELETE FROM notice", "UPDATE notice SET content = ?"])
def test_notices_that_are_gone_or_changed_are_missed(token: Token, statement: str) -> None:
    store = token.open(login=False)
    store.delete([PUBLIC_KEY])
    store.close()
    token.open().close()
    values = (b"\0" * 9 + b"nothing happened",) if "?" in statement else ()
    token.forge(lambda forger: forger.do(statement, *values))
    store = token.open()
    assert token.says("notices: 1 are gone, or are not what was written")
    assert store.remarks() == []
    store.close()


# Older schemas


def test_what_was_removed_before_a_token_was_migrated_counts(tmp_path: Path) -> None:
    path = of_schema(4, "pin", tmp_path)
    in_file(path, lambda forger: forger.remove(2))
    in_file(path, lambda forger: forger.do("INSERT INTO removed VALUES (2)"))
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    assert store.verify() == []
    assert any("removed without a login: object 2" in line for line in store.remarks())
    store.close()


def test_a_table_of_schema_4_does_not_pass_for_one_that_was_migrated(tmp_path: Path) -> None:
    """Whoever sets the schema of a token back does not get what schema 4 believed."""
    path = of_schema(4, "pin", tmp_path)
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    store.close()

    def forge(forger: Forger) -> None:
        for statement in (
            "DROP TABLE pending",
            "DROP TABLE notice",
            "CREATE TABLE removed (object INTEGER PRIMARY KEY) STRICT",
            "INSERT INTO removed VALUES (2)",
            "PRAGMA user_version = 4",
        ):
            forger.do(statement)
        forger.remove(2)

    in_file(path, forge)
    said: list[str] = []
    store = SqliteStore.open(path, log=said.append)
    store.login("user", USER_PIN)
    assert any("object 2: it is gone, and was not removed through a token" in line for line in said)
    store.close()
