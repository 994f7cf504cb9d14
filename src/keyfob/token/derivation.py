"""What C_DeriveKey may make of its base keys: no key that is freer than they are, or that tells what they hide.

The rest of policy.py, and pure functions as there: `derived_as` completes the template, or refuses it, before the
derivation, and `check_derived` looks at the length of what came of it.
"""

from __future__ import annotations

from keyfob.mechanisms import part_bits
from keyfob.mechanisms.secret_key import SHORTEST_SECRET
from keyfob.spec.constants import CKA, CKM, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.traits import hides
from keyfob.token import strict
from keyfob.token.nested import TEMPLATES, attributes_of, normal
from keyfob.token.object import FALSE, SECRET_KEY, TRUE, number
from keyfob.token.policy import USES, Attributes, narrows, with_required

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Derivations whose result shows their base key's bytes (XOR with zeros is the key itself): it is no freer than the key.
SHOWING_THEIR_KEY = (
    CKM.CONCATENATE_BASE_AND_KEY,
    CKM.CONCATENATE_BASE_AND_DATA,
    CKM.CONCATENATE_DATA_AND_BASE,
    CKM.XOR_BASE_AND_DATA,
    CKM.EXTRACT_KEY_FROM_KEY,
)

# What its result has too, of each base.
KEPT_BY_WHAT_SHOWS = (
    (CKA.SENSITIVE, TRUE),
    (CKA.EXTRACTABLE, FALSE),
    (CKA.WRAP_WITH_TRUSTED, TRUE),
    (CKA.PRIVATE, TRUE),
    (CKA.MODIFIABLE, FALSE),
)
USAGES_OF_SECRETS = tuple(usage for usage, classes in USES.values() if SECRET_KEY in classes)


def derived_as(asked: Attributes, mechanism: int, bases: Sequence[Mapping[int, bytes]]) -> Attributes:
    """The template of a derived key, completed with what its base demands, or both of them."""
    shows = mechanism in SHOWING_THEIR_KEY
    if shows:
        check_shown(bases)
        asked = bound_as(asked, bases)
    for base in bases:
        required = attributes_of(base.get(CKA.DERIVE_TEMPLATE))
        if required and asked.get(CKA.CLASS) != SECRET_KEY:
            raise PKCS11Error(
                CKR.TEMPLATE_INCONSISTENT, "CKA_DERIVE_TEMPLATE speaks of keys; data would show their value"
            )
        asked = with_required(asked, required, "CKA_DERIVE_TEMPLATE")
    asked = with_required(asked, strict.required_of_derived(mechanism, bases, SHOWING_THEIR_KEY), "strict policy")
    if asked.get(CKA.TOKEN) == TRUE and any(base.get(CKA.PRIVATE) == TRUE for base in bases):
        asked = with_required(asked, {CKA.PRIVATE: TRUE}, "the private base key")
    check_parts(part_bits(number(asked.get(CKA.KEY_TYPE, b""))), bases, shows=shows)
    return asked


def check_parts(bits: int, bases: Sequence[Mapping[int, bytes]], *, shows: bool) -> None:
    """Whether a key whose parts have so many bits (0: it has none) keeps what its bases hide.

    Derivations that do not show their base give the same bytes as other key types, too (HKDF) or change one part alone
    (encrypted data): what is an AES key as well must not be found at the price of 56 bits. Where no template stands in
    the way, what private keys agree on could be read all the same: CMS has triple DES keys made by ECDH.
    """
    if not bits or not (shows or bits < 8 * SHORTEST_SECRET):
        return
    if any(hides(base) and (shows or _derives_hidden(base)) for base in bases):
        raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "a key in parts would tell, part by part, what its base key hides")


def _derives_hidden(base: Mapping[int, bytes]) -> bool:
    """A secret key that is in parts itself may be for such keys (DES keys of cards come from a master key)."""
    if base.get(CKA.DERIVE_TEMPLATE):
        return True
    return base[CKA.CLASS] == SECRET_KEY and (strict.MODE.on or not part_bits(number(base[CKA.KEY_TYPE])))


def check_shown(bases: Sequence[Mapping[int, bytes]]) -> None:
    """A key that is bound to trusted keys leaves as it is: keys made of its bytes would be wrapped and compared."""
    if any(base.get(CKA.WRAP_WITH_TRUSTED) == TRUE for base in bases):
        raise PKCS11Error(
            CKR.KEY_FUNCTION_NOT_PERMITTED, "no key is made of the bytes of one that leaves under trusted keys only"
        )


def bound_as(asked: Attributes, bases: Sequence[Mapping[int, bytes]]) -> Attributes:
    """As a copy would be of the keys that the new one may be the same as: no freer, and none where none may be."""
    if any(base.get(CKA.COPYABLE) == FALSE for base in bases):
        raise PKCS11Error(
            CKR.KEY_FUNCTION_NOT_PERMITTED, "the base key is not copyable, and the result could be a copy"
        )
    for base in bases:
        required = {attribute: value for attribute, value in KEPT_BY_WHAT_SHOWS if base.get(attribute) == value}
        if base.get(CKA.MODIFIABLE) == FALSE:
            required.update({usage: FALSE for usage in USAGES_OF_SECRETS if base.get(usage) != TRUE})
        asked = with_required(asked, required, "the base key")
    for each in TEMPLATES:
        together: Attributes = {}
        for base in bases:
            together = with_required(together, attributes_of(base.get(each)), "the other key")
        if together:
            asked = with_required(asked, {each: normal(together.items())}, "the base key")
    for base in bases:
        allowed = base.get(CKA.ALLOWED_MECHANISMS)
        if allowed and not narrows(allowed, asked.setdefault(CKA.ALLOWED_MECHANISMS, allowed)):
            raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "CKA_ALLOWED_MECHANISMS allows more than that of the base key")
    return asked


def check_derived(mechanism: int, bases: Sequence[Mapping[int, bytes]], length: int, data: int = 0) -> None:
    """Whether a derived key of `length` bytes keeps its bases' secrets. `data`: the bytes that the parameter brings.

    Of a key that hides its value a derivation that shows it gives all bytes: a part could be found by trying, and then
    the next; and with none of them the caller would know the value of a key that is called always sensitive. Other
    derivations give no part of their base, but of one another (most are cut from one longer value), so that short ones
    would tell a longer one in the same way.
    """
    if not any(hides(base) for base in bases):
        return
    if length < SHORTEST_SECRET:
        raise PKCS11Error(CKR.KEY_SIZE_RANGE, "of a key that hides its value nothing shorter than 112 bits is derived")
    if mechanism not in SHOWING_THEIR_KEY:
        return
    start = data if mechanism == CKM.CONCATENATE_DATA_AND_BASE else 0
    for base in bases:
        end = start + len(base[CKA.VALUE])
        if hides(base) and length < end:
            raise PKCS11Error(CKR.KEY_SIZE_RANGE, "of a key that hides its value no part is derived")
        start = end
