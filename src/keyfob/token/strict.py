"""`[policy] strict = true`: the ways out that the standard itself opens are closed (docs/policy.md says which and why).

The rules speak of secret keys that hide their value (CKA_SENSITIVE, or not CKA_EXTRACTABLE); one that anybody may read
protects nothing, and NSS's session keys are of that kind. policy.py asks here in each of its questions. That these
rules suffice is what tests/policy/ searches for.

1. One role for life: a key encrypts and decrypts, or signs and verifies, or wraps and unwraps, or derives.
2. What wraps, unwraps or derives was generated here, at random and not from a password, and never leaves: a copy of it
   elsewhere, or one that comes back, could have another role.
3. Keys that hide their value are wrapped under such keys, by mechanisms that notice changed data, take no nonce from
   the caller and do not take each other's blobs (policy.WRAPPED_BY), or under what the SO has marked CKA_TRUSTED.
4. What a secret key unwraps, or what is derived from one, hides its value, too; no derivation gives the base's own
   bytes (CKM_CONCATENATE_*, CKM_XOR_BASE_AND_DATA, CKM_EXTRACT_KEY_FROM_KEY) or data.
"""

from __future__ import annotations

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.traits import hides
from keyfob.token.object import FALSE, PRIVATE_KEY, SECRET_KEY, TRUE, number, ulong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

Attributes = dict[int, bytes]


class Mode:
    """Of the process, as the configuration says."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = False


MODE = Mode()

CIPHER, MAC, WRAPPING, DERIVATION = (
    (CKA.ENCRYPT, CKA.DECRYPT),
    (CKA.SIGN, CKA.VERIFY),
    (CKA.WRAP, CKA.UNWRAP),
    (CKA.DERIVE,),
)
ROLES = (CIPHER, MAC, WRAPPING, DERIVATION)
CIPHER_KEYS = (CKK.AES, CKK.AES_XTS, CKK.DES2, CKK.DES3)
MADE_HERE = (CKA.LOCAL, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE)
# C_GenerateKey with these computes the value from what the caller gives: he can compute it, too.
FROM_CALLERS_SECRETS = (ulong(CKM.PKCS5_PBKD2),)


def applies(attributes: Mapping[int, bytes]) -> bool:
    """Whether the key is one of those that have a role: secret, hidden, not trusted (policy.may_use binds those)."""
    return (
        MODE.on
        and attributes.get(CKA.CLASS) == SECRET_KEY
        and attributes.get(CKA.TRUSTED) != TRUE
        and hides(attributes)
    )


def from_callers_secret(attributes: Mapping[int, bytes]) -> bool:
    return attributes.get(CKA.KEY_GEN_MECHANISM) in FROM_CALLERS_SECRETS


def generated_here(attributes: Mapping[int, bytes]) -> bool:
    """CKA_LOCAL alone is TRUE of keys from passwords, too."""
    return attributes.get(CKA.LOCAL) == TRUE and not from_callers_secret(attributes)


def roles_of(attributes: Mapping[int, bytes]) -> list[tuple[int, ...]]:
    return [role for role in ROLES if any(attributes.get(usage) == TRUE for usage in role)]


def assume(given: Attributes, extractable: bytes) -> None:
    """Usages and CKA_EXTRACTABLE of a new key, where its template does not say: those of the one role that it names.

    `extractable`: what the default policy makes of the latter.
    """
    if not applies({CKA.EXTRACTABLE: extractable, **given}):
        return
    named = roles_of(given)
    if not named:
        key_type = number(given[CKA.KEY_TYPE])
        named = [CIPHER if key_type in CIPHER_KEYS else DERIVATION if key_type == CKK.HKDF else MAC]
    for role in ROLES:
        for usage in role:
            given.setdefault(usage, TRUE if role is named[0] else FALSE)
    if named[0] in (WRAPPING, DERIVATION):
        given.setdefault(CKA.EXTRACTABLE, FALSE)


def check_made(attributes: Mapping[int, bytes], before: Mapping[int, bytes] | None) -> None:
    """Rules 1 and 2, when a key is made, copied and changed."""
    if not applies(attributes):
        return
    roles = roles_of(attributes)
    if len(roles) > 1:
        raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "strict policy: a key that hides its value has one role only")
    if before is not None and any(
        attributes.get(usage) == TRUE and before.get(usage) != TRUE for role in ROLES for usage in role
    ):
        raise PKCS11Error(CKR.ATTRIBUTE_READ_ONLY, "strict policy: a key that hides its value gets no new usage")
    if roles and roles[0] in (WRAPPING, DERIVATION):
        if not generated_here(attributes):
            raise PKCS11Error(
                CKR.TEMPLATE_INCONSISTENT, "strict policy: only keys that were generated here wrap, unwrap or derive"
            )
        if attributes.get(CKA.EXTRACTABLE) == TRUE:
            raise PKCS11Error(
                CKR.TEMPLATE_INCONSISTENT, "strict policy: a key that wraps, unwraps or derives is not extractable"
            )


def may_use(attributes: Mapping[int, bytes], flag: int, mechanism: int, wrapping_mechanisms: Container[int]) -> None:
    """The half of rule 3 that is about mechanisms; and rules 1 and 2 for keys that were made before the policy was."""
    if flag not in (CKF.WRAP, CKF.UNWRAP, CKF.DERIVE) or not applies(attributes):
        return
    if flag != CKF.DERIVE and mechanism not in wrapping_mechanisms:
        raise PKCS11Error(CKR.MECHANISM_INVALID, "strict policy: secret keys wrap with CKM_AES_KEY_WRAP and _KWP only")
    if len(roles_of(attributes)) > 1 or not generated_here(attributes) or attributes.get(CKA.EXTRACTABLE) == TRUE:
        raise PKCS11Error(
            CKR.KEY_FUNCTION_NOT_PERMITTED, "strict policy: the key has other roles, or was elsewhere, or may leave"
        )


def may_wrap(target: Mapping[int, bytes], wrapping: Mapping[int, bytes]) -> None:
    """Rule 3."""
    if not MODE.on or not hides(target) or wrapping.get(CKA.TRUSTED) == TRUE:
        return
    always = all(wrapping.get(attribute) == TRUE for attribute in MADE_HERE)
    if wrapping[CKA.CLASS] != SECRET_KEY or not always or from_callers_secret(wrapping):
        raise PKCS11Error(
            CKR.KEY_NOT_WRAPPABLE, "strict policy: a key that hides its value leaves under keys that never left"
        )


def required_of_unwrapped(unwrapping: Mapping[int, bytes]) -> Attributes:
    """Rule 4. What a private key unwraps came from somebody who knows it: S/MIME's content keys stay readable."""
    return {CKA.SENSITIVE: TRUE} if MODE.on and unwrapping[CKA.CLASS] != PRIVATE_KEY and hides(unwrapping) else {}


def required_of_derived(mechanism: int, bases: Sequence[Mapping[int, bytes]], showing: Container[int]) -> Attributes:
    """Rule 4. What private keys agree on is known to the peer as well.

    `showing`: mechanisms whose result is made of the base's bytes, so that it would be the base itself in another role.
    """
    if not MODE.on or not any(base.get(CKA.CLASS) == SECRET_KEY and hides(base) for base in bases):
        return {}
    if mechanism == CKM.HKDF_DATA or mechanism in showing:
        raise PKCS11Error(
            CKR.KEY_FUNCTION_NOT_PERMITTED, "strict policy: no derivation shows the value of a key that hides it"
        )
    return {CKA.SENSITIVE: TRUE}
