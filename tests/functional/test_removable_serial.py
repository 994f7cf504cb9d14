"""A stick that bears the serial number of the user's own token: nothing that happens to it happens to that one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from keyfob.spec.constants import CKR, CKU
from keyfob.token.removable import Registration
from tests.client import Client, ffi
from tests.conftest import PIN, Fob

SLOT = 2


@pytest.fixture
def stick(fob: Fob, home: Path, tmp_path: Path) -> Client:
    """In slot 2, with a copy of the token of slot 1."""
    fob.client.ok("C_Finalize", ffi.NULL)
    folder = tmp_path / "stick"
    folder.mkdir()
    shutil.copy(home / "tokens" / "slot-1.keyfob", folder / "token.keyfob")
    (folder / "token.keyfob").chmod(0o600)
    Registration(str(home / "tokens" / f"slot-{SLOT}.removable")).write(str(folder), ejected=False)
    fob.client.initialize()
    return fob.client


def login(client: Client, slot: int, pin: bytes) -> int:
    session = client.open(slot)
    rv = client.call("C_Login", session, CKU.USER, pin, len(pin))
    client.ok("C_CloseSession", session)
    return rv


def test_wrong_pins_on_a_stick_lock_no_other_token_of_its_serial_number(stick: Client, home: Path) -> None:
    for _ in range(10):
        assert login(stick, SLOT, b"wrong") == CKR.PIN_INCORRECT
    assert login(stick, SLOT, PIN) == CKR.PIN_LOCKED
    assert login(stick, 1, PIN) == CKR.OK
    assert "older copy" not in (home / "keyfob.log").read_text()


def test_an_older_copy_on_a_stick_is_noticed(stick: Client, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "stick" / "token.keyfob"
    stick.ok("C_Finalize", ffi.NULL)
    older = file.read_bytes()
    stick.initialize()
    for _ in range(3):
        assert login(stick, SLOT, b"wrong") == CKR.PIN_INCORRECT
    stick.ok("C_Finalize", ffi.NULL)
    file.unlink()
    file.write_bytes(older)
    file.chmod(0o600)
    stick.initialize()
    for _ in range(7):
        assert login(stick, SLOT, b"wrong") == CKR.PIN_INCORRECT
    assert login(stick, SLOT, PIN) == CKR.PIN_LOCKED
    assert "slot 2: an older copy of the token was put back" in (home / "keyfob.log").read_text()
