"""What a key's attributes permit, and who may give them: each rule stands here once, for every way in.

Pure functions on attributes, without store, session or key material, so that a search can call them as the functions of
chapter 5 do. `role` is who is logged in: None, "user" or "so".

    making (create, generate, unwrap, derive)   templates.complete() calls `check_made`
    C_SetAttributeValue, C_CopyObject           templates.changed() calls `check_change`, `copied` and `check_made`
    every use of a key                          `may_use`
    C_WrapKey                                   `may_wrap`
    C_UnwrapKey                                 `unwrapped_as`
    C_DeriveKey                                 derivation.py

What is refused is said with PKCS11Error; what is decided beyond the standard, and why, is in docs/policy.md.
"""

from __future__ import annotations

from keyfob.mechanisms import works_in_parts
from keyfob.mechanisms.secret_key import SHORTEST_SECRET
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import PKCS11Error, name_of
from keyfob.spec.traits import hides
from keyfob.token import strict
from keyfob.token.nested import TEMPLATES, attributes_of
from keyfob.token.object import FALSE, PRIVATE_KEY, PUBLIC_KEY, SECRET_KEY, TRUE, ulong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Attributes = dict[int, bytes]

SO = "so"
GENERIC = ulong(CKK.GENERIC_SECRET)
TRUST_CLASSES = (ulong(CKO.NSS_TRUST), ulong(CKO.TRUST))

# CKF_* of an operation: the usage attribute that its key must have, and the classes that the key may be of.
USES: dict[int, tuple[int, tuple[bytes, ...]]] = {
    CKF.ENCRYPT: (CKA.ENCRYPT, (PUBLIC_KEY, SECRET_KEY)),
    CKF.DECRYPT: (CKA.DECRYPT, (PRIVATE_KEY, SECRET_KEY)),
    CKF.SIGN: (CKA.SIGN, (PRIVATE_KEY, SECRET_KEY)),
    CKF.SIGN_RECOVER: (CKA.SIGN_RECOVER, (PRIVATE_KEY,)),
    CKF.VERIFY: (CKA.VERIFY, (PUBLIC_KEY, SECRET_KEY)),
    CKF.VERIFY_RECOVER: (CKA.VERIFY_RECOVER, (PUBLIC_KEY,)),
    CKF.WRAP: (CKA.WRAP, (PUBLIC_KEY, SECRET_KEY)),
    CKF.UNWRAP: (CKA.UNWRAP, (PRIVATE_KEY, SECRET_KEY)),
    CKF.DERIVE: (CKA.DERIVE, (PRIVATE_KEY, SECRET_KEY, PUBLIC_KEY)),
}

# The only mechanisms of a secret key that is CKA_TRUSTED (or strict), and the class that each wraps. A blob tells of
# tampering, and of the mechanism that made it: KW and KWP begin with different constants, as long as the caller gives
# none, so a private key cannot come back as a secret key, nor one key as part of itself. Were the same blob taken by
# two mechanisms (PKCS #7 padding has KW's constant), the one would tell, byte by byte, what the other wrapped.
WRAPPED_BY = {
    CKM.AES_KEY_WRAP: SECRET_KEY,
    CKM.NSS_AES_KEY_WRAP: SECRET_KEY,
    CKM.AES_KEY_WRAP_KWP: PRIVATE_KEY,
}
# Types that an AES key must not come back as: two DES keys are found at the price of one (met in the middle). Other
# keys in parts cost 112 bits at least, as none of their bytes is known: they may leave.
WEAKER_TYPES = (ulong(CKK.DES), ulong(CKK.DES2))

# Attributes that only ever become stricter: the value that they may be given.
ONE_WAY = {
    CKA.SENSITIVE: TRUE,
    CKA.WRAP_WITH_TRUSTED: TRUE,
    CKA.EXTRACTABLE: FALSE,
    CKA.COPYABLE: FALSE,
    CKA.MODIFIABLE: FALSE,
    CKA.DESTROYABLE: FALSE,
}


# Using


