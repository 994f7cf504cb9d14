"""Elliptic curves in Weierstrass form (CKK_EC): key pairs, ECDSA and ECDH (PKCS #11 v3.2, section 6.3).

An ECDSA signature is r || s, each of the length of the curve's order; the library speaks DER.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from keyfob.mechanisms.agreement import ecdh_derive
from keyfob.mechanisms.base import Key, Mechanism, SinglePart, twin
from keyfob.mechanisms.curve_keys import CurveKey, EcPrivateKey, EcPublicKey, pair_generator
from keyfob.mechanisms.curves import WeierstrassCurve
from keyfob.mechanisms.hash_algorithms import HASHES
from keyfob.spec.constants import CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from collections.abc import Callable

# Input longer than any hash says that the caller means something else (the standard speaks of 1024 bits).
LONGEST_HASH = 128


class Ecdsa(ec.ECDSA):
    """The library's ECDSA without its constructor, which imports 10 ms of back end to ask about RFC 6979."""

    def __init__(self, algorithm: hashes.HashAlgorithm | Prehashed) -> None:
        self.hash = algorithm

    @property
    def algorithm(self) -> hashes.HashAlgorithm | Prehashed:
        return self.hash

    @property
    def deterministic_signing(self) -> bool:
        return False


@cache
def over_message(digest: int) -> Ecdsa:
    """ECDSA over a message, by the number of its digest mechanism."""
    return Ecdsa(HASHES[digest])


@cache
def over_hash(length: int) -> Ecdsa:
    """ECDSA over a hash of `length` bytes. Of the algorithm only this length counts, and SHAKE256 has any."""
    return Ecdsa(Prehashed(hashes.SHAKE256(length)))


def signing_curve(key: CurveKey) -> WeierstrassCurve:
    """The curve of a key that ECDSA can use; Curve25519 in CKK_EC, as NSS makes it, is for ECDH alone."""
    curve = key.curve
    if not isinstance(curve, WeierstrassCurve):
        raise PKCS11Error(CKR.KEY_TYPE_INCONSISTENT, "a key on this curve cannot sign")
    return curve


def check_no_parameter(parameter: Any) -> None:
    if parameter:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "ECDSA takes no parameter")


def to_raw(signature: bytes, size: int) -> bytes:
    """DER SEQUENCE { r, s }, made by the library and therefore well-formed, as r || s of `size` bytes each."""
    # The outer length has one byte below 128 and two above (P-521); both INTEGERs are shorter than 128 bytes.
    start = 4 if signature[1] < 0x80 else 5
    end = start + signature[start - 1]
    r = signature[start:end]
    s = signature[end + 2 :]
    # A leading zero byte that only keeps the sign goes, a short number is padded; mostly neither is needed.
    if len(r) != size:
        r = r[-size:].rjust(size, b"\0")
    if len(s) != size:
        s = s[-size:].rjust(size, b"\0")
    return r + s


def to_der(signature: bytes, size: int) -> bytes:
    """r || s, possibly shorter than 2 * size but of even length (section 6.3.1), as DER."""
    length = len(signature)
    if length & 1 or not 0 < length <= 2 * size:
        raise PKCS11Error(CKR.SIGNATURE_LEN_RANGE, "an ECDSA signature has two numbers of the length of the order")
    half = length // 2
    return encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))


def check_hash_length(data: bytes) -> None:
    if not 0 < len(data) <= LONGEST_HASH:
        raise PKCS11Error(CKR.DATA_LEN_RANGE, f"CKM_ECDSA takes a hash of 1 to {LONGEST_HASH} bytes")


class EcdsaSign(SinglePart):
    """CKM_ECDSA: a hash of any length, of which the leftmost bits count."""

    __slots__ = ("native", "output_size", "size")
    reusable = True

    def __init__(self, key: EcPrivateKey, parameter: Any) -> None:
        check_no_parameter(parameter)
        self.size = signing_curve(key).order_size
        self.output_size = 2 * self.size
        self.native = key.native

    def sign(self, data: bytes) -> bytes:
        check_hash_length(data)
        return to_raw(self.native.sign(data, over_hash(len(data))), self.size)


class EcdsaVerify(SinglePart):
    """CKM_ECDSA."""

    __slots__ = ("native", "size")
    reusable = True

    def __init__(self, key: EcPublicKey, parameter: Any) -> None:
        check_no_parameter(parameter)
        self.size = signing_curve(key).order_size
        self.native = key.native

    def verify(self, data: bytes, signature: bytes) -> None:
        check_hash_length(data)
        try:
            self.native.verify(to_der(signature, self.size), data, over_hash(len(data)))
        except InvalidSignature:
            raise PKCS11Error(CKR.SIGNATURE_INVALID, "the ECDSA signature is not valid") from None


