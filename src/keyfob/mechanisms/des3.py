"""Triple DES with double- and triple-length keys (sections 6.18 and 6.19): old PKCS #12 files are still made with it.

Parity bits: the standard says that a key with wrong ones cannot be created. NSS hands over what its PKCS #12 key
derivation gave, whose parity is random, and softoken puts the bits right; so does this module.
"""

from __future__ import annotations

from functools import partial

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES

from keyfob.mechanisms.base import Key, Mechanism
from keyfob.mechanisms.block_cipher import (
    BlocksDecrypt,
    BlocksEncrypt,
    CbcMacEngine,
    CmacEngine,
    ModeOf,
    PaddedDecrypt,
    PaddedEncrypt,
    cbc,
    ecb,
    encrypt_data,
    encryptor,
)
from keyfob.mechanisms.mac import chosen, half, mac_row, whole
from keyfob.mechanisms.secret_key import SecretKey, generate, prepared
from keyfob.mechanisms.wrapping import wrapping
from keyfob.spec.constants import CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import PKCS11Error

BLOCK = 8
# As for AES (P15): under PBES2 with 3DES, NSS's wrapping key is a CKK_GENERIC_SECRET.
KEY_TYPES = (CKK.DES3, CKK.DES2)
WRAPPING_KEY_TYPES = (*KEY_TYPES, CKK.GENERIC_SECRET)
# Every byte with its lowest bit set so that the number of one bits is odd (FIPS 46-3).
ODD_PARITY = bytes(byte & 0xFE | (byte >> 1).bit_count() % 2 ^ 1 for byte in range(256))


class Des3Key(SecretKey):
    """CKK_DES3: 24 bytes."""

    __slots__ = ()
    LENGTHS = (24,)
    PART_BITS = 56
    HAS_VALUE_LEN = False

    @classmethod
    def normal(cls, value: bytes) -> bytes:
        return value.translate(ODD_PARITY)

    def check_value(self) -> bytes | None:
        return encryptor(triple_des(self), ecb(None, BLOCK)).update(bytes(BLOCK))[:3]


class Des2Key(Des3Key):
    """CKK_DES2: 16 bytes, used as K1 K2 K1."""

    __slots__ = ()
    LENGTHS = (16,)


def _triple_des(value: bytes) -> TripleDES:
    if len(value) not in (16, 24):
        raise PKCS11Error(CKR.KEY_SIZE_RANGE, f"triple DES keys have 16 or 24 bytes, this one has {len(value)}")
    return TripleDES((value + value[:8])[:24])


def triple_des(key: Key) -> TripleDES:
    """The cipher object of a key of 16 or 24 bytes; CKR_KEY_SIZE_RANGE for any other."""
    return prepared(key, _triple_des, _triple_des)


def _blocks_row(mechanism: int, mode_of: ModeOf) -> Mechanism:
    operations = wrapping(
        partial(BlocksEncrypt, triple_des, mode_of), partial(BlocksDecrypt, triple_des, mode_of), BLOCK
    )
    return Mechanism(mechanism, operations, key_types=WRAPPING_KEY_TYPES)


_CMAC = CmacEngine(triple_des, BLOCK)
_CBC_MAC = CbcMacEngine(triple_des, BLOCK)
_ENCRYPT_DATA = {CKF.DERIVE: partial(encrypt_data, triple_des)}

# The standard leaves the key sizes of these mechanisms unused: 0.
MECHANISMS = (
    Mechanism(CKM.DES2_KEY_GEN, {CKF.GENERATE: partial(generate, Des2Key, CKK.DES2)}, makes=CKK.DES2),
    Mechanism(CKM.DES3_KEY_GEN, {CKF.GENERATE: partial(generate, Des3Key, CKK.DES3)}, makes=CKK.DES3),
    _blocks_row(CKM.DES3_ECB, ecb),
    _blocks_row(CKM.DES3_CBC, cbc),
    Mechanism(
        CKM.DES3_CBC_PAD,
        wrapping(partial(PaddedEncrypt, triple_des, cbc), partial(PaddedDecrypt, triple_des, cbc)),
        key_types=WRAPPING_KEY_TYPES,
    ),
    mac_row(CKM.DES3_CMAC, _CMAC, whole, KEY_TYPES, (0, 0)),
    mac_row(CKM.DES3_CMAC_GENERAL, _CMAC, chosen, KEY_TYPES, (0, 0)),
    mac_row(CKM.DES3_MAC, _CBC_MAC, half, KEY_TYPES, (0, 0)),
    mac_row(CKM.DES3_MAC_GENERAL, _CBC_MAC, chosen, KEY_TYPES, (0, 0)),
    Mechanism(CKM.DES3_ECB_ENCRYPT_DATA, _ENCRYPT_DATA, key_types=KEY_TYPES),
    Mechanism(CKM.DES3_CBC_ENCRYPT_DATA, _ENCRYPT_DATA, key_types=KEY_TYPES),
)
KEYS: dict[tuple[int, int], type[Key]] = {
    (CKO.SECRET_KEY, CKK.DES3): Des3Key,
    (CKO.SECRET_KEY, CKK.DES2): Des2Key,
}
