"""Every way that makes an object, for every class and key type: what tests of templates walk through."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from keyfob.mechanisms.index import KEY_INDEX
from keyfob.spec.constants import CKA, CKC, CKK, CKM, CKO, CKP
from tests.client import P256, Client, Template, Value, but, ffi
from tests.conftest import Fob
from tests.rules.certificates import make_certificate
from tests.rules.nss_templates import components, point, scalar
from tests.rules.software_keys import ec_key, rsa_key

ED25519, X25519 = bytes.fromhex("06032b6570"), bytes.fromhex("06032b656e")
CURVES = {
    CKK.EC: (P256, CKM.EC_KEY_PAIR_GEN),
    CKK.EC_EDWARDS: (ED25519, CKM.EC_EDWARDS_KEY_PAIR_GEN),
    CKK.EC_MONTGOMERY: (X25519, CKM.EC_MONTGOMERY_KEY_PAIR_GEN),
}
READABLE: Template = [(CKA.SENSITIVE, False), (CKA.EXTRACTABLE, True)]
DES = (CKK.DES2, CKK.DES3)
SIZES = {CKK.DES2: 16, CKK.DES3: 24, CKK.AES_XTS: 32}
SECRETS = [key_type for object_class, key_type in KEY_INDEX if object_class == CKO.SECRET_KEY]
# One of each class of keys (mechanisms/): the rest of the HMAC keys are generic secrets under other names.
DIFFERENT_SECRETS = (*(CKK.AES, CKK.AES_XTS, CKK.DES2, CKK.DES3), *(CKK.GENERIC_SECRET, CKK.HKDF, CKK.SHA256_HMAC))
WRAPPING_KEY = bytes(range(100, 116))


class Way(NamedTuple):
    """`make(client, session, extra)` makes an object with `extra` in its template and gives its handle."""

    name: str
    origin: str
    object_class: int
    key_type: int | None
    template: Template
    make: Callable[[Client, int, Template], int]


@cache
def raw_key(key_type: int) -> tuple[bytes, bytes]:
    """(private value, point) on the curve of a key type."""
    from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

    if key_type == CKK.EC:
        return scalar(ec_key()), point(ec_key())
    kind: Any = ed25519.Ed25519PrivateKey if key_type == CKK.EC_EDWARDS else x25519.X25519PrivateKey
    made = kind.generate()
    return made.private_bytes_raw(), made.public_key().public_bytes_raw()


def value_of(key_type: int) -> bytes:
    """A secret of the length that its type has; with the odd parity of DES keys."""
    return (
        bytes(range(1, 1 + SIZES.get(key_type, 16)))
        if key_type not in DES
        else bytes(
            byte | 1 if (byte >> 1).bit_count() % 2 == 0 else byte & 0xFE for byte in range(2, 2 + SIZES[key_type])
        )
    )


def templates_of_keys() -> dict[tuple[int, int], Template]:
    """What C_CreateObject needs, by class and key type."""
    rsa_parts = components(rsa_key(0, 1024))
    found: dict[tuple[int, int], Template] = {
        (CKO.PUBLIC_KEY, CKK.RSA): [(a, rsa_parts[a]) for a in (CKA.MODULUS, CKA.PUBLIC_EXPONENT)],
        (CKO.PRIVATE_KEY, CKK.RSA): [*rsa_parts.items(), *READABLE],
    }
    for key_type, (params, _) in CURVES.items():
        value, public = raw_key(key_type)
        found[CKO.PUBLIC_KEY, key_type] = [(CKA.EC_PARAMS, params), (CKA.EC_POINT, public)]
        found[CKO.PRIVATE_KEY, key_type] = [(CKA.EC_PARAMS, params), (CKA.VALUE, value), *READABLE]
    for key_type in SECRETS:
        found[CKO.SECRET_KEY, key_type] = [(CKA.VALUE, value_of(key_type)), *READABLE]
    return found


def templates_of_others() -> dict[int, Template]:
    names: Template = [(CKA.ISSUER, b"0\x00"), (CKA.SERIAL_NUMBER, b"\x02\x01\x01")]
    return {
        CKO.DATA: [],
        CKO.CERTIFICATE: [(CKA.CERTIFICATE_TYPE, CKC.X_509), (CKA.VALUE, make_certificate(name="walked"))],
        CKO.TRUST: names,
        CKO.NSS_TRUST: names,
        CKO.NSS_CRL: [(CKA.SUBJECT, b"0\x00"), (CKA.VALUE, b"0\x00")],
        CKO.NSS_SMIME: [(CKA.SUBJECT, b"0\x00")],
    }


def _created(name: str, object_class: int, key_type: int | None, template: Template) -> Way:
    head: list[tuple[int, Value]] = [(CKA.CLASS, object_class)]
    if key_type is not None:
        head.append((CKA.KEY_TYPE, key_type))
    whole = [*head, *template]
    return Way(name, "create", object_class, key_type, whole, lambda c, s, extra: c.create(s, but(whole, *extra)))


def _generated(name: str, mechanism: int, key_type: int, template: Template) -> Way:
    whole = [*template, *READABLE]
    return Way(
        name,
        "generate",
        CKO.SECRET_KEY,
        key_type,
        whole,
        lambda c, s, extra: c.generate(s, c.mechanism(mechanism), but(whole, *extra)),
    )


def _pair(name: str, mechanism: int, key_type: int, public: Template, *, private: bool) -> Way:
    def make(client: Client, session: int, extra: Template) -> int:
        templates = (public, but(READABLE, *extra)) if private else (but(public, *extra), READABLE)
        return client.generate_pair(session, mechanism, *templates)[private]

    object_class = CKO.PRIVATE_KEY if private else CKO.PUBLIC_KEY
    return Way(name, "generate", object_class, key_type, READABLE if private else public, make)


def _call(client: Client, name: str, session: int, *arguments: Any) -> int:
    handle = ffi.new("CK_ULONG *")
    client.ok(name, session, *arguments, handle)
    return int(handle[0])


def wrapping_key(client: Client, session: int) -> int:
    usages: Template = [(CKA.WRAP, True), (CKA.UNWRAP, True)]
    head: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, WRAPPING_KEY)]
    return client.create(session, [*head, *usages])


def _unwrapped(name: str, object_class: int, key_type: int, source: Template) -> Way:
    whole: Template = [(CKA.CLASS, object_class), (CKA.KEY_TYPE, key_type), *READABLE]

    known: list[bytes] = []  # the same each time

    def make(client: Client, session: int, extra: Template) -> int:
        key = wrapping_key(client, session)
        mechanism = client.mechanism(CKM.AES_CBC_PAD, bytes(16))
        if not known:
            original = client.create(session, [*whole, *but(source, *READABLE)[: -len(READABLE)]])
            known.append(client.output("C_WrapKey", session, mechanism, key, original))
        array, count, _kept = client.template(but(whole, *extra))
        made = _call(client, "C_UnwrapKey", session, mechanism, key, known[0], len(known[0]), array, count)
        client.ok("C_DestroyObject", session, key)
        return made

    return Way(name, "unwrap", object_class, key_type, whole, make)


def _derived(name: str, key_type: int, size: int) -> Way:
    head: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type)]
    whole: Template = [*head, *([] if key_type in DES else [(CKA.VALUE_LEN, size)]), *READABLE]

    def make(client: Client, session: int, extra: Template) -> int:
        kind: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, bytes(range(16)))]
        base = client.create(session, [*kind, *READABLE, (CKA.DERIVE, True)])
        parameter = ffi.new("CK_KEY_DERIVATION_STRING_DATA *")
        held = ffi.from_buffer("CK_BYTE[]", bytes(range(64)))
        parameter.pData, parameter.ulLen = held, len(held)
        mechanism = client.mechanism(CKM.AES_ECB_ENCRYPT_DATA, parameter)
        array, count, _kept = client.template(but(whole, *extra))
        made = _call(client, "C_DeriveKey", session, mechanism, base, array, count)
        client.ok("C_DestroyObject", session, base)
        return made

    return Way(name, "derive", CKO.SECRET_KEY, key_type, whole, make)


def ways() -> list[Way]:
    keys = templates_of_keys()
    found = [_created(f"create {c:#x}", c, None, t) for c, t in templates_of_others().items()]
    found += [_created(f"create {c:#x} {k:#x}", c, k, t) for (c, k), t in keys.items()]
    sized: Template = [(CKA.VALUE_LEN, 16)]
    found += [
        _generated("generate AES", CKM.AES_KEY_GEN, CKK.AES, sized),
        _generated("generate XTS", CKM.AES_XTS_KEY_GEN, CKK.AES_XTS, [(CKA.VALUE_LEN, 32)]),
        _generated("generate DES2", CKM.DES2_KEY_GEN, CKK.DES2, []),
        _generated("generate DES3", CKM.DES3_KEY_GEN, CKK.DES3, []),
        _generated("generate generic", CKM.GENERIC_SECRET_KEY_GEN, CKK.GENERIC_SECRET, sized),
        _generated("generate HKDF", CKM.HKDF_KEY_GEN, CKK.HKDF, sized),
    ]
    rsa_public: Template = [(CKA.MODULUS_BITS, 1024), (CKA.PUBLIC_EXPONENT, b"\x01\x00\x01")]
    for private in (False, True):
        half = "private" if private else "public"
        found.append(_pair(f"{half} RSA", CKM.RSA_PKCS_KEY_PAIR_GEN, CKK.RSA, rsa_public, private=private))
        for key_type, (params, mechanism) in CURVES.items():
            public: Template = [(CKA.EC_PARAMS, params)]
            found.append(_pair(f"{half} {key_type:#x}", mechanism, key_type, public, private=private))
    for (object_class, key_type), template in keys.items():
        if object_class != CKO.PUBLIC_KEY:
            found.append(_unwrapped(f"unwrap {object_class:#x} {key_type:#x}", object_class, key_type, template))
        if object_class == CKO.SECRET_KEY:
            found.append(_derived(f"derive {key_type:#x}", key_type, SIZES.get(key_type, 16)))
    return found


# Without what is generated: one for each class and key type.
WAYS_OF_CREATION = [way for way in ways() if way.origin == "create"]


def from_password(fob: Fob, template: Template) -> tuple[int, int]:
    """The answer of C_GenerateKey with CKM_PKCS5_PBKD2 for an AES key, and the handle."""
    parameter = ffi.new("CK_PKCS5_PBKD2_PARAMS2 *")
    salt, password = ffi.new("CK_BYTE[]", b"salt"), ffi.new("CK_BYTE[]", b"password")
    parameter.saltSource, parameter.pSaltSourceData, parameter.ulSaltSourceDataLen = 1, salt, 4
    parameter.iterations, parameter.prf = 1, CKP.PKCS5_PBKD2_HMAC_SHA256
    parameter.pPassword, parameter.ulPasswordLen = password, 8
    mechanism = fob.client.mechanism(CKM.PKCS5_PBKD2, parameter)
    asked: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE_LEN, 32), *template]
    array, count, _kept = fob.client.template(asked)
    handle = ffi.new("CK_ULONG *")
    return fob.client.call("C_GenerateKey", fob.session, mechanism, array, count, handle), int(handle[0])
