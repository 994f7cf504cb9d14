"""What scenarios put on a token: keys and certificates of their own, made afresh, and NSS's templates for them.

The cryptography library is the witness: what a module signs, wraps or derives is checked with it, and with nothing of
the module's own.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.x509.oid import NameOID

from keyfob.nss.driver import Template
from keyfob.nss.options import LABEL
from keyfob.spec.constants import CKA, CKC, CKF, CKK, CKM, CKO, CKT

P256 = bytes.fromhex("06082a8648ce3d030107")
"""CKA_EC_PARAMS: the named curve's OID."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


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


def identifier(key: PrivateKey) -> bytes:
    """NSS's CKA_ID of a key (O10)."""
    return identifier_of(key.public_key())


def identifier_of(key: PublicKey) -> bytes:
    """SHA-1 of the modulus, the uncompressed point, or Ed25519's value."""
    if isinstance(key, rsa.RSAPublicKey):
        value = number(key.public_numbers().n)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        value = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    else:
        value = key.public_bytes_raw()
    return _digest(hashes.SHA1(), value)  # noqa: S303 - a name, not a signature


def pkcs8(key: PrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())


def is_pkcs8_of(key: PrivateKey, data: bytes) -> bool:
    """Whether `data` is PKCS #8 of this very key."""
    try:
        found = serialization.load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    if isinstance(found, rsa.RSAPrivateKey) and isinstance(key, rsa.RSAPrivateKey):
        return found.private_numbers().d == key.private_numbers().d and found.public_key() == key.public_key()
    if isinstance(found, ec.EllipticCurvePrivateKey) and isinstance(key, ec.EllipticCurvePrivateKey):
        return found.private_numbers() == key.private_numbers()
    return False


