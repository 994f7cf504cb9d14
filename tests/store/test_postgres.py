"""Tokens in PostgreSQL: what is another matter than with files. What is the same, test_objects.py and others test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keyfob.spec.constants import CKA, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore, open_shelf, schema
from tests.store.samples import CHEAP, SO_PIN, USER_PIN, certificate, make, make_on, private_key, refused

if TYPE_CHECKING:
    from keyfob.store import Shelf, Store
    from tests.postgres import Server

pytestmark = pytest.mark.interop


@pytest.fixture
def token(shelf: Shelf, log: list[str]) -> Iterator[Store]:
    """Both PINs set, the user logged in."""
    store = make_on(shelf, log=log.append)
    store.login("user", USER_PIN)
    yield store
    store.close()


def nothing(_: str) -> None:
    """A log that nobody reads."""


def administrator(url: str, *statements: str) -> list[Any]:
    """What somebody with the server's own rights does; the rows of the last statement."""
    import psycopg

    rows: list[Any] = []
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
    return rows


# The place


def test_a_database_must_be_prepared_and_is_named_without_its_password(postgres: Server) -> None:
    url = postgres.empty_database().replace("postgres@", "postgres:hush@")
    shelf = open_shelf(url, "/nowhere")
    with refused(CKR.DEVICE_ERROR) as problem:
        shelf.slots(nothing)
    assert "keyfob store init" in problem.value.reason
    assert "hush" not in problem.value.reason


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql:///keyfob", None),
        ("postgresql://localhost/keyfob", None),
        ("postgresql://127.0.0.1:5433/keyfob", None),
        ("postgresql:///keyfob?host=/run/postgresql", None),
        ("postgresql://db.example/keyfob", "verify-full"),
        ("postgresql://localhost,db.example/keyfob", "verify-full"),
        ("postgresql://db.example/keyfob?sslmode=verify-ca", "verify-ca"),
        ("postgresql://?service=keyfob", None),
    ],
)
def test_a_server_behind_a_network_proves_itself_unless_the_url_says_otherwise(url: str, mode: str | None) -> None:
    from keyfob.store.postgres import place

    assert place.parameters(place.complete(url)).get("sslmode") == mode


@pytest.mark.parametrize("url", ["mysql://db/keyfob", "postgresql://x:hush@[::1/db", "/some/folder"])
def test_what_is_no_url_of_postgresql_is_refused_without_being_shown(url: str) -> None:
    with refused(CKR.ARGUMENTS_BAD) as problem:
        open_shelf(url, "/nowhere")
    assert "hush" not in problem.value.reason


