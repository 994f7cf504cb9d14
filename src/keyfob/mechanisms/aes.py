"""AES: sections 6.10 to 6.17, and NSS's older numbers for key wrap."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from cryptography.hazmat.primitives.ciphers.modes import CTR, XTS

from keyfob.mechanisms.aes_aead import CcmDecrypt, CcmEncrypt, Collected, GcmDecrypt, GcmEncrypt
from keyfob.mechanisms.aes_keys import BLOCK, KEY_TYPES, AesKey, AesXtsKey, aes, aes_xts
from keyfob.mechanisms.aes_wrap import (
    SEMIBLOCK,
    KwDecrypt,
    KwEncrypt,
    KwpDecrypt,
    KwpEncrypt,
    KwPkcs7Decrypt,
    KwPkcs7Encrypt,
)
from keyfob.mechanisms.base import Key, Mechanism, twin
from keyfob.mechanisms.block_cipher import (
    BlocksDecrypt,
    BlocksEncrypt,
    CbcMacEngine,
    CmacEngine,
    ModeOf,
    PaddedDecrypt,
    PaddedEncrypt,
    StreamDecrypt,
    StreamEncrypt,
    cbc,
    cfb,
    cfb8,
    decryptor,
    ecb,
    encrypt_data,
    encryptor,
    ofb,
)
from keyfob.mechanisms.mac import chosen, half, mac_row, whole
from keyfob.mechanisms.secret_key import generate
from keyfob.mechanisms.wrapping import ciphering, wrapping
from keyfob.spec.constants import CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.parameters import AesCtrParams

SIZES = (16, 32)


class Ctr:
    """Cipher of counter mode, the same in both directions.

    A counter that would overflow is CKR_DATA_LEN_RANGE, also when decrypting (section 6.11.3).
    """

    __slots__ = ("_cipher", "_context", "_left", "_start", "_taken")

    exact: ClassVar[bool] = True

    def __init__(self, key: Key, parameter: object) -> None:
        if not isinstance(parameter, AesCtrParams) or not 1 <= parameter.counter_bits <= 128:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "ulCounterBits must be from 1 to 128")
        if len(parameter.counter_block) != BLOCK:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the counter block must have 16 bytes")
        counters = 1 << parameter.counter_bits
        counter = int.from_bytes(parameter.counter_block, "big") % counters
        self._left = (counters - counter) * BLOCK  # bytes until the counter overflows
        self._cipher = aes(key)
        self._start = int.from_bytes(parameter.counter_block, "big")
        self._taken = 0  # bytes
        self._context = encryptor(self._cipher, CTR(parameter.counter_block))

    def run(self, data: bytes) -> bytes:
        return self.update(data)

    def size(self, length: int) -> int:
        return length

    def update(self, part: bytes) -> bytes:
        if len(part) > self._left:
            raise PKCS11Error(CKR.DATA_LEN_RANGE, "the counter would overflow")
        self._left -= len(part)
        self._taken += len(part)
        return self._context.update(part)

    def update_size(self, length: int) -> int:
        return length

    def final(self) -> bytes:
        return b""

    def final_size(self) -> int:
        return 0

    def copy(self) -> Ctr:
        """The library's contexts cannot be copied: a new one starts at the block where this one stands."""
        blocks, within = divmod(self._taken, BLOCK)
        block = ((self._start + blocks) % (1 << 128)).to_bytes(BLOCK, "big")
        context = encryptor(self._cipher, CTR(block))
        context.update(bytes(within))
        return twin(self, _context=context)


class _Xts(Collected):
    """A key and its tweak. Ciphertext stealing needs the whole data unit at once."""

    __slots__ = ("_key", "_mode")

    exact: ClassVar[bool] = True
    WRONG_LENGTH: ClassVar[int]

    def __init__(self, key: Key, parameter: object) -> None:
        super().__init__()
        if not isinstance(parameter, bytes) or len(parameter) != BLOCK:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the parameter must be a data unit number of 16 bytes")
        self._key = key
        self._mode = XTS(parameter)

    def size(self, length: int) -> int:
        return length

    def _check(self, data: bytes) -> None:
        # SP 800-38E: a data unit has at most 2^20 blocks.
        if not BLOCK <= len(data) <= BLOCK << 20:
            raise PKCS11Error(self.WRONG_LENGTH, "a data unit has 16 bytes to 16 MiB")


class XtsEncrypt(_Xts):
    """Cipher."""

    __slots__ = ()
    WRONG_LENGTH = CKR.DATA_LEN_RANGE

    def run(self, data: bytes) -> bytes:
        self._check(data)
        return encryptor(aes_xts(self._key), self._mode).update(data)


class XtsDecrypt(_Xts):
    """Cipher."""

    __slots__ = ()
    WRONG_LENGTH = CKR.ENCRYPTED_DATA_LEN_RANGE

    def run(self, data: bytes) -> bytes:
        self._check(data)
        return decryptor(aes_xts(self._key), self._mode).update(data)


