"""The rules of templates, interpreted from the standard's attribute tables (spec/attributes.py) by footnote number.

Beyond the standard NSS asks for some tolerance, each with its rule:
- NSS 3.116 to 3.124 say CKA_TOKEN and CKA_PRIVATE of an RSA key twice (P1, `read`);
- every usage flag is accepted on every key; where the table has none it is dropped (P1, P21);
- a usage left out is TRUE where the table has it (P12), but for CKA_DERIVE of secret keys;
- certificates complete themselves from CKA_VALUE (P3); CKA_ID defaults to the SHA-1 of the public value (N15);
- CKA_EC_POINT on a private EC key (P33), and NSS's vendor attributes, are kept as they are.
"""

from __future__ import annotations

import os

from keyfob.mechanisms import key_class
from keyfob.mechanisms.hashes import sha1
from keyfob.spec.attributes import BY_CLASS, BY_KEY_TYPE, STORAGE, Rows
from keyfob.spec.constants import CK, CKA, CKC, CKK, CKO, CKR
from keyfob.spec.errors import PKCS11Error, name_of
from keyfob.spec.traits import SECRETS
from keyfob.token import nested, policy, strict
from keyfob.token.certificate import attributes_of, normal_address
from keyfob.token.comparison import check_template, is_computed
from keyfob.token.object import (
    CERTIFICATE,
    FALSE,
    KEY_CLASSES,
    PRIVATE_KEY,
    PUBLIC_KEY,
    SECRET_KEY,
    TRUE,
    number,
    ulong,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from keyfob.mechanisms import Key

Attributes = dict[int, bytes]

CREATE, GENERATE, UNWRAP, DERIVE = "create", "generate", "unwrap", "derive"
REQUIRED = {CREATE: 1, GENERATE: 3, UNWRAP: 5}
FORBIDDEN = {CREATE: 2, GENERATE: 4, UNWRAP: 6, DERIVE: 6}

# Beside the value itself: compared (comparison.py), and kept only where the key type has them.
NOT_KEPT = (CKA.VALUE_LEN, CKA.MODULUS_BITS)

USAGES = (
    CKA.ENCRYPT,
    CKA.DECRYPT,
    CKA.SIGN,
    CKA.SIGN_RECOVER,
    CKA.VERIFY,
    CKA.VERIFY_RECOVER,
    CKA.WRAP,
    CKA.UNWRAP,
    CKA.DERIVE,
    CKA.ENCAPSULATE,
    CKA.DECAPSULATE,
)
# What a key is for when its template does not say: all that its type can do.
_SIGNS = frozenset((CKA.SIGN, CKA.VERIFY))
# Of a secret key derivation must be asked for, as the standard has it and NSS does: one for which nobody thought of it
# has no other keys made of it. (A key for HKDF is for nothing else.)
ASSUMED_OF_SECRETS = frozenset(USAGES) - {CKA.DERIVE, CKA.ENCAPSULATE, CKA.DECAPSULATE}
ASSUMED = {
    CKK.RSA: frozenset(USAGES) - {CKA.DERIVE, CKA.ENCAPSULATE, CKA.DECAPSULATE},
    CKK.EC: _SIGNS | {CKA.DERIVE},
    CKK.EC_EDWARDS: _SIGNS,
    CKK.EC_MONTGOMERY: frozenset((CKA.DERIVE,)),
    CKK.HKDF: ASSUMED_OF_SECRETS | {CKA.DERIVE},
}
VENDOR_NSS = 0xCE534350
VENDOR_NSS_END = VENDOR_NSS + 0x3000

# Not in the tables of a class, yet met in practice.
EXTRA_ROWS: dict[int, Rows] = {
    CKO.NSS_TRUST: {CKA.ISSUER: ("bytes", (1,)), CKA.SERIAL_NUMBER: ("bytes", (1,))},
    CKO.NSS_CRL: {CKA.SUBJECT: ("bytes", (1,)), CKA.VALUE: ("bytes", (1,))},
    CKO.NSS_SMIME: {CKA.SUBJECT: ("bytes", ())},
}
_EC_POINT: Rows = {CKA.EC_POINT: ("bytes", ())}
EXTRA_ROWS_OF_KEYS: dict[tuple[int, int], Rows] = {
    (CKO.PRIVATE_KEY, CKK.RSA): {CKA.MODULUS_BITS: ("ulong", (2, 4, 6))},
    (CKO.PRIVATE_KEY, CKK.EC): _EC_POINT,
    (CKO.PRIVATE_KEY, CKK.EC_EDWARDS): _EC_POINT,
    (CKO.PRIVATE_KEY, CKK.EC_MONTGOMERY): _EC_POINT,
}
CREATABLE = (*BY_CLASS, CKO.NSS_TRUST, CKO.NSS_CRL, CKO.NSS_SMIME)
NOT_CREATABLE = (CKO.PROFILE,)
# In the tables, and not of this token: it computes no CRC64, and no validation stands behind flags a caller would set.
UNKNOWN = (CKA.PUBLIC_CRC64_VALUE, CKA.OBJECT_VALIDATION_FLAGS)
# X.509 certificates: "only CKA_ID, CKA_ISSUER and CKA_SERIAL_NUMBER may be modified"; NSS renames and re-subjects
# (P20).
CHANGEABLE = {
    CKO.CERTIFICATE: (CKA.ID, CKA.ISSUER, CKA.SERIAL_NUMBER, CKA.SUBJECT, CKA.URL),
    CKO.DATA: (CKA.APPLICATION, CKA.OBJECT_ID, CKA.VALUE),
}

_rows_cache: dict[tuple[int, int | None], Rows] = {}


def rows_of(object_class: int, key_type: int | None) -> Rows:
    """Every attribute that an object of this class and key type may have."""
    rows = _rows_cache.get((object_class, key_type))
    if rows is None:
        rows = dict(STORAGE)
        rows.update(BY_CLASS.get(object_class, {}))
        rows.update(EXTRA_ROWS.get(object_class, {}))
        if key_type is not None:
            fallback: Rows = {CKA.VALUE: ("bytes", (1, 4, 6, 7)), CKA.VALUE_LEN: ("ulong", (2, 3))}
            rows.update(BY_KEY_TYPE.get((object_class, key_type), fallback if object_class == CKO.SECRET_KEY else {}))
            rows.update(EXTRA_ROWS_OF_KEYS.get((object_class, key_type), {}))
        for attribute in UNKNOWN:
            rows.pop(attribute, None)
        _rows_cache[object_class, key_type] = rows
    return rows


def _kinds() -> dict[int, str]:
    kinds: dict[int, str] = {}
    tables = (BY_CLASS, BY_KEY_TYPE, EXTRA_ROWS, EXTRA_ROWS_OF_KEYS)
    for rows in (STORAGE, *(rows for table in tables for rows in table.values())):
        for attribute, (kind, _) in rows.items():
            kinds.setdefault(attribute, kind)
    kinds.update({CKA.NSS_TRUST_STEP_UP_APPROVED: "bool", CKA.ALLOWED_MECHANISMS: "ulongs", CKA.NSS_EMAIL: "address"})
    for attribute in range(CKA.NSS_TRUST_SERVER_AUTH, CKA.NSS_TRUST_EMAIL_PROTECTION + 1):
        kinds[attribute] = "ulong"
    return kinds


KINDS = _kinds()


# By the kind of an attribute: how long its values may be, and what makes their normal form.
LENGTHS = {"bool": (1,), "ulong": (8,), "date": (0, 8), "ulongs": range(0, 1 << 31, 8)}
NORMAL_FORMS: dict[str, Callable[[bytes], bytes]] = {
    "bool": lambda value: FALSE if value == FALSE else TRUE,
    "integer": lambda value: value.lstrip(b"\0") or value[:1],
    "address": normal_address,
    "template": lambda value: nested.normal((a, _within(a, v)) for a, v in nested.unpack(value)),
}


def _within(attribute: int, value: bytes) -> bytes:
    """What a template in a template may say: everything but secrets, so that no search and no wrapping tells them."""
    if attribute in SECRETS:
        raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, f"{name_of('CKA', attribute)} in a template would tell a secret")
    return checked(attribute, value)


