"""The pitfalls P3 to P38 as NSS calls, where no test of another rule proves them."""

from __future__ import annotations

import datetime as dt
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.x509.oid import NameOID

from keyfob.spec.constants import CKA, CKD, CKF, CKG, CKK, CKM, CKO, CKR
from tests.client import RSA_2048, Client, Template, ffi
from tests.conftest import PIN
from tests.rules.nss_calls import Nss, Slot, key_id, make_token, point_of, start

HASHES = {
    CKM.SHA_1: (CKG.MGF1_SHA1, hashes.SHA1()),
    CKM.SHA224: (CKG.MGF1_SHA224, hashes.SHA224()),
    CKM.SHA256: (CKG.MGF1_SHA256, hashes.SHA256()),
    CKM.SHA384: (CKG.MGF1_SHA384, hashes.SHA384()),
    CKM.SHA512: (CKG.MGF1_SHA512, hashes.SHA512()),
}


def certificate_of(key: Any, common_name: str = "Mary", organisation: str = "Example") -> x509.Certificate:
    """Self-signed."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + dt.timedelta(1))
    ).sign(key, hashes.SHA256())


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def rsa_public(slot: Slot, handle: int) -> rsa.RSAPublicKey:
    modulus, exponent = (int.from_bytes(value or b"") for value in slot.read(handle, CKA.MODULUS, CKA.PUBLIC_EXPONENT))
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


# Certificates


@pytest.mark.rule("P3", "N13")
def test_a_certificate_that_came_with_its_value_only_is_completed(nss: Nss) -> None:
    """Fills in subject, issuer, serial number and ID of a certificate from its value; it is public and modifiable."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certificate_of(key)
    kind: Template = [(CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE), (CKA.CERTIFICATE_TYPE, 0)]
    nss.slot.create([*kind, (CKA.VALUE, der(certificate))])
    serial = b"\x02%c" % ((certificate.serial_number.bit_length() // 8) + 1)
    serial += certificate.serial_number.to_bytes(serial[1])
    issuer = certificate.issuer.public_bytes()
    wanted: Template = [*kind[:2], (CKA.ISSUER, issuer), (CKA.SERIAL_NUMBER, serial)]
    (found,) = nss.slot.find(wanted, 1)
    point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    assert nss.slot.read(found, CKA.SUBJECT, CKA.ID) == [issuer, key_id(point)]
    assert not nss.slot.boolean(found, CKA.PRIVATE)
    assert nss.slot.boolean(found, CKA.MODIFIABLE)


@pytest.mark.rule("P3", "N18")
def test_before_the_login_a_certificate_is_known_as_the_users_own(nss: Nss) -> None:
    """Shows the public key of a pair before the login, so that NSS knows the user's own certificates."""
    nss.slot.login(PIN)
    public, _ = nss.slot.generate_rsa()
    identity = nss.slot.read(public, CKA.ID)[0] or b""
    nss.slot.logout()
    assert nss.slot.find([(CKA.ID, identity), (CKA.CLASS, CKO.PUBLIC_KEY)], 1) == [public]
    assert nss.slot.find([(CKA.ID, identity), (CKA.CLASS, CKO.PRIVATE_KEY)], 1) == []


@pytest.mark.rule("P32")
def test_the_program_gives_certificates_of_different_subjects_different_labels(home: Path, tmp_path: Path) -> None:
    """`keyfob cert import` labels certificates of different subjects differently, as NSS's cache needs it."""
    make_token("names")
    for organisation in ("One", "Two"):
        file = tmp_path / f"{organisation}.der"
        file.write_bytes(der(certificate_of(ec.generate_private_key(ec.SECP256R1()), "Mary", organisation)))
        subprocess.run([sys.executable, "-m", "keyfob.cli", "cert", "import", "names", file], check=True)
    command = [sys.executable, "-m", "keyfob.cli", "list", "names"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert shown.count("Mary") >= 2
    assert "Mary #2" in shown


# Signing


@pytest.mark.rule("P4", "K3")
@pytest.mark.parametrize("hashed", [CKM.SHA256, CKM.SHA384, CKM.SHA512])
def test_the_plain_pss_mechanism_signs_for_tls_13(nss: Nss, hashed: int) -> None:
    """Lists CKM_RSA_PKCS_PSS and signs a given hash with SHA-256, SHA-384 and SHA-512, the salt as long as the hash."""
    slot, (mgf, algorithm) = nss.slot, HASHES[hashed]
    assert CKM.RSA_PKCS_PSS in slot.mechanisms
    slot.login(PIN)
    public, private = slot.generate_rsa()
    parameter = ffi.new("CK_RSA_PKCS_PSS_PARAMS *", (hashed, mgf, algorithm.digest_size))
    digest = hashes.Hash(algorithm)
    digest.update(b"certificate verify")
    mechanism = nss.client.mechanism(CKM.RSA_PKCS_PSS, parameter)
    signature = slot.sign(private, mechanism, digest.finalize(), 256)
    pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    rsa_public(slot, public).verify(signature, b"certificate verify", pss, algorithm)


@pytest.mark.rule("P5")
@pytest.mark.parametrize("asked", [True, False])
def test_streaming_signatures_with_a_key_that_asks_each_time(nss: Nss, *, asked: bool) -> None:
    """A key that asks each time signs in parts after a context-specific login, and never without one."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    with slot.rw() as session:
        always: Template = [(CKA.TOKEN, True), (CKA.ALWAYS_AUTHENTICATE, True)]
        _, private = client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, RSA_2048, always)
    with slot.ro() as session:
        client.ok("C_SignInit", session, client.mechanism(CKM.SHA256_RSA_PKCS), private)
        if asked:
            client.ok("C_Login", session, 2, PIN, len(PIN))
        rv = client.call("C_SignUpdate", session, b"part", 4)
    assert rv == (CKR.OK if asked else CKR.USER_NOT_LOGGED_IN)


@pytest.mark.rule("P22", "N10")
def test_private_keys_show_their_public_part(nss: Nss) -> None:
    """Gives modulus, public exponent and curve of sensitive private keys; the secret values it does not."""
    slot = nss.slot
    slot.login(PIN)
    public, private = slot.generate_rsa()
    shown = (CKA.MODULUS, CKA.PUBLIC_EXPONENT, CKA.ID)
    assert slot.boolean(private, CKA.SENSITIVE)
    assert slot.read(private, *shown) == slot.read(public, *shown)
    assert slot.read(private, CKA.PRIVATE_EXPONENT, CKA.PRIME_1) == [None, None]
    public, private = slot.generate_ec()
    assert slot.read(private, CKA.EC_PARAMS) == slot.read(public, CKA.EC_PARAMS)
    assert slot.read(private, CKA.VALUE) == [None]


# Encrypted mail


def content_key(slot: Slot, session: int, unwrapping: int, mechanism: Any, wrapped: bytes, usage: int) -> int:
    """C_UnwrapKey of a content key with one usage only, as NSS asks for it (pk11_AnyUnwrapKey)."""
    array, count, _kept = slot.client.template([(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (usage, True)])
    handle = ffi.new("CK_ULONG *")
    slot.client.ok("C_UnwrapKey", session, mechanism, unwrapping, wrapped, len(wrapped), array, count, handle)
    return int(handle[0])


def decrypted(client: Client, session: int, key: int, iv: bytes, data: bytes) -> bytes:
    client.ok("C_DecryptInit", session, client.mechanism(CKM.AES_CBC, iv), key)
    return client.output("C_Decrypt", session, data, len(data))


def encrypted(key: bytes, iv: bytes, text: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(text) + encryptor.finalize()


@pytest.mark.rule("P14", "K4", "K10", "N8")
@pytest.mark.parametrize("hashed", HASHES)
@pytest.mark.parametrize("mgf", [CKM.SHA_1, CKM.SHA256])
def test_mail_with_oaep_is_decrypted(nss: Nss, hashed: int, mgf: int) -> None:
    """Unwraps with OAEP for hashes from SHA-1 to SHA-512 and different MGF1, source NULL, in a read-only session."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    public, private = slot.generate_rsa()
    secret, iv, text = bytes(range(32)), bytes(16), b"sixteen bytes..." * 4
    oaep = padding.OAEP(padding.MGF1(HASHES[mgf][1]), HASHES[hashed][1], None)
    wrapped = rsa_public(slot, public).encrypt(secret, oaep)
    parameter = ffi.new("CK_RSA_PKCS_OAEP_PARAMS *", (hashed, HASHES[mgf][0], 1, ffi.NULL, 0))
    with slot.ro() as session:
        mechanism = client.mechanism(CKM.RSA_PKCS_OAEP, parameter)
        key = content_key(slot, session, private, mechanism, wrapped, CKA.DECRYPT)
        assert decrypted(client, session, key, iv, encrypted(secret, iv, text)) == text


KDFS = {
    CKD.SHA1_KDF: hashes.SHA1(),
    CKD.SHA224_KDF: hashes.SHA224(),
    CKD.SHA256_KDF: hashes.SHA256(),
    CKD.SHA384_KDF: hashes.SHA384(),
    CKD.SHA512_KDF: hashes.SHA512(),
}


@pytest.mark.rule("P12", "P13", "P33", "K4")
@pytest.mark.parametrize("kdf", KDFS)
@pytest.mark.parametrize("as_der", [False, True])
def test_mail_to_an_ec_key_is_decrypted(nss: Nss, kdf: int, *, as_der: bool) -> None:
    """Derives with each KDF and shared info from raw and DER points; keys with NSS's odd usages unwrap and decrypt."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    public, private = slot.generate_ec()
    own = point_of(slot.read(public, CKA.EC_POINT)[0] or b"")
    sender = ec.generate_private_key(ec.SECP256R1())
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), own)
    shared, info = sender.exchange(ec.ECDH(), theirs), bytes(range(23))
    kek = X963KDF(KDFS[kdf], 32, info).derive(shared)
    secret, iv, text = bytes(range(16)), bytes(16), b"sixteen bytes..." * 3
    sent = sender.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    if as_der:
        sent = b"\x04\x41" + sent
    held, shared_data = ffi.new("CK_BYTE[]", sent), ffi.new("CK_BYTE[]", info)
    parameter = ffi.new("CK_ECDH1_DERIVE_PARAMS *", (kdf, len(info), shared_data, len(sent), held))
    template: Template = [
        (CKA.CLASS, CKO.SECRET_KEY),
        (CKA.KEY_TYPE, CKK.AES),
        (CKA.WRAP, True),
        (CKA.VALUE_LEN, 32),
    ]
    array, count, _kept = client.template(template)
    derived = ffi.new("CK_ULONG *")
    with slot.ro() as session:
        mechanism = client.mechanism(CKM.ECDH1_DERIVE, parameter)
        client.ok("C_DeriveKey", session, mechanism, private, array, count, derived)
        wrapped = aes_key_wrap(kek, secret)
        key = content_key(slot, session, derived[0], client.mechanism(CKM.AES_KEY_WRAP), wrapped, CKA.UNWRAP)
        assert decrypted(client, session, key, iv, encrypted(secret, iv, text)) == text


# Keys


def wrapping_key(client: Client, session: int, value: bytes) -> int:
    """What pk12util -o makes: of type GENERIC_SECRET, with nothing but CKA_WRAP."""
    return client.create(
        session,
        [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), (CKA.WRAP, True), (CKA.VALUE, value)],
    )


@pytest.mark.rule("P15", "K12")
@pytest.mark.parametrize("size", [16, 24, 32])
def test_an_extractable_key_is_exported_from_a_read_only_session(nss: Nss, size: int) -> None:
    """Wraps an extractable private key with AES-CBC-PAD on NSS's read-only session, under a GENERIC_SECRET key."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    with slot.rw() as session:
        extractable: Template = [(CKA.TOKEN, True), (CKA.EXTRACTABLE, True)]
        public, private = client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, RSA_2048, extractable)
        numbers = rsa_public(slot, public).public_numbers()
    secret, iv = bytes(range(size)), bytes(16)
    with slot.ro() as session:
        wrapping = wrapping_key(client, session, secret)
        mechanism = client.mechanism(CKM.AES_CBC_PAD, iv)
        wrapped = client.output("C_WrapKey", slot.session, mechanism, wrapping, private)
    decryptor = Cipher(algorithms.AES(secret), modes.CBC(iv)).decryptor()
    padded = decryptor.update(wrapped) + decryptor.finalize()
    exported = serialization.load_der_private_key(padded[: -padded[-1]], None)
    assert isinstance(exported, rsa.RSAPrivateKey)
    assert exported.public_key().public_numbers() == numbers


@pytest.mark.rule("P15")
def test_a_key_that_was_generated_here_stays_here(nss: Nss) -> None:
    """Does not export a key whose template did not say EXTRACTABLE: CKR_KEY_UNEXTRACTABLE."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    _, private = slot.generate_rsa()
    wrapping, length = wrapping_key(client, slot.session, bytes(32)), ffi.new("CK_ULONG *")
    mechanism = client.mechanism(CKM.AES_CBC_PAD, bytes(16))
    rv = client.call("C_WrapKey", slot.session, mechanism, wrapping, private, ffi.NULL, length)
    assert rv == CKR.KEY_UNEXTRACTABLE


@pytest.mark.rule("P20", "O18", "N11")
def test_label_id_and_subject_of_a_sensitive_key_are_set(nss: Nss) -> None:
    """Changes label, ID and subject of private and public keys, sensitive or not, in one call, for good."""
    slot = nss.slot
    slot.login(PIN)
    wanted: Template = [(CKA.LABEL, b"mary"), (CKA.ID, b"\x01\x02"), (CKA.SUBJECT, b"0\x00")]
    for handle in slot.generate_rsa():
        assert slot.set(handle, wanted) == CKR.OK
        assert slot.read(handle, CKA.LABEL, CKA.ID, CKA.SUBJECT) == [b"mary", b"\x01\x02", b"0\x00"]
    assert len(slot.find([(CKA.ID, b"\x01\x02")])) == 2


@pytest.mark.rule("P34", "O20")
def test_the_same_public_key_twice(nss: Nss) -> None:
    """Stores the public key that pk12util creates twice, twice; searches find both."""
    numbers = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    modulus = numbers.n.to_bytes(256)
    template: Template = [
        (CKA.CLASS, CKO.PUBLIC_KEY),
        (CKA.KEY_TYPE, CKK.RSA),
        (CKA.TOKEN, True),
        (CKA.ID, key_id(modulus)),
        (CKA.WRAP, True),
        (CKA.ENCRYPT, True),
        (CKA.VERIFY, True),
        (CKA.MODULUS, modulus),
        (CKA.PUBLIC_EXPONENT, b"\x01\x00\x01"),
    ]
    made = {nss.slot.create(template), nss.slot.create(template)}
    assert set(nss.slot.find([(CKA.ID, key_id(modulus)), (CKA.CLASS, CKO.PUBLIC_KEY)])) == made
    assert len(nss.slot.find([(CKA.MODULUS, modulus)], 1)) == 1


@pytest.mark.rule("P38")
def test_a_public_key_outlives_its_private_key(nss: Nss) -> None:
    """Keeps the public key that certutil -F -k leaves behind; a new pair with its ID works beside it."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    orphan, private = slot.generate_ec()
    identity = slot.read(orphan, CKA.ID)[0] or b""
    assert slot.destroy(private) == CKR.OK
    assert slot.find([(CKA.ID, identity)]) == [orphan]
    public, private = slot.generate_ec()
    for handle in (public, private):
        assert slot.set(handle, [(CKA.ID, identity)]) == CKR.OK
    assert slot.find([(CKA.ID, identity), (CKA.CLASS, CKO.PRIVATE_KEY)], 1) == [private]
    signature = slot.sign(private, client.mechanism(CKM.ECDSA), bytes(32), 64)
    assert client.verify(slot.session, public, client.mechanism(CKM.ECDSA), bytes(32), signature) == CKR.OK
    assert slot.destroy(orphan) == CKR.OK


# The token


@pytest.mark.rule("P27", "N2", "N3")
def test_random_numbers_come_at_once_and_without_a_login(nss: Nss) -> None:
    """Sets CKF_RNG and gives 32 random bytes before any login, each time others, and waits for nothing."""
    assert nss.slot.flags & CKF.RNG
    drawn, held = set(), ffi.new("char[32]")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for _ in range(1000):
        nss.client.ok("C_GenerateRandom", nss.slot.session, held, 32)
        drawn.add(bytes(ffi.buffer(held)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before < 100, "it gave the processor away to wait"
    assert len(drawn) == 1000
    nss.client.ok("C_SeedRandom", nss.slot.session, held, 32)


@pytest.mark.rule("P30", "S12")
def test_a_token_without_a_pin_shows_its_private_keys(module: Client) -> None:
    """A token made without a PIN has neither flag set; its private keys are found and used without any login."""
    make_token("open")
    nss = start(module)
    slot = nss.slot
    assert not slot.flags & (CKF.LOGIN_REQUIRED | CKF.USER_PIN_INITIALIZED)
    slot.generate_ec()
    nss.end()
    slot = start(module).slot
    slot.login(None)  # NSS does not call C_Login here
    (found,) = slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)])
    (public,) = slot.find([(CKA.CLASS, CKO.PUBLIC_KEY)])
    signature = slot.sign(found, module.mechanism(CKM.ECDSA), bytes(32), 64)
    assert module.verify(slot.session, public, module.mechanism(CKM.ECDSA), bytes(32), signature) == CKR.OK


@pytest.mark.rule("P30", "S15")
def test_a_token_with_a_pin_hides_them_until_the_login(nss: Nss) -> None:
    """A token with a PIN says CKF_LOGIN_REQUIRED and shows no private key before the login."""
    assert nss.slot.flags & CKF.LOGIN_REQUIRED
    nss.slot.login(PIN)
    nss.slot.generate_ec()
    nss.slot.logout()
    assert nss.slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == []
