"""No way leads from a key's value on the token to the attacker, and the search finds the ways that were open.

The holes are put back one by one, by taking a rule of the module away: the search must then give an attack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from keyfob.mechanisms.aes_keys import AesXtsKey
from keyfob.mechanisms.des3 import Des3Key
from keyfob.mechanisms.secret_key import SecretKey
from keyfob.spec.constants import CKA, CKK, CKM, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token import derivation, policy, strict
from keyfob.token.object import FALSE, SECRET_KEY, TRUE, ulong
from tests.policy.model import (
    ALL,
    CIPHER,
    DERIVATION,
    MAC,
    ROLE_NAMES,
    ROLES,
    WRAPPING,
    Attributes,
    Fact,
    World,
    secret,
)
from tests.policy.search import search, world_with

Undo = Callable[[pytest.MonkeyPatch], None]

NEVER_EXTRACTABLE = secret(*ALL, sensitive=True, extractable=False)
EXTRACTABLE = secret(*ALL, sensitive=True, extractable=True)
BOUND = secret(*ALL, sensitive=True, extractable=True, WRAP_WITH_TRUSTED=TRUE)
FIXED = secret(CKA.ENCRYPT, CKA.DERIVE, sensitive=True, extractable=False, MODIFIABLE=FALSE)
SINGLE = secret(*ALL, sensitive=True, extractable=False, COPYABLE=FALSE)


@pytest.fixture
def strictly() -> Iterator[None]:
    strict.MODE.on = True
    yield
    strict.MODE.on = False


def everything(world: World) -> Iterator[tuple[str, Fact]]:
    """A target's value, or that of any key that the token calls always sensitive."""
    yield from world.reached()
    yield from world.certified()


def anything(world: World) -> Iterator[tuple[str, Fact]]:
    """A target's value, or the target itself freer than its owner made it."""
    yield from world.reached()
    yield from world.freed()


@pytest.mark.parametrize(("key_type", "imported"), [(CKK.AES, False), (CKK.AES, True), (CKK.GENERIC_SECRET, False)])
def test_a_never_extractable_key_keeps_its_value(key_type: int, *, imported: bool) -> None:
    """With every usage, generated here or imported as not extractable, in the default policy."""
    result = search(world_with({**NEVER_EXTRACTABLE, CKA.KEY_TYPE: ulong(key_type)}, imported=imported), anything)
    assert not result.attack, "\n".join(result.attack)
    assert result.calls > 1000, "the attacker tried something"


def test_a_key_under_trusted_keys_keeps_its_value() -> None:
    """An extractable key with CKA_WRAP_WITH_TRUSTED beside a key that the SO trusts, in the default policy."""
    result = search(world_with(BOUND, trusted=True), anything)
    assert not result.attack, "\n".join(result.attack)


@pytest.mark.parametrize("target", [FIXED, SINGLE], ids=["not modifiable", "not copyable"])
def test_what_the_owner_of_a_key_ruled_out_stays_so(target: Attributes) -> None:
    """A key that is never modified gets no usage by any way, and one that is never copied has no second object."""
    result = search(world_with(target), anything)
    assert not result.attack, "\n".join(result.attack)


def test_the_standard_opens_extractable_keys() -> None:
    """docs/policy.md lists the ways; the search finds one at once."""
    assert search(world_with(EXTRACTABLE)).attack


def _nobody_checks(patch: pytest.MonkeyPatch) -> Callable[..., None]:
    patch.setattr(policy, "check_change", lambda *_, **__: None)
    return lambda *_: None


def _usage_only(attributes: Attributes, flag: int, mechanism: int) -> None:
    if attributes.get(policy.USES[flag][0]) != TRUE:
        raise PKCS11Error(CKR.KEY_FUNCTION_NOT_PERMITTED)