@dataclass(frozen=True, slots=True)
class Wrapping:
    """CBC with PKCS #7 padding, under which PKCS #12 files hold private keys. Lengths are in bytes."""

    name: str
    key_type: int
    mechanism: int
    key_length: int
    iv_length: int

    def new_key(self, length: int = 0) -> bytes:
        """Random; with odd parity for DES3, as NSS makes such keys."""
        value = os.urandom(length or self.key_length)
        if self.key_type != CKK.DES3:
            return value
        return bytes(byte & 0xFE | (byte >> 1).bit_count() % 2 ^ 1 for byte in value)

    def encrypted(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        padder = padding.PKCS7(self.iv_length * 8).padder()
        encryptor = self._cipher(key, iv).encryptor()
        return encryptor.update(padder.update(data) + padder.finalize()) + encryptor.finalize()

    def decrypted(self, key: bytes, iv: bytes, data: bytes) -> bytes | None:
        """None when it was not encrypted so."""
        unpadder = padding.PKCS7(self.iv_length * 8).unpadder()
        decryptor = self._cipher(key, iv).decryptor()
        try:
            padded = decryptor.update(data) + decryptor.finalize()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            return None

    def _cipher(self, key: bytes, iv: bytes) -> Cipher[modes.CBC]:
        return Cipher(TripleDES(key) if self.key_type == CKK.DES3 else algorithms.AES(key), modes.CBC(iv))


AES = Wrapping("AES", CKK.AES, CKM.AES_CBC_PAD, 32, 16)
DES3 = Wrapping("DES3", CKK.DES3, CKM.DES3_CBC_PAD, 24, 8)


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


def renewed(old: Certificate) -> Certificate:
    """Another certificate for the same key and subject."""
    return certificate("", old.key, x509.load_der_x509_certificate(old.value).subject)


def certificate(name: str, key: PrivateKey | None = None, subject: x509.Name | None = None) -> Certificate:
    """A certificate for `name`, with a subject (unless it is given) and a serial number that no other has."""
    key = key or ec_key()
    serial = int.from_bytes(b"\x4b" + os.urandom(8), "big")
    common_name = f"{LABEL}, {name}, {serial:x}"
    subject = subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
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
    """NSS's import of a public key (pk11wrap/pk11akey.c PK11_ImportPublicKey); only token objects get an ID."""
    head: list[tuple[int, bytes | bool | int | str]] = [(CKA.CLASS, CKO.PUBLIC_KEY)]
    head += [(CKA.KEY_TYPE, CKK.RSA if isinstance(key, rsa.RSAPrivateKey) else CKK.EC), (CKA.TOKEN, token)]
    if token:
        head.append((CKA.ID, identifier(key)))
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return [
            *head,
            *((CKA.WRAP, True), (CKA.ENCRYPT, True), (CKA.VERIFY, True)),
            *((CKA.MODULUS, number(numbers.n)), (CKA.PUBLIC_EXPONENT, number(numbers.e))),
        ]
    return [
        *head,
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


def private_key_template_of_3_116(key: rsa.RSAPrivateKey) -> Template:
    """The 22 attributes of an RSA key in NSS 3.116 to 3.124, TOKEN and PRIVATE twice (P1)."""
    older = private_key_template(key)
    twice = ((CKA.DECAPSULATE, False), (CKA.TOKEN, False), (CKA.PRIVATE, False))
    return [*older[:-3], *twice, *older[-3:]]


def key_bag_template(key: PrivateKey, label: str = LABEL) -> Template:
    """A key of PKCS #8 without encryption: a PKCS #12 key bag (pk11wrap/pk11pk12.c PK11_ImportAndReturnPrivateKey).

    An EC key comes with its point, raw (P33).
    """
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    head: list[tuple[int, bytes | bool | int | str]] = [
        *((CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.RSA if is_rsa else CKK.EC), (CKA.TOKEN, True)),
        *((CKA.SENSITIVE, True), (CKA.PRIVATE, True)),
    ]
    if isinstance(key, rsa.RSAPrivateKey):
        components = rsa_components(key)
        return [
            *head,
            *((CKA.UNWRAP, True), (CKA.DECRYPT, True), (CKA.SIGN, True), (CKA.SIGN_RECOVER, True)),
            *((CKA.ID, identifier(key)), (CKA.LABEL, label)),
            *(components[0], components[2], components[1], *components[3:]),
        ]
    value = key.private_numbers().private_value.to_bytes(32, "big")
    return [
        *head,
        *((CKA.SIGN, True), (CKA.SIGN_RECOVER, False), (CKA.DERIVE, True)),
        *((CKA.LABEL, label), (CKA.ID, identifier(key))),
        *((CKA.EC_PARAMS, P256), (CKA.VALUE, value), (CKA.EC_POINT, point(key))),
    ]


def unwrap_template(key: PrivateKey, label: str = LABEL) -> Template:
    """What a private key of a PKCS #12 file is unwrapped with (pk11wrap/pk11obj.c PK11_UnwrapPrivKey)."""
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    usages = (CKA.UNWRAP, CKA.DECRYPT, CKA.SIGN, CKA.SIGN_RECOVER) if is_rsa else (CKA.SIGN, CKA.DERIVE)
    return [
        *((CKA.TOKEN, True), (CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.RSA if is_rsa else CKK.EC)),
        *((CKA.PRIVATE, True), (CKA.SENSITIVE, True), (CKA.LABEL, label), (CKA.ID, identifier(key))),
        *((usage, True) for usage in usages),
    ]


def secret_key_template(key_type: int, usage: int, value: bytes) -> Template:
    """A session key from raw data (pk11wrap/pk11skey.c pk11_ImportSymKeyWithTempl)."""
    return [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type), (usage, True), (CKA.VALUE, value)]


def pair_templates(parameters: Template, flags: int, *asked: tuple[int, bool]) -> tuple[Template, Template]:
    """certutil -G (pk11wrap/pk11akey.c PK11_GenerateKeyPairWithOpFlags): every usage is written, true or false.

    `flags` are the CKF_* that C_GetMechanismInfo gave; `asked` is what a user adds (--keyAttrFlags extractable).
    """

    def use(attribute: int, flag: int) -> tuple[int, bool]:
        return attribute, bool(flags & flag)

    public: Template = [
        *parameters,
        (CKA.TOKEN, True),
        *(use(CKA.DERIVE, CKF.DERIVE), use(CKA.WRAP, CKF.WRAP), use(CKA.VERIFY, CKF.VERIFY)),
        *(use(CKA.VERIFY_RECOVER, CKF.VERIFY_RECOVER), use(CKA.ENCRYPT, CKF.ENCRYPT)),
        *([(CKA.ENCAPSULATE, True)] if flags & CKF.ENCAPSULATE else []),
    ]
    private: Template = [
        *((CKA.TOKEN, True), (CKA.PRIVATE, True), (CKA.SENSITIVE, True), *asked),
        *(use(CKA.DERIVE, CKF.DERIVE), use(CKA.UNWRAP, CKF.UNWRAP)),
        *(use(CKA.SIGN, CKF.SIGN), use(CKA.DECRYPT, CKF.DECRYPT)),
        *([(CKA.DECAPSULATE, True)] if flags & CKF.DECAPSULATE else []),
    ]
    return public, private


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
