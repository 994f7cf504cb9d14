"""C_GetAttributeValue as NSS reads: sizes and then values, straight into eight bytes or one, past what is missing."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from keyfob.spec.constants import CKA, CKC, CKK, CKM, CKO, CKR
from tests.client import Template, ffi
from tests.conftest import PIN
from tests.rules import nss_templates as templates
from tests.rules.nss_calls import Nss, Slot
from tests.rules.software_keys import certificate_of, ec_key, rsa_key

MISSING = 0xFFFFFFFFFFFFFFFF
HAS = templates.components(rsa_key())
CERTIFICATE = certificate_of(rsa_key())
SECRETS = (CKA.PRIVATE_EXPONENT, CKA.PRIME_1, CKA.PRIME_2, CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT)


@pytest.fixture
def slot(nss: Nss) -> Slot:
    """Of a token whose user is logged in."""
    nss.slot.login(PIN)
    return nss.slot


def entries(*wanted: tuple[int, int | None]) -> tuple[Any, list[Any]]:
    """A CK_ATTRIBUTE array of (attribute, size of its buffer; None: no buffer), and what must stay alive."""
    array, kept = ffi.new("CK_ATTRIBUTE[]", len(wanted)), []
    for i, (attribute, size) in enumerate(wanted):
        held = ffi.NULL if size is None else ffi.new("char[]", max(size, 1))
        kept.append(held)
        array[i].type, array[i].pValue, array[i].ulValueLen = attribute, held, size or 0
    return array, kept


def get(slot: Slot, handle: int, array: Any) -> int:
    return slot.client.call("C_GetAttributeValue", slot.session, handle, array, len(array))


@pytest.mark.rule("O17", "P24")
def test_sizes_and_then_values(slot: Slot) -> None:
    """Gives the sizes of all attributes for NULL buffers, and then exactly as many bytes of each."""
    handle = slot.create(templates.certificate_object(CERTIFICATE, b"id", "Mary"))
    six = (CKA.CERTIFICATE_TYPE, CKA.ID, CKA.VALUE, CKA.ISSUER, CKA.SERIAL_NUMBER, CKA.SUBJECT)
    array, _ = entries(*((attribute, None) for attribute in six))
    assert get(slot, handle, array) == CKR.OK
    sizes = [int(entry.ulValueLen) for entry in array]
    array, kept = entries(*zip(six, sizes, strict=True))
    assert get(slot, handle, array) == CKR.OK
    assert [int(entry.ulValueLen) for entry in array] == sizes
    values = [bytes(ffi.buffer(held, size)) for held, size in zip(kept, sizes, strict=True)]
    assert values[0] == CKC.X_509.to_bytes(8, "little")
    assert values[2] == CERTIFICATE.public_bytes(Encoding.DER)
    assert values[4] == templates.serial_der(CERTIFICATE)


@pytest.mark.rule("O17", "P24", "P22", "N10")
def test_the_bad_among_the_good(slot: Slot) -> None:
    """Answers all entries of a call: the missing and the sensitive get -1 and a code, the others size and value."""
    handle = slot.create(templates.rsa_private_key(rsa_key()))
    order = (CKA.MODULUS, CKA.EC_PARAMS, CKA.PRIVATE_EXPONENT, 0xCE534352, CKA.PUBLIC_EXPONENT, CKA.PRIME_1, CKA.ID)
    good = {CKA.MODULUS: HAS[CKA.MODULUS], CKA.PUBLIC_EXPONENT: templates.F4}
    good[CKA.ID] = templates.identity_of(rsa_key())
    for size in (None, 300):
        array, kept = entries(*((attribute, size) for attribute in order))
        assert get(slot, handle, array) in (CKR.ATTRIBUTE_SENSITIVE, CKR.ATTRIBUTE_TYPE_INVALID)
        for entry, held in zip(array, kept, strict=True):
            value = good.get(entry.type)
            assert entry.ulValueLen == (MISSING if value is None else len(value))
            if value is not None and size is not None:
                assert bytes(ffi.buffer(held, len(value))) == value
            elif size is not None:
                assert bytes(ffi.buffer(held, size)) == bytes(size), "nothing is written for what has no value"


@pytest.mark.rule("O17", "P24")
def test_each_reason_alone(slot: Slot) -> None:
    """Tells apart, for one attribute, what is missing, what is sensitive and what a buffer is too small for."""
    handle = slot.create(templates.rsa_private_key(rsa_key()))
    for attribute, size, rv in (
        (CKA.MODULUS, 256, CKR.OK),
        (CKA.MODULUS, 255, CKR.BUFFER_TOO_SMALL),
        (CKA.EC_PARAMS, 256, CKR.ATTRIBUTE_TYPE_INVALID),
        (CKA.NSS_EMAIL, None, CKR.ATTRIBUTE_TYPE_INVALID),
        (0xFFFFFFFF, 8, CKR.ATTRIBUTE_TYPE_INVALID),
        *((attribute, 256, CKR.ATTRIBUTE_SENSITIVE) for attribute in SECRETS),
    ):
        array, _kept = entries((attribute, size))
        assert get(slot, handle, array) == rv
        assert (array[0].ulValueLen == MISSING) is (rv != CKR.OK)


@pytest.mark.rule("P24", "O17")
def test_a_short_buffer_does_not_stop_the_others(slot: Slot) -> None:
    """Fills the other buffers of a call of which one is too small, and tells CKR_BUFFER_TOO_SMALL."""
    handle = slot.create(templates.rsa_private_key(rsa_key()))
    array, kept = entries((CKA.MODULUS, 10), (CKA.PUBLIC_EXPONENT, 3), (CKA.ID, 20))
    assert get(slot, handle, array) == CKR.BUFFER_TOO_SMALL
    assert bytes(ffi.buffer(kept[0], 10)) == bytes(10)
    assert bytes(ffi.buffer(kept[1], 3)) == templates.F4
    assert bytes(ffi.buffer(kept[2], 20)) == templates.identity_of(rsa_key())


@pytest.mark.rule("O17", "N10")
def test_numbers_and_booleans_as_the_wrapper_reads_them(slot: Slot) -> None:
    """Gives numbers straight into eight bytes and booleans into one, without the size asked for, on every object."""
    numbers: dict[str, tuple[Template, dict[int, int]]] = {
        "private": (templates.rsa_private_key(rsa_key()), {CKA.CLASS: CKO.PRIVATE_KEY, CKA.KEY_TYPE: CKK.RSA}),
        "public": (templates.ec_public_key(ec_key()), {CKA.CLASS: CKO.PUBLIC_KEY, CKA.KEY_TYPE: CKK.EC}),
        "certificate": (
            templates.certificate_object(CERTIFICATE, b"id", "Mary"),
            {CKA.CLASS: CKO.CERTIFICATE, CKA.CERTIFICATE_TYPE: CKC.X_509},
        ),
        "trust": (
            templates.nss_trust(CERTIFICATE, templates.NSS_TRUSTED),
            {CKA.CLASS: CKO.NSS_TRUST, CKA.NSS_TRUST_SERVER_AUTH: templates.NSS_TRUSTED},
        ),
        "secret": (
            [*templates.session_key(CKK.AES, CKA.ENCRYPT, bytes(24)), (CKA.TOKEN, True)],
            {CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.AES, CKA.VALUE_LEN: 24},
        ),
    }
    for name, (template, expected) in numbers.items():
        handle = slot.create(template)
        for attribute, value in expected.items():
            assert slot.ulong(handle, attribute) == value, name
        for attribute in (CKA.TOKEN, CKA.PRIVATE, CKA.MODIFIABLE):
            array, kept = entries((attribute, 1))
            assert get(slot, handle, array) == CKR.OK, name
            assert array[0].ulValueLen == 1
            assert kept[0][0] in (b"\x00", b"\x01")
        assert slot.boolean(handle, CKA.TOKEN), name


@pytest.mark.rule("O17", "N10", "P22")
@pytest.mark.parametrize("kind", ["RSA", "EC"])
def test_what_nss_reads_of_a_key_pair(slot: Slot, kind: str) -> None:
    """Gives what NSS reads of a pair's halves in its own calls, the private one sensitive or not."""
    public, private = slot.generate_rsa() if kind == "RSA" else slot.generate_ec()
    values = (CKA.MODULUS, CKA.PUBLIC_EXPONENT) if kind == "RSA" else (CKA.EC_PARAMS, CKA.EC_POINT)
    read = slot.read(public, CKA.CLASS, CKA.KEY_TYPE, *values)
    assert None not in read
    shown = values if kind == "RSA" else values[:1]
    assert slot.read(private, *shown) == slot.read(public, *shown)
    for attribute in (CKA.KEY_TYPE, CKA.CLASS):
        assert slot.ulong(private, attribute) is not None
    assert slot.read(private, CKA.ID) == slot.read(public, CKA.ID)
    assert [slot.boolean(private, a) for a in (CKA.TOKEN, CKA.PRIVATE, CKA.ALWAYS_AUTHENTICATE)] == [True, True, False]
    array, _kept = entries((CKA.ALWAYS_AUTHENTICATE, 1))
    assert get(slot, private, array) in (CKR.OK, CKR.ATTRIBUTE_TYPE_INVALID)


