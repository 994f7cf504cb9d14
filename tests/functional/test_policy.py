"""The rules of attributes through the C ABI, each by every way in (token/policy.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keyfob.spec.constants import CKA, CKD, CKK, CKM, CKO, CKR, CKU
from keyfob.token import policy
from tests.client import READ_WRITE, RvError, Template, ffi
from tests.conftest import PIN, SO_PIN, Fob

P256 = bytes.fromhex("06082a8648ce3d030107")
VALUE = bytes(range(1, 33))
AES: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES)]
GENERIC: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET)]
HIDDEN: Template = [(CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False)]
READABLE: Template = [(CKA.SENSITIVE, False), (CKA.EXTRACTABLE, True)]


def made(fob: Fob, name: str, *arguments: Any, template: Template) -> tuple[int, int]:
    """The answer of a call that ends in (template, handle), and the handle."""
    array, count, kept = fob.client.template(template)
    handle = ffi.new("CK_ULONG *")
    rv = fob.client.call(name, fob.session, *arguments, array, count, handle)
    del kept
    return rv, int(handle[0])


def unwrapped(fob: Fob, mechanism: Any, key: int, blob: bytes, template: Template) -> tuple[int, int]:
    return made(fob, "C_UnwrapKey", mechanism, key, blob, len(blob), template=template)


def wrapped(fob: Fob, mechanism: Any, wrapping: int, key: int) -> bytes:
    return fob.client.output("C_WrapKey", fob.session, mechanism, wrapping, key)


def with_data(fob: Fob, kind: int, data: bytes) -> tuple[Any, ...]:
    parameter = ffi.new("CK_KEY_DERIVATION_STRING_DATA *")
    held = ffi.from_buffer("CK_BYTE[]", data)
    parameter.pData, parameter.ulLen = held, len(data)
    return fob.client.mechanism(kind, parameter), parameter, held


@contextmanager
def the_so(fob: Fob) -> Iterator[None]:
    """Within it the SO is logged in."""
    fob.client.ok("C_Logout", fob.session)
    fob.client.login(fob.session, SO_PIN, CKU.SO)
    try:
        yield
    finally:
        fob.client.ok("C_Logout", fob.session)
        fob.client.login(fob.session, PIN)


# Keys that hide their value


@pytest.mark.parametrize("on_token", [True, False])
def test_secret_keys_derive_only_if_asked_to(fob: Fob, *, on_token: bool) -> None:
    asked: Template = [(CKA.VALUE_LEN, 32), (CKA.TOKEN, on_token)]
    key = fob.client.generate(fob.session, fob.client.mechanism(CKM.AES_KEY_GEN), asked)
    assert fob.client.get(fob.session, key, CKA.DERIVE) == [b"\0"]
    mechanism = fob.client.mechanism(CKM.EXTRACT_KEY_FROM_KEY, bytes(8))
    rv, _ = made(fob, "C_DeriveKey", mechanism, key, template=[*GENERIC, (CKA.VALUE_LEN, 1)])
    assert rv == CKR.KEY_FUNCTION_NOT_PERMITTED
    key = fob.client.generate(fob.session, fob.client.mechanism(CKM.AES_KEY_GEN), [*asked, (CKA.DERIVE, True)])
    rv, _ = made(fob, "C_DeriveKey", mechanism, key, template=[*GENERIC, (CKA.VALUE_LEN, 32)])
    assert rv == CKR.OK


@pytest.mark.parametrize("length", [1, 13, 14, 31])
@pytest.mark.parametrize("hidden", [HIDDEN, [(CKA.SENSITIVE, True)], [(CKA.EXTRACTABLE, False)]])
def test_no_part_of_a_hidden_key_is_derived(fob: Fob, hidden: Template, length: int) -> None:
    """Each byte alone would be told by an HMAC or a check value."""
    client = fob.client
    key = client.create(fob.session, [*GENERIC, *hidden, (CKA.VALUE, VALUE), (CKA.DERIVE, True)])
    known = client.create(fob.session, [*GENERIC, *READABLE, (CKA.VALUE, b"x"), (CKA.DERIVE, True)])
    handle = key.to_bytes(8, "little")
    ways: list[tuple[Any, int, int]] = [
        (client.mechanism(CKM.EXTRACT_KEY_FROM_KEY, (8).to_bytes(8, "little")), key, length),
        (with_data(fob, CKM.XOR_BASE_AND_DATA, bytes(length))[0], key, length),
        (with_data(fob, CKM.XOR_BASE_AND_DATA, bytes(32))[0], key, length),
        (with_data(fob, CKM.CONCATENATE_BASE_AND_DATA, b"x")[0], key, length),
        (with_data(fob, CKM.CONCATENATE_DATA_AND_BASE, b"x" * 32)[0], key, 32 + length),
        (client.mechanism(CKM.CONCATENATE_BASE_AND_KEY, handle), known, 1 + length),
        (client.mechanism(CKM.CONCATENATE_BASE_AND_KEY, known.to_bytes(8, "little")), key, length),
    ]
    for mechanism, base, asked in ways:
        rv, _ = made(fob, "C_DeriveKey", mechanism, base, template=[*GENERIC, (CKA.VALUE_LEN, asked)])
        assert rv == CKR.KEY_SIZE_RANGE


def test_a_hidden_key_is_derived_from_as_a_whole(fob: Fob) -> None:
    client = fob.client
    key = client.create(fob.session, [*GENERIC, *HIDDEN, (CKA.VALUE, VALUE), (CKA.DERIVE, True)])
    for mechanism, length in (
        (client.mechanism(CKM.EXTRACT_KEY_FROM_KEY, (8).to_bytes(8, "little")), 32),
        (with_data(fob, CKM.XOR_BASE_AND_DATA, bytes(32))[0], 32),
        (with_data(fob, CKM.CONCATENATE_BASE_AND_DATA, b"x")[0], 33),
        (with_data(fob, CKM.CONCATENATE_BASE_AND_DATA, b"x")[0], 32),
        (with_data(fob, CKM.CONCATENATE_DATA_AND_BASE, b"x")[0], 33),
    ):
        rv, _ = made(fob, "C_DeriveKey", mechanism, key, template=[*GENERIC, (CKA.VALUE_LEN, length)])
        assert rv == CKR.OK


def test_no_key_shorter_than_112_bits_is_derived_from_a_hidden_one(fob: Fob) -> None:
    """The results of most derivations begin alike, so that short ones tell a longer one byte by byte."""
    client = fob.client
    public, private = client.generate_pair(
        fob.session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], [(CKA.DERIVE, True), *HIDDEN]
    )
    point = client.get(fob.session, public, CKA.EC_POINT)[0]
    assert point is not None
    held = ffi.from_buffer("CK_BYTE[]", point)
    ecdh = ffi.new("CK_ECDH1_DERIVE_PARAMS *", (CKD.NULL, 0, ffi.NULL, len(point), held))
    hkdf = ffi.new("CK_HKDF_PARAMS *", {"bExpand": 1, "prfHashMechanism": CKM.SHA256})
    secret = client.create(fob.session, [*GENERIC, *HIDDEN, (CKA.VALUE, VALUE), (CKA.DERIVE, True)])
    encrypting = client.create(fob.session, [*AES, *HIDDEN, (CKA.VALUE, VALUE), (CKA.DERIVE, True)])
    for mechanism, base in (
        (client.mechanism(CKM.ECDH1_DERIVE, ecdh), private),
        (client.mechanism(CKM.HKDF_DERIVE, hkdf), secret),
        (with_data(fob, CKM.AES_ECB_ENCRYPT_DATA, bytes(16))[0], encrypting),
    ):
        for length, expected in ((1, CKR.KEY_SIZE_RANGE), (13, CKR.KEY_SIZE_RANGE), (14, CKR.OK), (16, CKR.OK)):
            rv, _ = made(fob, "C_DeriveKey", mechanism, base, template=[*GENERIC, (CKA.VALUE_LEN, length)])
            assert rv == expected


@pytest.mark.parametrize(("length", "has"), [(1, False), (13, False), (14, True), (32, True)])
def test_short_secrets_have_no_check_value_and_no_digest(fob: Fob, length: int, *, has: bool) -> None:
    key = fob.client.create(fob.session, [*GENERIC, *HIDDEN, (CKA.VALUE, VALUE[:length])])
    assert bool(fob.client.get(fob.session, key, CKA.CHECK_VALUE)[0]) is has
    fob.client.ok("C_DigestInit", fob.session, fob.client.mechanism(CKM.SHA256))
    assert fob.client.call("C_DigestKey", fob.session, key) == (CKR.OK if has else CKR.KEY_INDIGESTIBLE)


def test_a_key_is_not_unwrapped_as_its_first_bytes(fob: Fob) -> None:
    client = fob.client
    wrapping = client.create(fob.session, [*AES, (CKA.VALUE, bytes(32))])
    key = client.create(fob.session, [*AES, (CKA.SENSITIVE, True), (CKA.EXTRACTABLE, True), (CKA.VALUE, VALUE)])
    blob = wrapped(fob, client.mechanism(CKM.AES_ECB), wrapping, key)
    for length in (1, 16, 31):
        asked: Template = [*GENERIC, (CKA.VALUE_LEN, length)]
        assert unwrapped(fob, client.mechanism(CKM.AES_ECB), wrapping, blob, asked)[0] == CKR.WRAPPED_KEY_INVALID
    assert unwrapped(fob, client.mechanism(CKM.AES_ECB), wrapping, blob, [*GENERIC, (CKA.VALUE_LEN, 32)])[0] == CKR.OK


# The PIN for each use


def careful_rsa(fob: Fob) -> tuple[int, int]:
    """A key pair whose private key asks for the PIN before each use."""
    usages: Template = [(usage, True) for usage in (CKA.SIGN, CKA.SIGN_RECOVER, CKA.DECRYPT, CKA.UNWRAP)]
    private: Template = [(CKA.ALWAYS_AUTHENTICATE, True), (CKA.PRIVATE, True), *usages]
    public: Template = [(CKA.MODULUS_BITS, 1024), (CKA.PUBLIC_EXPONENT, b"\1\0\1"), (CKA.ENCRYPT, True)]
    return fob.client.generate_pair(fob.session, CKM.RSA_PKCS_KEY_PAIR_GEN, public, private)


@pytest.mark.rule("P5")
def test_every_use_of_a_careful_key_wants_the_pin(fob: Fob) -> None:
    """The uses are those that the rules know for private keys, so that a new one is not forgotten here."""
    client, session = fob.client, fob.session
    public, private = careful_rsa(fob)
    mechanism = client.mechanism(CKM.RSA_PKCS)
    length, room = ffi.new("CK_ULONG *", 256), ffi.new("char[]", 256)
    client.ok("C_EncryptInit", session, mechanism, public)
    blob = client.output("C_Encrypt", session, VALUE, len(VALUE))
    _, agreeing = client.generate_pair(
        session,
        CKM.EC_KEY_PAIR_GEN,
        [(CKA.EC_PARAMS, P256)],
        [(CKA.ALWAYS_AUTHENTICATE, True), (CKA.PRIVATE, True), (CKA.DERIVE, True)],
    )
    point = client.get(session, agreeing, CKA.EC_POINT)[0] or b""
    held = ffi.from_buffer("CK_BYTE[]", point)
    ecdh = ffi.new("CK_ECDH1_DERIVE_PARAMS *", (CKD.NULL, 0, ffi.NULL, len(point), held))

    def in_two_steps(name: str, data: bytes) -> int:
        client.ok(f"C_{name}Init", session, mechanism, private)
        return client.call(f"C_{name}", session, data, len(data), room, length)

    answers = {
        CKA.SIGN: in_two_steps("Sign", VALUE),
        CKA.SIGN_RECOVER: in_two_steps("SignRecover", VALUE),
        CKA.DECRYPT: in_two_steps("Decrypt", blob),
        CKA.UNWRAP: unwrapped(fob, mechanism, private, blob, [*GENERIC, *READABLE])[0],
        CKA.DERIVE: made(fob, "C_DeriveKey", client.mechanism(CKM.ECDH1_DERIVE, ecdh), agreeing, template=GENERIC)[0],
    }
    assert answers == dict.fromkeys(answers, CKR.USER_NOT_LOGGED_IN)
    private_class = CKO.PRIVATE_KEY.to_bytes(8, "little")
    assert set(answers) == {usage for usage, classes in policy.USES.values() if private_class in classes}


def test_one_pin_is_for_one_operation_and_not_for_a_saved_state_of_it(fob: Fob) -> None:
    client, session = fob.client, fob.session
    _, private = careful_rsa(fob)
    client.ok("C_SignInit", session, client.mechanism(CKM.SHA256_RSA_PKCS), private)
    client.login(session, PIN, CKU.CONTEXT_SPECIFIC)
    client.ok("C_SignUpdate", session, b"x", 1)
    state = client.output("C_GetOperationState", session)
    length, room = ffi.new("CK_ULONG *", 256), ffi.new("char[]", 256)
    client.ok("C_SignFinal", session, room, length)
    client.ok("C_SetOperationState", session, state, len(state), 0, private)
    assert client.call("C_SignUpdate", session, b"y", 1) == CKR.USER_NOT_LOGGED_IN
    client.ok("C_SetOperationState", session, state, len(state), 0, private)
    client.login(session, PIN, CKU.CONTEXT_SPECIFIC)
    client.ok("C_SignFinal", session, room, length)


@pytest.mark.rule("SE5")
@pytest.mark.parametrize("stricter", [(CKA.SIGN, False), (CKA.ALLOWED_MECHANISMS, bytes(8))])
def test_a_saved_state_does_not_outlive_what_its_key_allows(fob: Fob, stricter: tuple[int, Any]) -> None:
    """Restores a saved state only while its key still allows the operation; a new label does not matter."""
    client, session = fob.client, fob.session
    key = client.create(session, [*GENERIC, (CKA.VALUE, VALUE)])
    client.ok("C_SignInit", session, client.mechanism(CKM.SHA256_HMAC), key)
    state = client.output("C_GetOperationState", session)
    assert client.set(session, key, [(CKA.LABEL, "new")]) == CKR.OK
    client.ok("C_SetOperationState", session, state, len(state), 0, key)
    assert client.set(session, key, [stricter]) == CKR.OK
    assert client.call("C_SetOperationState", session, state, len(state), 0, key) == CKR.KEY_CHANGED


@pytest.mark.parametrize("room", [1, 256], ids=["too small again", "large"])
def test_one_pin_is_for_one_ciphertext(fob: Fob, room: int) -> None:
    """A buffer that is too small leaves the operation active: for the same data, and not to ask how long others are."""
    client, session = fob.client, fob.session
    public, private = careful_rsa(fob)
    mechanism = client.mechanism(CKM.RSA_PKCS)
    blobs = []
    for size in (10, 11):
        client.ok("C_EncryptInit", session, mechanism, public)
        blobs.append(client.output("C_Encrypt", session, VALUE, size))
    output, length = ffi.new("char[]", 256), ffi.new("CK_ULONG *")

    def decrypt(blob: bytes, room: int) -> tuple[int, int]:
        length[0] = room
        return client.call("C_Decrypt", session, blob, len(blob), output, length), int(length[0])

    for again in (True, False):
        client.ok("C_DecryptInit", session, mechanism, private)
        client.login(session, PIN, CKU.CONTEXT_SPECIFIC)
        assert decrypt(blobs[0], 1) == (CKR.BUFFER_TOO_SMALL, 10)
        if again:
            assert decrypt(blobs[0], 1) == (CKR.BUFFER_TOO_SMALL, 10)
            assert decrypt(blobs[0], 10) == (CKR.OK, 10)
        else:
            assert decrypt(blobs[1], room)[0] == CKR.OPERATION_NOT_INITIALIZED
            assert decrypt(blobs[0], 256)[0] == CKR.OPERATION_NOT_INITIALIZED


def test_one_pin_is_for_the_operation_that_was_begun_last(fob: Fob) -> None:
    client, session = fob.client, fob.session
    _, private = careful_rsa(fob)
    length, room = ffi.new("CK_ULONG *", 256), ffi.new("char[]", 256)
    client.ok("C_DecryptInit", session, client.mechanism(CKM.RSA_PKCS), private)
    client.ok("C_SignInit", session, client.mechanism(CKM.RSA_PKCS), private)
    client.login(session, PIN, CKU.CONTEXT_SPECIFIC)
    assert client.call("C_Decrypt", session, bytes(128), 128, room, length) == CKR.USER_NOT_LOGGED_IN
    client.ok("C_Sign", session, VALUE, len(VALUE), room, length)


def test_raw_rsa_wraps_and_unwraps_nothing(fob: Fob) -> None:
    """Unwrapping a block of one's choice is signing or decrypting it, which the key may not be for."""
    public: Template = [(CKA.MODULUS_BITS, 1024), (CKA.PUBLIC_EXPONENT, b"\1\0\1")]
    _, private = fob.client.generate_pair(fob.session, CKM.RSA_PKCS_KEY_PAIR_GEN, public, [])
    asked: Template = [*GENERIC, *READABLE, (CKA.VALUE_LEN, 128)]
    blob = bytes(1) + b"3" * 127
    assert unwrapped(fob, fob.client.mechanism(CKM.RSA_X_509), private, blob, asked)[0] == CKR.MECHANISM_INVALID


