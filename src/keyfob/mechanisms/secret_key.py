"""Secret keys: what their CKA_VALUE may be, how a new one is made, and how operations reach the value.

Used by every symmetric family; imports no cryptography. A value or CKA_VALUE_LEN that the key type does not allow is
CKR_ATTRIBUTE_VALUE_INVALID, the code that C_CreateObject, C_GenerateKey, C_UnwrapKey and C_DeriveKey have in common; a
key that an operation cannot use because of its length is CKR_KEY_SIZE_RANGE.
"""

from __future__ import annotations

import os

from keyfob.mechanisms.base import Attributes, Key
from keyfob.spec.constants import CKA, CKR
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, ClassVar, TypeVar

    Made = TypeVar("Made")

# The longest generic secret; far above any use, and small enough that a hostile CKA_VALUE_LEN costs nothing.
MAX_BYTES = 65536
# Shorter secrets can be found by trying: 112 bits (SP 800-131A).
SHORTEST_SECRET = 14


def ulong(value: int) -> bytes:
    """A CK_ULONG as an attribute or a raw parameter holds it: 8 bytes, little-endian."""
    return value.to_bytes(8, "little")


def number(value: bytes) -> int:
    """The int of a CK_ULONG."""
    return int.from_bytes(value, "little")


class SecretKey(Key):
    """A CKO_SECRET_KEY whose value is at hand. Subclasses say which lengths their key type has."""

    __slots__ = ()

    LENGTHS: ClassVar[range | tuple[int, ...]] = range(1, MAX_BYTES + 1)
    # Whether the type has the attribute CKA_VALUE_LEN (types of one fixed length have not).
    HAS_VALUE_LEN: ClassVar[bool] = True
    # Where the value is several keys side by side: the bits of one, which can be found by itself once the others are
    # known or stay the same. 0: the value works as a whole. No default, so that every type says.
    PART_BITS: ClassVar[int]

    @classmethod
    def complete(cls, attributes: Attributes) -> Attributes:
        value = attributes.get(CKA.VALUE)
        if value is None:
            raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "a secret key needs CKA_VALUE")
        if len(value) not in cls.LENGTHS:
            raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, f"a key of this type cannot have {len(value)} bytes")
        if CKA.VALUE_LEN in attributes and number(attributes[CKA.VALUE_LEN]) != len(value):
            raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "CKA_VALUE_LEN is not the length of CKA_VALUE")
        return cls.stored(value)

    @classmethod
    def stored(cls, value: bytes) -> Attributes:
        """The attributes that follow from a value of right length."""
        normal = cls.normal(value)
        return {CKA.VALUE: normal, CKA.VALUE_LEN: ulong(len(normal))} if cls.HAS_VALUE_LEN else {CKA.VALUE: normal}

    @classmethod
    def same(cls, attribute: int, value: bytes, attributes: Mapping[int, bytes]) -> bool:
        return attribute == CKA.VALUE and cls.normal(value) == attributes[CKA.VALUE]

    @classmethod
    def normal(cls, value: bytes) -> bytes:
        """The value as it is kept (DES sets parity bits)."""
        return value

    @classmethod
    def value_length(cls, template: Mapping[int, bytes]) -> int | None:
        """The length in bytes that a template asks for: its CKA_VALUE_LEN, or the type's only one; None: not said."""
        if CKA.VALUE_LEN in template:
            length = number(template[CKA.VALUE_LEN])
            if length not in cls.LENGTHS:
                raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, f"a key of this type cannot have {length} bytes")
            return length
        return cls.LENGTHS[0] if len(cls.LENGTHS) == 1 else None

    def check_value(self) -> bytes | None:
        """CKA_CHECK_VALUE, 3 bytes; of generic secrets from SHA-1 (section 6.8.2). None: it has none.

        It must not tell any part of the value (section 4.10.2), so a secret that can be found by trying has none.
        """
        from keyfob.mechanisms.hashes import sha1

        value = secret_value(self)
        return sha1(value)[:3] if len(value) >= SHORTEST_SECRET else None


class GenericSecretKey(SecretKey):
    """CKK_GENERIC_SECRET, CKK_HKDF and the CKK_*_HMAC: any bytes."""

    __slots__ = ()
    PART_BITS = 0


def secret_value(key: Key) -> bytes:
    """The key's bytes."""
    value = key.attributes.get(CKA.VALUE)
    if value is None:
        raise PKCS11Error(CKR.KEY_HANDLE_INVALID, "the value of this key is not at hand")
    return value


def prepared(key: Key, use: object, make: Callable[[bytes], Made]) -> Made:
    """What `make` makes of the key's bytes for this use, made once per key: setting up costs more than a short message.

    Two threads may both make it; either result serves.
    """
    cache: dict[object, Any] | None = key.native_cache
    if cache is None:
        cache = key.native_cache = {}
    made: Made | None = cache.get(use)
    if made is None:
        made = cache[use] = make(secret_value(key))
    return made


def no_parameter(parameter: object) -> None:
    """For mechanisms without a parameter: NULL, or a pointer to nothing."""
    if parameter is not None and parameter != b"":
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "this mechanism takes no parameter")


def new_attributes(key_class: type[SecretKey], key_type: int, value: bytes) -> Attributes:
    """What generation gives the token for a key of this type."""
    return {CKA.KEY_TYPE: ulong(key_type), **key_class.stored(value)}


def length_asked(key_class: type[SecretKey], template: Mapping[int, bytes]) -> int:
    """The length of a key about to be made; CKR_TEMPLATE_INCOMPLETE where neither template nor type says."""
    length = key_class.value_length(template)
    if length is None:
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "CKA_VALUE_LEN is missing")
    return length


def generate(key_class: type[SecretKey], key_type: int, parameter: object, template: Mapping[int, bytes]) -> Attributes:
    """Random keys: the whole of every CKM_*_KEY_GEN of this family's kind."""
    no_parameter(parameter)
    if template.get(CKA.KEY_TYPE, ulong(key_type)) != ulong(key_type):
        raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "CKA_KEY_TYPE contradicts what the mechanism makes")
    return new_attributes(key_class, key_type, os.urandom(length_asked(key_class, template)))
