"""Objects and templates through the C ABI: sections 4 and 5.7 of the standard, and NSS's rules for them."""

from __future__ import annotations

import pytest

from keyfob.spec.constants import CK, CKA, CKC, CKK, CKM, CKO, CKR
from tests.client import P256, READ_ONLY, RSA_2048, RvError, Template, but, ffi
from tests.conftest import PIN, Fob

ED25519 = bytes.fromhex("06032b6570")
X25519 = bytes.fromhex("06032b656e")
AES: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, bytes(range(16)))]
DATA: Template = [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.LABEL, "note"), (CKA.VALUE, b"text")]


def pair(fob: Fob, **extra: bool) -> tuple[int, int]:
    private: Template = [(CKA.TOKEN, True), *((getattr(CKA, name), value) for name, value in extra.items())]
    return fob.client.generate_pair(
        fob.session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256), (CKA.TOKEN, True)], private
    )


@pytest.mark.rule("P25")
def test_token_objects_outlive_the_process_state(fob: Fob) -> None:
    """Keeps token objects over C_Finalize and C_Initialize, under the same handle in the same process."""
    handle = fob.client.create(fob.session, DATA)
    fob.client.ok("C_Finalize", ffi.NULL)
    fob.client.initialize()
    session = fob.client.open(fob.slot, READ_ONLY)
    assert fob.client.find(session, DATA) == [handle]  # P25: the same handle in the same process
    assert fob.client.get(session, handle, CKA.VALUE) == [b"text"]


@pytest.mark.rule("N19")
def test_session_objects_are_seen_in_all_sessions_and_die_with_theirs(fob: Fob) -> None:
    """Shows session objects to all sessions; they go with the session that made them."""
    other = fob.client.open(fob.slot, READ_ONLY)
    handle = fob.client.create(fob.session, AES)
    assert fob.client.get(other, handle, CKA.KEY_TYPE) == [CKK.AES.to_bytes(8, "little")]
    assert fob.client.find(other, [(CKA.CLASS, CKO.SECRET_KEY)]) == [handle]
    fob.client.ok("C_CloseSession", fob.session)
    assert fob.client.call("C_DestroyObject", other, handle) == CKR.OBJECT_HANDLE_INVALID


@pytest.mark.rule("O4", "N8")
def test_session_key_in_a_read_only_session_without_login(fob: Fob) -> None:
    """Makes session keys in a read-only session, without a login."""
    fob.client.ok("C_Logout", fob.session)
    session = fob.client.open(fob.slot, READ_ONLY)
    handle = fob.client.create(session, [*AES, (CKA.ENCRYPT, True)])
    assert fob.client.get(session, handle, CKA.VALUE_LEN, CKA.UNWRAP) == [(16).to_bytes(8, "little"), b"\x01"]


@pytest.mark.rule("N5")
def test_token_object_in_a_read_only_session_is_refused(fob: Fob) -> None:
    """Answers CKR_SESSION_READ_ONLY to whoever writes token objects in a read-only session."""
    session = fob.client.open(fob.slot, READ_ONLY)
    with pytest.raises(RvError) as error:
        fob.client.create(session, DATA)
    assert error.value.rv == CKR.SESSION_READ_ONLY


@pytest.mark.rule("SE12", "SE13", "P25")
def test_private_objects_vanish_at_logout_and_come_back(fob: Fob) -> None:
    """Hides private objects at logout; after the next login they are there under the same handles."""
    _, private = pair(fob)
    fob.client.ok("C_Logout", fob.session)
    assert fob.client.find(fob.session, [(CKA.CLASS, CKO.PRIVATE_KEY)]) == []
    assert fob.client.get(fob.session, private, CKA.CLASS) == [None]
    fob.client.login(fob.session, b"user-pin-1")
    assert fob.client.find(fob.session, [(CKA.CLASS, CKO.PRIVATE_KEY)]) == [private]


