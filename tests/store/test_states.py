"""States (state.py), and how a machine tells by them that a token was put back or is a copy that went on for itself."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKR
from keyfob.store import SqliteStore
from keyfob.store.counters import Counters
from keyfob.store.state import FORK, LATER, MOST_MACHINES, OLDER, SAME, State, Trace
from keyfob.store.witness import Witness
from tests.store.forging import Forger, in_file, in_server
from tests.store.samples import SO_PIN, USER_PIN, certificate, make, make_on, of_schema, private_key, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keyfob.store import Shelf

OLD_COPY = "an older copy of the token was put back"
OTHER_COPY = "another copy of the token, which has changed for itself, was put in its place"
A, B, C = (bytes((each,)) * 8 for each in b"ABC")


# Traces


def grown(trace: Trace, *machines: bytes) -> Trace:
    for machine in machines:
        trace = trace.successor(machine)
    return trace


def test_a_state_follows_from_those_that_it_came_from_and_from_no_other() -> None:
    first = Trace(bytes(16))
    common = grown(first, A, B, A)
    one, other = grown(common, A), grown(common, B, B)
    assert common.relation_to(common) == SAME
    assert one.relation_to(common) == LATER
    assert common.relation_to(one) == OLDER
    assert one.relation_to(other) == other.relation_to(one) == FORK
    assert (one.lacks(other), other.lacks(one)) == (2, 1)
    assert grown(common, A).relation_to(grown(common, A)) == FORK  # the same count, and not the same commit
    joined = one.joined(other)
    assert joined.relation_to(one) == joined.relation_to(other) == LATER


def test_machines_that_are_forgotten_raise_no_false_alarm_and_hide_no_copy() -> None:
    many = [number.to_bytes(8, "big") for number in range(1, 2 * MOST_MACHINES)]
    seen = grown(Trace(bytes(16)), A, A, A)
    later = grown(seen, *many)
    assert A not in later.machines
    assert len(later.machines) == MOST_MACHINES
    assert later.relation_to(seen) == LATER
    assert seen.relation_to(later) == OLDER
    back = later.joined(seen).successor(A)
    assert back.relation_to(later) == LATER
    assert back.relation_to(seen) == LATER
    assert grown(later, B).relation_to(grown(later, C)) == FORK


def test_states_are_what_was_encoded_or_refused() -> None:
    state = State(bytes(32), grown(Trace(bytes(16)), A, B, C, A))
    state.version, state.adopted, state.tries, state.first_notice, state.next_notice = 5, 4, 3, 2, 9
    encoded = state.encode()
    again = State.decode(encoded)
    assert again.encode() == encoded
    assert again.trace.relation_to(state.trace) == SAME
    for damaged in (b"", encoded[:-1], encoded[:40], b"\x02" + encoded[1:], encoded + bytes(16 * 2 * MOST_MACHINES)):
        with pytest.raises(ValueError, match=r".+"):
            State.decode(damaged)


# Machines


class Machine:
    """One that uses the token in this file, or a copy of it, and remembers it in a place of its own."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.seen = folder
        self.path = path
        self.said: list[str] = []

    def open(self, path: Path | None = None, *, login: bool = True) -> SqliteStore:
        self.said = []
        store = SqliteStore.open(path or self.path, log=self.said.append, witness=str(self.seen))
        if login:
            store.login("user", USER_PIN)
        return store

    def use(self, path: Path | None = None, *changes: Callable[[SqliteStore], object]) -> None:
        store = self.open(path)
        for change in changes:
            change(store)
        store.close()

    def says(self, text: str) -> bool:
        return any(line.startswith(text) for line in self.said)


