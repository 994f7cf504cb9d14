"""Known answers from the package cryptography_vectors, and what the symmetric families' tests have in common."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from keyfob import mechanisms
from keyfob.spec.constants import CKA, CKK, CKO
from keyfob.spec.errors import PKCS11Error, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keyfob.mechanisms.base import Key

Record = dict[str, str]


@cache
def records(path: str, first: str = "COUNT") -> tuple[Record, ...]:
    """The records of a file of NIST's format, in its order; names in upper case.

    A record begins at a line named `first` and has all values given in its section's head; a bare word is a name
    without value, and the section's name, if it is one word, is SECTION.
    """
    result: list[Record] = []
    section: Record = {}
    current = section
    in_head = True
    for raw in files("cryptography_vectors").joinpath(path).read_text().splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = section if in_head else dict(section)
            in_head, current = True, section
        for part in line.strip("[]").split(", ") if line.startswith("[") else (line,):
            name, equals, value = (text.strip() for text in part.partition("="))
            if line.startswith("[") and not equals:
                name, value = "SECTION", name
            if name.upper() == first:
                in_head, current = False, dict(section)
                result.append(current)
            current[name.upper()] = value
    assert result, path
    return tuple(result)


def sample(items: Sequence[Record], count: int) -> list[Record]:
    """At most `count` of them, evenly spread, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[index * (len(items) - 1) // (count - 1)] for index in range(count)]


def data(record: Record, *names: str) -> list[bytes]:
    """The values of these names; a name that the record has not is an error in the test."""
    return [bytes.fromhex(record[name]) for name in names]


def ulong(value: int) -> bytes:
    return value.to_bytes(8, "little")


def secret_key(value: bytes, key_type: int = CKK.AES) -> Key:
    return mechanisms.load_key({CKA.CLASS: ulong(CKO.SECRET_KEY), CKA.KEY_TYPE: ulong(key_type), CKA.VALUE: value})


def begin(mechanism: int, flag: int, *arguments: object) -> Any:
    """The operation of a mechanism: arguments are (key, parameter), or (parameter,) for digests."""
    return mechanisms.lookup(mechanism).operations[flag](*arguments)


def in_parts(cipher: Any, message: bytes, size: int = 7) -> bytes:
    """The message through update() and final() in parts of `size` bytes, each within the length announced."""
    output = b""
    for start in range(0, len(message), size):
        part = message[start : start + size]
        bound = cipher.update_size(len(part))
        piece = cipher.update(part)
        assert len(piece) <= bound
        output += piece
    bound = cipher.final_size()
    last: bytes = cipher.final()
    assert len(last) <= bound
    return output + last


@contextmanager
def refused(rv: int) -> Iterator[None]:
    """The block raises PKCS11Error with this code."""
    with pytest.raises(PKCS11Error) as caught:
        yield
    assert name_of("CKR", caught.value.rv) == name_of("CKR", rv)
