"""Key management (section 5.18): generation, wrapping, unwrapping, derivation."""

from __future__ import annotations

from keyfob import mechanisms
from keyfob.functions.begin import offered, usable_key
from keyfob.mechanisms.secret_key import SecretKey
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import PKCS11Error, name_of
from keyfob.spec.parameters import HkdfParams, KeyDerivationStringDataParams
from keyfob.token import derivation, policy, templates
from keyfob.token.object import FALSE, PRIVATE_KEY, PUBLIC_KEY, SECRET_KEY, TRUE, Object, number, ulong
from keyfob.token.values import value_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyfob.functions.begin import MechanismValue
    from keyfob.token.session import Session

Template = list[tuple[int, bytes]]
Attributes = dict[int, bytes]

DATA = ulong(CKO.DATA)

# What an unwrapped or derived secret must be long: the key types of fixed length.
FIXED_LENGTHS = {CKK.DES: 8, CKK.DES2: 16, CKK.DES3: 24, CKK.CHACHA20: 32}

HKDF = (CKM.HKDF_DERIVE, CKM.HKDF_DATA)


def chosen(mechanism: MechanismValue) -> tuple[int, object]:
    if mechanism is None:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, "the mechanism is NULL")
    return mechanism


def for_class(template: Template, object_class: bytes) -> Attributes:
    """The template with its class filled in; a contradicting one is CKR_TEMPLATE_INCONSISTENT."""
    asked = templates.read(template)
    if asked.setdefault(CKA.CLASS, object_class) != object_class:
        raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "CKA_CLASS contradicts what the function makes")
    return asked


def with_key_type(asked: Attributes, key_type: int | None) -> Attributes:
    """CKA_KEY_TYPE as the mechanism makes it (None: as the template says)."""
    if key_type is None:
        return asked
    if asked.setdefault(CKA.KEY_TYPE, ulong(key_type)) != ulong(key_type):
        raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "CKA_KEY_TYPE contradicts what the mechanism makes")
    return asked


def C_GenerateKey(session: Session, mechanism: MechanismValue, template: Template) -> int:
    number_, parameter = chosen(mechanism)
    row, generate = offered(session, number_, CKF.GENERATE)
    asked = with_key_type(for_class(template, SECRET_KEY), row.makes)
    objects = session.token.objects
    private_default = objects.private_default(asked)
    objects.may_write(session, _with_private(asked, private_default=private_default))
    attributes = templates.complete(
        asked,
        templates.GENERATE,
        made=generate(parameter, asked),
        mechanism=number_,
        private_default=private_default,
        role=session.token.role,
    )
    return objects.add(session, attributes)[0]


def C_GenerateKeyPair(
    session: Session, mechanism: MechanismValue, public_template: Template, private_template: Template
) -> tuple[int, int]:
    """(public handle, private handle); both are kept in one step, so that no half pair ever is (K8)."""
    number_, parameter = chosen(mechanism)
    row, generate_pair = offered(session, number_, CKF.GENERATE_KEY_PAIR)
    public = for_class(public_template, PUBLIC_KEY)
    private = for_class(private_template, PRIVATE_KEY)
    objects = session.token.objects
    private_default = objects.private_default(private)
    # Refuse what cannot be stored before the work of making it.
    objects.may_write(session, _with_private(public, private_default=False))
    objects.may_write(session, _with_private(private, private_default=private_default))
    made_public, made_private = generate_pair(parameter, public, private)
    for asked, made in ((public, made_public), (private, made_private)):
        made.setdefault(CKA.KEY_TYPE, ulong(row.makes) if row.makes is not None else b"")
        if asked.get(CKA.KEY_TYPE, made[CKA.KEY_TYPE]) != made[CKA.KEY_TYPE]:
            raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "CKA_KEY_TYPE contradicts what the mechanism makes")
    role = session.token.role
    both = [
        templates.complete(
            asked, templates.GENERATE, made=made, mechanism=number_, private_default=private_default, role=role
        )
        for asked, made in ((public, made_public), (private, made_private))
    ]
    if not private.get(CKA.ID) and public.get(CKA.ID):
        both[1][CKA.ID] = both[0][CKA.ID]
    elif not public.get(CKA.ID) and private.get(CKA.ID):
        both[0][CKA.ID] = both[1][CKA.ID]
    public_handle, private_handle = objects.add(session, *both)
    return public_handle, private_handle


def _with_private(asked: Attributes, *, private_default: bool) -> Attributes:
    return {CKA.PRIVATE: TRUE if private_default else FALSE, **asked}


def C_WrapKey(
    session: Session, mechanism: MechanismValue, wrapping_key: int, key: int, room: int | None
) -> bytes | int:
    """Secret keys as their value, private keys as PKCS #8 PrivateKeyInfo (P15: in a read-only session too)."""
    number_, parameter = chosen(mechanism)
    row, make = offered(session, number_, CKF.WRAP)
    wrapping = _wrapping_key(session, wrapping_key, row, CKF.WRAP)
    target = session.token.objects.key(key)
    policy.may_wrap(
        target.attributes, wrapping.attributes, number_, parameter, lambda attribute: value_of(target, attribute)
    )
    plain = _plain(target.attributes)
    wrapper = make(wrapping.key, parameter)
    size: int = wrapper.size(len(plain))
    if room is None or room < size:
        return size
    wrapped: bytes = wrapper.wrap(plain)
    if target.stored:
        from keyfob.token import audit

        audit.key_event(session.token, "key-exported", target.attributes)
    return wrapped


def _wrapping_key(session: Session, handle: int, row: mechanisms.Mechanism, flag: int) -> Object:
    invalid = CKR.WRAPPING_KEY_HANDLE_INVALID if flag == CKF.WRAP else CKR.UNWRAPPING_KEY_HANDLE_INVALID
    inconsistent = CKR.WRAPPING_KEY_TYPE_INCONSISTENT if flag == CKF.WRAP else CKR.UNWRAPPING_KEY_TYPE_INCONSISTENT
    try:
        return usable_key(session, handle, row, flag)
    except PKCS11Error as problem:
        codes = {CKR.KEY_HANDLE_INVALID: invalid, CKR.KEY_TYPE_INCONSISTENT: inconsistent}
        raise PKCS11Error(codes.get(problem.rv, problem.rv), problem.reason) from None


def _plain(attributes: Attributes) -> bytes:
    if attributes[CKA.CLASS] == SECRET_KEY:
        return attributes[CKA.VALUE]
    from keyfob.mechanisms.pkcs8 import private_key_info  # 2 ms of imports that only wrapping needs

    return private_key_info(attributes)


def C_UnwrapKey(
    session: Session, mechanism: MechanismValue, unwrapping_key: int, wrapped: bytes, template: Template
) -> int:
    number_, parameter = chosen(mechanism)
    row, make = offered(session, number_, CKF.UNWRAP)
    unwrapping = _wrapping_key(session, unwrapping_key, row, CKF.UNWRAP)
    asked = policy.unwrapped_as(templates.read(template), unwrapping.attributes, number_, parameter)
    if CKA.CLASS not in asked:
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "CKA_CLASS is missing")
    objects = session.token.objects
    private_default = objects.private_default(asked)
    objects.may_write(session, _with_private(asked, private_default=private_default))
    unwrapper = make(unwrapping.key, parameter)
    if number(asked[CKA.CLASS]) == CKO.PRIVATE_KEY:
        made = _private_components(unwrapper.unwrap(wrapped), asked)
    elif number(asked[CKA.CLASS]) == CKO.SECRET_KEY:
        value = unwrapper.unwrap(wrapped, wanted_length(asked), possible_lengths(asked))
        made = {CKA.VALUE: _sized(value, asked, CKR.WRAPPED_KEY_INVALID)}
    else:
        raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "only private and secret keys are unwrapped")
    attributes = templates.complete(
        asked, templates.UNWRAP, made=made, private_default=private_default, role=session.token.role
    )
    return objects.add(session, attributes)[0]


def _private_components(plain: bytes, asked: Attributes) -> Attributes:
    from keyfob.mechanisms.pkcs8 import attributes_from_private_key_info

    made = attributes_from_private_key_info(plain)
    if asked.get(CKA.KEY_TYPE, made[CKA.KEY_TYPE]) != made[CKA.KEY_TYPE]:
        raise PKCS11Error(
            CKR.TEMPLATE_INCONSISTENT,
            f"the wrapped key is of type {name_of('CKK', number(made[CKA.KEY_TYPE]))}, not what CKA_KEY_TYPE says",
        )
    return made