def test_unknown_attribute_is_refused(fob: Fob) -> None:
    with pytest.raises(RvError) as error:
        fob.client.create(fob.session, [*DATA, (0x7FFF, b"x")])
    assert error.value.rv == CKR.ATTRIBUTE_TYPE_INVALID


@pytest.mark.parametrize(
    ("template", "rv"),
    [
        ([(CKA.TOKEN, True)], CKR.TEMPLATE_INCOMPLETE),
        ([(CKA.CLASS, CKO.SECRET_KEY)], CKR.TEMPLATE_INCOMPLETE),
        ([(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES)], CKR.TEMPLATE_INCOMPLETE),
        ([*AES, (CKA.LOCAL, True)], CKR.ATTRIBUTE_READ_ONLY),
        ([*AES, (CKA.UNIQUE_ID, b"mine")], CKR.ATTRIBUTE_READ_ONLY),
        ([*AES, (CKA.OBJECT_VALIDATION_FLAGS, 3)], CKR.ATTRIBUTE_TYPE_INVALID),
        (but(AES, (CKA.VALUE, b"short")), CKR.ATTRIBUTE_VALUE_INVALID),
        ([*AES, (CKA.SIGN, b"\x01\x01")], CKR.ATTRIBUTE_VALUE_INVALID),
        ([(CKA.CLASS, b"\x04")], CKR.ATTRIBUTE_VALUE_INVALID),
        ([(CKA.CLASS, CKO.PROFILE), (CKA.TOKEN, True)], CKR.ATTRIBUTE_VALUE_INVALID),
        ([(CKA.CLASS, 0x1234)], CKR.ATTRIBUTE_VALUE_INVALID),
    ],
)
def test_faulty_template_gets_its_code(fob: Fob, template: Template, rv: int) -> None:
    with pytest.raises(RvError) as error:
        fob.client.create(fob.session, template)
    assert error.value.rv == rv
    assert fob.client.find(fob.session, [(CKA.CLASS, CKO.SECRET_KEY)]) == []


@pytest.mark.rule("O17", "P24")
def test_attributes_are_read_past_the_missing_and_the_sensitive(fob: Fob) -> None:
    """Answers every attribute of a request for itself; the missing and the sensitive have the length -1."""
    _, private = pair(fob)
    array = ffi.new("CK_ATTRIBUTE[4]")
    for i, attribute in enumerate((CKA.KEY_TYPE, CKA.MODULUS, CKA.VALUE, CKA.EC_PARAMS)):
        array[i].type = attribute
    assert fob.client.call("C_GetAttributeValue", fob.session, private, array, 4) in (
        CKR.ATTRIBUTE_SENSITIVE,
        CKR.ATTRIBUTE_TYPE_INVALID,
    )
    unavailable = 0xFFFFFFFFFFFFFFFF
    assert [entry.ulValueLen for entry in array] == [8, unavailable, unavailable, len(P256)]


@pytest.mark.rule("O17", "P24")
def test_short_buffer_gets_its_code_and_others_their_value(fob: Fob) -> None:
    """Fills the other buffers of a call in which one is too short."""
    handle = fob.client.create(fob.session, DATA)
    array = ffi.new("CK_ATTRIBUTE[2]")
    short, label = ffi.new("char[2]"), ffi.new("char[10]")
    array[0].type, array[0].pValue, array[0].ulValueLen = CKA.VALUE, short, 2
    array[1].type, array[1].pValue, array[1].ulValueLen = CKA.LABEL, label, 10
    assert fob.client.call("C_GetAttributeValue", fob.session, handle, array, 2) == CKR.BUFFER_TOO_SMALL
    assert array[0].ulValueLen == 0xFFFFFFFFFFFFFFFF
    assert bytes(ffi.buffer(label, array[1].ulValueLen)) == b"note"


