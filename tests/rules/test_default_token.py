"""What a multipurpose token does for keys that are not its own, once "modutil -default" gave it the work (N4, K5).

All of it happens in a read-only session that nobody logged in to, and is compared with other software.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKR
from tests.client import RSA_2048, Client, Template, ffi
from tests.rules import nss_templates as templates
from tests.rules.nss_calls import Nss, Slot

SECRET = bytes(range(16))
TEXT = bytes(range(48))
ENCRYPTING: Template = [(CKA.VALUE_LEN, 16), (CKA.ENCRYPT, True), (CKA.DECRYPT, True)]


@pytest.fixture
def session(nss: Nss) -> Iterator[int]:
    with nss.slot.ro() as opened:
        yield opened
    assert not nss.slot.is_logged_in()


@pytest.fixture
def client(nss: Nss) -> Client:
    return nss.client


@pytest.fixture
def slot(nss: Nss) -> Slot:
    return nss.slot


def in_parts(client: Client, session: int, name: str, *parts: bytes) -> bytes:
    """C_`name`Update for each part, which is of whole blocks, and C_`name`Final."""
    done = b""
    held, length = ffi.new("char[64]"), ffi.new("CK_ULONG *")
    for part in parts:
        length[0] = 64
        client.ok(f"C_{name}Update", session, part, len(part), held, length)
        done += bytes(ffi.buffer(held, length[0]))
    return done + client.output(f"C_{name}Final", session)


@pytest.mark.rule("N4", "N2", "K5", "K11")
@pytest.mark.parametrize(
    ("mechanism", "algorithm"),
    [
        (CKM.MD5, hashes.MD5()),
        (CKM.SHA_1, hashes.SHA1()),
        (CKM.SHA224, hashes.SHA224()),
        (CKM.SHA256, hashes.SHA256()),
        (CKM.SHA384, hashes.SHA384()),
        (CKM.SHA512, hashes.SHA512()),
    ],
)
def test_it_digests(client: Client, session: int, mechanism: int, algorithm: hashes.HashAlgorithm) -> None:
    """Digests for others, in parts."""
    hashing = hashes.Hash(algorithm)
    hashing.update(b"some text")
    client.ok("C_DigestInit", session, client.mechanism(mechanism))
    client.ok("C_DigestUpdate", session, b"some ", 5)
    client.ok("C_DigestUpdate", session, b"text", 4)
    assert client.output("C_DigestFinal", session) == hashing.finalize()


@pytest.mark.rule("N4", "N3", "K5", "K11")
def test_it_draws_random_numbers(client: Client, session: int) -> None:
    """Gives random numbers for others: never the same, and of all bytes."""
    held = ffi.new("char[32]")
    client.ok("C_SeedRandom", session, held, 32)
    drawn = []
    for _ in range(64):
        client.ok("C_GenerateRandom", session, held, 32)
        drawn.append(bytes(ffi.buffer(held)))
    assert len(set(drawn)) == 64
    assert len(set(b"".join(drawn))) > 200


@pytest.mark.rule("N4", "K5", "K11")
@pytest.mark.parametrize("parts", [1, 3])
def test_it_encrypts_and_decrypts(client: Client, session: int, parts: int) -> None:
    """Encrypts and decrypts with a session key of others, at once and in parts."""
    key = client.create(session, templates.session_key(CKK.AES, CKA.ENCRYPT, SECRET))
    mechanism = client.mechanism(CKM.AES_CBC, bytes(16))
    encryptor = Cipher(algorithms.AES(SECRET), modes.CBC(bytes(16))).encryptor()
    expected = encryptor.update(TEXT) + encryptor.finalize()
    client.ok("C_EncryptInit", session, mechanism, key)
    if parts == 1:
        assert client.output("C_Encrypt", session, TEXT, len(TEXT)) == expected
    else:
        assert in_parts(client, session, "Encrypt", TEXT[:16], TEXT[16:32], TEXT[32:]) == expected
    back = client.create(session, templates.session_key(CKK.AES, CKA.DECRYPT, SECRET))
    client.ok("C_DecryptInit", session, mechanism, back)
    if parts == 1:
        assert client.output("C_Decrypt", session, expected, len(expected)) == TEXT
    else:
        assert in_parts(client, session, "Decrypt", expected[:16], expected[16:32], expected[32:]) == TEXT


@pytest.mark.rule("N4", "K5", "K11")
def test_it_encrypts_with_authentication(client: Client, session: int) -> None:
    """Encrypts for a TLS record with AES-GCM, as other software does."""
    key = client.create(session, templates.session_key(CKK.AES, CKA.ENCRYPT, SECRET))
    nonce, context = ffi.new("char[12]", bytes(range(12))), ffi.new("char[5]", b"\x17\x03\x03\x00\x30")
    parameter = ffi.new("CK_GCM_PARAMS *", (nonce, 12, 96, context, 5, 128))
    client.ok("C_EncryptInit", session, client.mechanism(CKM.AES_GCM, parameter), key)
    expected = AESGCM(SECRET).encrypt(bytes(range(12)), TEXT, b"\x17\x03\x03\x00\x30")
    assert client.output("C_Encrypt", session, TEXT, len(TEXT)) == expected


@pytest.mark.rule("N4", "K11")
def test_no_two_of_its_keys_are_the_same(client: Client, session: int) -> None:
    """Makes session keys for others, each of which is another."""

    def encrypted_with(key: int) -> bytes:
        client.ok("C_EncryptInit", session, client.mechanism(CKM.AES_CBC, bytes(16)), key)
        secret = client.output("C_Encrypt", session, TEXT, len(TEXT))
        client.ok("C_DecryptInit", session, client.mechanism(CKM.AES_CBC, bytes(16)), key)
        assert client.output("C_Decrypt", session, secret, len(secret)) == TEXT
        return secret

    keys = [client.generate(session, client.mechanism(CKM.AES_KEY_GEN), ENCRYPTING) for _ in range(4)]
    assert len({encrypted_with(key) for key in keys}) == 4


@pytest.mark.rule("N4", "K5", "K11")
def test_it_authenticates_and_tells_right_from_wrong(client: Client, session: int) -> None:
    """Makes MACs and signatures, and refuses a wrong one: by C_Verify and by v3.2's C_VerifySignature."""
    mac_key = client.create(session, templates.session_key(CKK.GENERIC_SECRET, CKA.SIGN, SECRET))
    public, private = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, templates.ec_pair()[0][:1], [])
    expected = hmac.HMAC(SECRET, hashes.SHA256())
    expected.update(b"text")
    mac = client.sign(session, mac_key, client.mechanism(CKM.SHA256_HMAC), b"text")
    assert mac == expected.finalize()
    signature = client.sign(session, private, client.mechanism(CKM.ECDSA_SHA256), b"text")
    for key, mechanism, made in (
        (mac_key, client.mechanism(CKM.SHA256_HMAC), mac),
        (public, client.mechanism(CKM.ECDSA_SHA256), signature),
    ):
        assert client.verify(session, key, mechanism, b"text", made) == CKR.OK
        assert client.verify(session, key, mechanism, b"test", made) == CKR.SIGNATURE_INVALID
        client.ok("C_VerifySignatureInit", session, mechanism, key, made, len(made))
        client.ok("C_VerifySignature", session, b"text", 4)
        client.ok("C_VerifySignatureInit", session, mechanism, key, made, len(made))
        assert client.call("C_VerifySignature", session, b"test", 4) == CKR.SIGNATURE_INVALID


