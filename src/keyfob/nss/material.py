"""What scenarios put on a token: keys and certificates of their own, made afresh, and NSS's templates for them.

The cryptography library is the witness: what a module signs, wraps or derives is checked with it, and with nothing of
the module's own.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from keyfob.nss.driver import Template
from keyfob.nss.options import LABEL
from keyfob.spec.constants import CKA, CKC, CKK, CKM, CKO, CKT

P256 = bytes.fromhex("06082a8648ce3d030107")
"""CKA_EC_PARAMS: the named curve's OID."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def number(value: int) -> bytes:
    """Unsigned, big-endian, without leading zeros, as NSS sends numbers (N9)."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def ulong(value: int) -> bytes:
    """A CK_ULONG as it lies in memory."""
    return value.to_bytes(8, "little")


def octet_string(value: bytes) -> bytes:
    """DER of an OCTET STRING below 128 bytes: CKA_EC_POINT's outer form."""
    return bytes((4, len(value))) + value


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public point, uncompressed."""
    form = serialization.PublicFormat.UncompressedPoint
    return key.public_key().public_bytes(serialization.Encoding.X962, form)


def public_value(key: PrivateKey) -> bytes:
    """What NSS hashes to CKA_ID (O10): the modulus, or the uncompressed point."""
    return number(key.public_key().public_numbers().n) if isinstance(key, rsa.RSAPrivateKey) else point(key)


def identifier(key: PrivateKey) -> bytes:
    """NSS's CKA_ID of a key: SHA-1 of the public value (O10)."""
    digest = hashes.Hash(hashes.SHA1())  # noqa: S303 - a name, not a signature
    digest.update(public_value(key))
    return digest.finalize()


