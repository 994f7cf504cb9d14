"""What a derived key may not be, because its base key was bound (token/derivation.py, docs/policy.md)."""

from __future__ import annotations

from typing import Any

import pytest

from keyfob.spec.constants import CKA, CKD, CKF, CKK, CKM, CKO, CKR
from tests.client import Template, ffi
from tests.conftest import Fob
from tests.functional.test_policy import AES, GENERIC, HIDDEN, P256, READABLE, VALUE, made, unwrapped, with_data

SHOWING = (CKM.XOR_BASE_AND_DATA, CKM.CONCATENATE_BASE_AND_DATA, CKM.CONCATENATE_DATA_AND_BASE)


def _hkdf(fob: Fob, **others: object) -> tuple[Any, ...]:
    parameter = ffi.new("CK_HKDF_PARAMS *", {"bExpand": 1, "prfHashMechanism": CKM.SHA256, **others})
    return fob.client.mechanism(CKM.HKDF_DERIVE, parameter), parameter


@pytest.mark.parametrize("kind", SHOWING)
@pytest.mark.parametrize("on_token", [True, False])
def test_what_shows_a_private_key_is_private(fob: Fob, kind: int, *, on_token: bool) -> None:
    """C_CopyObject makes no public object of it; nor does XOR with zeros."""
    base = fob.client.create(fob.session, [*AES, *HIDDEN, (CKA.VALUE, VALUE), (CKA.DERIVE, True)])
    mechanism, *held = with_data(fob, kind, bytes(32))
    asked: Template = [*GENERIC, (CKA.TOKEN, on_token)]
    rv, _ = made(fob, "C_DeriveKey", mechanism, base, template=[*asked, (CKA.PRIVATE, False)])
    assert rv == CKR.TEMPLATE_INCONSISTENT
    rv, key = made(fob, "C_DeriveKey", mechanism, base, template=asked)
    assert (rv, fob.client.get(fob.session, key, CKA.PRIVATE)) == (CKR.OK, [b"\1"])
    del held


@pytest.mark.parametrize("base_is_private", [True, False])
@pytest.mark.parametrize("on_token", [True, False])
def test_what_is_derived_from_a_private_key_is_not_public_on_the_token(
    fob: Fob, *, base_is_private: bool, on_token: bool
) -> None:
    """A session key may be public, as NSS makes them before a login; and what comes of a public key as well."""
    private = (CKA.PRIVATE, base_is_private)
    base = fob.client.create(fob.session, [*AES, (CKA.VALUE, VALUE), (CKA.DERIVE, True), private])
    mechanism, *held = with_data(fob, CKM.AES_ECB_ENCRYPT_DATA, bytes(16))
    asked: Template = [*AES, (CKA.TOKEN, on_token), (CKA.VALUE_LEN, 16), (CKA.PRIVATE, False)]
    rv, _ = made(fob, "C_DeriveKey", mechanism, base, template=asked)
    assert rv == (CKR.TEMPLATE_INCONSISTENT if base_is_private and on_token else CKR.OK)
    del held


@pytest.mark.parametrize("base_is_private", [True, False])
@pytest.mark.parametrize("on_token", [True, False])
@pytest.mark.parametrize("as_salt", [True, False])
def test_what_is_derived_from_private_data_is_not_public_on_the_token(
    fob: Fob, *, base_is_private: bool, on_token: bool, as_salt: bool
) -> None:
    """HKDF takes data in a key's place. The caller has read it, so the key's value was not always hidden."""
    client = fob.client
    data = client.create(fob.session, [(CKA.CLASS, CKO.DATA), (CKA.VALUE, VALUE), (CKA.PRIVATE, base_is_private)])
    public = client.create(fob.session, [*GENERIC, (CKA.VALUE, VALUE), (CKA.DERIVE, True), (CKA.PRIVATE, False)])
    others = {"bExtract": 1, "ulSaltType": CKF.HKDF_SALT_KEY, "hSaltKey": data} if as_salt else {}
    mechanism, *_held = _hkdf(fob, **others)
    asked: Template = [*GENERIC, (CKA.VALUE_LEN, 32), (CKA.TOKEN, on_token)]
    base = public if as_salt else data
    rv, _ = made(fob, "C_DeriveKey", mechanism, base, template=[*asked, (CKA.PRIVATE, False)])
    assert rv == (CKR.TEMPLATE_INCONSISTENT if base_is_private and on_token else CKR.OK)
    rv, key = made(fob, "C_DeriveKey", mechanism, base, template=[*asked, *HIDDEN])
    assert rv == CKR.OK
    assert client.get(fob.session, key, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE) == [b"\0", b"\0"]


