"""AES-GCM and AES-CCM (section 6.13). The tag stands behind the ciphertext.

No plaintext leaves before its tag is checked, as the standard wants: decryption in parts gives nothing before
C_DecryptFinal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import AEADEncryptionContext, Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM

from keyfob.mechanisms.aes_keys import BLOCK, aes, aes_cipher, block_cipher
from keyfob.mechanisms.base import Parts, twin
from keyfob.mechanisms.mac import same_bytes
from keyfob.mechanisms.secret_key import prepared
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.parameters import CcmParams, GcmParams

if TYPE_CHECKING:
    from keyfob.mechanisms.base import Key

# The lengths of initialization vectors that the library takes; the standard allows any but none.
LIBRARY_VECTORS = range(8, 129)
# What the library's one-shot calls take (2^31 - 1 bytes with the tag).
LONGEST = 2**31 - 1 - BLOCK


def _failed() -> PKCS11Error:
    return PKCS11Error(CKR.ENCRYPTED_DATA_INVALID, "the tag is not that of the data")


def _check_length(length: int, otherwise: int) -> None:
    if length > LONGEST:
        raise PKCS11Error(otherwise, f"at most {LONGEST} bytes in one message")


class Collected:
    """Cipher that keeps its parts until final(): for modes that must have everything before they give anything."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts = Parts()

    def run(self, data: bytes) -> bytes:
        raise NotImplementedError

    def size(self, length: int) -> int:
        raise NotImplementedError

    def update(self, part: bytes) -> bytes:
        self._parts.add(part)
        return b""

    def update_size(self, length: int) -> int:
        return 0

    def final(self) -> bytes:
        return self.run(self._parts.joined())

    def final_size(self) -> int:
        return self.size(self._parts.held)

    @property
    def held(self) -> int:
        return self._parts.held

    def copy(self) -> Collected:
        return twin(self, _parts=self._parts.copy())


def _aes_gcm(value: bytes) -> AESGCM:
    return AESGCM(aes_cipher(value).key)


class _Gcm:
    """A key and a checked CK_GCM_PARAMS. ulIvBits is not read: section 6.13.4 says to use ulIvLen."""

    __slots__ = ("aad", "iv", "key", "library", "tag_size", "whole")

    def __init__(self, key: Key, parameter: object) -> None:
        if not isinstance(parameter, GcmParams):
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the parameter must be CK_GCM_PARAMS")
        # The standard allows 0 to 128 bits; below 32 no tag protects anything, and the library refuses.
        if parameter.tag_bits % 8 or not 32 <= parameter.tag_bits <= 128:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "ulTagBits must be a multiple of 8 from 32 to 128")
        if not parameter.iv:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the initialization vector is empty")
        self.key = key
        self.whole = prepared(key, AESGCM, _aes_gcm)
        self.iv = parameter.iv
        self.aad = parameter.aad
        self.tag_size = parameter.tag_bits // 8
        self.library = len(parameter.iv) in LIBRARY_VECTORS

    def context(self, tag: bytes | None = None) -> Cipher[GCM]:
        return Cipher(aes(self.key), GCM(self.iv, tag, min_tag_length=self.tag_size))

    def by_hand(self, data: bytes, *, encrypt: bool) -> tuple[bytes, bytes]:
        """(output, tag) for a vector that the library does not take: SP 800-38D, 7.1, over the library's own GHASH."""
        start = self._ghash(b"", self.iv)
        output = self._counter_mode(start, data)
        mask = self._block(start)
        return output, _xor(self._ghash(self.aad, output if encrypt else data), mask)

    def _ghash(self, aad: bytes, ciphertext: bytes) -> bytes:
        """GHASH of both, padded, and their lengths: the tag less its mask where GCM's result is this ciphertext."""
        any_vector = bytes(12)
        plaintext = self.whole.encrypt(any_vector, ciphertext, None)[:-BLOCK]
        tag = self.whole.encrypt(any_vector, plaintext, aad)[-BLOCK:]
        return _xor(tag, self._block(any_vector + b"\0\0\0\1"))

    def _block(self, block: bytes) -> bytes:
        return block_cipher(self.key).encryptor().update(block)

    def _counter_mode(self, start: bytes, data: bytes) -> bytes:
        """Counter mode from the block after `start`; only its last 32 bits count, and they may wrap."""
        fixed, counter = start[:12], (int.from_bytes(start[12:], "big") + 1) % 2**32
        first = (2**32 - counter) * BLOCK
        output = b""
        for part, begin in ((data[:first], counter), (data[first:], 0)):
            if part:
                output += Cipher(aes(self.key), CTR(fixed + begin.to_bytes(4, "big"))).encryptor().update(part)
        return output


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


