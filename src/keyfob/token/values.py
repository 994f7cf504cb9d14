"""What C_GetAttributeValue and C_FindObjects take for an object's attributes: what it holds, and what it need not hold.

An attribute that follows from the others, or whose default the standard says is empty, is answered without being
stored; objects of older tokens lack some that are stored today. Searches ask here, too, so that whatever is answered is
found. An attribute that the object's class and key type do not have is none: it is never answered as an empty value.
"""

from __future__ import annotations

from keyfob.mechanisms import check_value
from keyfob.spec.constants import CKA
from keyfob.spec.traits import EMPTY_BY_DEFAULT
from keyfob.token.object import number
from keyfob.token.templates import rows_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.token.object import Object

# What objects have without holding it, so that a search cannot compare what is stored. Other empty defaults are stored
# with every object (templates.py).
NOT_STORED = frozenset(
    (
        CKA.CHECK_VALUE,
        CKA.PUBLIC_KEY_INFO,
        CKA.URL,
        CKA.HASH_OF_SUBJECT_PUBLIC_KEY,
        CKA.HASH_OF_ISSUER_PUBLIC_KEY,
    )
)


def value_of(found: Object, attribute: int) -> bytes | None:
    """The attribute's value, or None where the object has no such attribute. Whether it is secret, the caller asks."""
    attributes = found.attributes
    value = attributes.get(attribute)
    if value is not None:
        return value
    if attribute == CKA.CHECK_VALUE:
        return None if found.veiled else check_value(attributes)
    is_key = CKA.KEY_TYPE in attributes
    if is_key and not found.veiled:
        value = found.key.computed(attribute)
        if value is not None:
            return value
    if attribute not in EMPTY_BY_DEFAULT:
        return None
    key_type = number(attributes[CKA.KEY_TYPE]) if is_key else None
    return b"" if attribute in rows_of(number(attributes[CKA.CLASS]), key_type) else None


def not_stored(wanted: dict[int, bytes]) -> dict[int, bytes]:
    """The part of a search's template that `value_of` has to compare, object by object."""
    if NOT_STORED.isdisjoint(wanted):
        return {}
    return {a: v for a, v in wanted.items() if a == CKA.CHECK_VALUE or (a in NOT_STORED and not v)}


def has(found: Object, wanted: dict[int, bytes]) -> bool:
    return all(value_of(found, attribute) == value for attribute, value in wanted.items())
