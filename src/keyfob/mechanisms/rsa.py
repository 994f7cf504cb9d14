"""RSA (CKK_RSA): the mechanisms and key classes of the family (PKCS #11 v3.2, section 6.1).

rsa_keys.py holds the keys and their making, rsa_operations.py the padded schemes, rsa_raw.py raw RSA. X9.31 is absent:
its strong primes cannot be had from the library.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from keyfob.mechanisms.base import Key, Mechanism
from keyfob.mechanisms.rsa_keys import (
    MAX_BITS,
    MIN_BITS,
    MIN_GENERATED_BITS,
    RsaPrivateKey,
    RsaPublicKey,
    generate_pair,
)
from keyfob.mechanisms.rsa_operations import (
    MessageSign,
    MessageVerify,
    PaddedDecrypt,
    PaddedEncrypt,
    PaddedUnwrap,
    PaddedWrap,
    Pkcs1Recover,
    Pkcs1Scheme,
    Pkcs1Sign,
    Pkcs1Unwrap,
    Pkcs1Verify,
    PrehashedSign,
    PrehashedVerify,
    PssScheme,
    oaep_encryption,
    pkcs1_encryption,
)
from keyfob.mechanisms.rsa_raw import RawDecrypt, RawEncrypt, RawRecover, RawSign, RawVerify
from keyfob.spec.constants import CKF, CKK, CKM, CKO

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (MIN_BITS, MAX_BITS)


def _row(mechanism: int, operations: dict[int, Callable[..., Any]]) -> Mechanism:
    return Mechanism(mechanism, operations, key_types=(CKK.RSA,), sizes=SIZES)


def _hashing_row(mechanism: int, scheme: Pkcs1Scheme | PssScheme) -> Mechanism:
    return _row(mechanism, {CKF.SIGN: partial(MessageSign, scheme), CKF.VERIFY: partial(MessageVerify, scheme)})


MECHANISMS = (
    Mechanism(
        CKM.RSA_PKCS_KEY_PAIR_GEN,
        {CKF.GENERATE_KEY_PAIR: generate_pair},
        makes=CKK.RSA,
        sizes=(MIN_GENERATED_BITS, MAX_BITS),
    ),
    _row(
        CKM.RSA_PKCS,
        {
            CKF.SIGN: Pkcs1Sign,
            CKF.SIGN_RECOVER: Pkcs1Sign,
            CKF.VERIFY: Pkcs1Verify,
            CKF.VERIFY_RECOVER: Pkcs1Recover,
            CKF.ENCRYPT: partial(PaddedEncrypt, pkcs1_encryption),
            CKF.DECRYPT: partial(PaddedDecrypt, pkcs1_encryption),
            CKF.WRAP: partial(PaddedWrap, pkcs1_encryption),
            CKF.UNWRAP: partial(Pkcs1Unwrap, pkcs1_encryption),
        },
    ),
    # No wrapping: whoever chooses the block unwraps as he would sign or decrypt, which the key may not be for.
    _row(
        CKM.RSA_X_509,
        {
            CKF.SIGN: RawSign,
            CKF.SIGN_RECOVER: RawSign,
            CKF.VERIFY: RawVerify,
            CKF.VERIFY_RECOVER: RawRecover,
            CKF.ENCRYPT: RawEncrypt,
            CKF.DECRYPT: RawDecrypt,
        },
    ),
    _row(
        CKM.RSA_PKCS_OAEP,
        {
            CKF.ENCRYPT: partial(PaddedEncrypt, oaep_encryption),
            CKF.DECRYPT: partial(PaddedDecrypt, oaep_encryption),
            CKF.WRAP: partial(PaddedWrap, oaep_encryption),
            CKF.UNWRAP: partial(PaddedUnwrap, oaep_encryption),
        },
    ),
    _row(
        CKM.RSA_PKCS_PSS,
        {CKF.SIGN: partial(PrehashedSign, PssScheme(None)), CKF.VERIFY: partial(PrehashedVerify, PssScheme(None))},
    ),
    _hashing_row(CKM.MD5_RSA_PKCS, Pkcs1Scheme(CKM.MD5)),
    _hashing_row(CKM.SHA1_RSA_PKCS, Pkcs1Scheme(CKM.SHA_1)),
    _hashing_row(CKM.SHA224_RSA_PKCS, Pkcs1Scheme(CKM.SHA224)),
    _hashing_row(CKM.SHA256_RSA_PKCS, Pkcs1Scheme(CKM.SHA256)),
    _hashing_row(CKM.SHA384_RSA_PKCS, Pkcs1Scheme(CKM.SHA384)),
    _hashing_row(CKM.SHA512_RSA_PKCS, Pkcs1Scheme(CKM.SHA512)),
    _hashing_row(CKM.SHA3_224_RSA_PKCS, Pkcs1Scheme(CKM.SHA3_224)),
    _hashing_row(CKM.SHA3_256_RSA_PKCS, Pkcs1Scheme(CKM.SHA3_256)),
    _hashing_row(CKM.SHA3_384_RSA_PKCS, Pkcs1Scheme(CKM.SHA3_384)),
    _hashing_row(CKM.SHA3_512_RSA_PKCS, Pkcs1Scheme(CKM.SHA3_512)),
    _hashing_row(CKM.SHA1_RSA_PKCS_PSS, PssScheme(CKM.SHA_1)),
    _hashing_row(CKM.SHA224_RSA_PKCS_PSS, PssScheme(CKM.SHA224)),
    _hashing_row(CKM.SHA256_RSA_PKCS_PSS, PssScheme(CKM.SHA256)),
    _hashing_row(CKM.SHA384_RSA_PKCS_PSS, PssScheme(CKM.SHA384)),
    _hashing_row(CKM.SHA512_RSA_PKCS_PSS, PssScheme(CKM.SHA512)),
    _hashing_row(CKM.SHA3_224_RSA_PKCS_PSS, PssScheme(CKM.SHA3_224)),
    _hashing_row(CKM.SHA3_256_RSA_PKCS_PSS, PssScheme(CKM.SHA3_256)),
    _hashing_row(CKM.SHA3_384_RSA_PKCS_PSS, PssScheme(CKM.SHA3_384)),
    _hashing_row(CKM.SHA3_512_RSA_PKCS_PSS, PssScheme(CKM.SHA3_512)),
)

KEYS: dict[tuple[int, int], type[Key]] = {
    (CKO.PRIVATE_KEY, CKK.RSA): RsaPrivateKey,
    (CKO.PUBLIC_KEY, CKK.RSA): RsaPublicKey,
}