def _stream_row(mechanism: int, mode_of: ModeOf) -> Mechanism:
    operations = ciphering(partial(StreamEncrypt, aes, mode_of), partial(StreamDecrypt, aes, mode_of))
    return Mechanism(mechanism, operations, key_types=(CKK.AES,), sizes=SIZES)


def _blocks_row(mechanism: int, mode_of: ModeOf) -> Mechanism:
    operations = wrapping(partial(BlocksEncrypt, aes, mode_of), partial(BlocksDecrypt, aes, mode_of), BLOCK)
    return Mechanism(mechanism, operations, key_types=KEY_TYPES, sizes=SIZES)


_ENCRYPT_DATA = {CKF.DERIVE: partial(encrypt_data, aes)}
_CMAC = CmacEngine(aes, BLOCK)
_CBC_MAC = CbcMacEngine(aes, BLOCK)
_KW = wrapping(KwEncrypt, KwDecrypt, SEMIBLOCK)
_KW_PKCS7 = wrapping(KwPkcs7Encrypt, KwPkcs7Decrypt)

MECHANISMS = (
    Mechanism(CKM.AES_KEY_GEN, {CKF.GENERATE: partial(generate, AesKey, CKK.AES)}, makes=CKK.AES, sizes=SIZES),
    _blocks_row(CKM.AES_ECB, ecb),
    _blocks_row(CKM.AES_CBC, cbc),
    Mechanism(
        CKM.AES_CBC_PAD,
        wrapping(partial(PaddedEncrypt, aes, cbc), partial(PaddedDecrypt, aes, cbc)),
        key_types=KEY_TYPES,
        sizes=SIZES,
    ),
    Mechanism(CKM.AES_CTR, ciphering(Ctr, Ctr), key_types=(CKK.AES,), sizes=SIZES),
    _stream_row(CKM.AES_CFB128, cfb),
    _stream_row(CKM.AES_CFB8, cfb8),
    _stream_row(CKM.AES_OFB, ofb),
    Mechanism(CKM.AES_GCM, wrapping(GcmEncrypt, GcmDecrypt), key_types=KEY_TYPES, sizes=SIZES),
    Mechanism(CKM.AES_CCM, ciphering(CcmEncrypt, CcmDecrypt), key_types=(CKK.AES,), sizes=SIZES),
    Mechanism(CKM.AES_KEY_WRAP, _KW, key_types=KEY_TYPES, sizes=SIZES),
    Mechanism(CKM.NSS_AES_KEY_WRAP, _KW, key_types=KEY_TYPES, sizes=SIZES),
    Mechanism(CKM.AES_KEY_WRAP_PKCS7, _KW_PKCS7, key_types=KEY_TYPES, sizes=SIZES),
    Mechanism(CKM.AES_KEY_WRAP_PAD, _KW_PKCS7, key_types=KEY_TYPES, sizes=SIZES),
    Mechanism(CKM.NSS_AES_KEY_WRAP_PAD, _KW_PKCS7, key_types=KEY_TYPES, sizes=SIZES),
    Mechanism(CKM.AES_KEY_WRAP_KWP, wrapping(KwpEncrypt, KwpDecrypt), key_types=KEY_TYPES, sizes=SIZES),
    mac_row(CKM.AES_CMAC, _CMAC, whole, (CKK.AES,), SIZES),
    mac_row(CKM.AES_CMAC_GENERAL, _CMAC, chosen, (CKK.AES,), SIZES),
    mac_row(CKM.AES_MAC, _CBC_MAC, half, (CKK.AES,), SIZES),
    mac_row(CKM.AES_MAC_GENERAL, _CBC_MAC, chosen, (CKK.AES,), SIZES),
    Mechanism(CKM.AES_ECB_ENCRYPT_DATA, _ENCRYPT_DATA, key_types=(CKK.AES,), sizes=SIZES),
    Mechanism(CKM.AES_CBC_ENCRYPT_DATA, _ENCRYPT_DATA, key_types=(CKK.AES,), sizes=SIZES),
    Mechanism(
        CKM.AES_XTS_KEY_GEN,
        {CKF.GENERATE: partial(generate, AesXtsKey, CKK.AES_XTS)},
        makes=CKK.AES_XTS,
        sizes=(32, 64),
    ),
    Mechanism(CKM.AES_XTS, ciphering(XtsEncrypt, XtsDecrypt), key_types=(CKK.AES_XTS,), sizes=(32, 64)),
)
KEYS: dict[tuple[int, int], type[Key]] = {
    (CKO.SECRET_KEY, CKK.AES): AesKey,
    (CKO.SECRET_KEY, CKK.AES_XTS): AesXtsKey,
}
