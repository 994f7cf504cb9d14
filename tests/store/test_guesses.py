"""Wrong PINs count for what they were tried on, whatever somebody writes into the token beside it (guesses.py)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore, guesses, open_shelf
from keyfob.store.seal import WRAPPING
from keyfob.store.witness import NO_PUBLIC
from tests.store import samples
from tests.store.forging import Forger, in_file, in_server
from tests.store.samples import SO_PIN, USER_PIN, make, make_on, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keyfob.store import Store

    Change = Callable[[Forger], None]

ROLES = ("user", "so")
PINS = {"user": USER_PIN, "so": SO_PIN}


class Place:
    """Where a token is: a machine opens it, and somebody changes it."""

    def __init__(self, seen: Path, open_it: Callable[[], Store], change: Callable[[Change], None]) -> None:
        self.seen = seen
        self.open = open_it
        self.change = change

    def guess(self, pin: bytes, rv: int = CKR.OK, role: str = "user") -> None:
        store = self.open()
        try:
            if rv:
                with refused(rv):
                    store.login(role, pin)
            else:
                store.login(role, pin)
        finally:
            store.close()

    def files(self) -> list[Path]:
        return sorted(self.seen.glob(f"{guesses.BEGINNING}*"))


def on_file(path: Path, seen: str = "seen") -> Place:
    folder = path.parent / seen
    return Place(folder, lambda: SqliteStore.open(path, witness=str(folder)), lambda change: in_file(path, change))


@pytest.fixture
def token(path: Path) -> Place:
    make(path).close()
    return on_file(path)


@pytest.fixture(params=["file", pytest.param("postgresql", marks=pytest.mark.interop)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "file":
        token: Place = request.getfixturevalue("token")
        return token
    url: str = request.getfixturevalue("database_url")
    seen = tmp_path / "seen"
    shelf = open_shelf(url, str(tmp_path), str(seen))
    make_on(shelf).close()
    return Place(seen, lambda: shelf.open(1, lambda _: None), lambda change: in_server(url, 1, change))


def another_token(forger: Forger, number: int) -> None:
    """Strike the wrong PINs, and let it look like one that nobody has met."""
    forger.strike_wrong_pins()
    forger.put_fact("serial", b"%016x" % number)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("known", [True, False], ids=["opened here before", "met for the first time"])
def test_another_serial_number_gives_no_guess_back(place: Place, role: str, known: bool) -> None:
    if known:
        place.guess(PINS[role], role=role)
    for attempt in range(10):
        place.guess(b"guess %d" % attempt, CKR.PIN_INCORRECT, role)
        place.change(lambda forger, number=attempt: another_token(forger, number))  # type: ignore[misc]
    place.guess(PINS[role], CKR.PIN_LOCKED, role)


def test_a_serial_number_that_cannot_be_read_gives_no_guess_back(place: Place) -> None:
    def spoil(forger: Forger) -> None:
        forger.strike_wrong_pins()
        forger.do("UPDATE meta SET checksum = ? WHERE name = 'serial'", bytes(16))

    for attempt in range(10):
        place.guess(b"guess %d" % attempt, CKR.PIN_INCORRECT)
        place.change(spoil)
    place.guess(USER_PIN, CKR.PIN_LOCKED)


def test_another_token_around_the_wrapping_gives_no_guess_back(
    token: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own serial number and state, and with a pardon that its own key has signed."""
    token.guess(USER_PIN)
    monkeypatch.setattr(samples, "SERIAL", "f" * 16)
    his = tmp_path / "his.keyfob"
    make(his).close()
    of_his = on_file(his, "his-seen")
    wrapping: list[bytes] = []
    token.change(lambda forger: wrapping.append(forger.fact("user_wrapping")))
    for attempt in range(10):
        of_his.guess(b"wrong", CKR.PIN_INCORRECT, "so")
        of_his.guess(SO_PIN, role="so")
        mixed = tmp_path / f"mixed-{attempt}.keyfob"
        mixed.write_bytes(his.read_bytes())
        in_file(mixed, lambda forger: forger.put_fact("user_wrapping", wrapping[0]))
        on_file(mixed).guess(b"guess %d" % attempt, CKR.PIN_INCORRECT)
    token.guess(USER_PIN, CKR.PIN_LOCKED)


