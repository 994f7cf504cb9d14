"""C_WrapKey and C_UnwrapKey through a mechanism that encrypts: the key's bytes are the data.

Most modes without padding wrap a key that does not fit by adding zero bytes (sections 6.10 and 6.16), which unwrapping
cannot tell from the key: the length that the template's CKA_KEY_TYPE and CKA_VALUE_LEN give decides, or the end of the
DER encoding of a private key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from keyfob.spec.constants import CKF, CKR
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from keyfob.mechanisms.base import Key
    from keyfob.mechanisms.protocols import Cipher

    CipherFor = Callable[[Key, Any], Cipher]

TO_WRAP = {
    CKR.KEY_SIZE_RANGE: CKR.WRAPPING_KEY_SIZE_RANGE,
    CKR.DATA_LEN_RANGE: CKR.KEY_SIZE_RANGE,
}
TO_UNWRAP = {
    CKR.KEY_SIZE_RANGE: CKR.UNWRAPPING_KEY_SIZE_RANGE,
    CKR.ENCRYPTED_DATA_INVALID: CKR.WRAPPED_KEY_INVALID,
    CKR.ENCRYPTED_DATA_LEN_RANGE: CKR.WRAPPED_KEY_LEN_RANGE,
    CKR.DATA_LEN_RANGE: CKR.WRAPPED_KEY_LEN_RANGE,
}


class CipherWrap:
    """Wrapper. `unit`: the wrapped key is filled up with zero bytes to a multiple of it (1: never)."""

    __slots__ = ("_cipher", "_unit")

    def __init__(self, encrypt: CipherFor, unit: int, key: Key, parameter: object) -> None:
        self._unit = unit
        try:
            self._cipher = encrypt(key, parameter)
        except PKCS11Error as problem:
            raise _translated(problem, TO_WRAP) from None

    def wrap(self, data: bytes) -> bytes:
        try:
            return self._cipher.run(data + bytes(-len(data) % self._unit))
        except PKCS11Error as problem:
            raise _translated(problem, TO_WRAP) from None

    def size(self, length: int) -> int:
        return self._cipher.size(length + -length % self._unit)


class CipherUnwrap:
    """Unwrapper. `unit` as above: the result may have zero bytes behind the key."""

    __slots__ = ("_cipher", "unit")

    def __init__(self, decrypt: CipherFor, unit: int, key: Key, parameter: object) -> None:
        self.unit = unit
        try:
            self._cipher = decrypt(key, parameter)
        except PKCS11Error as problem:
            raise _translated(problem, TO_UNWRAP) from None

    def unwrap(self, data: bytes, length: int | None = None, lengths: Sequence[int] | None = None) -> bytes:
        """The key; `length`, where it is known, cuts off the zero bytes that filled it up, and nothing else.

        Else a key could be unwrapped as its first byte, which tells that by trying, then as two bytes, and so on.
        """
        try:
            plain = self._cipher.run(data)
            if length is None or not length < len(plain) < length + self.unit or any(plain[length:]):
                return plain
            return plain[:length]
        except PKCS11Error as problem:
            raise _translated(problem, TO_UNWRAP) from None


def _translated(problem: PKCS11Error, codes: dict[int, int]) -> PKCS11Error:
    return PKCS11Error(codes.get(problem.rv, problem.rv), problem.reason)


def ciphering(encrypt: CipherFor, decrypt: CipherFor) -> dict[int, Callable[..., Any]]:
    """The operations of a row that encrypts data."""
    return {CKF.ENCRYPT: encrypt, CKF.DECRYPT: decrypt}


def wrapping(encrypt: CipherFor, decrypt: CipherFor, unit: int = 1) -> dict[int, Callable[..., Any]]:
    """The operations of a row that encrypts data and wraps keys."""
    return {
        **ciphering(encrypt, decrypt),
        CKF.WRAP: partial(CipherWrap, encrypt, unit),
        CKF.UNWRAP: partial(CipherUnwrap, decrypt, unit),
    }
