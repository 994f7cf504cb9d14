"""CKM_RSA_X_509: "raw" RSA, block in, block out. The library has none: the powers are rsa_power.c's, constant in time.

Secrets stay bytes on this side: Python's integers are not constant in time, not even in becoming bytes.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from keyfob.mechanisms import _rsa
from keyfob.mechanisms.base import SinglePart
from keyfob.mechanisms.rsa_keys import RsaKey
from keyfob.mechanisms.rsa_operations import check_no_parameter, check_signature_length
from keyfob.spec.constants import CKA, CKR
from keyfob.spec.errors import PKCS11Error

# The blinding is drawn with that many bytes more than the modulus has, so that none is likelier than another.
EXTRA_RANDOM_BYTES = 16


def private_power(key: RsaKey, value: bytes) -> bytes:
    """value ** d mod n, for a value below n."""
    of = key.attributes
    p, q = of[CKA.PRIME_1], of[CKA.PRIME_2]
    components = (
        of[CKA.MODULUS],
        of[CKA.PUBLIC_EXPONENT],
        p,
        q,
        of[CKA.EXPONENT_1].rjust(len(p), b"\0"),
        of[CKA.EXPONENT_2].rjust(len(q), b"\0"),
        of[CKA.COEFFICIENT].rjust(len(p), b"\0"),
    )
    result = _rsa.private_power(value, components, os.urandom(key.size + EXTRA_RANDOM_BYTES))
    if result is None:
        raise PKCS11Error(CKR.DEVICE_ERROR, "the check of a private RSA operation failed: nothing was given out")
    return result


def public_power(key: RsaKey, value: bytes) -> bytes:
    """value ** e mod n, for a value below n."""
    result = _rsa.public_power(value, key.attributes[CKA.MODULUS], key.attributes[CKA.PUBLIC_EXPONENT])
    if result is None:  # a key that was never checked: `checked_public` takes no such modulus
        raise PKCS11Error(CKR.DEVICE_ERROR, "the modulus of this key is none")
    return result


class RawOperation(SinglePart):
    """Input shorter than the modulus is padded with leading zero bytes; output is always k bytes."""

    __slots__ = ("key", "output_size")

    def __init__(self, key: RsaKey, parameter: Any) -> None:
        check_no_parameter(parameter)
        self.key = key
        self.output_size = key.size

    def block_of(self, data: bytes, too_long: int, too_big: int) -> bytes:
        """The input as a block, a number below the modulus; raises the CKR_* given."""
        if len(data) > self.output_size:
            raise PKCS11Error(too_long, "raw RSA takes no more than the length of the modulus")
        block = data.rjust(self.output_size, b"\0")
        if block >= self.key.attributes[CKA.MODULUS]:
            raise PKCS11Error(too_big, "raw RSA takes a number below the modulus")
        return block


class RawSign(RawOperation):
    """C_Sign and C_SignRecover."""

    __slots__ = ()

    def sign(self, data: bytes) -> bytes:
        block = self.block_of(data, CKR.DATA_LEN_RANGE, CKR.DATA_INVALID)
        return private_power(self.key, block)


class RawRecover(RawOperation):
    """C_VerifyRecover: all k bytes."""

    __slots__ = ()

    def recover(self, signature: bytes) -> bytes:
        check_signature_length(signature, self.output_size)
        block = self.block_of(signature, CKR.SIGNATURE_LEN_RANGE, CKR.SIGNATURE_INVALID)
        return public_power(self.key, block)


class RawVerify(RawRecover):
    """C_Verify."""

    __slots__ = ()

    def verify(self, data: bytes, signature: bytes) -> None:
        if len(data) > self.output_size:
            raise PKCS11Error(CKR.DATA_LEN_RANGE, "raw RSA takes no more than the length of the modulus")
        if self.recover(signature) != data.rjust(self.output_size, b"\0"):
            raise PKCS11Error(CKR.SIGNATURE_INVALID, "the RSA signature is of other data")


class RawEncrypt(RawOperation):
    """C_Encrypt and C_WrapKey."""

    __slots__ = ()

    exact: ClassVar[bool] = True

    def run(self, data: bytes) -> bytes:
        block = self.block_of(data, CKR.DATA_LEN_RANGE, CKR.DATA_INVALID)
        return public_power(self.key, block)

    def size(self, length: int) -> int:
        return self.output_size


class RawDecrypt(RawOperation):
    """C_Decrypt."""

    __slots__ = ()

    exact: ClassVar[bool] = True

    def run(self, data: bytes) -> bytes:
        if len(data) != self.output_size:
            raise PKCS11Error(CKR.ENCRYPTED_DATA_LEN_RANGE, "an RSA ciphertext is as long as the modulus")
        block = self.block_of(data, CKR.ENCRYPTED_DATA_LEN_RANGE, CKR.ENCRYPTED_DATA_INVALID)
        return private_power(self.key, block)

    def size(self, length: int) -> int:
        return self.output_size