@pytest.mark.parametrize("kind", SHOWING)
def test_what_shows_an_unmodifiable_key_may_do_no_more_than_it(fob: Fob, kind: int) -> None:
    usages = (CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.WRAP, CKA.UNWRAP, CKA.DERIVE)
    only: Template = [(usage, usage in (CKA.ENCRYPT, CKA.DERIVE)) for usage in usages]
    base = fob.client.create(fob.session, [*AES, (CKA.VALUE, VALUE), (CKA.MODIFIABLE, False), *only])
    mechanism, *held = with_data(fob, kind, bytes(32))
    for freer in ((CKA.DECRYPT, True), (CKA.MODIFIABLE, True), (CKA.SIGN, True)):
        assert made(fob, "C_DeriveKey", mechanism, base, template=[*GENERIC, freer])[0] == CKR.TEMPLATE_INCONSISTENT
    rv, key = made(fob, "C_DeriveKey", mechanism, base, template=GENERIC)
    assert rv == CKR.OK
    assert fob.client.get(fob.session, key, CKA.MODIFIABLE, *usages[:-1]) == [b"\0", b"\1", *[b"\0"] * 5]
    del held


def test_no_derivation_shows_what_is_not_copyable(fob: Fob) -> None:
    client = fob.client
    asked: Template = [*GENERIC, (CKA.VALUE, VALUE), (CKA.DERIVE, True)]
    base = client.create(fob.session, [*asked, (CKA.COPYABLE, False)])
    other = client.create(fob.session, asked)
    ways = [with_data(fob, kind, bytes(32)) for kind in SHOWING]
    ways += [(client.mechanism(CKM.CONCATENATE_BASE_AND_KEY, other.to_bytes(8, "little")),)]
    for mechanism, *_ in ways:
        assert made(fob, "C_DeriveKey", mechanism, base, template=GENERIC)[0] == CKR.KEY_FUNCTION_NOT_PERMITTED
    second = client.mechanism(CKM.CONCATENATE_BASE_AND_KEY, base.to_bytes(8, "little"))
    assert made(fob, "C_DeriveKey", second, other, template=GENERIC)[0] == CKR.KEY_FUNCTION_NOT_PERMITTED
    hashed = with_data(fob, CKM.XOR_BASE_AND_DATA, bytes(32))
    assert made(fob, "C_DeriveKey", hashed[0], other, template=GENERIC)[0] == CKR.OK


@pytest.mark.parametrize("key_type", [CKK.AES, CKK.GENERIC_SECRET, CKK.DES2, CKK.DES3])
def test_no_des_key_shows_a_hidden_key(fob: Fob, key_type: int) -> None:
    """With a known third key two of single DES are met in the middle; with a known difference the first is found."""
    client = fob.client
    value = {CKK.DES3: VALUE[:24], CKK.DES2: VALUE[:16]}.get(key_type, VALUE[:16])
    kind: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type), (CKA.DERIVE, True)]
    des3: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.DES3)]
    ways = [with_data(fob, CKM.CONCATENATE_BASE_AND_DATA, bytes(8)), with_data(fob, CKM.XOR_BASE_AND_DATA, bytes(24))]
    for hidden, expected in (HIDDEN, CKR.TEMPLATE_INCONSISTENT), (READABLE, CKR.OK):
        base = client.create(fob.session, [*kind, *hidden, (CKA.VALUE, value)])
        way = ways[1] if key_type == CKK.DES3 else ways[0]
        assert made(fob, "C_DeriveKey", way[0], base, template=des3)[0] == expected


@pytest.mark.parametrize("key_type", [CKK.AES, CKK.GENERIC_SECRET, CKK.AES_XTS])
def test_no_xts_key_shows_a_hidden_key(fob: Fob, key_type: int) -> None:
    """Of the key of the tweak all bytes but one are known, then all but the next: 256 calls for each."""
    client = fob.client
    kind: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type), (CKA.DERIVE, True)]
    xts: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES_XTS), (CKA.VALUE_LEN, 32)]
    value = VALUE if key_type == CKK.AES_XTS else VALUE[:16]
    ways = [
        with_data(fob, CKM.XOR_BASE_AND_DATA if len(value) == 32 else CKM.CONCATENATE_BASE_AND_DATA, bytes(32)),
        with_data(fob, CKM.CONCATENATE_DATA_AND_BASE, VALUE[len(value) :]),
    ]
    for hidden, expected in (HIDDEN, CKR.TEMPLATE_INCONSISTENT), (READABLE, CKR.OK):
        base = client.create(fob.session, [*kind, *hidden, (CKA.VALUE, value)])
        for mechanism, *_ in ways:
            assert made(fob, "C_DeriveKey", mechanism, base, template=xts)[0] == expected


def test_no_xts_key_shows_a_hidden_key_in_two_steps(fob: Fob) -> None:
    """One known byte before the key, the others after it."""
    client = fob.client
    base = client.create(fob.session, [*AES, *HIDDEN, (CKA.VALUE, VALUE[:16]), (CKA.DERIVE, True)])
    before, *_kept = with_data(fob, CKM.CONCATENATE_DATA_AND_BASE, b"x")
    rv, longer = made(fob, "C_DeriveKey", before, base, template=[*GENERIC, *HIDDEN, (CKA.DERIVE, True)])
    assert rv == CKR.OK
    after, *_held = with_data(fob, CKM.CONCATENATE_BASE_AND_DATA, bytes(15))
    xts: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES_XTS), (CKA.VALUE_LEN, 32)]
    assert made(fob, "C_DeriveKey", after, longer, template=xts)[0] == CKR.TEMPLATE_INCONSISTENT


