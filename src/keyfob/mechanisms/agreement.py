"""CKM_ECDH1_DERIVE and CKM_ECDH1_COFACTOR_DERIVE: the shared secret, through a key derivation function.

One function serves CKK_EC and CKK_EC_MONTGOMERY keys: the key agrees by itself. The KDFs of X9.63 (CKD_*_KDF; S/MIME
with EC keys needs them, P13) hash Z || counter || shared data; those of SP 800-56A (CKD_*_KDF_SP800) counter || Z ||
shared data.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from keyfob.mechanisms.curve_keys import CurvePrivateKey
from keyfob.mechanisms.hash_algorithms import HASHES
from keyfob.spec.constants import CKD, CKM, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.parameters import Ecdh1DeriveParams

KDFS: dict[int, tuple[type[X963KDF | ConcatKDFHash], int]] = {
    CKD.SHA1_KDF: (X963KDF, CKM.SHA_1),
    CKD.SHA224_KDF: (X963KDF, CKM.SHA224),
    CKD.SHA256_KDF: (X963KDF, CKM.SHA256),
    CKD.SHA384_KDF: (X963KDF, CKM.SHA384),
    CKD.SHA512_KDF: (X963KDF, CKM.SHA512),
    CKD.SHA3_224_KDF: (X963KDF, CKM.SHA3_224),
    CKD.SHA3_256_KDF: (X963KDF, CKM.SHA3_256),
    CKD.SHA3_384_KDF: (X963KDF, CKM.SHA3_384),
    CKD.SHA3_512_KDF: (X963KDF, CKM.SHA3_512),
    CKD.SHA1_KDF_SP800: (ConcatKDFHash, CKM.SHA_1),
    CKD.SHA224_KDF_SP800: (ConcatKDFHash, CKM.SHA224),
    CKD.SHA256_KDF_SP800: (ConcatKDFHash, CKM.SHA256),
    CKD.SHA384_KDF_SP800: (ConcatKDFHash, CKM.SHA384),
    CKD.SHA512_KDF_SP800: (ConcatKDFHash, CKM.SHA512),
    CKD.SHA3_224_KDF_SP800: (ConcatKDFHash, CKM.SHA3_224),
    CKD.SHA3_256_KDF_SP800: (ConcatKDFHash, CKM.SHA3_256),
    CKD.SHA3_384_KDF_SP800: (ConcatKDFHash, CKM.SHA3_384),
    CKD.SHA3_512_KDF_SP800: (ConcatKDFHash, CKM.SHA3_512),
}
MAX_KEY_LENGTH = 65536


def ecdh_derive(key: Any, parameter: Any, length: int | None) -> bytes:
    """The value of the derived key, `length` bytes.

    With CKD_NULL a shorter key is the trailing end of the secret ("truncation removes bytes from the leading end"), and
    without a length it is the whole secret; with a KDF it is then one output of the hash.
    """
    if not isinstance(parameter, Ecdh1DeriveParams):
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "ECDH needs CK_ECDH1_DERIVE_PARAMS")
    if not isinstance(key, CurvePrivateKey):
        raise PKCS11Error(CKR.KEY_TYPE_INCONSISTENT, "ECDH needs a private key on an elliptic curve")
    if length is not None and not 0 < length <= MAX_KEY_LENGTH:
        raise PKCS11Error(CKR.KEY_SIZE_RANGE, "ECDH cannot give a key of this length")
    if parameter.kdf == CKD.NULL:
        if parameter.shared_data:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "CKD_NULL takes no shared data")
        secret = key.agree(parameter.public_data)
        if length is None:
            return secret
        if length > len(secret):
            raise PKCS11Error(CKR.KEY_SIZE_RANGE, "the shared secret is shorter than the key asked for")
        return secret[-length:]
    if parameter.kdf not in KDFS:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "this key derivation function is not supported")
    function, mechanism = KDFS[parameter.kdf]
    algorithm = HASHES[mechanism]
    return function(algorithm, length or algorithm.digest_size, parameter.shared_data).derive(
        key.agree(parameter.public_data)
    )