# CKA_ALLOWED_MECHANISMS


def mechanisms_of(*kinds: int) -> bytes:
    return b"".join(kind.to_bytes(8, "little") for kind in kinds)


def copied(fob: Fob, key: int, template: Template) -> int:
    rv, copy = made(fob, "C_CopyObject", key, template=template)
    if rv == CKR.OK:
        fob.client.ok("C_DestroyObject", fob.session, copy)
    return rv


@pytest.mark.parametrize("copying", [True, False])
def test_allowed_mechanisms_are_narrowed_and_never_loosened(fob: Fob, *, copying: bool) -> None:
    client = fob.client
    two = mechanisms_of(CKM.AES_CBC, CKM.AES_ECB)
    key = client.create(fob.session, [*AES, (CKA.VALUE, VALUE), (CKA.ALLOWED_MECHANISMS, two)])

    def change(value: bytes) -> int:
        template: Template = [(CKA.ALLOWED_MECHANISMS, value)]
        return copied(fob, key, template) if copying else client.set(fob.session, key, template)

    for looser in (b"", mechanisms_of(CKM.AES_GCM), mechanisms_of(CKM.AES_CBC, CKM.AES_ECB, CKM.AES_GCM)):
        assert change(looser) == CKR.ATTRIBUTE_READ_ONLY
    assert change(mechanisms_of(CKM.AES_CBC)) == CKR.OK
    free = client.create(fob.session, [*AES, (CKA.VALUE, VALUE)])
    assert client.set(fob.session, free, [(CKA.ALLOWED_MECHANISMS, mechanisms_of(CKM.AES_CBC))]) == CKR.OK
    assert client.call("C_EncryptInit", fob.session, client.mechanism(CKM.AES_ECB), free) == CKR.MECHANISM_INVALID