# Of each type of key pair: what generates it, its public part on the private key, and what stays hidden there.
PAIRS: dict[str, tuple[int, Template, tuple[int, ...], tuple[int, ...]]] = {
    "RSA": (
        CKM.RSA_PKCS_KEY_PAIR_GEN,
        [(CKA.MODULUS_BITS, 1024), (CKA.PUBLIC_EXPONENT, templates.F4)],
        (CKA.MODULUS, CKA.PUBLIC_EXPONENT),
        SECRETS,
    ),
    **{
        f"EC {curve.name}": (CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, oid)], (CKA.EC_PARAMS,), (CKA.VALUE,))
        for oid, curve in templates.CURVES.items()
    },
    "Ed25519": (
        CKM.EC_EDWARDS_KEY_PAIR_GEN,
        [(CKA.EC_PARAMS, bytes.fromhex("06032b6570"))],
        (CKA.EC_PARAMS,),
        (CKA.VALUE,),
    ),
    "X25519": (
        CKM.EC_MONTGOMERY_KEY_PAIR_GEN,
        [(CKA.EC_PARAMS, bytes.fromhex("06032b656e"))],
        (CKA.EC_PARAMS,),
        (CKA.VALUE,),
    ),
}


@pytest.mark.rule("P22", "N10")
@pytest.mark.parametrize("kind", PAIRS)
def test_the_public_part_of_every_sensitive_key(slot: Slot, kind: str) -> None:
    """Shows the public part, ID and flags of sensitive private keys of every type, and hides each secret component."""
    mechanism, parameters, shown, hidden = PAIRS[kind]
    private_template: Template = [(CKA.TOKEN, True), (CKA.PRIVATE, True), (CKA.SENSITIVE, True)]
    with slot.rw() as session:
        public, private = slot.client.generate_pair(
            session, mechanism, [*parameters, (CKA.TOKEN, True)], private_template
        )
    values = slot.read(private, *shown, CKA.ID, CKA.KEY_TYPE)
    assert None not in values
    assert values == slot.read(public, *shown, CKA.ID, CKA.KEY_TYPE)
    assert slot.boolean(private, CKA.SENSITIVE)
    for attribute in hidden:
        array, _kept = entries((attribute, None))
        assert get(slot, private, array) == CKR.ATTRIBUTE_SENSITIVE
        assert array[0].ulValueLen == MISSING


