"""Finding objects by template: one indexed look-up gives candidates, each of which is then read, checked and compared.

The look-ups alone are never an answer: whoever can write to the file can forge them. The answer is made in parts, in
the order of the objects' numbers, so that the first of it takes the same time in a store of any size.
"""

from __future__ import annotations

from keyfob.spec.constants import CKA, CKO, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store.integrity import INDEXED, PUBLIC_INDEX, class_mark, index_digest, values_of
from keyfob.store.rows import FALSE, TRUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyfob.store.integrity import Hasher
    from keyfob.store.protocol import Database, Row
    from keyfob.store.record import Attributes, Record
    from keyfob.store.seal import Keys

    Template = Sequence[tuple[int, bytes]]
    Reader = Callable[[Row], Attributes | Record | None]

CERTIFICATE = CKO.CERTIFICATE.to_bytes(8, "little")
ROWS = """
    SELECT lookup.object AS id, version, private, record, checksum, mac FROM lookup CROSS JOIN object
    WHERE lookup.digest = ? AND lookup.object > ? AND object.id = lookup.object
"""
NUMBERS = "SELECT lookup.object AS id FROM lookup WHERE lookup.digest = ? AND lookup.object > ?"


def _statements(half: str) -> dict[tuple[int, bool], str]:
    """By the number of digests and whether the class is given."""
    by_class = f"{half} AND lookup.class = ?"
    # The look-ups are in the order of the objects anyway, and the halves of a UNION ALL are merged.
    return {
        (1, False): f"{half} ORDER BY 1 LIMIT ?",
        (2, False): f"{half} UNION ALL {half} ORDER BY 1 LIMIT ?",
        (1, True): f"{by_class} ORDER BY 1 LIMIT ?",
        (2, True): f"{by_class} UNION ALL {by_class} ORDER BY 1 LIMIT ?",
    }


FIND_ROWS = _statements(ROWS)  # CROSS JOIN keeps SQLite from walking through all objects instead
FIND_NUMBERS = _statements(NUMBERS)
ALL = "SELECT id, version, private, record, checksum, mac FROM object WHERE id > ? ORDER BY id LIMIT ?"
OCCURS = "SELECT 1 FROM lookup WHERE digest = ? LIMIT 1"
MOST_PLANS = 64
RANKS = {attribute: rank for rank, attribute in enumerate(INDEXED)}


def wanted(template: Template) -> dict[int, bytes] | None:
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
    best, lowest = None, 2 * len(INDEXED)
    for attribute, value in values.items():
        rank = RANKS.get(attribute)
        if rank is None:
            continue
        if not value:
            rank += len(INDEXED)
        if rank < lowest and _is_indexed(attribute, value, values):
            best, lowest = attribute, rank
    return best


def _is_indexed(attribute: int, value: bytes, values: dict[int, bytes]) -> bool:
    """Of attributes that are not indexed wherever they occur: whether it is among these."""
    if attribute == CKA.VALUE:
        return values.get(CKA.CLASS) == CERTIFICATE
    return attribute != CKA.ALWAYS_AUTHENTICATE or value == TRUE


def matches(values: dict[int, bytes], attributes: Attributes | Record) -> bool:
    """Whether the object has every one of these values, byte for byte (of e-mail addresses: one of them)."""
    get = attributes.get
    for attribute, value in values.items():
        found = get(attribute)
        if found != value and (found is None or attribute != CKA.NSS_EMAIL or value not in values_of(attribute, found)):
            return False
    return True


