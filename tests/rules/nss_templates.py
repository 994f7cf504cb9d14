"""The templates that NSS sends, attribute by attribute in its order, as recorded from NSS 3.87 and 3.124.

Where NSS fills in values of a key, the function takes a key of `cryptography`. Big numbers are unsigned big-endian
without leading zeros, as NSS makes them before it sends them (pk11_SignedToUnsigned). `identity` is CKA_ID; where it
is not given, it is what NSS computes (nss_calls.key_id).
"""

from __future__ import annotations

from hashlib import md5, sha1, sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyfob.spec.constants import CKA, CKC, CKK, CKM, CKO
from tests.client import P256, Template
from tests.rules.nss_calls import key_id

P384, P521 = bytes.fromhex("06052b81040022"), bytes.fromhex("06052b81040023")
CURVES: dict[bytes, ec.EllipticCurve] = {P256: ec.SECP256R1(), P384: ec.SECP384R1(), P521: ec.SECP521R1()}
F4 = b"\x01\x00\x01"

NSS_TRUSTED, NSS_TRUSTED_DELEGATOR = 0xCE534351, 0xCE534352
NSS_MUST_VERIFY, NSS_NOT_TRUSTED = 0xCE534353, 0xCE53435A
TRUST_TRUSTED, TRUST_ANCHOR, TRUST_NOT_TRUSTED, TRUST_MUST_VERIFY = 1, 2, 3, 4


