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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

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


def decode(record: bytes) -> Attributes:
    """The attributes of a record; ValueError unless it is exactly what `encode` would have written."""
    if len(record) < HEAD.size:
        raise ValueError("the record is cut off")
    form, count = HEAD.unpack_from(record)
    if form != FORMAT:
        raise ValueError(f"the record has the unknown format 0x{form:02x}")
    start = HEAD.size + PAIR.size * count
    table = record[HEAD.size : start]
    shape = _shapes.get(table)
    if shape is None:
        shape = _learn(table, count)
    attributes, values = shape
    if start + values.size != len(record):
        raise ValueError("the record's length does not fit its attributes")
    return dict(zip(attributes, values.unpack_from(record, start), strict=True))


# Objects of one kind mostly have the same table of attributes and lengths. What it says is worked out once, which makes
# `decode` three times as fast: the table -> (attributes, their values' layout).
_shapes: dict[bytes, tuple[tuple[int, ...], Struct]] = {}
MOST_SHAPES = 512


def _learn(table: bytes, count: int) -> tuple[tuple[int, ...], Struct]:
    if len(table) != PAIR.size * count:
        raise ValueError("the record is cut off")
    pairs = list(PAIR.iter_unpack(table))
    attributes = tuple(attribute for attribute, _ in pairs)
    if any(later <= earlier for earlier, later in pairwise(attributes)):
        raise ValueError("the record's attributes are not in order")
    if sum(length for _, length in pairs) > MAX_RECORD:
        raise ValueError("the record's length does not fit its attributes")
    shape = (attributes, Struct("".join(f"{length}s" for _, length in pairs)))
    if len(_shapes) >= MOST_SHAPES:
        _shapes.clear()
    _shapes[table] = shape
    return shape
