"""Mail and TLS key exchange as NSS asks for them: secrets that come wrapped, and what NSS then does with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from keyfob.spec.constants import CKA, CKD, CKK, CKM, CKO, CKR
from tests.client import RvError, Template, but, ffi
from tests.conftest import PIN
from tests.rules import nss_templates as templates
from tests.rules.nss_calls import Nss, Slot
from tests.rules.software_keys import HASHES, digest, ec_key, rsa_key

CONTENT_KEY, IV = bytes(range(32)), bytes(range(16))
TEXT = b"a mail, padded by NSS itself to whole blocks....".ljust(96, b"\x10")
INFO = bytes(range(23))  # the DER of ECC-CMS-SharedInfo has 23 bytes
KDFS: dict[int, HashAlgorithm] = {
    CKD.SHA1_KDF: HASHES[CKM.SHA_1][1],
    CKD.SHA224_KDF: HASHES[CKM.SHA224][1],
    CKD.SHA256_KDF: HASHES[CKM.SHA256][1],
    CKD.SHA384_KDF: HASHES[CKM.SHA384][1],
    CKD.SHA512_KDF: HASHES[CKM.SHA512][1],
}


@pytest.fixture
def slot(nss: Nss) -> Slot:
    """Of a token whose user is logged in."""
    nss.slot.login(PIN)
    return nss.slot


@pytest.fixture
def rsa_private(slot: Slot) -> int:
    return slot.create(templates.rsa_private_key(rsa_key()))


def encrypted(key: bytes = CONTENT_KEY) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(IV)).encryptor()
    return encryptor.update(TEXT) + encryptor.finalize()


def unwrap(slot: Slot, session: int, mechanism: Any, key: int, wrapped: bytes, template: Template) -> int:
    """pk11_AnyUnwrapKey."""
    array, count, _kept = slot.client.template(template)
    handle = ffi.new("CK_ULONG *")
    slot.client.ok("C_UnwrapKey", session, mechanism, key, wrapped, len(wrapped), array, count, handle)
    return int(handle[0])


def read_mail(slot: Slot, key: int, data: bytes) -> bytes:
    """CMS: C_DecryptInit, C_DecryptUpdate in pieces and no C_DecryptFinal; the session is closed over it."""
    client, plain = slot.client, b""
    held, length = ffi.new("char[]", len(data)), ffi.new("CK_ULONG *")
    with slot.ro() as session:
        client.ok("C_DecryptInit", session, client.mechanism(CKM.AES_CBC, IV), key)
        for start in range(0, len(data), 40):  # not in whole blocks
            piece = data[start : start + 40]
            length[0] = len(data)
            client.ok("C_DecryptUpdate", session, piece, len(piece), held, length)
            plain += bytes(ffi.buffer(held, length[0]))
    return plain


def oaep(slot: Slot, hashed: int, mgf: int, label: bytes = b"") -> tuple[Any, object]:
    """CK_MECHANISM with the source NULL unless there is a label, and what must stay alive."""
    held = ffi.new("CK_BYTE[]", label) if label else ffi.NULL
    parameter = ffi.new("CK_RSA_PKCS_OAEP_PARAMS *", (hashed, HASHES[mgf][0], 1, held, len(label)))
    return slot.client.mechanism(CKM.RSA_PKCS_OAEP, parameter), held


@pytest.mark.rule("K4", "K10", "N8", "O4", "P12")
@pytest.mark.parametrize("usage", [CKA.DECRYPT, CKA.UNWRAP, CKA.ENCRYPT, CKA.SIGN, CKA.WRAP])
@pytest.mark.parametrize("size", [None, 32])
def test_mail_to_an_rsa_key(slot: Slot, rsa_private: int, usage: int, size: int | None) -> None:
    """Unwraps a mail's key with RSA_PKCS in a read-only session and decrypts with it, whatever usage it was given."""
    client = slot.client
    wrapped = rsa_key().public_key().encrypt(CONTENT_KEY, padding.PKCS1v15())
    with slot.ro() as session:
        template = templates.unwrapped_secret(CKK.AES, usage, size)
        key = unwrap(slot, session, client.mechanism(CKM.RSA_PKCS), rsa_private, wrapped, template)
        assert slot.ulong(key, CKA.KEY_TYPE) == CKK.AES
        assert slot.ulong(key, CKA.VALUE_LEN) == 32
        assert slot.read(key, CKA.VALUE) in ([CONTENT_KEY], [None])
        assert not slot.boolean(key, CKA.TOKEN)
        assert read_mail(slot, key, encrypted()) == TEXT
        client.ok("C_DestroyObject", session, key)


