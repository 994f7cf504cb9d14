"""Older copies of a whole token, in which everything fits together: a second place knows better (witness.py)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKR
from keyfob.store import SqliteStore
from keyfob.store.witness import ROW, WITNESS_CHECKSUM
from tests.store.forging import Forger, in_file
from tests.store.samples import (
    SERIAL,
    SO_PIN,
    USER_PIN,
    certificate,
    make,
    of_schema,
    private_key,
    refused,
    start_program,
)

if TYPE_CHECKING:
    from pathlib import Path

COPY = "an older copy of the token was put back"
MISSING = "1 writes and 1 attempts at a PIN are missing in it"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "slot-1.keyfob"
    make(path).close()
    return path


class Machine:
    """Opens the token, and remembers it in `seen`."""

    def __init__(self, path: Path, seen: str = "seen") -> None:
        self.path = path
        self.seen = path.parent / seen
        self.said: list[str] = []

    def open(self) -> SqliteStore:
        self.said = []
        return SqliteStore.open(self.path, log=self.said.append, witness=str(self.seen))

    def guess(self, pin: bytes, rv: int = CKR.OK) -> None:
        store = self.open()
        if rv:
            with refused(rv):
                store.login("user", pin)
        else:
            store.login("user", pin)
        store.close()

    @property
    def warned(self) -> bool:
        return any(COPY in line for line in self.said)


def test_an_older_copy_of_the_token_is_noticed_once(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    copy = path.read_bytes()
    store = machine.open()
    store.login("user", USER_PIN)
    store.insert([private_key(1)])
    store.close()
    assert machine.said == []
    path.write_bytes(copy)
    machine.guess(USER_PIN)
    assert machine.said == [f"{COPY}, or its write-ahead log is damaged: {MISSING}"]
    machine.guess(USER_PIN)
    assert machine.said == []


def test_an_older_copy_is_noticed_after_writes_of_the_same_login(path: Path) -> None:
    machine = Machine(path)
    store = machine.open()
    store.login("user", USER_PIN)
    copy = path.with_name("copy")
    store._database.checkpoint()
    copy.write_bytes(path.read_bytes())
    store.insert([private_key(1)])
    store.delete([1])
    store.close()
    path.write_bytes(copy.read_bytes())
    machine.guess(USER_PIN)
    assert machine.warned


def test_wrong_pins_are_not_forgotten_by_an_older_copy(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    copy = path.read_bytes()
    for attempt in range(10):
        path.write_bytes(copy)
        machine.guess(b"%d" % attempt * 6, CKR.PIN_INCORRECT)
    path.write_bytes(copy)
    machine.guess(USER_PIN, CKR.PIN_LOCKED)
    assert machine.warned
    store = machine.open()
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.close()
    machine.guess(USER_PIN)
    assert not machine.warned


def test_a_token_that_went_on_elsewhere_raises_no_alarm(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    store = SqliteStore.open(path, witness=str(path.parent / "elsewhere"))
    store.login("user", USER_PIN)
    store.insert([private_key(1)])
    store.close()
    machine.guess(USER_PIN)
    assert machine.said == []


def test_two_processes_raise_no_alarm(path: Path) -> None:
    machine = Machine(path)
    one, other = machine.open(), SqliteStore.open(path, log=machine.said.append, witness=str(machine.seen))
    for store in (one, other) * 3:
        store.login("user", USER_PIN)
        store.insert([private_key(1)])
        store.logout()
    one.close()
    other.close()
    machine.guess(USER_PIN)
    assert machine.said == []


def test_a_token_without_pin_is_watched_too(tmp_path: Path) -> None:
    machine = Machine(of_schema(3, "general", tmp_path))
    store = machine.open()
    store.unlock_with_key_file()
    store.close()
    copy = machine.path.read_bytes()
    store = machine.open()
    store.unlock_with_key_file()
    store.insert([private_key(7)])
    store.close()
    machine.path.write_bytes(copy)
    for warned in (True, False):
        store = machine.open()
        store.unlock_with_key_file()
        store.close()
        assert machine.warned == warned


def test_a_new_token_of_the_slot_is_not_the_old_one(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    store = machine.open()
    store.reset("another", SO_PIN)
    store.close()
    assert machine.said == []
    assert [file.name for file in machine.seen.glob("[!.]*")] == [SERIAL]


def test_a_damaged_witness_is_named_and_written_anew(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    [file] = machine.seen.glob("[!.]*")
    file.write_bytes(b"\0" * file.stat().st_size)
    machine.guess(USER_PIN)
    assert any("is damaged" in line for line in machine.said)
    machine.guess(USER_PIN)
    assert machine.said == []


def test_without_a_place_for_it_the_token_works(path: Path) -> None:
    machine = Machine(path)
    machine.seen.write_bytes(b"a file, not a folder")
    machine.guess(USER_PIN)
    assert any("nobody" in line for line in machine.said)


@pytest.mark.parametrize("name", ["general.keyfob", "general.key"])
def test_a_file_that_others_can_read_is_closed_to_them(tmp_path: Path, name: str) -> None:
    path = of_schema(3, "general", tmp_path)
    (tmp_path / name).chmod(0o664)
    said: list[str] = []
    for _ in range(2):
        store = SqliteStore.open(path, log=said.append)
        store.unlock_with_key_file()
        store.close()
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert said == [f"{tmp_path / name} was open to other users of this machine (mode 0664): it is 0600 now"]


def test_a_file_that_cannot_be_closed_to_others_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(0o644)
    said: list[str] = []
    monkeypatch.setattr(os, "chmod", lambda *_: None)  # as on a stick with FAT
    SqliteStore.open(path, log=said.append).close()
    assert any("knows no modes" in line for line in said)


def test_an_older_copy_is_noticed_without_login(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    copy = path.read_bytes()
    store = machine.open()
    store.insert([certificate(1)])
    store.close()
    path.write_bytes(copy)
    machine.open().close()
    assert machine.warned


@pytest.mark.parametrize("change", ["label", "setting", "user PIN", "reset"])
def test_an_older_copy_from_before_a_change_of_facts_is_noticed(path: Path, change: str) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    copy = path.read_bytes()
    store = machine.open()
    store.login("user", USER_PIN)
    if change == "label":
        store.set_label("another")
    elif change == "setting":
        store.set_setting("colour", "red")
    elif change == "user PIN":
        store.set_pin("user", b"another")
    else:
        store.reset("anew", SO_PIN)
    store.close()
    path.write_bytes(copy)
    machine.open().close()
    assert machine.warned


def test_a_damaged_write_ahead_log_is_noticed(path: Path) -> None:
    """SQLite drops what follows the damage: older values come back."""
    make_changes = """