def test_secret_value_is_not_found_by_searching(fob: Fob) -> None:
    """A search must not become an oracle for what CKA_SENSITIVE hides."""
    fob.client.create(fob.session, [*AES, (CKA.SENSITIVE, True)])
    assert fob.client.find(fob.session, [(CKA.VALUE, bytes(range(16)))]) == []
    open_one = fob.client.create(fob.session, AES)
    assert fob.client.find(fob.session, [(CKA.VALUE, bytes(range(16)))]) == [open_one]


@pytest.mark.rule("P23")
def test_search_for_what_nobody_knows_gives_nothing(fob: Fob) -> None:
    """Finds nothing, without an error, for classes and attributes that it does not know."""
    for template in (
        [(CKA.CLASS, 0xCE534354)],
        [(0x7FFF, b"x")],
        [(CKA.CLASS, b"\x01")],
        [(CKA.CLASS, CKO.VALIDATION)],
    ):
        assert fob.client.find(fob.session, template) == []


@pytest.mark.rule("P23")
@pytest.mark.parametrize("at_once", [1, 10, 16])
def test_search_gives_all_hits_in_full_batches(fob: Fob, at_once: int) -> None:
    """Gives all hits, in full batches until the last."""
    made = {fob.client.create(fob.session, [*DATA, (CKA.OBJECT_ID, bytes([i]))]) for i in range(33)}
    found = fob.client.find(fob.session, [(CKA.LABEL, "note")], at_once)
    assert len(found) == 33
    assert set(found) == made


@pytest.mark.rule("P12")
def test_usages_left_out_are_true(fob: Fob) -> None:
    """Takes usages that the template leaves out for true."""
    handle = fob.client.create(fob.session, [*AES, (CKA.WRAP, True)])
    assert fob.client.get(fob.session, handle, CKA.UNWRAP, CKA.DECRYPT) == [b"\x01", b"\x01"]


@pytest.mark.rule("P21")
def test_usages_of_other_keys_are_accepted(fob: Fob) -> None:
    """Accepts usages that the key's type cannot have, false and true."""
    public: Template = [
        *RSA_2048,
        (CKA.TOKEN, True),
        (CKA.DERIVE, False),
        (CKA.WRAP, True),
        (CKA.VERIFY, True),
        (CKA.VERIFY_RECOVER, False),
        (CKA.ENCRYPT, True),
    ]
    private: Template = [
        (CKA.TOKEN, True),
        (CKA.PRIVATE, True),
        (CKA.SENSITIVE, True),
        (CKA.DERIVE, False),
        (CKA.UNWRAP, True),
        (CKA.SIGN, True),
        (CKA.DECRYPT, True),
        (CKA.DECAPSULATE, False),
    ]
    fob.client.generate_pair(fob.session, CKM.RSA_PKCS_KEY_PAIR_GEN, public, private)


@pytest.mark.rule("N15", "O18", "O10")
def test_key_pair_shares_the_id_of_its_public_value(fob: Fob) -> None:
    """Gives a new pair the SHA-1 of its public value as ID, which can be changed on both."""
    public, private = pair(fob)
    (public_id,) = fob.client.get(fob.session, public, CKA.ID)
    assert public_id is not None
    assert len(public_id) == 20
    assert fob.client.get(fob.session, private, CKA.ID) == [public_id]
    for handle in (public, private):
        assert (
            fob.client.set(fob.session, handle, [(CKA.ID, b"other"), (CKA.LABEL, "l"), (CKA.SUBJECT, b"0")]) == CKR.OK
        )
    assert fob.client.find(fob.session, [(CKA.ID, b"other"), (CKA.CLASS, CKO.PRIVATE_KEY)]) == [private]