@pytest.mark.rule("P14", "K4")
@pytest.mark.parametrize("hashed", HASHES)
@pytest.mark.parametrize("mgf", HASHES)
def test_mail_with_oaep(slot: Slot, rsa_private: int, hashed: int, mgf: int) -> None:
    """Decrypts OAEP of every hash with every MGF1 by C_UnwrapKey and by C_Decrypt, the source NULL and of length 0."""
    client = slot.client
    scheme = padding.OAEP(padding.MGF1(HASHES[mgf][1]), HASHES[hashed][1], None)
    wrapped = rsa_key().public_key().encrypt(CONTENT_KEY, scheme)
    mechanism, _kept = oaep(slot, hashed, mgf)
    with slot.ro() as session:
        template = templates.unwrapped_secret(CKK.AES, CKA.DECRYPT)
        key = unwrap(slot, session, mechanism, rsa_private, wrapped, template)
        assert read_mail(slot, key, encrypted()) == TEXT
        client.ok("C_DecryptInit", session, mechanism, rsa_private)
        assert client.output("C_Decrypt", session, wrapped, len(wrapped)) == CONTENT_KEY


@pytest.mark.rule("P14")
def test_oaep_with_a_label(slot: Slot, rsa_private: int) -> None:
    """Takes an OAEP label; another label than the sender's is an error, and no plain text."""
    client = slot.client
    scheme = padding.OAEP(padding.MGF1(HASHES[CKM.SHA256][1]), HASHES[CKM.SHA256][1], b"label")
    wrapped = rsa_key().public_key().encrypt(CONTENT_KEY, scheme)
    for label, good in ((b"label", True), (b"other", False), (b"", False)):
        mechanism, _kept = oaep(slot, CKM.SHA256, CKM.SHA256, label)
        held, length = ffi.new("char[256]"), ffi.new("CK_ULONG *", 256)
        with slot.ro() as session:
            client.ok("C_DecryptInit", session, mechanism, rsa_private)
            rv = client.call("C_Decrypt", session, wrapped, len(wrapped), held, length)
            if good:
                assert (rv, bytes(ffi.buffer(held, length[0]))) == (CKR.OK, CONTENT_KEY)
            else:
                assert rv == CKR.ENCRYPTED_DATA_INVALID


@pytest.mark.rule("K12", "K10")
def test_when_unwrapping_fails_nss_decrypts(slot: Slot, rsa_private: int) -> None:
    """Refuses to unwrap to what it cannot make with a clean code, never CKR_DEVICE_ERROR; C_Decrypt then does it."""
    client = slot.client
    scheme = padding.OAEP(padding.MGF1(HASHES[CKM.SHA_1][1]), HASHES[CKM.SHA_1][1], None)
    wrapped = rsa_key().public_key().encrypt(CONTENT_KEY, scheme)
    mechanism, _kept = oaep(slot, CKM.SHA_1, CKM.SHA_1)
    refusals: tuple[tuple[bytes, Template, int], ...] = (
        (wrapped, templates.unwrapped_secret(CKK.DES3, CKA.DECRYPT), CKR.WRAPPED_KEY_INVALID),
        (wrapped, templates.unwrapped_secret(CKK.AES, CKA.DECRYPT, 16), CKR.WRAPPED_KEY_INVALID),
        (wrapped, [(CKA.KEY_TYPE, CKK.AES)], CKR.TEMPLATE_INCOMPLETE),
        (wrapped[1:], templates.unwrapped_secret(CKK.AES, CKA.DECRYPT), CKR.WRAPPED_KEY_LEN_RANGE),
    )
    with slot.ro() as session:
        for data, template, rv in refusals:
            with pytest.raises(RvError) as refusal:
                unwrap(slot, session, mechanism, rsa_private, data, template)
            assert refusal.value.rv == rv
        client.ok("C_DecryptInit", session, mechanism, rsa_private)
        held, length = ffi.new("char[]", len(wrapped)), ffi.new("CK_ULONG *", len(wrapped))
        client.ok("C_Decrypt", session, wrapped, len(wrapped), held, length)
        assert bytes(ffi.buffer(held, length[0])) == CONTENT_KEY


