"""Key and certificate files: PEM, DER, PKCS #8 (RFC 5958), PKCS #12 (RFC 7292)."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import pkcs12

from keyfob.cli import apart, pkcs12_bags
from keyfob.cli.errors import Refusal
from keyfob.cli.pkcs12_ciphers import AES_256_CBC, HMAC_SHA256, PBES2, PBKDF2
from keyfob.mechanisms import der

Passphrase = Callable[[], bytes]
Named = list[tuple[str, bytes]]

PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
PEM_BEGIN = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----", re.MULTILINE)
CERTIFICATE_BLOCKS = (b"CERTIFICATE", b"X509 CERTIFICATE")
CURVE = b"EC PARAMETERS"  # OpenSSL writes it before a private key, which holds the same itself
# PBKDF2-HMAC-SHA-256 rounds under the passphrase of a file that holds a key.
ROUNDS = 600_000

NO_KEY = "the file holds no key, certificate or PKCS #12 that can be read"
CLOSED_KEY = "the key does not open: the passphrase is wrong, or the file is damaged"


class Bundle:
    """What a file holds: `keys` as (friendly name, PrivateKeyInfo), `certificates` as (friendly name, DER).

    `others`: what else there is, which is not imported, each with its number.
    """

    __slots__ = ("certificates", "keys", "others")

    def __init__(self) -> None:
        self.keys: Named = []
        self.certificates: Named = []
        self.others: dict[str, int] = {}


def certificates(data: bytes) -> list[bytes]:
    """The DER of every certificate in a PEM or DER file; other PEM blocks are passed over."""
    if b"-----BEGIN" in data:
        blocks = [match[0] for match in PEM_BLOCK.finditer(data) if match[1] in CERTIFICATE_BLOCKS]
        try:
            return [x509.load_pem_x509_certificate(block).public_bytes(serialization.Encoding.DER) for block in blocks]
        except (ValueError, x509.InvalidVersion):
            raise Refusal("a certificate of the file is damaged") from None
    try:
        return [x509.load_der_x509_certificate(data).public_bytes(serialization.Encoding.DER)]
    except (ValueError, x509.InvalidVersion):
        return []


def bundle(data: bytes, passphrase: Passphrase) -> Bundle:
    """Keys and certificates of a PEM bundle, a DER key or certificate, or PKCS #12; asks `passphrase` where needed."""
    _refuse_cut_off_blocks(data)
    result = Bundle()
    result.certificates = [("", found) for found in certificates(data)]
    if b"-----BEGIN" in data:
        for match in PEM_BLOCK.finditer(data):
            if match[1].endswith(b"PRIVATE KEY"):
                result.keys.append(
                    ("", _key("ssh" if match[1] == b"OPENSSH PRIVATE KEY" else "pem", match[0], passphrase))
                )
            elif match[1] not in (*CERTIFICATE_BLOCKS, CURVE):
                what = f"{match[1].decode()} block"
                result.others[what] = result.others.get(what, 0) + 1
    elif not result.certificates:
        if _is_pkcs12(data):
            _take_pkcs12(data, passphrase, result)
        else:
            result.keys.append(("", _key("der", data, passphrase)))
    return result


def _refuse_cut_off_blocks(data: bytes) -> None:
    """Whoever imports a file may delete it afterwards: a block whose end is missing is not passed over."""
    whole = {match.start() for match in PEM_BLOCK.finditer(data)}
    for begin in PEM_BEGIN.finditer(data):
        if begin.start() not in whole:
            raise Refusal(f"the file is damaged: its {begin[1].decode()} block has no end")


def _key(kind: str, data: bytes, passphrase: Passphrase) -> bytes:
    """PrivateKeyInfo in DER; our own reader says which key types the token takes."""
    info: bytes | None = apart.opened(kind, data, None)
    if info is None:
        info = apart.opened(kind, data, passphrase())
    assert info is not None  # with a passphrase it opens, or is refused
    return info


def _take_pkcs12(data: bytes, passphrase: Passphrase, result: Bundle) -> None:
    keys, result.certificates, (held, result.others) = apart.opened("pkcs12", data, passphrase())
    result.keys += keys
    if held > len(result.keys):
        raise Refusal(
            f"the PKCS #12 file holds {held} keys, and only one can be read of such a file: "
            "put each into a file of its own (pk12util -o, keytool -importkeystore -srcalias)"
        )


# What costs as much as the file says: apart.py runs it.


