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
from hypothesis import given
from hypothesis import strategies as st

from keyfob.spec.constants import CKA
from keyfob.token.certificate import attributes_of, other_serials

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


def with_names(subject: x509.Name, *extensions: x509.ExtensionType) -> bytes:
    key = KEYS["ec"]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2027, 1, 1, tzinfo=dt.UTC))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.SubjectAlternativeName))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


MAIL = x509.ObjectIdentifier("0.9.2342.19200300.100.1.3")  # RFC 1274


def test_addresses_stand_in_the_order_of_nss_each_once() -> None:
    subject = x509.Name(
        [
            x509.NameAttribute(MAIL, "Old@example.org"),
            x509.NameAttribute(NameOID.COMMON_NAME, "no@address.example"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "first@example.org"),
        ]
    )
    names = [
        x509.DNSName("example.org"),
        x509.RFC822Name("First@example.org"),
        x509.UniformResourceIdentifier("mailto:uri@example.org"),
        x509.RFC822Name("third@example.org"),
    ]
    value = with_names(subject, x509.BasicConstraints(ca=False, path_length=None), x509.SubjectAlternativeName(names))
    assert attributes_of(value)[CKA.NSS_EMAIL].split(b"\0") == [
        b"first@example.org",
        b"old@example.org",
        b"third@example.org",
    ]


def test_a_bound_on_addresses() -> None:
    names = x509.SubjectAlternativeName([x509.RFC822Name(f"a{i}@example.org") for i in range(100)])
    assert len(attributes_of(with_names(x509.Name([]), names))[CKA.NSS_EMAIL].split(b"\0")) == 32


@given(st.data())
def test_damage_anywhere_raises_nothing(data: st.DataObject) -> None:
    """Whatever stands in a value, attributes come out or they do not."""
    value = bytearray(WITH_ADDRESSES)
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    attributes_of(bytes(value[: data.draw(st.integers(0, len(value)))]))
    attributes_of(bytes(value))


WITH_ADDRESSES = with_names(
    x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.org")]),
    x509.SubjectAlternativeName([x509.RFC822Name("b@example.org")]),
)


@pytest.mark.parametrize(
    ("serial", "others"),
    [
        ("020105", ["05"]),
        ("05", ["020105"]),
        ("02040080ff01", ["0080ff01", "80ff01"]),
        ("80ff01", ["02040080ff01", "0080ff01"]),
        ("0080ff01", ["02040080ff01", "80ff01"]),
        ("00", ["020100"]),
        ("", ["020100", "00"]),
    ],
)
def test_other_ways_to_write_a_serial_number(serial: str, others: list[str]) -> None:
    assert other_serials(bytes.fromhex(serial)) == tuple(map(bytes.fromhex, others))
