"""Templates as attributes (CKA_WRAP_TEMPLATE and its kin) through the C ABI: kept, returned, found and enforced."""

from __future__ import annotations

from typing import Any

import pytest

from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKR
from tests.client import Client, Template, ffi
from tests.conftest import PIN, Fob
from tests.functional.test_policy import AES, GENERIC, HIDDEN, P256, VALUE, made, unwrapped, wrapped

KEY_WRAP = CKM.AES_KEY_WRAP
TRUE, FALSE = b"\1", b"\0"
SECRET_KEY = CKO.SECRET_KEY.to_bytes(8, "little")
SIZE = ffi.sizeof("CK_ATTRIBUTE")
ON_TOKEN = (CKA.TOKEN, True)
MINE: list[tuple[int, Any]] = [
    (CKA.SENSITIVE, True),
    (CKA.LABEL, b"mine"),
    (CKA.WRAP_TEMPLATE, [(CKA.SENSITIVE, True)]),
]
# As it is given back: in order of the attributes' numbers.
RETURNED = [(CKA.LABEL, b"mine"), (CKA.SENSITIVE, TRUE), (CKA.WRAP_TEMPLATE, [(CKA.SENSITIVE, TRUE)])]


def key_with(fob: Fob, attribute: int, template: list[tuple[int, Any]], *more: tuple[int, Any]) -> int:
    asked: Template = [*AES, (CKA.VALUE, bytes(32)), (attribute, template), *more]
    return fob.client.create(fob.session, asked)


OF_CLASSES = [
    (CKO.SECRET_KEY, CKA.WRAP_TEMPLATE),
    (CKO.SECRET_KEY, CKA.UNWRAP_TEMPLATE),
    (CKO.SECRET_KEY, CKA.DERIVE_TEMPLATE),
    (CKO.PUBLIC_KEY, CKA.WRAP_TEMPLATE),
    (CKO.PUBLIC_KEY, CKA.ENCAPSULATE_TEMPLATE),
    (CKO.PRIVATE_KEY, CKA.UNWRAP_TEMPLATE),
    (CKO.PRIVATE_KEY, CKA.DECAPSULATE_TEMPLATE),
    (CKO.PRIVATE_KEY, CKA.DERIVE_TEMPLATE),
]


@pytest.mark.parametrize(("object_class", "attribute"), OF_CLASSES)
def test_every_template_is_kept_across_logins_and_copies(fob: Fob, object_class: int, attribute: int) -> None:
    client, session = fob.client, fob.session
    given: Template = [(attribute, MINE), ON_TOKEN]
    if object_class == CKO.SECRET_KEY:
        key = client.generate(session, client.mechanism(CKM.AES_KEY_GEN), [*given, (CKA.VALUE_LEN, 16)])
    else:
        public: Template = [(CKA.EC_PARAMS, P256), *(given if object_class == CKO.PUBLIC_KEY else [])]
        private: Template = given if object_class == CKO.PRIVATE_KEY else []
        pair = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, public, private)
        key = pair[object_class == CKO.PRIVATE_KEY]
    client.ok("C_Logout", session)
    client.login(session, PIN)
    assert client.get_template(session, key, attribute) == RETURNED
    rv, copy = made(fob, "C_CopyObject", key, template=[(CKA.TOKEN, False)])
    assert rv == CKR.OK
    assert client.get_template(session, copy, attribute) == RETURNED
    assert set(client.find(session, [(attribute, list(reversed(MINE)))])) == {key, copy}
    assert client.find(session, [(attribute, MINE[:2])]) == []


def test_it_outlives_the_process_state(fob: Fob) -> None:
    """C_Finalize forgets what is in memory: the rest comes from the token's file."""
    key_with(fob, CKA.UNWRAP_TEMPLATE, MINE, ON_TOKEN, (CKA.LABEL, "outlives"))
    client: Client = fob.client
    client.ok("C_Finalize", ffi.NULL)
    client.initialize()
    session = client.open(fob.slot)
    client.login(session, PIN)
    (key,) = client.find(session, [(CKA.LABEL, "outlives")])
    assert client.get_template(session, key, CKA.UNWRAP_TEMPLATE) == RETURNED


def test_a_key_that_was_given_none_has_none(fob: Fob) -> None:
    key = fob.client.create(fob.session, [*AES, (CKA.VALUE, bytes(32))])
    assert fob.client.get(fob.session, key, CKA.WRAP_TEMPLATE, CKA.ENCAPSULATE_TEMPLATE) == [None, None]