def opened(kind: str, data: bytes, secret: bytes | None) -> Any:
    """PrivateKeyInfo; None if it is encrypted.

    `pkcs12`: keys and certificates, each with its friendly name, and (how many keys there are, what else there is).
    """
    return _opened_pkcs12(data, secret) if kind == "pkcs12" else _opened_key(kind, data, secret)


def _opened_key(kind: str, data: bytes, secret: bytes | None) -> bytes | None:
    load: Callable[..., Any] = {
        "ssh": serialization.load_ssh_private_key,
        "pem": serialization.load_pem_private_key,
        "der": serialization.load_der_private_key,
    }[kind]
    try:
        return _info(load(data, secret))
    except TypeError:
        if secret is None:
            return None
        raise Refusal(CLOSED_KEY) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Refusal(NO_KEY if secret is None else CLOSED_KEY) from None


def _info(key: Any) -> bytes:
    try:
        info: bytes = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    except (ValueError, AttributeError):
        raise Refusal("the file holds a key of a type that PKCS #8 does not carry") from None
    return info


def _is_pkcs12(data: bytes) -> bool:
    """PFX ::= SEQUENCE { version INTEGER 3, authSafe SEQUENCE ... }, also in BER as Windows writes it."""
    return data[:1] == b"\x30" and b"\x02\x01\x03\x30" in data[1:12]


def _opened_pkcs12(data: bytes, secret: bytes | None) -> tuple[Named, Named, tuple[int, dict[str, int]]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NSS and Windows write BER, which the library reads and grumbles about
            found = pkcs12.load_pkcs12(data, secret or None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Refusal("the PKCS #12 file does not open: the passphrase is wrong, or the file is damaged") from None
    key_name = ""
    taken: Named = []
    for certificate in (found.cert, *found.additional_certs):
        if certificate is not None:
            name = (certificate.friendly_name or b"").decode(errors="replace")
            if certificate is found.cert:
                key_name = name
            taken.append((name, certificate.certificate.public_bytes(serialization.Encoding.DER)))
    held = pkcs12_bags.held(data, secret or b"")
    if held.certificates != len(taken):
        raise Refusal(f"the PKCS #12 file holds {held.certificates} certificates, of which {len(taken)} can be read")
    return [(key_name, _info(found.key))] if found.key is not None else [], taken, (held.keys, held.others)


def pem(label: str, value: bytes) -> bytes:
    """A PEM block (RFC 7468)."""
    import base64

    text = base64.b64encode(value)
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return b"\n".join((f"-----BEGIN {label}-----".encode(), *lines, f"-----END {label}-----".encode(), b""))


def encrypted_pkcs8(info: bytes, passphrase: bytes) -> bytes:
    """EncryptedPrivateKeyInfo: PBES2 with PBKDF2-HMAC-SHA-256 and AES-256-CBC (RFC 8018).

    Made here, since the library's own has 2048 rounds and no way to ask for more.
    """
    salt, iv = os.urandom(16), os.urandom(16)
    key = PBKDF2HMAC(algorithm=hashes.SHA256(), length=32, salt=salt, iterations=ROUNDS).derive(passphrase)
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(padder.update(info) + padder.finalize()) + encryptor.finalize()
    derivation = der.element(
        der.SEQUENCE,
        der.element(der.OCTET_STRING, salt),
        der.integer(ROUNDS),
        der.element(der.SEQUENCE, HMAC_SHA256, der.element(der.NULL)),
    )
    scheme = der.element(
        der.SEQUENCE,
        der.element(der.SEQUENCE, PBKDF2, derivation),
        der.element(der.SEQUENCE, AES_256_CBC, der.element(der.OCTET_STRING, iv)),
    )
    return der.element(der.SEQUENCE, der.element(der.SEQUENCE, PBES2, scheme), der.element(der.OCTET_STRING, sealed))


def pkcs12_file(name: str, info: bytes, chain: list[x509.Certificate], passphrase: bytes) -> bytes:
    """A PKCS #12 file of a key, its certificate (the first of the chain) and those above it."""
    key: Any = serialization.load_der_private_key(info, None)
    encryption = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(ROUNDS)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(passphrase)
    )
    try:
        return pkcs12.serialize_key_and_certificates(
            name.encode(), key, chain[0] if chain else None, chain[1:] or None, encryption
        )
    except TypeError:
        raise Refusal("PKCS #12 files hold no keys of this type: use --format pkcs8") from None
    except ValueError as problem:
        raise Refusal(f"no PKCS #12 file can be made of this: {problem}") from None
