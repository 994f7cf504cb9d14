"""Keys that were made elsewhere: PKCS #12, PKCS #8, keys that NSS generates itself; and their way out again."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKR
from tests.client import Client, RvError, Template, ffi
from tests.conftest import PIN
from tests.rules import nss_templates as templates
from tests.rules.nss_calls import Nss, Slot
from tests.rules.software_keys import certificate_of, der_signature, ec_key, rsa_key

MESSAGE = b"signed by a key that came from elsewhere"
WRAPPERS = {"AES": (CKK.AES, CKM.AES_CBC_PAD, 16), "3DES": (CKK.DES3, CKM.DES3_CBC_PAD, 8)}
ED25519 = bytes.fromhex("06032b6570")


def cipher(name: str, key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    return Cipher(algorithms.AES(key) if name == "AES" else TripleDES(key), modes.CBC(iv))


def run(context: CipherContext, data: bytes) -> bytes:
    return context.update(data) + context.finalize()


def wrapped(name: str, key: bytes, iv: bytes, plain: bytes) -> bytes:
    """As the maker of a PKCS #12 file does it."""
    padder = PKCS7(8 * len(iv)).padder()
    return run(cipher(name, key, iv).encryptor(), padder.update(plain) + padder.finalize())


def unwrapped(name: str, key: bytes, iv: bytes, data: bytes) -> bytes:
    """As the reader of a PKCS #12 file does it."""
    unpadder = PKCS7(8 * len(iv)).unpadder()
    return unpadder.update(run(cipher(name, key, iv).decryptor(), data)) + unpadder.finalize()