def add_key(store: SqliteStore) -> None:
    store.insert([private_key(1)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "slot-1.keyfob"
    make(path).close()
    return path


@pytest.fixture
def machine(tmp_path: Path, path: Path) -> Machine:
    machine = Machine(tmp_path / "seen", path)
    machine.use()
    return machine


def put_back_with_todays_counters(path: Path, copy: Path) -> None:
    counters: list[bytes] = []
    in_file(path, lambda forger: counters.append(forger.counters()))
    shutil.copy(copy, path)
    in_file(path, lambda forger: forger.put_fact("counters", counters[0]))


@pytest.mark.parametrize("change", ["object", "label", "PIN", "nothing but counters"])
def test_an_older_copy_with_todays_counters_is_named_until_it_is_accepted(
    machine: Machine, path: Path, change: str
) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    changes: dict[str, Callable[[SqliteStore], object]] = {
        "object": add_key,
        "label": lambda store: store.set_label("another"),
        "PIN": lambda store: store.set_pin("user", b"another PIN"),
        "nothing but counters": lambda _: None,
    }
    expected = change != "nothing but counters"  # then it is no other token
    machine.use(None, *[add_key] * 2 * expected, changes[change])
    put_back_with_todays_counters(path, copy)
    store = machine.open(login=False)
    assert machine.says(OLD_COPY) == expected  # nobody needs a PIN to notice
    assert any(line.startswith(OLD_COPY) for line in store.verify()) == expected
    store.insert([certificate(1)])  # which without a login makes no difference
    store.close()
    machine.use()
    assert machine.says(OLD_COPY) == expected
    store = machine.open()
    assert not machine.says(OLD_COPY)  # said once
    problems = store.verify()
    assert [OLD_COPY in line and line.startswith("since 20") for line in problems] == [True] * expected
    store.accept()
    assert store.verify() == []
    store.close()


def test_a_state_that_is_made_up_is_noticed_at_the_login(machine: Machine, path: Path) -> None:
    """Before it nobody can tell a state that somebody made up from one that another machine left."""
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    machine.use(None, add_key)
    put_back_with_todays_counters(path, copy)

    def forge(forger: Forger) -> None:
        value = bytearray(forger.one("SELECT value FROM meta WHERE name = 'roster'"))
        value[-8:] = (1000).to_bytes(8, "little")  # the count of this machine
        forger.put_fact("roster", bytes(value))

    in_file(path, forge)
    machine.use()
    assert machine.says("meta roster: the MAC does not fit")
    assert machine.says(OLD_COPY)


def test_a_token_that_was_put_back_while_it_is_open_is_noticed(machine: Machine, path: Path) -> None:
    rows: dict[str, list[tuple[object, ...]]] = {}
    tables = ("meta", "object", "lookup", "roster")
    store = machine.open()

    def keep(forger: Forger) -> None:
        rows.update({table: forger.run(f"SELECT * FROM {table}", ()) for table in tables})

    def put_back(forger: Forger) -> None:
        for table, content in rows.items():
            forger.do(f"DELETE FROM {table}")
            for row in content:
                forger.do(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)

    in_file(path, keep)
    add_key(store)
    in_file(path, put_back)
    assert store.find([]) == []
    assert machine.says(OLD_COPY)
    add_key(store)
    assert any(OLD_COPY in line for line in store.verify())
    store.close()


def test_a_token_that_goes_on_elsewhere_is_its_own_successor(tmp_path: Path, machine: Machine, path: Path) -> None:
    others = [Machine(tmp_path / f"seen-{number}", path) for number in range(3)]
    for each in (*others, machine, *others, machine):
        each.use(None, add_key)
        assert each.said == []
        store = each.open()
        assert store.verify() == []
        store.close()


def test_the_first_machine_that_meets_both_of_two_copies_notices(tmp_path: Path, machine: Machine, path: Path) -> None:
    other = Machine(tmp_path / "elsewhere", path)
    other.use(None, add_key)
    machine.use()
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    machine.use(path, add_key)
    other.use(copy, add_key, add_key)
    assert (machine.said, other.said) == ([], [])  # neither has met both
    in_file(copy, lambda forger: _go_on_counting(forger, 100))
    machine.use(copy)
    assert machine.says(f"{OTHER_COPY}: 1 changes under a login that this machine has seen are missing in it")
    # The other one goes on with the copy that it knows, and notices when it meets the first.
    other.use(copy, add_key)
    assert other.said == []
    in_file(path, lambda forger: _go_on_counting(forger, 1000))
    other.use(path)
    assert other.says(OLD_COPY)  # by then what it knows has grown from both


def _go_on_counting(forger: Forger, more: int) -> None:
    """So that a copy is not noticed by its counters alone."""
    value = bytearray(forger.counters())
    for place in (0, len(value) - 8 if len(value) == 40 else 32):
        value[place : place + 8] = (int.from_bytes(value[place : place + 8], "little") + more).to_bytes(8, "little")
    forger.put_fact("counters", bytes(value))


def test_counters_put_back_alone_are_noticed_by_the_state(path: Path) -> None:
    """Also by a machine that has never seen the token."""
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    store.insert([private_key(1), certificate(1)])
    store.close()
    in_file(path, lambda forger: forger.put_fact("counters", bytes(40)))
    said: list[str] = []
    store = SqliteStore.open(path, log=said.append)
    store.login("user", USER_PIN)
    assert "meta counters: an older value was put back: it was tampered with" in said
    [number] = store.insert([certificate(2)])
    store.logout()
    store.login("user", USER_PIN)
    assert store.get(number) == certificate(2)
    store.close()


def test_a_reset_token_follows_from_what_it_was(machine: Machine, path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    store = machine.open(login=False)
    store.reset("anew", SO_PIN)
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.close()
    machine.use()
    assert machine.said == []
    put_back_with_todays_counters(path, copy)
    machine.use()
    assert machine.says(OLD_COPY)


def test_a_token_of_schema_4_put_back_after_its_migration_is_noticed(tmp_path: Path) -> None:
    path = of_schema(4, "pin", tmp_path)
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    machine = Machine(tmp_path / "seen", path)
    machine.use()
    assert not machine.says(OLD_COPY)
    shutil.copy(copy, path)
    in_file(path, lambda forger: _go_on_counting(forger, 100))
    machine.use()
    assert machine.says(f"{OLD_COPY}: it has no state")


def test_a_read_only_token_that_was_put_back_is_named_each_time(machine: Machine, path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    machine.use(None, add_key)
    put_back_with_todays_counters(path, copy)
    for _ in range(2):
        said: list[str] = []
        store = SqliteStore.open(path, read_only=True, log=said.append, witness=str(machine.seen))
        store.login("user", USER_PIN)
        assert any(line.startswith(OLD_COPY) for line in said)
        assert any(line.startswith(OLD_COPY) for line in store.verify())
        store.close()


@pytest.mark.interop
def test_a_database_put_back_by_its_administrator_is_noticed(tmp_path: Path, database_url: str) -> None:
    from keyfob.store import open_shelf

    said: list[str] = []
    shelf: Shelf = open_shelf(database_url, str(tmp_path), str(tmp_path / "seen"))
    store = make_on(shelf, log=said.append)
    store.login("user", USER_PIN)
    tables = ("meta", "object", "lookup", "roster")
    for table in tables:
        in_server(database_url, 1, lambda forger, table=table: forger.do(f"CREATE TABLE old_{table} AS TABLE {table}"))  # type: ignore[misc]
    store.insert([private_key(1)])

    def put_back(forger: Forger) -> None:
        counters = forger.counters()
        for table in tables:
            forger.do(f"DELETE FROM {table}")
            forger.do(f"INSERT INTO {table} SELECT * FROM old_{table}")
        forger.put_fact("counters", counters)

    in_server(database_url, 1, put_back)
    assert store.find([]) == []
    assert any(line.startswith(OLD_COPY) for line in said)  # by the process that has it open
    store.close()
    said.clear()
    store = shelf.open(1, said.append)
    store.login("user", USER_PIN)
    assert any(line.startswith(OLD_COPY) for line in said)  # and by another
    assert any(OLD_COPY in line for line in store.verify())
    store.close()


def test_an_old_pin_put_back_with_all_of_the_token_is_named(machine: Machine, path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    machine.use(None, lambda store: store.set_pin("user", b"the new secret"))
    put_back_with_todays_counters(path, copy)
    store = machine.open(login=False)
    with refused(CKR.PIN_INCORRECT):
        store.login("user", b"the new secret")
    assert machine.says(OLD_COPY)
    store.close()


def test_what_one_process_left_is_not_forgotten_for_what_another_one_left_before(tmp_path: Path) -> None:
    """Whoever committed first may be the last to say so."""
    said: list[str] = []
    witness, counters = Witness(str(tmp_path / "seen"), said.append), Counters(7)
    first = State.first(bytes(32)).successor(A, counters, None)
    second = first.successor(A, Counters(8), None)
    witness.note_state("1", Counters(8), second, pins=False)
    witness.note_state("1", counters, first, pins=False)
    seen = witness.read("1")
    assert seen is not None
    assert seen.trace is not None
    assert (seen.version, seen.trace.identity, said) == (8, second.trace.identity, [])


def test_a_reset_token_has_no_notices_and_misses_none(machine: Machine, path: Path) -> None:
    store = machine.open(login=False)
    store.insert([certificate(1)])
    store.login("user", USER_PIN)
    assert len(store.remarks()) == 1
    store.logout()
    store.reset("anew", SO_PIN)
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.close()
    store = machine.open()
    assert (store.verify(), store.remarks(), machine.said) == ([], [], [])
    store.close()


def test_what_was_read_before_a_login_is_read_again_after_it(path: Path) -> None:
    """On a token that cannot be written, too: rooms above remember objects as long as the counter stays."""
    store = SqliteStore.open(path, read_only=True)
    before = store.change_counter()
    store.login("user", USER_PIN)
    assert store.change_counter() != before
    store.close()