def test_a_copy_of_an_unmodifiable_key_may_do_no_more_than_it(fob: Fob) -> None:
    fixed: Template = [*AES, (CKA.VALUE, VALUE), (CKA.MODIFIABLE, False), (CKA.DECRYPT, False), (CKA.SENSITIVE, False)]
    key = fob.client.create(fob.session, fixed)
    assert copied(fob, key, [(CKA.DECRYPT, True)]) == CKR.ATTRIBUTE_READ_ONLY
    assert copied(fob, key, [(CKA.LABEL, "other")]) == CKR.ATTRIBUTE_READ_ONLY
    assert copied(fob, key, [(CKA.TOKEN, True), (CKA.SENSITIVE, True), (CKA.DECRYPT, False)]) == CKR.OK


@pytest.mark.parametrize("on_token", [True, False])
def test_a_copy_of_unmodifiable_trust_trusts_the_same(fob: Fob, *, on_token: bool) -> None:
    """NSS's attributes are in no table of the standard. On the token the copy takes the original's place (P16)."""
    client, distrusted, trusted = fob.client, 0xCE53435A, 0xCE534351
    names: Template = [(CKA.ISSUER, b"issuer"), (CKA.SERIAL_NUMBER, b"\2\1\5")]
    trust: Template = [(CKA.CLASS, CKO.NSS_TRUST), *names, (CKA.NSS_TRUST_SERVER_AUTH, distrusted)]
    fixed = client.create(fob.session, [*trust, (CKA.TOKEN, True), (CKA.MODIFIABLE, False)])
    for other in ((CKA.NSS_TRUST_SERVER_AUTH, trusted), (CKA.NSS_TRUST_CODE_SIGNING, trusted)):
        assert copied(fob, fixed, [(CKA.TOKEN, on_token), other]) == CKR.ATTRIBUTE_READ_ONLY
    assert client.get(fob.session, fixed, CKA.NSS_TRUST_SERVER_AUTH) == [distrusted.to_bytes(8, "little")]
    assert copied(fob, fixed, [(CKA.TOKEN, on_token), (CKA.NSS_TRUST_SERVER_AUTH, distrusted)]) == CKR.OK
    free = client.create(fob.session, [*trust, (CKA.TOKEN, True)])
    assert client.set(fob.session, free, [(CKA.NSS_TRUST_SERVER_AUTH, trusted)]) == CKR.OK