class Plan:
    """How to find what fits templates of one kind.

    `attribute`: where to start; None: with all objects. `halves`: what makes its digest, for public and for private
    objects where there are any, and what is bound after it. `rows` and `numbers`: the statement that gives the rows,
    or the numbers alone; None where no object can fit.
    """

    __slots__ = ("attribute", "halves", "numbers", "rows")

    def __init__(self, attribute: int | None, halves: list[tuple[Hasher, tuple[bytes, ...]]]) -> None:
        self.attribute = attribute
        self.halves = halves
        self.rows: str | None = None
        self.numbers: str | None = None
        if attribute is None:
            self.rows = self.numbers = ALL
        elif halves:
            which = len(halves), bool(halves[0][1])
            self.rows, self.numbers = FIND_ROWS[which], FIND_NUMBERS[which]

    def bound(self, values: dict[int, bytes], after: int, most: int) -> tuple[bytes | int, ...]:
        """What the statement is given for `most` rows above `after`."""
        attribute = self.attribute
        if attribute is None:
            return after, most
        value = values[attribute]
        bound: tuple[bytes | int, ...] = ()
        for hasher, rest in self.halves:
            bound += (index_digest(hasher, attribute, value), after, *rest)
        return (*bound, most)


class Finder:
    """Finds objects in one store. Within the store's lock; `forget` whenever objects may have been written."""

    __slots__ = ("_database", "_plans")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._plans: dict[tuple[object, ...], Plan] = {}

    def forget(self) -> None:
        self._plans = {}

    def find_some(
        self, template: Template, keys: Keys | None, read: Reader, after: int, most: int, *, by_number: bool
    ) -> tuple[list[int], int | None]:
        """Objects that match and are numbered above `after`, ascending: `most` or somewhat more, or all that are left.

        Private ones only with `keys`. `read` gives a row's attributes, None when it is to be left out; `by_number`: it
        needs no more of a row than the object's number. Second: where to go on, or None when none are left. It keeps
        nothing in between: objects that are made or removed meanwhile may or may not be among the rest.
        """
        hits: list[int] = []
        values = wanted(template)
        if values is None:
            return hits, None
        plan = self._plan(values, keys)
        statement = plan.numbers if by_number else plan.rows
        if statement is None:
            return hits, None
        while len(hits) < most:
            rows = list(self._database.rows(statement, plan.bound(values, after, most)))
            before = after
            for row in rows:
                number = row[0]
                if number.__class__ is not int or number < after or number == before:
                    # A b-tree that leads back, or stays where it is: it would be gone through for ever.
                    raise PKCS11Error(CKR.DEVICE_ERROR, "damaged: the numbers of objects are not in order")
                if number == after:  # forged look-ups can lead to an object twice
                    continue
                after = number
                attributes = read(row)
                if attributes is not None and matches(values, attributes):
                    hits.append(after)
            if len(rows) < most:
                return hits, None
        return hits, after

    def _plan(self, values: dict[int, bytes], keys: Keys | None) -> Plan:
        """Mostly one that was made before for a template of this kind, as long as nobody has written since."""
        get = values.get
        kind = (keys, get(CKA.CLASS), get(CKA.PRIVATE), get(CKA.ALWAYS_AUTHENTICATE), *values)
        plan = self._plans.get(kind)
        if plan is None or (plan.attribute is not None and not values[plan.attribute]):
            plan = self._new_plan(values, keys)
            if all(values.values()):  # an empty one can change where to start
                if len(self._plans) >= MOST_PLANS:
                    self._plans = {}
                self._plans[kind] = plan
        return plan

    def _new_plan(self, values: dict[int, bytes], keys: Keys | None) -> Plan:
        attribute = start(values)
        private, object_class = values.get(CKA.PRIVATE), values.get(CKA.CLASS)
        halves: list[tuple[Hasher, tuple[bytes, ...]]] = []
        for hasher, flag in ((PUBLIC_INDEX, FALSE), (keys.index if keys is not None else None, TRUE)):
            if hasher is None or private not in (None, flag):
                continue
            if object_class is None:
                halves.append((hasher, ()))
            # Few tokens have private certificates, or private keys that are public: one half is mostly enough.
            elif self._database.row(OCCURS, (index_digest(hasher, CKA.CLASS, object_class),)) is not None:
                halves.append((hasher, () if attribute == CKA.CLASS else (class_mark(hasher, object_class),)))
        return Plan(attribute, halves)
