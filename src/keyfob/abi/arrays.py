"""Arrays of attributes as the value of an attribute (CKA_WRAP_TEMPLATE and its kin), from C and to C.

Addresses inside the caller's array are followed, so everything about it is bounded: how many attributes it has in all,
how deep templates lie in templates, and how many bytes they hold.
"""

from __future__ import annotations

from keyfob._abi import ffi
from keyfob.spec.constants import CK, CKR
from keyfob.spec.errors import PKCS11Error, name_of
from keyfob.token import nested
from keyfob.token.nested import TEMPLATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Data = Any  # a C pointer as cffi hands it over

MOST_ATTRIBUTES = 256
MOST_BYTES = 1 << 20
DEEPEST = 3
SIZE = ffi.sizeof("CK_ATTRIBUTE")
UNAVAILABLE = CK.UNAVAILABLE_INFORMATION

cast = ffi.cast
memmove = ffi.memmove
unpack = ffi.unpack
WORDS = ffi.typeof("CK_ULONG *")
BYTES = ffi.typeof("char *")


class Reader:
    """Reads one array with all that lies in it."""

    __slots__ = ("_attributes", "_bytes")

    def __init__(self) -> None:
        self._attributes = MOST_ATTRIBUTES
        self._bytes = MOST_BYTES

    def read(self, address: int, length: int, depth: int = DEEPEST) -> bytes:
        """The `length` bytes of CK_ATTRIBUTEs as token/nested.py keeps them, in the caller's order."""
        count, rest = divmod(length, SIZE)
        self._attributes -= count
        if rest or not depth or self._attributes < 0:
            raise PKCS11Error(
                CKR.ATTRIBUTE_VALUE_INVALID, "no array of attributes, or one that is too large or too deep"
            )
        words = unpack(cast(WORDS, address), 3 * count)
        triples = (words[i : i + 3] for i in range(0, 3 * count, 3))
        return nested.pack((kind, self._value(kind, where, size, depth)) for kind, where, size in triples)

    def _value(self, attribute: int, address: int, length: int, depth: int) -> bytes:
        if not length:
            return b""
        self._bytes -= length
        if not address or self._bytes < 0:
            raise PKCS11Error(
                CKR.ATTRIBUTE_VALUE_INVALID, f"{name_of('CKA', attribute)} in a template has no value or too much of it"
            )
        if attribute in TEMPLATES:
            return self.read(address, length, depth - 1)
        value: bytes = unpack(cast(BYTES, address), length)
        return value


def give(packed: bytes, triple: Data) -> int:
    """Fill in the caller's CK_ATTRIBUTE (its three words) by C_GetAttributeValue's rules for arrays of attributes."""
    held = nested.unpack(packed)
    address, room, size = triple[1], triple[2], SIZE * len(held)
    if address and room < size:
        triple[2] = UNAVAILABLE
        return CKR.BUFFER_TOO_SMALL
    triple[2] = size
    rv = CKR.OK
    if address:
        within = cast(WORDS, address)
        for i, (attribute, value) in enumerate(held):
            rv = _give_one(attribute, value, within + 3 * i) or rv
    return rv


def _give_one(attribute: int, value: bytes, triple: Data) -> int:
    """The type is set, whatever it was; a NULL pointer asks for the length."""
    triple[0] = attribute
    if attribute in TEMPLATES:
        return give(value, triple)
    if triple[1]:
        if triple[2] < len(value):
            triple[2] = UNAVAILABLE
            return CKR.BUFFER_TOO_SMALL
        memmove(cast(BYTES, triple[1]), value, len(value))
    triple[2] = len(value)
    return CKR.OK
