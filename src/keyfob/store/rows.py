"""One object, one row: checked whenever it is read, made whenever it is written.

Before login the checksum tells damage. After login the MAC must fit as well, and since number and version are under
both, a row is good for its place only. Rows without a MAC are what others wrote without login, as NSS's certutil does
with certificates: they are believed if they are public, newer than the last login, or write after one, and no object's
that ever had a MAC (roster.py). That login put a MAC to all such rows and noted up to which version (`adopted`, guarded
itself), so that an old row whose MAC was taken off is not believed. And they are never believed about themselves: what
they say of their past, or of how far they can be trusted, does not count.
"""

from __future__ import annotations

import struct

from keyfob._held import hold
from keyfob.spec.constants import CK, CKA, CKO, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.traits import SECRETS, hides
from keyfob.store.integrity import OBJECT_CHECKSUM, PUBLIC_INDEX, look_ups, same_digest, tag_of_object
from keyfob.store.record import Attributes, Record, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyfob.store.protocol import Database, Row
    from keyfob.store.seal import Keys

    LookUps = set[tuple[bytes, bytes]]

TRUE, FALSE = b"\x01", b"\x00"
# In the record of a key that everybody may see but whose value is hidden: its secret attributes, sealed. No CKA_*.
VEILED = 0xFFFF_FF01
# Whom all programs believe: never written, and after login never believed, without a MAC.
GUARDED_CLASSES = tuple(number.to_bytes(8, "little") for number in (CKO.NSS_TRUST, CKO.TRUST))
# What only the token itself, or its SO, can say of an object, and what holds of one that nobody vouches for.
CLAIMS = {
    CKA.TRUSTED: FALSE,
    CKA.LOCAL: FALSE,
    CKA.ALWAYS_SENSITIVE: FALSE,
    CKA.NEVER_EXTRACTABLE: FALSE,
    CKA.KEY_GEN_MECHANISM: CK.UNAVAILABLE_INFORMATION.to_bytes(8, "little"),
    CKA.OBJECT_VALIDATION_FLAGS: bytes(8),
}


class DamagedError(Exception):
    """A row is not what this store wrote. The text says what is wrong, without any of its content."""


def is_private(attributes: Mapping[int, bytes]) -> bool:
    """CKA_PRIVATE, which decides about sealing and so is never guessed."""
    flag = attributes.get(CKA.PRIVATE)
    if flag not in (TRUE, FALSE):
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "an object is stored with CKA_PRIVATE true or false")
    return flag == TRUE


def hides_value(attributes: Mapping[int, bytes]) -> bool:
    """Whether a key that is not CKA_PRIVATE keeps its value to itself (sensitive or not extractable)."""
    return attributes.get(CKA.PRIVATE) == FALSE and hides(attributes)


def _opened(object_id: int, version: int, private: int, record: bytes, keys: Keys | None) -> Record:
    """The record with all that these keys open."""
    if not private:
        return _unveil(object_id, version, Record(record), keys)
    if keys is None:
        raise DamagedError("it is sealed")
    return Record(hold(keys.open(object_id, version, record)))


def _veil(object_id: int, version: int, attributes: Attributes, keys: Keys | None) -> Attributes:
    """The attributes as they may stand in the clear: no hidden value is readable in a copy of the token."""
    if not hides_value(attributes):
        return attributes
    if keys is None:
        raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "a key whose value is hidden is stored under a login only")
    secrets = {each: value for each, value in attributes.items() if each in SECRETS}
    shown = {each: value for each, value in attributes.items() if each not in SECRETS}
    return {**shown, VEILED: keys.seal(object_id, version, encode(secrets))}


def _unveil(object_id: int, version: int, record: Record, keys: Keys | None) -> Record:
    """With the hidden value where it can be opened, else without."""
    sealed = record.get(VEILED)
    if sealed is None:
        return record
    attributes = record.attributes()
    del attributes[VEILED]
    if keys is None:
        return Record(encode(attributes))
    attributes.update(Record(hold(keys.open(object_id, version, sealed))).attributes())
    return Record(hold(encode(attributes)))


def select(database: Database, object_id: int) -> Row | None:
    """The row that `read` and `check_sum` take: id, version, private, record, checksum, mac."""
    return database.row("SELECT id, version, private, record, checksum, mac FROM object WHERE id = ?", (object_id,))


def check_sum(row: Row) -> None:
    """DamagedError when the row is not as it was written; all that can be told of a sealed row before login."""
    object_id, version, private, record, checksum, _ = row
    try:
        fits = same_digest(tag_of_object(OBJECT_CHECKSUM, object_id, version, private, record), checksum)
    except (TypeError, ValueError, OverflowError, struct.error):
        raise DamagedError("a value of the wrong type") from None
    if not fits:
        raise DamagedError("the checksum does not fit")


def read(row: Row, keys: Keys | None, adopted: int) -> Attributes:
    """The attributes of a row, which `check` finds right."""
    return check(row, keys, adopted).attributes()