def test_a_key_that_may_be_its_base_again_is_bound_as_it(fob: Fob) -> None:
    """XOR with zeros is the base key: it would unwrap what its CKA_UNWRAP_TEMPLATE has it unwrap as sensitive."""
    client = fob.client
    allowed = mechanisms_of(CKM.XOR_BASE_AND_DATA, CKM.AES_KEY_WRAP, CKM.AES_CBC)
    bound: Template = [(CKA.UNWRAP_TEMPLATE, [(CKA.SENSITIVE, True)]), (CKA.ALLOWED_MECHANISMS, allowed)]
    base = client.create(fob.session, [*AES, (CKA.VALUE, VALUE), (CKA.DERIVE, True), *bound])
    mechanism, *held = with_data(fob, CKM.XOR_BASE_AND_DATA, bytes(32))
    for looser in (
        (CKA.UNWRAP_TEMPLATE, [(CKA.SENSITIVE, False)]),
        (CKA.ALLOWED_MECHANISMS, mechanisms_of(CKM.AES_GCM)),
        (CKA.ALLOWED_MECHANISMS, b""),
    ):
        assert made(fob, "C_DeriveKey", mechanism, base, template=[*AES, looser])[0] == CKR.TEMPLATE_INCONSISTENT
    for same, list_of_it in (([], allowed), ([(CKA.ALLOWED_MECHANISMS, allowed[:8])], allowed[:8])):
        rv, key = made(fob, "C_DeriveKey", mechanism, base, template=[*AES, *same])
        assert rv == CKR.OK
        assert client.get_template(fob.session, key, CKA.UNWRAP_TEMPLATE) == [(CKA.SENSITIVE, b"\1")]
        assert client.get(fob.session, key, CKA.ALLOWED_MECHANISMS) == [list_of_it]
    del held


