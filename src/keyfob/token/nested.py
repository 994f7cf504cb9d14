"""Attributes whose values are templates (CKA_WRAP_TEMPLATE and its kin), as the bytes that objects keep.

C has an array of CK_ATTRIBUTE there, full of addresses. Kept are the attributes themselves, each as its type and its
length (8 bytes each, little-endian) and its value, ascending by type: equal templates are equal bytes, so that they are
found, compared and stored as any other value. A template in a template is kept in the same way.
"""

from __future__ import annotations

from itertools import pairwise
from struct import Struct

from keyfob.spec.constants import CKA, CKR
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TEMPLATES = frozenset(
    (
        CKA.WRAP_TEMPLATE,
        CKA.UNWRAP_TEMPLATE,
        CKA.DERIVE_TEMPLATE,
        CKA.ENCAPSULATE_TEMPLATE,
        CKA.DECAPSULATE_TEMPLATE,
    )
)
HEAD = Struct("<QQ")

Attributes = dict[int, bytes]


def pack(template: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(HEAD.pack(attribute, len(value)) + value for attribute, value in template)


def unpack(packed: bytes) -> list[tuple[int, bytes]]:
    """The attributes in their order; CKR_ATTRIBUTE_VALUE_INVALID for bytes that no template gives."""
    found = []
    start = 0
    while start < len(packed):
        end = start + HEAD.size
        if end > len(packed):
            raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "not a template")
        attribute, length = HEAD.unpack_from(packed, start)
        start = end + length
        if start > len(packed):
            raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "not a template")
        found.append((attribute, packed[end:start]))
    return found


def normal(template: Iterable[tuple[int, bytes]]) -> bytes:
    """In order and each attribute once; CKR_TEMPLATE_INCONSISTENT where one has two values."""
    ordered = sorted(set(template))
    for (attribute, _), (following, _) in pairwise(ordered):
        if attribute == following:
            raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "a template in a template has two values for one attribute")
    return pack(ordered)


def attributes_of(packed: bytes | None) -> Attributes:
    """What an object's template demands; nothing where it has none."""
    return dict(unpack(packed)) if packed else {}