def test_psycopg_is_not_loaded_by_tokens_in_files(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom keyfob import config\nfrom keyfob.token.library import Library\n"
        "library = Library(config.load(os.environ))\nassert library.tokens\n"
        "assert not [name for name in sys.modules if 'psycopg' in name or 'postgres' in name]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"KEYFOB_HOME": str(tmp_path)})


# Tokens


def test_slots_are_the_tokens_that_were_made_and_keep_their_numbers(shelf: Shelf) -> None:
    assert shelf.slots(nothing) == []
    for slot_id in (3, 1, 12):
        make_on(shelf, slot_id).close()
    assert shelf.slots(nothing) == [1, 3, 12]
    with refused(CKR.FUNCTION_FAILED):
        make_on(shelf, 3)
    shelf.delete(3)
    assert shelf.slots(nothing) == [1, 12]
    with refused(CKR.TOKEN_NOT_PRESENT):
        shelf.open(3, nothing)


def test_a_token_of_general_access_is_opened_by_a_key_file_of_this_machine(shelf: Shelf) -> None:
    store = shelf.create(
        1, nothing, label="kiosk", serial="1", kind="multipurpose", so_pin=b"", hardening=CHEAP, general_access=True
    )
    store.unlock_with_key_file()
    [number] = store.insert([private_key(1)])
    store.close()
    again = shelf.open(1, nothing)
    again.unlock_with_key_file()
    assert again.get(number) == private_key(1)
    again.close()
    Path(shelf.key_file(1)).unlink()
    elsewhere = shelf.open(1, nothing)
    with refused(CKR.DEVICE_ERROR):
        elsewhere.unlock_with_key_file()
    elsewhere.close()


def test_the_server_sees_neither_keys_nor_pins(token: Store, database_url: str) -> None:
    token.insert([private_key(1), certificate(1)])
    names = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname LIKE 'keyfob%'"
    everything = b""
    for (name,) in administrator(database_url, names):
        for row in administrator(database_url, f"SELECT * FROM {name}"):
            everything += b"".join(value if isinstance(value, bytes) else repr(value).encode() for value in row)
    assert certificate(1)[CKA.VALUE] in everything
    for secret in (private_key(1)[CKA.VALUE], private_key(1)[CKA.LABEL], USER_PIN, SO_PIN):
        assert secret not in everything


def test_what_an_administrator_changes_is_noticed_after_login(
    token: Store, shelf: Shelf, database_url: str, log: list[str]
) -> None:
    one, two, three, four = token.insert([private_key(1), private_key(2), private_key(3), certificate(4)])
    old = administrator(database_url, f"SELECT record FROM keyfob_slot_1.object WHERE id = {three}")
    token.update(three, private_key(30))
    token.close()
    administrator(
        database_url,
        "SET search_path TO keyfob_slot_1",
        f"UPDATE object SET record = (SELECT record FROM object WHERE id = {two}) WHERE id = {one}",
        f"DELETE FROM object WHERE id = {two}",
        f"UPDATE object SET record = '\\x{old[0][0].hex()}' WHERE id = {three}",
        "UPDATE state SET generation = generation + 1",
    )
    again = shelf.open(1, log.append)
    again.login("user", USER_PIN)
    for number in (one, three):
        with refused(CKR.DEVICE_ERROR):
            again.get(number)
    assert again.get(two) is None
    assert again.get(four) == certificate(4)
    found = "\n".join(again.verify())
    again.close()
    for number in (one, two, three):
        assert f"object {number}:" in found


def test_a_newer_schema_is_refused_and_another_is_not_touched(token: Store, shelf: Shelf, database_url: str) -> None:
    token.close()
    administrator(database_url, f"UPDATE keyfob_slot_1.state SET version = {schema.VERSION + 1}")
    with refused(CKR.TOKEN_NOT_RECOGNIZED):
        shelf.open(1, nothing)


# Several hosts


def test_what_one_host_does_the_others_see_at_once(token: Store, shelf: Shelf) -> None:
    other = shelf.open(1, nothing)
    other.login("user", USER_PIN)
    for i in range(10):
        [number] = token.insert([private_key(i)])
        assert other.find([(CKA.ID, private_key(i)[CKA.ID])]) == [number]
        other.update(number, private_key(100 + i))
        assert token.get(number) == private_key(100 + i)
        token.delete([number])
        assert other.get(number) is None
        with refused(CKR.OBJECT_HANDLE_INVALID):
            other.update(number, private_key(i))
    other.close()


def test_within_max_age_what_was_read_counts_as_current(token: Store, database_url: str, tmp_path: Path) -> None:
    [number] = token.insert([certificate(1)])
    slow = open_shelf(database_url, str(tmp_path), max_age=3600).open(1, nothing)
    assert slow.get(number) == certificate(1)
    token.update(number, certificate(2))
    assert slow.get(number) == certificate(1)
    assert slow.find([(CKA.LABEL, b"certificate 2")]) == [number]  # a search always asks
    assert slow.get(number) == certificate(2)
    slow.close()


def test_wrong_pins_are_counted_for_all_hosts_together(token: Store, shelf: Shelf) -> None:
    others = [shelf.open(1, nothing) for _ in range(5)]
    for i in range(10):
        with refused(CKR.PIN_INCORRECT):
            others[i % 5].login("user", b"wrong")
    for other in others:
        with refused(CKR.PIN_LOCKED):
            other.login("user", USER_PIN)
        other.close()
    assert token.unlocked


def test_a_token_that_is_initialised_anew_is_closed_to_all(token: Store, shelf: Shelf) -> None:
    token.insert([private_key(1)])
    other = shelf.open(1, nothing)
    other.reset("new", SO_PIN)
    assert not token.unlocked
    assert token.find(()) == []
    assert token.info().label == "new"
    other.close()


def test_a_role_that_may_only_use_tokens_uses_them(token: Store, postgres: Server, database_url: str) -> None:
    administrator(
        database_url,
        "DROP ROLE IF EXISTS host",
        "CREATE ROLE host LOGIN",
        "GRANT USAGE ON SCHEMA keyfob, keyfob_slot_1 TO host",
        "GRANT SELECT ON keyfob.store TO host",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA keyfob_slot_1 TO host",
    )
    shelf = open_shelf(database_url.replace("postgres@", "host@"), "/nowhere")
    store = shelf.open(1, nothing)
    store.login("user", USER_PIN)
    [number] = store.insert([private_key(1)])
    assert token.get(number) == private_key(1)
    store.close()
    with refused(CKR.TOKEN_WRITE_PROTECTED):
        make_on(shelf, 2)
    administrator(database_url, "ALTER ROLE host SET default_transaction_read_only = on")
    reader = shelf.open(1, nothing)
    assert reader.read_only
    reader.login("user", USER_PIN)
    assert reader.get(number) == private_key(1)
    with refused(CKR.TOKEN_WRITE_PROTECTED):
        reader.insert([certificate(1)])
    reader.close()
    administrator(database_url, "DROP OWNED BY host", "DROP ROLE host")


def test_a_token_of_schema_4_is_migrated_with_the_rights_to_its_tables(
    shelf: Shelf, token: Store, database_url: str
) -> None:
    token.insert([certificate(1)])
    token.close()
    slot = "keyfob_slot_1"
    administrator(
        database_url,
        "DROP ROLE IF EXISTS host",
        "CREATE ROLE host",
        f"DROP TABLE {slot}.notice",
        f"ALTER TABLE {slot}.pending RENAME TO removed",
        f"ALTER TABLE {slot}.removed DROP version, DROP private, DROP record, DROP checksum, DROP mac",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {slot} TO host",
        f"GRANT SELECT ON {slot}.roster TO PUBLIC",
        f"UPDATE {slot}.state SET version = 4",
    )
    store = shelf.open(1, nothing)
    store.login("user", USER_PIN)
    assert store.verify() == []
    store.logout()
    store.delete(store.find([(CKA.CLASS, certificate(1)[CKA.CLASS])]))
    store.login("user", USER_PIN)
    assert len(store.remarks()) == 1
    store.close()
    granted = administrator(
        database_url,
        "SELECT table_name, grantee, privilege_type FROM information_schema.role_table_grants "
        f"WHERE table_schema = '{slot}' AND grantee IN ('host', 'PUBLIC')",
    )
    rights = {("notice", "host", each) for each in ("SELECT", "INSERT", "UPDATE", "DELETE")}
    assert rights | {("notice", "PUBLIC", "SELECT"), ("pending", "host", "INSERT")} <= set(granted)
    administrator(database_url, "DROP OWNED BY host", "DROP ROLE host")


# A server that goes and comes


def end_connections(url: str) -> None:
    administrator(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


def test_every_call_survives_a_lost_connection(token: Store, database_url: str) -> None:
    [number] = token.insert([private_key(1)])
    calls: list[tuple[Callable[[], object], object]] = [
        (lambda: token.get(number), private_key(1)),
        (lambda: token.find([(CKA.ID, private_key(1)[CKA.ID])]), [number]),
        (lambda: token.find_some([(CKA.CLASS, private_key(1)[CKA.CLASS])]), ([number], None)),
        (lambda: token.exists([(CKA.ID, b"no")]), False),
        (lambda: token.insert([certificate(1)]), [number + 1]),
        (lambda: token.update(number, private_key(2)), True),
        (lambda: token.delete([number + 1]), None),
        (lambda: token.login("user", USER_PIN), None),
        (lambda: token.verify_pin("so", SO_PIN), None),
        (lambda: token.set_pin("user", USER_PIN), None),
        (lambda: token.set_label("renamed"), None),
        (lambda: token.info().label, "renamed"),
        (lambda: token.unlocked, True),
        (token.verify, []),
    ]
    for call, expected in calls:
        end_connections(database_url)
        assert call() == expected
    assert token.get(number) == private_key(2)
    assert token.find(()) == [number]
    assert token.info().failed_user == 0


def sockets() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that lists them
            continue
        if target.startswith("socket:"):
            found.append(int(name))
    return found


def test_a_socket_that_the_host_has_closed_is_left_to_whoever_has_its_number(shelf: Shelf, tmp_path: Path) -> None:
    before = set(sockets())
    store = make_on(shelf)
    for number in range(3):
        (socket,) = set(sockets()) - before
        own = os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT)
        os.dup2(own, socket)
        if number == 0:
            store.login("user", USER_PIN)
        elif number == 1:
            store.insert([private_key(1)])
        else:
            store.close()
        assert os.path.samestat(os.fstat(socket), os.fstat(own))
        assert (tmp_path / str(number)).read_bytes() == b""
        os.close(socket)
        os.close(own)


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_without_an_answer_happened_once_or_is_done_again(
    token: Store, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The connection is lost in COMMIT, after or before the server did it; the caller notices neither."""
    import psycopg

    from keyfob.store.postgres.connection import Connection

    execute = Connection.execute
    losses: list[bytes] = []

    def losing(self: Connection, query: Any, *values: Any, **named: Any) -> Any:
        if isinstance(query, bytes) and query.endswith(b"COMMIT") and not losses:
            losses.append(query)
            if committed:
                execute(self, query, *values, **named)
            self.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return execute(self, query, *values, **named)

    monkeypatch.setattr(Connection, "execute", losing)
    numbers = token.insert([private_key(1), certificate(1)])
    assert len(losses) == 1
    assert token.find(()) == numbers
    assert numbers == [1, 2]
    other = shelf.open(1, nothing)
    other.login("user", USER_PIN)
    assert other.find(()) == numbers
    assert other.verify() == []
    other.close()


def test_a_server_that_stays_away_is_waited_for_once(postgres: Server, database_url: str, tmp_path: Path) -> None:
    shelf = open_shelf(database_url, str(tmp_path), patience=1)
    store = make_on(shelf)
    store.login("user", USER_PIN)
    [number] = store.insert([private_key(1)])
    postgres.stop()
    try:
        for _ in range(20):  # 20 times the patience would be noticed
            with pytest.raises(PKCS11Error) as problem:
                store.get(number)
            assert problem.value.rv == CKR.FUNCTION_FAILED
    finally:
        postgres.start()
    assert store.get(number) == private_key(1)
    store.close()


@pytest.mark.long
def test_a_server_that_is_stopped_without_a_word_makes_nobody_hang(
    postgres: Server, database_url: str, tmp_path: Path
) -> None:
    """Its sockets are open and answer nothing, as where a machine is frozen."""
    store = make_on(open_shelf(database_url, str(tmp_path), patience=1))
    store.login("user", USER_PIN)
    [number] = store.insert([private_key(1)])
    with postgres.frozen(), refused(CKR.FUNCTION_FAILED):
        store.get(number)
    assert store.get(number) == private_key(1)
    store.close()


# Copies


def test_tokens_are_copied_there_and_back_with_keys_and_pins(shelf: Shelf, tmp_path: Path) -> None:
    files = open_shelf("", str(tmp_path / "files"))
    Path(tmp_path / "files").mkdir()
    store = make(tmp_path / "files" / "slot-1.keyfob")
    store.login("user", USER_PIN)
    numbers = store.insert([private_key(1), certificate(1), private_key(2)])
    store.delete([numbers[2]])
    shelf.build(1, store.copy_to)
    copied = shelf.open(1, nothing)
    assert copied.fingerprint() == store.fingerprint()
    store.close()
    copied.login("user", USER_PIN)
    assert copied.get(numbers[0]) == private_key(1)
    assert copied.verify() == []
    assert copied.insert([private_key(3)]) == [numbers[2] + 1]  # no number is used twice
    files.build(2, copied.copy_to)
    back = SqliteStore.open(tmp_path / "files" / "slot-2.keyfob")
    back.login("user", USER_PIN)
    assert back.get(numbers[2] + 1) == private_key(3)
    assert back.verify() == []
    assert back.insert([certificate(9)]) == [numbers[2] + 2]
    assert copied.fingerprint() != back.fingerprint()
    back.close()
    copied.close()