def checked(attribute: int, value: bytes) -> bytes:
    """The value in normal form, or CKR_ATTRIBUTE_VALUE_INVALID when its length is not of the attribute's type."""
    kind = KINDS.get(attribute, "bytes")
    if kind in LENGTHS and len(value) not in LENGTHS[kind]:
        raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, f"{name_of('CKA', attribute)} cannot have {len(value)} bytes")
    return NORMAL_FORMS[kind](value) if kind in NORMAL_FORMS else value


def read(template: list[tuple[int, bytes]], *, creating: bool = False) -> Attributes:
    """A caller's template as a dict, every value checked; two values for one are CKR_TEMPLATE_INCONSISTENT.

    Only the RSA private keys that NSS 3.116 to 3.124 create have CKA_TOKEN and CKA_PRIVATE first false, then true (P1).
    """
    found: Attributes = {}
    twice: list[int] = []
    for attribute, given in template:
        value = checked(attribute, given)
        if found.setdefault(attribute, value) != value:
            twice.append(attribute)
            found[attribute] = value
    if twice and not (creating and _is_import_of_nss(found, twice)):
        raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, f"there are two values for {name_of('CKA', twice[0])}")
    return found


def _is_import_of_nss(found: Attributes, twice: list[int]) -> bool:
    """`twice`: the attributes whose value changed, as often as it did."""
    return (
        (found.get(CKA.CLASS), found.get(CKA.KEY_TYPE)) == (PRIVATE_KEY, ulong(CKK.RSA))
        and sorted(twice) in ([CKA.TOKEN, CKA.PRIVATE], [CKA.TOKEN], [CKA.PRIVATE])
        and all(found[attribute] == TRUE for attribute in twice)
    )