import os, sys
from keyfob.store import SqliteStore
from tests.store.forging import Forger, in_file
from tests.store.samples import certificate
store = SqliteStore.open(sys.argv[1], witness=sys.argv[2])
for number in range(5):
    store.insert([certificate(number)])
os.kill(os.getpid(), 9)
"""
    machine = Machine(path)
    with start_program(make_changes, path, machine.seen):
        pass
    log = path.with_name(f"{path.name}-wal")
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    store = machine.open()
    assert len(store.find([])) < 5
    assert machine.warned
    store.close()


def test_an_older_copy_does_not_pass_for_the_token_after_a_write_without_a_login(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    copy = path.read_bytes()
    store = machine.open()
    store.insert([certificate(1)])
    store.insert([certificate(2)])
    store.close()
    path.write_bytes(copy)
    store = machine.open()
    store.insert([certificate(3)])
    store.close()
    machine.open().close()
    assert machine.warned


# Wrong PINs

STRUCK = "wrong PINs (user) were struck from the token; they count on"


def test_wrong_pins_that_are_struck_from_the_file_count_on(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    for attempt in range(10):
        machine.guess(b"%d" % attempt * 6, CKR.PIN_INCORRECT)
        in_file(path, Forger.strike_wrong_pins)
    for _ in range(2):
        machine.open().close()
        assert machine.said == [STRUCK]  # also where nobody logs in
        machine.guess(USER_PIN, CKR.PIN_LOCKED)
        assert machine.said == [STRUCK]
        in_file(path, Forger.strike_wrong_pins)


def test_wrong_pins_count_on_whoever_writes_to_the_token_meanwhile(path: Path) -> None:
    """A program that is logged in already, or one that writes a certificate, forgives nothing."""
    machine = Machine(path)
    at_work = machine.open()
    at_work.login("user", USER_PIN)
    for attempt in range(10):
        machine.guess(b"%d" % attempt * 6, CKR.PIN_INCORRECT)
        in_file(path, Forger.strike_wrong_pins)
        at_work.insert([private_key(attempt)])
        store = machine.open()
        store.insert([certificate(attempt)])
        store.close()
    machine.guess(USER_PIN, CKR.PIN_LOCKED)
    at_work.close()


@pytest.mark.parametrize("first", ["a login here", "wrong PINs here"])
def test_a_right_pin_on_another_machine_forgives_wrong_ones(path: Path, first: str) -> None:
    here, elsewhere = Machine(path), Machine(path, "elsewhere")
    elsewhere.guess(USER_PIN)
    if first == "a login here":
        here.guess(USER_PIN)
    for _ in range(4):
        for attempt in range(9):
            here.guess(b"%d" % attempt * 6, CKR.PIN_INCORRECT)
            assert here.said == []
        elsewhere.guess(USER_PIN)
    here.guess(USER_PIN)
    assert here.said == elsewhere.said == []


def test_a_pin_that_the_so_unlocks_on_another_machine_is_unlocked_here(path: Path) -> None:
    here, elsewhere = Machine(path), Machine(path, "elsewhere")
    for attempt in range(10):
        here.guess(b"%d" % attempt * 6, CKR.PIN_INCORRECT)
    here.guess(USER_PIN, CKR.PIN_LOCKED)
    store = elsewhere.open()
    store.login("so", SO_PIN)
    store.set_pin("user", b"the new secret")
    store.close()
    here.guess(b"the new secret")
    assert here.said == []


def test_an_attempt_between_the_sos_login_and_the_new_pin_does_not_void_the_pardon(path: Path) -> None:
    here, elsewhere = Machine(path), Machine(path, "elsewhere")
    for attempt in range(10):
        here.guess(b"%d" % attempt * 6, CKR.PIN_INCORRECT)
    store = elsewhere.open()
    store.login("so", SO_PIN)
    with refused(CKR.PIN_INCORRECT):
        here.open().login("so", b"not the SO's")
    store.set_pin("user", USER_PIN)
    store.close()
    here.guess(USER_PIN)
    assert here.said == []


def test_a_pardon_of_before_the_wrong_pins_forgives_none(path: Path) -> None:
    here = Machine(path)
    here.guess(b"wrong PIN", CKR.PIN_INCORRECT)
    here.guess(USER_PIN)
    pardoned: list[bytes] = []
    in_file(path, lambda forger: pardoned.append(forger.counters()))
    assert len(pardoned[0]) > 40  # there is one
    for attempt in range(10):
        here.guess(b"%d" % attempt * 6, CKR.PIN_INCORRECT)

        def replay(forger: Forger) -> None:
            tries = forger.counters()[32:40]
            forger.put_fact("counters", pardoned[0][:32] + tries + pardoned[0][40:])

        in_file(path, replay)
    here.guess(USER_PIN, CKR.PIN_LOCKED)


def test_a_pardon_that_somebody_else_signs_forgives_none(path: Path, tmp_path: Path) -> None:
    """Not even one for a public key that he puts into the token, once this machine knows the token."""
    his = tmp_path / "his"
    make(his).close()
    forger_at_work = Machine(his, "his-seen")
    here = Machine(path)
    here.guess(b"wrong PIN", CKR.PIN_INCORRECT)
    for attempt in range(9):
        here.guess(b"%d" % attempt * 6, CKR.PIN_INCORRECT)
        forger_at_work.guess(b"wrong PIN", CKR.PIN_INCORRECT)
        forger_at_work.guess(USER_PIN)
        facts: dict[str, bytes] = {}
        in_file(his, lambda forger: facts.update(forger.run("SELECT name, value FROM meta", ())))  # noqa: B023
        in_file(path, lambda forger: forger.put_fact("counters", facts["counters"]))  # noqa: B023
        in_file(path, lambda forger: forger.put_fact("roster", facts["roster"]))  # noqa: B023
    here.guess(USER_PIN, CKR.PIN_LOCKED)


def test_a_new_master_key_takes_over_the_old_ones_word(path: Path) -> None:
    """C_InitToken on one machine; the other one goes by the signature of the key that it knew."""
    here, elsewhere = Machine(path), Machine(path, "elsewhere")
    for attempt in range(10):
        here.guess(b"%d" % attempt * 6, CKR.PIN_INCORRECT)
    store = elsewhere.open()
    store.reset("anew", SO_PIN)
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.close()
    for _ in range(2):
        for attempt in range(9):
            here.guess(b"%d" % attempt * 6, CKR.PIN_INCORRECT)
        elsewhere.guess(USER_PIN)
    here.guess(USER_PIN)
    assert here.said == []


def test_what_an_older_keyfob_remembered_is_read(path: Path) -> None:
    machine = Machine(path)
    machine.guess(USER_PIN)
    row = ROW.pack(1000, 1000, 9, 0)
    (machine.seen / SERIAL).write_bytes(row + WITNESS_CHECKSUM(row))
    machine.guess(b"wrong PIN", CKR.PIN_INCORRECT)
    assert machine.warned
    machine.guess(USER_PIN, CKR.PIN_LOCKED)
