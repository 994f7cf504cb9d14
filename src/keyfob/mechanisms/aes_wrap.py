"""AES key wrap (section 6.16, NIST SP 800-38F): KW, KW over PKCS #7 padding, and KWP (RFC 5649).

With the default initial value the library does it (26 us for a private RSA key, where Python takes 1.1 ms). PKCS #11
lets the caller choose another value, which the library does not, so for that W is written out here.

CKM_AES_KEY_WRAP_PAD, which v3.2 deprecates without saying what it was, is PKCS #7 padding here, as in v2.40 and in NSS
(SoftHSM takes that number for KWP).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap,
    aes_key_wrap_with_padding,
)

from keyfob.mechanisms.aes_keys import aes, block_cipher
from keyfob.mechanisms.base import Key, SinglePart
from keyfob.mechanisms.mac import same_bytes
from keyfob.mechanisms.secret_key import secret_value
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

SEMIBLOCK = 8
# KWP writes the length in 32 bits; KW could take more, but no key is that long.
LONGEST = 2**32 - 1


def wrap(context: CipherContext, first: bytes, data: bytes) -> bytes:
    """W of SP 800-38F: `first` is the initial value, `data` at least two semiblocks."""
    register = first
    blocks = [data[i : i + SEMIBLOCK] for i in range(0, len(data), SEMIBLOCK)]
    step = 0
    for _ in range(6):
        for i, block in enumerate(blocks):
            step += 1
            output = context.update(register + block)
            register = (int.from_bytes(output[:SEMIBLOCK], "big") ^ step).to_bytes(SEMIBLOCK, "big")
            blocks[i] = output[SEMIBLOCK:]
    return register + b"".join(blocks)


def unwrap(context: CipherContext, data: bytes) -> tuple[bytes, bytes]:
    """W inverted: (initial value to be checked, data)."""
    register = data[:SEMIBLOCK]
    blocks = [data[i : i + SEMIBLOCK] for i in range(SEMIBLOCK, len(data), SEMIBLOCK)]
    step = 6 * len(blocks)
    for _ in range(6):
        for i in reversed(range(len(blocks))):
            counted = (int.from_bytes(register, "big") ^ step).to_bytes(SEMIBLOCK, "big")
            output = context.update(counted + blocks[i])
            register, blocks[i] = output[:SEMIBLOCK], output[SEMIBLOCK:]
            step -= 1
    return register, b"".join(blocks)


def _initial_value(parameter: object, length: int) -> bytes | None:
    """The caller's initial value; None for the default."""
    if parameter is None or parameter == b"":
        return None
    if not isinstance(parameter, bytes) or len(parameter) != length:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, f"the initial value must have {length} bytes")
    return parameter


def _invalid() -> PKCS11Error:
    """One reason for whatever is wrong inside: what it was is nobody's business."""
    return PKCS11Error(CKR.ENCRYPTED_DATA_INVALID, "the data was not wrapped with this key and initial value")


class _KeyWrap(SinglePart):
    """The standard has these mechanisms in one part only."""

    __slots__ = ("_first", "_key")

    VALUE_LENGTH: ClassVar[int] = 8

    def __init__(self, key: Key, parameter: object) -> None:
        aes(key)
        self._key = key
        self._first = _initial_value(parameter, self.VALUE_LENGTH)

    def _wrap(self, data: bytes) -> bytes:
        if self._first is None:
            return aes_key_wrap(secret_value(self._key), data)
        return wrap(block_cipher(self._key).encryptor(), self._first, data)

    def _unwrap(self, data: bytes) -> bytes:
        if len(data) % SEMIBLOCK or len(data) < 3 * SEMIBLOCK:
            raise PKCS11Error(CKR.ENCRYPTED_DATA_LEN_RANGE, "wrapped data is three semiblocks of 8 bytes or more")
        if self._first is None:
            try:
                return aes_key_unwrap(secret_value(self._key), data)
            except InvalidUnwrap:
                raise _invalid() from None
        first, plain = unwrap(block_cipher(self._key).decryptor(), data)
        if not same_bytes(first, self._first):
            raise _invalid()
        return plain


