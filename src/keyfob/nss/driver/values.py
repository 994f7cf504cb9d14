"""Attribute values and flags, from Python to the bytes of C and back, and as text for people.

Values in templates are: bytes as they are, bool for CK_BBOOL, int for CK_ULONG, str for UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from keyfob.spec.attributes import BY_CLASS, BY_KEY_TYPE, STORAGE
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO
from keyfob.spec.errors import name_of
from keyfob.spec.names import NAMES

Value = bytes | bool | int | str
Template = Sequence[tuple[int, Value]]

LONGEST = 64
"""Bytes of a value that reports show."""

KINDS: dict[int, str] = {
    attribute: kind
    for rows in (STORAGE, *BY_CLASS.values(), *BY_KEY_TYPE.values())
    for attribute, (kind, _footnotes) in rows.items()
}
KINDS[CKA.VALUE] = "bytes"
for _attribute in (
    *(CKA.NSS_TRUST_SERVER_AUTH, CKA.NSS_TRUST_CLIENT_AUTH, CKA.NSS_TRUST_CODE_SIGNING),
    *(CKA.NSS_TRUST_EMAIL_PROTECTION, CKA.PARAMETER_SET),
):
    KINDS[_attribute] = "ulong"
KINDS[CKA.NSS_TRUST_STEP_UP_APPROVED] = "bool"

# Attributes whose numbers have names of their own.
PREFIXES = {
    CKA.CLASS: "CKO",
    CKA.KEY_TYPE: "CKK",
    CKA.CERTIFICATE_TYPE: "CKC",
    CKA.KEY_GEN_MECHANISM: "CKM",
    CKA.NAME_HASH_ALGORITHM: "CKM",
    CKA.PROFILE_ID: "CKP",
    CKA.TRUST_SERVER_AUTH: "CKT",
    CKA.TRUST_CLIENT_AUTH: "CKT",
    CKA.TRUST_CODE_SIGNING: "CKT",
    CKA.TRUST_EMAIL_PROTECTION: "CKT",
    CKA.NSS_TRUST_SERVER_AUTH: "CKT",
    CKA.NSS_TRUST_CLIENT_AUTH: "CKT",
    CKA.NSS_TRUST_CODE_SIGNING: "CKT",
    CKA.NSS_TRUST_EMAIL_PROTECTION: "CKT",
}

# Secret whatever the class of the object; CKA_VALUE depends on the class.
SECRET = frozenset(
    (CKA.PRIVATE_EXPONENT, CKA.PRIME_1, CKA.PRIME_2, CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT, CKA.SEED)
)
OPEN_VALUE = frozenset((CKO.CERTIFICATE, CKO.PUBLIC_KEY, CKO.DATA, CKO.NSS_CRL, CKO.TRUST, CKO.NSS_TRUST))
"""Classes whose CKA_VALUE is no secret."""

SLOT_FLAGS = {CKF.TOKEN_PRESENT: "TOKEN_PRESENT", CKF.REMOVABLE_DEVICE: "REMOVABLE_DEVICE", CKF.HW_SLOT: "HW_SLOT"}
SESSION_FLAGS = {CKF.RW_SESSION: "RW_SESSION", CKF.SERIAL_SESSION: "SERIAL_SESSION"}
TOKEN_FLAGS = {
    getattr(CKF, name): name
    for name in (
        *("RNG", "WRITE_PROTECTED", "LOGIN_REQUIRED", "USER_PIN_INITIALIZED", "RESTORE_KEY_NOT_NEEDED"),
        *("CLOCK_ON_TOKEN", "PROTECTED_AUTHENTICATION_PATH", "DUAL_CRYPTO_OPERATIONS", "TOKEN_INITIALIZED"),
        *("SECONDARY_AUTHENTICATION", "USER_PIN_COUNT_LOW", "USER_PIN_FINAL_TRY", "USER_PIN_LOCKED"),
        *("USER_PIN_TO_BE_CHANGED", "SO_PIN_COUNT_LOW", "SO_PIN_FINAL_TRY", "SO_PIN_LOCKED"),
        *("SO_PIN_TO_BE_CHANGED", "ERROR_STATE"),
    )
}
MECHANISM_FLAGS = {
    getattr(CKF, name): name
    for name in (
        *("HW", "MESSAGE_ENCRYPT", "MESSAGE_DECRYPT", "MESSAGE_SIGN", "MESSAGE_VERIFY", "MULTI_MESSAGE"),
        *("FIND_OBJECTS", "ENCRYPT", "DECRYPT", "DIGEST", "SIGN", "SIGN_RECOVER", "VERIFY", "VERIFY_RECOVER"),
        *("GENERATE", "GENERATE_KEY_PAIR", "WRAP", "UNWRAP", "DERIVE", "EC_F_P", "EC_F_2M", "EC_ECPARAMETERS"),
        *("EC_OID", "EC_UNCOMPRESS", "EC_COMPRESS", "EC_CURVENAME", "ENCAPSULATE", "DECAPSULATE", "EXTENSION"),
    )
}
INITIALIZE_FLAGS = {
    CKF.LIBRARY_CANT_CREATE_OS_THREADS: "LIBRARY_CANT_CREATE_OS_THREADS",
    CKF.OS_LOCKING_OK: "OS_LOCKING_OK",
}


def encoded(value: Value) -> bytes:
    """The bytes that C sees."""
    if isinstance(value, bool):
        return b"\x01" if value else b"\x00"
    if isinstance(value, int):
        return value.to_bytes(8, "little")
    return value.encode() if isinstance(value, str) else value


def number(value: bytes) -> int:
    """A CK_ULONG, or a CK_BBOOL, as an int."""
    return int.from_bytes(value, "little")


def flags_text(flags: int, names: dict[int, str]) -> str:
    """`RW_SESSION | SERIAL_SESSION`, or 0; bits without a name stay numbers."""
    parts = [name for bit, name in names.items() if flags & bit]
    rest = flags & ~sum(names)
    if rest:
        parts.append(f"0x{rest:X}")
    return " | ".join(parts) or "0"


def bytes_text(value: bytes) -> str:
    """Printable ASCII in quotes, anything else as hex; long values are cut and say how long they are."""
    if not value:
        return "empty"
    readable = all(32 <= byte < 127 for byte in value)
    shown = f'"{value[:LONGEST].decode()}"' if readable else value[:LONGEST].hex()
    return shown if len(value) <= LONGEST else f"{shown}... ({len(value)} bytes)"


def hidden(length: int) -> str:
    return f"({length} secret bytes)"


def class_of(template: Template) -> int | None:
    """The CKA_CLASS that a template names."""
    for attribute, value in template:
        if attribute == CKA.CLASS:
            return number(encoded(value))
    return None


def is_secret(attribute: int, object_class: int | None) -> bool:
    return attribute in SECRET or (attribute == CKA.VALUE and object_class not in OPEN_VALUE)


def value_text(attribute: int, value: bytes, object_class: int | None = None) -> str:
    """An attribute's value for people; secret ones only by their length."""
    if is_secret(attribute, object_class):
        return hidden(len(value))
    kind = KINDS.get(attribute, "bytes")
    if kind == "bool" and len(value) == 1:
        return {0: "FALSE", 1: "TRUE"}.get(value[0], f"0x{value[0]:02X}")
    if kind == "ulong" and len(value) == 8:
        return number_text(PREFIXES.get(attribute), number(value))
    if attribute in (CKA.LABEL, CKA.NSS_EMAIL):
        try:
            return f'"{value.decode()}"' if value.decode().isprintable() else bytes_text(value)
        except UnicodeDecodeError:
            return bytes_text(value)
    # Numbers and identifiers must not turn into text by chance.
    return bytes_text(value) if kind == "bytes" and attribute not in HEX else _hex(value)


