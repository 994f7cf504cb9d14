"""Generic secrets, keys from passwords, and the derivations that work on a secret's bytes.

Sections 6.8 (generic secret), 6.37 (PBKDF2), 6.43 (concatenation, XOR, extraction) and 6.62 (HKDF). A derivation whose
base key has not the bytes that the template asks for is CKR_KEY_SIZE_RANGE: the standard wants an error and names none.

CKM_PBE_SHA1_DES3_EDE_CBC and its kin are left out on purpose: they return an initialization vector through a pointer in
their parameter, and NSS makes those keys on its internal slot when no token offers them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from keyfob.mechanisms import key_class
from keyfob.mechanisms.base import Attributes, Key, Mechanism
from keyfob.mechanisms.hashes import HASHES, hash_of
from keyfob.mechanisms.hmac import FAMILY as HMACS
from keyfob.mechanisms.hmac import KEYS as HMAC_KEYS
from keyfob.mechanisms.secret_key import (
    MAX_BYTES,
    GenericSecretKey,
    SecretKey,
    generate,
    length_asked,
    new_attributes,
    number,
    secret_value,
)
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKP, CKR, CKZ
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.parameters import HkdfParams, KeyDerivationStringDataParams, Pkcs5Pbkd2Params

if TYPE_CHECKING:
    from collections.abc import Mapping

# The derivations of section 6.43 take any secret key.
ANY_SECRET = (
    CKK.GENERIC_SECRET,
    CKK.HKDF,
    CKK.AES,
    CKK.AES_XTS,
    CKK.DES2,
    CKK.DES3,
    *(key_type for _, key_type in HMAC_KEYS),
)
SIZES = (1, MAX_BYTES)

PBKD2_HASHES = {
    CKP.PKCS5_PBKD2_HMAC_SHA1: CKM.SHA_1,
    CKP.PKCS5_PBKD2_HMAC_SHA224: CKM.SHA224,
    CKP.PKCS5_PBKD2_HMAC_SHA256: CKM.SHA256,
    CKP.PKCS5_PBKD2_HMAC_SHA384: CKM.SHA384,
    CKP.PKCS5_PBKD2_HMAC_SHA512: CKM.SHA512,
    CKP.PKCS5_PBKD2_HMAC_SHA512_224: CKM.SHA512_224,
    CKP.PKCS5_PBKD2_HMAC_SHA512_256: CKM.SHA512_256,
}
HASHES_OF_HMACS = {hmac: digest for digest, hmac, *_ in HMACS}


def pbkdf2(parameter: object, template: Mapping[int, bytes]) -> Attributes:
    """CKM_PKCS5_PBKD2: a secret key of the template's CKA_KEY_TYPE (NSS: AES or 3DES, with CKA_VALUE_LEN)."""
    if not isinstance(parameter, Pkcs5Pbkd2Params):
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the parameter must be CK_PKCS5_PBKD2_PARAMS2")
    if parameter.salt_source != CKZ.SALT_SPECIFIED or parameter.prf not in PBKD2_HASHES or parameter.prf_data:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "unknown salt source or pseudo-random function")
    # OpenSSL counts in a signed int.
    if not 1 <= parameter.iterations < 2**31:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the iterations must be from 1 to 2^31 - 1")
    if CKA.KEY_TYPE not in template:
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "CKA_KEY_TYPE is missing")
    key_type = number(template[CKA.KEY_TYPE])
    made_class = key_class(CKO.SECRET_KEY, key_type)
    if not issubclass(made_class, SecretKey):
        raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "secret keys of this CKA_KEY_TYPE are not supported")
    algorithm = HASHES[PBKD2_HASHES[parameter.prf]].algorithm
    kdf = PBKDF2HMAC(algorithm, length_asked(made_class, template), parameter.salt_source_data, parameter.iterations)
    return new_attributes(made_class, key_type, kdf.derive(parameter.password))


def hkdf(key: Key, parameter: object, length: int | None) -> bytes:
    """CKM_HKDF_DERIVE and CKM_HKDF_DATA. `length` may be None when only extracting, which gives a hash's length.

    Where the salt is a key, the caller has looked it up and put its value into the parameter.
    """
    if not isinstance(parameter, HkdfParams) or not (parameter.extract or parameter.expand):
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the parameter must be CK_HKDF_PARAMS with bExtract or bExpand")
    prf = parameter.prf_hash_mechanism  # the standard wants the hash; Java 25 names its HMAC
    hash_function = hash_of(HASHES_OF_HMACS.get(prf, prf))
    if parameter.expand and length is None:
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "CKA_VALUE_LEN is missing")
    longest = hash_function.size * (255 if parameter.expand else 1)
    wanted = hash_function.size if length is None else length
    if not 1 <= wanted <= longest or (not parameter.expand and wanted != longest):
        raise PKCS11Error(CKR.KEY_SIZE_RANGE, f"this derivation gives {'up to ' * parameter.expand}{longest} bytes")
    secret = secret_value(key)
    if parameter.extract:
        secret = HKDF.extract(hash_function.algorithm, _hkdf_salt(parameter), secret)
    if parameter.expand:
        secret = HKDFExpand(hash_function.algorithm, wanted, parameter.info).derive(secret)
    return secret