def is_vendor(attribute: int) -> bool:
    return VENDOR_NSS <= attribute < VENDOR_NSS_END


def complete(
    template: Attributes,
    origin: str,
    *,
    made: Attributes | None = None,
    mechanism: int = CK.UNAVAILABLE_INFORMATION,
    private_default: bool,
    bases: Sequence[Mapping[int, bytes]] = (),
    role: str | None = None,
) -> Attributes:
    """The attributes of a new object, from what the caller asked for and what the token made itself.

    `origin`: CREATE, GENERATE, UNWRAP or DERIVE. `made`: what a mechanism made (a key's components), trusted.
    `private_default`: CKA_PRIVATE of a private or secret key that does not say.
    `bases`: the keys (or data) that a DERIVE starts from. `role`: who is logged in.
    """
    made = made or {}
    asked = dict(template)
    asked.update({a: made[a] for a in (CKA.CLASS, CKA.KEY_TYPE) if a in made})
    object_class = _class_of(asked)
    is_key = asked[CKA.CLASS] in KEY_CLASSES
    key_type = None
    if is_key:
        if CKA.KEY_TYPE not in asked:
            raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "CKA_KEY_TYPE is missing")
        key_type = number(asked[CKA.KEY_TYPE])
        if (object_class, key_type) not in BY_KEY_TYPE and object_class != CKO.SECRET_KEY:
            raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, f"{name_of('CKK', key_type)} keys are not supported")
    elif asked[CKA.CLASS] == CERTIFICATE:
        asked.setdefault(CKA.CERTIFICATE_TYPE, ulong(CKC.X_509))  # as NSS reads one without it
    rows = rows_of(object_class, key_type)
    _drop_foreign_usages(asked, rows, is_key=is_key)
    _check_rows(asked, rows, origin, made)
    own = made if key_type is None else _computed({**asked, **made}, made, rows, key_class(object_class, key_type))
    given = {a: v for a, v in {**asked, **own}.items() if a not in NOT_KEPT or a in own}
    if asked[CKA.CLASS] == CERTIFICATE:
        _complete_certificate(given, asked)
    _defaults(given, rows, private_default=private_default)
    if is_key:
        _key_defaults(given, rows, origin, mechanism, bases)
    policy.check_made(given, role)
    given[CKA.UNIQUE_ID] = unique_id()
    check_template(asked, given, own, rows, FORBIDDEN[origin])
    return given


