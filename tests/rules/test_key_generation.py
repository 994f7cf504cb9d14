"""Key pairs that NSS generates on the token: its templates, what it does right afterwards, and usages of every kind."""

from __future__ import annotations

from itertools import product

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from tests.client import P256, RSA_2048, Template, ffi
from tests.conftest import PIN
from tests.rules import nss_templates as templates
from tests.rules.nss_calls import Nss, Slot, key_id, point_of
from tests.rules.software_keys import certificate_of, der_signature, ec_public, rsa_public

MESSAGE = b"signed after its session was closed"
ED25519, X25519 = bytes.fromhex("06032b6570"), bytes.fromhex("06032b656e")
PUBLIC_USAGES = (CKA.ENCRYPT, CKA.VERIFY, CKA.VERIFY_RECOVER, CKA.WRAP, CKA.DERIVE, CKA.ENCAPSULATE)
PRIVATE_USAGES = (CKA.DECRYPT, CKA.SIGN, CKA.SIGN_RECOVER, CKA.UNWRAP, CKA.DERIVE, CKA.DECAPSULATE)
SECRET_USAGES = tuple(dict.fromkeys((*PUBLIC_USAGES[:5], *PRIVATE_USAGES[:5])))
PAIRS: dict[str, tuple[int, Template]] = {
    "RSA": (CKM.RSA_PKCS_KEY_PAIR_GEN, [(CKA.MODULUS_BITS, 1024), (CKA.PUBLIC_EXPONENT, templates.F4)]),
    "EC": (CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)]),
    "Ed25519": (CKM.EC_EDWARDS_KEY_PAIR_GEN, [(CKA.EC_PARAMS, ED25519)]),
    "X25519": (CKM.EC_MONTGOMERY_KEY_PAIR_GEN, [(CKA.EC_PARAMS, X25519)]),
}
SECRETS: dict[str, tuple[int, Template]] = {
    "AES": (CKM.AES_KEY_GEN, [(CKA.VALUE_LEN, 16)]),
    "3DES": (CKM.DES3_KEY_GEN, []),
    "generic": (CKM.GENERIC_SECRET_KEY_GEN, [(CKA.VALUE_LEN, 16)]),
}


def generate(slot: Slot, mechanism: int, pair: tuple[Template, Template]) -> tuple[int, int]:
    with slot.rw() as session:
        return slot.client.generate_pair(session, mechanism, *pair)