# CKA_TRUSTED

TRUSTED: Template = [(CKA.TOKEN, True), (CKA.PRIVATE, False), *HIDDEN]
KEY_WRAP = CKM.AES_KEY_WRAP


def trusted_key(fob: Fob) -> int:
    with the_so(fob):
        asked: Template = [*TRUSTED, (CKA.TRUSTED, True), (CKA.VALUE_LEN, 32), (CKA.DERIVE, True)]
        return fob.client.generate(fob.session, fob.client.mechanism(CKM.AES_KEY_GEN), asked)


def test_only_the_so_makes_a_key_trusted_by_any_way(fob: Fob) -> None:
    client, session = fob.client, fob.session
    trusted: Template = [*TRUSTED, (CKA.TRUSTED, True)]
    wrapping = client.create(session, [*AES, (CKA.VALUE, bytes(32)), (CKA.DERIVE, True), (CKA.PRIVATE, False)])
    key = client.create(session, [*AES, *TRUSTED, (CKA.VALUE, VALUE)])
    blob = wrapped(fob, client.mechanism(KEY_WRAP), wrapping, client.create(session, [*AES, (CKA.VALUE, VALUE)]))
    generate = client.mechanism(CKM.AES_KEY_GEN)
    hkdf = with_data(fob, CKM.AES_ECB_ENCRYPT_DATA, bytes(32))
    answers = [
        made(fob, "C_CreateObject", template=[*AES, *trusted, (CKA.VALUE, VALUE)])[0],
        made(fob, "C_GenerateKey", generate, template=[*trusted, (CKA.VALUE_LEN, 32)])[0],
        unwrapped(fob, client.mechanism(KEY_WRAP), wrapping, blob, [*AES, *trusted])[0],
        made(fob, "C_DeriveKey", hkdf[0], wrapping, template=[*AES, *trusted, (CKA.VALUE_LEN, 32)])[0],
        made(fob, "C_CopyObject", key, template=[(CKA.TRUSTED, True)])[0],
        client.set(session, key, [(CKA.TRUSTED, True)]),
    ]
    assert answers == [CKR.ATTRIBUTE_READ_ONLY] * len(answers)
    with the_so(fob):
        assert client.set(session, key, [(CKA.TRUSTED, True)]) == CKR.OK
        for template in ([*AES, *trusted, (CKA.VALUE, VALUE)], [(CKA.CLASS, CKO.CERTIFICATE), *certificate()]):
            rv, one = made(fob, "C_CreateObject", template=template)
            assert rv == CKR.OK
            rv, copy = made(fob, "C_CopyObject", one, template=[])
            assert rv == CKR.OK
            assert client.get(session, copy, CKA.TRUSTED) == [b"\1"]