def test_each_attribute_of_the_array_has_a_room_of_its_own(fob: Fob) -> None:
    """Section 5.7.5: a length that is asked for, a room that is too small, and one that suffices, in one array."""
    key = key_with(fob, CKA.WRAP_TEMPLATE, MINE)
    room = ffi.new("char[]", 8)
    inner = ffi.new("CK_ATTRIBUTE[3]", [(99, ffi.NULL, 7), (99, room, 0), (99, room, 8)])
    outer = ffi.new("CK_ATTRIBUTE *", (CKA.WRAP_TEMPLATE, inner, 3 * SIZE))
    assert fob.client.call("C_GetAttributeValue", fob.session, key, outer, 1) == CKR.BUFFER_TOO_SMALL
    missing = 0xFFFFFFFFFFFFFFFF
    assert [(each.type, each.ulValueLen) for each in inner] == [
        (CKA.LABEL, 4),
        (CKA.SENSITIVE, missing),
        (CKA.WRAP_TEMPLATE, missing),  # one attribute needs more than 8 bytes
    ]
    assert outer.ulValueLen == 3 * SIZE
    outer.ulValueLen = 3 * SIZE - 1
    assert fob.client.call("C_GetAttributeValue", fob.session, key, outer, 1) == CKR.BUFFER_TOO_SMALL
    assert outer.ulValueLen == missing


def test_a_missing_attribute_beside_a_template_is_told(fob: Fob) -> None:
    key = key_with(fob, CKA.WRAP_TEMPLATE, MINE)
    both = ffi.new("CK_ATTRIBUTE[2]", [(CKA.WRAP_TEMPLATE, ffi.NULL, 0), (CKA.MODULUS, ffi.NULL, 0)])
    assert fob.client.call("C_GetAttributeValue", fob.session, key, both, 2) == CKR.ATTRIBUTE_TYPE_INVALID
    assert both[0].ulValueLen == 3 * SIZE


# What is followed and kept


def raw(fob: Fob, inner: Any, length: int) -> int:
    """C_CreateObject with this as CKA_WRAP_TEMPLATE."""
    array, count, kept = fob.client.template([*AES, (CKA.VALUE, bytes(32)), (CKA.WRAP_TEMPLATE, b"")])
    array[count - 1].pValue, array[count - 1].ulValueLen = inner, length
    rv = fob.client.call("C_CreateObject", fob.session, array, count, ffi.new("CK_ULONG *"))
    del kept
    return rv


def test_arrays_that_are_none_too_large_or_too_deep_are_refused(fob: Fob) -> None:
    held = ffi.new("char[]", bytes(1))
    one = ffi.new("CK_ATTRIBUTE *", (CKA.SENSITIVE, held, 1))
    assert raw(fob, one, SIZE) == CKR.OK
    for length in (1, SIZE - 1, SIZE + 1):
        assert raw(fob, one, length) == CKR.ATTRIBUTE_VALUE_INVALID
    many = ffi.new("CK_ATTRIBUTE[]", 257)
    assert raw(fob, many, 257 * SIZE) == CKR.ATTRIBUTE_VALUE_INVALID
    assert raw(fob, ffi.new("CK_ATTRIBUTE *", (CKA.LABEL, held, 1 << 40)), SIZE) == CKR.ATTRIBUTE_VALUE_INVALID
    assert raw(fob, ffi.new("CK_ATTRIBUTE *", (CKA.LABEL, ffi.NULL, 1)), SIZE) == CKR.ATTRIBUTE_VALUE_INVALID
    endless = ffi.new("CK_ATTRIBUTE *")
    endless.type, endless.pValue, endless.ulValueLen = CKA.WRAP_TEMPLATE, endless, SIZE
    assert raw(fob, endless, SIZE) == CKR.ATTRIBUTE_VALUE_INVALID
    wide = ffi.new("CK_ATTRIBUTE[20]")
    wider = ffi.new("CK_ATTRIBUTE[20]")
    for i in range(20):
        wide[i].type, wide[i].pValue, wide[i].ulValueLen = CKA.WRAP_TEMPLATE, wider, 20 * SIZE
    assert raw(fob, wide, 20 * SIZE) == CKR.ATTRIBUTE_VALUE_INVALID


