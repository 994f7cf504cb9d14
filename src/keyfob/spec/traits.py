"""What the standard's tables say of attributes, where code needs it too often to read the tables.

tests/spec/test_traits.py holds SECRETS against them; the empty defaults stand in their prose.
"""

from __future__ import annotations

from keyfob.spec.constants import CKA, CKO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Footnote 7: what a key does not tell while it is sensitive or unextractable.
SECRETS = frozenset(
    (
        *(CKA.VALUE, CKA.SEED, CKA.PRIVATE_EXPONENT, CKA.PRIME_1, CKA.PRIME_2),
        *(CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT),
    )
)
CLASSES_WITH_SECRETS = tuple(number.to_bytes(8, "little") for number in (CKO.PRIVATE_KEY, CKO.SECRET_KEY))
# Whose default is to be empty, of every object that can have them.
EMPTY_BY_DEFAULT = frozenset(
    (
        *(CKA.LABEL, CKA.APPLICATION, CKA.OBJECT_ID, CKA.ID, CKA.SUBJECT, CKA.ISSUER, CKA.SERIAL_NUMBER),
        *(CKA.START_DATE, CKA.END_DATE, CKA.PUBLIC_KEY_INFO, CKA.URL),
        *(CKA.HASH_OF_SUBJECT_PUBLIC_KEY, CKA.HASH_OF_ISSUER_PUBLIC_KEY),
    )
)


def has_secrets(attributes: Mapping[int, bytes]) -> bool:
    """Whether it is a private or secret key: in others, CKA_VALUE is for all to see."""
    return attributes.get(CKA.CLASS) in CLASSES_WITH_SECRETS


def hides(attributes: Mapping[int, bytes]) -> bool:
    """Footnote 7: whether it is a key that does not reveal its secret attributes."""
    return has_secrets(attributes) and (
        attributes.get(CKA.SENSITIVE) == b"\x01" or attributes.get(CKA.EXTRACTABLE) != b"\x01"
    )
