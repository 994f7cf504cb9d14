"""A pepper through the module's door: what programs are told, and what the log says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyfob.spec.constants import CKF, CKR, CKU
from tests.client import Client, ffi
from tests.conftest import CHEAP_PINS, PIN, SO_PIN, Fob, module_path


@pytest.fixture
def pepper(home: Path) -> Path:
    """The pepper of the configuration for tokens called `keyfob`, as the first is, and `test`."""
    file = home / "secrets" / "pepper"
    file.parent.mkdir()
    file.write_bytes(os.urandom(32))
    file.chmod(0o600)
    tables = "".join(f'[token."{label}"]\npepper = "secrets/pepper"\n' for label in ("keyfob", "test"))
    (home / "config.toml").write_text(CHEAP_PINS + tables)
    return file


@pytest.fixture
def client(pepper: Path) -> Iterator[Client]:
    loaded = Client(str(module_path()))
    loaded.call("C_Finalize", ffi.NULL)
    loaded.initialize()
    yield loaded
    loaded.call("C_Finalize", ffi.NULL)


def login(client: Client, session: int, pin: bytes, user: int = CKU.USER) -> int:
    return client.call("C_Login", session, user, pin, len(pin))


def test_a_login_without_the_pepper_is_a_device_error_and_never_counts(
    client: Client, home: Path, pepper: Path
) -> None:
    fob = Fob(client)
    client.ok("C_Logout", fob.session)
    content = pepper.read_bytes()
    pepper.unlink()
    for pin in (PIN, b"wrong"):
        assert login(client, fob.session, pin) == CKR.DEVICE_ERROR
    pepper.write_bytes(bytes(32))
    assert login(client, fob.session, PIN) == CKR.DEVICE_ERROR
    assert not client.token_info(fob.slot).flags & CKF.USER_PIN_COUNT_LOW
    log = (home / "keyfob.log").read_text()
    assert f"C_Login: CKR_DEVICE_ERROR: the pepper {pepper} cannot be read: No such file or directory" in log
    assert f"C_Login: CKR_DEVICE_ERROR: {pepper} is not the pepper that the token's PINs were made with" in log
    pepper.write_bytes(content)
    assert login(client, fob.session, b"wrong") == CKR.PIN_INCORRECT
    assert login(client, fob.session, PIN) == CKR.OK


def test_c_init_token_makes_a_token_with_the_configured_pepper(client: Client, pepper: Path) -> None:
    """And C_InitToken on that keeps it, under another label where the configuration names it for that one."""
    fob = Fob(client)
    client.ok("C_CloseAllSessions", fob.slot)
    rename = ("C_InitToken", fob.slot, SO_PIN, len(SO_PIN), b"renamed".ljust(32))
    assert client.call(*rename) == CKR.DEVICE_ERROR
    settings = pepper.parents[1] / "config.toml"
    with settings.open("a") as file:
        file.write('[token."renamed"]\npepper = "secrets/pepper"\n')
    client.ok(*rename)
    session = client.open(fob.slot)
    pepper.unlink()
    assert login(client, session, SO_PIN, CKU.SO) == CKR.DEVICE_ERROR


def test_the_first_pin_by_nss_needs_the_configured_pepper(client: Client, home: Path, pepper: Path) -> None:
    """P6: C_Login(SO, "") and C_InitPIN on the token that is not there yet. Without the file none is made."""
    content = pepper.read_bytes()
    pepper.unlink()
    (slot,) = client.slots()
    session = client.open(slot)
    client.login(session, b"", CKU.SO)
    assert client.call("C_InitPIN", session, PIN, len(PIN)) == CKR.DEVICE_ERROR
    assert not list((home / "tokens").glob("*.keyfob"))
    pepper.write_bytes(content)
    client.ok("C_InitPIN", session, PIN, len(PIN))
    client.ok("C_Logout", session)
    client.login(session, PIN)
    client.ok("C_Logout", session)
    pepper.unlink()
    assert login(client, session, PIN) == CKR.DEVICE_ERROR