def may_use(attributes: Mapping[int, bytes], flag: int, mechanism: int) -> None:
    """Whether the key is of a class for this operation (CKF_*), has its usage attribute and allows the mechanism."""
    usage, classes = USES[flag]
    if attributes[CKA.CLASS] not in classes:
        raise PKCS11Error(CKR.KEY_TYPE_INCONSISTENT, "the key is not of the class that this operation uses")
    if attributes.get(usage) != TRUE:
        raise PKCS11Error(CKR.KEY_FUNCTION_NOT_PERMITTED, f"the key's {name_of('CKA', usage)} is false")
    if not mechanism_allowed(attributes, mechanism):
        raise PKCS11Error(CKR.MECHANISM_INVALID, "the key's CKA_ALLOWED_MECHANISMS does not list the mechanism")
    if attributes.get(CKA.TRUSTED) == TRUE and attributes[CKA.CLASS] == SECRET_KEY:
        if flag not in (CKF.WRAP, CKF.UNWRAP):
            raise PKCS11Error(CKR.KEY_FUNCTION_NOT_PERMITTED, "a trusted secret key wraps and unwraps, nothing else")
        if mechanism not in WRAPPED_BY:
            raise PKCS11Error(CKR.MECHANISM_INVALID, "a trusted secret key wraps with CKM_AES_KEY_WRAP and _KWP only")
    if attributes.get(CKA.KEY_TYPE) == GENERIC:
        check_use_in_parts(attributes, flag, mechanism)
    if strict.MODE.on:
        strict.may_use(attributes, flag, mechanism, WRAPPED_BY)


def check_use_in_parts(attributes: Mapping[int, bytes], flag: int, mechanism: int) -> None:
    """Generic secrets serve as triple DES keys for NSS (P15): one that hides its value may be made of an AES key."""
    if flag != CKF.DERIVE and hides(attributes) and works_in_parts(mechanism):
        raise PKCS11Error(CKR.KEY_TYPE_INCONSISTENT, "a generic secret that hides its value is no key in parts")


def may_digest(attributes: Mapping[int, bytes]) -> None:
    """C_DigestKey: the digest of a short key tells it, and that of a long one nothing."""
    if attributes[CKA.CLASS] != SECRET_KEY:
        raise PKCS11Error(CKR.KEY_INDIGESTIBLE, "only secret keys are digested")
    if hides(attributes) and len(attributes[CKA.VALUE]) < SHORTEST_SECRET:
        raise PKCS11Error(CKR.KEY_INDIGESTIBLE, "the digest of so short a key would tell its value")


def mechanism_allowed(attributes: Mapping[int, bytes], mechanism: int) -> bool:
    """CKA_ALLOWED_MECHANISMS, where the key has a list."""
    allowed = attributes.get(CKA.ALLOWED_MECHANISMS)
    return not allowed or ulong(mechanism) in listed(allowed)


def listed(allowed: bytes) -> set[bytes]:
    """The CK_ULONGs of a CKA_ALLOWED_MECHANISMS."""
    return {allowed[i : i + 8] for i in range(0, len(allowed), 8)}


# Making keys out of keys


def may_wrap(
    target: Mapping[int, bytes],
    wrapping: Mapping[int, bytes],
    mechanism: int,
    parameter: object,
    value_of: Callable[[int], bytes | None],
) -> None:
    """Whether the one key leaves under the other. The wrapping key has passed `may_use`.

    `value_of`: the target's attributes as C_GetAttributeValue and searches have them, also those that it need not hold.
    A trusted secret key stays: it would come back without the mark, and decrypt what it has wrapped.
    """
    if target[CKA.CLASS] not in (PRIVATE_KEY, SECRET_KEY):
        raise PKCS11Error(CKR.KEY_NOT_WRAPPABLE, "only private and secret keys are wrapped")
    if target[CKA.CLASS] == SECRET_KEY and target.get(CKA.TRUSTED) == TRUE:
        raise PKCS11Error(CKR.KEY_NOT_WRAPPABLE, "a trusted secret key does not leave")
    check_form(target, wrapping, mechanism, parameter)
    if target.get(CKA.EXTRACTABLE) != TRUE:
        raise PKCS11Error(CKR.KEY_UNEXTRACTABLE, "the key's CKA_EXTRACTABLE is false")
    if target.get(CKA.WRAP_WITH_TRUSTED) == TRUE and wrapping.get(CKA.TRUSTED) != TRUE:
        raise PKCS11Error(CKR.KEY_NOT_WRAPPABLE, "the key leaves under trusted keys only")
    strict.may_wrap(target, wrapping)
    for attribute, value in attributes_of(wrapping.get(CKA.WRAP_TEMPLATE)).items():
        if value_of(attribute) != value:
            raise PKCS11Error(
                CKR.KEY_HANDLE_INVALID, f"the key's {name_of('CKA', attribute)} is not what CKA_WRAP_TEMPLATE demands"
            )


