"""What happened to public objects without a login, and what becomes of it at the next one.

PKCS #11 lets anybody who may open the token write, change and remove public objects, and NSS's tools count on that:
certutil's -A, -D and --rename never log in. The keys that vouch for objects are not there then, so whoever can write to
the file can make the same look. What it may come to is therefore bounded, for both alike:

    made      an object without a MAC, newer than the last login; no trust object. It is given a MAC, and nothing that
              it claims about itself (rows.CLAIMS)
    removed   the row that had the MAC is moved to the table `pending`; no trust object's. It is dropped
    renamed   the same, and the object's row has no MAC; only a certificate's label may differ. It is given a MAC

Each is a line in the log and a notice (notices.py). Everything else needs a login, and where it has happened without
one it is tampering: it is named, and where `pending` still has the row that was vouched for, that is put back. A row
that is in neither table was not removed through a token. So an object that a login has vouched for is never replaced
without one, nor lost without a trace.
"""

from __future__ import annotations

from keyfob.spec.constants import CKA, CKO, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import rows
from keyfob.store.notices import ADOPTED, TAMPERED, Notice
from keyfob.store.rows import GUARDED_CLASSES, DamagedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store.meta import Meta
    from keyfob.store.protocol import Database, Row
    from keyfob.store.record import Attributes
    from keyfob.store.roster import Roster
    from keyfob.store.seal import Keys

CERTIFICATE = CKO.CERTIFICATE.to_bytes(8, "little")


# Without a login


def keep_removed(database: Database, row: Row) -> None:
    """An object is about to be removed without a login, within the caller's transaction."""
    if row[5] is not None:
        if _vouched_for(row).get(CKA.CLASS) in GUARDED_CLASSES:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "trust objects need the user's login")
        _keep(database, row)


def keep_changed(database: Database, row: Row, changed: Attributes) -> None:
    """An object is about to get these attributes without a login, within the caller's transaction."""
    kept = row if row[5] is not None else _kept(database, row[0])
    if kept is None:
        return  # nobody has vouched for it yet
    if not _is_renamed(_vouched_for(kept), changed):
        text = "without a login only the label of a certificate that a login has vouched for can be changed"
        raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, text)
    _keep(database, kept)


def _vouched_for(row: Row) -> Attributes:
    try:
        return rows.read(row, None, 0)
    except DamagedError as problem:
        raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, f"object {row[0]}: {problem}") from None


