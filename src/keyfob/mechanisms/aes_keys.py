"""AES keys, and the AES cipher object of any key that may serve as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from keyfob.mechanisms.secret_key import SecretKey, prepared
from keyfob.spec.constants import CKK, CKR
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from keyfob.mechanisms.base import Attributes, Key

LENGTHS = (16, 24, 32)
BLOCK = 16

# P15: NSS exports PKCS #12 with a wrapping key that it made as CKK_GENERIC_SECRET, so its length alone must do.
KEY_TYPES = (CKK.AES, CKK.GENERIC_SECRET)


class AesKey(SecretKey):
    """CKK_AES: 16, 24 or 32 bytes."""

    __slots__ = ()
    LENGTHS = LENGTHS
    PART_BITS = 0

    def check_value(self) -> bytes | None:
        return block_cipher(self).encryptor().update(bytes(BLOCK))[:3]


class AesXtsKey(SecretKey):
    """CKK_AES_XTS: two AES keys of equal length side by side, which must differ (SP 800-38E)."""

    __slots__ = ()
    LENGTHS = (32, 64)
    PART_BITS = 128

    @classmethod
    def complete(cls, attributes: Attributes) -> Attributes:
        completed = super().complete(attributes)
        value = next(iter(completed.values()))
        if value[: len(value) // 2] == value[len(value) // 2 :]:
            raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "the halves of an XTS key must differ")
        return completed

    def check_value(self) -> bytes | None:
        return None


def aes_cipher(value: bytes) -> AES:
    """The cipher object of these bytes; CKR_KEY_SIZE_RANGE when they are no AES key."""
    if len(value) not in LENGTHS:
        raise PKCS11Error(CKR.KEY_SIZE_RANGE, f"AES keys have 16, 24 or 32 bytes, this one has {len(value)}")
    return AES(value)


def aes(key: Key) -> AES:
    """The cipher object of a key of 16, 24 or 32 bytes, made once; CKR_KEY_SIZE_RANGE for any other key."""
    return prepared(key, AES, aes_cipher)


def block_cipher(key: Key) -> Cipher[ECB]:
    """The bare block cipher, for constructions made of it."""
    return Cipher(aes(key), ECB())  # noqa: S305 - never a message's mode


def aes_xts(key: Key) -> AES:
    """The cipher object that XTS takes: of both halves together."""
    return prepared(key, AES, AES)