@pytest.mark.rule("P15")
def test_generated_key_stays_and_says_so(fob: Fob) -> None:
    """Makes a generated key sensitive and unextractable where its template does not say, and shows it."""
    _, private = pair(fob)
    true, false = b"\x01", b"\x00"
    wanted = {
        CKA.SENSITIVE: true,
        CKA.ALWAYS_SENSITIVE: true,
        CKA.EXTRACTABLE: false,
        CKA.NEVER_EXTRACTABLE: true,
        CKA.LOCAL: true,
        CKA.PRIVATE: true,
        CKA.ALWAYS_AUTHENTICATE: false,
    }
    assert fob.client.get(fob.session, private, *wanted) == list(wanted.values())


@pytest.mark.parametrize(
    "change",
    [
        (CKA.SENSITIVE, False),
        (CKA.EXTRACTABLE, True),
        (CKA.CLASS, CKO.DATA),
        (CKA.KEY_TYPE, CKK.RSA),
        (CKA.LOCAL, False),
        (CKA.TOKEN, False),
        (CKA.PRIVATE, False),
        (CKA.VALUE, b"x"),
    ],
)
def test_what_must_not_change_is_refused(fob: Fob, change: tuple[int, bytes | int | bool]) -> None:
    _, private = pair(fob)
    assert fob.client.set(fob.session, private, [change]) == CKR.ATTRIBUTE_READ_ONLY


@pytest.mark.rule("P2", "O14")
def test_copy_with_an_empty_template(fob: Fob) -> None:
    """Copies a key with {TOKEN = false}, and the copy without any template."""
    _, private = pair(fob)
    array, count, _kept = fob.client.template([(CKA.TOKEN, False)])
    handle = ffi.new("CK_ULONG *")
    fob.client.ok("C_CopyObject", fob.session, private, array, count, handle)
    fob.client.ok("C_CopyObject", fob.session, handle[0], ffi.NULL, 0, handle)
    signature = fob.client.sign(fob.session, handle[0], fob.client.mechanism(CKM.ECDSA), bytes(32))
    assert len(signature) == 64
    fob.client.ok("C_DestroyObject", fob.session, handle[0])
    assert fob.client.get(fob.session, private, CKA.TOKEN) == [b"\x01"]


def test_modifiable_copyable_destroyable_false_hold(fob: Fob) -> None:
    fixed = fob.client.create(
        fob.session, [*DATA, (CKA.MODIFIABLE, False), (CKA.COPYABLE, False), (CKA.DESTROYABLE, False)]
    )
    handle = ffi.new("CK_ULONG *")
    assert fob.client.set(fob.session, fixed, [(CKA.LABEL, "x")]) == CKR.ACTION_PROHIBITED
    assert fob.client.call("C_CopyObject", fob.session, fixed, ffi.NULL, 0, handle) == CKR.ACTION_PROHIBITED
    assert fob.client.call("C_DestroyObject", fob.session, fixed) == CKR.ACTION_PROHIBITED


@pytest.mark.rule("P19")
def test_certificate_that_is_none_is_stored_as_it_is(fob: Fob) -> None:
    """Stores any certificate, with or without its key, even one that it cannot read."""
    template: Template = [
        (CKA.CLASS, CKO.CERTIFICATE),
        (CKA.CERTIFICATE_TYPE, CKC.X_509),
        (CKA.TOKEN, True),
        (CKA.VALUE, b"junk"),
        (CKA.SUBJECT, b""),
    ]
    handle = fob.client.create(fob.session, template)
    assert fob.client.get(fob.session, handle, CKA.VALUE, CKA.PRIVATE) == [b"junk", b"\x00"]


@pytest.mark.rule("P16")
def test_trust_is_replaced_on_equal_issuer_and_serial(fob: Fob) -> None:
    """Replaces a trust object by the next one of the same issuer and serial number."""
    trust: Template = [
        (CKA.CLASS, CKO.NSS_TRUST),
        (CKA.TOKEN, True),
        (CKA.ISSUER, b"issuer"),
        (CKA.SERIAL_NUMBER, b"\x02\x01\x05"),
        (CKA.NSS_CERT_SHA1_HASH, bytes(20)),
    ]
    fob.client.create(fob.session, [*trust, (CKA.NSS_TRUST_SERVER_AUTH, 0xCE534351)])
    second = fob.client.create(fob.session, [*trust, (CKA.NSS_TRUST_SERVER_AUTH, 0xCE534352)])
    assert fob.client.find(fob.session, trust[:4]) == [second]


