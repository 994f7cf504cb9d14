"""What RSA keys do with PKCS #1 v1.5, OAEP and PSS (RFC 8017; PKCS #11 v3.2, section 6.1). Raw RSA is in rsa_raw.py.

k is the length of the modulus in bytes. Padding is built and taken off by the library, in constant time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from keyfob.mechanisms.base import SinglePart, twin
from keyfob.mechanisms.hash_algorithms import HASHES
from keyfob.mechanisms.rsa_keys import RsaKey, RsaPrivateKey, RsaPublicKey
from keyfob.spec.constants import CKA, CKG, CKM, CKR, CKZ
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.parameters import RsaPkcsOaepParams, RsaPkcsPssParams

PKCS1 = PKCS1v15()
NO_DIGEST_INFO = NoDigestInfo()
# 00 01 PS 00 and 00 02 PS 00, with PS of 8 bytes or more.
PKCS1_OVERHEAD = 11
# DigestInfo of each hash without the hash itself, in bytes (RFC 8017, 9.2): 18 for MD5, 15 for SHA-1, else 19.
DIGEST_INFO_OVERHEAD = {CKM.MD5: 18, CKM.SHA_1: 15}

MGF_HASHES = {
    CKG.MGF1_SHA1: CKM.SHA_1,
    CKG.MGF1_SHA224: CKM.SHA224,
    CKG.MGF1_SHA256: CKM.SHA256,
    CKG.MGF1_SHA384: CKM.SHA384,
    CKG.MGF1_SHA512: CKM.SHA512,
    CKG.MGF1_SHA3_224: CKM.SHA3_224,
    CKG.MGF1_SHA3_256: CKM.SHA3_256,
    CKG.MGF1_SHA3_384: CKM.SHA3_384,
    CKG.MGF1_SHA3_512: CKM.SHA3_512,
}
# OAEP in the library has no other hashes.
OAEP_HASHES = (CKM.SHA_1, CKM.SHA224, CKM.SHA256, CKM.SHA384, CKM.SHA512)
# What a scheme of encryption gives: the padding, and the longest plaintext.
EncryptionScheme = Callable[[RsaKey, Any], tuple[AsymmetricPadding, int]]
PREHASHED = {mechanism: Prehashed(algorithm) for mechanism, algorithm in HASHES.items()}


def check_no_parameter(parameter: Any) -> None:
    if parameter:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "this RSA mechanism takes no parameter")


def check_signature_length(signature: bytes, size: int) -> None:
    if len(signature) != size:
        raise PKCS11Error(CKR.SIGNATURE_LEN_RANGE, "an RSA signature is as long as the modulus")


# PKCS #1 v1.5 signatures over what the caller encoded (CKM_RSA_PKCS)


class Pkcs1Sign(SinglePart):
    """C_Sign and C_SignRecover: any bytes up to k-11, usually a DigestInfo."""

    __slots__ = ("native", "output_size")
    reusable = True

    def __init__(self, key: RsaPrivateKey, parameter: Any) -> None:
        check_no_parameter(parameter)
        self.output_size = key.size
        self.native = key.native

    def sign(self, data: bytes) -> bytes:
        if len(data) > self.output_size - PKCS1_OVERHEAD:
            raise PKCS11Error(CKR.DATA_LEN_RANGE, "PKCS #1 v1.5 signs no more than the modulus has room for")
        return bytes(self.native.sign(data, PKCS1, NO_DIGEST_INFO))


class Pkcs1Recover:
    """C_VerifyRecover."""

    __slots__ = ("native", "output_size", "size")

    def __init__(self, key: RsaPublicKey, parameter: Any) -> None:
        check_no_parameter(parameter)
        self.size = key.size
        self.output_size = self.size - PKCS1_OVERHEAD
        self.native = key.native

    def recover(self, signature: bytes) -> bytes:
        check_signature_length(signature, self.size)
        try:
            return bytes(self.native.recover_data_from_signature(signature, PKCS1, NO_DIGEST_INFO))
        except InvalidSignature:
            raise PKCS11Error(CKR.SIGNATURE_INVALID, "the RSA signature is not valid") from None


class Pkcs1Verify(SinglePart):
    """C_Verify. By recovering and comparing: the library's own verify refuses signatures of no data."""

    __slots__ = ("recoverer",)
    reusable = True

    def __init__(self, key: RsaPublicKey, parameter: Any) -> None:
        self.recoverer = Pkcs1Recover(key, parameter)

    def verify(self, data: bytes, signature: bytes) -> None:
        if len(data) > self.recoverer.output_size:
            raise PKCS11Error(CKR.DATA_LEN_RANGE, "PKCS #1 v1.5 signs no more than the modulus has room for")
        if self.recoverer.recover(signature) != data:
            raise PKCS11Error(CKR.SIGNATURE_INVALID, "the RSA signature is of other data")


