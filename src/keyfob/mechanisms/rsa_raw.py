"""CKM_RSA_X_509: "raw" RSA, block in, block out. The library has none, so the arithmetic is here.

Python's integers are not constant in time, hence three defences around the private power: the base is blinded with a
fresh random factor (an observer's chosen input never meets the key), the exponents are randomised by a fresh multiple
of p-1 and q-1 (no two runs walk the same bits), and the result is checked with the public exponent before it leaves
(one faulty CRT half would give the primes away). With gmpy2 the powers are also constant in time.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, ClassVar

from keyfob.mechanisms.base import SinglePart
from keyfob.mechanisms.rsa_keys import RsaKey, number
from keyfob.mechanisms.rsa_operations import check_no_parameter, check_signature_length
from keyfob.spec.constants import CKA, CKR
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from collections.abc import Callable

EXPONENT_BLINDING_BYTES = 8


def _secret_power() -> Callable[[int, int, int], int]:
    try:
        power: Callable[[int, int, int], Any] = importlib.import_module("gmpy2").powmod_sec
    except ImportError:
        return pow
    return lambda base, exponent, modulus: int(power(base, exponent, modulus))


secret_power = _secret_power()


def random_below(limit: int) -> int:
    """A random number from 2 to limit - 1, uniform but for 2**-64."""
    size = (limit.bit_length() + 7) // 8 + 8
    return int.from_bytes(os.urandom(size), "big") % (limit - 2) + 2


def private_power(key: RsaKey, value: int) -> int:
    """value ** d mod n, for a value below n."""
    attributes = key.attributes
    n, e = number(attributes, CKA.MODULUS), number(attributes, CKA.PUBLIC_EXPONENT)
    p, q = number(attributes, CKA.PRIME_1), number(attributes, CKA.PRIME_2)
    factor = random_below(n)
    blinded = value * pow(factor, e, n) % n
    of_p = secret_power(blinded % p, _randomised(number(attributes, CKA.EXPONENT_1), p), p)
    of_q = secret_power(blinded % q, _randomised(number(attributes, CKA.EXPONENT_2), q), q)
    power = of_q + (of_p - of_q) * number(attributes, CKA.COEFFICIENT) % p * q
    result = power * pow(factor, -1, n) % n
    if pow(result, e, n) != value:
        raise PKCS11Error(CKR.DEVICE_ERROR, "the check of a private RSA operation failed: nothing was given out")
    return result


def _randomised(exponent: int, prime: int) -> int:
    return exponent + int.from_bytes(os.urandom(EXPONENT_BLINDING_BYTES), "big") * (prime - 1)


def public_power(key: RsaKey, value: int) -> int:
    """value ** e mod n, for a value below n."""
    return pow(value, number(key.attributes, CKA.PUBLIC_EXPONENT), number(key.attributes, CKA.MODULUS))


class RawOperation(SinglePart):
    """Input shorter than the modulus is padded with leading zero bytes; output is always k bytes."""

    __slots__ = ("key", "output_size")

    def __init__(self, key: RsaKey, parameter: Any) -> None:
        check_no_parameter(parameter)
        self.key = key
        self.output_size = key.size

    def number_of(self, data: bytes, too_long: int, too_big: int) -> int:
        """The input as a number below the modulus; raises the CKR_* given."""
        if len(data) > self.output_size:
            raise PKCS11Error(too_long, "raw RSA takes no more than the length of the modulus")
        value = int.from_bytes(data, "big")
        if value >= number(self.key.attributes, CKA.MODULUS):
            raise PKCS11Error(too_big, "raw RSA takes a number below the modulus")
        return value


class RawSign(RawOperation):
    """C_Sign and C_SignRecover."""

    __slots__ = ()

    def sign(self, data: bytes) -> bytes:
        value = self.number_of(data, CKR.DATA_LEN_RANGE, CKR.DATA_INVALID)
        return private_power(self.key, value).to_bytes(self.output_size, "big")


class RawRecover(RawOperation):
    """C_VerifyRecover: all k bytes."""

    __slots__ = ()

    def recover(self, signature: bytes) -> bytes:
        check_signature_length(signature, self.output_size)
        value = self.number_of(signature, CKR.SIGNATURE_LEN_RANGE, CKR.SIGNATURE_INVALID)
        return public_power(self.key, value).to_bytes(self.output_size, "big")


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
        value = self.number_of(data, CKR.DATA_LEN_RANGE, CKR.DATA_INVALID)
        return public_power(self.key, value).to_bytes(self.output_size, "big")

    def size(self, length: int) -> int:
        return self.output_size


class RawDecrypt(RawOperation):
    """C_Decrypt."""

    __slots__ = ()

    exact: ClassVar[bool] = True

    def run(self, data: bytes) -> bytes:
        if len(data) != self.output_size:
            raise PKCS11Error(CKR.ENCRYPTED_DATA_LEN_RANGE, "an RSA ciphertext is as long as the modulus")
        value = self.number_of(data, CKR.ENCRYPTED_DATA_LEN_RANGE, CKR.ENCRYPTED_DATA_INVALID)
        return private_power(self.key, value).to_bytes(self.output_size, "big")

    def size(self, length: int) -> int:
        return self.output_size