def _computed(given: Attributes, made: Attributes, rows: Rows, kind: type[Key]) -> Attributes:
    """What was made, and what follows from it and the rest."""
    own = {**made, **kind.complete(given)}
    if CKA.VALUE_LEN in rows and CKA.VALUE_LEN not in own:  # of a type that no mechanism here uses
        own[CKA.VALUE_LEN] = ulong(len(given[CKA.VALUE]))
    return own


def _class_of(asked: Attributes) -> int:
    """CKA_CLASS of an object that can be made."""
    if CKA.CLASS not in asked:
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "CKA_CLASS is missing")
    object_class = number(asked[CKA.CLASS])
    if object_class not in CREATABLE or object_class in NOT_CREATABLE:
        raise PKCS11Error(
            CKR.ATTRIBUTE_VALUE_INVALID, f"objects of class {name_of('CKO', object_class)} cannot be made"
        )
    return object_class


def unique_id() -> bytes:
    """CKA_UNIQUE_ID of a new object (v3.0, section 4.4)."""
    return os.urandom(16).hex().encode()


def _drop_foreign_usages(asked: Attributes, rows: Rows, *, is_key: bool) -> None:
    if is_key:
        for usage in USAGES:
            if usage not in rows:
                asked.pop(usage, None)


def _check_rows(asked: Attributes, rows: Rows, origin: str, made: Attributes) -> None:
    forbidden, required = FORBIDDEN[origin], REQUIRED.get(origin)
    for attribute in asked:
        row = rows.get(attribute)
        if row is None:
            # NSS asks PBKDF2 for 3DES keys with CKA_VALUE_LEN, which they have not.
            sized = attribute == CKA.VALUE_LEN and origin != CREATE and CKA.VALUE in rows
            if not is_vendor(attribute) and not (sized and asked[CKA.CLASS] != PRIVATE_KEY):
                raise _no_such(attribute)
        elif forbidden in row[1] and 7 in row[1]:  # a secret is not even compared
            raise PKCS11Error(CKR.ATTRIBUTE_READ_ONLY, f"{name_of('CKA', attribute)} cannot be given here")
    for attribute, (_, notes) in rows.items():
        if required in notes and attribute not in asked and attribute not in made:
            raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, f"{name_of('CKA', attribute)} is missing")


def _no_such(attribute: int) -> PKCS11Error:
    return PKCS11Error(CKR.ATTRIBUTE_TYPE_INVALID, f"{name_of('CKA', attribute)} is not an attribute of this object")


def _complete_certificate(given: Attributes, asked: Attributes) -> None:
    kind = number(asked[CKA.CERTIFICATE_TYPE])
    if kind == CKC.X_509 and given.get(CKA.VALUE):
        for attribute, value in attributes_of(given[CKA.VALUE]).items():
            if not given.get(attribute):
                given[attribute] = value
    elif not given.get(CKA.VALUE) and not given.get(CKA.URL):
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "a certificate needs CKA_VALUE or CKA_URL")
    given.setdefault(CKA.VALUE, b"")


def _defaults(given: Attributes, rows: Rows, *, private_default: bool) -> None:
    hidden = given[CKA.CLASS] in (PRIVATE_KEY, SECRET_KEY) and private_default
    given.setdefault(CKA.TOKEN, FALSE)
    given.setdefault(CKA.PRIVATE, TRUE if hidden else FALSE)
    given.setdefault(CKA.MODIFIABLE, TRUE)
    given.setdefault(CKA.COPYABLE, TRUE)
    given.setdefault(CKA.DESTROYABLE, TRUE)
    given.setdefault(CKA.LABEL, b"")
    for attribute in (CKA.APPLICATION, CKA.OBJECT_ID, CKA.ID, CKA.SUBJECT, CKA.START_DATE, CKA.END_DATE):
        if attribute in rows:
            given.setdefault(attribute, b"")
    if given[CKA.CLASS] == CERTIFICATE:
        given.setdefault(CKA.ISSUER, b"")
        given.setdefault(CKA.SERIAL_NUMBER, b"")
        given.setdefault(CKA.TRUSTED, FALSE)
        given.setdefault(CKA.CERTIFICATE_CATEGORY, ulong(CK.CERTIFICATE_CATEGORY_UNSPECIFIED))
    elif number(given[CKA.CLASS]) == CKO.DATA:
        given.setdefault(CKA.VALUE, b"")


def _key_defaults(
    given: Attributes, rows: Rows, origin: str, mechanism: int, bases: Sequence[Mapping[int, bytes]]
) -> None:
    if given[CKA.CLASS] != PUBLIC_KEY:
        _protection(given, origin)
    assumed = ASSUMED.get(number(given[CKA.KEY_TYPE]), ASSUMED_OF_SECRETS)
    for usage in USAGES:
        if usage in rows:
            given.setdefault(usage, TRUE if usage in assumed else FALSE)
    given[CKA.LOCAL] = TRUE if origin == GENERATE else FALSE
    given[CKA.KEY_GEN_MECHANISM] = ulong(mechanism if origin == GENERATE else CK.UNAVAILABLE_INFORMATION)
    if not given[CKA.ID]:
        public = key_class(number(given[CKA.CLASS]), number(given[CKA.KEY_TYPE]))(given).public_value()
        given[CKA.ID] = sha1(public) if public else b""
    if given[CKA.CLASS] == PUBLIC_KEY:
        given.setdefault(CKA.TRUSTED, FALSE)
        return
    given.setdefault(CKA.WRAP_WITH_TRUSTED, FALSE)
    if given[CKA.CLASS] == PRIVATE_KEY:
        given.setdefault(CKA.ALWAYS_AUTHENTICATE, FALSE)
    else:
        given.setdefault(CKA.TRUSTED, FALSE)
    generated = origin == GENERATE
    given[CKA.ALWAYS_SENSITIVE], given[CKA.NEVER_EXTRACTABLE] = policy.past(given, generated=generated, bases=bases)


def _protection(given: Attributes, origin: str) -> None:
    stays = given[CKA.CLASS] == PRIVATE_KEY or given[CKA.TOKEN] == TRUE
    given.setdefault(CKA.SENSITIVE, TRUE if stays else FALSE)
    # A key made here stays here unless asked for; one that came from outside may leave again, wrapped (P15).
    extractable = FALSE if origin == GENERATE and stays else TRUE
    strict.assume(given, extractable)
    given.setdefault(CKA.EXTRACTABLE, extractable)


def changed(
    attributes: Attributes, changes: Attributes, *, copying: bool = False, role: str | None = None
) -> Attributes:
    """The attributes after C_SetAttributeValue (or C_CopyObject when `copying`); raises on what must not change."""
    object_class = number(attributes[CKA.CLASS])
    key_type = number(attributes[CKA.KEY_TYPE]) if CKA.KEY_TYPE in attributes else None
    rows = rows_of(object_class, key_type)
    before = policy.copied(attributes, role) if copying else attributes
    result = dict(before)
    for attribute, value in changes.items():
        vendor = is_vendor(attribute)
        if not vendor and attribute not in rows:
            if attribute in USAGES and attributes[CKA.CLASS] in KEY_CLASSES:
                continue
            raise _no_such(attribute)
        notes = rows[attribute][1] if attribute in rows else ()
        if before.get(attribute) != value or 7 in notes:  # 7: a secret, so no guess at it is confirmed
            otherwise = vendor or is_computed(attribute, value, before) or _changeable(attribute, object_class, notes)
            policy.check_change(attribute, value, before, role, copying=copying, otherwise=otherwise)
        result[attribute] = value
    policy.check_made(result, role, before)
    return result


def _changeable(attribute: int, object_class: int, notes: tuple[int, ...]) -> bool:
    return (
        attribute == CKA.LABEL
        or 8 in notes
        or attribute in CHANGEABLE.get(object_class, ())
        or (object_class in (CKO.TRUST, CKO.NSS_TRUST) and attribute not in (CKA.CLASS, CKA.UNIQUE_ID))
    )