def _keep(database: Database, row: Row) -> None:
    database.run("INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)


def _is_renamed(old: Attributes, new: Attributes) -> bool:
    """Whether no more than a certificate's label differs."""
    label = {CKA.LABEL: b""}
    return old.get(CKA.CLASS) == CERTIFICATE and old | label == new | label


# Under a login


def check(database: Database, row: Row, keys: Keys, newest: int, roster: Roster) -> None:
    """DamagedError when a row is not the one that was written last, or not one that may come without a login.

    `newest`: the highest version that an object of this token can have.
    """
    if row[5] is not None:
        roster.check(row, keys)
        return
    _check_version(row, newest)
    try:
        roster.check_new(row[0], keys)
    except DamagedError:
        kept = _kept(database, row[0])
        if kept is None or not _may_be_renamed(kept, row, keys, roster):
            raise


def _check_version(row: Row, newest: int) -> None:
    if row[1] > newest:
        raise DamagedError(f"its version {row[1]} is above the token's counter: it was tampered with")


def forget(database: Database, object_id: int) -> None:
    """Somebody with a login has written or removed the object: what was before does not matter any more."""
    database.run("DELETE FROM pending WHERE object = ?", (object_id,))


def adopt(
    database: Database, keys: Keys, facts: Meta, tell: Callable[[str], None], roster: Roster | None
) -> list[Notice]:
    """Put a MAC to what may come without a login, within the caller's transaction; what to give notice of.

    `tell` gets what is wrong. `roster`: None where one is built afterwards, of all that have a MAC then.
    """
    adopted, newest = facts.adopted, facts.counters.version
    notices = [] if roster is None else _settle_pending(database, keys, facts.state is None, tell, roster)
    made: dict[int, Attributes | None] = {}
    statement = "SELECT id FROM object WHERE mac IS NULL AND version > ?"
    for (object_id,) in list(database.rows(statement, (adopted,))):
        row = rows.select(database, object_id)
        if row is None:
            continue
        try:
            attributes = rows.read(row, keys, adopted)
            _check_version(row, newest)
            if roster is not None:
                roster.check_new(object_id, keys)
        except DamagedError as problem:
            tell(f"object {object_id}: {problem}")
            continue
        _vouch_for(database, row, attributes, keys, roster)
        made[object_id] = attributes
    return [*notices, Notice.of(ADOPTED, "made without a login", made)] if made else notices


def _settle_pending(
    database: Database, keys: Keys, is_old: bool, tell: Callable[[str], None], roster: Roster
) -> list[Notice]:
    """`is_old`: an older keyfob wrote last, of which there are no more than the numbers of what was removed."""
    notices: list[Notice] = []
    for (object_id,) in list(database.rows("SELECT object FROM pending")):
        kept = _kept(database, object_id)
        entry = roster.entry(object_id, keys)
        if is_old and entry and not entry & 1 and rows.select(database, object_id) is None:
            roster.strike(object_id)
            notices.append(Notice.of(ADOPTED, "removed without a login", {object_id: None}))
        elif kept is None or not roster.has(kept, keys):
            tell(f"object {object_id}: what was kept of it is not what a login had left: it was tampered with")
        else:
            notices.append(_settle(database, kept, keys, tell, roster))
        forget(database, object_id)
    return notices


def _settle(database: Database, kept: Row, keys: Keys, tell: Callable[[str], None], roster: Roster) -> Notice:
    object_id = kept[0]
    present = rows.select(database, object_id)
    before = rows.read(kept, keys, 0)
    if present is None and _may_go(kept, before):
        roster.strike(object_id)
        return Notice.of(ADOPTED, "removed without a login", {object_id: before})
    if present is not None and _may_be_renamed(kept, present, keys, roster):
        attributes = rows.read(present, keys, 0)
        _vouch_for(database, present, attributes, keys, roster)
        both = before.get(CKA.LABEL, b"") + b" -> " + attributes.get(CKA.LABEL, b"")
        return Notice.of(ADOPTED, "renamed without a login", {object_id: before | {CKA.LABEL: both}})
    how = "removed" if present is None else "replaced"
    text = f"object {object_id}: it was {how} without a login, and is put back: it was tampered with"
    tell(text)
    database.run("DELETE FROM object WHERE id = ?", (object_id,))
    database.run("INSERT INTO object (id, version, private, record, checksum, mac) VALUES (?, ?, ?, ?, ?, ?)", kept)
    rows.index(database, object_id, None, rows.look_ups_of(before, keys))
    return Notice(TAMPERED, text)


def may_be_gone(database: Database, object_id: int, keys: Keys, roster: Roster) -> bool:
    """Whether an object that is not there was removed as may happen without a login."""
    kept = _kept(database, object_id)
    return kept is not None and roster.has(kept, keys) and _may_go(kept, rows.read(kept, keys, 0))


def _may_go(kept: Row, attributes: Attributes) -> bool:
    return not kept[2] and attributes.get(CKA.CLASS) not in GUARDED_CLASSES


def _may_be_renamed(kept: Row, present: Row, keys: Keys, roster: Roster) -> bool:
    """Whether the present row of an object is the one that a login left, but for a label."""
    if present[5] is not None or present[2] or not roster.has(kept, keys):
        return False
    try:
        return _is_renamed(rows.read(kept, keys, 0), rows.read(present, keys, 0))
    except DamagedError:
        return False


def _kept(database: Database, object_id: int) -> Row | None:
    statement = "SELECT object, version, private, record, checksum, mac FROM pending WHERE object = ?"
    return database.row(statement, (object_id,))


def _vouch_for(database: Database, row: Row, attributes: Attributes, keys: Keys, roster: Roster | None) -> None:
    object_id, version, private = row[:3]
    rows.write(database, object_id, version, attributes, keys)
    if roster is not None:
        roster.note(object_id, version, private)
