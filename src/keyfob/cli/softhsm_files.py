"""SoftHSM 2's own files, for keys that it neither shows nor wraps.

softhsm2-util imports every key as unextractable, and pkcs11-tool makes it so: without this hardly any would ever leave.

A token is a folder with `token.object` and one file for each object: 8 bytes generation, then attributes, each with
its type and kind (8 bytes each, big-endian) and its value: 1 byte for a truth, 8 for a number, else a length and bytes.
The user PIN's entry in token.object is salt (8), IV (16) and the AES-256-CBC encryption of "RJR" and the token's key,
under SHA-256 of salt and PIN, hashed 1500 times and as often again as the salt's last byte says. In private objects
every byte string is an IV and its AES-256-CBC encryption under the token's key.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from struct import Struct, error
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from keyfob import environment
from keyfob.spec.constants import CKA, CKO
from keyfob.spec.traits import SECRETS
from keyfob.token.object import ulong

if TYPE_CHECKING:
    from keyfob.cli.migration import Source
    from keyfob.store import Attributes

PAIR, LENGTH = Struct(">QQ"), Struct(">Q")
TRUTH, NUMBER, BYTES = 1, 2, 3
SERIAL, USER_PIN = 0x80005348 + 2, 0x80005348 + 5
MAGIC = b"RJR"
ROUNDS = 1500
CONFIGURATIONS = ("~/.config/softhsm2/softhsm2.conf", "/etc/softhsm/softhsm2.conf", "/etc/softhsm2.conf")
TOKENS = "/var/lib/softhsm/tokens"
COMPONENTS = SECRETS | {CKA.MODULUS, CKA.PUBLIC_EXPONENT}
SAME = (CKA.CLASS, CKA.KEY_TYPE, CKA.ID, CKA.LABEL)


def folder_of_tokens(conf: str | None) -> Path:
    """`directories.tokendir` of the configuration that SoftHSM would use."""
    given = conf or environment.get("SOFTHSM2_CONF")
    for name in (given,) if given else CONFIGURATIONS:
        try:
            text = Path(environment.expanded(name)).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        match = re.search(r"^\s*directories\.tokendir\s*=\s*(.*?)\s*$", text, re.MULTILINE)
        if match:
            return Path(match[1])
    return Path(TOKENS)


def fill_in(source: Source, tokens: Path, pin: bytes) -> None:
    """Give the source's keys that were refused their values, where its files have them beyond doubt."""
    found = _keys(tokens, source.serial, pin)
    for one in source.arrivals:
        if not one.why:
            continue
        hits = [
            each
            for each in found
            if all(each.get(attribute, b"") == one.given.get(attribute, b"") for attribute in SAME)
            and each.get(CKA.MODULUS) == one.given.get(CKA.MODULUS)
            and each.get(CKA.EC_PARAMS) == one.given.get(CKA.EC_PARAMS)
        ]
        if len(hits) == 1:
            one.given |= {each: hits[0][each] for each in COMPONENTS if hits[0].get(each)}
            one.why = ""


def _keys(tokens: Path, serial: str, pin: bytes) -> list[Attributes]:
    """The private and secret keys of the token with this serial number; none where its files are of another kind."""
    for token in tokens.glob("*/token.object"):
        facts = _read(token)
        if facts.get(SERIAL, b"").decode(errors="replace").strip(" \0") != serial:
            continue
        key = _token_key(facts.get(USER_PIN, b""), pin)
        if not key:
            return []
        objects = (_read(each) for each in token.parent.glob("*.object") if each != token)
        classes = (ulong(CKO.PRIVATE_KEY), ulong(CKO.SECRET_KEY))
        return [_opened(each, key) for each in objects if each.get(CKA.CLASS) in classes]
    return []


def _token_key(entry: bytes, pin: bytes) -> bytes:
    """The key of the token's objects; empty where the entry is of another kind."""
    salt, sealed = entry[:8], entry[8:]
    if len(salt) < 8:
        return b""
    digest = hashlib.sha256(salt + pin).digest()
    for _ in range(ROUNDS + salt[-1] - 1):
        digest = hashlib.sha256(digest).digest()
    plain = _decrypted(digest, sealed)
    return plain[len(MAGIC) :] if plain.startswith(MAGIC) and len(plain) == len(MAGIC) + 32 else b""


def _opened(attributes: Attributes, key: bytes) -> Attributes:
    if attributes.get(CKA.PRIVATE) != b"\1":
        return attributes
    plain = (CKA.CLASS, CKA.KEY_TYPE, CKA.KEY_GEN_MECHANISM, CKA.VALUE_LEN, CKA.MODULUS_BITS)
    return {
        each: value if each in plain or len(value) < 32 else _decrypted(key, value)
        for each, value in attributes.items()
    }


def _decrypted(key: bytes, sealed: bytes) -> bytes:
    """What an IV and its encryption hold; empty where the key is another one."""
    if len(sealed) < 32 or len(sealed) % 16:
        return b""
    decryptor = Cipher(algorithms.AES(key), modes.CBC(sealed[:16])).decryptor()
    unpadder = PKCS7(128).unpadder()
    try:
        return unpadder.update(decryptor.update(sealed[16:]) + decryptor.finalize()) + unpadder.finalize()
    except ValueError:
        return b""


def _read(path: Path) -> Attributes:
    """An object's attributes as PKCS #11 has them; empty for a file that is none."""
    found: Attributes = {}
    try:
        data = path.read_bytes()
        position = 8
        while position < len(data):
            attribute, kind = PAIR.unpack_from(data, position)
            position += PAIR.size
            if kind == TRUTH:
                found[attribute] = b"\1" if data[position] else b"\0"
                position += 1
            elif kind == NUMBER:
                found[attribute] = ulong(LENGTH.unpack_from(data, position)[0])
                position += LENGTH.size
            else:
                (length,) = LENGTH.unpack_from(data, position)
                position += LENGTH.size
                if kind == BYTES:
                    found[attribute] = data[position : position + length]
                position += length
    except (OSError, error, IndexError):
        return {}
    return found
