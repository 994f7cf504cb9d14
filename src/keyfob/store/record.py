"""How an object's attributes become one record, and back: the only format of objects on disk.

    1 byte    format, 0x01
    2 bytes   number of attributes, n
    n times   4 bytes CKA_*, 4 bytes length of its value; ascending by CKA_*, so that equal objects are equal bytes
    the values, in the same order, without gaps

All numbers are little-endian. A sealed record (seal.py) starts with 0x81 instead, so neither is taken for the other.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Attributes = dict[int, bytes]

FORMAT = 0x01
HEAD = Struct("<BH")
PAIR = Struct("<II")
MAX_ATTRIBUTES = 0xFFFF
MAX_NUMBER = 0xFFFF_FFFF


def encode(attributes: Mapping[int, bytes]) -> bytes:
    """The record of these attributes; ValueError for a CKA_* beyond 32 bits or more than 65,535 attributes."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise ValueError(f"{len(attributes)} attributes do not fit a record")
    numbers: list[int] = []
    parts = [b""]
    for attribute in sorted(attributes):
        value = attributes[attribute]
        if not 0 <= attribute <= MAX_NUMBER or len(value) > MAX_NUMBER:
            raise ValueError(f"attribute 0x{attribute:x} does not fit a record")
        numbers += (attribute, len(value))
        parts.append(value)
    parts[0] = HEAD.pack(FORMAT, len(attributes)) + Struct(f"<{len(numbers)}I").pack(*numbers)
    return b"".join(parts)


def decode(record: bytes) -> Attributes:
    """The attributes of a record; ValueError unless it is exactly what `encode` would have written."""
    if len(record) < HEAD.size:
        raise ValueError("the record is cut off")
    form, count = HEAD.unpack_from(record)
    if form != FORMAT:
        raise ValueError(f"the record has the unknown format 0x{form:02x}")
    start = HEAD.size + PAIR.size * count
    if len(record) < start:
        raise ValueError("the record is cut off")
    attributes: Attributes = {}
    last = -1
    for attribute, length in PAIR.iter_unpack(record[HEAD.size : start]):
        if attribute <= last:
            raise ValueError("the record's attributes are not in order")
        last = attribute
        end = start + length
        attributes[attribute] = record[start:end]
        start = end
    if start != len(record):
        raise ValueError("the record's length does not fit its attributes")
    return attributes