class KwEncrypt(_KeyWrap):
    """Cipher, CKM_AES_KEY_WRAP: a multiple of 8 bytes, 16 at least."""

    __slots__ = ()
    exact: ClassVar[bool] = True

    def run(self, data: bytes) -> bytes:
        if len(data) % SEMIBLOCK or len(data) < 2 * SEMIBLOCK:
            raise PKCS11Error(CKR.DATA_LEN_RANGE, "key wrap takes two semiblocks of 8 bytes or more")
        return self._wrap(data)

    def size(self, length: int) -> int:
        return length + SEMIBLOCK


class KwDecrypt(_KeyWrap):
    """Cipher."""

    __slots__ = ()
    exact: ClassVar[bool] = True

    def run(self, data: bytes) -> bytes:
        return self._unwrap(data)

    def size(self, length: int) -> int:
        return max(length - SEMIBLOCK, 0)


class KwPkcs7Encrypt(_KeyWrap):
    """Cipher, CKM_AES_KEY_WRAP_PKCS7: any data of 8 bytes or more (less would leave a single semiblock)."""

    __slots__ = ()
    exact: ClassVar[bool] = True

    def run(self, data: bytes) -> bytes:
        if len(data) < SEMIBLOCK:
            raise PKCS11Error(CKR.DATA_LEN_RANGE, "key wrap with this padding takes 8 bytes or more")
        missing = SEMIBLOCK - len(data) % SEMIBLOCK
        return self._wrap(data + bytes((missing,)) * missing)

    def size(self, length: int) -> int:
        return (length // SEMIBLOCK + 2) * SEMIBLOCK


class KwPkcs7Decrypt(_KeyWrap):
    """Cipher. The padding is authenticated with the rest, so its check tells an attacker nothing."""

    __slots__ = ()
    exact: ClassVar[bool] = False

    def run(self, data: bytes) -> bytes:
        plain = self._unwrap(data)
        padding = plain[-1]
        if not 1 <= padding <= SEMIBLOCK or plain[-padding:] != bytes((padding,)) * padding:
            raise _invalid()
        return plain[:-padding]

    def size(self, length: int) -> int:
        return max(length - SEMIBLOCK, 0)


class KwpEncrypt(_KeyWrap):
    """Cipher, CKM_AES_KEY_WRAP_KWP: any data but none."""

    __slots__ = ()
    VALUE_LENGTH = 4
    exact: ClassVar[bool] = True

    def run(self, data: bytes) -> bytes:
        if not 1 <= len(data) <= LONGEST:
            raise PKCS11Error(CKR.DATA_LEN_RANGE, "key wrap takes 1 to 2^32 - 1 bytes")
        if self._first is None:
            return aes_key_wrap_with_padding(secret_value(self._key), data)
        first = self._first + len(data).to_bytes(4, "big")
        padded = data + bytes(-len(data) % SEMIBLOCK)
        context = block_cipher(self._key).encryptor()
        return context.update(first + padded) if len(padded) == SEMIBLOCK else wrap(context, first, padded)

    def size(self, length: int) -> int:
        return (length + 15) // SEMIBLOCK * SEMIBLOCK


class KwpDecrypt(_KeyWrap):
    """Cipher."""

    __slots__ = ()
    VALUE_LENGTH = 4
    exact: ClassVar[bool] = False

    def run(self, data: bytes) -> bytes:
        if len(data) % SEMIBLOCK or len(data) < 2 * SEMIBLOCK:
            raise PKCS11Error(CKR.ENCRYPTED_DATA_LEN_RANGE, "wrapped data is two semiblocks of 8 bytes or more")
        if self._first is None:
            try:
                return aes_key_unwrap_with_padding(secret_value(self._key), data)
            except InvalidUnwrap:
                raise _invalid() from None
        context = block_cipher(self._key).decryptor()
        if len(data) == 2 * SEMIBLOCK:
            block = context.update(data)
            first, padded = block[:SEMIBLOCK], block[SEMIBLOCK:]
        else:
            first, padded = unwrap(context, data)
        length = int.from_bytes(first[4:], "big")
        padding = len(padded) - length
        if not same_bytes(first[:4], self._first) or not 0 <= padding < SEMIBLOCK or any(padded[length:]):
            raise _invalid()
        return padded[:length]

    def size(self, length: int) -> int:
        return max(length - SEMIBLOCK, 0)
