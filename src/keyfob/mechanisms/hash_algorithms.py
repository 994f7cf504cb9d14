"""The library's hash objects by the number of the digest mechanism, made once: they hold no state."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes

from keyfob.spec.constants import CKM

HASHES: dict[int, hashes.HashAlgorithm] = {
    CKM.MD5: hashes.MD5(),  # noqa: S303 - CKM_MD5_RSA_PKCS, for old signatures
    CKM.SHA_1: hashes.SHA1(),  # noqa: S303 - the standard's SHA-1 mechanisms, OAEP's default
    CKM.SHA224: hashes.SHA224(),
    CKM.SHA256: hashes.SHA256(),
    CKM.SHA384: hashes.SHA384(),
    CKM.SHA512: hashes.SHA512(),
    CKM.SHA3_224: hashes.SHA3_224(),
    CKM.SHA3_256: hashes.SHA3_256(),
    CKM.SHA3_384: hashes.SHA3_384(),
    CKM.SHA3_512: hashes.SHA3_512(),
}
