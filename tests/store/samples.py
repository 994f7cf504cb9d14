"""Objects, tokens and small programs that the tests of the store share."""

from __future__ import annotations

import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKA, CKK, CKO
from keyfob.spec.errors import PKCS11Error
from keyfob.store import Hardening, MemoryStore, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store import Attributes, Shelf, Store

USER_PIN, SO_PIN = b"user's secret", b"officer's secret"
SERIAL = "0123456789abcdef"
TRUE, FALSE = b"\x01", b"\x00"
FIXTURES = Path(__file__).with_name("fixtures")
CHEAP = Hardening.for_tests()


def refused(rv: int) -> pytest.RaisesExc[PKCS11Error]:
    """For `with`: the block raises PKCS11Error with exactly this code."""
    return pytest.RaisesExc(PKCS11Error, check=lambda problem: problem.rv == rv)


def ulong(number: int) -> bytes:
    return number.to_bytes(8, "little")


def private_key(number: int) -> Attributes:
    """A private object: an EC key whose value tells its number."""
    return {
        CKA.CLASS: ulong(CKO.PRIVATE_KEY),
        CKA.TOKEN: TRUE,
        CKA.PRIVATE: TRUE,
        CKA.LABEL: b"key %d" % number,
        CKA.KEY_TYPE: ulong(CKK.EC),
        CKA.ID: number.to_bytes(20, "big"),
        CKA.SENSITIVE: TRUE,
        CKA.VALUE: b"secret value %032d" % number,
        CKA.UNIQUE_ID: b"private-%d" % number,
    }


def certificate(number: int) -> Attributes:
    """A public object that goes with `private_key(number)`."""
    return {
        CKA.CLASS: ulong(CKO.CERTIFICATE),
        CKA.TOKEN: TRUE,
        CKA.PRIVATE: FALSE,
        CKA.LABEL: b"certificate %d" % number,
        CKA.ID: number.to_bytes(20, "big"),
        CKA.SUBJECT: b"subject %d" % number,
        CKA.ISSUER: b"the issuer",
        CKA.SERIAL_NUMBER: b"%d" % number,
        CKA.VALUE: b"the certificate %d" % number * 20,
        CKA.UNIQUE_ID: b"certificate-%d" % number,
    }


def trust(number: int) -> Attributes:
    return {
        CKA.CLASS: ulong(CKO.NSS_TRUST),
        CKA.TOKEN: TRUE,
        CKA.PRIVATE: FALSE,
        CKA.ISSUER: b"the issuer",
        CKA.SERIAL_NUMBER: b"%d" % number,
    }


def make(path: Path, *, log: Callable[[str], None] | None = None, so_pin: bytes = SO_PIN) -> SqliteStore:
    """A token with both PINs set, locked."""
    store = SqliteStore.create(
        path,
        label="a token",
        serial=SERIAL,
        kind="multipurpose",
        so_pin=so_pin,
        hardening=CHEAP,
        log=log or (lambda _: None),
    )
    store.login("so", so_pin)
    store.set_pin("user", USER_PIN)
    store.logout()
    return store


def make_on(shelf: Shelf, slot_id: int = 1, *, log: Callable[[str], None] | None = None) -> Store:
    """The same on a shelf."""
    store = shelf.create(
        slot_id,
        log or (lambda _: None),
        label="a token",
        serial=SERIAL,
        kind="multipurpose",
        so_pin=SO_PIN,
        hardening=CHEAP,
    )
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.logout()
    return store


def of_schema(number: int, name: str, folder: Path) -> Path:
    """A token that a keyfob of that schema wrote, unpacked into the folder, with its key file if it has one.

    `pin`, `general`: private_key(1) is object 1, private_key(2) with CKA_ALWAYS_AUTHENTICATE 3, certificate(1) 2, which
    is "renamed" in `pin`; there 4 was removed, 5 is trust(1), 6, certificate(3), was written without login. `first-pin`
    waits for its first user PIN and has certificate(1); `empty-so-pin` waits, too, under the empty SO PIN.
    """
    for packed in (FIXTURES / f"schema-{number}").glob(f"{name}.*"):
        (folder / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
        (folder / packed.stem).chmod(0o600)
    return folder / f"{name}.keyfob"


def make_in_memory() -> MemoryStore:
    store = MemoryStore(label="a token", serial=SERIAL, so_pin=SO_PIN)
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.logout()
    return store


def start_program(source: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A Python program of its own, with the same sys.path as we."""
    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def output_of(source: str, *arguments: object) -> str:
    """What such a program prints; it must end well."""
    with start_program(source, *arguments) as process:
        assert process.stdout is not None
        output = process.stdout.read().decode()
    assert process.returncode == 0, output
    return output
