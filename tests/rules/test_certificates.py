"""Certificates on the token as NSS writes them, renames them, links them to keys, and deletes them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from keyfob.spec.constants import CKA, CKC, CKF, CKK, CKM, CKO, CKR
from tests.client import P256, RvError, Template
from tests.conftest import PIN
from tests.rules import nss_templates as templates
from tests.rules.nss_calls import Nss, Slot
from tests.rules.software_keys import certificate_of, ec_key, rsa_key

NINE = (
    *(CKA.TOKEN, CKA.CLASS, CKA.CERTIFICATE_TYPE, CKA.ID, CKA.LABEL),
    *(CKA.VALUE, CKA.ISSUER, CKA.SUBJECT, CKA.SERIAL_NUMBER),
)
IDENTITY = templates.identity_of(rsa_key())
MINE = certificate_of(rsa_key(), "Mary", "CA", 77, ec_key())
CA = certificate_of(ec_key(), "CA")


def nine(identity: bytes = IDENTITY, label: str = "Mary") -> Template:
    return templates.certificate_object(MINE, identity, label)


def key_pair(slot: Slot) -> tuple[int, int]:
    """(public, private) of MINE, written by a user who is logged in."""
    return slot.create(templates.rsa_public_key(rsa_key())), slot.create(templates.rsa_private_key(rsa_key()))


@pytest.mark.rule("O1", "O6", "O8", "N13", "P19")
@pytest.mark.parametrize("login", [False, True])
def test_nine_attributes_are_a_certificate(nss: Nss, *, login: bool) -> None:
    """Takes exactly NSS's nine attributes, before the login or after it, and keeps each of them byte for byte."""
    slot = nss.slot
    if login:
        slot.login(PIN)
    sent = nine()
    assert tuple(a for a, _ in sent) == NINE
    handle = slot.create(sent)
    values = [v if isinstance(v, bytes) else None for _, v in sent]
    read = slot.read(handle, *NINE)
    assert all(value is None or value == kept for value, kept in zip(values, read, strict=True))
    assert slot.read(handle, CKA.LABEL) == [b"Mary"]
    assert slot.ulong(handle, CKA.CERTIFICATE_TYPE) == CKC.X_509
    flags = [slot.boolean(handle, flag) for flag in (CKA.TOKEN, CKA.MODIFIABLE, CKA.PRIVATE, CKA.TRUSTED)]
    assert flags == [True, True, False, False]


@pytest.mark.rule("O7", "P19", "P18")
def test_certificates_of_others_without_a_login(nss: Nss) -> None:
    """Stores certificates of CAs and strangers without their keys and without a login, like any other."""
    slot = nss.slot
    stranger = certificate_of(ec_key(7), "Stranger")
    for certificate, key in ((CA, ec_key()), (stranger, ec_key(7))):
        handle = slot.create(templates.certificate_object(certificate, templates.identity_of(key), "other"))
        assert slot.find([(CKA.VALUE, certificate.public_bytes(Encoding.DER)), (CKA.CLASS, CKO.CERTIFICATE)]) == [
            handle
        ]
        assert slot.find(templates.of_id(templates.identity_of(key), CKO.PUBLIC_KEY), 1) == []
    assert not slot.is_logged_in()


@pytest.mark.rule("N5", "P18")
def test_a_certificate_in_a_read_only_session(nss: Nss) -> None:
    """Writes a certificate in a read-write session only; CKR_SESSION_READ_ONLY, and never USER_NOT_LOGGED_IN, else."""
    with nss.slot.ro() as session, pytest.raises(RvError) as refusal:
        nss.client.create(session, nine())
    assert refusal.value.rv == CKR.SESSION_READ_ONLY
    assert nss.client.call("C_DestroyObject", nss.slot.session, nss.slot.create(nine())) == CKR.SESSION_READ_ONLY


