"""What a PKCS #12 file (RFC 7292) holds, bag by bag: the library reads one key of it and passes over much of the rest.

Anyone who imports a file may delete it afterwards. So what cannot be counted is refused, and nobody loses a key that
keyfob did not see. NSS and Windows write BER, so this reads BER: indefinite lengths, and octet strings in pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm

from keyfob.cli import pkcs12_ciphers
from keyfob.cli.errors import Refusal
from keyfob.mechanisms import der

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEPEST = 32  # elements within each other
CONSTRUCTED = 0x20
OCTETS = (der.OCTET_STRING, der.OCTET_STRING | CONSTRUCTED)
IMPLICIT_OCTETS = (der.CONTEXT_0, der.CONTEXT_0 & ~CONSTRUCTED)

DATA = der.object_identifier("1.2.840.113549.1.7.1")[2:]
ENCRYPTED_DATA = der.object_identifier("1.2.840.113549.1.7.6")[2:]
X509 = der.object_identifier("1.2.840.113549.1.9.22.1")[2:]
KEY, SHROUDED_KEY, CERTIFICATE, CRL, SECRET, SAFE_CONTENTS = (
    der.object_identifier(f"1.2.840.113549.1.12.10.1.{number}")[2:] for number in range(1, 7)
)

# Certificates are X.509 or SDSI; keytool has secret keys in bags for secrets.
OTHERS = {CERTIFICATE: "SDSI certificate", CRL: "CRL", SECRET: "secret key"}

Element = tuple[int, bytes]  # its tag and content


class Held:
    """`keys` and `certificates` (X.509) are how many; `others`: what else there is, in words, each with its number."""

    __slots__ = ("certificates", "keys", "others")

    def __init__(self) -> None:
        self.keys = self.certificates = 0
        self.others: dict[str, int] = {}


def held(data: bytes, secret: bytes) -> Held:
    """What is in a file that this passphrase opens; Refusal where that cannot be told."""
    found = Held()
    try:
        _, content = _only(data, der.SEQUENCE)
        for safe in _sequence(_of_data(_elements(content)[1])):
            _count(_of_safe(safe, secret), found, 0)
    except (ValueError, IndexError, RecursionError, UnsupportedAlgorithm):
        raise Refusal("what else the PKCS #12 file holds cannot be told: it is damaged, or of a rare kind") from None
    return found


def _count(contents: bytes, found: Held, depth: int) -> None:
    """SafeContents: each bag has its type, its value and attributes."""
    if depth > DEEPEST:
        raise ValueError("safes are nested too deep")
    for bag in _sequence(contents):
        kind, value = _typed(bag)
        if kind in (KEY, SHROUDED_KEY):
            found.keys += 1
        elif kind == SAFE_CONTENTS:
            _count(value, found, depth + 1)
        elif kind == CERTIFICATE and _typed(_only(value, der.SEQUENCE))[0] == X509:
            found.certificates += 1
        else:
            what = OTHERS.get(kind, "unknown item")
            found.others[what] = found.others.get(what, 0) + 1


def _of_safe(safe: Element, secret: bytes) -> bytes:
    """SafeContents of one part of the file, decrypted where need be."""
    kind, value = _typed(safe)
    if kind != ENCRYPTED_DATA:
        return _of_data(safe)
    _, encrypted = _elements(_only(value, der.SEQUENCE)[1])
    inner, algorithm, content = _elements(encrypted[1])
    if inner != (der.OBJECT_IDENTIFIER, DATA):
        raise ValueError("something else than data is encrypted")
    for plain in pkcs12_ciphers.decrypted(_definite(algorithm), _octets(content, IMPLICIT_OCTETS), secret):
        try:
            _only(plain, der.SEQUENCE)
        except ValueError:  # another way to read the passphrase
            continue
        return plain
    raise ValueError("a part of the file does not open")


def _of_data(info: Element) -> bytes:
    """What a ContentInfo of the type data holds."""
    kind, value = _typed(info)
    if kind != DATA:
        raise ValueError("a part of the file is neither data nor encrypted under a passphrase")
    return _octets(_element(value, 0, 0)[0], OCTETS)


def _typed(element: Element) -> tuple[bytes, bytes]:
    """A type and a value: SEQUENCE { OBJECT IDENTIFIER, [0] EXPLICIT, ... }."""
    (kind_tag, kind), (value_tag, value), *_ = _elements(element[1])
    if (element[0], kind_tag, value_tag) != (der.SEQUENCE, der.OBJECT_IDENTIFIER, der.CONTEXT_0):
        raise ValueError("a type and its value are missing")
    return kind, value


def _sequence(data: bytes) -> Iterator[Element]:
    yield from _elements(_only(data, der.SEQUENCE)[1])


def _only(data: bytes, tag: int) -> Element:
    """The element of this tag which is all that there is."""
    element, end = _element(data, 0, 0)
    if element[0] != tag or end != len(data):
        raise ValueError("another element stands here")
    return element


def _elements(data: bytes) -> list[Element]:
    found, at = [], 0
    while at < len(data):
        element, at = _element(data, at, 0)
        found.append(element)
    return found


def _octets(element: Element, tags: tuple[int, int]) -> bytes:
    """An OCTET STRING, also in pieces."""
    if element[0] not in tags:
        raise ValueError("no octet string stands here")
    if not element[0] & CONSTRUCTED:
        return element[1]
    return b"".join(_octets(piece, OCTETS) for piece in _elements(element[1]))


def _definite(element: Element) -> bytes:
    """The element as DER has it, for a reader that is strict."""
    tag, content = element
    return der.element(tag, *map(_definite, _elements(content))) if tag & CONSTRUCTED else der.element(tag, content)


def _element(data: bytes, at: int, depth: int) -> tuple[Element, int]:
    """The element at this place, and where the next one is."""
    tag, length = data[at], data[at + 1]
    start = at + 2
    if tag & 0x1F == 0x1F or depth > DEEPEST:
        raise ValueError("an element of a tag, or in a depth, that no such file has")
    if length == 0x80:
        end = start
        while data[end : end + 2] != b"\0\0":
            end = _element(data, end, depth + 1)[1]
        return (tag, data[start:end]), end + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > len(data):
        raise ValueError("an element is cut short")
    return (tag, data[start : start + length]), start + length
