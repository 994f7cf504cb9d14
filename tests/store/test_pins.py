"""PINs: what they open, how wrong ones are counted, and how they change."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKA, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import Hardening, SqliteStore
from keyfob.store.counters import OLD_ROW, ROW, Counters
from keyfob.store.database import SqliteDatabase
from keyfob.store.info import DEFAULT_MAX_FAILURES
from keyfob.store.writing import Writing
from tests.store.samples import (
    CHEAP,
    SERIAL,
    SO_PIN,
    USER_PIN,
    certificate,
    make,
    output_of,
    private_key,
    refused,
    start_program,
)

if TYPE_CHECKING:
    from pathlib import Path

    from keyfob.store import Store

PIN_OF = {"user": USER_PIN, "so": SO_PIN}


def fresh(path: Path, **changed: object) -> SqliteStore:
    """A token as C_InitToken leaves it."""
    settings: dict[str, object] = {
        "label": "fresh",
        "serial": SERIAL,
        "kind": "signing",
        "so_pin": SO_PIN,
        "hardening": CHEAP,
    }
    return SqliteStore.create(path, **(settings | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ["user", "so"])
def test_the_right_pin_opens_and_logout_closes(store: Store, role: str) -> None:
    seen = [store.unlocked]
    store.login(role, PIN_OF[role])
    seen.append(store.unlocked)
    store.logout()
    seen.append(store.unlocked)
    assert seen == [False, True, False]


@pytest.mark.parametrize("role", ["user", "so"])
def test_wrong_pins_are_counted_and_forgiven_by_the_right_one(store: Store, role: str) -> None:
    def failures() -> int:
        info = store.info()
        return info.failed_user if role == "user" else info.failed_so

    for i in range(1, 4):
        with refused(CKR.PIN_INCORRECT):
            store.login(role, b"wrong")
        assert failures() == i
        assert not store.unlocked
    store.login(role, PIN_OF[role])
    assert failures() == 0


@pytest.mark.parametrize("role", ["user", "so"])
def test_too_many_wrong_pins_lock_even_for_the_right_one(store: Store, role: str) -> None:
    for i in range(DEFAULT_MAX_FAILURES):
        with refused(CKR.PIN_INCORRECT):
            (store.verify_pin if i % 2 else store.login)(role, b"wrong")
    with refused(CKR.PIN_LOCKED):
        store.login(role, PIN_OF[role])
    with refused(CKR.PIN_LOCKED):
        store.verify_pin(role, PIN_OF[role])


def test_the_so_unlocks_a_locked_user_pin(store: Store) -> None:
    for _ in range(DEFAULT_MAX_FAILURES):
        with refused(CKR.PIN_INCORRECT):
            store.login("user", b"wrong")
    store.login("so", SO_PIN)
    store.set_pin("user", b"a new one")
    store.logout()
    assert store.info().failed_user == 0
    store.login("user", b"a new one")


def test_the_count_survives_reopening(path: Path) -> None:
    store = make(path)
    for _ in range(3):
        with refused(CKR.PIN_INCORRECT):
            store.login("user", b"wrong")
    store.close()
    store = SqliteStore.open(path)
    assert store.info().failed_user == 3
    assert store.info().failed_so == 0
    store.close()


def test_verifying_a_pin_leaves_the_login_as_it_is(store: Store) -> None:
    store.verify_pin("user", USER_PIN)
    assert not store.unlocked
    store.login("user", USER_PIN)
    [number] = store.insert([private_key(1)])
    with refused(CKR.PIN_INCORRECT):
        store.verify_pin("so", b"wrong")
    store.verify_pin("so", SO_PIN)
    assert store.get(number) == private_key(1)


def test_a_changed_pin_opens_what_the_old_one_sealed(store: Store) -> None:
    store.login("user", USER_PIN)
    [number] = store.insert([private_key(1)])
    store.set_pin("user", b"changed")
    store.logout()
    with refused(CKR.PIN_INCORRECT):
        store.login("user", USER_PIN)
    store.login("user", b"changed")
    assert store.get(number) == private_key(1)


def test_pins_change_after_login_only_and_keep_their_bounds(store: Store) -> None:
    with refused(CKR.USER_NOT_LOGGED_IN):
        store.set_pin("user", b"not allowed")
    store.login("so", SO_PIN)
    for bad in (b"", b"123", b"x" * 256):
        with refused(CKR.PIN_LEN_RANGE):
            store.set_pin("user", bad)
    store.set_pin("user", b"x" * 255)
    store.set_pin("so", b"1234")
    with refused(CKR.USER_TYPE_INVALID):
        store.set_pin("file", b"1234")
    with refused(CKR.USER_TYPE_INVALID):
        store.login("file", b"1234")


def test_no_user_pin_is_said_so(path: Path) -> None:
    store = fresh(path)
    assert not store.info().user_pin_set
    assert store.info().login_required
    with refused(CKR.USER_PIN_NOT_INITIALIZED):
        store.login("user", b"any pin")
    assert store.info().failed_user == 0
    store.close()


# The empty SO PIN (P6)


def test_the_empty_so_pin_sets_the_first_user_pin_and_then_opens_nothing(path: Path) -> None:
    store = fresh(path, so_pin=b"")
    [number] = store.insert([certificate(1)])
    store.login("so", b"")
    store.set_pin("user", USER_PIN)
    assert store.unlocked
    assert store.verify() == []
    store.logout()
    assert not store.info().so_pin_set
    for pin in (b"", b"anything"):
        with refused(CKR.PIN_INCORRECT):
            store.login("so", pin)
    store.login("user", USER_PIN)
    assert store.get(number) == certificate(1)
    store.set_pin("so", SO_PIN)
    store.logout()
    store.login("so", SO_PIN)
    assert store.verify() == []
    store.close()


@pytest.mark.parametrize("role", ["user", "so"])
def test_what_the_empty_so_pin_opened_is_no_longer_the_master_key(path: Path, role: str) -> None:
    store = fresh(path, so_pin=b"")
    store.login("so", b"")
    assert store._vault.keys is not None
    before = bytes(store._vault.keys.master)
    store.set_pin(role, USER_PIN)
    assert bytes(store._vault.keys.master) != before
    store.logout()
    store.login(role, USER_PIN)
    assert store.verify() == []
    store.close()


def test_another_session_with_the_old_master_key_is_logged_out(path: Path) -> None:
    first = fresh(path, so_pin=b"")
    second = SqliteStore.open(path)
    first.login("so", b"")
    second.login("so", b"")
    first.set_pin("user", USER_PIN)
    assert not second.unlocked
    with refused(CKR.USER_NOT_LOGGED_IN):
        second.set_pin("user", b"hijacked")
    first.close()
    second.close()


# A token without PIN


def test_a_key_file_opens_a_token_without_pin(path: Path, tmp_path: Path) -> None:
    key_file = path.with_suffix(".key")
    store = fresh(path, so_pin=b"", general_access=True)
    assert key_file.stat().st_mode & 0o777 == 0o600
    info = store.info()
    assert (info.general_access, info.login_required, info.so_pin_set) == (True, False, False)
    store.unlock_with_key_file()
    [number] = store.insert([private_key(1)])
    store.logout()
    assert store.get(number) is None
    store.close()
    store = SqliteStore.open(path)
    store.insert([certificate(1)])
    store.unlock_with_key_file()
    assert store.get(number) == private_key(1)
    assert store.verify() == []
    store.close()


def test_folder_of_token_and_key_file_can_move(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    fresh(folder / "token", so_pin=b"", general_access=True).close()
    folder.rename(tmp_path / "there")
    store = SqliteStore.open(tmp_path / "there" / "token")
    store.unlock_with_key_file()
    store.close()


def test_a_wrong_or_missing_key_file_opens_nothing(path: Path, tmp_path: Path) -> None:
    key_file = path.with_suffix(".key")
    store = fresh(path, so_pin=b"", general_access=True)
    for content in (os.urandom(32), b"too short"):
        key_file.write_bytes(content)
        with refused(CKR.DEVICE_ERROR):
            store.unlock_with_key_file()
    key_file.unlink()
    with refused(CKR.DEVICE_ERROR):
        store.unlock_with_key_file()
    assert not store.unlocked
    store.close()


def test_a_user_pin_ends_the_use_of_the_key_file(path: Path, tmp_path: Path) -> None:
    store = fresh(path, general_access=True)
    store.unlock_with_key_file()
    [number] = store.insert([private_key(1)])
    store.set_pin("user", USER_PIN)
    store.logout()
    assert store.info().login_required
    with refused(CKR.USER_NOT_LOGGED_IN):
        store.unlock_with_key_file()
    store.login("user", USER_PIN)
    assert store.get(number) == private_key(1)
    store.close()


# C_InitToken on a token


def test_reset_with_a_wrong_so_pin_changes_nothing_but_the_count(store: Store) -> None:
    store.login("user", USER_PIN)
    [number] = store.insert([private_key(1)])
    with refused(CKR.PIN_INCORRECT):
        store.reset("erased?", b"wrong")
    assert store.get(number) == private_key(1)
    assert (store.info().label, store.info().failed_so, store.info().epoch) == ("a token", 1, 1)


def test_reset_destroys_all_and_keeps_serial_and_kind(store: Store) -> None:
    store.login("user", USER_PIN)
    store.insert([private_key(1), certificate(1)])
    store.set_setting("colour", "red")
    before = store.info()
    store.reset("anew", SO_PIN)
    info = store.info()
    assert not store.unlocked
    assert (info.label, info.serial, info.kind, info.epoch) == ("anew", before.serial, before.kind, 2)
    assert (info.user_pin_set, info.settings, store.find([])) == (False, {}, [])
    with refused(CKR.USER_PIN_NOT_INITIALIZED):
        store.login("user", USER_PIN)
    store.login("so", SO_PIN)
    assert store.verify() == []


def test_nothing_of_destroyed_objects_is_left_in_the_files(path: Path) -> None:
    store = make(path)
    store.insert([certificate(i) for i in range(50)])
    store.reset("anew", SO_PIN)
    left = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"the certificate" not in left
    store.close()


def test_reset_by_another_process_logs_out(path: Path, log: list[str]) -> None:
    store = make(path, log=log.append)
    store.login("user", USER_PIN)
    [number] = store.insert([private_key(1)])
    other = SqliteStore.open(path)
    other.reset("anew", SO_PIN)
    other.close()
    assert store.get(number) is None
    assert not store.unlocked
    assert store.find([]) == []
    assert any("logged out" in line for line in log)
    store.close()


# Attempts cut short, and attempts at the same time


KILLED = """
import os, signal, sys
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore, database, seal
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def after(function):
    def and_then(*arguments):
        function(*arguments)
        kill()
    return and_then
