"""Known answers of the package cryptography-vectors for the asymmetric families, and short ways to call a mechanism.

Its files have two shapes: NIST's "NAME = value" records under [section] headers, and RSA Laboratories' hex dumps under
"# Title:" lines. Big files are sampled evenly; the tests say how many they run.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cryptography_vectors
import pytest

from keyfob.mechanisms import ec, edwards, rsa
from keyfob.mechanisms.curves import CURVES, WEIERSTRASS, Curve
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from keyfob.mechanisms.base import Attributes, Key, Mechanism

Record = dict[str, str]
Item = TypeVar("Item")

ROWS: dict[int, Mechanism] = {row.type: row for family in (rsa, ec, edwards) for row in family.MECHANISMS}
KEYS: dict[tuple[int, int], type[Key]] = {**rsa.KEYS, **ec.KEYS, **edwards.KEYS}
# DER before a SHA-1 value in a DigestInfo.
DIGEST_INFO_SHA1 = bytes.fromhex("3021300906052b0e03021a05000414")
HASH_NAMES = {
    "SHA1": CKM.SHA_1,
    "SHA224": CKM.SHA224,
    "SHA256": CKM.SHA256,
    "SHA384": CKM.SHA384,
    "SHA512": CKM.SHA512,
}
CURVE_BY_NAME: dict[str, Curve] = {curve.name: curve for curve in WEIERSTRASS}
NIST_CURVES = {
    "P-192": CURVE_BY_NAME["secp192r1"],
    "P-224": CURVE_BY_NAME["secp224r1"],
    "P-256": CURVE_BY_NAME["secp256r1"],
    "P-384": CURVE_BY_NAME["secp384r1"],
    "P-521": CURVE_BY_NAME["secp521r1"],
    "K-256": CURVE_BY_NAME["secp256k1"],
}


def vector_file(name: str) -> Path:
    return Path(cryptography_vectors.__file__).parent / "asymmetric" / name


def records(name: str, *, carried: Sequence[str] = ()) -> Iterator[tuple[str, Record]]:
    """(section, record) of a NIST file; values named in `carried` hold for the records after them in the section."""
    section = ""
    shared: Record = {}
    record: Record = {}
    for line in [*vector_file(name).read_text().splitlines(), ""]:
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            section, shared = text[1:-1], {}
        elif "=" in text and not text.startswith(("#", "[")):
            key, value = (part.strip() for part in text.split("=", 1))
            (shared if key in carried else record)[key] = value
        elif not text and record:
            yield section, {**shared, **record}
            record = {}


def dumps(name: str) -> Iterator[tuple[str, bytes]]:
    """(title, bytes) of each hex dump of an RSA Laboratories file, in order."""
    title, content = "", ""
    for line in [*vector_file(name).read_text().splitlines(), "# end"]:
        text = line.strip()
        if text.startswith("#"):
            if content:
                yield title, hexed(content)
            title, content = text.lstrip("# ").rstrip(": "), ""
        elif title:
            content += text.replace(" ", "")


RSA_TITLES = {
    "Public exponent": CKA.PUBLIC_EXPONENT,
    "Exponent": CKA.PRIVATE_EXPONENT,
    "Prime 1": CKA.PRIME_1,
    "Prime 2": CKA.PRIME_2,
    "Prime exponent 1": CKA.EXPONENT_1,
    "Prime exponent 2": CKA.EXPONENT_2,
    "Coefficient": CKA.COEFFICIENT,
}


def rsa_examples(name: str, *, first: str, last: str) -> Iterator[tuple[Attributes, dict[str, bytes]]]:
    """(private key's attributes, {title: bytes}) of each example; its dumps run from title `first` to title `last`."""
    attributes: Attributes = {}
    example: dict[str, bytes] = {}
    for title, value in dumps(name):
        if title == "Modulus":
            if attributes.get(CKA.MODULUS) != value:
                attributes = {}
            attributes[CKA.MODULUS] = value
        elif title in RSA_TITLES:
            attributes[RSA_TITLES[title]] = value
        else:
            if title == first:
                example = {}
            example[title] = value
            if title == last:
                yield attributes, example


def sample(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of the items, evenly spread from the first to the last."""
    if len(items) <= count:
        return list(items)
    return [items[index * (len(items) - 1) // (count - 1)] for index in range(count)]


def ulong(value: int) -> bytes:
    return value.to_bytes(8, sys.byteorder)


def made(object_class: int, key_type: int, attributes: Attributes) -> Any:
    """A key as the token makes it of a caller's attributes: completed."""
    given = {CKA.CLASS: ulong(object_class), CKA.KEY_TYPE: ulong(key_type), **attributes}
    cls = KEYS[object_class, key_type]
    given.update(cls.complete(given))
    return cls(given)


def private_key(key_type: int, attributes: Attributes) -> Any:
    return made(CKO.PRIVATE_KEY, key_type, attributes)


def public_key(key_type: int, attributes: Attributes) -> Any:
    return made(CKO.PUBLIC_KEY, key_type, attributes)


def generated(mechanism: int, key_type: int, public: Attributes) -> tuple[Any, Any]:
    """(public key, private key) of a new pair, completed."""
    made_public, made_private = operation(mechanism, CKF.GENERATE_KEY_PAIR)(None, public, {})
    return public_key(key_type, {**public, **made_public}), private_key(key_type, made_private)


def operation(mechanism: int, flag: int) -> Callable[..., Any]:
    return ROWS[mechanism].operations[flag]


def hexed(text: str) -> bytes:
    """Hex digits, of which a leading zero may be missing."""
    return bytes.fromhex(text.rjust(len(text) + len(text) % 2, "0"))


def point(curve: Curve, x: str, y: str) -> bytes:
    """An uncompressed point from two coordinates in hex."""
    size = curve.point_size // 2
    return b"\x04" + b"".join(int(text, 16).to_bytes(size, "big") for text in (x, y))


def ec_private(curve: Curve, value: str) -> Any:
    return private_key(CKK.EC, {CKA.EC_PARAMS: curve.params, CKA.VALUE: hexed(value)})


def ec_public(curve: Curve, x: str, y: str) -> Any:
    return public_key(CKK.EC, {CKA.EC_PARAMS: curve.params, CKA.EC_POINT: curve.write_point(point(curve, x, y))})


def params_of(key_type: int, name: str) -> bytes:
    """CKA_EC_PARAMS by OID of a curve's name."""
    return next(curve.params for curve in CURVES[key_type].values() if curve.name == name)


def rv_of(call: Callable[..., Any], *arguments: Any) -> int:
    """The CKR_* that a call must fail with."""
    with pytest.raises(PKCS11Error) as caught:
        call(*arguments)
    return caught.value.rv


@cache
def rsa_pair(bits: int = 2048) -> tuple[Any, Any]:
    """(public, private) RSA key, the same for the whole run."""
    return generated(CKM.RSA_PKCS_KEY_PAIR_GEN, CKK.RSA, {CKA.MODULUS_BITS: ulong(bits)})


@cache
def ec_pair(name: str = "secp256r1") -> tuple[Any, Any]:
    """(public, private) key on a Weierstrass curve, the same for the whole run."""
    return generated(CKM.EC_KEY_PAIR_GEN, CKK.EC, {CKA.EC_PARAMS: CURVE_BY_NAME[name].params})


@cache
def labs_key(components: tuple[tuple[int, bytes], ...]) -> tuple[Any, Any]:
    """(public, private) key of a vector file, fully checked once."""
    attributes = dict(components)
    public = {a: attributes[a] for a in (CKA.MODULUS, CKA.PUBLIC_EXPONENT)}
    return public_key(CKK.RSA, public), private_key(CKK.RSA, attributes)


def labs_pair(attributes: Attributes) -> tuple[Any, Any]:
    return labs_key(tuple(sorted(attributes.items())))
