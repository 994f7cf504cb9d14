"""Finding by what may be written in several ways, and certificates that complete themselves."""

from __future__ import annotations

from hashlib import sha1
from pathlib import Path

import apsw
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKR
from tests.client import P256, READ_ONLY, READ_WRITE, Client, Template, encoded
from tests.conftest import PIN, Fob
from tests.rules.certificates import make_certificate
from tests.rules.nss_calls import Nss, Slot, point_of
from tests.rules.nss_templates import serial_der

SERIAL = 0x80FF01  # its DER has a sign byte


def certificate(value: bytes, *more: tuple[int, bytes | bool | int | str]) -> Template:
    return [(CKA.CLASS, CKO.CERTIFICATE), (CKA.CERTIFICATE_TYPE, 0), (CKA.TOKEN, True), (CKA.VALUE, value), *more]


def by_mail(slot: Slot, address: bytes) -> list[int]:
    """nssToken_FindCertificatesByEmail: once as it is, once with the NUL."""
    for value in (address, address + b"\0"):
        found = slot.find([(CKA.NSS_EMAIL, value), (CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE)])
        if found:
            return found
    return []


@pytest.mark.rule("O19")
def test_one_attribute_alone_is_enough_to_find_its_object_and_no_other(nss: Nss) -> None:
    """Looked for as PK11_IsUserCert and PK11_FindCertFromDERCert do: CKA_VALUE or CKA_MODULUS without any class."""
    slot = nss.slot
    slot.login(PIN)
    values = [make_certificate(name=name) for name in ("one", "other")]
    handles = [slot.create(certificate(value)) for value in values]
    public, private = slot.generate_rsa()
    for value, handle in zip(values, handles, strict=True):
        assert slot.find([(CKA.VALUE, value)]) == [handle]
        assert slot.find([(CKA.VALUE, value), (CKA.CLASS, CKO.CERTIFICATE)], 1) == [handle]
        assert slot.find([(CKA.VALUE, value[:-1])]) == []
    (modulus,) = slot.read(public, CKA.MODULUS)
    assert modulus is not None
    assert sorted(slot.find([(CKA.MODULUS, modulus)])) == sorted([public, private])
    assert slot.find([(CKA.MODULUS, modulus[::-1])]) == []
    assert slot.find([(CKA.VALUE, b"")]) == []


@pytest.mark.rule("N12")
def test_certificates_are_found_by_every_address_in_them(nss: Nss) -> None:
    """A certificate is found by each e-mail address of its subject and subjectAltName, in any case, with a NUL too."""
    slot = nss.slot
    mails = ("Alice@Example.ORG", "alice@elsewhere.example")
    one = slot.create(certificate(make_certificate(subject_mail="A.Liddell@Example.org", mails=mails)))
    other = slot.create(certificate(make_certificate(mails=("alice@elsewhere.example",))))
    slot.create(certificate(make_certificate(name="without")))
    for address in (b"a.liddell@example.org", b"alice@example.org", b"ALICE@EXAMPLE.ORG", b"alice@example.org\0"):
        assert by_mail(slot, address) == [one]
        assert slot.find([(CKA.NSS_EMAIL, address)]) == [one]
    assert by_mail(slot, b"alice@elsewhere.example") == [one, other]
    assert by_mail(slot, b"directory@example.org") == [one, other]
    assert by_mail(slot, b"example.org") == by_mail(slot, b"lice@example.org") == by_mail(slot, b"") == []
    (addresses,) = slot.read(one, CKA.NSS_EMAIL)
    assert addresses is not None
    assert addresses.split(b"\0") == [
        b"a.liddell@example.org",
        b"alice@example.org",
        b"alice@elsewhere.example",
        b"directory@example.org",
    ]
    assert slot.find([(CKA.NSS_EMAIL, addresses)]) == [one]
    with slot.ro() as session:
        session_one = nss.client.create(
            session,
            [(CKA.CLASS, CKO.CERTIFICATE), (CKA.VALUE, make_certificate(mails=("Memory@example.org",)))],
        )
        assert slot.find([(CKA.NSS_EMAIL, b"memory@example.org")], 0, session) == [session_one]


@pytest.mark.rule("O21", "N12")
@pytest.mark.parametrize("stored", ["from the value", "DER", "raw", "raw, unsigned"])
def test_certificates_are_found_by_issuer_and_serial(nss: Nss, stored: str) -> None:
    """A certificate is found by issuer and serial number in DER and in raw form, whichever of them was stored.

    And no other one: neither of the same issuer, nor with the same serial number.
    """
    slot = nss.slot
    value = make_certificate(serial=SERIAL)
    issuer = x509.load_der_x509_certificate(value).issuer.public_bytes()
    forms = {"DER": b"\x02\x04\x00\x80\xff\x01", "raw": b"\x00\x80\xff\x01", "raw, unsigned": b"\x80\xff\x01"}
    more = [(CKA.SERIAL_NUMBER, forms[stored])] if stored in forms else []
    slot.create(certificate(make_certificate(serial=SERIAL + 1)))
    slot.create(certificate(value.replace(issuer, issuer[:-1] + b"?"), *more))
    handle = slot.create(certificate(value, *more))
    assert slot.read(handle, CKA.SERIAL_NUMBER) == [forms.get(stored, forms["DER"])]
    for serial in forms.values():
        wanted: Template = [
            (CKA.TOKEN, True),
            (CKA.CLASS, CKO.CERTIFICATE),
            (CKA.ISSUER, issuer),
            (CKA.SERIAL_NUMBER, serial),
        ]
        assert slot.find(wanted) == [handle]


@pytest.mark.rule("P32", "O19")
def test_labels_are_found_with_and_without_a_nul(nss: Nss) -> None:
    """A label is found with and without a trailing NUL, whichever of them was stored; the exact one comes first."""
    slot = nss.slot
    plain = slot.create(certificate(make_certificate(name="a"), (CKA.LABEL, "plain")))
    counted = slot.create(certificate(make_certificate(name="b"), (CKA.LABEL, b"counted\0")))
    for name, handle in ((b"plain", plain), (b"counted", counted)):
        for written in (name, name + b"\0"):
            assert slot.find([(CKA.LABEL, written), (CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE)]) == [handle]
    both = slot.create(certificate(make_certificate(name="c"), (CKA.LABEL, b"plain\0")))
    assert slot.find([(CKA.LABEL, b"plain\0")]) == [both]
    assert slot.find([(CKA.LABEL, b"plain")]) == [plain]


@pytest.mark.rule("P32")
def test_one_label_for_two_subjects_is_told(nss: Nss, home: Path) -> None:
    """Two certificates of different subjects may have one label, as NSS asks for it; the log warns of it."""
    slot = nss.slot
    log = home / "keyfob.log"
    label = (CKA.LABEL, "mine")
    renewed = [slot.create(certificate(make_certificate(name="me"), label)) for _ in range(2)]
    assert "different subjects" not in log.read_text(), "a renewed certificate has the same subject"
    other = slot.create(certificate(make_certificate(name="you"), label))
    assert slot.find([label, (CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE)]) == [*renewed, other]
    assert log.read_text().count("different subjects") == 1


@pytest.mark.rule("P33")
def test_several_other_forms_in_one_search(nss: Nss) -> None:
    """Label, serial number and EC point may each be written otherwise in one and the same search."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    value = make_certificate(serial=SERIAL)
    handle = slot.create(certificate(value, (CKA.LABEL, "mine")))
    assert slot.find([(CKA.LABEL, b"mine\0"), (CKA.SERIAL_NUMBER, b"\x80\xff\x01")]) == [handle]
    assert slot.find([(CKA.SERIAL_NUMBER, b"\x80\xff\x01"), (CKA.LABEL, b"yours\0")]) == []
    with slot.rw() as session:
        public: Template = [(CKA.EC_PARAMS, P256), (CKA.TOKEN, True), (CKA.LABEL, "key")]
        key, _ = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, public, [(CKA.TOKEN, True)])
    (point,) = slot.read(key, CKA.EC_POINT)
    assert slot.find([(CKA.EC_POINT, point_of(point or b"")), (CKA.LABEL, b"key\0")]) == [key]


@pytest.mark.rule("P33")
def test_a_raw_point_that_looks_like_der_finds_its_key(nss: Nss) -> None:
    """A raw EC point finds its key even when its own first bytes (04 3F) look like the DER of an OCTET STRING."""
    raw = (
        ec.derive_private_key(111, ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    assert raw[:2] == bytes([4, len(raw) - 2])
    slot = nss.slot
    public: Template = [(CKA.CLASS, CKO.PUBLIC_KEY), (CKA.KEY_TYPE, CKK.EC), (CKA.TOKEN, True), (CKA.EC_PARAMS, P256)]
    key = slot.create([*public, (CKA.EC_POINT, b"\x04\x41" + raw)])
    assert slot.find([(CKA.EC_POINT, raw)]) == [key]
    assert slot.find([(CKA.EC_POINT, b"\x04\x41" + raw)]) == [key]


@pytest.mark.rule("O21", "O19")
def test_finding_takes_no_longer_in_a_full_token(nss: Nss) -> None:
    """Looking up by e-mail, serial number or label, in any form, hit or miss, does not walk through the token."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    searches: list[Template] = [
        [(CKA.NSS_EMAIL, b"nobody@example.org"), (CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE)],
        [(CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE), (CKA.ISSUER, b"\x30\x00"), (CKA.SERIAL_NUMBER, b"\x05")],
        [(CKA.LABEL, b"nothing"), (CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE)],
    ]

    def steps() -> int:
        """What SQLite's machine does for the searches: the module runs in this interpreter, on these connections."""
        done: list[int] = []
        for connection in apsw.connections():
            connection.trace_v2(
                apsw.SQLITE_TRACE_PROFILE,
                lambda event: done.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]),
                id=steps,
            )
        for search in searches:
            assert slot.find(search) == []
        for connection in apsw.connections():
            connection.trace_v2(0, id=steps)
        return sum(done)

    few = steps()
    assert few > 0
    with slot.rw() as session:
        for i in range(400):
            data: Template = [
                (CKA.CLASS, CKO.DATA),
                (CKA.TOKEN, True),
                (CKA.LABEL, f"object {i}"),
                (CKA.VALUE, bytes(200)),
            ]
            client.create(session, data)
    assert steps() < few + 50


@pytest.mark.rule("P3", "O8", "N13", "O11")
def test_a_bare_certificate_completes_itself(nss: Nss) -> None:
    """A certificate of CKA_VALUE alone gets type, subject, issuer, serial, validity and the CKA_ID of its key."""
    slot = nss.slot
    value = make_certificate(name="bare")
    handle = slot.create([(CKA.CLASS, CKO.CERTIFICATE), (CKA.TOKEN, True), (CKA.VALUE, value)])
    parsed = x509.load_der_x509_certificate(value)
    read = slot.read(handle, CKA.CERTIFICATE_TYPE, CKA.SUBJECT, CKA.ISSUER, CKA.PRIVATE, CKA.MODIFIABLE, CKA.START_DATE)
    assert read == [
        encoded(0),
        parsed.subject.public_bytes(),
        parsed.issuer.public_bytes(),
        b"\x00",
        b"\x01",
        b"20260101",
    ]
    numbers = parsed.public_key().public_numbers()  # type: ignore[union-attr]  # an EC key
    point = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")  # type: ignore[union-attr]
    assert slot.read(handle, CKA.ID) == [sha1(point).digest()]


@pytest.mark.rule("O8", "P18", "P19", "O7")
def test_the_nine_attributes_of_nss_without_login(nss: Nss) -> None:
    """NSS's nine attributes make a public, modifiable certificate before login and without its key."""
    slot = nss.slot
    value = make_certificate(name="nine")
    parsed = x509.load_der_x509_certificate(value)
    handle = slot.create(
        [
            (CKA.TOKEN, True),
            (CKA.CLASS, CKO.CERTIFICATE),
            (CKA.CERTIFICATE_TYPE, 0),
            (CKA.ID, b"\x01" * 20),
            (CKA.LABEL, "nine"),
            (CKA.VALUE, value),
            (CKA.ISSUER, parsed.issuer.public_bytes()),
            (CKA.SUBJECT, parsed.subject.public_bytes()),
            (CKA.SERIAL_NUMBER, serial_der(parsed)),
        ]
    )
    assert not slot.is_logged_in()
    assert slot.read(handle, CKA.PRIVATE, CKA.MODIFIABLE, CKA.ID) == [b"\x00", b"\x01", b"\x01" * 20]
    assert slot.find([(CKA.ID, b"\x01" * 20), (CKA.CLASS, CKO.PRIVATE_KEY)], 1) == []