@pytest.mark.rule("O17", "P37")
def test_calls_that_ask_for_nothing_or_nonsense(slot: Slot) -> None:
    """Answers a call for no attribute, for the same one twice, and NULL for a counted template."""
    handle = slot.create(templates.ec_public_key(ec_key()))
    client = slot.client
    assert client.call("C_GetAttributeValue", slot.session, handle, ffi.NULL, 3) == CKR.ARGUMENTS_BAD
    assert client.call("C_GetAttributeValue", slot.session, handle, ffi.NULL, 0) in (CKR.OK, CKR.ARGUMENTS_BAD)
    array, kept = entries((CKA.KEY_TYPE, 8), (CKA.KEY_TYPE, 8))
    assert get(slot, handle, array) == CKR.OK
    assert bytes(ffi.buffer(kept[0], 8)) == bytes(ffi.buffer(kept[1], 8)) == CKK.EC.to_bytes(8, "little")


@pytest.mark.rule("O16")
def test_the_size_of_an_object(slot: Slot) -> None:
    """Answers C_GetObjectSize, which NSS never calls, with a size that grows with the object."""
    sizes, held = [], ffi.new("CK_ULONG *")
    for length in (0, 1000, 100_000):
        handle = slot.create([(CKA.TOKEN, True), (CKA.CLASS, CKO.DATA), (CKA.VALUE, bytes(length))])
        slot.client.ok("C_GetObjectSize", slot.session, handle, held)
        sizes.append(int(held[0]))
    assert sizes == sorted(set(sizes))
    assert sizes[2] - sizes[1] == 99_000