# Signatures with hashing, and PSS over a hash: a scheme says padding and hash, four classes do the work


class Pkcs1Scheme:
    """CKM_*_RSA_PKCS."""

    __slots__ = ("digest",)

    def __init__(self, digest: int) -> None:
        self.digest = digest

    def padding(self, key: RsaKey, parameter: Any) -> tuple[AsymmetricPadding, int]:
        """The padding and the hash to use; checks parameter and key size."""
        check_no_parameter(parameter)
        encoded = HASHES[self.digest].digest_size + DIGEST_INFO_OVERHEAD.get(self.digest, 19)
        if key.size < encoded + PKCS1_OVERHEAD:
            raise PKCS11Error(CKR.KEY_SIZE_RANGE, "the modulus is too short for this hash")
        return PKCS1, self.digest


class PssScheme:
    """CKM_RSA_PKCS_PSS (no digest: the parameter names it) and CKM_*_RSA_PKCS_PSS."""

    __slots__ = ("digest",)

    def __init__(self, digest: int | None) -> None:
        self.digest = digest

    def padding(self, key: RsaKey, parameter: Any) -> tuple[AsymmetricPadding, int]:
        """The padding and the hash to use; checks parameter and key size."""
        if not isinstance(parameter, RsaPkcsPssParams):
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "PSS needs CK_RSA_PKCS_PSS_PARAMS")
        digest = parameter.hash_alg
        if (self.digest is not None and digest != self.digest) or digest not in HASHES:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the hash of the PSS parameters does not fit the mechanism")
        if parameter.mgf not in MGF_HASHES:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "this mask generation function is not supported")
        # RFC 8017, 9.1.1: emLen, less the hash and two bytes, is what the salt may fill.
        room = (key.bits + 6) // 8 - HASHES[digest].digest_size - 2
        if room < 0:
            raise PKCS11Error(CKR.KEY_SIZE_RANGE, "the modulus is too short for this hash")
        if parameter.salt_length > room:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the modulus is too short for this salt")
        return pss_padding(parameter.mgf, parameter.salt_length), digest


@lru_cache(maxsize=64)
def pss_padding(mgf: int, salt_length: int) -> PSS:
    return PSS(MGF1(HASHES[MGF_HASHES[mgf]]), salt_length)


class HashSign:
    """Signature over a hash: made elsewhere (CKM_RSA_PKCS_PSS) or here (see MessageSign)."""

    __slots__ = ("digest", "native", "output_size", "padding")

    def __init__(self, scheme: Pkcs1Scheme | PssScheme, key: RsaPrivateKey, parameter: Any) -> None:
        self.padding, self.digest = scheme.padding(key, parameter)
        self.output_size = key.size
        self.native = key.native

    def sign_hash(self, data: bytes) -> bytes:
        algorithm = PREHASHED[self.digest]
        if len(data) != algorithm.digest_size:
            raise PKCS11Error(CKR.DATA_LEN_RANGE, "the data is not a hash of the kind that the parameters name")
        return bytes(self.native.sign(data, self.padding, algorithm))


class PrehashedSign(HashSign, SinglePart):
    """CKM_RSA_PKCS_PSS: the data is the hash."""

    __slots__ = ()

    def sign(self, data: bytes) -> bytes:
        return self.sign_hash(data)


class MessageSign(HashSign):
    """The hashing mechanisms: the message in one call or in parts."""

    __slots__ = ("hash",)

    def __init__(self, scheme: Pkcs1Scheme | PssScheme, key: RsaPrivateKey, parameter: Any) -> None:
        super().__init__(scheme, key, parameter)
        self.hash: hashes.Hash | None = None

    def sign(self, data: bytes) -> bytes:
        return bytes(self.native.sign(data, self.padding, HASHES[self.digest]))

    def copy(self) -> MessageSign:
        return twin(self, hash=self.hash.copy() if self.hash is not None else None)

    def update(self, part: bytes) -> None:
        if self.hash is None:
            self.hash = hashes.Hash(HASHES[self.digest])
        self.hash.update(part)

    def final(self) -> bytes:
        return self.sign(b"") if self.hash is None else self.sign_hash(self.hash.finalize())


