"""The objects of the benchmark: one RSA and one EC key, the same for all modules and the baseline, and their templates.

A template is a dict of CKA_* -> bytes as C sees them, written on p11bench's command line by `words`.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keyfob.spec.constants import CKA, CKK, CKO

if TYPE_CHECKING:
    from pathlib import Path

Template = dict[int, bytes]

TRUE, FALSE = b"\x01", b"\x00"
P256 = bytes.fromhex("06082a8648ce3d030107")  # the DER object identifier of prime256v1
RSA_ID = b"bench RSA key 20 oct"  # as long as the SHA-1 values that NSS uses
EC_ID = b"bench EC key 20 byte"
DIGEST = bytes(range(32))
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420") + DIGEST  # 51 bytes: SHA-256's, as TLS signs


def ulong(value: int) -> bytes:
    """A CK_ULONG."""
    return struct.pack("@L", value)


def words(template: Template) -> str:
    """A template in p11bench's notation: TYPE=VALUE, hexadecimal, "-" for an empty value."""
    return " ".join(f"{attribute:x}={value.hex() or '-'}" for attribute, value in template.items())


def _integer(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


class Keys:
    """Two fresh private keys."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())

    def write_pem(self, folder: Path) -> tuple[Path, Path]:
        """Both keys as PEM files for the baseline: (RSA, EC). The folder must be private."""
        files = []
        for name, key in (("rsa.pem", self.rsa), ("ec.pem", self.ec)):
            file = folder / name
            file.touch(mode=0o600)
            file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            files.append(file)
        return files[0], files[1]

    def rsa_private(self, *, token: bool) -> Template:
        """The RSA private key, sensitive and not extractable, for C_CreateObject."""
        numbers = self.rsa.private_numbers()
        return {
            **_private(CKK.RSA, RSA_ID, token=token),
            CKA.MODULUS: _integer(numbers.public_numbers.n),
            CKA.PUBLIC_EXPONENT: _integer(numbers.public_numbers.e),
            CKA.PRIVATE_EXPONENT: _integer(numbers.d),
            CKA.PRIME_1: _integer(numbers.p),
            CKA.PRIME_2: _integer(numbers.q),
            CKA.EXPONENT_1: _integer(numbers.dmp1),
            CKA.EXPONENT_2: _integer(numbers.dmq1),
            CKA.COEFFICIENT: _integer(numbers.iqmp),
        }

    def ec_private(self, *, token: bool) -> Template:
        """The P-256 private key, likewise."""
        value = self.ec.private_numbers().private_value.to_bytes(32, "big")
        return {**_private(CKK.EC, EC_ID, token=token), CKA.EC_PARAMS: P256, CKA.VALUE: value}

    def ec_public(self) -> Template:
        """A P-256 public key on the token without a CKA_ID: what a population is made of.

        Of the classes that all modules store (softoken refuses data objects on the token) this is the smallest.
        """
        point = self.ec.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {
            CKA.CLASS: ulong(CKO.PUBLIC_KEY),
            CKA.KEY_TYPE: ulong(CKK.EC),
            CKA.TOKEN: TRUE,
            CKA.PRIVATE: FALSE,
            CKA.VERIFY: TRUE,
            CKA.EC_PARAMS: P256,
            CKA.EC_POINT: bytes((4, len(point))) + point,
        }


def _private(key_type: int, key_id: bytes, *, token: bool) -> Template:
    return {
        CKA.CLASS: ulong(CKO.PRIVATE_KEY),
        CKA.KEY_TYPE: ulong(key_type),
        CKA.TOKEN: TRUE if token else FALSE,
        CKA.PRIVATE: TRUE,
        CKA.SENSITIVE: TRUE,
        CKA.EXTRACTABLE: FALSE,
        CKA.SIGN: TRUE,
        # The session's copy must not be found in place of the token's key.
        CKA.ID: key_id if token else b"copy of " + key_id[:12],
        CKA.LABEL: key_id,
    }


def key_of_id(key_id: bytes) -> Template:
    """How NSS asks for the private key of a certificate: {CKA_ID, CKA_CLASS}."""
    return {CKA.ID: key_id, CKA.CLASS: ulong(CKO.PRIVATE_KEY)}


def aes_session_key() -> Template:
    """A random AES-128 key that lives as long as the session."""
    return {
        CKA.CLASS: ulong(CKO.SECRET_KEY),
        CKA.KEY_TYPE: ulong(CKK.AES),
        CKA.TOKEN: FALSE,
        CKA.ENCRYPT: TRUE,
        CKA.VALUE: os.urandom(16),
    }


def generated_public(parameters: Template) -> Template:
    """The public half's template of a key pair generated on the token."""
    return {CKA.TOKEN: TRUE, CKA.VERIFY: TRUE, CKA.ID: b"bench generated pair", **parameters}


def generated_private() -> Template:
    """The private half's template: a durable, sensitive signing key."""
    return {
        CKA.TOKEN: TRUE,
        CKA.PRIVATE: TRUE,
        CKA.SENSITIVE: TRUE,
        CKA.SIGN: TRUE,
        CKA.ID: b"bench generated pair",
    }