def unsigned(number: int) -> bytes:
    return number.to_bytes(max((number.bit_length() + 7) // 8, 1))


def components(key: rsa.RSAPrivateKey) -> dict[int, bytes]:
    """The eight components of an RSA private key."""
    numbers = key.private_numbers()
    return {
        CKA.MODULUS: unsigned(numbers.public_numbers.n),
        CKA.PUBLIC_EXPONENT: unsigned(numbers.public_numbers.e),
        CKA.PRIVATE_EXPONENT: unsigned(numbers.d),
        CKA.PRIME_1: unsigned(numbers.p),
        CKA.PRIME_2: unsigned(numbers.q),
        CKA.EXPONENT_1: unsigned(numbers.dmp1),
        CKA.EXPONENT_2: unsigned(numbers.dmq1),
        CKA.COEFFICIENT: unsigned(numbers.iqmp),
    }


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The uncompressed point, raw."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def octet_string(value: bytes) -> bytes:
    """The DER OCTET STRING in which CKA_EC_POINT holds a point."""
    return b"\x04" + (bytes([len(value)]) if len(value) < 128 else bytes([0x81, len(value)])) + value


def curve_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """CKA_EC_PARAMS: the curve's OID."""
    return next(oid for oid, curve in CURVES.items() if curve.name == key.curve.name)


def scalar(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private value, as long as the curve's field."""
    return key.private_numbers().private_value.to_bytes((key.curve.key_size + 7) // 8)


def identity_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key_id(point(key) if isinstance(key, ec.EllipticCurvePrivateKey) else components(key)[CKA.MODULUS])


# Key generation (PK11_GenerateKeyPairWithOpFlags)


def rsa_pair(bits: int = 2048, *, verify: bool = True, unwrap: bool = True) -> tuple[Template, Template]:
    """certutil -G -k rsa; verify and unwrap are false where NSS had to guess what CKM_RSA_PKCS can do."""
    public: Template = [
        (CKA.MODULUS_BITS, bits),
        (CKA.PUBLIC_EXPONENT, F4),
        (CKA.TOKEN, True),
        (CKA.DERIVE, False),
        (CKA.WRAP, True),
        (CKA.VERIFY, verify),
        (CKA.VERIFY_RECOVER, not verify),
        (CKA.ENCRYPT, True),
    ]
    return public, private_of_pair((CKA.DERIVE, False), (CKA.UNWRAP, unwrap), (CKA.SIGN, True), (CKA.DECRYPT, True))


def ec_pair(curve: bytes = P256) -> tuple[Template, Template]:
    """certutil -G -k ec."""
    public: Template = [
        (CKA.EC_PARAMS, curve),
        (CKA.TOKEN, True),
        (CKA.DERIVE, True),
        (CKA.WRAP, False),
        (CKA.VERIFY, True),
        (CKA.VERIFY_RECOVER, False),
        (CKA.ENCRYPT, False),
    ]
    return public, private_of_pair((CKA.DERIVE, True), (CKA.UNWRAP, False), (CKA.SIGN, True), (CKA.DECRYPT, False))


def private_of_pair(*usages: tuple[int, bool], asked: Template = ()) -> Template:
    """A pair's private template: what the token is to hold, what --keyAttrFlags `asked` for, and the usages."""
    return [(CKA.TOKEN, True), (CKA.PRIVATE, True), (CKA.SENSITIVE, True), *asked, *usages]


# Private keys made elsewhere (pk11_loadPrivKeyWithFlags, PK11_ImportAndReturnPrivateKey)


def rsa_private_key(key: rsa.RSAPrivateKey, identity: bytes | None = None) -> Template:
    """The 19 attributes of NSS up to 3.115."""
    return [
        *_rsa_private_key(key, identity),
        (CKA.TOKEN, True),
        (CKA.PRIVATE, True),
        (CKA.SENSITIVE, True),
    ]


def rsa_private_key_twice_said(key: rsa.RSAPrivateKey, identity: bytes | None = None) -> Template:
    """The 22 attributes of NSS 3.116 to 3.124: CKA_DECAPSULATE, and CKA_TOKEN and CKA_PRIVATE false before true."""
    return [
        *_rsa_private_key(key, identity),
        (CKA.DECAPSULATE, False),
        (CKA.TOKEN, False),
        (CKA.PRIVATE, False),
        (CKA.TOKEN, True),
        (CKA.PRIVATE, True),
        (CKA.SENSITIVE, True),
    ]


def _rsa_private_key(key: rsa.RSAPrivateKey, identity: bytes | None) -> Template:
    has = components(key)
    factors = (CKA.PRIME_1, CKA.PRIME_2, CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT)
    order = (CKA.MODULUS, CKA.PRIVATE_EXPONENT, CKA.PUBLIC_EXPONENT, *factors)
    return [
        (CKA.CLASS, CKO.PRIVATE_KEY),
        (CKA.KEY_TYPE, CKK.RSA),
        (CKA.ID, identity_of(key) if identity is None else identity),
        *((attribute, has[attribute]) for attribute in order),
        (CKA.DECRYPT, True),
        (CKA.DERIVE, False),
        (CKA.SIGN, True),
        (CKA.SIGN_RECOVER, True),
        (CKA.UNWRAP, True),
    ]


def ec_private_key(key: ec.EllipticCurvePrivateKey, identity: bytes | None = None) -> Template:
    """The 10 attributes."""
    return [
        (CKA.CLASS, CKO.PRIVATE_KEY),
        (CKA.KEY_TYPE, CKK.EC),
        (CKA.ID, identity_of(key) if identity is None else identity),
        (CKA.EC_PARAMS, curve_of(key)),
        (CKA.VALUE, scalar(key)),
        (CKA.DERIVE, True),
        (CKA.SIGN, True),
        (CKA.TOKEN, True),
        (CKA.PRIVATE, True),
        (CKA.SENSITIVE, True),
    ]


def rsa_key_bag(key: rsa.RSAPrivateKey, label: str = "") -> Template:
    """An RSA key from a PKCS #8 key that is not encrypted; the label stands only if there is a nickname."""
    return [
        *_key_bag(CKK.RSA),
        (CKA.UNWRAP, True),
        (CKA.DECRYPT, True),
        (CKA.SIGN, True),
        (CKA.SIGN_RECOVER, True),
        (CKA.ID, identity_of(key)),
        *_label(label),
        *components(key).items(),
    ]


def ec_key_bag(key: ec.EllipticCurvePrivateKey, label: str = "") -> Template:
    """An EC key from a PKCS #8 key that is not encrypted: the public point is on the private key, and raw."""
    return [
        *_key_bag(CKK.EC),
        (CKA.SIGN, True),
        (CKA.SIGN_RECOVER, False),
        (CKA.DERIVE, True),
        *_label(label),
        (CKA.ID, identity_of(key)),
        (CKA.EC_PARAMS, curve_of(key)),
        (CKA.VALUE, scalar(key)),
        (CKA.EC_POINT, point(key)),
    ]


def edwards_key_bag(curve: bytes, value: bytes) -> Template:
    """An Ed25519 key from a PKCS #8 key: without CKA_ID."""
    return [*_key_bag(CKK.EC_EDWARDS), (CKA.SIGN, True), (CKA.EC_PARAMS, curve), (CKA.VALUE, value)]


def _key_bag(key_type: int) -> Template:
    return [
        (CKA.CLASS, CKO.PRIVATE_KEY),
        (CKA.KEY_TYPE, key_type),
        (CKA.TOKEN, True),
        (CKA.SENSITIVE, True),
        (CKA.PRIVATE, True),
    ]


def _label(label: str) -> Template:
    return [(CKA.LABEL, label)] if label else []


# Public keys (PK11_ImportPublicKey)


def rsa_public_key(key: rsa.RSAPrivateKey, *, token: bool = True) -> Template:
    return [
        *_public_key(CKK.RSA, identity_of(key), token=token),
        (CKA.WRAP, True),
        (CKA.ENCRYPT, True),
        (CKA.VERIFY, True),
        (CKA.MODULUS, components(key)[CKA.MODULUS]),
        (CKA.PUBLIC_EXPONENT, components(key)[CKA.PUBLIC_EXPONENT]),
    ]


def ec_public_key(key: ec.EllipticCurvePrivateKey, *, token: bool = True, raw: bool = False) -> Template:
    """`raw`: the point as NSS sends it under NSS_USE_DECODED_CKA_EC_POINT."""
    return [
        *_public_key(CKK.EC, identity_of(key), token=token),
        (CKA.VERIFY, True),
        (CKA.DERIVE, True),
        (CKA.EC_PARAMS, curve_of(key)),
        (CKA.EC_POINT, point(key) if raw else octet_string(point(key))),
    ]


def _public_key(key_type: int, identity: bytes, *, token: bool) -> Template:
    """NSS sends CKA_ID only with token objects."""
    head: Template = [(CKA.CLASS, CKO.PUBLIC_KEY), (CKA.KEY_TYPE, key_type), (CKA.TOKEN, token)]
    return [*head, (CKA.ID, identity)] if token else head


# Keys that wrap, unwrap, decrypt


def session_key(key_type: int, usage: int, value: bytes) -> Template:
    """A secret key of raw data with the one usage that it is made for (PK11_ImportSymKey)."""
    return [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type), (usage, True), (CKA.VALUE, value)]


def unwrapped_secret(key_type: int, usage: int, size: int | None = None) -> Template:
    """What pk11_AnyUnwrapKey asks for."""
    head: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type), (usage, True)]
    return head if size is None else [*head, (CKA.VALUE_LEN, size)]


def unwrapped_private_key(key_type: int, label: str, identity: bytes) -> Template:
    """What pk12util -i asks of C_UnwrapKey (PK11_ImportEncryptedPrivateKeyInfo)."""
    usages = (CKA.UNWRAP, CKA.DECRYPT, CKA.SIGN, CKA.SIGN_RECOVER) if key_type == CKK.RSA else (CKA.SIGN, CKA.DERIVE)
    return [
        (CKA.TOKEN, True),
        (CKA.CLASS, CKO.PRIVATE_KEY),
        (CKA.KEY_TYPE, key_type),
        (CKA.PRIVATE, True),
        (CKA.SENSITIVE, True),
        (CKA.LABEL, label),
        (CKA.ID, identity),
        *((usage, True) for usage in usages),
    ]


def derived_secret(usage: int = CKA.WRAP, size: int = 32) -> Template:
    """What CMS asks of ECDH: a key that is to unwrap, with CKA_WRAP."""
    return [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (usage, True), (CKA.VALUE_LEN, size)]


PBE_KEY: Template = [
    (CKA.VALUE_LEN, 32),
    (CKA.KEY_TYPE, CKK.AES),
    (CKA.ENCRYPT, True),
    (CKA.DECRYPT, True),
    (CKA.SIGN, True),
    (CKA.WRAP, True),
    (CKA.UNWRAP, True),
]
TOKEN_SECRET: Template = [
    (CKA.VALUE_LEN, 32),
    (CKA.TOKEN, True),
    (CKA.PRIVATE, True),
    (CKA.ENCRYPT, True),
    (CKA.SIGN, True),
]


# Copies


SESSION_COPY: Template = [(CKA.TOKEN, False)]
TOKEN_COPY: Template = [(CKA.TOKEN, True)]


# Certificates and trust


def serial_der(certificate: x509.Certificate) -> bytes:
    """The serial number as a DER INTEGER."""
    value = serial_raw(certificate)
    return b"\x02" + bytes([len(value)]) + value


def serial_raw(certificate: x509.Certificate) -> bytes:
    """The content of the DER INTEGER."""
    number = certificate.serial_number
    return number.to_bytes(number.bit_length() // 8 + 1)


def certificate_object(certificate: x509.Certificate, identity: bytes, label: str) -> Template:
    """The 9 attributes, of which none says whether it is private (nssToken_ImportCertificate)."""
    return [
        (CKA.TOKEN, True),
        (CKA.CLASS, CKO.CERTIFICATE),
        (CKA.CERTIFICATE_TYPE, CKC.X_509),
        (CKA.ID, identity),
        (CKA.LABEL, label),
        (CKA.VALUE, certificate.public_bytes(Encoding.DER)),
        (CKA.ISSUER, certificate.issuer.public_bytes()),
        (CKA.SUBJECT, certificate.subject.public_bytes()),
        (CKA.SERIAL_NUMBER, serial_der(certificate)),
    ]


def nss_trust(
    certificate: x509.Certificate, server: int, client: int = NSS_MUST_VERIFY, mail: int = NSS_MUST_VERIFY
) -> Template:
    """The 11 attributes of CKO_NSS_TRUST."""
    value = certificate.public_bytes(Encoding.DER)
    return [
        (CKA.TOKEN, True),
        (CKA.CLASS, CKO.NSS_TRUST),
        (CKA.ISSUER, certificate.issuer.public_bytes()),
        (CKA.SERIAL_NUMBER, serial_der(certificate)),
        (CKA.NSS_CERT_SHA1_HASH, sha1(value).digest()),
        (CKA.NSS_CERT_MD5_HASH, md5(value).digest()),
        (CKA.NSS_TRUST_SERVER_AUTH, server),
        (CKA.NSS_TRUST_CLIENT_AUTH, client),
        (CKA.NSS_TRUST_CODE_SIGNING, NSS_MUST_VERIFY),
        (CKA.NSS_TRUST_EMAIL_PROTECTION, mail),
        (CKA.NSS_TRUST_STEP_UP_APPROVED, False),
    ]


def standard_trust(
    certificate: x509.Certificate, server: int, client: int = TRUST_MUST_VERIFY, mail: int = TRUST_MUST_VERIFY
) -> Template:
    """The 10 attributes of CKO_TRUST."""
    return [
        (CKA.TOKEN, True),
        (CKA.CLASS, CKO.TRUST),
        (CKA.ISSUER, certificate.issuer.public_bytes()),
        (CKA.SERIAL_NUMBER, serial_der(certificate)),
        (CKA.HASH_OF_CERTIFICATE, sha256(certificate.public_bytes(Encoding.DER)).digest()),
        (CKA.NAME_HASH_ALGORITHM, CKM.SHA256),
        (CKA.TRUST_SERVER_AUTH, server),
        (CKA.TRUST_CLIENT_AUTH, client),
        (CKA.TRUST_CODE_SIGNING, TRUST_MUST_VERIFY),
        (CKA.TRUST_EMAIL_PROTECTION, mail),
    ]


# Searches


def of_certificate(certificate: x509.Certificate, object_class: int, *, raw_serial: bool = False) -> Template:
    """A certificate, or what a token holds about its trust, by issuer and serial number."""
    serial = serial_raw(certificate) if raw_serial else serial_der(certificate)
    issuer = certificate.issuer.public_bytes()
    return [(CKA.TOKEN, True), (CKA.CLASS, object_class), (CKA.ISSUER, issuer), (CKA.SERIAL_NUMBER, serial)]


def of_id(identity: bytes, object_class: int) -> Template:
    """The key of a certificate, or the certificate of a key: without CKA_TOKEN."""
    return [(CKA.ID, identity), (CKA.CLASS, object_class)]
