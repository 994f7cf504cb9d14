"""How an object's attributes become one record, and back: the only format of objects on disk.

    1 byte    format, 0x01
    2 bytes   number of attributes, n
    n times   4 bytes CKA_*, 4 bytes length of its value; ascending by CKA_*, so that equal objects are equal bytes
    the values, in the same order, without gaps

All numbers are little-endian. A sealed record (seal.py) starts with 0x81 instead, so neither is taken for the other.
"""

from __future__ import annotations

from itertools import pairwise
from struct import Struct

from keyfob._held import Secret, hold
from keyfob.spec.traits import SECRETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    Known = TypeVar("Known")
    Learnt = TypeVar("Learnt")

Attributes = dict[int, bytes]

FORMAT = 0x01
HEAD = Struct("<BH")
PAIR = Struct("<II")
MAX_ATTRIBUTES = 0xFFFF
MAX_NUMBER = 0xFFFF_FFFF
MAX_RECORD = 0x7FFF_FFFF


def encode(attributes: Mapping[int, bytes]) -> bytes:
    """The record of these attributes; ValueError for a CKA_* beyond 32 bits or more than 65,535 attributes."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise ValueError(f"{len(attributes)} attributes do not fit a record")
    table = [HEAD.pack(FORMAT, len(attributes))]
    values = []
    for attribute in sorted(attributes):
        value = attributes[attribute]
        if not 0 <= attribute <= MAX_NUMBER or len(value) > MAX_RECORD:
            raise ValueError(f"attribute 0x{attribute:x} does not fit a record")
        table.append(PAIR.pack(attribute, len(value)))
        values.append(value)
    return b"".join(table + values)


class Record:
    """A record that is exactly what `encode` would have written, ValueError otherwise. `get` takes out one attribute.

    A search compares one or two attributes of an object that nobody may ever ask about again: to make the dict of all
    would take as long as everything else about it.
    """

    __slots__ = ("_data", "_shape")

    def __init__(self, data: bytes) -> None:
        self._shape = _shape_of(data)
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def get(self, attribute: int) -> bytes | None:
        """The attribute's value, None if there is none; as a dict of the attributes has it."""
        place = self._shape.places.get(attribute) or self._shape.find(attribute)
        return None if place is None else self._data[place]

    def attributes(self) -> Attributes:
        shape = self._shape
        if shape.values is None:
            shape.values = Struct("".join([f"{length}s" for length in shape.lengths]))
        found = dict(zip(shape.positions, shape.values.unpack_from(self._data, shape.start), strict=True))
        if isinstance(self._data, Secret):
            for attribute in SECRETS:
                if attribute in found:
                    found[attribute] = hold(found[attribute])
        return found


def decode(record: bytes) -> Attributes:
    """The attributes of a record; ValueError unless it is exactly what `encode` would have written."""
    return Record(record).attributes()


class Shape:
    """What a record's head and table say. Objects of one kind often share it, and mostly their attributes' `positions`.

    `start`: of the values; `size`: of the whole record; `values`: the layout of all values, once it was needed;
    `places`: where single values stand, likewise.
    """

    __slots__ = ("lengths", "places", "positions", "size", "start", "values")

    def __init__(self, positions: dict[int, int], lengths: tuple[int, ...], start: int) -> None:
        self.positions = positions
        self.lengths = lengths
        self.start = start
        self.size = start + sum(lengths)
        self.values: Struct | None = None
        self.places: dict[int, slice] = {}

    def find(self, attribute: int) -> slice | None:
        position = self.positions.get(attribute)
        if position is None:
            return None
        start = self.start + sum(self.lengths[:position])
        place = self.places[attribute] = slice(start, start + self.lengths[position])
        return place


# Worked out once, until there are too many: by head and table, by attributes, by number of attributes.
_shapes: dict[bytes, Shape] = {}
_positions: dict[tuple[int, ...], dict[int, int]] = {}
_tables: dict[int, Struct] = {}
MOST_SHAPES = 512
MOST_KINDS = 128


def _shape_of(record: bytes) -> Shape:
    start = HEAD.size + PAIR.size * int.from_bytes(record[1:3], "little")
    shape = _shapes.get(record[:start]) or _learn(record[:start], start)
    if shape.size != len(record):
        raise ValueError("the record's length does not fit its attributes")
    return shape


def _learn(table: bytes, start: int) -> Shape:
    if len(table) != start:
        raise ValueError("the record is cut off")
    form, count = HEAD.unpack_from(table)
    if form != FORMAT:
        raise ValueError(f"the record has the unknown format 0x{form:02x}")
    layout = _tables.get(count)
    if layout is None:
        layout = _kept(_tables, MOST_KINDS, count, Struct(f"<{2 * count}I"))
    numbers = layout.unpack_from(table, HEAD.size)
    attributes = numbers[::2]
    positions = _positions.get(attributes)
    if positions is None:
        if any(later <= earlier for earlier, later in pairwise(attributes)):
            raise ValueError("the record's attributes are not in order")
        positions = {attribute: position for position, attribute in enumerate(attributes)}
        _kept(_positions, MOST_KINDS, attributes, positions)
    return _kept(_shapes, MOST_SHAPES, table, Shape(positions, numbers[1::2], start))


def _kept(memory: dict[Known, Learnt], most: int, known: Known, learnt: Learnt) -> Learnt:
    if len(memory) >= most:
        memory.clear()
    memory[known] = learnt
    return learnt
