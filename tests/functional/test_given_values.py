"""What a template gives beside what the token makes or computes: true, or refused (footnotes 2, 4, 6, 7)."""

from __future__ import annotations

from hashlib import sha1, sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyfob.spec.attributes import BY_CLASS, BY_KEY_TYPE, STORAGE
from keyfob.spec.constants import CKA, CKC, CKK, CKM, CKO, CKR
from keyfob.token.templates import CREATE, DERIVE, FORBIDDEN, GENERATE, KINDS, UNWRAP, USAGES, rows_of
from tests.client import RvError, Template, Value, but, ffi
from tests.conftest import Fob
from tests.functional.ways import CURVES, DIFFERENT_SECRETS, ED25519, READABLE, Way, templates_of_keys, ways
from tests.rules.certificates import make_certificate
from tests.rules.nss_templates import components
from tests.rules.software_keys import rsa_key

WAYS = ways()
# Attributes that decide what is made, so that another value is another object (or none): `ways` gives them.
DECIDING = (CKA.CLASS, CKA.KEY_TYPE, CKA.TOKEN, CKA.CERTIFICATE_TYPE)
ORIGINS = (CREATE, GENERATE, UNWRAP, DERIVE)


def candidates(attribute: int, present: bytes | None) -> list[bytes]:
    """Values to give: what the object has when nothing is given, and others of the attribute's kind."""
    others = {
        "bool": [b"\x00", b"\x01"],
        "ulong": [(1).to_bytes(8, "little"), (77).to_bytes(8, "little")],
        "date": [b"", b"20260101"],
        "ulongs": [b"", CKM.SHA256_HMAC.to_bytes(8, "little")],
        "integer": [b"\x05"],
    }.get(KINDS.get(attribute, "bytes"), [b"", b"other"])
    return [*dict.fromkeys([*([present] if present is not None else []), *others])]


@pytest.mark.parametrize("origin", ORIGINS)
def test_an_object_has_what_its_template_asked_for_or_is_not_made(fob: Fob, origin: str) -> None:
    """Every attribute of the standard's tables in every call that makes an object, true and false, alone."""
    for way in WAYS:
        if way.origin == origin and (way.object_class != CKO.SECRET_KEY or way.key_type in DIFFERENT_SECRETS):
            walk(fob, way)


@pytest.mark.long
def test_secrets_of_all_types_have_what_their_template_asked_for(fob: Fob) -> None:
    for way in WAYS:
        if way.object_class == CKO.SECRET_KEY and way.key_type not in DIFFERENT_SECRETS:
            walk(fob, way)


def walk(fob: Fob, way: Way) -> None:
    client, session = fob.client, fob.session
    plain, again = way.make(client, session, []), way.make(client, session, [])
    rows = rows_of(way.object_class, way.key_type)
    forbidden = FORBIDDEN[way.origin]
    for attribute, (_, notes) in rows.items():
        if attribute in DECIDING or attribute in dict(way.template):
            continue
        if way.name.endswith(" RSA") and attribute in BY_CLASS[way.object_class]:
            continue  # making an RSA pair takes long, and these are not of RSA: the other pairs have shown them
        (present,) = client.get(session, plain, attribute)
        repeatable = client.get(session, again, attribute) == [present]
        for value in candidates(attribute, present):
            which = way.name, hex(attribute), value
            made, rv = 0, CKR.OK
            try:
                made = way.make(client, session, [(attribute, value)])
            except RvError as refusal:
                rv = refusal.rv
            if rv != CKR.OK:
                assert (forbidden in notes and rv == CKR.ATTRIBUTE_READ_ONLY) or rv in (
                    CKR.TEMPLATE_INCONSISTENT,
                    CKR.ATTRIBUTE_VALUE_INVALID,
                    CKR.ATTRIBUTE_READ_ONLY,  # only the SO sets it
                    CKR.ATTRIBUTE_TYPE_INVALID,  # a check value of what has none
                    CKR.WRAPPED_KEY_INVALID,  # another length than was wrapped
                ), (which, hex(rv))
                assert not (forbidden not in notes and present == value and repeatable), (which, hex(rv))
                continue
            found = client.get(session, made, attribute)[0]
            written_out = not value and present and forbidden not in notes  # the default, which the token completes
            assert found == value or written_out or attribute == CKA.MODULUS_BITS, (
                way.name,
                hex(attribute),
                value,
                found,
            )
            assert not (forbidden in notes and 7 in notes), which


