"""What certificate objects read from their own DER, beside what cryptography's parser reads (P3, N13, N15)."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from keyfob.spec.constants import CKA
from keyfob.token.certificate import attributes_of

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

KEYS: dict[str, Private] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "ec": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def certificate(kind: str, end_year: int, serial: int) -> x509.Certificate:
    key = KEYS[kind]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Zoë")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "o" * 200)]))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(dt.datetime(1999, 12, 31, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(end_year, 2, 3, tzinfo=dt.UTC))
        .sign(key, None if kind == "ed25519" else hashes.SHA256())
    )


def public_bytes(kind: str) -> bytes:
    public = KEYS[kind].public_key()
    if isinstance(public, rsa.RSAPublicKey):
        return public.public_numbers().n.to_bytes(256, "big")
    if isinstance(public, ec.EllipticCurvePublicKey):
        return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize(("end_year", "serial"), [(2030, 5), (2060, 0x80), (2049, 2**150)])
def test_attributes_are_those_of_the_certificate(kind: str, end_year: int, serial: int) -> None:
    made = certificate(kind, end_year, serial)
    size = serial.bit_length() // 8 + 1
    assert attributes_of(made.public_bytes(Encoding.DER)) == {
        CKA.SUBJECT: made.subject.public_bytes(),
        CKA.ISSUER: made.issuer.public_bytes(),
        CKA.SERIAL_NUMBER: bytes((2, size)) + serial.to_bytes(size, "big"),
        CKA.START_DATE: b"19991231",
        CKA.END_DATE: f"{end_year}0203".encode(),
        CKA.PUBLIC_KEY_INFO: made.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        CKA.ID: hashlib.sha1(public_bytes(kind)).digest(),
    }


def test_junk_gives_nothing() -> None:
    whole = certificate("ec", 2030, 1).public_bytes(Encoding.DER)
    for junk in (b"", b"junk", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", whole[:40], bytes(100)):
        assert attributes_of(junk) == {}