@pytest.mark.rule("O6", "P18")
def test_the_same_certificate_twice(nss: Nss) -> None:
    """Takes the same certificate again: NSS finds one of the two, and each is destroyed on its own."""
    slot = nss.slot
    first, second = slot.create(nine()), slot.create(nine())
    wanted = templates.of_certificate(MINE, CKO.CERTIFICATE)
    assert slot.find(wanted) == [first, second]
    assert slot.destroy(first) == CKR.OK
    assert slot.find(wanted, 1) == [second]


@pytest.mark.rule("O9", "O11", "O12", "N14", "N11")
def test_certificate_and_key_are_linked_by_their_id(nss: Nss) -> None:
    """Links certificate and key by CKA_ID alone, both ways; the key's label and subject are set and shown."""
    slot = nss.slot
    slot.login(PIN)
    public, private = key_pair(slot)
    subject = MINE.subject.public_bytes()
    label = "Mary's key for mail that is signed, ключ Марии"
    assert slot.set(private, [(CKA.LABEL, label), (CKA.ID, IDENTITY), (CKA.SUBJECT, subject)]) == CKR.OK
    assert slot.read(private, CKA.LABEL, CKA.ID, CKA.SUBJECT) == [label.encode(), IDENTITY, subject]
    handle = slot.create(nine(label="quite another name"))
    (identity, object_class) = slot.read(handle, CKA.ID, CKA.CLASS)
    assert object_class == CKO.CERTIFICATE.to_bytes(8, "little")
    assert slot.find(templates.of_id(identity or b"", CKO.PRIVATE_KEY), 1) == [private]
    assert slot.find(templates.of_id(identity or b"", CKO.PUBLIC_KEY), 1) == [public]
    (identity,) = slot.read(private, CKA.ID)
    assert slot.find(templates.of_id(identity or b"", CKO.CERTIFICATE), 1) == [handle]


@pytest.mark.rule("N16", "N12")
def test_a_renewed_certificate_stands_beside_the_old_one(nss: Nss) -> None:
    """Keeps several certificates of one key under one ID, and finds each by its serial number."""
    slot = nss.slot
    slot.login(PIN)
    _, private = key_pair(slot)
    renewed = certificate_of(rsa_key(), "Mary", "CA", 78, ec_key())
    old, new = slot.create(nine()), slot.create(templates.certificate_object(renewed, IDENTITY, "Mary"))
    assert slot.find([(CKA.TOKEN, True), (CKA.ID, IDENTITY), (CKA.CLASS, CKO.CERTIFICATE)]) == [old, new]
    assert slot.find([(CKA.LABEL, "Mary"), (CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE)]) == [old, new]
    for certificate, handle in ((MINE, old), (renewed, new)):
        for raw in (False, True):
            wanted = templates.of_certificate(certificate, CKO.CERTIFICATE, raw_serial=raw)
            assert slot.find(wanted, 1) == [handle]
        assert slot.find(templates.of_id(slot.read(handle, CKA.ID)[0] or b"", CKO.PRIVATE_KEY), 1) == [private]


@pytest.mark.rule("N15", "N17", "O10", "P3")
def test_the_certificate_of_an_orphan_key_finds_it(nss: Nss) -> None:
    """Gives keys without CKA_ID the ID that NSS will write on their certificate, and empty IDs link nothing."""
    slot = nss.slot
    slot.login(PIN)
    template = [(a, v) for a, v in templates.rsa_private_key(rsa_key()) if a != CKA.ID]
    private = slot.create(template)
    public = slot.create([(a, v) for a, v in templates.rsa_public_key(rsa_key()) if a != CKA.ID])
    assert slot.read(private, CKA.ID) == slot.read(public, CKA.ID) == [IDENTITY]
    handle = slot.create(nine())
    assert slot.find(templates.of_id(slot.read(handle, CKA.ID)[0] or b"", CKO.PRIVATE_KEY), 1) == [private]
    assert slot.find(templates.of_id(b"", CKO.PRIVATE_KEY), 1) == []