def test_an_attribute_of_other_objects_is_refused(fob: Fob) -> None:
    """CKR_ATTRIBUTE_TYPE_INVALID, but for usages (P21) and the length of a secret that is computed with (P12)."""
    tables = (STORAGE, *BY_CLASS.values(), *BY_KEY_TYPE.values())
    everything = {attribute for table in tables for attribute in table} - set(USAGES) - {CKA.VALUE_LEN}
    for way in WAYS:
        if way.object_class == CKO.SECRET_KEY and way.key_type not in DIFFERENT_SECRETS:
            continue
        others = everything - rows_of(way.object_class, way.key_type).keys()
        # Making an RSA pair takes long, and the rest has been walked through with EC.
        some = (CKA.EC_POINT, CKA.VALUE, CKA.TRUSTED, CKA.URL) if way.name.endswith(" RSA") else sorted(others)
        for attribute in some:
            if attribute not in others or KINDS[attribute] == "template":
                continue
            with pytest.raises(RvError) as refusal:
                way.make(fob.client, fob.session, [(attribute, candidates(attribute, None)[-1])])
            assert refusal.value.rv == CKR.ATTRIBUTE_TYPE_INVALID, (way.name, hex(attribute))


def test_the_walk_meets_every_row_that_forbids_a_value() -> None:
    """A footnote 2, 4 or 6 of a supported class and key type that no way leads past would be untested."""
    met = {(w.object_class, w.key_type, FORBIDDEN[w.origin]) for w in WAYS}
    for (object_class, key_type), rows in BY_KEY_TYPE.items():
        notes = {note for row in (*rows.values(), *BY_CLASS[object_class].values()) for note in row[1]}
        for note in notes & {2, 4, 6}:
            if note == 6 and object_class == CKO.PUBLIC_KEY:
                continue  # nothing unwraps or derives public keys
            assert (object_class, key_type, note) in met, (hex(object_class), hex(key_type), note)


def refused(fob: Fob, template: Template) -> int:
    try:
        handle = fob.client.create(fob.session, template)
    except RvError as refusal:
        return refusal.rv
    fob.client.ok("C_DestroyObject", fob.session, handle)
    return CKR.OK


AES: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, bytes(range(16)))]


def test_a_check_value_is_compared(fob: Fob) -> None:
    """A false one is CKR_ATTRIBUTE_VALUE_INVALID (section 4.10.2); an empty one switches it off; there is no other."""
    client, session = fob.client, fob.session
    (true,) = client.get(session, client.create(session, AES), CKA.CHECK_VALUE)
    assert true is not None
    assert len(true) == 3
    assert refused(fob, [*AES, (CKA.CHECK_VALUE, b"abc")]) == CKR.ATTRIBUTE_VALUE_INVALID
    handle = client.create(session, [*AES, (CKA.CHECK_VALUE, true)])
    assert client.get(session, handle, CKA.CHECK_VALUE) == [true]
    assert client.set(session, handle, [(CKA.CHECK_VALUE, true)]) == CKR.OK
    assert client.set(session, handle, [(CKA.CHECK_VALUE, b"abc")]) == CKR.ATTRIBUTE_VALUE_INVALID
    assert client.set(session, handle, [(CKA.CHECK_VALUE, b"")]) == CKR.OK
    none = client.create(session, [*AES, (CKA.CHECK_VALUE, b"")])
    assert [client.get(session, each, CKA.CHECK_VALUE) for each in (handle, none)] == [[b""], [b""]]
    assert client.set(session, none, [(CKA.CHECK_VALUE, true)]) == CKR.ATTRIBUTE_READ_ONLY
    xts: Template = but(AES, (CKA.KEY_TYPE, CKK.AES_XTS), (CKA.VALUE, bytes(range(32))))
    assert refused(fob, [*xts, (CKA.CHECK_VALUE, b"abc")]) == CKR.ATTRIBUTE_TYPE_INVALID


def test_the_public_key_info_of_a_key_is_its_own(fob: Fob) -> None:
    """It "MUST be consistent with the underlying private key data": in making, changing and copying."""
    client, session = fob.client, fob.session
    for (object_class, key_type), template in templates_of_keys().items():
        if object_class == CKO.SECRET_KEY:
            continue
        whole: Template = [(CKA.CLASS, object_class), (CKA.KEY_TYPE, key_type), *template]
        handle = client.create(session, whole)
        (info,) = client.get(session, handle, CKA.PUBLIC_KEY_INFO)
        assert info
        assert refused(fob, [*whole, (CKA.PUBLIC_KEY_INFO, info)]) == CKR.OK
        assert refused(fob, [*whole, (CKA.PUBLIC_KEY_INFO, info + b"0")]) == CKR.TEMPLATE_INCONSISTENT
        assert client.set(session, handle, [(CKA.PUBLIC_KEY_INFO, info)]) == CKR.OK
        for false in (b"", info + b"0"):
            assert client.set(session, handle, [(CKA.PUBLIC_KEY_INFO, false)]) == CKR.TEMPLATE_INCONSISTENT
            array, count, _kept = client.template([(CKA.PUBLIC_KEY_INFO, false)])
            rv = client.call("C_CopyObject", session, handle, array, count, ffi.new("CK_ULONG *"))
            assert rv == CKR.TEMPLATE_INCONSISTENT


@pytest.mark.parametrize("attribute", list(components(rsa_key())))
def test_each_component_of_an_rsa_key_is_compared(fob: Fob, attribute: int) -> None:
    whole: Template = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.RSA), *components(rsa_key()).items()]
    assert refused(fob, whole) == CKR.OK
    value = int.from_bytes(components(rsa_key())[attribute], "big")
    false = (value ^ 2).to_bytes((value.bit_length() + 7) // 8 + 1, "big")
    assert refused(fob, but(whole, (attribute, false))) in (CKR.TEMPLATE_INCONSISTENT, CKR.ATTRIBUTE_VALUE_INVALID)
    padded = b"\x00\x00" + components(rsa_key())[attribute]
    assert refused(fob, but(whole, (attribute, padded))) == CKR.OK


@pytest.mark.parametrize("bits", [1023, 1024, 2048])
def test_modulus_bits_beside_the_modulus_must_be_true(fob: Fob, bits: int) -> None:
    for object_class in (CKO.PUBLIC_KEY, CKO.PRIVATE_KEY):
        template = templates_of_keys()[object_class, CKK.RSA]
        head: Template = [(CKA.CLASS, object_class), (CKA.KEY_TYPE, CKK.RSA), (CKA.MODULUS_BITS, bits)]
        assert (refused(fob, [*head, *template]) == CKR.OK) == (bits == 1024)


@pytest.mark.parametrize("key_type", [CKK.EC, CKK.EC_EDWARDS, CKK.EC_MONTGOMERY])
def test_the_public_parts_given_to_a_generated_private_key_must_be_those_of_the_pair(fob: Fob, key_type: int) -> None:
    """pkcs11-provider and others repeat CKA_EC_PARAMS in the private template."""
    params, mechanism = CURVES[key_type]

    def made(*extra: tuple[int, Value]) -> int:
        try:
            fob.client.generate_pair(fob.session, mechanism, [(CKA.EC_PARAMS, params)], [*READABLE, *extra])
        except RvError as refusal:
            return refusal.rv
        return CKR.OK

    assert made((CKA.EC_PARAMS, params)) == CKR.OK
    other = ED25519 if params != ED25519 else bytes.fromhex("06032b656e")
    assert made((CKA.EC_PARAMS, other)) == CKR.ATTRIBUTE_READ_ONLY
    point = b"\x04" + bytes(64) if key_type == CKK.EC else bytes(32)
    assert made((CKA.EC_POINT, point)) in (CKR.TEMPLATE_INCONSISTENT, CKR.ATTRIBUTE_VALUE_INVALID)


CERTIFICATE = make_certificate(name="compared")
PARSED = x509.load_der_x509_certificate(CERTIFICATE)
KEY = PARSED.public_key()
CERTIFICATE_TEMPLATE: Template = [
    (CKA.CLASS, CKO.CERTIFICATE),
    (CKA.CERTIFICATE_TYPE, CKC.X_509),
    (CKA.VALUE, CERTIFICATE),
]
INFO = KEY.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
BITS = KEY.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.mark.parametrize(
    ("attribute", "false"),
    [
        (CKA.SUBJECT, b"0\x00"),
        (CKA.ISSUER, b"0\x00"),
        (CKA.SERIAL_NUMBER, b"\x02\x01\x63"),
        (CKA.START_DATE, b"19990101"),
        (CKA.END_DATE, b"19990101"),
        (CKA.PUBLIC_KEY_INFO, b"0\x00"),
        (CKA.CHECK_VALUE, b"abc"),
        (CKA.HASH_OF_SUBJECT_PUBLIC_KEY, bytes(20)),
    ],
)
def test_a_certificate_is_what_its_value_says(fob: Fob, attribute: int, false: bytes) -> None:
    rv = refused(fob, [*CERTIFICATE_TEMPLATE, (attribute, false)])
    assert rv == (CKR.ATTRIBUTE_VALUE_INVALID if attribute == CKA.CHECK_VALUE else CKR.TEMPLATE_INCONSISTENT)
    # What cannot be read is compared with nothing (P19).
    unread: Template = but(CERTIFICATE_TEMPLATE, (CKA.VALUE, b"no certificate"))
    assert attribute == CKA.CHECK_VALUE or refused(fob, [*unread, (attribute, false)]) == CKR.OK


@pytest.mark.rule("O21", "P20")
def test_true_attributes_of_a_certificate_in_all_their_forms(fob: Fob) -> None:
    """Takes a serial number raw or in DER and both readings of the key's hash; SUBJECT can be changed later (P20)."""
    client, session = fob.client, fob.session
    number = PARSED.serial_number
    raw = number.to_bytes(number.bit_length() // 8 + 1, "big")
    for serial in (raw, b"\x02" + bytes([len(raw)]) + raw):
        assert refused(fob, [*CERTIFICATE_TEMPLATE, (CKA.SERIAL_NUMBER, serial)]) == CKR.OK
    for hashed in (sha1(BITS).digest(), sha1(INFO).digest()):
        assert refused(fob, [*CERTIFICATE_TEMPLATE, (CKA.HASH_OF_SUBJECT_PUBLIC_KEY, hashed)]) == CKR.OK
    named: Template = [*CERTIFICATE_TEMPLATE, (CKA.NAME_HASH_ALGORITHM, CKM.SHA256)]
    assert refused(fob, [*named, (CKA.HASH_OF_SUBJECT_PUBLIC_KEY, sha256(BITS).digest())]) == CKR.OK
    handle = client.create(session, CERTIFICATE_TEMPLATE)
    assert client.set(session, handle, [(CKA.SUBJECT, b"0\x00")]) == CKR.OK
    assert client.set(session, handle, [(CKA.ISSUER, b"0\x00")]) == CKR.TEMPLATE_INCONSISTENT
    assert client.set(session, handle, [(CKA.SERIAL_NUMBER, b"\x02\x01\x63")]) == CKR.TEMPLATE_INCONSISTENT
    assert client.set(session, handle, [(CKA.SERIAL_NUMBER, raw)]) == CKR.OK


# What the standard's tables say is empty by default.
EMPTY = {
    CKO.DATA: {CKA.LABEL, CKA.APPLICATION, CKA.OBJECT_ID, CKA.VALUE},
    CKO.CERTIFICATE: {
        *(CKA.LABEL, CKA.ID, CKA.URL, CKA.HASH_OF_SUBJECT_PUBLIC_KEY, CKA.HASH_OF_ISSUER_PUBLIC_KEY),
        *(CKA.START_DATE, CKA.END_DATE, CKA.PUBLIC_KEY_INFO, CKA.ISSUER, CKA.SERIAL_NUMBER, CKA.SUBJECT, CKA.VALUE),
    },
    CKO.PUBLIC_KEY: {CKA.LABEL, CKA.ID, CKA.START_DATE, CKA.END_DATE, CKA.SUBJECT},
    CKO.PRIVATE_KEY: {CKA.LABEL, CKA.ID, CKA.START_DATE, CKA.END_DATE, CKA.SUBJECT},
    CKO.SECRET_KEY: {CKA.LABEL, CKA.ID, CKA.START_DATE, CKA.END_DATE},
}
ALL = sorted({value for name, value in vars(CKA).items() if not name.startswith("_") and isinstance(value, int)})
NOT_X_509: Template = [(CKA.CLASS, CKO.CERTIFICATE), (CKA.CERTIFICATE_TYPE, CKC.X_509), (CKA.VALUE, b"none")]
BY_URL: Template = [(CKA.CLASS, CKO.CERTIFICATE), (CKA.CERTIFICATE_TYPE, CKC.X_509), (CKA.URL, "http://example/")]


@pytest.mark.parametrize("stored", [False, True])
def test_what_is_answered_is_found_and_what_an_object_lacks_is_not_answered(fob: Fob, *, stored: bool) -> None:
    """All attributes of all kinds of objects: a search for each value of a C_GetAttributeValue finds the object."""
    client, session = fob.client, fob.session
    token: Template = [(CKA.TOKEN, stored)]
    handles = [way.make(client, session, token) for way in WAYS if way.name != "public RSA"]
    handles += [client.create(session, [*t, *token]) for t in (NOT_X_509, BY_URL, [*AES, (CKA.CHECK_VALUE, b"")])]
    handles += client.find(session, [(CKA.CLASS, CKO.PROFILE)])
    for handle in handles:
        object_class, key_type = (
            int.from_bytes(value, "little") if value is not None else None
            for value in client.get(session, handle, CKA.CLASS, CKA.KEY_TYPE)
        )
        assert object_class is not None
        for attribute, value in zip(ALL, client.get(session, handle, *ALL), strict=True):
            if value is None:
                continue
            which = (hex(object_class), key_type, hex(attribute), value)
            assert attribute in rows_of(object_class, key_type), which
            switched_off = attribute == CKA.CHECK_VALUE
            assert value or attribute in EMPTY.get(object_class, {CKA.LABEL}) or switched_off, which
            assert handle in client.find(session, [(CKA.CLASS, object_class), (attribute, value)], 512), which


def test_a_value_that_another_object_has_is_not_found(fob: Fob) -> None:
    """A search for what is computed compares it: it does not find whatever has the rest."""
    client, session = fob.client, fob.session
    for stored in (False, True):
        handle = client.create(session, [*AES, (CKA.TOKEN, stored)])
        (true,) = client.get(session, handle, CKA.CHECK_VALUE)
        assert true is not None
        assert client.find(session, [(CKA.CHECK_VALUE, true), (CKA.TOKEN, stored)]) == [handle]
        for false in (b"abc", b""):
            assert client.find(session, [(CKA.CHECK_VALUE, false), (CKA.CLASS, CKO.SECRET_KEY)]) == []
        assert client.find(session, [(CKA.URL, b"")]) == []
