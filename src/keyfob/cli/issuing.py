"""Certificates and requests whose signature comes from a key on the token (RFC 5280, RFC 2986)."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyfob.cli import certificates, objects
from keyfob.cli.errors import Refusal
from keyfob.cli.token_key import TokenKey, hash_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# People write these in subjects; RFC 4514 has no short names for them.
MORE_NAMES = {"E": NameOID.EMAIL_ADDRESS, "emailAddress": NameOID.EMAIL_ADDRESS, "SN": NameOID.SURNAME}
# Around a comma that is not escaped and around "=": people write them, and OpenSSL does; RFC 4514 does not.
BLANKS = re.compile(r"(^|(?<!\\)[,+])\s*([\w.]+)\s*=\s*")
# --for: what an end entity's certificate is good for.
PURPOSES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "email": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "code": ExtendedKeyUsageOID.CODE_SIGNING,
}
# Clocks of those who check differ; a certificate counts from a little before it was made.
GRACE = dt.timedelta(minutes=5)
UNREADABLE = (ValueError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)
Extensions = list[tuple[x509.ExtensionType, bool]]


def subject_name(text: str) -> x509.Name:
    """The name that RFC 4514 text like "CN=Mary,O=Example" stands for; "CN = Mary, O = Example" does as well."""
    try:
        name = x509.Name.from_rfc4514_string(BLANKS.sub(r"\1\2=", text.strip()), MORE_NAMES)
    except ValueError:
        raise Refusal(f'--subject {text!r} is not a name like "CN=Mary,O=Example,C=CH"') from None
    if not list(name):
        raise Refusal("--subject is empty")
    return name


def alternative_names(
    dns: Iterable[str], ips: Iterable[str], emails: Iterable[str]
) -> x509.SubjectAlternativeName | None:
    names: list[x509.GeneralName] = []
    try:
        names += [x509.DNSName(name) for name in dns]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ips]
        names += [x509.RFC822Name(address) for address in emails]
    except ValueError as problem:
        raise Refusal(f"--dns, --ip or --email: {problem}") from None
    return x509.SubjectAlternativeName(names) if names else None


def request(key: TokenKey, subject: x509.Name, alternatives: x509.SubjectAlternativeName | None) -> bytes:
    """A PKCS #10 request in DER."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    made = builder.sign(key, hash_for(key))  # type: ignore[arg-type]  # None is right for Ed25519
    return made.public_bytes(Encoding.DER)


def self_signed(
    key: TokenKey,
    subject: x509.Name,
    alternatives: x509.SubjectAlternativeName | None,
    *,
    days: int,
    authority: bool,
    purposes: Sequence[str],
) -> bytes:
    """A certificate of the key by itself, in DER."""
    public = key.public_key()
    own = x509.SubjectKeyIdentifier.from_public_key(public)
    extensions: Extensions = [(own, False)]
    extensions += _constraints(public, authority=authority, path_length=None, purposes=purposes)
    if alternatives is not None:
        extensions.append((alternatives, False))
    return _signed(key, subject, subject, public, extensions, days=days, latest=None)


def issued(
    key: TokenKey,
    issuer: x509.Certificate,
    asked: x509.CertificateSigningRequest,
    *,
    days: int,
    authority: bool,
    purposes: Sequence[str],
) -> bytes:
    """A certificate for a request, in DER.

    Of the request only subject, public key and alternative names are taken: what the certificate is good for is the
    authority's to say.
    """
    public = asked.public_key()
    extensions: Extensions = [
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (_authority_identifier(issuer), False),
    ]
    extensions += _constraints(public, authority=authority, path_length=0, purposes=purposes)
    try:
        alternatives = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        extensions.append((alternatives.value, not list(asked.subject)))
    except x509.ExtensionNotFound:
        pass
    latest = issuer.not_valid_after_utc
    return _signed(key, issuer.subject, asked.subject, public, extensions, days=days, latest=latest)


def checked_request(data: bytes) -> x509.CertificateSigningRequest:
    """A PKCS #10 request, PEM or DER, whose signature proves that its sender has the key."""
    try:
        asked = x509.load_pem_x509_csr(data) if b"-----BEGIN" in data else x509.load_der_x509_csr(data)
        valid = asked.is_signature_valid
        # The library reads these when asked for them, and finds faults only then.
        _ = asked.subject, asked.extensions
    except UNREADABLE:
        raise Refusal("the request cannot be read: it should be PKCS #10, PEM or DER, of a usual key") from None
    if not valid:
        raise Refusal("the request's signature is wrong: whoever made it does not have the key, or it was changed")
    return asked


def authority_of(key: TokenKey) -> x509.Certificate:
    """The certificate of a key that may sign others."""
    for certificate in certificates.of_key(key.session, key.found):
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
            continue
        if constraints.ca:
            return certificate
    name = objects.label_of(key.found)
    raise Refusal(
        f"{name!r} has no certificate of an authority on the token (`keyfob cert self-sign ... --ca` makes one)"
    )


def _constraints(public: object, *, authority: bool, path_length: int | None, purposes: Sequence[str]) -> Extensions:
    result: Extensions = [
        (x509.BasicConstraints(ca=authority, path_length=path_length if authority else None), True),
        (
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=not authority and isinstance(public, rsa.RSAPublicKey),
                data_encipherment=False,
                key_agreement=not authority and isinstance(public, ec.EllipticCurvePublicKey),
                key_cert_sign=authority,
                crl_sign=authority,
                encipher_only=False,
                decipher_only=False,
            ),
            True,
        ),
    ]
    if purposes:
        result.append((x509.ExtendedKeyUsage([PURPOSES[purpose] for purpose in purposes]), False))
    return result


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The issuer's own identifier, so that both are the same whichever way it was computed."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]


def _signed(
    key: TokenKey,
    issuer: x509.Name,
    subject: x509.Name,
    public: object,
    extensions: Extensions,
    *,
    days: int,
    latest: dt.datetime | None,
) -> bytes:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    end = now + dt.timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(public)  # type: ignore[arg-type]  # whatever key type a request holds
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - GRACE)
        .not_valid_after(min(end, latest) if latest is not None else end)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    made = builder.sign(key, hash_for(key))  # type: ignore[arg-type]  # None is right for Ed25519
    return made.public_bytes(Encoding.DER)
