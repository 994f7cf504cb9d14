"""Checksums, MACs and look-up digests: everything about a row that can be computed without opening a sealed record.

All of it is BLAKE2b (RFC 7693) with 16 bytes of output, unkeyed or keyed, kept apart by its personalisation parameter.
It comes from CPython's own module: hashlib would pull the system's libcrypto into the host, and `cryptography` takes
tens of milliseconds to import, for which nobody should wait who only reads the public part of a token.
"""

from __future__ import annotations

from _blake2 import blake2b
from _operator import _compare_digest as same_digest
from struct import Struct

from keyfob.spec.constants import CKA, CKO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = 16
MARK_SIZE = 4
MOST_MARKS = 32
PLACE = Struct("<QQB")  # object's number, version, private flag
ATTRIBUTE = Struct("<I")
CERTIFICATE = CKO.CERTIFICATE.to_bytes(8, "little")

__all__ = [
    "INDEXED",
    "Hasher",
    "class_mark",
    "index_digest",
    "keyed",
    "look_ups",
    "same_digest",
    "tag_of_meta",
    "tag_of_object",
    "values_of",
]

# Objects are numbered from 1 to below this: a handle holds the number in its lower 32 bits (token/objects.py).
NUMBERS = 1 << 32
# What searches can start from, the most telling first. CKA_VALUE only of certificates: the others keep it secret.
# CKA_ALWAYS_AUTHENTICATE only where it is true: few keys have it, and NSS's every signature asks whether any has (P5).
INDEXED = (
    CKA.UNIQUE_ID,
    CKA.VALUE,
    CKA.MODULUS,
    CKA.EC_POINT,
    CKA.ID,
    CKA.SERIAL_NUMBER,
    CKA.NSS_EMAIL,
    CKA.SUBJECT,
    CKA.LABEL,
    CKA.OBJECT_ID,
    CKA.APPLICATION,
    CKA.ISSUER,
    CKA.ALWAYS_AUTHENTICATE,
    CKA.KEY_TYPE,
    CKA.CLASS,
)


class Hasher:
    """A hash with its purpose and key taken in already; each use starts from a copy, which costs 0.4 us less."""

    __slots__ = ("_start", "marks")

    def __init__(self, purpose: bytes, key: bytes | bytearray = b"") -> None:
        self._start = blake2b(digest_size=SIZE, person=purpose, key=key)
        self.marks: dict[bytes, bytes] = {}  # of classes, see class_mark

    def __call__(self, data: bytes) -> bytes:
        state = self._start.copy()
        state.update(data)
        return state.digest()

    def append_to(self, row: bytes) -> bytes:
        """The row with its digest behind it, as small files are kept."""
        return row + self(row)

    def take_off(self, content: bytes) -> bytes | None:
        """The row that `append_to` was given; None where this is not what it gave."""
        row = content[:-SIZE]
        return row if same_digest(self(row), content[-SIZE:]) else None


def keyed(purpose: bytes, key: bytes | bytearray, size: int = 32) -> bytes:
    """`size` bytes derived from a key for one purpose (at most 16 bytes of name)."""
    return blake2b(digest_size=size, person=purpose, key=key).digest()


OBJECT_CHECKSUM = Hasher(b"keyfob object")
META_CHECKSUM = Hasher(b"keyfob meta")
PUBLIC_INDEX = Hasher(b"keyfob index")


def tag_of_object(hasher: Hasher, object_id: int, version: int, private: int, record: bytes) -> bytes:
    """Checksum or MAC of an object's row. struct.error or TypeError when damage left no such values in the row."""
    return hasher(PLACE.pack(object_id, version, private) + record)


def tag_of_meta(hasher: Hasher, name: str, value: bytes) -> bytes:
    """Checksum or MAC of a row of the meta table."""
    encoded = name.encode()
    return hasher(len(encoded).to_bytes(1, "little") + encoded + value)


def index_digest(hasher: Hasher, attribute: int, value: bytes) -> bytes:
    """What the look-up table knows of an attribute; keyed for private objects, so that nobody can try values on it.

    The attribute's number goes into the digest rather than into a column: smaller, and it tells a reader less.
    """
    return hasher(ATTRIBUTE.pack(attribute) + value)


def class_mark(hasher: Hasher, object_class: bytes) -> bytes:
    """The object's class in each of its look-up rows, so that a search for a key with an ID skips its certificate."""
    mark = hasher.marks.get(object_class)
    if mark is None:
        mark = index_digest(hasher, CKA.CLASS, object_class)[:MARK_SIZE]
        if len(hasher.marks) < MOST_MARKS:
            hasher.marks[object_class] = mark
    return mark


def values_of(attribute: int, value: bytes) -> tuple[bytes, ...] | list[bytes]:
    """What an attribute's value is found by: of CKA_NSS_EMAIL each address, which NUL separates, too."""
    return (value,) if attribute != CKA.NSS_EMAIL or b"\0" not in value else [value, *value.split(b"\0")]


def look_ups(hasher: Hasher, attributes: Mapping[int, bytes]) -> set[tuple[bytes, bytes]]:
    """The (digest, class mark) under which an object with these attributes is found."""
    object_class = attributes.get(CKA.CLASS, b"")
    mark = class_mark(hasher, object_class)
    return {
        (index_digest(hasher, attribute, value), mark)
        for attribute in INDEXED
        if attribute in attributes
        and (attribute != CKA.VALUE or object_class == CERTIFICATE)
        and (attribute != CKA.ALWAYS_AUTHENTICATE or attributes[attribute] == b"\x01")
        for value in values_of(attribute, attributes[attribute])
    }
