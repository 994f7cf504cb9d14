"""Finding objects by template: one indexed look-up gives candidates, each of which is then read, checked and compared.

The look-ups alone are never an answer: whoever can write to the file can forge them. A long answer is made in parts, in
the order of the objects' numbers, so that the first of it takes the same time in a store of any size.
"""

from __future__ import annotations

from itertools import islice

from keyfob.spec.constants import CKA, CKO
from keyfob.store.integrity import INDEXED, PUBLIC_INDEX, class_mark, index_digest, values_of
from keyfob.store.rows import FALSE, TRUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from keyfob.store.protocol import Database, Row
    from keyfob.store.record import Attributes
    from keyfob.store.seal import Keys

CERTIFICATE = CKO.CERTIFICATE.to_bytes(8, "little")
BY_DIGEST = """
    SELECT object.id, version, private, record, checksum, mac
    FROM lookup JOIN object ON object.id = lookup.object WHERE lookup.digest = ?
"""
BY_DIGEST_AND_CLASS = BY_DIGEST + "AND lookup.class = ?"
# By number of digests and whether the class is given. UNION ALL takes 1 us less than IN (?, ?).
STATEMENTS = {
    (1, False): BY_DIGEST,
    (2, False): f"{BY_DIGEST} UNION ALL {BY_DIGEST}",
    (1, True): BY_DIGEST_AND_CLASS,
    (2, True): f"{BY_DIGEST_AND_CLASS} UNION ALL {BY_DIGEST_AND_CLASS}",
}
ALL = "SELECT id, version, private, record, checksum, mac FROM object ORDER BY id"

# The same in parts. CROSS JOIN keeps SQLite from walking through all objects; the two halves of a UNION are merged.
PART = """
    SELECT lookup.object AS id, version, private, record, checksum, mac FROM lookup CROSS JOIN object
    WHERE lookup.digest = ? AND lookup.object > ? AND object.id = lookup.object
"""
PART_AND_CLASS = PART + "AND lookup.class = ?"
PARTS = {
    (1, False): f"{PART} ORDER BY 1 LIMIT ?",
    (2, False): f"{PART} UNION ALL {PART} ORDER BY 1 LIMIT ?",
    (1, True): f"{PART_AND_CLASS} ORDER BY 1 LIMIT ?",
    (2, True): f"{PART_AND_CLASS} UNION ALL {PART_AND_CLASS} ORDER BY 1 LIMIT ?",
}
PART_OF_ALL = "SELECT id, version, private, record, checksum, mac FROM object WHERE id > ? ORDER BY id LIMIT ?"
COMMON = (None, CKA.CLASS, CKA.KEY_TYPE)  # a search that starts from one of these may meet any number of objects


def wanted(template: Sequence[tuple[int, bytes]]) -> dict[int, bytes] | None:
    """What is left to compare; None where nothing stored can match: another CKA_TOKEN than true, two values for one."""
    values: dict[int, bytes] = {}
    for attribute, value in template:
        if values.setdefault(attribute, value) != value:
            return None
    if values.pop(CKA.TOKEN, TRUE) != TRUE:
        return None
    return values


def start(values: dict[int, bytes]) -> int | None:
    """The attribute to look up: the most telling indexed one; an empty value, which many objects have, only at need."""
    empty = None
    for attribute in INDEXED:
        value = values.get(attribute)
        if value is None or (attribute == CKA.VALUE and values.get(CKA.CLASS) != CERTIFICATE):
            continue
        if attribute == CKA.ALWAYS_AUTHENTICATE and value != TRUE:
            continue
        if value:
            return attribute
        if empty is None:
            empty = attribute
    return empty


