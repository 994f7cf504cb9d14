"""Look at what the tools made with another eye than NSS's: pyca/cryptography's."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from demo.nss import StepFailedError, require

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes


def key_identifier(key: PublicKeyTypes) -> str:
    """Give the CKA_ID that NSS computes for a public key (O10), in hex: SHA-1 of the modulus, or of the point."""
    if isinstance(key, rsa.RSAPublicKey):
        material = key.public_numbers().n.to_bytes((key.key_size + 7) // 8)
    else:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise StepFailedError("the public key is neither RSA nor EC")
        material = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return hashlib.sha1(material, usedforsecurity=False).hexdigest()


def same_key(one: PublicKeyTypes, other: PublicKeyTypes) -> bool:
    """Say whether two public keys are the same."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return one.public_bytes(*form) == other.public_bytes(*form)


def subject_of(certificate: x509.Certificate) -> str:
    """Give the common name."""
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def require_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Fail the step unless ``issuer``'s key signed ``certificate``, checked without NSS."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        require(False, f"the signature of {subject_of(certificate)} does not verify with {subject_of(issuer)}'s key")


def read_request(pem: bytes) -> x509.CertificateSigningRequest:
    """Read a PKCS #10 request (certutil writes text around it) and fail the step unless its own signature is good."""
    request = x509.load_pem_x509_csr(pem[pem.index(b"-----BEGIN") :])
    require(request.is_signature_valid, "the signature of the request does not verify")
    return request


def certificate_of_key(pem: bytes) -> x509.Certificate:
    """Give that certificate of a PEM text to which the private key in it belongs; the step fails if there is none."""
    public = load_pem_private_key(pem, None).public_key()
    for certificate in x509.load_pem_x509_certificates(pem):
        if same_key(public, certificate.public_key()):
            return certificate
    raise StepFailedError("the private key belongs to none of the certificates beside it")


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and its self-signed certificate, made outside of NSS and of the token."""

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key in PEM, without encryption."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def pkcs12(self, name: str, password: str, *, aes: bool) -> bytes:
        """Give a PKCS #12 file: PBES2 with AES-256-CBC, or the PBE with SHA-1 and 3DES of old files."""
        builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(2048)
        if aes:
            builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC).hmac_hash(hashes.SHA256())
        else:
            builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC).hmac_hash(hashes.SHA1())
        encryption = builder.build(password.encode())
        return pkcs12.serialize_key_and_certificates(name.encode(), self.key, self.certificate, None, encryption)


def make_identity(name: str, *, elliptic: bool = False) -> Identity:
    """Make a key (RSA-2048, or P-256 if ``elliptic``) and a certificate that it signs itself, valid for a month."""
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    key = ec.generate_private_key(ec.SECP256R1()) if elliptic else rsa.generate_private_key(65537, 2048)
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Elsewhere"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    now = dt.datetime.now(dt.UTC)
    builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=30))
    return Identity(key, builder.sign(key, hashes.SHA256()))