@pytest.mark.rule("P15")
@pytest.mark.parametrize("hidden", [*HIDDEN, None])
@pytest.mark.parametrize("length", [16, 24])
def test_a_hidden_generic_secret_is_no_des_key(fob: Fob, hidden: tuple[int, bool] | None, length: int) -> None:
    """It may be made of an AES key's bytes and known ones. NSS's, which it makes from passwords, hide nothing (P15)."""
    client, session = fob.client, fob.session
    key = client.create(session, [*GENERIC, *([hidden] if hidden else READABLE), (CKA.VALUE, VALUE[:length])])
    expected = CKR.KEY_TYPE_INCONSISTENT if hidden else CKR.OK
    assert client.call("C_EncryptInit", session, client.mechanism(CKM.DES3_ECB), key) == expected
    assert client.call("C_DecryptInit", session, client.mechanism(CKM.DES3_CBC, bytes(8)), key) == expected
    rv, _ = unwrapped(fob, client.mechanism(CKM.DES3_ECB), key, bytes(16), AES)
    assert rv == (CKR.UNWRAPPING_KEY_TYPE_INCONSISTENT if hidden else CKR.OK)
    assert client.call("C_EncryptInit", client.open(fob.slot), client.mechanism(CKM.AES_ECB), key) == CKR.OK


@pytest.mark.parametrize("key_type", [CKK.DES2, CKK.DES3])
def test_no_des_key_is_the_same_as_another_key(fob: Fob, key_type: int) -> None:
    """HKDF gives both the same bytes, and those of two DES keys are met in the middle."""
    client = fob.client
    des: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type)]
    secret: Template = [*GENERIC, (CKA.VALUE, VALUE), (CKA.DERIVE, True)]
    hidden = client.create(fob.session, [*secret, *HIDDEN])
    readable = client.create(fob.session, [*secret, *READABLE])
    encrypting = client.create(fob.session, [*AES, *HIDDEN, (CKA.VALUE, VALUE), (CKA.DERIVE, True)])
    hkdf, *_kept = _hkdf(fob)
    salted, *_held = _hkdf(fob, bExtract=1, ulSaltType=CKF.HKDF_SALT_KEY, hSaltKey=hidden)
    encrypted = with_data(fob, CKM.AES_ECB_ENCRYPT_DATA, bytes(32))
    for mechanism, base in ((hkdf, hidden), (salted, readable), (encrypted[0], encrypting)):
        assert made(fob, "C_DeriveKey", mechanism, base, template=des)[0] == CKR.TEMPLATE_INCONSISTENT
        whole: Template = [*AES, (CKA.VALUE_LEN, 16)]
        xts: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES_XTS), (CKA.VALUE_LEN, 64)]
        assert made(fob, "C_DeriveKey", mechanism, base, template=whole)[0] == CKR.OK
        if mechanism is not encrypted[0]:  # its halves have 256 bits each
            assert made(fob, "C_DeriveKey", mechanism, base, template=xts)[0] == CKR.OK
    assert made(fob, "C_DeriveKey", hkdf, readable, template=des)[0] == CKR.OK


@pytest.mark.parametrize("key_type", [CKK.DES2, CKK.DES3])
@pytest.mark.parametrize("protected", [False, True])
def test_ecdh_makes_des_keys_unless_a_template_protects_them(fob: Fob, key_type: int, *, protected: bool) -> None:
    """S/MIME's key agreement has them; and without the template the same bytes may be read."""
    client = fob.client
    template: Template = [(CKA.DERIVE_TEMPLATE, [*HIDDEN])] if protected else []
    public, private = client.generate_pair(
        fob.session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], [(CKA.DERIVE, True), *HIDDEN, *template]
    )
    point = client.get(fob.session, public, CKA.EC_POINT)[0]
    assert point is not None
    held = ffi.from_buffer("CK_BYTE[]", point)
    ecdh = ffi.new("CK_ECDH1_DERIVE_PARAMS *", (CKD.SHA1_KDF, 0, ffi.NULL, len(point), held))
    des: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type)]
    rv, _ = made(fob, "C_DeriveKey", client.mechanism(CKM.ECDH1_DERIVE, ecdh), private, template=des)
    assert rv == (CKR.TEMPLATE_INCONSISTENT if protected else CKR.OK)


@pytest.mark.parametrize("protected", [False, True])
def test_a_des_key_gives_des_keys_unless_a_template_protects_them(fob: Fob, *, protected: bool) -> None:
    """As the keys of cards come from a master key."""
    client = fob.client
    template: Template = [(CKA.DERIVE_TEMPLATE, [*HIDDEN])] if protected else []
    des: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.DES2)]
    base = client.create(fob.session, [*des, (CKA.VALUE, VALUE[:16]), (CKA.DERIVE, True), *HIDDEN, *template])
    mechanism, *_held = with_data(fob, CKM.DES3_ECB_ENCRYPT_DATA, bytes(16))
    rv, _ = made(fob, "C_DeriveKey", mechanism, base, template=des)
    assert rv == (CKR.TEMPLATE_INCONSISTENT if protected else CKR.OK)