def test_what_follows_a_wrapping_makes_no_other_of_it(token: Place) -> None:
    """The SO's may have something behind it that only the right PIN needs (handover.py)."""
    for attempt in range(10):
        token.guess(b"guess %d" % attempt, CKR.PIN_INCORRECT, "so")

        def lengthen(forger: Forger, number: int = attempt) -> None:
            another_token(forger, number)
            forger.put_fact("so_wrapping", forger.fact("so_wrapping")[: WRAPPING.size] + bytes([number]) * 100)

        token.change(lengthen)
    token.guess(SO_PIN, CKR.PIN_LOCKED, "so")


def test_a_wrong_pin_is_counted_before_the_token_is_written(token: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sees the new counters and drops the connection gives nothing back."""
    from keyfob.store import meta

    def dropped(*_: object) -> None:
        raise OSError("the connection is gone")

    token.guess(USER_PIN)
    store = token.open()
    with monkeypatch.context() as patched:
        patched.setattr(meta, "write_counters", dropped)
        for attempt in range(10):
            with pytest.raises(OSError, match="gone"):
                store.login("user", b"guess %d" % attempt)
    store.close()
    token.guess(USER_PIN, CKR.PIN_LOCKED)


def test_of_copies_that_are_tried_at_the_same_moment_ten_are_answered(path: Path, token: Place) -> None:
    """Each has looked before any has counted; the copies share nothing but the wrapping."""
    stores = []
    for number in range(12):
        copy = path.with_name(f"copy-{number}.keyfob")
        copy.write_bytes(path.read_bytes())
        in_file(copy, lambda forger, number=number: another_token(forger, number))  # type: ignore[misc]
        stores.append(SqliteStore.open(copy, witness=str(token.seen)))
    attempts = [store._vault._look_at("user", b"wrong") for store in stores]
    answers = []
    for store, attempt in zip(stores, attempts, strict=True):
        with store._vault.lock, pytest.raises(PKCS11Error) as problem:
            store._vault._answer(attempt)
        answers.append(problem.value.rv)
        store.close()
    assert answers == [CKR.PIN_INCORRECT] * 10 + [CKR.PIN_LOCKED] * 2


def test_copies_of_a_token_that_cannot_be_written_share_the_count(path: Path, token: Place) -> None:
    for number in range(10):
        copy = path.with_name(f"copy-{number}.keyfob")
        copy.write_bytes(path.read_bytes())
        in_file(copy, lambda forger, number=number: another_token(forger, number))  # type: ignore[misc]
        store = SqliteStore.open(copy, witness=str(token.seen))
        store._database.read_only = True
        with refused(CKR.PIN_INCORRECT):
            store.login("user", b"wrong")
        store.close()
    token.guess(USER_PIN, CKR.PIN_LOCKED)


def test_the_right_pin_forgets_the_wrong_ones(place: Place) -> None:
    for start in (0, 10, 20):
        for attempt in range(start, start + 9):
            place.guess(b"guess %d" % attempt, CKR.PIN_INCORRECT)
            place.change(lambda forger, number=attempt: another_token(forger, number))  # type: ignore[misc]
        place.guess(USER_PIN)


@pytest.mark.parametrize(("counted", "most"), [("by wrapping and serial number", 10), ("by serial number alone", 11)])
def test_a_pardon_of_another_machine_is_used_once(token: Place, path: Path, counted: str, most: int) -> None:
    """However low the numbers are that somebody writes beside it."""
    token.guess(USER_PIN)
    elsewhere = on_file(path, "elsewhere")
    early: list[bytes] = []
    token.change(lambda forger: early.append(forger.counters()))
    for _ in range(9):
        elsewhere.guess(b"wrong", CKR.PIN_INCORRECT)
    elsewhere.guess(USER_PIN)
    late: list[bytes] = []
    token.change(lambda forger: late.append(forger.counters()))
    assert len(late[0]) > len(early[0])
    for attempt in range(most):
        token.change(
            lambda forger: forger.put_fact("counters", early[0][:40] + late[0][40:])
        )  # the pardon is behind it
        token.guess(b"guess %d" % attempt, CKR.PIN_INCORRECT)
        for file in token.files() if counted == "by serial number alone" else []:
            file.unlink()
    token.guess(USER_PIN, CKR.PIN_LOCKED)


def test_a_new_pin_is_known_from_when_it_is_set(token: Place) -> None:
    """The key that pardons are verified with is not the one that somebody writes to the token before the next login."""
    store = token.open()
    store.login("user", USER_PIN)
    before = set(token.files())
    store.set_pin("user", b"another secret")
    [made] = set(token.files()) - before
    found = guesses._decoded(made.read_bytes())
    assert found is not None
    assert found.failed == 0
    assert found.public != NO_PUBLIC
    store.close()


def test_a_login_that_finds_nothing_new_writes_nothing(token: Place) -> None:
    token.guess(USER_PIN)
    [file] = token.files()
    os.utime(file, ns=(0, time.time_ns() - guesses.DAY * 10**9))
    before = file.stat().st_mtime_ns
    token.guess(USER_PIN)
    assert file.stat().st_mtime_ns == before


def test_a_login_keeps_a_count_from_getting_old(token: Place) -> None:
    token.guess(USER_PIN)
    [file] = token.files()
    os.utime(file, (0, time.time() - guesses.AGEING - 60))
    token.guess(USER_PIN)
    assert time.time() - file.stat().st_mtime < guesses.DAY


def test_only_age_removes_a_count_and_there_is_a_most(
    token: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guesses, "MOST", 3)
    token.guess(b"wrong", CKR.PIN_INCORRECT)
    [counted] = token.files()
    for number in range(4):
        other = tmp_path / f"other-{number}.keyfob"
        make(other).close()
        on_file(other).guess(USER_PIN)
    assert len(token.files()) == 3
    assert counted in token.files()
    for _ in range(9):
        token.guess(b"wrong", CKR.PIN_INCORRECT)
        token.change(lambda forger: another_token(forger, 1))
    token.guess(USER_PIN, CKR.PIN_LOCKED)
    for file in token.files():
        os.utime(file, (0, time.time() - guesses.OLD - 60))
    on_file(other).guess(USER_PIN)
    assert len(token.files()) == 1


def test_where_nothing_can_be_counted_the_token_counts(path: Path, token: Place) -> None:
    token.seen.write_bytes(b"a file, not a folder")
    for attempt in range(10):
        token.guess(b"guess %d" % attempt, CKR.PIN_INCORRECT)
    token.guess(USER_PIN, CKR.PIN_LOCKED)
    assert path.exists()


def test_a_damaged_count_is_named_and_written_anew(path: Path, token: Place) -> None:
    token.guess(USER_PIN)
    [file] = token.files()
    file.write_bytes(b"\0" * file.stat().st_size)
    said: list[str] = []
    store = SqliteStore.open(path, log=said.append, witness=str(token.seen))
    store.login("user", USER_PIN)
    store.close()
    assert said == ["what was counted of wrong PINs on this machine is damaged"]
    assert guesses._decoded(file.read_bytes()) is not None


def test_no_pin_is_in_what_is_counted(token: Place) -> None:
    token.guess(b"nobody's PIN", CKR.PIN_INCORRECT)
    [file] = token.files()
    assert b"nobody's" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