@pytest.mark.rule("P18")
def test_public_objects_need_no_login_but_trust_does(fob: Fob) -> None:
    """Stores public certificates without a login; trust objects need one and say CKR_USER_NOT_LOGGED_IN."""
    fob.client.ok("C_Logout", fob.session)
    assert fob.client.create(fob.session, DATA)
    with pytest.raises(RvError) as error:
        fob.client.create(
            fob.session,
            [(CKA.CLASS, CKO.NSS_TRUST), (CKA.TOKEN, True), (CKA.ISSUER, b"i"), (CKA.SERIAL_NUMBER, b"s")],
        )
    assert error.value.rv == CKR.USER_NOT_LOGGED_IN


@pytest.mark.rule("P18")
def test_what_a_login_has_vouched_for_is_not_replaced_without_one(fob: Fob) -> None:
    """Removes public objects and renames certificates without a login, as certutil does; more needs one."""
    certificate: Template = [(CKA.CLASS, CKO.CERTIFICATE), (CKA.CERTIFICATE_TYPE, CKC.X_509), (CKA.TOKEN, True)]
    named = fob.client.create(fob.session, [*certificate, (CKA.LABEL, "one"), (CKA.VALUE, b"none")])
    note = fob.client.create(fob.session, DATA)
    fob.client.ok("C_Logout", fob.session)
    assert fob.client.set(fob.session, named, [(CKA.LABEL, "other")]) == CKR.OK
    assert fob.client.set(fob.session, named, [(CKA.ID, b"another")]) == CKR.USER_NOT_LOGGED_IN
    assert fob.client.set(fob.session, note, [(CKA.VALUE, b"another")]) == CKR.USER_NOT_LOGGED_IN
    assert fob.client.set(fob.session, note, [(CKA.VALUE, b"text")]) == CKR.OK  # which changes nothing
    assert fob.client.get(fob.session, named, CKA.LABEL, CKA.ID) == [b"other", b""]
    fob.client.ok("C_DestroyObject", fob.session, note)
    mine = fob.client.create(fob.session, DATA)
    assert fob.client.set(fob.session, mine, [(CKA.VALUE, b"another")]) == CKR.OK  # nobody has vouched for it yet
    fob.client.login(fob.session, PIN)
    assert fob.client.get(fob.session, named, CKA.LABEL) == [b"other"]
    assert fob.client.find(fob.session, [(CKA.CLASS, CKO.DATA)]) == [mine]
    assert fob.client.set(fob.session, named, [(CKA.ID, b"another")]) == CKR.OK


@pytest.mark.rule("P7")
def test_profile_object_is_there_before_login(fob: Fob) -> None:
    """Shows the profile of public certificates before any login, so that NSS asks for no PIN to list them."""
    fob.client.ok("C_Logout", fob.session)
    profiles = fob.client.find(fob.session, [(CKA.TOKEN, True), (CKA.CLASS, CKO.PROFILE)])
    read = [fob.client.get(fob.session, profile, CKA.PROFILE_ID, CKA.TOKEN) for profile in profiles]
    assert read.count([(4).to_bytes(8, "little"), b"\x01"]) == 1