def certificate() -> Template:
    return [(CKA.TOKEN, True), (CKA.VALUE, b"0\3\2\1\1"), (CKA.SUBJECT, b"0\0"), (CKA.TRUSTED, True)]


def test_a_trusted_key_only_wraps_and_unwraps(fob: Fob) -> None:
    client, session = fob.client, fob.session
    key = trusted_key(fob)
    for name, kind in (
        ("Encrypt", CKM.AES_ECB),
        ("Decrypt", CKM.AES_ECB),
        ("Sign", CKM.AES_CMAC),
        ("Verify", CKM.AES_CMAC),
    ):
        assert client.call(f"C_{name}Init", session, client.mechanism(kind), key) == CKR.KEY_FUNCTION_NOT_PERMITTED
    showing = with_data(fob, CKM.XOR_BASE_AND_DATA, bytes(32))
    assert made(fob, "C_DeriveKey", showing[0], key, template=AES)[0] == CKR.KEY_FUNCTION_NOT_PERMITTED
    # A mode that does not notice a changed blob would let it be decrypted piece by piece.
    asked: Template = [*AES, (CKA.SENSITIVE, True), (CKA.WRAP_WITH_TRUSTED, True)]
    for kind in (CKM.AES_CBC_PAD, CKM.AES_CBC):
        mechanism = client.mechanism(kind, bytes(16))
        assert unwrapped(fob, mechanism, key, bytes(32), asked)[0] == CKR.MECHANISM_INVALID


