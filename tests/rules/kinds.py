"""Tokens of a kind for the tests, made without C_InitToken, which makes multipurpose tokens only."""

from __future__ import annotations

from pathlib import Path

from keyfob.store import Hardening, SqliteStore
from tests.client import Client, ffi
from tests.conftest import CHEAP_PINS, PIN, SO_PIN
from tests.rules.nss_calls import Slot, start

LABEL = "test"
KINDS = ("key-distribution", "signing", "signing-decryption", "multipurpose")
LIMITED = KINDS[:3]


def make_token(home: Path, kind: str, *, hide: tuple[str, ...] = ()) -> None:
    """The home's only token, in slot 1, with both PINs."""
    names = ", ".join(f'"{name}"' for name in hide)
    (home / "config.toml").write_text(f'{CHEAP_PINS}\n[token."{LABEL}"]\nhide_mechanisms = [{names}]\n')
    folder = home / "tokens"
    folder.mkdir(mode=0o700)
    hardening = Hardening(8192, 1)
    path = folder / "slot-1.keyfob"
    store = SqliteStore.create(path, label=LABEL, serial="1", kind=kind, so_pin=SO_PIN, hardening=hardening)
    store.login("so", SO_PIN)
    store.set_pin("user", PIN)
    store.close()


def start_on(module: Client, home: Path, kind: str, *, hide: tuple[str, ...] = ()) -> Slot:
    """NSS, logged in to a token of this kind."""
    module.call("C_Finalize", ffi.NULL)
    make_token(home, kind, hide=hide)
    slot = start(module).slot
    slot.login(PIN)
    return slot