@pytest.mark.parametrize(
    ("template", "rv"),
    [
        ([(CKA.SENSITIVE, b"12")], CKR.ATTRIBUTE_VALUE_INVALID),
        ([(CKA.SENSITIVE, True), (CKA.SENSITIVE, False)], CKR.TEMPLATE_INCONSISTENT),
        ([(CKA.SENSITIVE, True), (CKA.SENSITIVE, True)], CKR.OK),
        ([(CKA.VALUE, VALUE)], CKR.ATTRIBUTE_VALUE_INVALID),  # a search would tell the value of a key
    ],
)
def test_what_a_template_may_say(fob: Fob, template: list[tuple[int, Any]], rv: int) -> None:
    asked: Template = [*AES, (CKA.VALUE, bytes(32)), (CKA.UNWRAP_TEMPLATE, template)]
    assert made(fob, "C_CreateObject", template=asked)[0] == rv


@pytest.mark.parametrize("copying", [True, False])
def test_a_template_is_added_and_never_taken_away(fob: Fob, *, copying: bool) -> None:
    def change(key: int, template: Any) -> int:
        asked: Template = [(CKA.WRAP_TEMPLATE, template)]
        return made(fob, "C_CopyObject", key, template=asked)[0] if copying else fob.client.set(fob.session, key, asked)

    key = key_with(fob, CKA.WRAP_TEMPLATE, MINE)
    for other in (b"", MINE[:2], [*MINE, (CKA.ID, b"x")]):
        assert change(key, other) == CKR.ATTRIBUTE_READ_ONLY
    assert change(key, MINE) == CKR.OK
    assert change(fob.client.create(fob.session, [*AES, (CKA.VALUE, bytes(32))]), MINE) == CKR.OK


# What they demand


def test_a_key_that_the_wrap_template_does_not_match_is_not_wrapped(fob: Fob) -> None:
    client = fob.client
    mechanism = client.mechanism(KEY_WRAP)
    wrapping = key_with(fob, CKA.WRAP_TEMPLATE, [(CKA.LABEL, b"mine"), (CKA.SENSITIVE, True)])
    length = ffi.new("CK_ULONG *")
    for label, sensitive, rv in (
        ("mine", True, CKR.OK),
        ("mine", False, CKR.KEY_HANDLE_INVALID),
        ("no", True, CKR.KEY_HANDLE_INVALID),
    ):
        asked: Template = [*AES, (CKA.VALUE, VALUE), (CKA.LABEL, label), (CKA.SENSITIVE, sensitive)]
        key = client.create(fob.session, asked)
        assert client.call("C_WrapKey", fob.session, mechanism, wrapping, key, ffi.NULL, length) == rv


def test_the_wrap_template_matches_what_a_search_finds(fob: Fob) -> None:
    """Section 5.18.3: as in C_FindObjects, so also by what is computed, or empty because nobody set it."""
    client, session, length = fob.client, fob.session, ffi.new("CK_ULONG *")
    exportable = (CKA.EXTRACTABLE, True)
    secret = client.create(session, [*AES, (CKA.VALUE, VALUE), exportable])
    other = client.create(session, [*AES, (CKA.VALUE, VALUE[::-1]), exportable])
    public, private = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], [exportable])
    check_value, other_value = (client.get(session, key, CKA.CHECK_VALUE)[0] for key in (secret, other))
    info = client.get(session, public, CKA.PUBLIC_KEY_INFO)[0]
    assert check_value != other_value
    assert info
    for target, attribute, value, rv in (
        (secret, CKA.CHECK_VALUE, check_value or b"", CKR.OK),
        (secret, CKA.CHECK_VALUE, other_value or b"", CKR.KEY_HANDLE_INVALID),
        (private, CKA.PUBLIC_KEY_INFO, info or b"", CKR.OK),
        (private, CKA.PUBLIC_KEY_INFO, b"", CKR.KEY_HANDLE_INVALID),
        (private, CKA.SUBJECT, b"", CKR.OK),
        (secret, CKA.SUBJECT, b"", CKR.KEY_HANDLE_INVALID),
        (secret, CKA.START_DATE, b"", CKR.OK),
    ):
        wrapping = key_with(fob, CKA.WRAP_TEMPLATE, [(attribute, value)])
        asked: Template = [(attribute, value), (CKA.EXTRACTABLE, True)]
        assert (target in client.find(session, asked)) is (rv == CKR.OK)
        mechanism = client.mechanism(CKM.AES_KEY_WRAP_KWP)
        assert client.call("C_WrapKey", session, mechanism, wrapping, target, ffi.NULL, length) == rv


