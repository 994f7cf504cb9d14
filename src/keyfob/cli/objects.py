"""The objects of a token as people name and see them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from keyfob.cli.errors import Refusal
from keyfob.functions.objects import C_FindObjects, C_FindObjectsFinal, C_FindObjectsInit
from keyfob.spec.constants import CKA, CKK, CKO
from keyfob.spec.errors import name_of
from keyfob.token.object import Object, number, ulong

if TYPE_CHECKING:
    from keyfob.token.session import Session

Template = list[tuple[int, bytes]]

CLASSES = {
    "certificate": CKO.CERTIFICATE,
    "private-key": CKO.PRIVATE_KEY,
    "public-key": CKO.PUBLIC_KEY,
    "secret-key": CKO.SECRET_KEY,
    "trust": CKO.NSS_TRUST,
    "data": CKO.DATA,
}
NAMES = {value: name for name, value in CLASSES.items()}
ORDER = {value: place for place, value in enumerate(CLASSES.values())}
KEYS = (CKO.PRIVATE_KEY, CKO.PUBLIC_KEY, CKO.SECRET_KEY)
# Made by the token itself (P7), of no interest to people.
HIDDEN = (CKO.PROFILE,)

USES = {
    CKA.SIGN: "sign",
    CKA.SIGN_RECOVER: "sign-recover",
    CKA.VERIFY: "verify",
    CKA.VERIFY_RECOVER: "verify-recover",
    CKA.ENCRYPT: "encrypt",
    CKA.DECRYPT: "decrypt",
    CKA.WRAP: "wrap",
    CKA.UNWRAP: "unwrap",
    CKA.DERIVE: "derive",
}
PROTECTION = {
    CKA.SENSITIVE: "sensitive",
    CKA.EXTRACTABLE: "extractable",
    CKA.ALWAYS_SENSITIVE: "always-sensitive",
    CKA.NEVER_EXTRACTABLE: "never-extractable",
    CKA.LOCAL: "made-here",
    CKA.ALWAYS_AUTHENTICATE: "asks-pin-each-time",
}
CURVE_NAMES = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}
RAW_CURVE_NAMES = {
    "edwards25519": "ed25519",
    "edwards448": "ed448",
    "curve25519": "x25519",
    "curve448": "x448",
}


def search(session: Session, *template: tuple[int, bytes]) -> list[Object]:
    """Every object with these attributes that the login lets be seen, in the order in which people read them."""
    C_FindObjectsInit(session, list(template))
    try:
        handles: list[int] = []
        while more := C_FindObjects(session, 256):
            handles += more
    finally:
        C_FindObjectsFinal(session)
    found = [session.token.objects.get(handle) for handle in handles]
    kept = [one for one in found if class_of(one) not in HIDDEN]
    return sorted(kept, key=lambda one: (label_of(one), ORDER.get(class_of(one), len(ORDER)), one.handle))


def named(session: Session, name: str, object_class: int | None = None) -> list[Object]:
    """The objects with this label, else those with this CKA_ID in hex; none at all is refused."""
    of_class = [] if object_class is None else [(CKA.CLASS, ulong(object_class))]
    hits = search(session, *of_class, (CKA.LABEL, name.encode()))
    if not hits and (identifier := from_hex(name)):
        hits = search(session, *of_class, (CKA.ID, identifier))
    if hits:
        return hits
    what = "object" if object_class is None else NAMES[object_class].replace("-", " ")
    token = session.token
    hides = not token.sees_private and object_class != CKO.CERTIFICATE
    hint = "; without the PIN only public objects are seen" if hides else ""
    label = token.info.label if token.info else ""
    raise Refusal(f"{label!r} has no {what} called {name!r}{hint} (see `keyfob list {shlex.quote(label)}`)")


def single(session: Session, name: str, object_class: int) -> Object:
    """The one object of this class with this label or ID."""
    hits = named(session, name, object_class)
    if len(hits) > 1:
        ids = ", ".join(hit.attributes.get(CKA.ID, b"").hex() for hit in hits)
        raise Refusal(f"{len(hits)} objects are called {name!r}: give the ID of one instead, {ids}")
    return hits[0]


def from_hex(text: str) -> bytes:
    """The bytes of hex digits, with or without colons; empty when it is not hex."""
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        return b""


def class_of(found: Object) -> int:
    return number(found.attributes[CKA.CLASS])


def class_name(found: Object) -> str:
    value = class_of(found)
    return NAMES.get(value) or name_of("CKO", value).removeprefix("CKO_").lower().replace("_", "-")


def label_of(found: Object) -> str:
    return found.attributes.get(CKA.LABEL, b"").decode(errors="replace").rstrip("\0")


def id_of(found: Object) -> str:
    return found.attributes.get(CKA.ID, b"").hex()


def with_id(found: Object) -> str:
    """The ID in brackets, to go after a name; nothing where there is none."""
    identifier = id_of(found)
    return f" (ID {identifier})" if identifier else ""


def key_kind(found: Object) -> str:
    """What `keyfob key generate --type` calls it: rsa:2048, ec:p256, ed25519, aes:256; empty for other objects."""
    attributes = found.attributes
    if class_of(found) not in KEYS:
        return ""
    key_type = number(attributes[CKA.KEY_TYPE])
    name = name_of("CKK", key_type).removeprefix("CKK_").lower().replace("_", "-")
    if key_type == CKK.RSA:
        return f"rsa:{int.from_bytes(attributes[CKA.MODULUS], 'big').bit_length()}"
    if CKA.EC_PARAMS in attributes:
        return _curve_kind(key_type, attributes[CKA.EC_PARAMS])
    if CKA.VALUE_LEN in attributes:
        return f"{name}:{8 * number(attributes[CKA.VALUE_LEN])}"
    return name


def _curve_kind(key_type: int, params: bytes) -> str:
    from keyfob.mechanisms.curves import curve_of  # brings the EC part of the crypto library

    curve = curve_of(key_type, params).name
    return RAW_CURVE_NAMES.get(curve) or f"ec:{CURVE_NAMES.get(curve, curve)}"


def flags_of(found: Object) -> tuple[list[str], list[str]]:
    """(what a key may be used for, how it is protected); empty for other objects."""
    if class_of(found) not in KEYS:
        return [], []
    uses = [name for attribute, name in USES.items() if found.is_true(attribute)]
    return uses, [name for attribute, name in PROTECTION.items() if found.is_true(attribute)]