@pytest.mark.rule("N4", "K11")
def test_it_recovers_what_was_signed(client: Client, session: int) -> None:
    """Gives back what an RSA signature holds, as NSS asks where it does not know the algorithm yet."""
    public, private = client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, RSA_2048, [])
    signature = client.sign(session, private, client.mechanism(CKM.RSA_PKCS), b"what was signed")
    client.ok("C_VerifyRecoverInit", session, client.mechanism(CKM.RSA_PKCS), public)
    assert client.output("C_VerifyRecover", session, signature, 256) == b"what was signed"


@pytest.mark.rule("N4", "S16", "S17")
def test_everything_that_is_listed_can_be_a_default(client: Client, slot: Slot, session: int) -> None:
    """Starts every digest that it lists, and makes every session key whose generation it lists, without a login."""
    generated = 0
    for mechanism in slot.mechanisms:
        flags = slot.mechanism_flags(mechanism)
        if flags & CKF.DIGEST:
            client.ok("C_DigestInit", session, client.mechanism(mechanism))
            assert client.output("C_Digest", session, b"", 0)
        if flags & CKF.GENERATE and mechanism != CKM.PKCS5_PBKD2:  # which needs its parameter
            sizes: Template = [(CKA.VALUE_LEN, 64 if mechanism == CKM.AES_XTS_KEY_GEN else 32)]
            fixed = mechanism in (CKM.DES2_KEY_GEN, CKM.DES3_KEY_GEN, CKM.CHACHA20_KEY_GEN)
            assert client.generate(session, client.mechanism(mechanism), [] if fixed else sizes)
            generated += 1
    assert generated >= 4