def test_certificate_category_is_kept_and_cannot_be_changed(fob: Fob) -> None:
    certificate: Template = [(CKA.CLASS, CKO.CERTIFICATE), (CKA.CERTIFICATE_TYPE, CKC.X_509), (CKA.VALUE, b"none")]
    authority, changed = (CK.CERTIFICATE_CATEGORY_AUTHORITY, CK.CERTIFICATE_CATEGORY_TOKEN_USER)
    plain = fob.client.create(fob.session, certificate)
    marked = fob.client.create(fob.session, [*certificate, (CKA.CERTIFICATE_CATEGORY, authority)])
    assert fob.client.get(fob.session, plain, CKA.CERTIFICATE_CATEGORY) == [(0).to_bytes(8, "little")]
    assert fob.client.get(fob.session, marked, CKA.CERTIFICATE_CATEGORY) == [authority.to_bytes(8, "little")]
    assert fob.client.find(fob.session, [(CKA.CERTIFICATE_CATEGORY, authority)]) == [marked]
    assert fob.client.set(fob.session, marked, [(CKA.CERTIFICATE_CATEGORY, changed)]) == CKR.ATTRIBUTE_READ_ONLY
    with pytest.raises(RvError) as error:
        fob.client.create(fob.session, [*certificate, (CKA.CERTIFICATE_CATEGORY, b"2")])
    assert error.value.rv == CKR.ATTRIBUTE_VALUE_INVALID


@pytest.mark.rule("P33", "O19")
def test_ec_point_is_found_raw_and_as_der(fob: Fob) -> None:
    """Finds EC keys by the raw point and by its DER form."""
    public, private = pair(fob)
    (point,) = fob.client.get(fob.session, public, CKA.EC_POINT)
    assert point is not None
    assert point[:2] == b"\x04\x41"
    assert fob.client.find(fob.session, [(CKA.EC_POINT, point)]) == [public, private]
    assert fob.client.find(fob.session, [(CKA.EC_POINT, point[2:])]) == [public, private]


@pytest.mark.parametrize(
    ("mechanism", "curve"),
    [(CKM.EC_KEY_PAIR_GEN, P256), (CKM.EC_EDWARDS_KEY_PAIR_GEN, ED25519), (CKM.EC_MONTGOMERY_KEY_PAIR_GEN, X25519)],
)
def test_a_private_key_on_a_curve_answers_its_point(fob: Fob, mechanism: int, curve: bytes) -> None:
    """OpenSSL's pkcs11-provider takes an EC key for unusable whose private half has an empty point."""
    public, private = fob.client.generate_pair(fob.session, mechanism, [(CKA.EC_PARAMS, curve)], [])
    (point,) = fob.client.get(fob.session, public, CKA.EC_POINT)
    assert point
    assert fob.client.get(fob.session, private, CKA.EC_POINT) == [point]


@pytest.mark.rule("P23")
def test_a_long_search_tells_what_was_there_all_the_time_once(fob: Fob) -> None:
    """Makes long answers in parts: what is made or destroyed meanwhile spoils none of the rest."""
    made = [fob.client.create(fob.session, DATA) for _ in range(330)]
    keys = [fob.client.create(fob.session, AES) for _ in range(3)]  # session objects come last
    fob.client.ok("C_FindObjectsInit", fob.session, ffi.NULL, 0)
    handles, found = ffi.new("CK_ULONG[40]"), ffi.new("CK_ULONG *")
    told: list[int] = []
    while not told or found[0]:
        fob.client.ok("C_FindObjects", fob.session, handles, 40, found)
        told += list(handles[0 : found[0]])
        if len(told) == 40:
            other = fob.client.open(fob.slot)
            for gone in (made[3], made[325]):
                fob.client.ok("C_DestroyObject", other, gone)
            late = fob.client.create(other, DATA)
    fob.client.ok("C_FindObjectsFinal", fob.session)
    assert len(told) == len(set(told))
    assert set(made) - {made[325]} <= set(told)  # the fourth was told before it went
    assert made[325] not in told
    assert set(told) - set(made) - {late} >= set(keys)
    assert set(fob.client.find(fob.session, DATA)) == {*made, late} - {made[3], made[325]}