def test_a_certificate_may_be_private(nss: Nss) -> None:
    slot = nss.slot
    slot.login(PIN)
    handle = slot.create(certificate(make_certificate(name="secret"), (CKA.PRIVATE, True)))
    assert slot.find([(CKA.CLASS, CKO.CERTIFICATE)]) == [handle]
    slot.logout()
    assert slot.find([(CKA.CLASS, CKO.CERTIFICATE)]) == []


@pytest.mark.rule("N15", "O10")
@pytest.mark.parametrize("kind", ["RSA", "EC", "Ed25519", "X25519"])
def test_keys_without_an_id_get_that_of_nss(fob: Fob, kind: str) -> None:
    """Keys made or written without CKA_ID get the SHA-1 of modulus or point, the same on both halves."""
    client = fob.client
    pairs: dict[str, tuple[int, Template]] = {
        "RSA": (CKM.RSA_PKCS_KEY_PAIR_GEN, [(CKA.MODULUS_BITS, 1024), (CKA.PUBLIC_EXPONENT, b"\x01\x00\x01")]),
        "EC": (CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)]),
        "Ed25519": (CKM.EC_EDWARDS_KEY_PAIR_GEN, [(CKA.EC_PARAMS, bytes.fromhex("06032b6570"))]),
        "X25519": (CKM.EC_MONTGOMERY_KEY_PAIR_GEN, [(CKA.EC_PARAMS, bytes.fromhex("06032b656e"))]),
    }
    mechanism, public = pairs[kind]
    extractable: Template = [(CKA.SENSITIVE, False), (CKA.EXTRACTABLE, True)]
    handles = client.generate_pair(fob.session, mechanism, public, extractable)
    attribute = CKA.MODULUS if kind == "RSA" else CKA.EC_POINT
    (value,) = client.get(fob.session, handles[0], attribute)
    raw = point_of(value or b"") if kind == "EC" else value
    expected = sha1(raw or b"").digest()
    for handle in handles:
        assert client.get(fob.session, handle, CKA.ID) == [expected]
    if kind == "RSA":
        components = [CKA.MODULUS, CKA.PUBLIC_EXPONENT, CKA.PRIVATE_EXPONENT, CKA.PRIME_1, CKA.PRIME_2]
        components += [CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT]
    else:
        components = [CKA.EC_PARAMS, CKA.VALUE]
    read = client.get(fob.session, handles[1], CKA.KEY_TYPE, *components)
    values = zip([CKA.KEY_TYPE, *components], read, strict=True)
    template: Template = [(CKA.CLASS, CKO.PRIVATE_KEY), *((a, v) for a, v in values if v is not None)]
    written = client.create(fob.session, template)
    assert client.get(fob.session, written, CKA.ID) == [expected]


TRUST: dict[str, Template] = {
    "NSS_TRUST": [
        (CKA.TOKEN, True),
        (CKA.CLASS, CKO.NSS_TRUST),
        (CKA.ISSUER, b"\x30\x00"),
        (CKA.SERIAL_NUMBER, b"\x02\x01\x07"),
        (CKA.NSS_CERT_SHA1_HASH, bytes(20)),
        (CKA.NSS_CERT_MD5_HASH, bytes(16)),
        (CKA.NSS_TRUST_SERVER_AUTH, 0xCE534352),
        (CKA.NSS_TRUST_CLIENT_AUTH, 0xCE534352),
        (CKA.NSS_TRUST_CODE_SIGNING, 0xCE534355),
        (CKA.NSS_TRUST_EMAIL_PROTECTION, 0xCE534355),
        (CKA.NSS_TRUST_STEP_UP_APPROVED, False),
    ],
    "TRUST": [
        (CKA.TOKEN, True),
        (CKA.CLASS, CKO.TRUST),
        (CKA.ISSUER, b"\x30\x00"),
        (CKA.SERIAL_NUMBER, b"\x02\x01\x07"),
        (CKA.HASH_OF_CERTIFICATE, bytes(32)),
        (CKA.NAME_HASH_ALGORITHM, CKM.SHA256),
        (CKA.TRUST_SERVER_AUTH, 2),
        (CKA.TRUST_CLIENT_AUTH, 2),
        (CKA.TRUST_CODE_SIGNING, 0),
        (CKA.TRUST_EMAIL_PROTECTION, 0),
    ],
}