def check_form(key: Mapping[int, bytes], wrapping: Mapping[int, bytes], mechanism: int, parameter: object) -> None:
    """Whether `key` is, or may come back as, what a blob of this trusted (or strict) secret key stands for."""
    if wrapping[CKA.CLASS] != SECRET_KEY or not (wrapping.get(CKA.TRUSTED) == TRUE or strict.applies(wrapping)):
        return
    if parameter not in (None, b""):
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "this key wraps and unwraps with the standard's initial value")
    object_class = key.get(CKA.CLASS)
    if object_class is not None and object_class != WRAPPED_BY.get(mechanism, object_class):
        raise PKCS11Error(
            CKR.MECHANISM_INVALID, "under this key secret keys go with CKM_AES_KEY_WRAP, private keys with _KWP"
        )
    if key.get(CKA.KEY_TYPE) in WEAKER_TYPES:
        raise PKCS11Error(CKR.MECHANISM_INVALID, "under this key go no keys of one or two DES keys")


def unwrapped_as(asked: Attributes, unwrapping: Mapping[int, bytes], mechanism: int, parameter: object) -> Attributes:
    """The template of an unwrapped key, completed with what its unwrapping key demands.

    What a trusted key unwraps may be a key that left because its CKA_WRAP_WITH_TRUSTED was trusted to hold.
    """
    asked = with_required(asked, attributes_of(unwrapping.get(CKA.UNWRAP_TEMPLATE)), "CKA_UNWRAP_TEMPLATE")
    check_form(asked, unwrapping, mechanism, parameter)
    asked = with_required(asked, strict.required_of_unwrapped(unwrapping), "strict policy")
    if unwrapping.get(CKA.TRUSTED) == TRUE:
        required = {CKA.SENSITIVE: TRUE, CKA.WRAP_WITH_TRUSTED: TRUE}
        if asked.get(CKA.TRUSTED) != TRUE:  # trusted again: the SO's alone (`check_made`), who makes public keys only
            required[CKA.PRIVATE] = TRUE
        asked = with_required(asked, required, "the trusted unwrapping key")
    return asked


def with_required(asked: Attributes, required: Attributes, whose: str) -> Attributes:
    """Both together; CKR_TEMPLATE_INCONSISTENT where they contradict each other."""
    for attribute, value in required.items():
        if asked.get(attribute, value) != value:
            raise PKCS11Error(
                CKR.TEMPLATE_INCONSISTENT, f"{whose} demands another {name_of('CKA', attribute)} than the template"
            )
    return {**required, **asked}


def past(given: Mapping[int, bytes], *, generated: bool, bases: Sequence[Mapping[int, bytes]]) -> tuple[bytes, bytes]:
    """(CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE) of a new key: generated, derived from `bases`, or from outside.

    Section 6.43: what was always so of all bases. A key that was generated from the caller's password is from outside;
    CKA_LOCAL is TRUE as the standard says.
    """
    made_here = bool(bases) or (generated and not strict.from_callers_secret(given))
    always = made_here and given[CKA.SENSITIVE] == TRUE and all(b.get(CKA.ALWAYS_SENSITIVE) == TRUE for b in bases)
    never = made_here and given[CKA.EXTRACTABLE] == FALSE and all(b.get(CKA.NEVER_EXTRACTABLE) == TRUE for b in bases)
    return TRUE if always else FALSE, TRUE if never else FALSE


# Making and changing


def may_keep(attributes: Mapping[int, bytes], *, sees_private: bool) -> None:
    """Whether this login lets an object with these attributes be made, changed or destroyed.

    Trust decides whom every program believes: it is never stored without the user's PIN.
    """
    if sees_private:
        return
    if attributes.get(CKA.TOKEN) == TRUE and attributes.get(CKA.CLASS) in TRUST_CLASSES:
        raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "trust objects are written after login only")
    if attributes.get(CKA.PRIVATE) == TRUE:
        raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "private objects need the user's login")


def private_by_default(asked: Mapping[int, bytes], *, sees_private: bool) -> bool:
    """CKA_PRIVATE when a key's template does not say: private where this login allows it, or must wait for one.

    A session key made before login stays usable (O4: no login tricks).
    """
    return sees_private or asked.get(CKA.TOKEN) == TRUE


