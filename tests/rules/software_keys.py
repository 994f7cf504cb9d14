"""Keys made by `cryptography`, and a token's public keys as `cryptography` has them: what checks keyfob's results."""

from __future__ import annotations

import datetime as dt
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from keyfob.spec.constants import CKA, CKG, CKM
from tests.rules.nss_calls import Slot, point_of
from tests.rules.nss_templates import CURVES

# Of each hash that NSS uses: its CKG_MGF1_* and itself.
HASHES: dict[int, tuple[int, hashes.HashAlgorithm]] = {
    CKM.SHA_1: (CKG.MGF1_SHA1, hashes.SHA1()),
    CKM.SHA224: (CKG.MGF1_SHA224, hashes.SHA224()),
    CKM.SHA256: (CKG.MGF1_SHA256, hashes.SHA256()),
    CKM.SHA384: (CKG.MGF1_SHA384, hashes.SHA384()),
    CKM.SHA512: (CKG.MGF1_SHA512, hashes.SHA512()),
}


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same key for the same number, as making one takes a tenth of a second."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(number: int = 0, curve: str = "secp256r1") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(next(each for each in CURVES.values() if each.name == curve))


def certificate_of(
    key: Any, subject: str = "Mary", issuer: str = "", serial: int | None = None, signed_by: Any = None
) -> x509.Certificate:
    """Self-signed unless `issuer` and `signed_by` say otherwise."""

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = dt.datetime.now(dt.UTC)
    number = x509.random_serial_number() if serial is None else serial
    builder = x509.CertificateBuilder(
        name(issuer or subject), name(subject), key.public_key(), number, now, now + dt.timedelta(days=30)
    )
    return builder.sign(signed_by or key, hashes.SHA256())


def digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    hashing = hashes.Hash(algorithm)
    hashing.update(data)
    return hashing.finalize()


def rsa_public(slot: Slot, handle: int) -> rsa.RSAPublicKey:
    """Of a public or a private key on the token."""
    modulus, exponent = (int.from_bytes(value or b"") for value in slot.read(handle, CKA.MODULUS, CKA.PUBLIC_EXPONENT))
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def ec_public(slot: Slot, handle: int) -> ec.EllipticCurvePublicKey:
    """Of a public key on the token."""
    curve, value = (each or b"" for each in slot.read(handle, CKA.EC_PARAMS, CKA.EC_POINT))
    return ec.EllipticCurvePublicKey.from_encoded_point(CURVES[curve], point_of(value))


def der_signature(raw: bytes) -> bytes:
    """An ECDSA signature of PKCS #11 (r and s, of equal length) as X.509 has it."""
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))
