"""`[policy] strict = true` in config.toml, through the C ABI: keys that hide their value have one role for life."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token import policy, strict
from keyfob.token.object import SECRET_KEY, ulong
from tests.client import Client, RvError, Template, Value, ffi
from tests.conftest import CHEAP_PINS, PIN, Fob, module_path
from tests.functional.ways import from_password
from tests.rules import nss_templates as templates

TRUE, FALSE = b"\x01", b"\x00"
ROLES = {
    "cipher": (CKA.ENCRYPT, CKA.DECRYPT),
    "mac": (CKA.SIGN, CKA.VERIFY),
    "wrapping": (CKA.WRAP, CKA.UNWRAP),
    "derivation": (CKA.DERIVE,),
}
HIDDEN: Template = [(CKA.SENSITIVE, True), (CKA.VALUE_LEN, 16)]


@pytest.fixture
def fob(home: Path) -> Iterator[Fob]:
    (home / "config.toml").write_text(CHEAP_PINS + "[policy]\nstrict = true\n")
    client = Client(str(module_path()))
    client.call("C_Finalize", ffi.NULL)
    client.initialize()
    yield Fob(client)
    client.call("C_Finalize", ffi.NULL)
    (home / "config.toml").write_text(CHEAP_PINS)
    client.initialize()  # the process is as it was
    client.call("C_Finalize", ffi.NULL)


def generate(fob: Fob, *extra: tuple[int, Value]) -> int:
    return fob.client.generate(fob.session, fob.client.mechanism(CKM.AES_KEY_GEN), [*HIDDEN, *extra])


def usages(fob: Fob, key: int) -> set[str]:
    found = set()
    for name, role in ROLES.items():
        values = set(fob.client.get(fob.session, key, *role))
        assert len(values) == 1, f"{name}: one half of a role"
        if values == {TRUE}:
            found.add(name)
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_usage_that_is_named_brings_its_role_and_no_other(fob: Fob, role: str) -> None:
    for usage in ROLES[role]:
        key = generate(fob, (usage, True))
        assert usages(fob, key) == {role}
        stays = role in ("wrapping", "derivation")
        assert fob.client.get(fob.session, key, CKA.EXTRACTABLE) == [FALSE if stays else TRUE]


def test_a_key_of_which_nothing_is_said_has_the_role_of_its_type(fob: Fob) -> None:
    assert usages(fob, generate(fob)) == {"cipher"}
    mechanism = fob.client.mechanism(CKM.GENERIC_SECRET_KEY_GEN)
    assert usages(fob, fob.client.generate(fob.session, mechanism, HIDDEN)) == {"mac"}


def test_two_roles_are_refused_in_making_and_in_changing(fob: Fob) -> None:
    with pytest.raises(RvError) as refusal:
        generate(fob, (CKA.WRAP, True), (CKA.DECRYPT, True))
    assert refusal.value.rv == CKR.TEMPLATE_INCONSISTENT
    key = generate(fob, (CKA.WRAP, True))
    assert fob.client.set(fob.session, key, [(CKA.WRAP, False), (CKA.UNWRAP, False)]) == CKR.OK
    assert fob.client.set(fob.session, key, [(CKA.DECRYPT, True)]) == CKR.ATTRIBUTE_READ_ONLY
    assert fob.client.set(fob.session, key, [(CKA.LABEL, "renamed")]) == CKR.OK


def test_only_keys_that_were_made_here_wrap_unwrap_and_derive(fob: Fob) -> None:
    for usage in (CKA.WRAP, CKA.UNWRAP, CKA.DERIVE):
        head: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, bytes(16))]
        with pytest.raises(RvError) as refusal:
            fob.client.create(fob.session, [*head, (CKA.SENSITIVE, True), (usage, True)])
        assert refusal.value.rv == CKR.TEMPLATE_INCONSISTENT


@pytest.mark.parametrize("usage", [CKA.WRAP, CKA.UNWRAP, CKA.DERIVE])
def test_a_key_from_a_password_wraps_unwraps_and_derives_nothing(fob: Fob, usage: int) -> None:
    rv, _ = from_password(fob, [(CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False), (usage, True)])
    assert rv == CKR.TEMPLATE_INCONSISTENT
    rv, key = from_password(fob, [(CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False)])
    assert rv == CKR.OK
    assert usages(fob, key) == {"cipher"}


def test_one_from_before_wraps_unwraps_and_derives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is in tokens of the time when it was called always sensitive."""
    monkeypatch.setattr(strict.MODE, "on", True)
    attributes = dict.fromkeys(
        (CKA.LOCAL, CKA.SENSITIVE, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE, CKA.WRAP, CKA.UNWRAP), TRUE
    )
    attributes |= {CKA.CLASS: SECRET_KEY, CKA.EXTRACTABLE: FALSE, CKA.KEY_GEN_MECHANISM: ulong(CKM.AES_KEY_GEN)}
    target = {CKA.CLASS: SECRET_KEY, CKA.SENSITIVE: TRUE, CKA.EXTRACTABLE: TRUE}
    for flag in (CKF.WRAP, CKF.UNWRAP):
        policy.may_use(attributes, flag, CKM.AES_KEY_WRAP)
    strict.may_wrap(target, attributes)
    attributes[CKA.KEY_GEN_MECHANISM] = ulong(CKM.PKCS5_PBKD2)
    for flag in (CKF.WRAP, CKF.UNWRAP):
        with pytest.raises(PKCS11Error, match="elsewhere"):
            policy.may_use(attributes, flag, CKM.AES_KEY_WRAP)
    with pytest.raises(PKCS11Error, match="never left"):
        strict.may_wrap(target, attributes)