def _digests(attribute: int, values: dict[int, bytes], keys: Keys | None) -> list[tuple[bytes, bytes | None]]:
    """What to look up: digest and class mark, if the class is given; of private objects only with `keys`."""
    private = values.get(CKA.PRIVATE)
    object_class = values.get(CKA.CLASS) if attribute != CKA.CLASS else None
    found = []
    if private != TRUE:
        mark = None if object_class is None else class_mark(PUBLIC_INDEX, object_class)
        found.append((index_digest(PUBLIC_INDEX, attribute, values[attribute]), mark))
    if keys is not None and private != FALSE:
        mark = None if object_class is None else class_mark(keys.index, object_class)
        found.append((index_digest(keys.index, attribute, values[attribute]), mark))
    return found


def candidates(database: Database, attribute: int | None, values: dict[int, bytes], keys: Keys | None) -> Iterator[Row]:
    """Rows that may match, private ones only with `keys`. `attribute`: where to start."""
    if attribute is None:
        return database.rows(ALL)
    digests = _digests(attribute, values, keys)
    if not digests:
        return iter(())
    bound: tuple[bytes, ...] = ()
    for digest, mark in digests:
        bound += (digest,) if mark is None else (digest, mark)
    return database.rows(STATEMENTS[len(digests), mark is not None], bound)


def part(
    database: Database, attribute: int | None, values: dict[int, bytes], keys: Keys | None, after: int, most: int
) -> list[Row]:
    """The first `most` candidates numbered above `after`, by number."""
    if attribute is None:
        return list(database.rows(PART_OF_ALL, (after, most)))
    digests = _digests(attribute, values, keys)
    if not digests:
        return []
    bound: tuple[bytes | int, ...] = ()
    for digest, mark in digests:
        bound += (digest, after) if mark is None else (digest, after, mark)
    return list(database.rows(PARTS[len(digests), mark is not None], (*bound, most)))


def matches(values: dict[int, bytes], attributes: Attributes) -> bool:
    """Whether the object has every one of these values, byte for byte (of e-mail addresses: one of them)."""
    get = attributes.get
    for attribute, value in values.items():
        found = get(attribute)
        if found != value and (found is None or attribute != CKA.NSS_EMAIL or value not in values_of(attribute, found)):
            return False
    return True


def find(
    database: Database,
    template: Sequence[tuple[int, bytes]],
    keys: Keys | None,
    attributes_of: Callable[[Row], Attributes | None],
    most: int | None = None,
) -> set[int]:
    """The numbers of all objects that match, or of the first `most` met.

    `attributes_of` reads a row, None when it is to be left out.
    """
    hits: set[int] = set()
    values = wanted(template)
    if values is None:
        return hits
    for row in candidates(database, start(values), values, keys):
        attributes = attributes_of(row)
        if attributes is not None and matches(values, attributes):
            hits.add(row[0])
            if len(hits) == most:
                break
    return hits


def find_some(
    database: Database,
    template: Sequence[tuple[int, bytes]],
    keys: Keys | None,
    attributes_of: Callable[[Row], Attributes | None],
    after: int,
    most: int,
) -> tuple[list[int], int | None]:
    """Objects that match and are numbered above `after`, ascending: `most` or somewhat more, or all that are left.

    Second: where to go on, or None when none are left. It keeps nothing in between: objects that are made or removed
    meanwhile may or may not be among the rest.
    """
    values = wanted(template)
    if values is None:
        return [], None
    attribute = start(values)
    if after == 0 and attribute not in COMMON:
        # Mostly that is all, for less than parts cost.
        rows = list(islice(candidates(database, attribute, values, keys), most + 1))
        if len(rows) <= most:
            return sorted(_matching(rows, values, attributes_of)), None
    hits: set[int] = set()
    while len(hits) < most:
        rows = part(database, attribute, values, keys, after, most)
        hits |= _matching(rows, values, attributes_of)
        if len(rows) < most:
            return sorted(hits), None
        after = rows[-1][0]
    return sorted(hits), after


def _matching(rows: list[Row], values: dict[int, bytes], attributes_of: Callable[[Row], Attributes | None]) -> set[int]:
    hits = set()
    for row in rows:
        attributes = attributes_of(row)
        if attributes is not None and matches(values, attributes):
            hits.add(row[0])
    return hits