class EcdsaHashSign:
    """CKM_ECDSA_SHA*: the message in one call or in parts."""

    __slots__ = ("digest", "hash", "native", "output_size", "size")

    def __init__(self, digest: int, key: EcPrivateKey, parameter: Any) -> None:
        check_no_parameter(parameter)
        self.size = signing_curve(key).order_size
        self.output_size = 2 * self.size
        self.native = key.native
        self.digest = digest
        self.hash: hashes.Hash | None = None

    def sign(self, data: bytes) -> bytes:
        return to_raw(self.native.sign(data, over_message(self.digest)), self.size)

    def copy(self) -> EcdsaHashSign:
        return twin(self, hash=self.hash.copy() if self.hash is not None else None)

    def update(self, part: bytes) -> None:
        if self.hash is None:
            self.hash = hashes.Hash(HASHES[self.digest])
        self.hash.update(part)

    def final(self) -> bytes:
        if self.hash is None:
            return self.sign(b"")
        value = self.hash.finalize()
        return to_raw(self.native.sign(value, over_hash(len(value))), self.size)


class EcdsaHashVerify:
    """CKM_ECDSA_SHA*: the message in one call or in parts."""

    __slots__ = ("digest", "hash", "native", "size")

    def __init__(self, digest: int, key: EcPublicKey, parameter: Any) -> None:
        check_no_parameter(parameter)
        self.size = signing_curve(key).order_size
        self.native = key.native
        self.digest = digest
        self.hash: hashes.Hash | None = None

    def verify(self, data: bytes, signature: bytes) -> None:
        self._verify(data, signature, over_message(self.digest))

    def copy(self) -> EcdsaHashVerify:
        return twin(self, hash=self.hash.copy() if self.hash is not None else None)

    def update(self, part: bytes) -> None:
        if self.hash is None:
            self.hash = hashes.Hash(HASHES[self.digest])
        self.hash.update(part)

    def final(self, signature: bytes) -> None:
        if self.hash is None:
            self.verify(b"", signature)
        else:
            value = self.hash.finalize()
            self._verify(value, signature, over_hash(len(value)))

    def _verify(self, data: bytes, signature: bytes, algorithm: Ecdsa) -> None:
        try:
            self.native.verify(to_der(signature, self.size), data, algorithm)
        except InvalidSignature:
            raise PKCS11Error(CKR.SIGNATURE_INVALID, "the ECDSA signature is not valid") from None


# Bits of the field.
SIZES = (192, 521)
EC_FLAGS = CKF.EC_F_P | CKF.EC_OID | CKF.EC_CURVENAME | CKF.EC_UNCOMPRESS | CKF.EC_COMPRESS


def _row(mechanism: int, operations: dict[int, Callable[..., Any]], *key_types: int) -> Mechanism:
    return Mechanism(mechanism, operations, key_types=key_types, sizes=SIZES, extra_flags=EC_FLAGS)


def _hashing_row(mechanism: int, digest: int) -> Mechanism:
    return _row(
        mechanism, {CKF.SIGN: partial(EcdsaHashSign, digest), CKF.VERIFY: partial(EcdsaHashVerify, digest)}, CKK.EC
    )


MECHANISMS = (
    Mechanism(
        CKM.EC_KEY_PAIR_GEN,
        {CKF.GENERATE_KEY_PAIR: pair_generator(CKK.EC)},
        makes=CKK.EC,
        sizes=SIZES,
        extra_flags=EC_FLAGS,
    ),
    _row(CKM.ECDSA, {CKF.SIGN: EcdsaSign, CKF.VERIFY: EcdsaVerify}, CKK.EC),
    _hashing_row(CKM.ECDSA_SHA1, CKM.SHA_1),
    _hashing_row(CKM.ECDSA_SHA224, CKM.SHA224),
    _hashing_row(CKM.ECDSA_SHA256, CKM.SHA256),
    _hashing_row(CKM.ECDSA_SHA384, CKM.SHA384),
    _hashing_row(CKM.ECDSA_SHA512, CKM.SHA512),
    _hashing_row(CKM.ECDSA_SHA3_224, CKM.SHA3_224),
    _hashing_row(CKM.ECDSA_SHA3_256, CKM.SHA3_256),
    _hashing_row(CKM.ECDSA_SHA3_384, CKM.SHA3_384),
    _hashing_row(CKM.ECDSA_SHA3_512, CKM.SHA3_512),
    _row(CKM.ECDH1_DERIVE, {CKF.DERIVE: ecdh_derive}, CKK.EC, CKK.EC_MONTGOMERY),
    # Every curve here has cofactor 1, or (Curve25519) clears its cofactor by itself.
    _row(CKM.ECDH1_COFACTOR_DERIVE, {CKF.DERIVE: ecdh_derive}, CKK.EC),
)

KEYS: dict[tuple[int, int], type[Key]] = {
    (CKO.PRIVATE_KEY, CKK.EC): EcPrivateKey,
    (CKO.PUBLIC_KEY, CKK.EC): EcPublicKey,
}