class HashVerify:
    """The counterpart of HashSign."""

    __slots__ = ("digest", "native", "padding", "size")

    def __init__(self, scheme: Pkcs1Scheme | PssScheme, key: RsaPublicKey, parameter: Any) -> None:
        self.padding, self.digest = scheme.padding(key, parameter)
        self.size = key.size
        self.native = key.native

    def check(self, signature: bytes, data: bytes, algorithm: Prehashed | hashes.HashAlgorithm) -> None:
        check_signature_length(signature, self.size)
        try:
            self.native.verify(signature, data, self.padding, algorithm)
        except InvalidSignature:
            raise PKCS11Error(CKR.SIGNATURE_INVALID, "the RSA signature is not valid") from None


class PrehashedVerify(HashVerify, SinglePart):
    """CKM_RSA_PKCS_PSS: the data is the hash."""

    __slots__ = ()

    def verify(self, data: bytes, signature: bytes) -> None:
        algorithm = PREHASHED[self.digest]
        if len(data) != algorithm.digest_size:
            raise PKCS11Error(CKR.DATA_LEN_RANGE, "the data is not a hash of the kind that the parameters name")
        self.check(signature, data, algorithm)


class MessageVerify(HashVerify):
    """The hashing mechanisms: the message in one call or in parts."""

    __slots__ = ("hash",)

    def __init__(self, scheme: Pkcs1Scheme | PssScheme, key: RsaPublicKey, parameter: Any) -> None:
        super().__init__(scheme, key, parameter)
        self.hash: hashes.Hash | None = None

    def verify(self, data: bytes, signature: bytes) -> None:
        self.check(signature, data, HASHES[self.digest])

    def copy(self) -> MessageVerify:
        return twin(self, hash=self.hash.copy() if self.hash is not None else None)

    def update(self, part: bytes) -> None:
        if self.hash is None:
            self.hash = hashes.Hash(HASHES[self.digest])
        self.hash.update(part)

    def final(self, signature: bytes) -> None:
        if self.hash is None:
            self.verify(b"", signature)
        else:
            self.check(signature, self.hash.finalize(), PREHASHED[self.digest])


# Encryption


def pkcs1_encryption(key: RsaKey, parameter: Any) -> tuple[AsymmetricPadding, int]:
    """Padding of CKM_RSA_PKCS and the longest plaintext."""
    check_no_parameter(parameter)
    return PKCS1, key.size - PKCS1_OVERHEAD


def oaep_encryption(key: RsaKey, parameter: Any) -> tuple[AsymmetricPadding, int]:
    """Padding of CKM_RSA_PKCS_OAEP and the longest plaintext (P14).

    NSS sends CKZ_DATA_SPECIFIED with no data; some programs send no source at all where there is no label.
    """
    if not isinstance(parameter, RsaPkcsOaepParams):
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "OAEP needs CK_RSA_PKCS_OAEP_PARAMS")
    digest, mgf_digest = parameter.hash_alg, MGF_HASHES.get(parameter.mgf)
    if digest not in OAEP_HASHES or mgf_digest not in OAEP_HASHES:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "OAEP works with SHA-1, SHA-224, SHA-256, SHA-384 and SHA-512")
    if parameter.source != CKZ.DATA_SPECIFIED and (parameter.source or parameter.source_data):
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the source of the OAEP label must be CKZ_DATA_SPECIFIED")
    longest = key.size - 2 - 2 * HASHES[digest].digest_size
    if longest < 0:
        raise PKCS11Error(CKR.KEY_SIZE_RANGE, "the modulus is too short for this hash")
    return OAEP(MGF1(HASHES[mgf_digest]), HASHES[digest], parameter.source_data or None), longest