def check_made(attributes: Mapping[int, bytes], role: str | None, before: Mapping[int, bytes] | None = None) -> None:
    """Whether an object may come to have these attributes, made by this role; `before`: what it had until now."""
    if attributes.get(CKA.ALWAYS_AUTHENTICATE) == TRUE and attributes.get(CKA.PRIVATE) != TRUE:
        raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "CKA_ALWAYS_AUTHENTICATE needs CKA_PRIVATE")
    strict.check_made(attributes, before)
    if attributes.get(CKA.TRUSTED) != TRUE or (before is not None and before.get(CKA.TRUSTED) == TRUE):
        return
    if role != SO:
        raise PKCS11Error(CKR.ATTRIBUTE_READ_ONLY, "only the SO sets CKA_TRUSTED")
    if attributes[CKA.CLASS] == SECRET_KEY and not _keeps_itself(attributes):
        raise PKCS11Error(
            CKR.TEMPLATE_INCONSISTENT, "a trusted secret key is sensitive, and leaves under trusted keys or not at all"
        )


def _keeps_itself(attributes: Mapping[int, bytes]) -> bool:
    return attributes.get(CKA.SENSITIVE) == TRUE and (
        attributes.get(CKA.EXTRACTABLE) != TRUE or attributes.get(CKA.WRAP_WITH_TRUSTED) == TRUE
    )


def check_change(
    attribute: int, value: bytes, attributes: Mapping[int, bytes], role: str | None, *, copying: bool, otherwise: bool
) -> None:
    """Whether an attribute may get this value, another than now. `otherwise`: where no rule of power speaks.

    A copy of what cannot be modified differs from it by where it is, and by being stricter. What the SO has made of a
    trusted secret key (its usages, its templates) only the SO changes.
    """
    if role != SO and attributes.get(CKA.TRUSTED) == TRUE and attributes[CKA.CLASS] == SECRET_KEY:
        allowed = False
    elif attribute in ONE_WAY:
        allowed = value == ONE_WAY[attribute]
    elif attribute == CKA.TRUSTED:
        allowed = role == SO or (value == FALSE and attributes[CKA.CLASS] != SECRET_KEY)
    elif attribute == CKA.PRIVATE:
        allowed = copying and value == TRUE
    elif attribute == CKA.TOKEN:
        allowed = copying
    elif attribute == CKA.ALLOWED_MECHANISMS:
        allowed = narrows(attributes.get(attribute, b""), value)
    elif attribute in TEMPLATES:  # where there was none it demands more than before
        allowed = not attributes.get(attribute)
    else:
        allowed = otherwise and attributes.get(CKA.MODIFIABLE) != FALSE
    if not allowed:
        raise PKCS11Error(CKR.ATTRIBUTE_READ_ONLY, f"{name_of('CKA', attribute)} cannot be changed to that value")


def narrows(now: bytes, value: bytes) -> bool:
    """Whether a CKA_ALLOWED_MECHANISMS allows nothing that another does not; an empty one allows everything."""
    return not now or (bool(value) and listed(value) <= listed(now))


def may_destroy(attributes: Mapping[int, bytes]) -> None:
    """Destroyed by C_DestroyObject, or replaced by new trust in the same certificate (P16)."""
    if attributes.get(CKA.DESTROYABLE) == FALSE:
        raise PKCS11Error(CKR.ACTION_PROHIBITED, "the object is not destroyable")


def may_copy(attributes: Mapping[int, bytes], role: str | None) -> None:
    """A copy of a trusted secret key that is not trusted itself could decrypt what the key wrapped."""
    if attributes.get(CKA.COPYABLE) == FALSE:
        raise PKCS11Error(CKR.ACTION_PROHIBITED, "the object is not copyable")
    if attributes.get(CKA.TRUSTED) == TRUE and attributes[CKA.CLASS] == SECRET_KEY and role != SO:
        raise PKCS11Error(CKR.ACTION_PROHIBITED, "only the SO copies trusted secret keys")


def copied(attributes: Attributes, role: str | None) -> Attributes:
    """What a copy begins with: it is trusted only if the SO makes it."""
    return attributes if role == SO or CKA.TRUSTED not in attributes else {**attributes, CKA.TRUSTED: FALSE}
