"""Every search of NSS, with hits and without, in every batch size; handles that stay what they are."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from keyfob.spec.constants import CKA, CKC, CKK, CKM, CKO, CKR
from tests.client import READ_ONLY, Template, ffi
from tests.conftest import PIN
from tests.rules import nss_templates as templates
from tests.rules.nss_calls import Nss, Slot, start
from tests.rules.software_keys import certificate_of, ec_key, rsa_key

IDENTITY = templates.identity_of(rsa_key())
CERTIFICATE = certificate_of(rsa_key(), "Mary", "Issuer", 0x80FF01, ec_key())
VALUE = CERTIFICATE.public_bytes(Encoding.DER)
ISSUER, SUBJECT = CERTIFICATE.issuer.public_bytes(), CERTIFICATE.subject.public_bytes()
POINT = templates.point(ec_key())
TOKEN = (CKA.TOKEN, True)


def of(object_class: int) -> tuple[int, int]:
    return (CKA.CLASS, object_class)


# What `filled` puts on the token, and for each search of NSS's (section 3.10): template, most handles, what is hit.
Search = tuple[Template, int, str]
SEARCHES: dict[str, Search] = {
    "certificates (device)": ([TOKEN, of(CKO.CERTIFICATE)], 0, "certificate"),
    "certificates (wrapper)": ([of(CKO.CERTIFICATE), TOKEN], 10, "certificate"),
    "certificates by label (wrapper)": ([of(CKO.CERTIFICATE), TOKEN, (CKA.LABEL, "Mary")], 10, "certificate"),
    "private keys": ([of(CKO.PRIVATE_KEY), TOKEN], 10, "private ec_private"),
    "public keys": ([of(CKO.PUBLIC_KEY), TOKEN], 10, "public ec_public"),
    "certificate by nickname": ([(CKA.LABEL, "Mary"), TOKEN, of(CKO.CERTIFICATE)], 0, "certificate"),
    "certificate by nickname and NUL": ([(CKA.LABEL, b"Mary\0"), TOKEN, of(CKO.CERTIFICATE)], 0, "certificate"),
    "certificate by subject": ([TOKEN, of(CKO.CERTIFICATE), (CKA.SUBJECT, SUBJECT)], 0, "certificate"),
    "certificate by issuer and serial": (templates.of_certificate(CERTIFICATE, CKO.CERTIFICATE), 1, "certificate"),
    "certificate by issuer and raw serial": (
        templates.of_certificate(CERTIFICATE, CKO.CERTIFICATE, raw_serial=True),
        1,
        "certificate",
    ),
    "exact certificate (wrapper)": ([(CKA.VALUE, VALUE), of(CKO.CERTIFICATE)], 1, "certificate"),
    "exact certificate (device)": ([TOKEN, of(CKO.CERTIFICATE), (CKA.VALUE, VALUE)], 1, "certificate"),
    "certificate by ID": ([TOKEN, (CKA.ID, IDENTITY), of(CKO.CERTIFICATE)], 0, "certificate"),
    "key of a certificate": (templates.of_id(IDENTITY, CKO.PRIVATE_KEY), 1, "private"),
    "certificate of a key": (templates.of_id(IDENTITY, CKO.CERTIFICATE), 1, "certificate"),
    "public key of a certificate": (templates.of_id(IDENTITY, CKO.PUBLIC_KEY), 1, "public"),
    "private key by ID (device)": ([of(CKO.PRIVATE_KEY), TOKEN, (CKA.ID, IDENTITY)], 1, "private"),
    "user's certificate by modulus": ([(CKA.MODULUS, templates.components(rsa_key())[CKA.MODULUS])], 1, "public"),
    "user's certificate by raw point": ([(CKA.EC_POINT, POINT)], 1, "ec_public"),
    "public key by DER point": ([(CKA.EC_POINT, templates.octet_string(POINT))], 1, "ec_public"),
    "trust": (templates.of_certificate(CERTIFICATE, CKO.TRUST), 1, "trust"),
    "trust (NSS)": (templates.of_certificate(CERTIFICATE, CKO.NSS_TRUST), 1, "nss_trust"),
    "trust by hash (3.87)": ([of(CKO.NSS_TRUST), (CKA.NSS_CERT_SHA1_HASH, b"$HASH")], 1, "nss_trust"),
    "revocation list": ([of(CKO.NSS_CRL), (CKA.SUBJECT, ISSUER)], 10, "crl"),
    "revocation list on the token": ([of(CKO.NSS_CRL), TOKEN, (CKA.SUBJECT, ISSUER)], 10, "crl"),
    "secret keys": ([of(CKO.SECRET_KEY), TOKEN], 10, "secret"),
    "secret key by label": ([of(CKO.SECRET_KEY), TOKEN, (CKA.LABEL, "master")], 10, "secret"),
    "secret key by ID": ([of(CKO.SECRET_KEY), TOKEN, (CKA.ID, b"\x07")], 10, "secret"),
    "secret key by type": ([of(CKO.SECRET_KEY), TOKEN, (CKA.LABEL, "master"), (CKA.KEY_TYPE, CKK.AES)], 10, "secret"),
}
MISSES: dict[str, Template] = {
    "root list": [of(CKO.NSS_BUILTIN_ROOT_LIST)],
    "validation": [TOKEN, of(CKO.VALIDATION)],
    "class of nobody": [TOKEN, of(0xCE53435F)],
    "nickname": [(CKA.LABEL, "Nobody"), TOKEN, of(CKO.CERTIFICATE)],
    "part of a nickname": [(CKA.LABEL, "Mar"), TOKEN, of(CKO.CERTIFICATE)],
    "nickname in another case": [(CKA.LABEL, "mary"), TOKEN, of(CKO.CERTIFICATE)],
    "subject": [TOKEN, of(CKO.CERTIFICATE), (CKA.SUBJECT, b"0\x00")],
    "mail": [(CKA.NSS_EMAIL, b"nobody@example.org"), TOKEN, of(CKO.CERTIFICATE)],
    "mail and NUL": [(CKA.NSS_EMAIL, b"nobody@example.org\0"), TOKEN, of(CKO.CERTIFICATE)],
    "serial of another issuer": [
        *templates.of_certificate(CERTIFICATE, CKO.CERTIFICATE)[:2],
        (CKA.ISSUER, SUBJECT),
        (CKA.SERIAL_NUMBER, templates.serial_der(CERTIFICATE)),
    ],
    "empty ID": templates.of_id(b"", CKO.PRIVATE_KEY),
    "ID of no key": templates.of_id(bytes(20), CKO.PRIVATE_KEY),
    "ID of nothing of this class": templates.of_id(IDENTITY, CKO.SECRET_KEY),
    "value": [(CKA.VALUE, b"no certificate"), of(CKO.CERTIFICATE)],
    "modulus": [(CKA.MODULUS, bytes(256))],
    "point": [(CKA.EC_POINT, b"\x04" + bytes(64))],
    "trust": [TOKEN, of(CKO.TRUST), (CKA.ISSUER, ISSUER), (CKA.SERIAL_NUMBER, b"\x02\x01\x01")],
    "boolean of a wrong length": [(CKA.TOKEN, b""), of(CKO.CERTIFICATE)],
    "class of a wrong length": [(CKA.CLASS, b"\x01")],
    "attribute of nobody": [TOKEN, (0xCE53FFFF, b"?")],
    "session objects": [(CKA.TOKEN, False), of(CKO.CERTIFICATE)],
}


def filled(slot: Slot) -> dict[str, int]:
    """A token with one object of each sort, by name."""
    trust = templates.nss_trust(CERTIFICATE, templates.NSS_TRUSTED_DELEGATOR)
    return {
        "public": slot.create(templates.rsa_public_key(rsa_key())),
        "private": slot.create(templates.rsa_private_key(rsa_key())),
        "ec_public": slot.create(templates.ec_public_key(ec_key())),
        "ec_private": slot.create(templates.ec_private_key(ec_key())),
        "certificate": slot.create(templates.certificate_object(CERTIFICATE, IDENTITY, "Mary")),
        "trust": slot.create(templates.standard_trust(CERTIFICATE, templates.TRUST_ANCHOR)),
        "nss_trust": slot.create(trust),
        "crl": slot.create([TOKEN, of(CKO.NSS_CRL), (CKA.SUBJECT, ISSUER), (CKA.VALUE, b"crl")]),
        "secret": slot.create(
            [*templates.session_key(CKK.AES, CKA.ENCRYPT, bytes(16)), TOKEN, (CKA.LABEL, "master"), (CKA.ID, b"\x07")]
        ),
    }


def resolved(template: Template) -> Template:
    """The hash of the certificate in place of its name."""
    trust = dict(templates.nss_trust(CERTIFICATE, templates.NSS_TRUSTED))
    return [(a, trust[CKA.NSS_CERT_SHA1_HASH] if v == b"$HASH" else v) for a, v in template]


@pytest.mark.rule("O19", "O21", "P23", "P33", "N12", "N14")
def test_every_search_of_nss_finds_what_it_is_for(nss: Nss) -> None:
    """Answers each of NSS's searches with exactly the objects that it is for, alone in the token or among others."""
    slot = nss.slot
    slot.login(PIN)
    has = filled(slot)
    for name, (template, most, wanted) in SEARCHES.items():
        found = slot.find(resolved(template), most)
        assert found == [has[each] for each in wanted.split()], name