class GcmEncrypt:
    """Cipher. One call costs 1 us through AESGCM; parts go through a context, which costs 8 us."""

    __slots__ = ("_collected", "_context", "_gcm")

    exact: ClassVar[bool] = True

    def __init__(self, key: Key, parameter: object) -> None:
        self._gcm = _Gcm(key, parameter)
        self._context: AEADEncryptionContext | None = None
        self._collected = Parts()

    def run(self, data: bytes) -> bytes:
        gcm = self._gcm
        _check_length(len(data), CKR.DATA_LEN_RANGE)
        if not gcm.library:
            output, tag = gcm.by_hand(data, encrypt=True)
            return output + tag[: gcm.tag_size]
        sealed = gcm.whole.encrypt(gcm.iv, data, gcm.aad)
        return sealed if gcm.tag_size == BLOCK else sealed[: len(data) + gcm.tag_size]

    def size(self, length: int) -> int:
        return length + self._gcm.tag_size

    def update(self, part: bytes) -> bytes:
        if not self._gcm.library:
            self._collected.add(part)
            return b""
        return self._started().update(part)

    def update_size(self, length: int) -> int:
        return length if self._gcm.library else 0

    def final(self) -> bytes:
        if not self._gcm.library:
            return self.run(self._collected.joined())
        context = self._started()
        rest = context.finalize()
        return rest + context.tag[: self._gcm.tag_size]

    def final_size(self) -> int:
        return self._collected.held + self._gcm.tag_size

    def _started(self) -> AEADEncryptionContext:
        if self._context is None:
            self._context = self._gcm.context().encryptor()
            self._context.authenticate_additional_data(self._gcm.aad)
        return self._context


class GcmDecrypt(Collected):
    """Cipher."""

    __slots__ = ("_gcm",)

    exact: ClassVar[bool] = True

    def __init__(self, key: Key, parameter: object) -> None:
        super().__init__()
        self._gcm = _Gcm(key, parameter)

    def run(self, data: bytes) -> bytes:
        gcm = self._gcm
        _check_length(len(data), CKR.ENCRYPTED_DATA_LEN_RANGE)
        if len(data) < gcm.tag_size:
            raise PKCS11Error(CKR.ENCRYPTED_DATA_LEN_RANGE, "the data is shorter than its tag")
        try:
            if gcm.library and gcm.tag_size == BLOCK:
                return gcm.whole.decrypt(gcm.iv, data, gcm.aad)
            ciphertext, tag = data[: -gcm.tag_size], data[-gcm.tag_size :]
            if not gcm.library:
                plaintext, expected = gcm.by_hand(ciphertext, encrypt=False)
                if not same_bytes(expected[: gcm.tag_size], tag):
                    raise _failed()
                return plaintext
            context = gcm.context(tag).decryptor()
            context.authenticate_additional_data(gcm.aad)
            return context.update(ciphertext) + context.finalize()
        except InvalidTag:
            raise _failed() from None

    def size(self, length: int) -> int:
        return max(length - self._gcm.tag_size, 0)


class _Ccm(Collected):
    """A key and a checked CK_CCM_PARAMS. ulDataLen, the length of the plaintext, must be the truth."""

    __slots__ = ("_aad", "_ccm", "_data_size", "_nonce", "_tag_size")

    exact: ClassVar[bool] = True

    def __init__(self, key: Key, parameter: object) -> None:
        super().__init__()
        if not isinstance(parameter, CcmParams):
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the parameter must be CK_CCM_PARAMS")
        if parameter.mac_len not in range(4, 17, 2):
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "ulMACLen must be 4, 6, 8, 10, 12, 14 or 16")
        if not 7 <= len(parameter.nonce) <= 13:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "ulNonceLen must be from 7 to 13")
        if parameter.data_len >= 256 ** (15 - len(parameter.nonce)) or parameter.data_len > LONGEST:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "ulDataLen is too large for the nonce")
        self._ccm = AESCCM(aes(key).key, parameter.mac_len)
        self._nonce = parameter.nonce
        self._aad = parameter.aad
        self._tag_size = parameter.mac_len
        self._data_size = parameter.data_len


class CcmEncrypt(_Ccm):
    """Cipher."""

    __slots__ = ()

    def run(self, data: bytes) -> bytes:
        if len(data) != self._data_size:
            raise PKCS11Error(CKR.DATA_LEN_RANGE, f"ulDataLen announced {self._data_size} bytes")
        return self._ccm.encrypt(self._nonce, data, self._aad)

    def size(self, length: int) -> int:
        return length + self._tag_size


class CcmDecrypt(_Ccm):
    """Cipher."""

    __slots__ = ()

    def run(self, data: bytes) -> bytes:
        if len(data) != self._data_size + self._tag_size:
            raise PKCS11Error(CKR.ENCRYPTED_DATA_LEN_RANGE, f"ulDataLen announced {self._data_size} bytes and the MAC")
        try:
            return self._ccm.decrypt(self._nonce, data, self._aad)
        except InvalidTag:
            raise _failed() from None

    def size(self, length: int) -> int:
        return max(length - self._tag_size, 0)