@pytest.mark.rule("O13", "O10", "O18", "N17", "N18", "P20")
@pytest.mark.parametrize("kind", ["RSA", "EC"])
def test_certutil_generates_a_key(nss: Nss, kind: str) -> None:
    """Makes a pair without CKA_LABEL and CKA_ID; NSS sets the SHA-1 of the public value as ID on both at once."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    rsa = kind == "RSA"
    pair = templates.rsa_pair() if rsa else templates.ec_pair()
    mechanism = CKM.RSA_PKCS_KEY_PAIR_GEN if rsa else CKM.EC_KEY_PAIR_GEN
    with slot.rw() as session:
        public, private = client.generate_pair(session, mechanism, *pair)
        assert slot.ulong(public, CKA.CLASS) == CKO.PUBLIC_KEY
        (value,) = slot.read(public, CKA.MODULUS if rsa else CKA.EC_POINT)
        identity = key_id((value or b"") if rsa else point_of(value or b""))
        assert len(identity) == 20
        for handle in (private, public):
            assert client.set(session, handle, [(CKA.ID, identity)]) == CKR.OK
    assert slot.read(private, CKA.LABEL, CKA.ID) == slot.read(public, CKA.LABEL, CKA.ID) == [b"", identity]
    assert slot.find(templates.of_id(identity, CKO.PRIVATE_KEY), 1) == [private]
    for other in (b"an ID of its own", identity):
        assert slot.set(private, [(CKA.ID, other)]) == CKR.OK
        assert slot.read(private, CKA.ID) == [other], "whoever sets it, and however often"
    assert slot.set(private, [(CKA.LABEL, "later")]) == CKR.OK
    slot.logout()
    assert slot.find(templates.of_id(identity, CKO.PUBLIC_KEY), 1) == [public], "visible without login"
    slot.login(PIN)
    assert slot.read(private, CKA.LABEL, CKA.ID) == [b"later", identity]


@pytest.mark.rule("SE3", "P25", "O13")
@pytest.mark.parametrize("curve", list(templates.CURVES))
def test_a_pair_is_used_after_its_session_was_closed(nss: Nss, curve: bytes) -> None:
    """A new pair's handles are good in every session, long after the session that generated them was closed."""
    slot = nss.slot
    slot.login(PIN)
    public, private = generate(slot, CKM.EC_KEY_PAIR_GEN, templates.ec_pair(curve))
    key = ec_public(slot, public)
    assert slot.read(private, CKA.EC_PARAMS) == [curve]
    size = 2 * ((key.curve.key_size + 7) // 8)
    signature = slot.sign(private, nss.client.mechanism(CKM.ECDSA_SHA256), MESSAGE, size)
    key.verify(der_signature(signature), MESSAGE, ec.ECDSA(hashes.SHA256()))


@pytest.mark.rule("P21", "S17")
def test_usages_that_nss_guesses(nss: Nss) -> None:
    """Takes the usages that NSS guesses without mechanism information: VERIFY and UNWRAP false on an RSA pair."""
    slot = nss.slot
    slot.login(PIN)
    pair = templates.rsa_pair(verify=False, unwrap=False)
    public, private = generate(slot, CKM.RSA_PKCS_KEY_PAIR_GEN, pair)
    usages = [slot.boolean(public, usage) for usage in (CKA.VERIFY, CKA.VERIFY_RECOVER, CKA.WRAP, CKA.ENCRYPT)]
    assert usages == [False, True, True, True]
    assert [slot.boolean(private, usage) for usage in (CKA.UNWRAP, CKA.SIGN, CKA.DECRYPT)] == [False, True, True]
    signature = slot.sign(private, nss.client.mechanism(CKM.SHA256_RSA_PKCS), MESSAGE, 256)
    rsa_public(slot, public).verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.rule("S17", "P21")
def test_the_flags_that_nss_asks_for_before_it_generates(nss: Nss) -> None:
    """Tells by C_GetMechanismInfo what its RSA and EC keys can do, from which NSS makes the usages of a pair."""
    flags = nss.slot.mechanism_flags(CKM.RSA_PKCS)
    for flag in (CKF.SIGN, CKF.VERIFY, CKF.ENCRYPT, CKF.DECRYPT, CKF.WRAP, CKF.UNWRAP):
        assert flags & flag
    assert not flags & CKF.DERIVE
    assert nss.slot.mechanism_flags(CKM.ECDH1_DERIVE) & CKF.DERIVE
    assert nss.slot.mechanism_flags(CKM.ECDSA) & CKF.SIGN
    assert nss.slot.mechanism_flags(CKM.EDDSA) & CKF.SIGN


@pytest.mark.rule("P21")
@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("said", [True, False])
def test_every_usage_on_every_pair(nss: Nss, kind: str, *, said: bool) -> None:
    """Takes every usage on every type of key pair; what is said to be false is false."""
    slot = nss.slot
    slot.login(PIN)
    mechanism, parameters = PAIRS[kind]
    public, private = nss.client.generate_pair(
        slot.session,
        mechanism,
        [*parameters, *((usage, said) for usage in PUBLIC_USAGES)],
        [(usage, said) for usage in PRIVATE_USAGES],
    )
    for handle, usages in ((public, PUBLIC_USAGES), (private, PRIVATE_USAGES)):
        kept = {usage for usage in usages if slot.boolean(handle, usage)}
        assert bool(kept) == said


@pytest.mark.rule("P21", "P12")
@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("said", [True, False])
def test_every_usage_on_every_secret_key(nss: Nss, kind: str, *, said: bool) -> None:
    """Takes every usage on every type of secret key and keeps each as it was said."""
    mechanism, parameters = SECRETS[kind]
    template: Template = [*parameters, *((usage, said) for usage in SECRET_USAGES), (CKA.DECAPSULATE, said)]
    handle = nss.client.generate(nss.slot.session, nss.client.mechanism(mechanism), template)
    has = [usage for usage in SECRET_USAGES if nss.slot.read(handle, usage) != [None]]
    assert {CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.WRAP, CKA.UNWRAP, CKA.DERIVE} <= set(has)
    assert {nss.slot.boolean(handle, usage) for usage in has} == {said}


@pytest.mark.rule("P21")
@pytest.mark.parametrize("said", list(product([True, False], repeat=4)))
def test_every_combination_of_what_nss_says_of_an_rsa_pair(nss: Nss, said: tuple[bool, ...]) -> None:
    """Takes any combination of usages; a usage that was said to be false is refused when it is tried."""
    slot, client = nss.slot, nss.client
    sign, decrypt, unwrap, derive = said
    private: Template = [(CKA.DERIVE, derive), (CKA.UNWRAP, unwrap), (CKA.SIGN, sign), (CKA.DECRYPT, decrypt)]
    _, handle = client.generate_pair(slot.session, *PAIRS["RSA"], private)
    for name, allowed in (("C_SignInit", sign), ("C_DecryptInit", decrypt)):
        with slot.ro() as session:
            rv = client.call(name, session, client.mechanism(CKM.RSA_PKCS), handle)
            assert rv == (CKR.OK if allowed else CKR.KEY_FUNCTION_NOT_PERMITTED)


@pytest.mark.rule("P21", "O17")
@pytest.mark.parametrize("extractable", [None, True, False])
@pytest.mark.parametrize("sensitive", [True, False])
def test_what_is_asked_of_a_new_key_is_what_it_gets(nss: Nss, *, sensitive: bool, extractable: bool | None) -> None:
    """Keeps SENSITIVE and EXTRACTABLE of certutil --keyAttrFlags to the letter; unsaid, a new key stays."""
    slot = nss.slot
    slot.login(PIN)
    asked: Template = [] if extractable is None else [(CKA.EXTRACTABLE, extractable)]
    public, private = templates.ec_pair()
    private = [(a, sensitive if a == CKA.SENSITIVE else v) for a, v in private]
    _, handle = generate(slot, CKM.EC_KEY_PAIR_GEN, (public, [*private[:3], *asked, *private[3:]]))
    assert slot.boolean(handle, CKA.SENSITIVE) is slot.boolean(handle, CKA.ALWAYS_SENSITIVE) is sensitive
    assert slot.boolean(handle, CKA.EXTRACTABLE) is bool(extractable)
    assert slot.boolean(handle, CKA.NEVER_EXTRACTABLE) is not extractable
    readable = not sensitive and bool(extractable)
    assert (slot.read(handle, CKA.VALUE) != [None]) is readable


@pytest.mark.rule("P20", "O18")
def test_an_unmodifiable_key_is_not_changed(nss: Nss) -> None:
    """A pair made with MODIFIABLE = false takes no other ID: CKR_ACTION_PROHIBITED."""
    slot = nss.slot
    slot.login(PIN)
    public, private = templates.ec_pair()
    modifiable: Template = [(CKA.MODIFIABLE, False)]
    for handle in generate(slot, CKM.EC_KEY_PAIR_GEN, ([*public, *modifiable], [*private, *modifiable])):
        assert slot.set(handle, [(CKA.ID, b"\x01")]) == CKR.ACTION_PROHIBITED


@pytest.mark.rule("P2")
def test_templates_that_are_null(nss: Nss) -> None:
    """Takes NULL with a count of 0 for the private template of a pair, and for that of a secret key."""
    slot, client = nss.slot, nss.client
    array, count, _kept = client.template(RSA_2048)
    handles = ffi.new("CK_ULONG[2]")
    mechanism = client.mechanism(CKM.RSA_PKCS_KEY_PAIR_GEN)
    client.ok("C_GenerateKeyPair", slot.session, mechanism, array, count, ffi.NULL, 0, handles, handles + 1)
    assert slot.ulong(handles[1], CKA.CLASS) == CKO.PRIVATE_KEY
    assert slot.ulong(handles[1], CKA.KEY_TYPE) == CKK.RSA
    client.ok("C_GenerateKey", slot.session, client.mechanism(CKM.DES3_KEY_GEN), ffi.NULL, 0, handles)
    assert slot.ulong(handles[0], CKA.KEY_TYPE) == CKK.DES3
    rv = client.call("C_GenerateKeyPair", slot.session, mechanism, ffi.NULL, 0, ffi.NULL, 0, handles, handles + 1)
    assert rv == CKR.TEMPLATE_INCOMPLETE
    for arguments in ((ffi.NULL, 1, ffi.NULL, 0), (array, count, ffi.NULL, 1)):
        rv = client.call("C_GenerateKeyPair", slot.session, mechanism, *arguments, handles, handles + 1)
        assert rv == CKR.ARGUMENTS_BAD


@pytest.mark.rule("N15", "N16", "N14", "P3")
def test_a_certificate_request_and_the_certificate_that_comes_back(nss: Nss) -> None:
    """A certificate written with the SHA-1 of its key as ID is the key's, and so is a second one of the same key."""
    slot = nss.slot
    slot.login(PIN)
    public, private = slot.generate_rsa()
    identity = slot.read(private, CKA.ID)[0] or b""
    issuer = ec.generate_private_key(ec.SECP256R1())
    subject_key = rsa_public(slot, public)
    stored = []
    for serial in (1, 2):
        certificate = certificate_of(_Public(subject_key), "Mary", "CA", serial, issuer)
        stored.append(slot.create(templates.certificate_object(certificate, identity, "Mary")))
    assert slot.find(templates.of_id(identity, CKO.CERTIFICATE)) == stored
    for handle in stored:
        (of_certificate,) = slot.read(handle, CKA.ID)
        assert slot.find(templates.of_id(of_certificate or b"", CKO.PRIVATE_KEY), 1) == [private]


@pytest.mark.rule("N14", "N15", "O10")
@pytest.mark.parametrize("kind", ["RSA", "EC"])
@pytest.mark.parametrize("named", ["public", "private"])
def test_an_id_in_one_template_is_the_id_of_the_pair(nss: Nss, kind: str, named: str) -> None:
    """A pair whose maker gave CKA_ID in one of the two templates has it on both keys, and each is found by it."""
    slot = nss.slot
    slot.login(PIN)
    public, private = templates.rsa_pair(bits=1024) if kind == "RSA" else templates.ec_pair()
    identity: Template = [(CKA.ID, b"any other")]
    pair = ([*public, *identity], private) if named == "public" else (public, [*private, *identity])
    handles = generate(slot, PAIRS[kind][0], pair)
    assert [slot.read(handle, CKA.ID) for handle in handles] == [[b"any other"]] * 2
    for handle, object_class in zip(handles, (CKO.PUBLIC_KEY, CKO.PRIVATE_KEY), strict=True):
        assert slot.find(templates.of_id(b"any other", object_class)) == [handle]


class _Public:
    """Whose certificate it is, when only the public key is known."""

    def __init__(self, key: object) -> None:
        self._key = key

    def public_key(self) -> object:
        return self._key


@pytest.mark.rule("O18", "O4")
def test_a_secret_key_of_symkeyutil(nss: Nss) -> None:
    """Makes symkeyutil's AES key on the token, takes its label afterwards, and finds it by class, label and type."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    with slot.rw() as session:
        handle = client.generate(session, client.mechanism(CKM.AES_KEY_GEN), templates.TOKEN_SECRET)
    assert slot.set(handle, [(CKA.LABEL, "mine")]) == CKR.OK
    wanted: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.TOKEN, True)]
    assert slot.find(wanted, 10) == slot.find([*wanted, (CKA.LABEL, "mine")], 10) == [handle]
    assert slot.find([*wanted, (CKA.LABEL, "mine"), (CKA.KEY_TYPE, CKK.AES)], 10) == [handle]
    assert slot.find([*wanted, (CKA.LABEL, "mine"), (CKA.KEY_TYPE, CKK.DES3)], 10) == []
    assert slot.ulong(handle, CKA.VALUE_LEN) == 32
    assert slot.read(handle, CKA.VALUE) == [None]