@pytest.mark.rule("O19", "P23")
def test_every_search_of_nss_in_an_empty_token(nss: Nss) -> None:
    """Answers each search in an empty token with CKR_OK and nothing, before the login and after it."""
    slot = nss.slot
    for login in (False, True):
        if login:
            slot.login(PIN)
        for name, template in [*((n, s[0]) for n, s in SEARCHES.items()), *MISSES.items()]:
            assert _raw_find(slot, template) == [], name


@pytest.mark.rule("O19", "P23", "P10")
def test_every_search_of_nss_without_a_token(fresh: Nss) -> None:
    """Answers each search on a token that was never initialised with CKR_OK and nothing."""
    for name, template in [*((n, s[0]) for n, s in SEARCHES.items()), *MISSES.items()]:
        assert _raw_find(fresh.slot, template) == [], name


@pytest.mark.rule("O19", "P23")
def test_near_misses(nss: Nss) -> None:
    """Finds nothing, without an error, by values that no object has, unknown classes and values of wrong length."""
    slot = nss.slot
    slot.login(PIN)
    filled(slot)
    for name, template in MISSES.items():
        assert _raw_find(slot, template) == [], name


def _raw_find(slot: Slot, template: Template) -> list[int]:
    """Every call must answer CKR_OK."""
    return slot.client.find(slot.session, resolved(template))