@pytest.mark.rule("N15")
@pytest.mark.parametrize("identity", [b"\x01", b"any ID of some vendor", bytes(64)])
def test_any_other_id_is_kept(nss: Nss, identity: bytes) -> None:
    """Keeps any other ID that a program gives to keys, made here or elsewhere, and certificate, and finds all by it."""
    slot = nss.slot
    slot.login(PIN)
    private = slot.create(templates.rsa_private_key(rsa_key(), identity))
    handle = slot.create(nine(identity))
    assert slot.find(templates.of_id(identity, CKO.PRIVATE_KEY), 1) == [private]
    assert slot.find(templates.of_id(identity, CKO.CERTIFICATE), 1) == [handle]
    assert slot.destroy(private) == CKR.OK
    given: Template = [(CKA.TOKEN, True), (CKA.ID, identity)]
    with slot.rw() as session:
        mechanism = CKM.EC_KEY_PAIR_GEN
        pair = nss.client.generate_pair(session, mechanism, [(CKA.EC_PARAMS, P256), *given], given)
    assert [slot.find(templates.of_id(identity, kind)) for kind in (CKO.PUBLIC_KEY, CKO.PRIVATE_KEY)] == [
        [handle] for handle in pair
    ]


@pytest.mark.rule("O18", "P20", "O9")
def test_a_certificate_is_renamed(nss: Nss) -> None:
    """Takes another LABEL and ID for a certificate (certutil --rename), in a read-write session only."""
    slot = nss.slot
    handle = slot.create(nine())
    assert nss.client.set(slot.session, handle, [(CKA.LABEL, "Anne")]) == CKR.SESSION_READ_ONLY
    assert slot.set(handle, [(CKA.LABEL, "Anne")]) == CKR.OK
    assert slot.set(handle, [(CKA.ID, b"new"), (CKA.LABEL, "Änne")]) == CKR.OK
    assert slot.read(handle, CKA.LABEL, CKA.ID) == ["Änne".encode(), b"new"]
    of_label: Template = [(CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE)]
    assert slot.find([(CKA.LABEL, "Änne"), *of_label]) == [handle]
    assert slot.find([(CKA.LABEL, "Anne"), *of_label]) == slot.find([(CKA.LABEL, "Mary"), *of_label]) == []
    assert slot.set(handle, [(CKA.VALUE, b"another")]) == CKR.ATTRIBUTE_READ_ONLY
    assert slot.set(handle, [(CKA.LABEL, "half"), (CKA.VALUE, b"another")]) == CKR.ATTRIBUTE_READ_ONLY
    assert slot.read(handle, CKA.LABEL) == ["Änne".encode()], "all of a change or nothing"


@pytest.mark.rule("O18", "P20")
def test_what_is_changed_on_every_kind_of_object(nss: Nss) -> None:
    """Takes LABEL and ID on every kind of key and certificate, SUBJECT on private and public keys and certificates."""
    slot = nss.slot
    slot.login(PIN)
    public, private = key_pair(slot)
    secret = slot.create([*templates.session_key(CKK.AES, CKA.ENCRYPT, bytes(16)), (CKA.TOKEN, True)])
    both: Template = [(CKA.LABEL, "renamed"), (CKA.ID, b"\xff" * 20)]
    subject: Template = [(CKA.SUBJECT, b"0\x00")]
    for handle, changes in (
        (public, [*both, *subject]),
        (private, [*both, *subject]),
        (slot.create(nine()), [*both, *subject]),
        (secret, both),
    ):
        assert slot.set(handle, changes) == CKR.OK
        wanted = [v.encode() if isinstance(v, str) else v for _, v in changes]
        assert slot.read(handle, *(a for a, _ in changes)) == wanted
    assert len(slot.find([(CKA.ID, b"\xff" * 20)])) == 4
    slot.logout()
    assert slot.set(private, both) == CKR.OBJECT_HANDLE_INVALID