@pytest.mark.rule("K12", "K4")
def test_unwrapping_with_rsa_pkcs_is_no_oracle(slot: Slot, rsa_private: int) -> None:
    """Answers a good and a forged RSA_PKCS secret alike where the length is known: a forged one gives a useless key."""
    wrapped = rsa_key().public_key().encrypt(CONTENT_KEY, padding.PKCS1v15())
    template = templates.unwrapped_secret(CKK.AES, CKA.DECRYPT, 32)
    with slot.ro() as session:
        mechanism = slot.client.mechanism(CKM.RSA_PKCS)
        for data, good in ((wrapped, True), (bytes([*wrapped[:-1], wrapped[-1] ^ 1]), False), (bytes(256), False)):
            key = unwrap(slot, session, mechanism, rsa_private, data, template)
            assert (read_mail(slot, key, encrypted()) == TEXT) is good


@pytest.mark.rule("K4", "K7")
def test_the_premaster_secret_of_old_tls(slot: Slot, rsa_private: int) -> None:
    """Decrypts the 48 bytes of TLS 1.2's static RSA; a forged one is an error or 48 other bytes, and no crash."""
    client = slot.client
    premaster = b"\x03\x03" + bytes(range(46))
    wrapped = rsa_key().public_key().encrypt(premaster, padding.PKCS1v15())
    assert slot.mechanism_flags(CKM.RSA_PKCS)
    for data, good in ((wrapped, True), (bytes([*wrapped[:-1], wrapped[-1] ^ 1]), False), (bytes(256), False)):
        held, length = ffi.new("char[256]"), ffi.new("CK_ULONG *", 256)
        with slot.ro() as session:
            client.ok("C_DecryptInit", session, client.mechanism(CKM.RSA_PKCS), rsa_private)
            rv = client.call("C_Decrypt", session, data, len(data), held, length)
            assert rv in (CKR.OK, CKR.ENCRYPTED_DATA_INVALID, CKR.ENCRYPTED_DATA_LEN_RANGE)
            assert (rv == CKR.OK and bytes(ffi.buffer(held, length[0])) == premaster) is good


# Mail to EC keys


def own_kdf(algorithm: HashAlgorithm, shared: bytes, info: bytes, size: int) -> bytes:
    """The key derivation of ANSI X9.63 (SEC 1, section 3.6.1), written here so that nobody's code checks itself."""
    blocks = (size + algorithm.digest_size - 1) // algorithm.digest_size
    return b"".join(digest(algorithm, shared + n.to_bytes(4) + info) for n in range(1, blocks + 1))[:size]


def derive(slot: Slot, session: int, private: int, kdf: int, info: bytes, sent: bytes, template: Template) -> int:
    """PK11_PubDeriveWithKDF."""
    shared, public = ffi.new("CK_BYTE[]", info), ffi.new("CK_BYTE[]", sent)
    parameter = ffi.new("CK_ECDH1_DERIVE_PARAMS *", (kdf, len(info), shared if info else ffi.NULL, len(sent), public))
    array, count, _kept = slot.client.template(template)
    handle = ffi.new("CK_ULONG *")
    mechanism = slot.client.mechanism(CKM.ECDH1_DERIVE, parameter)
    slot.client.ok("C_DeriveKey", session, mechanism, private, array, count, handle)
    return int(handle[0])


def raw(point: bytes) -> bytes:
    return point


@pytest.mark.rule("P13", "P33", "P12", "K4")
@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
@pytest.mark.parametrize("kdf", KDFS)
@pytest.mark.parametrize("form", [raw, templates.octet_string])
@pytest.mark.parametrize("info", [INFO, b""])
def test_ecdh_with_every_kdf(slot: Slot, curve: str, kdf: int, form: Callable[[bytes], bytes], info: bytes) -> None:
    """Derives by ECDH with every hash's KDF, with shared info and without, from raw and DER points, on every curve."""
    own, sender = ec_key(0, curve), ec_key(1, curve)
    private = slot.create(templates.ec_private_key(own))
    expected = own_kdf(KDFS[kdf], sender.exchange(ec.ECDH(), own.public_key()), info, 32)
    with slot.ro() as session:
        key = derive(slot, session, private, kdf, info, form(templates.point(sender)), templates.derived_secret())
        wrapped = aes_key_wrap(expected, CONTENT_KEY)
        template = templates.unwrapped_secret(CKK.AES, CKA.UNWRAP)
        content = unwrap(slot, session, slot.client.mechanism(CKM.AES_KEY_WRAP), key, wrapped, template)
        assert read_mail(slot, content, encrypted()) == TEXT


