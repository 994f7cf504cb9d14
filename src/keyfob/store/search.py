"""Finding objects by template: one indexed look-up gives candidates, each of which is then compared as a whole."""

from __future__ import annotations

from keyfob.spec.constants import CKA, CKO
from keyfob.store.integrity import INDEXED, PUBLIC_INDEX, class_mark, index_digest, values_of
from keyfob.store.rows import FALSE, TRUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from keyfob.store.database import Database, Row
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


def candidates(database: Database, values: dict[int, bytes], keys: Keys | None) -> Iterator[Row]:
    """Rows that may match, private ones only with `keys`."""
    attribute = start(values)
    if attribute is None:
        return database.rows(ALL)
    private = values.get(CKA.PRIVATE)
    object_class = values.get(CKA.CLASS) if attribute != CKA.CLASS else None
    hashers = []
    if private != TRUE:
        hashers.append(PUBLIC_INDEX)
    if keys is not None and private != FALSE:
        hashers.append(keys.index)
    if not hashers:
        return iter(())
    bound: list[bytes] = []
    for hasher in hashers:
        bound.append(index_digest(hasher, attribute, values[attribute]))
        if object_class is not None:
            bound.append(class_mark(hasher, object_class))
    return database.rows(STATEMENTS[len(hashers), object_class is not None], tuple(bound))


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
    for row in candidates(database, values, keys):
        attributes = attributes_of(row)
        if attributes is not None and matches(values, attributes):
            hits.add(row[0])
            if len(hits) == most:
                break
    return hits