@pytest.mark.rule("O15", "P38", "N5")
def test_certutil_deletes(nss: Nss) -> None:
    """Destroys certificate, private and public key each in a read-write session of its own, and nothing with them."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    public, private = key_pair(slot)
    second_public = slot.create(templates.rsa_public_key(rsa_key()))
    handle = slot.create(nine())
    assert client.call("C_DestroyObject", slot.session, handle) == CKR.SESSION_READ_ONLY
    assert slot.destroy(handle) == CKR.OK
    assert slot.find(templates.of_id(IDENTITY, CKO.CERTIFICATE)) == []
    assert slot.find(templates.of_id(IDENTITY, CKO.PRIVATE_KEY)) == [private]
    assert slot.destroy(private) == CKR.OK
    assert slot.find([(CKA.ID, IDENTITY)]) == [public, second_public]
    assert slot.destroy(public) == CKR.OK
    assert slot.find([(CKA.ID, IDENTITY)]) == [second_public]
    for gone in (handle, private, public):
        assert slot.destroy(gone) == CKR.OBJECT_HANDLE_INVALID
    slot.create(nine())
    assert slot.find(templates.of_id(IDENTITY, CKO.PUBLIC_KEY), 1) == [second_public], "an orphan does no harm"


@pytest.mark.rule("P3", "N18")
def test_who_is_a_user_before_and_after_the_login(nss: Nss) -> None:
    """Before the login a certificate's public key is found, after it the private one; a stranger's has neither."""
    slot = nss.slot
    slot.login(PIN)
    key_pair(slot)
    mine = slot.create(nine())
    other = slot.create(templates.certificate_object(CA, templates.identity_of(ec_key()), "CA"))

    def is_user(handle: int) -> bool:
        object_class = CKO.PRIVATE_KEY if slot.is_logged_in() else CKO.PUBLIC_KEY
        return slot.find(templates.of_id(slot.read(handle, CKA.ID)[0] or b"", object_class), 1) != []

    for login in (True, False):
        if not login:
            slot.logout()
        assert (is_user(mine), is_user(other)) == (True, False)


@pytest.mark.rule("P32")
def test_a_certificate_without_a_label(nss: Nss) -> None:
    """Stores a certificate without a label; it is found by all but its name, and takes one later."""
    slot = nss.slot
    handle = slot.create([(a, v) for a, v in nine() if a != CKA.LABEL])
    assert slot.read(handle, CKA.LABEL) == [b""]
    assert slot.find(templates.of_certificate(MINE, CKO.CERTIFICATE), 1) == [handle]
    assert slot.set(handle, [(CKA.LABEL, "found")]) == CKR.OK
    assert slot.find([(CKA.LABEL, "found")]) == [handle]


@pytest.mark.rule("S7", "P35")
def test_more_certificates_than_the_cache_of_nss_holds(nss: Nss) -> None:
    """Leaves CKF_HW_SLOT clear, so that NSS uses no cache of ten; finds 25 certificates and the trust in each."""
    slot = nss.slot
    assert not slot.slot_flags & CKF.HW_SLOT
    slot.login(PIN)
    made = {}
    for serial in range(1, 26):
        certificate = certificate_of(rsa_key(), f"Mary {serial}", "CA", serial, ec_key())
        made[certificate] = slot.create(templates.certificate_object(certificate, IDENTITY, f"Mary {serial}"))
        slot.create(templates.nss_trust(certificate, templates.NSS_TRUSTED))
    assert slot.find([(CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE)]) == list(made.values())
    for certificate, handle in made.items():
        assert slot.find(templates.of_certificate(certificate, CKO.CERTIFICATE), 1) == [handle]
        assert len(slot.find(templates.of_certificate(certificate, CKO.NSS_TRUST), 1)) == 1