class PaddedEncrypt(SinglePart):
    """C_Encrypt."""

    __slots__ = ("key_size", "longest", "native", "padding")

    exact: ClassVar[bool] = True

    def __init__(self, scheme: EncryptionScheme, key: RsaPublicKey, parameter: Any) -> None:
        self.padding, self.longest = scheme(key, parameter)
        self.key_size = key.size
        self.native = key.native

    def run(self, data: bytes) -> bytes:
        if len(data) > self.longest:
            raise PKCS11Error(CKR.DATA_LEN_RANGE, f"this key encrypts no more than {self.longest} bytes")
        return bytes(self.native.encrypt(data, self.padding))

    def size(self, length: int) -> int:
        return self.key_size


class PaddedDecrypt(SinglePart):
    """C_Decrypt.

    What fails here fails for public reasons: the length, a number not below the modulus, or OAEP, which may say so.
    Bad PKCS #1 v1.5 padding never fails: the library answers with a plaintext that follows from key and ciphertext, so
    that nobody can use this as an oracle (Bleichenbacher). Do not add checks.
    """

    __slots__ = ("key_size", "longest", "native", "padding")

    exact: ClassVar[bool] = False

    def __init__(self, scheme: EncryptionScheme, key: RsaPrivateKey, parameter: Any) -> None:
        self.padding, self.longest = scheme(key, parameter)
        self.key_size = key.size
        self.native = key.native

    def run(self, data: bytes) -> bytes:
        if len(data) != self.key_size:
            raise PKCS11Error(CKR.ENCRYPTED_DATA_LEN_RANGE, "an RSA ciphertext is as long as the modulus")
        try:
            return bytes(self.native.decrypt(data, self.padding))
        except ValueError:
            raise PKCS11Error(CKR.ENCRYPTED_DATA_INVALID, "RSA decryption failed") from None

    def size(self, length: int) -> int:
        return self.longest


class PaddedWrap(PaddedEncrypt):
    """C_WrapKey."""

    __slots__ = ()

    def wrap(self, data: bytes) -> bytes:
        if len(data) > self.longest:
            raise PKCS11Error(CKR.KEY_SIZE_RANGE, f"this key wraps no more than {self.longest} bytes")
        return self.run(data)


class PaddedUnwrap(PaddedDecrypt):
    """C_UnwrapKey with CKM_RSA_PKCS_OAEP."""

    __slots__ = ()

    def unwrap(self, data: bytes, length: int | None = None, lengths: Sequence[int] | None = None) -> bytes:
        """The wrapped value. How long the key to come may be changes nothing for OAEP."""
        if len(data) != self.key_size:
            raise PKCS11Error(CKR.WRAPPED_KEY_LEN_RANGE, "an RSA ciphertext is as long as the modulus")
        try:
            return bytes(self.native.decrypt(data, self.padding))
        except ValueError:
            raise PKCS11Error(CKR.WRAPPED_KEY_INVALID, "RSA unwrapping failed") from None


class Pkcs1Unwrap(PaddedUnwrap):
    """C_UnwrapKey with CKM_RSA_PKCS."""

    __slots__ = ("private_exponent",)

    def __init__(self, scheme: EncryptionScheme, key: RsaPrivateKey, parameter: Any) -> None:
        super().__init__(scheme, key, parameter)
        self.private_exponent = key.attributes[CKA.PRIVATE_EXPONENT]

    def unwrap(self, data: bytes, length: int | None = None, lengths: Sequence[int] | None = None) -> bytes:
        """The wrapped value; always one of `length` bytes, or of a length that the key to come may have.

        Otherwise "wrong length" would tell bad padding from good, as junk plaintexts have junk lengths: the oracle of
        Bardou et al. (2012) on C_UnwrapKey. The substitute and its length follow from key and ciphertext (RFC 3218,
        2.3.2) and are computed in any case. Private keys have no such lengths: what is no PrivateKeyInfo is refused in
        the same way whether its padding was good or bad.
        """
        plaintext = super().unwrap(data)
        if length is not None:
            lengths = (length,)
        if lengths is None:
            return plaintext
        possible = [size for size in range(1, self.longest + 1) if size in lengths]
        if not possible:
            raise PKCS11Error(CKR.WRAPPED_KEY_LEN_RANGE, "this key cannot have wrapped a key of that length")
        random = X963KDF(HASHES[CKM.SHA256], 8 + self.longest, data).derive(self.private_exponent)
        substitute = random[8 : 8 + possible[int.from_bytes(random[:8], "big") % len(possible)]]
        return plaintext if len(plaintext) in possible else substitute