def pkcs8(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def check_rsa(slot: Slot, handle: int, key: rsa.RSAPrivateKey) -> None:
    """The key on the token signs and decrypts as this one."""
    signature = slot.sign(handle, slot.client.mechanism(CKM.SHA256_RSA_PKCS), MESSAGE, key.key_size // 8)
    key.public_key().verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    secret = key.public_key().encrypt(MESSAGE, padding.PKCS1v15())
    with slot.ro() as session:
        slot.client.ok("C_DecryptInit", session, slot.client.mechanism(CKM.RSA_PKCS), handle)
        assert slot.client.output("C_Decrypt", session, secret, len(secret)) == MESSAGE


def check_ec(slot: Slot, handle: int, key: ec.EllipticCurvePrivateKey) -> None:
    size = 2 * len(templates.scalar(key))
    signature = slot.sign(handle, slot.client.mechanism(CKM.ECDSA_SHA256), MESSAGE, size)
    assert len(signature) == size
    key.public_key().verify(der_signature(signature), MESSAGE, ec.ECDSA(hashes.SHA256()))


def check_read_back(slot: Slot, handle: int, key: rsa.RSAPrivateKey) -> None:
    """What NSS reads of a private key that it has just written (pk11_MakePrivKey and what follows)."""
    has = templates.components(key)
    assert slot.ulong(handle, CKA.CLASS) == CKO.PRIVATE_KEY
    assert slot.ulong(handle, CKA.KEY_TYPE) == CKK.RSA
    for attribute in (CKA.TOKEN, CKA.PRIVATE, CKA.SENSITIVE):
        assert slot.boolean(handle, attribute)
    shown = (CKA.MODULUS, CKA.PUBLIC_EXPONENT, CKA.ID)
    assert slot.read(handle, *shown) == [has[shown[0]], has[shown[1]], templates.identity_of(key)]
    assert not slot.boolean(handle, CKA.ALWAYS_AUTHENTICATE)


@pytest.mark.rule("O1", "O2", "N9", "N10", "P1")
@pytest.mark.parametrize("bits", [1024, 2048, 3072])
@pytest.mark.parametrize("template", [templates.rsa_private_key, templates.rsa_private_key_twice_said])
def test_an_rsa_key_that_nss_generated(nss: Nss, template: object, bits: int) -> None:
    """Takes NSS's 19 attributes of an RSA key and the 22 of NSS 3.116 to 3.124, of which the last TOKEN counts."""
    nss.slot.login(PIN)
    key = rsa_key(bits, bits)
    sent: Template = template(key)  # type: ignore[operator]  # one of the two above
    assert len(sent) == (22 if template is templates.rsa_private_key_twice_said else 19)
    handle = nss.slot.create(sent)
    check_read_back(nss.slot, handle, key)
    check_rsa(nss.slot, handle, key)
    for attribute in (CKA.DERIVE, CKA.DECAPSULATE):
        assert not nss.slot.boolean(handle, attribute)


@pytest.mark.rule("P1")
@pytest.mark.parametrize(
    "template",
    [
        [*templates.rsa_private_key(rsa_key()), (CKA.TOKEN, False)],
        [*templates.rsa_private_key(rsa_key()), (CKA.TOKEN, False), (CKA.TOKEN, True)],
        [(CKA.SENSITIVE, False), *templates.rsa_private_key_twice_said(rsa_key())],
        [(CKA.LABEL, "one"), *templates.rsa_private_key(rsa_key()), (CKA.LABEL, "other")],
        [(CKA.TOKEN, False), *templates.ec_private_key(ec_key())],
        [(CKA.TOKEN, False), *templates.rsa_public_key(rsa_key())],
        [(CKA.TOKEN, False), (CKA.TOKEN, True), (CKA.CLASS, CKO.DATA)],
    ],
)
def test_two_values_for_one_attribute_are_inconsistent(nss: Nss, template: Template) -> None:
    """Refuses two values for one attribute in all other templates and in other orders (CKR_TEMPLATE_INCONSISTENT)."""
    nss.slot.login(PIN)
    with pytest.raises(RvError) as refusal:
        nss.slot.create(template)
    assert refusal.value.rv == CKR.TEMPLATE_INCONSISTENT


@pytest.mark.rule("P1")
def test_two_values_are_inconsistent_in_changing_and_copying(nss: Nss) -> None:
    """Refuses them in C_SetAttributeValue and C_CopyObject too; the same value twice is one."""
    nss.slot.login(PIN)
    handle = nss.slot.create(templates.rsa_private_key(rsa_key()))
    for attribute, one, other in ((CKA.LABEL, b"one", b"other"), (CKA.TOKEN, False, True)):
        template: Template = [(attribute, one), (attribute, other)]
        assert nss.slot.set(handle, template) == CKR.TEMPLATE_INCONSISTENT
        array, count, _kept = nss.client.template(template)
        rv = nss.client.call("C_CopyObject", nss.slot.session, handle, array, count, ffi.new("CK_ULONG *"))
        assert rv == CKR.TEMPLATE_INCONSISTENT
    assert nss.slot.set(handle, [(CKA.LABEL, "same"), (CKA.LABEL, "same")]) == CKR.OK


@pytest.mark.rule("P1", "P21")
@pytest.mark.parametrize("said", [True, False])
def test_encapsulation_is_no_usage_of_these_keys(nss: Nss, *, said: bool) -> None:
    """Takes CKA_ENCAPSULATE and CKA_DECAPSULATE on RSA and EC keys, true or false, and lets no key do more for it."""
    nss.slot.login(PIN)
    usages: Template = [(CKA.ENCAPSULATE, said), (CKA.DECAPSULATE, said)]
    for template in (templates.rsa_private_key(rsa_key()), templates.ec_private_key(ec_key())):
        handle = nss.slot.create([*template, *usages])
        assert nss.slot.boolean(handle, CKA.SIGN)
        assert nss.slot.set(handle, usages) == CKR.OK


@pytest.mark.rule("O1", "O2")
@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
def test_an_ec_key_that_nss_generated(nss: Nss, curve: str) -> None:
    """Takes NSS's 10 attributes of an EC key; it signs as the original does."""
    nss.slot.login(PIN)
    key = ec_key(1, curve)
    sent = templates.ec_private_key(key)
    assert len(sent) == 10
    handle = nss.slot.create(sent)
    assert nss.slot.read(handle, CKA.EC_PARAMS, CKA.ID) == [templates.curve_of(key), templates.identity_of(key)]
    assert nss.slot.read(handle, CKA.VALUE) == [None]
    check_ec(nss.slot, handle, key)


@pytest.mark.rule("O3", "P33", "N9")
@pytest.mark.parametrize("label", ["", "Mary's key"])
def test_keys_from_a_pkcs8_bag(nss: Nss, label: str) -> None:
    """Takes keys from unencrypted PKCS #8 bags; an EC key's raw public point on the private key is no obstacle."""
    slot = nss.slot
    slot.login(PIN)
    handle = slot.create(templates.rsa_key_bag(rsa_key(), label))
    check_rsa(slot, handle, rsa_key())
    assert slot.read(handle, CKA.LABEL) == [label.encode()]
    handle = slot.create(templates.ec_key_bag(ec_key(), label))
    check_ec(slot, handle, ec_key())
    assert slot.find([(CKA.EC_POINT, templates.point(ec_key()))], 1) == [handle]


@pytest.mark.rule("O3", "N15")
def test_an_edwards_key_from_a_pkcs8_bag(nss: Nss) -> None:
    """Takes an Ed25519 key without CKA_ID, gives it the SHA-1 of its public key, and signs with it."""
    nss.slot.login(PIN)
    key = ed25519.Ed25519PrivateKey.generate()
    value = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    handle = nss.slot.create(templates.edwards_key_bag(ED25519, value))
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    digest = hashes.Hash(hashes.SHA1())
    digest.update(public)
    assert nss.slot.read(handle, CKA.ID) == [digest.finalize()]
    key.public_key().verify(nss.slot.sign(handle, nss.client.mechanism(CKM.EDDSA), MESSAGE, 64), MESSAGE)


def unwrap(slot: Slot, name: str, data: bytes, secret: bytes, iv: bytes, template: Template) -> int:
    """pk12util -i: the PBE key to the token, C_UnwrapKey in a read-write session, the PBE key destroyed."""
    client: Client = slot.client
    key_type, mechanism, _ = WRAPPERS[name]
    handle = ffi.new("CK_ULONG *")
    array, count, _kept = client.template(template)
    with slot.ro() as session:
        wrapping = client.create(session, templates.session_key(key_type, CKA.UNWRAP, secret))
        with slot.rw() as writing:
            held = client.mechanism(mechanism, iv)
            client.ok("C_UnwrapKey", writing, held, wrapping, data, len(data), array, count, handle)
        client.ok("C_DestroyObject", session, wrapping)
    return int(handle[0])


@pytest.mark.rule("O3", "P1", "N11", "P20")
@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("kind", [CKK.RSA, CKK.EC])
def test_pk12util_imports_a_key_and_its_certificate(nss: Nss, name: str, kind: int) -> None:
    """Unwraps PKCS #8 with AES-CBC-PAD and DES3-CBC-PAD, so that pk12util -i need not write components at all."""
    slot = nss.slot
    slot.login(PIN)
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = rsa_key() if kind == CKK.RSA else ec_key()
    identity = templates.identity_of(key)
    certificate = certificate_of(key)
    secret, iv = os.urandom(32 if name == "AES" else 24), os.urandom(WRAPPERS[name][2])
    assert slot.find(templates.of_id(identity, CKO.PRIVATE_KEY), 1) == []
    template = templates.unwrapped_private_key(kind, "Mary", identity)
    handle = unwrap(slot, name, wrapped(name, secret, iv, pkcs8(key)), secret, iv, template)
    public = templates.rsa_public_key(key) if isinstance(key, rsa.RSAPrivateKey) else templates.ec_public_key(key)
    twice = [slot.create(public), slot.create(public)]
    assert slot.find(templates.of_id(identity, CKO.PUBLIC_KEY)) == twice
    assert slot.find(templates.of_id(identity, CKO.PRIVATE_KEY), 1) == [handle]
    subject = certificate.subject.public_bytes()
    assert slot.set(handle, [(CKA.LABEL, "Mary"), (CKA.ID, identity), (CKA.SUBJECT, subject)]) == CKR.OK
    stored = slot.create(templates.certificate_object(certificate, identity, "Mary"))
    assert slot.read(stored, CKA.ID, CKA.CLASS)[0] == slot.read(handle, CKA.ID)[0] == identity
    if isinstance(key, rsa.RSAPrivateKey):
        check_read_back(slot, handle, key)
        check_rsa(slot, handle, key)
    else:
        check_ec(slot, handle, key)


@pytest.mark.rule("O3", "K12")
def test_a_key_that_does_not_unwrap_leaves_nothing_behind(nss: Nss) -> None:
    """Refuses what does not unwrap to a key of the asked type with a code, and keeps no half key."""
    slot = nss.slot
    slot.login(PIN)
    secret, iv = bytes(32), bytes(16)
    before = slot.find([])
    for plain, kind in ((b"no key", CKK.RSA), (pkcs8(ec_key()), CKK.RSA), (pkcs8(rsa_key()), CKK.EC)):
        template = templates.unwrapped_private_key(kind, "x", b"x")
        with pytest.raises(RvError) as refusal:
            unwrap(slot, "AES", wrapped("AES", secret, iv, plain), secret, iv, template)
        assert refusal.value.rv in (CKR.WRAPPED_KEY_INVALID, CKR.TEMPLATE_INCONSISTENT)
    with pytest.raises(RvError) as refusal:
        unwrap(slot, "AES", bytes(33), secret, iv, templates.unwrapped_private_key(CKK.RSA, "x", b"x"))
    assert refusal.value.rv in (CKR.WRAPPED_KEY_INVALID, CKR.WRAPPED_KEY_LEN_RANGE)
    assert slot.find([]) == before


@pytest.mark.rule("P15", "O5", "O2")
@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("kind", [CKK.RSA, CKK.EC])
def test_an_imported_key_leaves_again_under_a_wrapping_key(nss: Nss, name: str, kind: int) -> None:
    """Wraps an imported key for pk12util -o on the read-only default session, after the size was asked for."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = rsa_key() if kind == CKK.RSA else ec_key()
    template = templates.rsa_private_key(key) if isinstance(key, rsa.RSAPrivateKey) else templates.ec_private_key(key)
    handle = slot.create(template)
    secret, iv = os.urandom(32 if name == "AES" else 24), os.urandom(WRAPPERS[name][2])
    key_type = CKK.GENERIC_SECRET if name == "AES" else CKK.DES3
    with slot.ro() as session:
        wrapping = client.create(session, templates.session_key(key_type, CKA.WRAP, secret))
        mechanism = client.mechanism(WRAPPERS[name][1], iv)
        length = ffi.new("CK_ULONG *")
        client.ok("C_WrapKey", slot.session, mechanism, wrapping, handle, ffi.NULL, length)
        held, size = ffi.new("char[]", length[0]), length[0]
        client.ok("C_WrapKey", slot.session, mechanism, wrapping, handle, held, length)
        assert length[0] <= size
        data = bytes(ffi.buffer(held, length[0]))
    exported = serialization.load_der_private_key(unwrapped(name, secret, iv, data), None)
    assert isinstance(exported, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    assert exported.private_numbers() == key.private_numbers()


@pytest.mark.rule("P15")
def test_a_wrapping_key_of_a_wrong_length_is_told(nss: Nss) -> None:
    """Refuses to wrap under a GENERIC_SECRET key that is no AES key's length, with a code about that key."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    handle = slot.create(templates.ec_private_key(ec_key()))
    length = ffi.new("CK_ULONG *")
    for size in (1, 15, 20, 33):
        wrapping = client.create(slot.session, templates.session_key(CKK.GENERIC_SECRET, CKA.WRAP, bytes(size)))
        mechanism = client.mechanism(CKM.AES_CBC_PAD, bytes(16))
        rv = client.call("C_WrapKey", slot.session, mechanism, wrapping, handle, ffi.NULL, length)
        assert rv in (CKR.WRAPPING_KEY_SIZE_RANGE, CKR.WRAPPING_KEY_TYPE_INCONSISTENT)


@pytest.mark.rule("O5")
def test_an_insensitive_key_can_be_read_out(nss: Nss) -> None:
    """Gives all components of a key that was made with SENSITIVE = false, as NSS reads them to move it."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    has = templates.components(rsa_key())
    template = [(a, v) for a, v in templates.rsa_private_key(rsa_key()) if a != CKA.SENSITIVE]
    handle = slot.create([*template, (CKA.SENSITIVE, False)])
    assert slot.read(handle, *has) == list(has.values())
    moved = slot.create([*template, (CKA.SENSITIVE, True), (CKA.LABEL, "moved")])
    check_rsa(slot, moved, rsa_key())
    assert slot.read(moved, *has)[2:] == [None] * 6
    assert client.set(slot.session, handle, [(CKA.SENSITIVE, True)]) == CKR.SESSION_READ_ONLY
    assert slot.set(handle, [(CKA.SENSITIVE, True)]) == CKR.OK
    assert slot.read(handle, CKA.PRIVATE_EXPONENT) == [None]


@pytest.mark.rule("O5", "O4", "N8")
def test_a_secret_key_moves_between_slots(nss: Nss) -> None:
    """Gives the value of a session key, and wraps it under an RSA public key: both ways in which NSS moves keys."""
    slot, client = nss.slot, nss.client
    value = bytes(range(16))
    with slot.ro() as session:
        secret = client.create(session, templates.session_key(CKK.AES, CKA.ENCRYPT, value))
        assert slot.read(secret, CKA.VALUE) == [value]
        assert slot.ulong(secret, CKA.KEY_TYPE) == CKK.AES
        public = client.create(session, templates.rsa_public_key(rsa_key(), token=False))
        data = client.output("C_WrapKey", session, client.mechanism(CKM.RSA_PKCS), public, secret)
    assert rsa_key().decrypt(data, padding.PKCS1v15()) == value
