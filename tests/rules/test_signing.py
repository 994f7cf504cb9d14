"""Signatures as NSS asks for them, each verified by other software than keyfob."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKR, CKU
from tests.client import Client, Template, ffi
from tests.conftest import PIN
from tests.rules import nss_templates as templates
from tests.rules.nss_calls import Nss, Slot
from tests.rules.software_keys import HASHES, certificate_of, der_signature, digest, ec_key, rsa_key

MESSAGE = b"a certificate's TBS, of some length" * 9
RSA_WITH = {
    CKM.SHA_1: (CKM.SHA1_RSA_PKCS, CKM.SHA1_RSA_PKCS_PSS, CKM.ECDSA_SHA1),
    CKM.SHA224: (CKM.SHA224_RSA_PKCS, CKM.SHA224_RSA_PKCS_PSS, CKM.ECDSA_SHA224),
    CKM.SHA256: (CKM.SHA256_RSA_PKCS, CKM.SHA256_RSA_PKCS_PSS, CKM.ECDSA_SHA256),
    CKM.SHA384: (CKM.SHA384_RSA_PKCS, CKM.SHA384_RSA_PKCS_PSS, CKM.ECDSA_SHA384),
    CKM.SHA512: (CKM.SHA512_RSA_PKCS, CKM.SHA512_RSA_PKCS_PSS, CKM.ECDSA_SHA512),
}
# DER of DigestInfo up to the hash (RFC 8017, section 9.2).
DIGEST_INFO = {
    CKM.SHA_1: bytes.fromhex("3021300906052b0e03021a05000414"),
    CKM.SHA224: bytes.fromhex("302d300d06096086480165030402040500041c"),
    CKM.SHA256: bytes.fromhex("3031300d060960864801650304020105000420"),
    CKM.SHA384: bytes.fromhex("3041300d060960864801650304020205000430"),
    CKM.SHA512: bytes.fromhex("3051300d060960864801650304020305000440"),
}


@pytest.fixture
def slot(nss: Nss) -> Slot:
    """Of a token whose user is logged in."""
    nss.slot.login(PIN)
    return nss.slot


def imported_rsa(slot: Slot) -> int:
    return slot.create(templates.rsa_private_key(rsa_key()))


def pss(client: Client, mechanism: int, hashed: int) -> Any:
    mgf, algorithm = HASHES[hashed]
    return client.mechanism(mechanism, ffi.new("CK_RSA_PKCS_PSS_PARAMS *", (hashed, mgf, algorithm.digest_size)))


def stream(slot: Slot, key: int, mechanism: Any, parts: list[bytes], size: int) -> bytes:
    """SGN_Begin, SGN_Update, SGN_End: NSS reads the length of the signature from the key before C_SignFinal."""
    client = slot.client
    held, length = ffi.new("char[]", size), ffi.new("CK_ULONG *", size)
    with slot.ro() as session:
        client.ok("C_SignInit", session, mechanism, key)
        for part in parts:
            client.ok("C_SignUpdate", session, part, len(part))
        assert slot.read(key, CKA.KEY_TYPE) != [None]
        client.ok("C_SignFinal", session, held, length)
    return bytes(ffi.buffer(held, length[0]))


@pytest.mark.rule("K3", "K9", "P22")
@pytest.mark.parametrize("hashed", HASHES)
def test_rsa_signatures_of_a_digest_info(slot: Slot, hashed: int) -> None:
    """Signs a DER DigestInfo with CKM_RSA_PKCS, as NSS up to 3.100 and TLS 1.2 do, into exactly modulus-size bytes."""
    algorithm = HASHES[hashed][1]
    key = imported_rsa(slot)
    size = len(slot.read(key, CKA.MODULUS)[0] or b"")
    info = DIGEST_INFO[hashed] + digest(algorithm, MESSAGE)
    signature = slot.sign(key, slot.client.mechanism(CKM.RSA_PKCS), info, size)
    rsa_key().public_key().verify(signature, MESSAGE, padding.PKCS1v15(), algorithm)


@pytest.mark.rule("K3")
def test_the_signature_of_old_tls(slot: Slot) -> None:
    """Signs the 36 bytes of MD5 and SHA-1 that TLS 1.1 and older sign, without any DigestInfo."""
    data = hashlib.md5(MESSAGE).digest() + hashlib.sha1(MESSAGE).digest()
    signature = slot.sign(imported_rsa(slot), slot.client.mechanism(CKM.RSA_PKCS), data, 256)
    assert rsa_key().public_key().recover_data_from_signature(signature, padding.PKCS1v15(), None) == data


@pytest.mark.rule("K9", "S17")
@pytest.mark.parametrize("hashed", HASHES)
@pytest.mark.parametrize("in_parts", [False, True])
def test_rsa_signatures_of_the_whole_text(slot: Slot, hashed: int, *, in_parts: bool) -> None:
    """Hashes and signs with CKM_SHAxxx_RSA_PKCS and -PSS, as NSS since 3.101 does, at once and in parts."""
    client, algorithm = slot.client, HASHES[hashed][1]
    combined, combined_pss, _ = RSA_WITH[hashed]
    key = imported_rsa(slot)
    pss_padding = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    paddings = ((client.mechanism(combined), padding.PKCS1v15()), (pss(client, combined_pss, hashed), pss_padding))
    for mechanism, scheme in paddings:
        assert slot.mechanism_flags(mechanism.mechanism) & CKF.SIGN
        if in_parts:
            signature = stream(slot, key, mechanism, [MESSAGE[:1], b"", MESSAGE[1:200], MESSAGE[200:]], 256)
        else:
            signature = slot.sign(key, mechanism, MESSAGE, 256)
        rsa_key().public_key().verify(signature, MESSAGE, scheme, algorithm)


@pytest.mark.rule("P4", "K3")
@pytest.mark.parametrize("hashed", HASHES)
def test_plain_pss_signatures(slot: Slot, hashed: int) -> None:
    """Signs a given hash with CKM_RSA_PKCS_PSS for every hash, the salt as long as it, as TLS 1.3 needs it."""
    algorithm = HASHES[hashed][1]
    mechanism = pss(slot.client, CKM.RSA_PKCS_PSS, hashed)
    signature = slot.sign(imported_rsa(slot), mechanism, digest(algorithm, MESSAGE), 256)
    scheme = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    rsa_key().public_key().verify(signature, MESSAGE, scheme, algorithm)


@pytest.mark.rule("K3", "K9")
@pytest.mark.parametrize("hashed", HASHES)
@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
def test_ecdsa_signatures(slot: Slot, curve: str, hashed: int) -> None:
    """Signs with CKM_ECDSA over a hash and CKM_ECDSA_SHAxxx over the text; r and s are as long as the order."""
    algorithm, key = HASHES[hashed][1], ec_key(0, curve)
    handle = slot.create(templates.ec_private_key(key))
    size = 2 * len(templates.scalar(key))
    combined = slot.client.mechanism(RSA_WITH[hashed][2])
    signatures = (
        slot.sign(handle, slot.client.mechanism(CKM.ECDSA), digest(algorithm, MESSAGE), size),
        slot.sign(handle, combined, MESSAGE, size),
        stream(slot, handle, combined, [MESSAGE[:100], MESSAGE[100:]], size),
    )
    for signature in signatures:
        assert len(signature) == size
        key.public_key().verify(der_signature(signature), MESSAGE, ec.ECDSA(algorithm))


@pytest.mark.rule("P22")
def test_a_signature_into_a_buffer_that_is_too_small(slot: Slot) -> None:
    """Gives the size for a NULL buffer and for one that is too small, and then the signature: nothing is lost."""
    client, key = slot.client, imported_rsa(slot)
    length, held = ffi.new("CK_ULONG *"), ffi.new("char[256]")
    with slot.ro() as session:
        client.ok("C_SignInit", session, client.mechanism(CKM.SHA256_RSA_PKCS), key)
        client.ok("C_Sign", session, MESSAGE, len(MESSAGE), ffi.NULL, length)
        assert length[0] == 256
        length[0] = 255
        rv = client.call("C_Sign", session, MESSAGE, len(MESSAGE), held, length)
        assert (rv, length[0]) == (CKR.BUFFER_TOO_SMALL, 256)
        client.ok("C_Sign", session, MESSAGE, len(MESSAGE), held, length)
    signature = bytes(ffi.buffer(held, length[0]))
    rsa_key().public_key().verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.rule("P29", "SE3", "SE8")
def test_everything_else_goes_on_between_sign_init_and_sign(slot: Slot) -> None:
    """Keeps an operation to its session: logins, searches, reads and whole other operations do not disturb it."""
    client, key = slot.client, imported_rsa(slot)
    other_key = slot.create(templates.ec_private_key(ec_key()))
    held, length = ffi.new("char[256]"), ffi.new("CK_ULONG *", 256)
    with slot.ro() as session:
        client.ok("C_SignInit", session, client.mechanism(CKM.SHA256_RSA_PKCS), key)
        assert slot.is_logged_in()
        assert client.state(session)
        assert slot.read(key, CKA.ALWAYS_AUTHENTICATE, CKA.MODULUS)[0] == b"\x00"
        assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.TOKEN, True)]) == [key, other_key]
        assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)], 1, session) == [key], "a search in the same session, too"
        assert client.call("C_Login", slot.session, CKU.USER, PIN, len(PIN)) == CKR.USER_ALREADY_LOGGED_IN
        assert slot.set(key, [(CKA.LABEL, "renamed meanwhile")]) == CKR.OK
        slot.create(templates.certificate_object(certificate_of(ec_key()), b"id", "new"))
        signature = slot.sign(other_key, client.mechanism(CKM.ECDSA), bytes(32), 64)
        ec_key().public_key().verify(der_signature(signature), bytes(32), ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        client.ok("C_Sign", session, MESSAGE, len(MESSAGE), held, length)
    signature = bytes(ffi.buffer(held, length[0]))
    rsa_key().public_key().verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.rule("SE4", "P29")
def test_streams_in_two_sessions_do_not_mix(slot: Slot) -> None:
    """Hashes two texts in two sessions part by part, each to its own signature."""
    client, key = slot.client, imported_rsa(slot)
    texts = [b"first " * 50, b"second" * 50]
    sessions = [client.open(slot.id, CKF.SERIAL_SESSION) for _ in texts]
    for session in sessions:
        client.ok("C_SignInit", session, client.mechanism(CKM.SHA256_RSA_PKCS), key)
    for start in range(0, 300, 60):
        for session, text in zip(sessions, texts, strict=True):
            client.ok("C_SignUpdate", session, text[start : start + 60], 60)
    for session, text in zip(sessions, texts, strict=True):
        signature = client.output("C_SignFinal", session)
        rsa_key().public_key().verify(signature, text, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.rule("N10", "P22", "SE13")
def test_a_key_that_asks_each_time_is_asked_in_the_order_of_nss(slot: Slot) -> None:
    """C_SignInit, reading CKA_ALWAYS_AUTHENTICATE on another session, the context-specific login, C_Sign; each time."""
    template: Template = [*templates.rsa_private_key(rsa_key()), (CKA.ALWAYS_AUTHENTICATE, True)]
    key = slot.create(template)
    for _ in range(3):
        signature = slot.sign(key, slot.client.mechanism(CKM.SHA256_RSA_PKCS), MESSAGE, 256, PIN)
        rsa_key().public_key().verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.rule("K5", "N8", "O5")
def test_public_keys_verify_as_session_objects(slot: Slot) -> None:
    """Verifies with public keys that NSS imports as session objects in a read-only session, without a login."""
    client = slot.client
    slot.logout()
    rsa_signature = rsa_key().sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    r, s = utils.decode_dss_signature(ec_key().sign(MESSAGE, ec.ECDSA(hashes.SHA256())))
    with slot.ro() as session:
        for template, mechanism, signature in (
            (templates.rsa_public_key(rsa_key(), token=False), CKM.SHA256_RSA_PKCS, rsa_signature),
            (templates.ec_public_key(ec_key(), token=False), CKM.ECDSA_SHA256, r.to_bytes(32) + s.to_bytes(32)),
            (
                templates.ec_public_key(ec_key(), token=False, raw=True),
                CKM.ECDSA_SHA256,
                r.to_bytes(32) + s.to_bytes(32),
            ),
        ):
            key = client.create(session, template)
            assert client.verify(session, key, client.mechanism(mechanism), MESSAGE, signature) == CKR.OK
            forged = bytes([*signature[:-1], signature[-1] ^ 1])
            rv = client.verify(session, key, client.mechanism(mechanism), MESSAGE, forged)
            assert rv == CKR.SIGNATURE_INVALID


@pytest.mark.rule("S17")
@pytest.mark.parametrize("mechanism", [CKM.DSA, CKM.ML_DSA, CKM.MD2_RSA_PKCS, 0x7FFFFFFF])
def test_unknown_signature_mechanisms_are_refused(slot: Slot, mechanism: int) -> None:
    """Answers CKR_MECHANISM_INVALID to mechanisms that it does not list, in C_GetMechanismInfo and C_SignInit."""
    key = imported_rsa(slot)
    assert mechanism not in slot.mechanisms
    info = ffi.new("CK_MECHANISM_INFO *")
    assert slot.client.call("C_GetMechanismInfo", slot.id, mechanism, info) == CKR.MECHANISM_INVALID
    rv = slot.client.call("C_SignInit", slot.session, slot.client.mechanism(mechanism), key)
    assert rv == CKR.MECHANISM_INVALID
    signature = slot.sign(key, slot.client.mechanism(CKM.SHA256_RSA_PKCS), MESSAGE, 256)
    assert len(signature) == 256, "the token works as before"