def test_keys_go_from_one_token_to_another_and_stay_sensitive(fob: Fob) -> None:
    client, session = fob.client, fob.session
    wrapping, key = generate(fob, (CKA.WRAP, True)), generate(fob, (CKA.SIGN, True))
    mechanism = client.mechanism(CKM.AES_KEY_WRAP)
    wrapped = client.output("C_WrapKey", session, mechanism, wrapping, key)
    for sensitive, rv in ((True, CKR.OK), (False, CKR.TEMPLATE_INCONSISTENT)):
        array, count, _kept = client.template(
            [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.SENSITIVE, sensitive), (CKA.SIGN, True)]
        )
        handle = ffi.new("CK_ULONG *")
        assert (
            client.call("C_UnwrapKey", session, mechanism, wrapping, wrapped, len(wrapped), array, count, handle) == rv
        )
    length = ffi.new("CK_ULONG *", 64)
    with_ecb = client.call(
        "C_WrapKey", session, client.mechanism(CKM.AES_ECB), wrapping, key, ffi.new("char[64]"), length
    )
    assert with_ecb == CKR.MECHANISM_INVALID


def test_key_pairs_and_session_keys_of_nss_are_as_ever(fob: Fob) -> None:
    """Its session keys are not sensitive; private keys have no roles here."""
    client, session = fob.client, fob.session
    client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, *templates.rsa_pair())
    client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, *templates.ec_pair())
    key = client.create(session, templates.session_key(CKK.AES, CKA.UNWRAP, bytes(16)))
    assert usages(fob, key) == {"cipher", "mac", "wrapping"}
    assert client.get(session, key, CKA.VALUE) == [bytes(16)]


def test_a_key_from_before_with_several_roles_wraps_and_derives_nothing(home: Path, fob: Fob) -> None:
    (home / "config.toml").write_text(CHEAP_PINS)
    fob.client.ok("C_Finalize", ffi.NULL)
    fob.client.initialize()
    session = fob.client.open(fob.slot)
    fob.client.login(session, PIN)
    usages: Template = [(CKA.WRAP, True), (CKA.DECRYPT, True), (CKA.DERIVE, True), (CKA.TOKEN, True)]
    template: Template = [*HIDDEN, *usages, (CKA.EXTRACTABLE, False), (CKA.LABEL, "old")]
    fob.client.generate(session, fob.client.mechanism(CKM.AES_KEY_GEN), template)
    (home / "config.toml").write_text(CHEAP_PINS + "[policy]\nstrict = true\n")
    fob.client.ok("C_Finalize", ffi.NULL)
    fob.client.initialize()
    session = fob.client.open(fob.slot)
    fob.client.login(session, PIN)
    (old,) = fob.client.find(session, [(CKA.LABEL, "old")])
    other = fob.client.generate(session, fob.client.mechanism(CKM.AES_KEY_GEN), HIDDEN)
    length = ffi.new("CK_ULONG *", 64)
    wrap = session, fob.client.mechanism(CKM.AES_KEY_WRAP), old, other, ffi.new("char[64]"), length
    assert fob.client.call("C_WrapKey", *wrap) == CKR.KEY_FUNCTION_NOT_PERMITTED
    mechanism = fob.client.mechanism(CKM.EXTRACT_KEY_FROM_KEY, bytes(8))
    array, count, _kept = fob.client.template([(CKA.VALUE_LEN, 16)])
    derive = session, mechanism, old, array, count, ffi.new("CK_ULONG *")
    assert fob.client.call("C_DeriveKey", *derive) == CKR.KEY_FUNCTION_NOT_PERMITTED
