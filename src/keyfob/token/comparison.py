"""What a caller gives beside what the token makes or computes itself: it is compared, never believed and never dropped.

A template may repeat what results anyway (many programs send CKA_VALUE_LEN beside CKA_VALUE, a check value, the public
parts of a private key); anything else is refused, so an object that was made has every value that its template named:
- CKR_ATTRIBUTE_READ_ONLY where the standard forbids the attribute in this call (footnotes 2, 4 and 6), and always for a
  secret (footnote 7), so that no guess at one is confirmed;
- CKR_ATTRIBUTE_VALUE_INVALID for a false CKA_CHECK_VALUE (section 4.10.2);
- CKR_TEMPLATE_INCONSISTENT for the rest.

Exceptions, each for a rule of NSS: usages that a key type lacks are dropped (P21, templates.py), and what is no X.509
certificate is stored as it came (P19).
"""

from __future__ import annotations

from keyfob.mechanisms import check_value, key_class
from keyfob.mechanisms.hashes import HASHES
from keyfob.spec.constants import CKA, CKM, CKR
from keyfob.spec.errors import PKCS11Error, name_of
from keyfob.spec.traits import EMPTY_BY_DEFAULT
from keyfob.token.certificate import attributes_of, key_bits, other_serials
from keyfob.token.object import CERTIFICATE, KEY_CLASSES, SECRET_KEY, number, ulong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyfob.spec.attributes import Rows

Attributes = dict[int, bytes]

# Of every object, whatever its template says.
ALWAYS_OWN = frozenset(
    (
        *(CKA.UNIQUE_ID, CKA.LOCAL, CKA.KEY_GEN_MECHANISM, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE),
        CKA.MODULUS_BITS,  # private keys do not keep it
    )
)
# What a certificate's CKA_VALUE says of itself. CKA_ID and CKA_NSS_EMAIL are the caller's to choose.
OF_CERTIFICATES = (
    CKA.SUBJECT,
    CKA.ISSUER,
    CKA.SERIAL_NUMBER,
    CKA.START_DATE,
    CKA.END_DATE,
    CKA.PUBLIC_KEY_INFO,
)
# The standard's default of these is to be empty: a template that writes it out asks for what results without it. NSS
# sends the point of a private key empty where its PKCS #8 has none (P33).
MAY_BE_EMPTY = EMPTY_BY_DEFAULT | {CKA.CHECK_VALUE, CKA.EC_POINT}


def check_template(asked: Attributes, result: Attributes, own: Attributes, rows: Rows, forbidden: int) -> None:
    """Whether the new object `result` has what its template `asked` for.

    `own`: what the token made or computed. `forbidden`: the footnote of attributes that this call's templates must
    not have.
    """
    for attribute, value in asked.items():
        notes = rows[attribute][1] if attribute in rows else ()
        if forbidden in notes and attribute not in own and attribute not in ALWAYS_OWN:
            raise _read_only(attribute)
        if result.get(attribute) == value or _is_true(attribute, value, result):
            continue
        if forbidden in notes:
            raise _read_only(attribute)
        if value or attribute not in MAY_BE_EMPTY:
            raise PKCS11Error(
                CKR.TEMPLATE_INCONSISTENT, f"{name_of('CKA', attribute)} contradicts the rest of the template"
            )
    if asked.get(CKA.CHECK_VALUE):
        check_check_value(asked[CKA.CHECK_VALUE], result)
    if result[CKA.CLASS] == CERTIFICATE:
        check_certificate(asked, result)


def _read_only(attribute: int) -> PKCS11Error:
    return PKCS11Error(CKR.ATTRIBUTE_READ_ONLY, f"{name_of('CKA', attribute)} cannot be given here")


def _is_true(attribute: int, value: bytes, result: Attributes) -> bool:
    """Whether the value is another form of the object's, or that of an attribute which the object does not keep."""
    if attribute == CKA.VALUE_LEN:
        return number(value) == len(result.get(CKA.VALUE, b""))
    if attribute == CKA.MODULUS_BITS:
        return number(value) == int.from_bytes(result.get(CKA.MODULUS, b""), "big").bit_length()
    if result[CKA.CLASS] not in KEY_CLASSES or attribute not in result:
        return False
    return key_class(number(result[CKA.CLASS]), number(result[CKA.KEY_TYPE])).same(attribute, value, result)


def check_check_value(given: bytes, attributes: Mapping[int, bytes]) -> None:
    """Raise unless this is the check value of the object with these attributes, which must have one."""
    computed = check_value(attributes)
    if computed is None:
        raise PKCS11Error(CKR.ATTRIBUTE_TYPE_INVALID, "this object has no CKA_CHECK_VALUE")
    if computed != given:
        raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "CKA_CHECK_VALUE is not that of the object")


def check_certificate(given: Mapping[int, bytes], attributes: Mapping[int, bytes]) -> None:
    """Raise where what is given of a certificate contradicts its CKA_VALUE."""
    facts = attributes_of(attributes.get(CKA.VALUE, b""))
    if not facts:
        return
    for attribute in OF_CERTIFICATES:
        value = given.get(attribute)
        if not value or value == facts[attribute]:
            continue
        if attribute == CKA.SERIAL_NUMBER and value in other_serials(facts[attribute]):  # O21
            continue
        raise PKCS11Error(
            CKR.TEMPLATE_INCONSISTENT, f"{name_of('CKA', attribute)} is not what the certificate in CKA_VALUE says"
        )
    hashed = given.get(CKA.HASH_OF_SUBJECT_PUBLIC_KEY)
    if hashed:
        hash_function = HASHES.get(number(attributes.get(CKA.NAME_HASH_ALGORITHM) or ulong(CKM.SHA_1)))
        if hash_function is None:
            raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "CKA_NAME_HASH_ALGORITHM is no hash that keyfob knows")
        # The standard does not say which bytes of the public key are hashed: its bits, as in OCSP, or all of its DER.
        info = facts[CKA.PUBLIC_KEY_INFO]
        if hashed not in (hash_function.digest(key_bits(info)), hash_function.digest(info)):
            raise PKCS11Error(
                CKR.TEMPLATE_INCONSISTENT, "CKA_HASH_OF_SUBJECT_PUBLIC_KEY is not that of the certificate in CKA_VALUE"
            )


def is_computed(attribute: int, value: bytes, attributes: Attributes) -> bool:
    """Whether an object with these attributes has this value anyway, or may be given it although it is computed.

    For C_SetAttributeValue and C_CopyObject; raises where the value is false.
    """
    if attribute == CKA.CHECK_VALUE:
        if not value:  # "may be used to destroy the attribute, by supplying no-value"
            return attributes[CKA.CLASS] == SECRET_KEY
        if attributes.get(attribute) != b"":
            check_check_value(value, attributes)
            return True
    if attribute == CKA.PUBLIC_KEY_INFO and attributes[CKA.CLASS] in KEY_CLASSES and attributes.get(attribute):
        raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "CKA_PUBLIC_KEY_INFO is not that of the key")
    if attributes[CKA.CLASS] == CERTIFICATE and attribute in (CKA.ISSUER, CKA.SERIAL_NUMBER):
        check_certificate({attribute: value}, attributes)
    return False