def check(row: Row, keys: Keys | None, adopted: int) -> Record:
    """The open record of a row; DamagedError when anything about it is wrong. Private rows need `keys`.

    A MAC that fits vouches for all that the checksum does, which is left to `verify` then.
    """
    object_id, version, private, record, _, mac = row
    try:
        if keys is None or mac is None:
            check_sum(row)
            if keys is not None and (private or version <= adopted):
                raise DamagedError("the MAC is missing: it was tampered with")
        elif not same_digest(tag_of_object(keys.mac, object_id, version, private, record), mac):
            check_sum(row)  # tells an accident from an attack
            raise DamagedError("the MAC does not fit: it was tampered with")
        found = _opened(object_id, version, private, record, keys)
    except ValueError as problem:
        raise DamagedError(str(problem)) from None
    except (TypeError, OverflowError, struct.error):
        raise DamagedError("a value of the wrong type") from None
    if found.get(CKA.PRIVATE) != (TRUE if private else FALSE):
        raise DamagedError("the private flag does not fit the record")
    if mac is None and keys is not None and found.get(CKA.CLASS) in GUARDED_CLASSES:
        raise DamagedError("a trust object without a MAC: it was not written by this token's user")
    return found if mac is not None or keys is None else _without_claims(found)


def _without_claims(record: Record) -> Record:
    """As much as is believed of an object that somebody wrote without a login."""
    if all(record.get(attribute) in (None, value) for attribute, value in CLAIMS.items()):
        return record
    attributes = record.attributes()
    return Record(encode({each: CLAIMS.get(each, value) for each, value in attributes.items()}))


def has_fitting_mac(row: Row, keys: Keys) -> bool:
    """Whether the row was written by whoever has the keys."""
    object_id, version, private, record, _, mac = row
    try:
        return same_digest(tag_of_object(keys.mac, object_id, version, private, record), mac)
    except (TypeError, ValueError, OverflowError, struct.error):
        return False


def write(database: Database, object_id: int, version: int, attributes: Attributes, keys: Keys | None) -> None:
    """Insert or replace the row, within the caller's transaction. Private objects need `keys`."""
    private = is_private(attributes)
    if keys is None and attributes.get(CKA.CLASS) in GUARDED_CLASSES:
        raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "trust objects need the user's login")
    try:
        record = encode(_veil(object_id, version, attributes, keys))
    except ValueError as problem:
        raise PKCS11Error(CKR.ATTRIBUTE_TYPE_INVALID, str(problem)) from None
    if private:
        if keys is None:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "private objects need the user's login")
        record = keys.seal(object_id, version, record)
    checksum = tag_of_object(OBJECT_CHECKSUM, object_id, version, private, record)
    mac = tag_of_object(keys.mac, object_id, version, private, record) if keys is not None else None
    database.run(
        """
        INSERT INTO object (id, version, private, record, checksum, mac) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET version = excluded.version, private = excluded.private,
            record = excluded.record, checksum = excluded.checksum, mac = excluded.mac
        """,
        (object_id, version, int(private), record, checksum, mac),
    )


def look_ups_of(attributes: Attributes, keys: Keys | None) -> LookUps:
    """The look-up rows that belong to an object, without its number."""
    hasher = PUBLIC_INDEX
    if is_private(attributes):
        if keys is None:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "private objects need the user's login")
        hasher = keys.index
    return look_ups(hasher, attributes)


def index(database: Database, object_id: int, old: LookUps | None, new: LookUps) -> None:
    """Bring the look-up rows of an object from `old` to `new`. `old` None: unknown, so every row is looked at."""
    if old is None:
        database.run("DELETE FROM lookup WHERE object = ?", (object_id,))
        old = set()
    gone = [(digest, object_id) for digest, _ in sorted(old - new)]
    if gone:
        database.run_each("DELETE FROM lookup WHERE digest = ? AND object = ?", gone)
    added = [(digest, object_id, mark) for digest, mark in sorted(new - old)]
    if added:
        statement = """
            INSERT INTO lookup (digest, object, class) VALUES (?, ?, ?)
            ON CONFLICT (digest, object) DO UPDATE SET class = excluded.class
        """
        database.run_each(statement, added)


def index_rest(database: Database, keys: Keys, adopted: int) -> None:
    """Add what an older schema left out of the look-ups of sealed objects, within the caller's transaction."""
    if database.row("SELECT 1 FROM unindexed LIMIT 1") is None:
        return
    for (object_id,) in list(database.rows("SELECT object FROM unindexed")):
        row = select(database, object_id)
        if row is None:
            continue
        try:
            attributes = read(row, keys, adopted)
        except DamagedError:
            continue
        index(database, object_id, set(), look_ups_of(attributes, keys))
    database.run("DELETE FROM unindexed")


def seal_anew(database: Database, old: Keys, new: Keys, adopted: int) -> None:
    """Everything from one master key to another, within the caller's transaction. What is damaged stays as it is."""
    for (object_id,) in list(database.rows("SELECT id FROM object")):
        row = select(database, object_id)
        if row is None:
            continue
        try:
            attributes = read(row, old, adopted)
        except DamagedError:
            continue
        write(database, object_id, row[1], attributes, new)
        index(database, object_id, look_ups_of(attributes, old), look_ups_of(attributes, new))