def pkcs8(key: PrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate and what NSS takes from it."""

    key: PrivateKey
    value: bytes
    subject: bytes
    serial: int

    @property
    def raw_serial(self) -> bytes:
        """The serial number's bytes alone."""
        return self.serial.to_bytes(self.serial.bit_length() // 8 + 1, "big")

    @property
    def der_serial(self) -> bytes:
        """The serial number as a DER INTEGER."""
        return bytes((2, len(self.raw_serial))) + self.raw_serial

    @property
    def id(self) -> bytes:
        return identifier(self.key)


def certificate(name: str, key: PrivateKey | None = None) -> Certificate:
    """A certificate for `name`, with a subject and a serial number that no other has."""
    key = key or ec_key()
    serial = int.from_bytes(b"\x4b" + os.urandom(8), "big")
    common_name = f"{LABEL}, {name}, {serial:x}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    return Certificate(key, built.public_bytes(serialization.Encoding.DER), subject.public_bytes(), serial)


# NSS's templates, attribute by attribute in its order (recorded)


def certificate_template(made: Certificate, label: str = LABEL, *, identifier: bytes | None = None) -> Template:
    """The nine attributes (O8; dev/devtoken.c nssToken_ImportCertificate)."""
    return [
        (CKA.TOKEN, True),
        (CKA.CLASS, CKO.CERTIFICATE),
        (CKA.CERTIFICATE_TYPE, CKC.X_509),
        (CKA.ID, made.id if identifier is None else identifier),
        (CKA.LABEL, label),
        (CKA.VALUE, made.value),
        (CKA.ISSUER, made.subject),
        (CKA.SUBJECT, made.subject),
        (CKA.SERIAL_NUMBER, made.der_serial),
    ]


def public_key_template(key: PrivateKey, *, token: bool = True) -> Template:
    """NSS's import of a public key (pk11wrap/pk11akey.c PK11_ImportPublicKey)."""
    head: list[tuple[int, bytes | bool | int | str]] = [(CKA.CLASS, CKO.PUBLIC_KEY)]
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return [
            *head,
            *((CKA.KEY_TYPE, CKK.RSA), (CKA.TOKEN, token), (CKA.ID, identifier(key))),
            *((CKA.WRAP, True), (CKA.ENCRYPT, True), (CKA.VERIFY, True)),
            *((CKA.MODULUS, number(numbers.n)), (CKA.PUBLIC_EXPONENT, number(numbers.e))),
        ]
    return [
        *head,
        *((CKA.KEY_TYPE, CKK.EC), (CKA.TOKEN, token), (CKA.ID, identifier(key))),
        *((CKA.VERIFY, True), (CKA.DERIVE, True)),
        *((CKA.EC_PARAMS, P256), (CKA.EC_POINT, octet_string(point(key)))),
    ]


def private_key_template(key: PrivateKey, *, extractable: bool | None = None) -> Template:
    """The 19 attributes of an RSA key and the 10 of an EC key (pk11wrap/pk11akey.c pk11_loadPrivKeyWithFlags)."""
    tail: list[tuple[int, bytes | bool | int | str]] = [(CKA.TOKEN, True), (CKA.PRIVATE, True), (CKA.SENSITIVE, True)]
    if extractable is not None:
        tail.append((CKA.EXTRACTABLE, extractable))
    if isinstance(key, rsa.RSAPrivateKey):
        return [
            *((CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.RSA), (CKA.ID, identifier(key))),
            *rsa_components(key),
            *((CKA.DECRYPT, True), (CKA.DERIVE, False), (CKA.SIGN, True), (CKA.SIGN_RECOVER, True)),
            (CKA.UNWRAP, True),
            *tail,
        ]
    value = key.private_numbers().private_value.to_bytes(32, "big")
    return [
        *((CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.EC), (CKA.ID, identifier(key))),
        *((CKA.EC_PARAMS, P256), (CKA.VALUE, value), (CKA.DERIVE, True), (CKA.SIGN, True)),
        *tail,
    ]


def rsa_components(key: rsa.RSAPrivateKey) -> Template:
    numbers = key.private_numbers()
    return [
        (CKA.MODULUS, number(numbers.public_numbers.n)),
        (CKA.PRIVATE_EXPONENT, number(numbers.d)),
        (CKA.PUBLIC_EXPONENT, number(numbers.public_numbers.e)),
        (CKA.PRIME_1, number(numbers.p)),
        (CKA.PRIME_2, number(numbers.q)),
        (CKA.EXPONENT_1, number(numbers.dmp1)),
        (CKA.EXPONENT_2, number(numbers.dmq1)),
        (CKA.COEFFICIENT, number(numbers.iqmp)),
    ]


def nss_trust_template(made: Certificate, server_auth: int = CKT.NSS_TRUSTED_DELEGATOR) -> Template:
    """CKO_NSS_TRUST's eleven attributes (dev/devtoken.c nssToken_ImportTrust)."""
    return [
        (CKA.TOKEN, True),
        (CKA.CLASS, CKO.NSS_TRUST),
        (CKA.ISSUER, made.subject),
        (CKA.SERIAL_NUMBER, made.der_serial),
        (CKA.NSS_CERT_SHA1_HASH, _digest(hashes.SHA1(), made.value)),  # noqa: S303 - NSS's
        (CKA.NSS_CERT_MD5_HASH, _digest(hashes.MD5(), made.value)),  # noqa: S303 - NSS's
        (CKA.NSS_TRUST_SERVER_AUTH, server_auth),
        (CKA.NSS_TRUST_CLIENT_AUTH, CKT.NSS_MUST_VERIFY_TRUST),
        (CKA.NSS_TRUST_CODE_SIGNING, CKT.NSS_MUST_VERIFY_TRUST),
        (CKA.NSS_TRUST_EMAIL_PROTECTION, CKT.NSS_MUST_VERIFY_TRUST),
        (CKA.NSS_TRUST_STEP_UP_APPROVED, False),
    ]


def trust_template(made: Certificate, server_auth: int) -> Template:
    """CKO_TRUST's ten attributes, for modules whose list is 3.2 (dev/devtoken.c nssToken_ImportTrust)."""
    return [
        (CKA.TOKEN, True),
        (CKA.CLASS, CKO.TRUST),
        (CKA.ISSUER, made.subject),
        (CKA.SERIAL_NUMBER, made.der_serial),
        (CKA.HASH_OF_CERTIFICATE, _digest(hashes.SHA256(), made.value)),
        (CKA.NAME_HASH_ALGORITHM, CKM.SHA256),
        (CKA.TRUST_SERVER_AUTH, server_auth),
        (CKA.TRUST_CLIENT_AUTH, CKT.TRUST_MUST_VERIFY_TRUST),
        (CKA.TRUST_CODE_SIGNING, CKT.TRUST_MUST_VERIFY_TRUST),
        (CKA.TRUST_EMAIL_PROTECTION, CKT.TRUST_MUST_VERIFY_TRUST),
    ]


def _digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()
