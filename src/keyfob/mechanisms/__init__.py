"""The registry: every mechanism and every key class of keyfob, each found in its family when it is first used.

A family is a module with MECHANISMS (its rows) and KEYS (its key classes); base.py says what those are. FAMILIES is the
one list of them. index.py is generated from it, so that C_GetMechanismList and C_GetMechanismInfo load no family.
"""

from __future__ import annotations

from importlib import import_module

from keyfob import libraries
from keyfob.mechanisms.base import Key, Mechanism
from keyfob.mechanisms.index import INDEX, KEY_INDEX
from keyfob.mechanisms.secret_key import SecretKey, number
from keyfob.spec.constants import CKA, CKO, CKR
from keyfob.spec.errors import PKCS11Error, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = [
    "FAMILIES",
    "INDEX",
    "KEY_INDEX",
    "Key",
    "Mechanism",
    "check_value",
    "key_class",
    "load_key",
    "lookup",
    "part_bits",
    "works_in_parts",
]

FAMILIES = ("rsa", "ec", "edwards", "aes", "des3", "digest", "hmac", "secret")

_rows: dict[int, Mechanism] = {}
_key_classes: dict[tuple[int, int], type[Key]] = {}
_in_parts: dict[int, bool] = {}


def _family(name: str) -> Any:
    family = import_module(f"{__name__}.{name}")
    libraries.loaded()
    return family


def lookup(mechanism: int) -> Mechanism:
    """The mechanism's row; CKR_MECHANISM_INVALID for one that no family has."""
    row = _rows.get(mechanism)
    if row is not None:
        return row
    if mechanism not in INDEX:
        raise PKCS11Error(CKR.MECHANISM_INVALID, f"{name_of('CKM', mechanism)} is not supported")
    _rows.update({row.type: row for row in _family(INDEX[mechanism][0]).MECHANISMS})
    return _rows[mechanism]


def key_class(object_class: int, key_type: int) -> type[Key]:
    """The class of the keys of this CKO_* and CKK_*; Key itself where no family claims them."""
    wanted = (object_class, key_type)
    found = _key_classes.get(wanted)
    if found is not None:
        return found
    if wanted not in KEY_INDEX:
        return Key
    _key_classes.update(_family(KEY_INDEX[wanted]).KEYS)
    return _key_classes[wanted]


def part_bits(key_type: int) -> int:
    """PART_BITS of secret keys of this CKK_*; 0 also where no family claims them: nothing computes with those."""
    kind = key_class(CKO.SECRET_KEY, key_type)
    return kind.PART_BITS if issubclass(kind, SecretKey) else 0


def works_in_parts(mechanism: int) -> bool:
    """Whether the mechanism uses keys as several keys side by side, whatever type they have."""
    known = _in_parts.get(mechanism)
    if known is None:
        known = _in_parts[mechanism] = any(part_bits(key_type) for key_type in lookup(mechanism).key_types)
    return known


def load_key(attributes: Mapping[int, bytes]) -> Key:
    """The key of an object that has CKA_CLASS and CKA_KEY_TYPE."""
    return key_class(number(attributes[CKA.CLASS]), number(attributes[CKA.KEY_TYPE]))(attributes)


def check_value(attributes: Mapping[int, bytes]) -> bytes | None:
    """CKA_CHECK_VALUE of a secret key or certificate, 3 bytes (sections 4.6.2 and 4.10.2); None where there is none."""
    if number(attributes[CKA.CLASS]) == CKO.CERTIFICATE:
        from keyfob.mechanisms.hashes import sha1

        return sha1(attributes[CKA.VALUE])[:3] if attributes.get(CKA.VALUE) else None
    if CKA.KEY_TYPE not in attributes:
        return None
    key = load_key(attributes)
    return key.check_value() if isinstance(key, SecretKey) else None
