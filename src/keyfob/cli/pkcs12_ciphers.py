"""Encryption under a passphrase as PKCS #12 files have it: PBES2 (RFC 8018), and PBES1 of RFC 7292, appendices B and C.

The library decrypts all of that, but hands out no more than the first key and the certificates. It has RC2 (RFC 2268)
with keys of 128 bits alone, and files of macOS and of older programs have their certificates under 40 bits.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4, TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from keyfob.mechanisms import der

if TYPE_CHECKING:
    from collections.abc import Iterator

PBES2 = der.object_identifier("1.2.840.113549.1.5.13")
PBKDF2 = der.object_identifier("1.2.840.113549.1.5.12")
HMAC_SHA256 = der.object_identifier("1.2.840.113549.2.9")
AES_256_CBC = der.object_identifier("2.16.840.1.101.3.4.1.42")
HASHES = {
    der.object_identifier("1.2.840.113549.2.7"): "sha1",
    der.object_identifier("1.2.840.113549.2.8"): "sha224",
    HMAC_SHA256: "sha256",
    der.object_identifier("1.2.840.113549.2.10"): "sha384",
    der.object_identifier("1.2.840.113549.2.11"): "sha512",
}
# Of PBES2, each with the length of its key.
CIPHERS: dict[bytes, tuple[str, int]] = {
    der.object_identifier("2.16.840.1.101.3.4.1.2"): ("aes", 16),
    der.object_identifier("2.16.840.1.101.3.4.1.22"): ("aes", 24),
    AES_256_CBC: ("aes", 32),
    der.object_identifier("1.2.840.113549.3.7"): ("3des", 24),
}
OF_PKCS12: dict[bytes, tuple[str, int]] = {
    der.object_identifier(f"1.2.840.113549.1.12.1.{number}"): found
    for number, found in enumerate((("rc4", 16), ("rc4", 5), ("3des", 24), ("3des", 16), ("rc2", 16), ("rc2", 5)), 1)
}

# RFC 2268, section 2: a permutation of the bytes.
PI_TABLE = bytes.fromhex(
    "d978f9c419ddb5ed28e9fd794aa0d89dc67e37832b76538e624c6488448bfba2179a59f587b34f1361456d8d09817d32bd8f40eb86b77b0bf09521225c6b4e82"
    "54d66593ce60b21c7356c014a78cf1dc1275ca1f3bbee4d1423dd430a33cb6266fbf0eda4669075727f21d9bbc944303f811c7f690ef3ee706c3d52fc8661ed7"
    "08e8eade8052eef784aa72ac354d6a2a961ad2715a1549744b9fd05e0418a4ecc2e0416e0f51cbcc2491af50a1f47039997c3a8523b8b47afc02365b25559731"
    "2d5dfa98e38a92ae05df2910676cbac9d300e6cfe19ea82c6316013f58e289a90d38341bab33ffb0bb480c5fb9b1cd2ec5f3db47e5a59c770aa62068fe7fc1ad"
)
SHIFTS = (1, 2, 3, 5)


def decrypted(algorithm: bytes, content: bytes, secret: bytes) -> Iterator[bytes]:
    """What comes out, for each way in which programs read a passphrase; ValueError for what is not known here.

    `algorithm`: AlgorithmIdentifier in DER.
    """
    reader = der.Reader(algorithm).enter(der.SEQUENCE)
    kind, parameters = reader.read_whole(der.OBJECT_IDENTIFIER), reader.enter(der.SEQUENCE)
    if kind == PBES2:
        name, key, iv = _pbes2(parameters, secret)
        yield _plain(name, key, iv, content)
    else:
        name, size = OF_PKCS12.get(kind, ("", 0))
        if not name:
            raise ValueError("an encryption that is not known here")
        salt, rounds = parameters.read(der.OCTET_STRING), parameters.read_integer()
        for password in _passwords(secret):
            key, iv = (derived(password, salt, rounds, purpose, length) for purpose, length in ((1, size), (2, 8)))
            try:
                yield _plain(name, key, iv, content)
            except ValueError:  # its padding
                continue


def _passwords(secret: bytes) -> list[bytes]:
    """UTF-16 with a zero at its end; no passphrase is that of nothing, or nothing at all."""
    found = [] if secret else [b""]
    for encoding in ("utf-8", "latin-1"):
        try:
            found.append((secret.decode(encoding) + "\0").encode("utf-16-be"))
        except UnicodeDecodeError:
            continue
    return list(dict.fromkeys(found))


def _pbes2(parameters: der.Reader, secret: bytes) -> tuple[str, bytes, bytes]:
    derivation, scheme = parameters.enter(der.SEQUENCE), parameters.enter(der.SEQUENCE)
    name, size = CIPHERS.get(scheme.read_whole(der.OBJECT_IDENTIFIER), ("", 0))
    if derivation.read_whole(der.OBJECT_IDENTIFIER) != PBKDF2 or not name:
        raise ValueError("an encryption that is not known here")
    details = derivation.enter(der.SEQUENCE)
    salt, rounds = details.read(der.OCTET_STRING), details.read_integer()
    if details.next_tag() == der.INTEGER:
        details.read_integer()  # the key's length, which the cipher says as well
    digest = "sha1"
    if details.next_tag() == der.SEQUENCE:
        digest = HASHES.get(details.enter(der.SEQUENCE).read_whole(der.OBJECT_IDENTIFIER), "")
    # hashlib refuses an empty digest and no rounds with ValueError
    return name, hashlib.pbkdf2_hmac(digest, secret, salt, rounds, size), scheme.read(der.OCTET_STRING)


def derived(password: bytes, salt: bytes, rounds: int, purpose: int, length: int) -> bytes:
    """RFC 7292, appendix B.2, with SHA-1: a key (purpose 1), an IV (2) or the key of a MAC (3)."""
    block = 64
    mixed = b"".join(
        (part * (block // len(part) + 2))[: -(-len(part) // block) * block] for part in (salt, password) if part
    )
    found = b""
    while len(found) < length:
        digest = bytes((purpose,)) * block + mixed
        for _ in range(rounds):
            digest = hashlib.sha1(digest).digest()  # noqa: S324 - what the file was encrypted with
        found += digest
        step = int.from_bytes((digest * 4)[:block], "big") + 1
        mixed = b"".join(
            ((int.from_bytes(mixed[at : at + block], "big") + step) % (1 << 8 * block)).to_bytes(block, "big")
            for at in range(0, len(mixed), block)
        )
    return found[:length]


def _plain(name: str, key: bytes, iv: bytes, content: bytes) -> bytes:
    """Decrypted, and without the padding of block ciphers; ValueError."""
    if name == "rc4":
        return Cipher(ARC4(key), None).decryptor().update(content)
    if name == "rc2":
        padded = rc2_cbc(key, iv, content)
    else:
        cipher = algorithms.AES(key) if name == "aes" else TripleDES((key * 2)[:24])  # of two keys: K1 K2 K1
        decryptor = Cipher(cipher, modes.CBC(iv)).decryptor()
        padded = decryptor.update(content) + decryptor.finalize()
    pad = padded[-1] if padded else 0
    if not 1 <= pad <= len(iv) or padded[-pad:] != bytes((pad,)) * pad:
        raise ValueError("the padding is wrong")
    return padded[:-pad]


def rc2_cbc(key: bytes, iv: bytes, content: bytes) -> bytes:
    """RC2 in CBC, decrypted; all bits of the key count, and no more than it has."""
    if len(content) % 8:
        raise ValueError("not whole blocks")
    words = _rc2_words(key)
    plain = bytearray()
    for at in range(0, len(content), 8):
        block = content[at : at + 8]
        plain += bytes(a ^ b for a, b in zip(_rc2_block(words, block), iv, strict=True))
        iv = block
    return bytes(plain)


def _rc2_words(key: bytes) -> list[int]:
    size = len(key)
    table = bytearray(key)
    while len(table) < 128:
        table.append(PI_TABLE[(table[-1] + table[-size]) & 0xFF])
    table[128 - size] = PI_TABLE[table[128 - size]]
    for at in range(127 - size, -1, -1):
        table[at] = PI_TABLE[table[at + 1] ^ table[at + size]]
    return [int.from_bytes(table[at : at + 2], "little") for at in range(0, 128, 2)]


def _rc2_block(words: list[int], block: bytes) -> bytes:
    """Sixteen rounds backwards; after the fifth and the eleventh of them, one that mashes."""
    r = [int.from_bytes(block[at : at + 2], "little") for at in range(0, 8, 2)]
    at = 63
    for turn in range(16):
        for i in (3, 2, 1, 0):
            r[i] = r[i] >> SHIFTS[i] | r[i] << 16 - SHIFTS[i] & 0xFFFF
            a, b, c = r[i - 1], r[i - 2], r[i - 3]
            r[i] = r[i] - words[at] - (a & b) - (~a & c) & 0xFFFF
            at -= 1
        if turn in (4, 10):
            for i in (3, 2, 1, 0):
                r[i] = r[i] - words[r[i - 1] & 63] & 0xFFFF
    return b"".join(word.to_bytes(2, "little") for word in r)
