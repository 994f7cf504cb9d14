"""One object, one row: checked whenever it is read, made whenever it is written.

Before login the checksum tells damage. After login the MAC must fit as well, and since the version is under both, a row
is good for its place and time only. Rows without a MAC are what others wrote without login, as NSS's certutil does with
certificates: they are believed if they are public and newer than the last login, which put a MAC to all such rows and
noted up to which version (`adopted`, guarded itself). So taking the MAC off an old row does not help an attacker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import error as _StructError
from typing import TYPE_CHECKING

from keyfob.spec.constants import CKA, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store.integrity import OBJECT_CHECKSUM, PUBLIC_INDEX, look_ups, same_digest, tag_of_object
from keyfob.store.record import Attributes, decode, encode

if TYPE_CHECKING:
    from keyfob.store.database import Database, Row
    from keyfob.store.seal import Keys

TRUE, FALSE = b"\x01", b"\x00"
COLUMNS = "id, version, private, record, checksum, mac"


class DamagedError(Exception):
    """A row is not what this store wrote. The text says what is wrong, without any of its content."""


def is_private(attributes: Mapping[int, bytes]) -> bool:
    """CKA_PRIVATE, which decides about sealing and so is never guessed."""
    flag = attributes.get(CKA.PRIVATE)
    if flag not in (TRUE, FALSE):
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "an object is stored with CKA_PRIVATE true or false")
    return flag == TRUE


def read(row: Row, keys: Keys | None, adopted: int) -> Attributes:
    """The attributes of a row of COLUMNS; DamagedError when anything about it is wrong. Private rows need `keys`."""
    object_id, version, private, record, checksum, mac = row
    try:
        if not same_digest(tag_of_object(OBJECT_CHECKSUM, object_id, version, private, record), checksum):
            raise DamagedError("the checksum does not fit")
        if keys is not None:
            if mac is None:
                if private or version <= adopted:
                    raise DamagedError("the MAC is missing: it was tampered with")
            elif not same_digest(tag_of_object(keys.mac, object_id, version, private, record), mac):
                raise DamagedError("the MAC does not fit: it was tampered with")
            if private:
                record = keys.open(object_id, version, record)
        elif private:
            raise DamagedError("it is sealed")
        attributes = decode(record)
    except (TypeError, ValueError, OverflowError, _StructError) as problem:
        text = str(problem) if type(problem) is ValueError else "a value of the wrong type"
        raise DamagedError(text) from None
    if attributes.get(CKA.PRIVATE) != (TRUE if private else FALSE):
        raise DamagedError("the private flag does not fit the record")
    return attributes


def write(database: Database, object_id: int, version: int, attributes: Attributes, keys: Keys | None) -> None:
    """Insert or replace the row, within the caller's transaction. Private objects need `keys`."""
    private = is_private(attributes)
    try:
        record = encode(attributes)
    except ValueError as problem:
        raise PKCS11Error(CKR.ATTRIBUTE_TYPE_INVALID, str(problem)) from None
    if private:
        if keys is None:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "private objects need the user's login")
        record = keys.seal(object_id, version, record)
    checksum = tag_of_object(OBJECT_CHECKSUM, object_id, version, private, record)
    mac = tag_of_object(keys.mac, object_id, version, private, record) if keys is not None else None
    database.run(
        f"INSERT OR REPLACE INTO object ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
        (object_id, version, int(private), record, checksum, mac),
    )


def digests(attributes: Attributes, keys: Keys | None) -> set[bytes]:
    """The look-up digests that belong to an object."""
    hasher = PUBLIC_INDEX
    if is_private(attributes):
        if keys is None:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "private objects need the user's login")
        hasher = keys.index
    return look_ups(hasher, attributes)


def index(database: Database, object_id: int, old: set[bytes] | None, new: set[bytes]) -> None:
    """Bring the look-up rows of an object from `old` to `new`; `old` None: unknown, so they are searched for one by one."""
    if old is None:
        database.run("DELETE FROM lookup WHERE object = ?", (object_id,))
        old = set()
    gone = [(digest, object_id) for digest in sorted(old - new)]
    if gone:
        database.run_each("DELETE FROM lookup WHERE digest = ? AND object = ?", gone)
    added = [(digest, object_id) for digest in sorted(new - old)]
    if added:
        database.run_each("INSERT OR REPLACE INTO lookup (digest, object) VALUES (?, ?)", added)


def next_id(database: Database) -> int:
    """A number that no object of this token ever had: SQLite's AUTOINCREMENT would take the same, but sealing needs it first."""
    last = database.number("SELECT seq FROM sqlite_sequence WHERE name = 'object'")
    return max(last, database.number("SELECT max(id) FROM object")) + 1


def adopt(database: Database, keys: Keys, adopted: int, log: Callable[[str], None]) -> int:
    """Put a MAC to the public rows written since the last login, within the caller's transaction; how many there were."""
    statement = f"SELECT {COLUMNS} FROM object WHERE mac IS NULL AND version > ?"
    tags = []
    for row in list(database.rows(statement, (adopted,))):
        try:
            read(row, keys, adopted)
        except DamagedError as problem:
            log(f"object {row[0]} is damaged: {problem}")
            continue
        object_id, version, private, record, _, _ = row
        tags.append((tag_of_object(keys.mac, object_id, version, private, record), object_id))
    if tags:
        database.run_each("UPDATE object SET mac = ? WHERE id = ?", tags)
    return len(tags)


def seal_anew(database: Database, old: Keys, new: Keys, adopted: int) -> None:
    """Everything from one master key to another, within the caller's transaction. What is damaged keeps its old seal."""
    for (object_id,) in list(database.rows("SELECT id FROM object")):
        row = database.row(f"SELECT {COLUMNS} FROM object WHERE id = ?", (object_id,))
        if row is None:
            continue
        try:
            attributes = read(row, old, adopted)
        except DamagedError:
            continue
        write(database, object_id, row[1], attributes, new)
        index(database, object_id, digests(attributes, old), digests(attributes, new))