def wanted_length(asked: Attributes) -> int | None:
    """The length in bytes that a template asks of a secret: CKA_VALUE_LEN, or what its key type fixes; None: any."""
    if CKA.VALUE_LEN in asked:
        return number(asked[CKA.VALUE_LEN])
    return FIXED_LENGTHS.get(number(asked[CKA.KEY_TYPE])) if CKA.KEY_TYPE in asked else None


def possible_lengths(asked: Attributes) -> Sequence[int]:
    """The lengths in bytes that a secret of the template's key type may have."""
    kind = mechanisms.key_class(CKO.SECRET_KEY, number(asked.get(CKA.KEY_TYPE, b"")))
    return kind.LENGTHS if issubclass(kind, SecretKey) else SecretKey.LENGTHS


def _sized(value: bytes, asked: Attributes, otherwise: int) -> bytes:
    length = wanted_length(asked)
    if length is not None and length != len(value):
        raise PKCS11Error(otherwise, "the secret has not the length that the template asks for")
    return value


def _leading(value: bytes, asked: Attributes) -> bytes:
    """As many leading bytes of a derived secret as the template asks for (section 6.3.20 and others)."""
    length = wanted_length(asked)
    if length is not None and not 0 < length <= len(value):
        raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "the mechanism cannot derive that many bytes")
    return value[:length]


def C_DeriveKey(session: Session, mechanism: MechanismValue, base_key: int, template: Template) -> int:
    number_, parameter = chosen(mechanism)
    row, derive = offered(session, number_, CKF.DERIVE)
    key, base = _ingredient(session, base_key, row)
    bases, given = [base], parameter
    if number_ == CKM.CONCATENATE_BASE_AND_KEY:
        given, other = _ingredient(session, _handle(parameter), row)
        bases.append(other)
    elif isinstance(parameter, HkdfParams) and parameter.salt_type == CKF.HKDF_SALT_KEY:
        salt, other = _ingredient(session, parameter.salt_key, row)
        parameter.salt = salt.attributes[CKA.VALUE]
        bases.append(other)
    makes_data = number_ == CKM.HKDF_DATA
    asked = _for_data(template) if makes_data else for_class(template, SECRET_KEY)
    asked = derivation.derived_as(asked, number_, bases)
    if not makes_data:
        asked.setdefault(CKA.KEY_TYPE, ulong(CKK.GENERIC_SECRET))
    objects = session.token.objects
    private_default = objects.private_default(asked)
    objects.may_write(session, _with_private(asked, private_default=private_default))
    value = _leading(derive(key, given, wanted_length(asked)), asked)
    if not makes_data:
        data = len(parameter.data) if isinstance(parameter, KeyDerivationStringDataParams) else 0
        derivation.check_derived(number_, bases, len(value), data)
    attributes = templates.complete(
        asked,
        templates.DERIVE,
        made={CKA.VALUE: value},
        private_default=private_default,
        bases=bases,
        role=session.token.role,
    )
    return objects.add(session, attributes)[0]


def _ingredient(session: Session, handle: int, row: mechanisms.Mechanism) -> tuple[mechanisms.Key, Attributes]:
    """A key that a derivation takes, base or other, and the attributes that bind the result.

    HKDF takes a data object, too (section 6.62.3): NSS gives TLS 1.3's "no secret here", zeros, as one.
    """
    if row.type in HKDF:
        found = session.token.objects.find_data(handle)
        if found is not None:
            value = {CKA.VALUE: found.attributes.get(CKA.VALUE, b"")}
            return mechanisms.key_class(CKO.SECRET_KEY, CKK.HKDF)(value), found.attributes
    key = usable_key(session, handle, row, CKF.DERIVE)
    return key.key, key.attributes


def _for_data(template: Template) -> Attributes:
    """CKM_HKDF_DATA's template: NSS has one for all derivations, which speaks of a secret key and of its uses."""
    of_keys = (CKA.CLASS, CKA.KEY_TYPE, *templates.USAGES)
    if (CKA.CLASS, SECRET_KEY) in template:
        template = [(attribute, value) for attribute, value in template if attribute not in of_keys]
    return for_class(template, DATA)


def _handle(parameter: object) -> int:
    if not isinstance(parameter, bytes) or len(parameter) != 8:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the parameter must be the handle of a key")
    return number(parameter)
