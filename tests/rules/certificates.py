"""Certificates for keys on a token. Who signed them does not matter to a token, so a key of the test does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from itertools import count

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

ISSUER = ec.generate_private_key(ec.SECP256R1())
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_serials = count(1000)


def make_certificate(
    modulus: bytes = b"",
    exponent: bytes = b"",
    *,
    name: str = "somebody",
    subject_mail: str | None = None,
    mails: Sequence[str] = (),
    serial: int | None = None,
) -> bytes:
    """DER of a certificate of this RSA key (of the issuer's EC key without one).

    `subject_mail`: the subject's emailAddress; `mails`: rfc822Names in the subjectAltName.
    """
    key: object = ISSUER.public_key()
    if modulus:
        numbers = RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big"))
        key = numbers.public_key()
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if subject_mail is not None:
        subject.append(x509.NameAttribute(NameOID.EMAIL_ADDRESS, subject_mail))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")]))
        .public_key(key)  # type: ignore[arg-type]  # one of the two above
        .serial_number(next(_serials) if serial is None else serial)
        .not_valid_before(START)
        .not_valid_after(START + dt.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if mails:
        directory = x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, "Directory@Example.org")])
        names = [x509.DNSName("example.org"), *map(x509.RFC822Name, mails), x509.DirectoryName(directory)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(ISSUER, hashes.SHA256()).public_bytes(Encoding.DER)