def test_what_leaves_under_trusted_keys_comes_back_so(fob: Fob) -> None:
    """Unwrapped as a readable key it would have left in clear."""
    client, session = fob.client, fob.session
    wrapping, mechanism = trusted_key(fob), client.mechanism(KEY_WRAP)
    guarded: Template = [(CKA.SENSITIVE, True), (CKA.EXTRACTABLE, True), (CKA.WRAP_WITH_TRUSTED, True)]
    key = client.create(session, [*AES, *guarded, (CKA.VALUE, VALUE)])
    blob = wrapped(fob, mechanism, wrapping, key)
    for asked in ((CKA.SENSITIVE, False), (CKA.WRAP_WITH_TRUSTED, False), (CKA.PRIVATE, False)):
        assert unwrapped(fob, mechanism, wrapping, blob, [*AES, asked])[0] == CKR.TEMPLATE_INCONSISTENT
    rv, back = unwrapped(fob, mechanism, wrapping, blob, AES)
    assert rv == CKR.OK
    assert client.get(session, back, CKA.SENSITIVE, CKA.WRAP_WITH_TRUSTED, CKA.VALUE) == [b"\1", b"\1", None]
    other = client.create(session, [*AES, (CKA.VALUE, bytes(32))])
    with pytest.raises(RvError) as refused:
        wrapped(fob, mechanism, other, back)
    assert refused.value.rv == CKR.KEY_NOT_WRAPPABLE


def test_the_user_neither_copies_a_trusted_secret_key_nor_changes_it(fob: Fob) -> None:
    """A copy that is not trusted could decrypt what the key has wrapped; one that the SO made to wrap only stays so."""
    key = trusted_key(fob)
    assert copied(fob, key, [(CKA.TOKEN, False)]) == CKR.ACTION_PROHIBITED
    for change in ((CKA.TRUSTED, False), (CKA.UNWRAP, False), (CKA.LABEL, "mine"), (CKA.DESTROYABLE, False)):
        assert fob.client.set(fob.session, key, [change]) == CKR.ATTRIBUTE_READ_ONLY
    with the_so(fob):
        assert fob.client.set(fob.session, key, [(CKA.UNWRAP, False)]) == CKR.OK
        assert fob.client.set(fob.session, key, [(CKA.TRUSTED, False)]) == CKR.OK


@pytest.mark.parametrize("freer", [(CKA.SENSITIVE, False), (CKA.EXTRACTABLE, True)])
def test_a_key_whose_value_can_leave_is_not_trusted(fob: Fob, freer: tuple[int, bool]) -> None:
    asked = {**dict(AES), **dict(TRUSTED), CKA.VALUE: VALUE, freer[0]: freer[1]}
    key = fob.client.create(fob.session, list(asked.items()))
    with the_so(fob):
        assert fob.client.set(fob.session, key, [(CKA.TRUSTED, True)]) == CKR.TEMPLATE_INCONSISTENT


def test_a_users_copy_of_a_trusted_certificate_is_not_trusted(fob: Fob) -> None:
    with the_so(fob):
        one = fob.client.create(fob.session, [(CKA.CLASS, CKO.CERTIFICATE), *certificate()])
    rv, copy = made(fob, "C_CopyObject", one, template=[])
    assert rv == CKR.OK
    assert fob.client.get(fob.session, copy, CKA.TRUSTED) == [b"\0"]


# Threads


@pytest.mark.parametrize("on_token", [True, False])
@pytest.mark.parametrize("moment", ["may_use", "mechanism_allowed"])
def test_a_use_that_begins_after_a_change_sees_it(
    fob: Fob, monkeypatch: pytest.MonkeyPatch, moment: str, *, on_token: bool
) -> None:
    """Another thread's change comes between the check of a use and what is remembered of it."""
    client = fob.client
    other = client.open(fob.slot, READ_WRITE)
    _, private = client.generate_pair(
        fob.session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], [(CKA.SIGN, True), (CKA.TOKEN, on_token)]
    )
    real = getattr(policy, moment)

    def interrupted(*arguments: Any) -> Any:
        answer = real(*arguments)
        monkeypatch.setattr(policy, moment, real)
        assert client.set(other, private, [(CKA.SIGN, False)]) == CKR.OK
        return answer

    monkeypatch.setattr(policy, moment, interrupted)
    ecdsa = client.mechanism(CKM.ECDSA)
    assert client.call("C_SignInit", fob.session, ecdsa, private) == CKR.OK  # it began before
    assert client.call("C_SignInit", other, ecdsa, private) == CKR.KEY_FUNCTION_NOT_PERMITTED