if sys.argv[2] == "while the PIN is looked at":
    seal.harden = kill
elif sys.argv[2] == "before the commit":
    database.Writing.__exit__ = kill
elif sys.argv[2] == "after the commit":
    database.Writing.__exit__ = after(database.Writing.__exit__)
store = SqliteStore.open(sys.argv[1])
try:
    store.login("user", sys.argv[3].encode())
    print("right", flush=True)
except PKCS11Error:
    print("wrong", flush=True)
kill()
"""


@pytest.mark.parametrize(
    ("moment", "counted", "answers"),
    [
        ("while the PIN is looked at", 0, 0),
        ("before the commit", 0, 0),
        ("after the commit", 1, 0),
        ("after the answer", 1, 1),
    ],
)
def test_an_attempt_is_counted_before_it_is_answered(path: Path, moment: str, counted: int, answers: int) -> None:
    """A process that is killed in the middle of an attempt learnt nothing, or has used up a guess."""
    make(path).close()
    said: list[bytes] = []
    for _ in range(3):
        with start_program(KILLED, path, moment, "a guess") as process:
            assert process.stdout is not None
            said += process.stdout.read().split()
        assert process.returncode == -9
    store = SqliteStore.open(path)
    assert store.info().failed_user == 3 * counted
    assert said == [b"wrong"] * 3 * answers
    store.close()


@pytest.mark.parametrize("moment", ["while the PIN is looked at", "before the commit", "after the commit"])
def test_right_logins_that_are_cut_short_lock_nothing(path: Path, moment: str) -> None:
    make(path).close()
    for _ in range(DEFAULT_MAX_FAILURES + 1):
        with start_program(KILLED, path, moment, USER_PIN.decode()) as process:
            process.communicate()
        assert process.returncode == -9
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    store.close()


def test_guesses_at_the_same_moment_are_no_more_than_guesses_one_by_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keyfob.store import seal

    make(path).close()
    threads = 3 * DEFAULT_MAX_FAILURES
    together, harden = threading.Barrier(threads), seal.harden

    def waits(pin: bytes, salt: bytes, hardening: Hardening, pepper: None) -> bytes:
        together.wait(60)
        return harden(pin, salt, hardening, pepper)

    monkeypatch.setattr(seal, "harden", waits)
    answers: list[int] = []

    def guess(number: int) -> None:
        store = SqliteStore.open(path)
        try:
            store.login("user", b"guess %d" % number)
        except PKCS11Error as problem:
            answers.append(problem.rv)
        finally:
            store.close()

    guessing = [threading.Thread(target=guess, args=(number,)) for number in range(threads)]
    for thread in guessing:
        thread.start()
    for thread in guessing:
        thread.join()
    assert sorted(answers) == sorted(
        [CKR.PIN_INCORRECT] * DEFAULT_MAX_FAILURES + [CKR.PIN_LOCKED] * (threads - DEFAULT_MAX_FAILURES)
    )


def test_a_guess_that_cannot_be_counted_is_not_answered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, say: the right PIN is refused like a wrong one, or the disk would be filled to guess."""
    from keyfob.store import meta

    store = make(path)

    def fails(*_: object) -> None:
        raise PKCS11Error(CKR.DEVICE_MEMORY, "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(meta, "write_counters", fails)
        for pin in (USER_PIN, b"wrong"):
            with refused(CKR.DEVICE_MEMORY):
                store.login("user", pin)
            assert not store.unlocked
    assert store.info().failed_user == 0
    store.close()


def test_only_an_attempt_that_changes_something_waits_for_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = make(path), []
    writing = SqliteDatabase.writing

    def noted(database: SqliteDatabase, *, durable: bool = True) -> Writing:
        asked.append(durable)
        return writing(database, durable=durable)

    monkeypatch.setattr(SqliteDatabase, "writing", noted)
    for pin, durable in ((USER_PIN, False), (b"wrong", True), (USER_PIN, True), (USER_PIN, False)):
        asked.clear()
        if pin == USER_PIN:
            store.login("user", pin)
        else:
            with refused(CKR.PIN_INCORRECT):
                store.login("user", pin)
        assert asked == [durable]
        assert store._database.number("PRAGMA synchronous") == 2  # FULL again
    store.close()


def test_what_an_older_keyfob_left_unsettled_counts_as_wrong() -> None:
    assert Counters.decode(ROW.pack(7, 1000.0, 2, 3, 0, 1, 9)).failed == {"user": 5, "so": 1}
    assert Counters.decode(OLD_ROW.pack(7, 1000.0, 2, 0, 0, 0)).failed == {"user": 2, "so": 0}


def test_an_attempt_that_fails_for_want_of_memory_is_not_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyfob.store import seal

    store = make(path)

    def fails(*_: object) -> bytes:
        raise PKCS11Error(CKR.HOST_MEMORY, "no memory")

    monkeypatch.setattr(seal, "harden", fails)
    with refused(CKR.HOST_MEMORY):
        store.login("user", USER_PIN)
    assert store.info().failed_user == 0
    store.close()


def test_many_right_logins_at_once_do_not_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyfob.store import seal

    make(path).close()
    quick = seal.harden

    def slow(pin: bytes, salt: bytes, hardening: Hardening, pepper: None) -> bytes:
        time.sleep(0.05)
        return quick(pin, salt, hardening, pepper)

    monkeypatch.setattr(seal, "harden", slow)
    problems: list[Exception] = []

    def attempt() -> None:
        store = SqliteStore.open(path)
        try:
            store.login("user", USER_PIN)
        except PKCS11Error as problem:
            problems.append(problem)
        finally:
            store.close()

    threads = [threading.Thread(target=attempt) for _ in range(3 * DEFAULT_MAX_FAILURES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_other_threads_work_while_a_pin_is_checked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyfob.store import seal

    store = make(path)
    [number] = store.insert([certificate(1)])
    checking, done = threading.Event(), threading.Event()

    def waits(*_: object) -> bytes:
        checking.set()
        done.wait(10)
        return bytes(32)

    monkeypatch.setattr(seal, "harden", waits)

    def attempt() -> None:
        with refused(CKR.PIN_INCORRECT):
            store.login("user", b"wrong")

    with_wrong_pin = threading.Thread(target=attempt)
    with_wrong_pin.start()
    assert checking.wait(10)
    assert store.get(number) == certificate(1)
    assert store.find([(CKA.LABEL, b"certificate 1")]) == [number]
    store.insert([certificate(2)])
    done.set()
    with_wrong_pin.join()
    store.close()


def test_a_pin_changed_while_it_is_checked_counts_as_wrong(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyfob.store import seal

    store, other = make(path), SqliteStore.open(path)
    other.login("so", SO_PIN)
    unwrap = seal.unwrap

    def changed_meanwhile(wrapping: bytes, role: str, pin: bytes, pepper: None) -> bytes | None:
        monkeypatch.undo()
        other.set_pin("user", b"changed")
        return unwrap(wrapping, role, pin, pepper)

    monkeypatch.setattr(seal, "unwrap", changed_meanwhile)
    with refused(CKR.PIN_INCORRECT):
        store.login("user", USER_PIN)
    assert not store.unlocked
    store.close()
    other.close()


# What shows, and what is imported


def test_no_pin_and_no_key_is_in_the_files_or_in_what_is_said(path: Path, log: list[str]) -> None:
    store = make(path, log=log.append)
    store.login("user", USER_PIN)
    store.insert([private_key(7)])
    with pytest.raises(PKCS11Error) as wrong:
        store.verify_pin("user", b"a wrong secret")
    with pytest.raises(PKCS11Error) as short:
        store.set_pin("user", b"sec")
    files = b"".join(file.read_bytes() for file in path.parent.iterdir())
    said = "".join([*log, str(wrong.value), str(short.value), repr(store), repr(store._vault.keys)])
    for secret in (USER_PIN, SO_PIN, b"secret value", b"wrong secret", b"key 7", bytes(store._vault.keys.master)):  # type: ignore[union-attr]
        assert secret not in files
        assert secret.decode(errors="replace") not in said
    store.close()


def test_reading_the_public_part_imports_no_cryptography(path: Path) -> None:
    store = make(path)
    store.insert([certificate(1)])
    store.close()
    program = """
import sys
from keyfob.store import SqliteStore
store = SqliteStore.open(sys.argv[1])
assert store.info().label == "a token" and store.get(store.find([])[0])
store.close()
heavy = {"cryptography", "hashlib", "_hashlib", "ssl", "dataclasses", "logging", "json", "tomllib", "sqlite3"}
print(sorted(heavy & set(sys.modules)))
"""
    assert output_of(program, path).strip() == "[]"


def test_soft_hardening_is_refused() -> None:
    with refused(CKR.ARGUMENTS_BAD):
        Hardening(memory_kib=4096)
    with refused(CKR.ARGUMENTS_BAD):
        Hardening(iterations=0)
    with refused(CKR.DEVICE_ERROR):
        Hardening.stored(1 << 40, 1, 1)
    assert Hardening().memory_kib >= 64 * 1024


def test_wrong_pins_on_a_store_that_cannot_be_written_are_told(path: Path) -> None:
    make(path).close()
    store = SqliteStore.open(path, read_only=True)
    for failures in range(1, 3):
        with refused(CKR.PIN_INCORRECT):
            store.login("user", b"wrong")
        assert (store.info().failed_user, store.info().failed_so) == (failures, 0)
    store.login("user", USER_PIN)
    assert store.info().failed_user == 0
    store.close()