def test_an_unwrapped_key_is_what_the_unwrap_template_demands(fob: Fob) -> None:
    client = fob.client
    mechanism = client.mechanism(KEY_WRAP)
    demanded: list[tuple[int, Any]] = [(CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False), (CKA.UNWRAP_TEMPLATE, MINE)]
    wrapping = key_with(fob, CKA.UNWRAP_TEMPLATE, demanded)
    blob = wrapped(fob, mechanism, wrapping, client.create(fob.session, [*AES, (CKA.VALUE, VALUE)]))
    for freer in ((CKA.SENSITIVE, False), (CKA.EXTRACTABLE, True), (CKA.UNWRAP_TEMPLATE, MINE[:1])):
        assert unwrapped(fob, mechanism, wrapping, blob, [*AES, freer])[0] == CKR.TEMPLATE_INCONSISTENT
    for same in ([], demanded):
        rv, key = unwrapped(fob, mechanism, wrapping, blob, [*AES, *same])
        assert rv == CKR.OK
        assert client.get(fob.session, key, CKA.SENSITIVE, CKA.EXTRACTABLE) == [TRUE, FALSE]
        assert client.get_template(fob.session, key, CKA.UNWRAP_TEMPLATE) == RETURNED


def test_the_class_and_type_may_come_from_the_unwrap_template(fob: Fob) -> None:
    client = fob.client
    mechanism = client.mechanism(KEY_WRAP)
    wrapping = key_with(fob, CKA.UNWRAP_TEMPLATE, list(AES))
    blob = wrapped(fob, mechanism, wrapping, client.create(fob.session, [*AES, (CKA.VALUE, VALUE)]))
    rv, key = unwrapped(fob, mechanism, wrapping, blob, [])
    assert rv == CKR.OK
    assert client.get(fob.session, key, CKA.CLASS) == [SECRET_KEY]
    assert unwrapped(fob, mechanism, wrapping, blob, GENERIC)[0] == CKR.TEMPLATE_INCONSISTENT


def test_a_derived_key_is_what_the_derive_templates_of_both_bases_demand(fob: Fob) -> None:
    client = fob.client

    def base(template: list[tuple[int, Any]]) -> int:
        asked: Template = [*GENERIC, (CKA.VALUE, VALUE), (CKA.DERIVE, True), (CKA.DERIVE_TEMPLATE, template)]
        return client.create(fob.session, asked)

    one, other = base([(CKA.SENSITIVE, True)]), base([(CKA.KEY_TYPE, CKK.AES), (CKA.EXTRACTABLE, False)])
    both = client.mechanism(CKM.CONCATENATE_BASE_AND_KEY, other.to_bytes(8, "little"))
    asked: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.VALUE_LEN, 32)]
    rv, key = made(fob, "C_DeriveKey", both, one, template=asked)
    assert rv == CKR.OK
    wanted = [TRUE, FALSE, CKK.AES.to_bytes(8, "little")]
    assert client.get(fob.session, key, CKA.SENSITIVE, CKA.EXTRACTABLE, CKA.KEY_TYPE) == wanted
    both_together = [(CKA.KEY_TYPE, wanted[2]), (CKA.SENSITIVE, TRUE), (CKA.EXTRACTABLE, FALSE)]
    assert client.get_template(fob.session, key, CKA.DERIVE_TEMPLATE) == both_together
    for freer in ((CKA.SENSITIVE, False), (CKA.EXTRACTABLE, True), (CKA.KEY_TYPE, CKK.GENERIC_SECRET)):
        rv, _ = made(fob, "C_DeriveKey", both, one, template=[*asked, freer])
        assert rv == CKR.TEMPLATE_INCONSISTENT


def test_data_is_not_derived_where_a_key_must_be_hidden(fob: Fob) -> None:
    client = fob.client
    asked: Template = [*GENERIC, *HIDDEN, (CKA.VALUE, VALUE), (CKA.DERIVE, True)]
    base = client.create(fob.session, [*asked, (CKA.DERIVE_TEMPLATE, [(CKA.SENSITIVE, True)])])
    hkdf = ffi.new("CK_HKDF_PARAMS *", {"bExpand": 1, "prfHashMechanism": CKM.SHA256})
    data: Template = [(CKA.CLASS, CKO.DATA), (CKA.VALUE_LEN, 32)]
    rv, _ = made(fob, "C_DeriveKey", client.mechanism(CKM.HKDF_DATA, hkdf), base, template=data)
    assert rv == CKR.TEMPLATE_INCONSISTENT
    free = client.create(fob.session, asked)
    assert made(fob, "C_DeriveKey", client.mechanism(CKM.HKDF_DATA, hkdf), free, template=data)[0] == CKR.OK