def _free_copies(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(policy, "may_copy", lambda *_: None)


def _whole(key_class: type[SecretKey]) -> Undo:
    """The class says of its keys that they are no several keys side by side."""
    return lambda patch: patch.setattr(key_class, "PART_BITS", 0)


def _by_two_steps(key_class: type[SecretKey]) -> Undo:
    """As if a key in parts were refused only where its base is the owner's key, of whole length."""
    original = derivation.derived_as

    def derived_as(asked: Attributes, mechanism: int, bases: Sequence[Attributes]) -> Attributes:
        if any(base[CKA.KEY_TYPE] != ulong(CKK.GENERIC_SECRET) for base in bases):
            return original(asked, mechanism, bases)
        with pytest.MonkeyPatch.context() as patch:
            _whole(key_class)(patch)
            return original(asked, mechanism, bases)

    return lambda patch: patch.setattr(derivation, "derived_as", derived_as)


def _unless_shown(patch: pytest.MonkeyPatch) -> None:
    """As if keys in parts were refused only where a derivation shows its base."""
    original = derivation.check_parts

    def check_parts(bits: int, bases: Sequence[Attributes], *, shows: bool) -> None:
        original(bits if shows else 0, bases, shows=shows)

    patch.setattr(derivation, "check_parts", check_parts)


def _free_use_in_parts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(policy, "check_use_in_parts", lambda *_: None)


def _shown_without(attribute: int) -> Undo:
    kept = tuple(pair for pair in derivation.KEPT_BY_WHAT_SHOWS if pair[0] != attribute)
    return lambda patch: patch.setattr(derivation, "KEPT_BY_WHAT_SHOWS", kept)


def _two_forms(patch: pytest.MonkeyPatch) -> None:
    """Key wrap, and key wrap over PKCS #7 padding, which begins with the same constant; and keys to compare."""
    patch.setattr(policy, "WRAPPED_BY", {**policy.WRAPPED_BY, CKM.AES_KEY_WRAP_PKCS7: SECRET_KEY})
    patch.setattr(derivation, "check_shown", lambda *_: None)


# By their names: how a rule is taken away, and the target that is then reached.
HOLES: dict[str, tuple[Undo, Attributes]] = {
    "short and partial derived keys": (
        lambda patch: patch.setattr(derivation, "check_derived", lambda *_: None),
        NEVER_EXTRACTABLE,
    ),
    "derived keys that are freer than their base": (
        lambda patch: patch.setattr(derivation, "derived_as", lambda asked, *_: asked),
        NEVER_EXTRACTABLE,
    ),
    "wrapping what is not extractable": (
        lambda patch: patch.setattr(policy, "may_wrap", lambda *_: None),
        NEVER_EXTRACTABLE,
    ),
    "attributes that loosen again": (lambda patch: patch.setattr(policy, "ONE_WAY", {}), NEVER_EXTRACTABLE),
    "trust for everybody": (lambda patch: patch.setattr(policy, "check_made", _nobody_checks(patch)), BOUND),
    "a trusted key that decrypts": (lambda patch: patch.setattr(policy, "may_use", _usage_only), BOUND),
    "a trusted key's copy that decrypts": (_free_copies, BOUND),
    "what trusted keys unwrap is free": (
        lambda patch: patch.setattr(policy, "unwrapped_as", lambda asked, *_: asked),
        BOUND,
    ),
    "two mechanisms that take each other's blobs": (_two_forms, BOUND),
}
# The same for what a key's owner ruled out.
FREEING: dict[str, tuple[Undo, Attributes]] = {
    "the base again as a public object": (_shown_without(CKA.PRIVATE), NEVER_EXTRACTABLE),
    "the base again as modifiable": (_shown_without(CKA.MODIFIABLE), FIXED),
    "the base again with other usages": (lambda patch: patch.setattr(derivation, "USAGES_OF_SECRETS", ()), FIXED),
    "copies of what is not copyable": (_free_copies, SINGLE),
    "the base again though it is not copyable": (
        lambda patch: patch.setattr(derivation, "bound_as", lambda asked, _: asked),
        SINGLE,
    ),
    "XTS keys of known bytes": (_whole(AesXtsKey), NEVER_EXTRACTABLE),
    "XTS keys that a second step fills up": (_by_two_steps(AesXtsKey), NEVER_EXTRACTABLE),
    "DES keys of known bytes": (_whole(Des3Key), NEVER_EXTRACTABLE),
    "DES keys of the same bytes as other keys": (_unless_shown, NEVER_EXTRACTABLE),
    "generic secrets that are used as DES keys": (_free_use_in_parts, NEVER_EXTRACTABLE),
    "generic secrets out of trusted keys that are used as DES keys": (_free_use_in_parts, BOUND),
    "trusted keys that unwrap DES keys": (lambda patch: patch.setattr(policy, "WEAKER_TYPES", ()), BOUND),
    "what trusted keys unwrap is public": (
        lambda patch: patch.setattr(
            policy, "unwrapped_as", lambda asked, *_: {**asked, CKA.SENSITIVE: TRUE, CKA.WRAP_WITH_TRUSTED: TRUE}
        ),
        BOUND,
    ),
}


@pytest.mark.parametrize("hole", HOLES)
def test_a_hole_that_is_put_back_is_found(monkeypatch: pytest.MonkeyPatch, hole: str) -> None:
    undo, target = HOLES[hole]
    undo(monkeypatch)
    result = search(world_with(target, trusted=target is BOUND))
    print(f"\n{hole}:", *result.attack, sep="\n  ")
    assert result.attack, hole


@pytest.mark.parametrize("hole", FREEING)
def test_what_frees_a_key_is_found(monkeypatch: pytest.MonkeyPatch, hole: str) -> None:
    undo, target = FREEING[hole]
    undo(monkeypatch)
    result = search(world_with(target, trusted=target is BOUND), World.freed)
    print(f"\n{hole}:", *result.attack, sep="\n  ")
    assert result.attack, hole


# Strict


@pytest.mark.usefixtures("strictly")
@pytest.mark.parametrize("role", ROLES, ids=ROLE_NAMES.get)
@pytest.mark.parametrize("extractable", [False, True])
def test_strict_keeps_every_value_that_it_calls_always_sensitive(role: tuple[int, ...], *, extractable: bool) -> None:
    """Under `[policy] strict`: of keys in each role, extractable or not, and of all that come from them."""
    target = secret(*role, sensitive=True, extractable=extractable)
    if extractable and role in (WRAPPING, DERIVATION):
        with pytest.raises(PKCS11Error, match="not extractable"):
            world_with(target, trusted=True)
        return
    result = search(world_with(target, trusted=True), everything)
    assert not result.attack, "\n".join(result.attack)


def _any_form(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(strict, "may_use", lambda *_: None)
    patch.setattr(policy, "check_form", lambda *_: None)


STRICT_HOLES: dict[str, tuple[Undo, tuple[int, ...], bool]] = {
    "two roles, keys that come and go": (
        lambda patch: patch.setattr(strict, "check_made", lambda *_: None),
        DERIVATION,
        False,
    ),
    "wrapping under any key": (lambda patch: patch.setattr(strict, "may_wrap", lambda *_: None), CIPHER, True),
    "keys from passwords that count as generated": (
        lambda patch: patch.setattr(strict, "FROM_CALLERS_SECRETS", ()),
        CIPHER,
        True,
    ),
    "unwrapping as less sensitive": (
        lambda patch: patch.setattr(strict, "required_of_unwrapped", lambda *_: {}),
        MAC,
        True,
    ),
    "a nonce of the caller's choice": (_any_form, CIPHER, True),
    "derived keys that show themselves": (
        lambda patch: patch.setattr(strict, "required_of_derived", lambda *_: {}),
        DERIVATION,
        False,
    ),
}


@pytest.mark.usefixtures("strictly")
@pytest.mark.parametrize("hole", STRICT_HOLES)
def test_each_rule_of_strict_is_needed(monkeypatch: pytest.MonkeyPatch, hole: str) -> None:
    undo, role, extractable = STRICT_HOLES[hole]
    undo(monkeypatch)
    target = secret(*role, sensitive=True, extractable=extractable)
    result = search(world_with(target, trusted=True), everything)
    print(f"\n{hole}:", *result.attack, sep="\n  ")
    assert result.attack, hole


@pytest.mark.usefixtures("strictly")
def test_a_role_changed_after_the_wrapping_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delaune, Kremer and Steel: to unset one usage before setting the other is as good as both at once."""
    original = strict.check_made
    monkeypatch.setattr(strict, "check_made", lambda attributes, before: original(attributes, None))
    result = search(world_with(secret(*CIPHER, sensitive=True, extractable=True), trusted=True), everything)
    print(*result.attack, sep="\n  ")
    assert any("C_SetAttributeValue" in line or "C_CopyObject" in line for line in result.attack)


def test_an_attack_reads_as_a_list_of_calls() -> None:
    """Each line follows from those before it."""
    attack = search(world_with(secret(*MAC, sensitive=True, extractable=True))).attack
    assert attack[0].startswith("1. ")
    assert attack[-1] == "So he knows the target's value."
    assert any("C_WrapKey of the target" in line for line in attack)