@pytest.mark.rule("P16")
@pytest.mark.parametrize("kind", TRUST)
def test_trust_is_replaced_and_found(nss: Nss, kind: str) -> None:
    """A trust object takes the place of one with the same issuer and serial number, in either form of the latter."""
    slot = nss.slot
    slot.login(PIN)
    template = TRUST[kind]
    wanted = [template[0], template[1], template[2]]
    first = slot.create(template)
    second = slot.create(template)
    assert slot.find([*wanted, (CKA.SERIAL_NUMBER, b"\x02\x01\x07")]) == [second]
    assert slot.read(first, CKA.CLASS) == [None]
    raw: Template = [(a, b"\x07" if a == CKA.SERIAL_NUMBER else v) for a, v in template]
    third = slot.create(raw)
    assert slot.find([*wanted, (CKA.SERIAL_NUMBER, b"\x02\x01\x07")], 1) == [third]
    assert slot.find(wanted) == [third]
    other: Template = [(a, b"\x02\x01\x08" if a == CKA.SERIAL_NUMBER else v) for a, v in template]
    fourth = slot.create(other)
    assert slot.find(wanted) == [third, fourth]


def test_crls_and_data_are_kept_and_found(nss: Nss) -> None:
    slot = nss.slot
    crl = slot.create(
        [
            (CKA.TOKEN, True),
            (CKA.CLASS, CKO.NSS_CRL),
            (CKA.SUBJECT, b"\x30\x00"),
            (CKA.VALUE, b"crl"),
            (CKA.NSS_URL, b""),
            (CKA.NSS_KRL, False),
        ]
    )
    assert slot.find([(CKA.CLASS, CKO.NSS_CRL), (CKA.SUBJECT, b"\x30\x00")], 10) == [crl]
    smime = slot.create([(CKA.TOKEN, True), (CKA.CLASS, CKO.NSS_SMIME), (CKA.SUBJECT, b"s"), (CKA.NSS_EMAIL, b"a@b")])
    assert slot.find([(CKA.CLASS, CKO.NSS_SMIME), (CKA.TOKEN, True), (CKA.NSS_EMAIL, b"a@b")], 1) == [smime]
    data = slot.create([(CKA.TOKEN, True), (CKA.CLASS, CKO.DATA), (CKA.APPLICATION, "tests"), (CKA.VALUE, b"x")])
    assert slot.find([(CKA.CLASS, CKO.DATA), (CKA.APPLICATION, "tests")]) == [data]


@pytest.mark.rule("P12")
@pytest.mark.parametrize("given", [CKA.WRAP, CKA.UNWRAP, CKA.DECRYPT])
def test_usages_left_out_of_a_session_key_are_true(fob: Fob, given: int) -> None:
    """A session secret key with one usage in its template can be used for all; but for derivation only if asked for."""
    client: Client = fob.client
    session = client.open(fob.slot, READ_ONLY)
    template: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (given, True), (CKA.VALUE, bytes(16))]
    key = client.create(session, template)
    usages = (CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.WRAP, CKA.UNWRAP)
    assert client.get(session, key, *usages) == [b"\x01"] * len(usages)
    assert client.get(session, key, CKA.DERIVE) == [b"\x00"]
    of_hkdf = client.create(session, [*template[:1], (CKA.KEY_TYPE, CKK.HKDF), *template[2:]])
    assert client.get(session, of_hkdf, *usages, CKA.DERIVE) == [b"\x01"] * (len(usages) + 1)
    for name in ("C_EncryptInit", "C_DecryptInit"):
        assert client.call(name, session, client.mechanism(CKM.AES_CBC, bytes(16)), key) == CKR.OK
    assert client.open(fob.slot, READ_WRITE)
