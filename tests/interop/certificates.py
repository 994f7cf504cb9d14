"""A certificate authority for one test run: it certifies a server's key, and keys that stay on a token."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PublicKeyTypes

_LIFE = dt.timedelta(days=2)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Authority:
    """A CA with a P-256 key in memory. Every certificate gets a subject of its own, as NSS needs to tell them apart."""

    def __init__(self, common_name: str = "keyfob interop CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(common_name)
        builder = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = builder.sign(self._key, hashes.SHA256())

    def _builder(self, subject: x509.Name, key: CertificatePublicKeyTypes) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + _LIFE)
        )

    def _leaf(
        self,
        subject: str,
        key: CertificatePublicKeyTypes,
        usage: x509.ObjectIdentifier,
        *,
        key_encipherment: bool = False,
        key_agreement: bool = False,
    ) -> x509.CertificateBuilder:
        key_usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=key_encipherment,
            data_encipherment=False,
            key_agreement=key_agreement,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        return (
            self._builder(_name(subject), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )

    def client(self, common_name: str, key: PublicKeyTypes) -> x509.Certificate:
        """Certificate for TLS client authentication with the private key that belongs to `key`, wherever that lives."""
        assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)
        return self._leaf(common_name, key, ExtendedKeyUsageOID.CLIENT_AUTH).sign(self._key, hashes.SHA256())

    def mail(self, common_name: str, address: str, key: PublicKeyTypes) -> x509.Certificate:
        """Certificate for signing and decrypting the e-mail of `address`."""
        assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
        is_rsa = isinstance(key, rsa.RSAPublicKey)
        builder = self._leaf(
            common_name,
            key,
            ExtendedKeyUsageOID.EMAIL_PROTECTION,
            key_encipherment=is_rsa,
            key_agreement=not is_rsa,
        )
        names = x509.SubjectAlternativeName([x509.RFC822Name(address)])
        return builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256())

    def write_server(self, file: Path) -> None:
        """Write key and certificate of a TLS server on loopback into one PEM `file`, as Python's ssl wants it."""
        key = ec.generate_private_key(ec.SECP256R1())
        loopback = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        builder = self._leaf("localhost", key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = builder.add_extension(loopback, critical=False).sign(self._key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + certificate.public_bytes(Encoding.PEM))

    def write(self, file: Path) -> None:
        """Write the CA's own certificate into the PEM `file`."""
        file.write_bytes(self.certificate.public_bytes(Encoding.PEM))