PREFERRED = {("CKK", CKK.EC): "CKK_EC", ("CKM", CKM.EC_KEY_PAIR_GEN): "CKM_EC_KEY_PAIR_GEN"}
"""Of two names for a number, the one that the standard has not deprecated."""

HEX = frozenset((CKA.ID, CKA.SERIAL_NUMBER, CKA.EC_POINT, CKA.EC_PARAMS, CKA.SUBJECT, CKA.ISSUER, CKA.VALUE))


def _hex(value: bytes) -> str:
    shown = value[:LONGEST].hex() or "empty"
    return shown if len(value) <= LONGEST else f"{shown}... ({len(value)} bytes)"


def number_text(prefix: str | None, value: int) -> str:
    """A number by its name where it has one."""
    if value == 0xFFFFFFFFFFFFFFFF and prefix is None:
        return "CK_UNAVAILABLE_INFORMATION"
    if prefix is None:
        return str(value)
    if (prefix, value) in PREFERRED:
        return PREFERRED[prefix, value]
    return name_of(prefix, value) if prefix in NAMES else f"{prefix}_0x{value:X}"


def attribute_name(attribute: int) -> str:
    return name_of("CKA", attribute)


def mechanism_name(mechanism: int) -> str:
    return number_text("CKM", mechanism)


def template_text(template: Iterable[tuple[int, Value]]) -> str:
    """`{CKA_TOKEN=TRUE, CKA_CLASS=CKO_CERTIFICATE}`."""
    pairs = list(template)
    known = class_of(pairs)
    return "{" + ", ".join(f"{attribute_name(a)}={value_text(a, encoded(v), known)}" for a, v in pairs) + "}"


HASHES_AND_MASKS = {"hashAlg": "CKM", "mgf": "CKG", "kdf": "CKD", "prfHashMechanism": "CKM", "source": "CKZ"}
"""Fields of mechanism parameters whose numbers have names."""