@pytest.mark.rule("P13", "K4")
@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
def test_ecdh_without_a_kdf(slot: Slot, curve: str) -> None:
    """Gives the shared x coordinate for CKD_NULL, as NSS's software fallback needs it; a shorter key is its end."""
    own, sender = ec_key(0, curve), ec_key(1, curve)
    private = slot.create(templates.ec_private_key(own))
    shared = sender.exchange(ec.ECDH(), own.public_key())
    generic: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), (CKA.DERIVE, True)]
    with slot.ro() as session:
        for template, wanted in ((generic, shared), ([*generic, (CKA.VALUE_LEN, 20)], shared[-20:])):
            sent = templates.point(sender)
            key = derive(slot, session, private, CKD.NULL, b"", sent, [*template, (CKA.SENSITIVE, False)])
            assert slot.read(key, CKA.VALUE) == [wanted]


@pytest.mark.rule("P13")
def test_points_that_are_none_are_refused(slot: Slot) -> None:
    """Refuses points off the curve, of another curve and of no form with a code; the key works as before."""
    private = slot.create(templates.ec_private_key(ec_key()))
    good = templates.point(ec_key(1))
    off_curve = bytes([*good[:-1], good[-1] ^ 1])
    with slot.ro() as session:
        for point in (off_curve, templates.point(ec_key(1, "secp384r1")), b"\x04", b"\0", good + b"\0"):
            with pytest.raises(RvError) as refusal:
                derive(slot, session, private, CKD.SHA256_KDF, INFO, point, templates.derived_secret())
            assert refusal.value.rv in (CKR.MECHANISM_PARAM_INVALID, CKR.ARGUMENTS_BAD, CKR.DOMAIN_PARAMS_INVALID)
        assert derive(slot, session, private, CKD.SHA256_KDF, INFO, good, templates.derived_secret())


@pytest.mark.rule("P13", "P2")
def test_deriving_with_a_template_that_is_null(slot: Slot) -> None:
    """Takes NULL with a count of 0 for the template of C_DeriveKey: a generic secret of the whole shared value."""
    own, sender = ec_key(), ec_key(1)
    private = slot.create(templates.ec_private_key(own))
    held = ffi.new("CK_BYTE[]", templates.point(sender))
    parameter = ffi.new("CK_ECDH1_DERIVE_PARAMS *", (CKD.NULL, 0, ffi.NULL, 65, held))
    handle = ffi.new("CK_ULONG *")
    with slot.ro() as session:
        mechanism = slot.client.mechanism(CKM.ECDH1_DERIVE, parameter)
        slot.client.ok("C_DeriveKey", session, mechanism, private, ffi.NULL, 0, handle)
        assert slot.ulong(handle[0], CKA.KEY_TYPE) == CKK.GENERIC_SECRET
        assert slot.ulong(handle[0], CKA.VALUE_LEN) == 32


@pytest.mark.rule("P12", "O4", "N19")
@pytest.mark.parametrize("given", [CKA.WRAP, CKA.UNWRAP, CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.DERIVE])
def test_one_usage_is_as_good_as_all(slot: Slot, given: int) -> None:
    """Lets a session key do everything, whichever one usage NSS wrote on it; a usage said to be false is refused."""
    client = slot.client
    wrapped = aes_key_wrap(CONTENT_KEY, CONTENT_KEY)
    with slot.ro() as session:
        key = client.create(session, templates.session_key(CKK.AES, given, CONTENT_KEY))
        template = templates.unwrapped_secret(CKK.AES, CKA.UNWRAP)
        content = unwrap(slot, session, client.mechanism(CKM.AES_KEY_WRAP), key, wrapped, template)
        assert read_mail(slot, content, encrypted()) == TEXT
        assert read_mail(slot, key, encrypted()) == TEXT
        never = client.create(session, but(templates.session_key(CKK.AES, given, CONTENT_KEY), (CKA.DECRYPT, False)))
        rv = client.call("C_DecryptInit", session, client.mechanism(CKM.AES_CBC, IV), never)
        assert rv == CKR.KEY_FUNCTION_NOT_PERMITTED


@pytest.mark.rule("O5", "P13")
def test_the_key_of_a_password(slot: Slot) -> None:
    """Makes the key of a PKCS #12 file's password on the token as NSS asks for it, and decrypts with it."""
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    client, salt, password = slot.client, b"salty salt", b"password"
    held = [ffi.new("CK_BYTE[]", salt), ffi.new("CK_BYTE[]", password)]
    parameter = ffi.new(
        "CK_PKCS5_PBKD2_PARAMS2 *", (1, held[0], len(salt), 1000, 4, ffi.NULL, 0, held[1], len(password))
    )
    with slot.ro() as session:
        key = client.generate(session, client.mechanism(CKM.PKCS5_PBKD2, parameter), templates.PBE_KEY)
        expected = PBKDF2HMAC(HASHES[CKM.SHA256][1], 32, salt, 1000).derive(password)
        assert read_mail(slot, key, encrypted(expected)) == TEXT
