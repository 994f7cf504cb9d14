"""A new token: built in memory, then published as one finished file. A kill in between leaves no half token."""

from __future__ import annotations

import os
import time

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import key_file, meta, publish, schema
from keyfob.store.counters import Counters
from keyfob.store.database import SIDES, SqliteDatabase
from keyfob.store.info import DEFAULT_MAX_FAILURES, check_label, check_pin_length
from keyfob.store.meta import HARDENING, NUMBER, WRAPPING_OF
from keyfob.store.pepper import with_pepper
from keyfob.store.rekey import EMPTY_ROSTER, fresh_facts, so_facts
from keyfob.store.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store.hardening import Hardening
    from keyfob.store.pepper import Pepper
    from keyfob.store.protocol import Database

MAX_SERIAL = 16
# Bytes 18 and 19 of a database file: 2 means WAL (sqlite.org/fileformat2.html, 1.3.3).
WAL_MARK = slice(18, 20)


def filling(
    path: str,
    *,
    label: str,
    serial: str,
    kind: str,
    so_pin: bytes,
    hardening: Hardening,
    general_access: bool = False,
    empty_pin: bool = False,
    pepper: Pepper | None = None,
) -> Callable[[Database], None]:
    """What writes a new token's facts into empty tables.

    `path`: where the token's file is, or would be; a token of general access has its key file beside it, made if need
    be. See SqliteStore.create.
    """
    from keyfob.store import pardon, seal

    check_label(label)
    if so_pin:
        check_pin_length(so_pin)
    if not 1 <= len(serial.encode()) <= MAX_SERIAL:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, f"a serial number has 1 to {MAX_SERIAL} bytes")
    keys = seal.Keys.generate()
    facts = fresh_facts(keys, 1, label.encode(), 0) | {
        "created": NUMBER.pack(int(time.time())),
        "hardening": HARDENING.pack(hardening.memory_kib, hardening.iterations, hardening.lanes),
        "kind": kind.encode(),
        "max_failures": NUMBER.pack(DEFAULT_MAX_FAILURES),
        "serial": serial.encode(),
    }
    if general_access:
        facts[WRAPPING_OF["file"]] = seal.wrap_with_key(keys.master, "file", key_file.obtain(key_file.beside(path)))
        facts["key_file"] = key_file.name_beside(path).encode()
        if so_pin:
            facts[WRAPPING_OF["so"]] = seal.wrap(keys.master, "so", so_pin, hardening, pepper)
    elif empty_pin:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, "only a token of general access has the empty user PIN")
    else:
        facts |= so_facts(keys, so_pin, hardening, pepper)
    settings = with_pepper({meta.USER_PIN: meta.EMPTY} if empty_pin else {}, pepper)
    facts["settings"] = meta.encode_settings(settings)

    def fill(database: Database) -> None:
        meta.write(database, facts, EMPTY_ROSTER, State.first(pardon.public_key(keys)), keys)
        meta.write_counters(database, Counters())
        keys.wipe()

    return fill


def build(path: str, fill: Callable[[Database], None]) -> None:
    """A new token file whose tables `fill` writes; CKR_FUNCTION_FAILED when there is a file already: it stays."""
    # Looked at first: what is there before the file is not is no other process's new token.
    leftovers = _leftovers(path)
    if os.path.lexists(path):
        raise PKCS11Error(CKR.FUNCTION_FAILED, f"there is a file {path} already")
    image = _image(path, fill)
    _remove(path, leftovers)
    try:
        publish.publish(image, path)
    except OSError as problem:
        raise publish.answer(problem, path) from None


def _image(path: str, fill: Callable[[Database], None]) -> bytes:
    database = SqliteDatabase.in_memory(path)
    with database.writing():
        schema.create_tables(database)
        fill(database)
    image = bytearray(database.image())
    database.close()
    image[WAL_MARK] = b"\x02\x02"
    return bytes(image)


def _leftovers(path: str) -> dict[str, tuple[int, int]]:
    """What a token that is gone left beside its file; SQLite would play its write-ahead log into the new one."""
    found = {}
    for ending in SIDES:
        try:
            status = os.stat(path + ending, follow_symlinks=False)
        except OSError:
            continue
        found[path + ending] = (status.st_ino, status.st_ctime_ns)
    return found


def _remove(path: str, leftovers: dict[str, tuple[int, int]]) -> None:
    for name, identity in _leftovers(path).items():
        if leftovers.get(name) != identity:
            continue
        try:
            os.unlink(name)
        except OSError as problem:
            raise publish.answer(problem, name) from None