def _hkdf_salt(parameter: HkdfParams) -> bytes | None:
    if parameter.salt_type == CKF.HKDF_SALT_NULL:
        return None
    if parameter.salt_type in (CKF.HKDF_SALT_DATA, CKF.HKDF_SALT_KEY):
        return parameter.salt
    raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "ulSaltType must be one of CKF_HKDF_SALT_NULL, _DATA and _KEY")


def _string_data(parameter: object) -> bytes:
    if not isinstance(parameter, KeyDerivationStringDataParams):
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the parameter must be CK_KEY_DERIVATION_STRING_DATA")
    return parameter.data


def _leading(value: bytes, length: int | None) -> bytes:
    if length is not None and length > len(value):
        raise PKCS11Error(CKR.KEY_SIZE_RANGE, f"this derivation gives {len(value)} bytes")
    return value[:length]


def base_and_key(key: Key, other: Key, length: int | None) -> bytes:
    """CKM_CONCATENATE_BASE_AND_KEY: the caller has looked up the key that the parameter names."""
    return _leading(secret_value(key) + secret_value(other), length)


def base_and_data(key: Key, parameter: object, length: int | None) -> bytes:
    return _leading(secret_value(key) + _string_data(parameter), length)


def data_and_base(key: Key, parameter: object, length: int | None) -> bytes:
    return _leading(_string_data(parameter) + secret_value(key), length)


def xor_base_and_data(key: Key, parameter: object, length: int | None) -> bytes:
    """As long as the shorter of the two."""
    mixed = bytes(one ^ other for one, other in zip(secret_value(key), _string_data(parameter), strict=False))
    return _leading(mixed, length)


def extract_key(key: Key, parameter: object, length: int | None) -> bytes:
    """CKM_EXTRACT_KEY_FROM_KEY: `length` bytes from the bit that the parameter (CK_ULONG) numbers, round the end."""
    secret = secret_value(key)
    bits = len(secret) * 8
    if not isinstance(parameter, bytes) or len(parameter) != 8 or number(parameter) >= bits:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, f"the parameter must be a bit's number below {bits}")
    if length is None:
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "CKA_VALUE_LEN is missing")
    start, whole = number(parameter), int.from_bytes(secret, "big")
    rotated = (whole << start | whole >> bits - start) & (1 << bits) - 1
    return _leading(rotated.to_bytes(len(secret), "big"), length)


MECHANISMS = (
    Mechanism(
        CKM.GENERIC_SECRET_KEY_GEN,
        {CKF.GENERATE: partial(generate, GenericSecretKey, CKK.GENERIC_SECRET)},
        makes=CKK.GENERIC_SECRET,
        sizes=(8, MAX_BYTES * 8),  # in bits, unlike the others
    ),
    Mechanism(
        CKM.HKDF_KEY_GEN,
        {CKF.GENERATE: partial(generate, GenericSecretKey, CKK.HKDF)},
        makes=CKK.HKDF,
        sizes=SIZES,
    ),
    Mechanism(CKM.PKCS5_PBKD2, {CKF.GENERATE: pbkdf2}, sizes=SIZES),
    Mechanism(CKM.HKDF_DERIVE, {CKF.DERIVE: hkdf}, key_types=(CKK.HKDF, CKK.GENERIC_SECRET), sizes=SIZES),
    Mechanism(CKM.HKDF_DATA, {CKF.DERIVE: hkdf}, key_types=(CKK.HKDF, CKK.GENERIC_SECRET), sizes=SIZES),
    Mechanism(CKM.CONCATENATE_BASE_AND_KEY, {CKF.DERIVE: base_and_key}, key_types=ANY_SECRET, sizes=SIZES),
    Mechanism(CKM.CONCATENATE_BASE_AND_DATA, {CKF.DERIVE: base_and_data}, key_types=ANY_SECRET, sizes=SIZES),
    Mechanism(CKM.CONCATENATE_DATA_AND_BASE, {CKF.DERIVE: data_and_base}, key_types=ANY_SECRET, sizes=SIZES),
    Mechanism(CKM.XOR_BASE_AND_DATA, {CKF.DERIVE: xor_base_and_data}, key_types=ANY_SECRET, sizes=SIZES),
    Mechanism(CKM.EXTRACT_KEY_FROM_KEY, {CKF.DERIVE: extract_key}, key_types=ANY_SECRET, sizes=SIZES),
)
KEYS: dict[tuple[int, int], type[Key]] = {
    (CKO.SECRET_KEY, CKK.GENERIC_SECRET): GenericSecretKey,
    (CKO.SECRET_KEY, CKK.HKDF): GenericSecretKey,
}