@pytest.mark.parametrize("on_token", [True, False])
def test_two_changes_at_once_do_not_undo_each_other(
    fob: Fob, monkeypatch: pytest.MonkeyPatch, *, on_token: bool
) -> None:
    """A key was made unextractable while another thread gave it a label."""
    client = fob.client
    other = client.open(fob.slot, READ_WRITE)
    key = client.create(fob.session, [*AES, (CKA.VALUE, VALUE), (CKA.EXTRACTABLE, True), (CKA.TOKEN, on_token)])
    real = policy.check_change

    def interrupted(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        monkeypatch.setattr(policy, "check_change", real)
        assert client.set(other, key, [(CKA.EXTRACTABLE, False)]) == CKR.OK

    monkeypatch.setattr(policy, "check_change", interrupted)
    assert client.set(fob.session, key, [(CKA.LABEL, "new")]) == CKR.OK
    assert client.get(fob.session, key, CKA.EXTRACTABLE, CKA.LABEL) == [b"\0", b"new"]


def test_a_change_does_not_bring_a_destroyed_object_back(fob: Fob, monkeypatch: pytest.MonkeyPatch) -> None:
    client = fob.client
    other = client.open(fob.slot, READ_WRITE)
    key = client.create(fob.session, [*AES, (CKA.VALUE, VALUE)])
    real = policy.check_change

    def interrupted(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        client.ok("C_DestroyObject", other, key)

    monkeypatch.setattr(policy, "check_change", interrupted)
    assert client.set(fob.session, key, [(CKA.LABEL, "new")]) == CKR.OBJECT_HANDLE_INVALID


@pytest.mark.parametrize("hidden", [(CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False)])
def test_a_hidden_value_is_never_stored_in_the_clear(fob: Fob, home: Path, hidden: tuple[int, bool]) -> None:
    """Also of a key that is not CKA_PRIVATE: without a login everybody sees it, and nobody has its value."""
    value = bytes(range(32))
    template: list[tuple[int, Any]] = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, value)]
    template += [(CKA.TOKEN, True), (CKA.PRIVATE, False), (CKA.SENSITIVE, False), (CKA.LABEL, b"seen")]
    key = fob.client.create(fob.session, [*[row for row in template if row[0] != hidden[0]], hidden])
    mechanism = fob.client.mechanism(CKM.AES_ECB)

    def encrypted() -> bytes:
        fob.client.ok("C_EncryptInit", fob.session, mechanism, key)
        return fob.client.output("C_Encrypt", fob.session, bytes(16), 16)

    right = encrypted()
    fob.client.ok("C_Logout", fob.session)
    files = [path.read_bytes() for path in (home / "tokens").iterdir() if path.is_file()]
    assert files
    assert not any(value in content for content in files)
    assert fob.client.find(fob.session, [(CKA.LABEL, b"seen")]) == [key]
    assert fob.client.get(fob.session, key, CKA.VALUE_LEN, CKA.CHECK_VALUE) == [(32).to_bytes(8, "little"), None]
    assert fob.client.call("C_EncryptInit", fob.session, mechanism, key) == CKR.USER_NOT_LOGGED_IN
    copy = ffi.new("CK_ULONG *")
    session_copy, count, _kept = fob.client.template([(CKA.TOKEN, False)])
    assert fob.client.call("C_CopyObject", fob.session, key, session_copy, count, copy) == CKR.USER_NOT_LOGGED_IN
    with pytest.raises(RvError) as error:
        fob.client.create(fob.session, [*[row for row in template if row[0] != hidden[0]], hidden])
    assert error.value.rv == CKR.USER_NOT_LOGGED_IN
    for role, pin in ((CKU.SO, SO_PIN), (CKU.USER, PIN)):
        fob.client.login(fob.session, pin, role)
        assert encrypted() == right
        fob.client.ok("C_Logout", fob.session)


@pytest.mark.parametrize("saved", [False, True])
def test_a_digest_of_a_private_keys_value_ends_with_the_login(fob: Fob, *, saved: bool) -> None:
    """Its buffer holds the value, and its result would tell of it."""
    value = bytes(range(40))
    template: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), (CKA.PRIVATE, True)]
    key = fob.client.create(fob.session, [*template, (CKA.VALUE, value)])
    fob.client.ok("C_DigestInit", fob.session, fob.client.mechanism(CKM.SHA256))
    fob.client.ok("C_DigestKey", fob.session, key)
    state = fob.client.output("C_GetOperationState", fob.session) if saved else b""
    fob.client.ok("C_Logout", fob.session)
    size = ffi.new("CK_ULONG *", 32)
    out = ffi.new("CK_BYTE[32]")
    assert fob.client.call("C_DigestFinal", fob.session, out, size) == CKR.OPERATION_NOT_INITIALIZED
    if saved:
        rv = fob.client.call("C_SetOperationState", fob.session, state, len(state), 0, 0)
        assert rv == CKR.SAVED_STATE_INVALID