@pytest.mark.rule("P3", "N18", "SE12")
def test_searches_before_the_login(nss: Nss) -> None:
    """Finds certificates, public keys, trust and revocation lists before the login, private and secret keys after."""
    slot = nss.slot
    slot.login(PIN)
    has = filled(slot)
    slot.logout()
    hidden = {has["private"], has["ec_private"], has["secret"]}
    for name, (template, most, wanted) in SEARCHES.items():
        assert slot.find(resolved(template), most) == [has[w] for w in wanted.split() if has[w] not in hidden], name


@pytest.mark.rule("P23", "O19")
@pytest.mark.parametrize("count", [15, 16, 17, 33])
@pytest.mark.parametrize("most", [1, 10, 16])
def test_batches_are_full_until_the_last(nss: Nss, count: int, most: int) -> None:
    """Gives as many handles as there is room for while there are more, each once, and then none."""
    slot, client = nss.slot, nss.client
    handles = [_note(slot, i) for i in range(count)]
    array, size, _kept = client.template([of(CKO.DATA), TOKEN])
    client.ok("C_FindObjectsInit", slot.session, array, size)
    held, number, found = ffi.new("CK_ULONG[]", most), ffi.new("CK_ULONG *"), []
    for expected in [*([most] * (count // most)), count % most, 0, 0]:
        client.ok("C_FindObjects", slot.session, held, most, number)
        assert number[0] == expected
        found += list(held[0 : number[0]])
    client.ok("C_FindObjectsFinal", slot.session)
    assert found == handles
    assert slot.find([of(CKO.DATA), TOKEN]) == handles, "with NSS's doubling room"


def _note(slot: Slot, number: int) -> int:
    return slot.create([TOKEN, of(CKO.DATA), (CKA.LABEL, f"note {number}"), (CKA.VALUE, b"text")])


@pytest.mark.rule("P23", "SE3")
def test_searches_on_two_sessions_and_their_ends(nss: Nss) -> None:
    """Searches on two sessions at once; a search left open ends with its session, and a second one is told of it."""
    slot, client = nss.slot, nss.client
    first, second = (_note(slot, i) for i in range(2))
    other = client.open(slot.id, READ_ONLY)
    held, number = ffi.new("CK_ULONG *"), ffi.new("CK_ULONG *")
    array, size, _kept = client.template([of(CKO.DATA)])
    for session in (slot.session, other):
        client.ok("C_FindObjectsInit", session, array, size)
    for expected in (first, second):
        for session in (other, slot.session):
            client.ok("C_FindObjects", session, held, 1, number)
            assert (number[0], held[0]) == (1, expected)
    assert client.call("C_FindObjectsInit", other, array, size) == CKR.OPERATION_ACTIVE
    client.ok("C_CloseSession", other)
    client.ok("C_FindObjectsFinal", slot.session)
    assert client.call("C_FindObjectsFinal", slot.session) == CKR.OPERATION_NOT_INITIALIZED


@pytest.mark.rule("P23")
def test_a_failed_search_is_over(nss: Nss) -> None:
    """NSS does not call C_FindObjectsFinal after a C_FindObjects that failed (section 3.8), and searches again."""
    slot, client = nss.slot, nss.client
    array, size, _kept = client.template([of(CKO.DATA)])
    client.ok("C_FindObjectsInit", slot.session, array, size)
    assert client.call("C_FindObjects", slot.session, ffi.NULL, 1, ffi.new("CK_ULONG *")) == CKR.ARGUMENTS_BAD
    client.ok("C_FindObjectsInit", slot.session, array, size)


@pytest.mark.rule("P23", "P25")
def test_what_was_found_is_destroyed_while_the_search_goes_on(nss: Nss) -> None:
    """A search goes on over what was there when it began, whatever is destroyed or made meanwhile."""
    slot, client = nss.slot, nss.client
    notes = [_note(slot, i) for i in range(4)]
    array, size, _kept = client.template([of(CKO.DATA)])
    client.ok("C_FindObjectsInit", slot.session, array, size)
    assert slot.destroy(notes[1]) == CKR.OK
    _note(slot, 9)
    held, number = ffi.new("CK_ULONG[10]"), ffi.new("CK_ULONG *")
    client.ok("C_FindObjects", slot.session, held, 10, number)
    assert set(notes) - {notes[1]} <= set(held[0 : number[0]]) <= set(notes)
    client.ok("C_FindObjectsFinal", slot.session)


@pytest.mark.rule("P25")
def test_handles_are_the_same_for_everybody_and_always(nss: Nss) -> None:
    """Keeps an object's handle from session to session, over logout and login, and never gives it to another object."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    has = filled(slot)
    certificate = has["certificate"]
    everything: Template = [TOKEN]
    before = set(slot.find(everything))
    assert set(has.values()) <= before
    for opened in (slot.ro, slot.rw):
        with opened() as session:
            assert set(slot.find(everything, 0, session)) == before
    slot.logout()
    assert slot.find([of(CKO.CERTIFICATE), TOKEN]) == [certificate]
    assert slot.read(certificate, CKA.LABEL) == [b"Mary"], "a handle from before the logout"
    assert slot.read(has["private"], CKA.LABEL) == [None]
    slot.login(PIN)
    assert slot.read(has["private"], CKA.ID) == [IDENTITY], "and it is good again"
    assert set(slot.find(everything)) == before
    dead = []
    for i in range(20):
        handle = _note(slot, i)
        assert slot.destroy(handle) == CKR.OK
        dead.append(handle)
    assert len(set(dead)) == 20
    assert not set(dead) & before
    for handle in dead:
        entry = ffi.new("CK_ATTRIBUTE *", (CKA.CLASS, ffi.NULL, 0))
        assert client.call("C_GetAttributeValue", slot.session, handle, entry, 1) == CKR.OBJECT_HANDLE_INVALID


@pytest.mark.rule("P25", "G1")
def test_objects_are_found_again_after_a_restart(nss: Nss) -> None:
    """Finds all token objects by the same searches after NSS's end and start; destroyed handles stay dead."""
    slot = nss.slot
    slot.login(PIN)
    filled(slot)
    dead = _note(slot, 0)
    slot.destroy(dead)
    nss.end()
    slot = start(nss.client).slot
    slot.login(PIN)
    for name, (template, most, wanted) in SEARCHES.items():
        assert len(slot.find(resolved(template), most)) == len(wanted.split()), name
    assert slot.read(dead, CKA.CLASS) == [None]


@pytest.mark.rule("P37", "P25")
@pytest.mark.parametrize("handle", [0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF])
def test_object_handles_of_nothing(nss: Nss, handle: int) -> None:
    """Answers a handle code to object handle 0 and to garbage, in every function that takes one."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    filled(slot)
    array, count, _kept = client.template([(CKA.LABEL, "x")])
    made = ffi.new("CK_ULONG *")
    session = client.open(slot.id)
    wrong = {
        "C_CopyObject": (handle, array, count, made),
        "C_DestroyObject": (handle,),
        "C_GetObjectSize": (handle, made),
        "C_GetAttributeValue": (handle, array, count),
        "C_SetAttributeValue": (handle, array, count),
    }
    for name, arguments in wrong.items():
        assert client.call(name, session, *arguments) == CKR.OBJECT_HANDLE_INVALID, name
    for name in ("C_SignInit", "C_VerifyInit", "C_EncryptInit", "C_DecryptInit", "C_SignRecoverInit"):
        rv = client.call(name, session, client.mechanism(CKM.RSA_PKCS), handle)
        assert rv == CKR.KEY_HANDLE_INVALID, name
    wrapped = client.mechanism(CKM.AES_CBC_PAD, bytes(16))
    rv = client.call("C_WrapKey", session, wrapped, handle, handle, ffi.NULL, made)
    assert rv in (CKR.WRAPPING_KEY_HANDLE_INVALID, CKR.KEY_HANDLE_INVALID)
    rv = client.call("C_UnwrapKey", session, wrapped, handle, b"x" * 16, 16, array, count, made)
    assert rv == CKR.UNWRAPPING_KEY_HANDLE_INVALID


@pytest.mark.rule("N13")
def test_a_certificate_is_known_by_what_nss_reads_of_it(nss: Nss) -> None:
    """Gives the six attributes that NSS reads of a certificate in one call, byte for byte as they were written."""
    slot = nss.slot
    handle = slot.create(templates.certificate_object(CERTIFICATE, IDENTITY, "Mary"))
    assert slot.read(handle, CKA.TOKEN, CKA.LABEL) == [b"\x01", b"Mary"]
    six = (CKA.CERTIFICATE_TYPE, CKA.ID, CKA.VALUE, CKA.ISSUER, CKA.SERIAL_NUMBER, CKA.SUBJECT)
    serial = templates.serial_der(CERTIFICATE)
    expected = [CKC.X_509.to_bytes(8, "little"), IDENTITY, VALUE, ISSUER, serial, SUBJECT]
    assert slot.read(handle, *six) == expected
