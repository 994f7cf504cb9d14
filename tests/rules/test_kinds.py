"""The four kinds of tokens (table 1.2): what each offers, and how it refuses the rest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from tests.client import P256, RSA_2048, Client, RvError, Template, ffi
from tests.conftest import PIN
from tests.rules import nss_templates as templates
from tests.rules.kinds import KINDS, LIMITED, start_on
from tests.rules.software_keys import der_signature, ec_public, rsa_key, rsa_public

SHA256_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
RSA_SIGNATURES = (CKM.RSA_PKCS, CKM.RSA_PKCS_PSS, CKM.SHA256_RSA_PKCS, CKM.SHA384_RSA_PKCS_PSS)
EC_SIGNATURES = (CKM.ECDSA, CKM.ECDSA_SHA256)
SIGNATURES = (*RSA_SIGNATURES, *EC_SIGNATURES, CKM.EDDSA)
PAIRS = (CKM.RSA_PKCS_KEY_PAIR_GEN, CKM.EC_KEY_PAIR_GEN, CKM.EC_EDWARDS_KEY_PAIR_GEN)
TRANSPORT = (CKM.AES_KEY_WRAP, CKM.AES_KEY_WRAP_PAD, CKM.AES_CBC_PAD, CKM.DES3_CBC_PAD)
CONTENT = (CKM.AES_CBC, CKM.AES_GCM, CKM.DES3_CBC)

# Table 1.2 and its modern equivalent, row by row, as a user of C_GetMechanismInfo sees them.
TABLE: dict[str, dict[int, tuple[int, ...]]] = {
    "key-distribution": {
        CKF.SIGN: SIGNATURES,
        CKF.DECRYPT: (CKM.RSA_PKCS, CKM.RSA_X_509),
        CKF.UNWRAP: (CKM.RSA_PKCS,),
        CKF.GENERATE_KEY_PAIR: PAIRS,
    },
    "signing": {
        CKF.SIGN: SIGNATURES,
        CKF.UNWRAP: (CKM.RSA_PKCS,),
        CKF.GENERATE_KEY_PAIR: PAIRS,
    },
    "signing-decryption": {
        CKF.SIGN: SIGNATURES,
        CKF.DECRYPT: (CKM.RSA_PKCS, CKM.RSA_X_509, CKM.RSA_PKCS_OAEP, *CONTENT),
        CKF.UNWRAP: (CKM.RSA_PKCS, CKM.RSA_PKCS_OAEP, *TRANSPORT),
        CKF.DERIVE: (CKM.ECDH1_DERIVE, CKM.ECDH1_COFACTOR_DERIVE),
        CKF.GENERATE_KEY_PAIR: (*PAIRS, CKM.EC_MONTGOMERY_KEY_PAIR_GEN),
    },
    "multipurpose": {
        CKF.ENCRYPT: (CKM.RSA_PKCS, CKM.AES_CBC),
        CKF.DECRYPT: (CKM.RSA_PKCS, CKM.AES_CBC),
        CKF.SIGN: (*SIGNATURES, CKM.SHA256_HMAC),
        CKF.VERIFY: SIGNATURES,
        CKF.VERIFY_RECOVER: (CKM.RSA_PKCS,),
        CKF.GENERATE: (CKM.AES_KEY_GEN,),
        CKF.GENERATE_KEY_PAIR: PAIRS,
        CKF.WRAP: (CKM.RSA_PKCS, CKM.AES_CBC_PAD),
        CKF.UNWRAP: (CKM.RSA_PKCS, CKM.AES_CBC_PAD),
        CKF.DIGEST: (CKM.SHA256,),
        CKF.DERIVE: (CKM.ECDH1_DERIVE,),
    },
}
OPERATIONS = (
    *(CKF.ENCRYPT, CKF.DECRYPT, CKF.DIGEST, CKF.SIGN, CKF.SIGN_RECOVER, CKF.VERIFY, CKF.VERIFY_RECOVER),
    *(CKF.GENERATE, CKF.GENERATE_KEY_PAIR, CKF.WRAP, CKF.UNWRAP, CKF.DERIVE),
)
# For each function that takes a mechanism and a key: C_*Init or the like, with a mechanism of RSA, AES, ECDH.
USES = {
    "C_EncryptInit": CKF.ENCRYPT,
    "C_DecryptInit": CKF.DECRYPT,
    "C_SignInit": CKF.SIGN,
    "C_SignRecoverInit": CKF.SIGN_RECOVER,
    "C_VerifyInit": CKF.VERIFY,
    "C_VerifyRecoverInit": CKF.VERIFY_RECOVER,
}


@pytest.mark.rule("K1", "K7", "K9", "K10", "K11", "S16")
@pytest.mark.parametrize("kind", KINDS)
def test_the_list_of_mechanisms_is_the_table(module: Client, home: Path, kind: str) -> None:
    """Each kind lists the mechanisms of table 1.2 and what has taken their place, with exactly the flags it offers."""
    slot = start_on(module, home, kind)
    for flag, mechanisms in TABLE[kind].items():
        for mechanism in mechanisms:
            assert mechanism in slot.mechanisms
            assert slot.mechanism_flags(mechanism) & flag
    offered = 0
    for mechanism in slot.mechanisms:
        assert slot.mechanism_flags(mechanism), "listed, and offers nothing"
        offered |= slot.mechanism_flags(mechanism)
    assert not (slot.mechanism_flags(CKM.RSA_X_509) & CKF.SIGN) or kind == "multipurpose"
    assert not (slot.mechanism_flags(CKM.SHA256_HMAC) & CKF.SIGN) or kind == "multipurpose"
    if kind != "multipurpose":
        assert {flag for flag in OPERATIONS if offered & flag} == set(TABLE[kind])


@pytest.mark.rule("K1")
@pytest.mark.parametrize("kind", LIMITED)
def test_what_is_not_listed_is_refused(module: Client, home: Path, kind: str) -> None:
    """What a kind does not list it refuses with CKR_MECHANISM_INVALID, whatever the key's attributes allow."""
    slot = start_on(module, home, kind)
    client = module
    with slot.rw() as session:
        public, private = client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, RSA_2048, [])
        secret = client.create(session, session_key(CKK.AES, bytes(16)))
        keys = {CKM.RSA_PKCS: (public, private), CKM.RSA_X_509: (public, private), CKM.AES_ECB: (secret, secret)}
        for mechanism, (outward, inward) in keys.items():
            for name, flag in USES.items():
                key = inward if flag in (CKF.DECRYPT, CKF.SIGN, CKF.SIGN_RECOVER) else outward
                rv = client.call(name, session, client.mechanism(mechanism), key)
                if slot.mechanism_flags(mechanism) & flag:
                    assert rv == CKR.OK, name
                    client.ok(name, session, ffi.NULL, 0)
                else:
                    assert rv == CKR.MECHANISM_INVALID, name
        assert client.call("C_DigestInit", session, client.mechanism(CKM.SHA256)) == CKR.MECHANISM_INVALID
        length = ffi.new("CK_ULONG *")
        wrapping = (client.mechanism(CKM.RSA_PKCS), public, secret, ffi.NULL, length)
        assert client.call("C_WrapKey", session, *wrapping) == CKR.MECHANISM_INVALID
        with pytest.raises(RvError) as refusal:
            client.generate(session, client.mechanism(CKM.AES_KEY_GEN), [(CKA.VALUE_LEN, 16)])
        assert refusal.value.rv == CKR.MECHANISM_INVALID


@pytest.mark.rule("K3", "K4", "K7", "K9")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_signs(module: Client, home: Path, kind: str) -> None:
    """Every kind makes RSA and EC keys and signs with them; raw and hashing mechanisms make the same signatures."""
    slot = start_on(module, home, kind)
    public_rsa, rsa = slot.generate_rsa()
    public_ec, ec = slot.generate_ec()
    pss = ffi.new("CK_RSA_PKCS_PSS_PARAMS *", (CKM.SHA256, 2, 32))
    digest = hashlib.sha256(b"text").digest()
    key, sha256 = rsa_public(slot, public_rsa), hashes.SHA256()
    raw = slot.sign(rsa, module.mechanism(CKM.RSA_PKCS), SHA256_DIGEST_INFO + digest, 256)
    assert raw == slot.sign(rsa, module.mechanism(CKM.SHA256_RSA_PKCS), b"text", 256)
    key.verify(raw, b"text", padding.PKCS1v15(), sha256)
    salted = slot.sign(rsa, module.mechanism(CKM.RSA_PKCS_PSS, pss), digest, 256)
    key.verify(salted, b"text", padding.PSS(padding.MGF1(sha256), 32), sha256)
    for mechanism, data in ((CKM.ECDSA, digest), (CKM.ECDSA_SHA256, b"text")):
        signature = slot.sign(ec, module.mechanism(mechanism), data, 64)
        assert len(signature) == 64
        ec_public(slot, public_ec).verify(der_signature(signature), b"text", ECDSA(sha256))


@pytest.mark.rule("K2", "K7")
@pytest.mark.parametrize("kind", ["key-distribution", "signing-decryption", "multipurpose"])
def test_keys_from_elsewhere_sign_and_decrypt(module: Client, home: Path, kind: str) -> None:
    """Signs and decrypts with CKM_RSA_PKCS and a key that came by C_CreateObject, with the keys of others beside it."""
    slot = start_on(module, home, kind)
    slot.generate_rsa()
    private = slot.create(templates.rsa_private_key(rsa_key()))
    for _ in range(2):
        signature = slot.sign(private, module.mechanism(CKM.RSA_PKCS), b"as it is", 256)
        recovered = rsa_key().public_key().recover_data_from_signature(signature, padding.PKCS1v15(), None)
        assert recovered == b"as it is"
        sealed = rsa_key().public_key().encrypt(b"a content key", padding.PKCS1v15())
        with slot.ro() as session:
            module.ok("C_DecryptInit", session, module.mechanism(CKM.RSA_PKCS), private)
            assert module.output("C_Decrypt", session, sealed, len(sealed)) == b"a content key"
        slot.logout()
        slot.login(PIN)


@pytest.mark.rule("K4", "K10", "K12")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_unwraps_a_session_key_with_rsa(module: Client, home: Path, kind: str) -> None:
    """C_UnwrapKey with CKM_RSA_PKCS, which table 1.2 has for all kinds, gives a session key; decrypting is apart."""
    slot = start_on(module, home, kind)
    public, private = slot.generate_rsa()
    modulus, exponent = slot.read(public, CKA.MODULUS, CKA.PUBLIC_EXPONENT)
    wrapped = encrypt(modulus or b"", exponent or b"", bytes(range(16)))
    array, count, _kept = module.template([(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.DECRYPT, True)])
    handle = ffi.new("CK_ULONG *")
    with slot.ro() as session:
        where = (module.mechanism(CKM.RSA_PKCS), private, wrapped, len(wrapped), array, count, handle)
        module.ok("C_UnwrapKey", session, *where)
        assert slot.read(handle[0], CKA.VALUE) == [bytes(range(16))]
        rv = module.call("C_DecryptInit", session, module.mechanism(CKM.AES_CBC, bytes(16)), handle[0])
        assert rv == (CKR.OK if kind in ("signing-decryption", "multipurpose") else CKR.MECHANISM_INVALID)
    with slot.ro() as session:
        rv = module.call("C_DecryptInit", session, module.mechanism(CKM.RSA_PKCS), private)
        assert rv == (CKR.MECHANISM_INVALID if kind == "signing" else CKR.OK)


@pytest.mark.rule("K11", "N3")
@pytest.mark.parametrize("kind", KINDS)
def test_random_numbers_are_for_multipurpose_tokens(module: Client, home: Path, kind: str) -> None:
    """Only multipurpose tokens set CKF_RNG; the others clear it and answer CKR_RANDOM_NO_RNG."""
    slot = start_on(module, home, kind)
    held = ffi.new("char[32]")
    expected = CKR.OK if kind == "multipurpose" else CKR.RANDOM_NO_RNG
    assert bool(slot.flags & CKF.RNG) == (kind == "multipurpose")
    assert bool(slot.flags & CKF.DUAL_CRYPTO_OPERATIONS) == (kind == "multipurpose")
    assert module.call("C_GenerateRandom", slot.session, held, 32) == expected
    assert module.call("C_SeedRandom", slot.session, held, 32) == expected


@pytest.mark.rule("K11", "SE5")
@pytest.mark.parametrize("kind", KINDS)
def test_states_are_for_multipurpose_tokens(module: Client, home: Path, kind: str) -> None:
    """Only multipurpose tokens save the state of operations; the others answer CKR_STATE_UNSAVEABLE."""
    slot = start_on(module, home, kind)
    _, key = slot.generate_ec()
    length = ffi.new("CK_ULONG *")
    assert module.call("C_GetOperationState", slot.session, ffi.NULL, length) == CKR.OPERATION_NOT_INITIALIZED
    module.ok("C_SignInit", slot.session, module.mechanism(CKM.ECDSA_SHA256), key)
    if kind == "multipurpose":
        state = module.output("C_GetOperationState", slot.session)
        module.ok("C_SetOperationState", slot.session, state, len(state), key, 0)
        return
    assert module.call("C_GetOperationState", slot.session, ffi.NULL, length) == CKR.STATE_UNSAVEABLE
    assert module.call("C_SetOperationState", slot.session, bytes(32), 32, key, 0) == CKR.SAVED_STATE_INVALID
    module.ok("C_SignUpdate", slot.session, b"goes on", 7)


@pytest.mark.rule("K1", "O4")
@pytest.mark.parametrize("kind", KINDS)
def test_what_each_kind_keeps(module: Client, home: Path, kind: str) -> None:
    """All kinds keep certificates, key pairs, data and trust; secret keys stay on multipurpose tokens only."""
    slot = start_on(module, home, kind)
    for template in KEPT:
        assert slot.read(slot.create(template), CKA.TOKEN) == [b"\x01"]
    with slot.ro() as session:
        key = module.create(session, session_key(CKK.AES, bytes(range(16))))
        assert slot.read(key, CKA.TOKEN) == [b"\x00"]
        if kind == "multipurpose":
            slot.create([*session_key(CKK.AES, bytes(16)), (CKA.TOKEN, True)])
            return
        with pytest.raises(RvError) as refusal:
            slot.create([*session_key(CKK.AES, bytes(16)), (CKA.TOKEN, True)])
        assert refusal.value.rv == CKR.ATTRIBUTE_VALUE_INVALID
        array, count, _kept = module.template([(CKA.TOKEN, True)])
        with slot.rw() as writing:
            rv = module.call("C_CopyObject", writing, key, array, count, ffi.new("CK_ULONG *"))
        assert rv == CKR.ATTRIBUTE_VALUE_INVALID


@pytest.mark.rule("K8", "O2")
@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_nss_makes_for_a_token_that_makes_none(module: Client, home: Path, kind: str) -> None:
    """Lists no key generation where that is hidden, and takes the keys that NSS then makes itself: both templates."""
    slot = start_on(module, home, kind, hide=("CKM_RSA_PKCS_KEY_PAIR_GEN", "CKM_EC_KEY_PAIR_GEN"))
    assert not {CKM.RSA_PKCS_KEY_PAIR_GEN, CKM.EC_KEY_PAIR_GEN} & set(slot.mechanisms)
    for made in (templates.rsa_private_key(rsa_key()), templates.rsa_private_key_twice_said(rsa_key())):
        private = slot.create(made)
        public = slot.create(templates.rsa_public_key(rsa_key()))
        assert slot.read(private, CKA.TOKEN, CKA.MODULUS) == [b"\1", slot.read(public, CKA.MODULUS)[0]]
        signature = slot.sign(private, module.mechanism(CKM.SHA256_RSA_PKCS), b"a request", 256)
        rsa_key().public_key().verify(signature, b"a request", padding.PKCS1v15(), hashes.SHA256())
        assert [slot.destroy(handle) for handle in (private, public)] == [CKR.OK, CKR.OK]


@pytest.mark.rule("K8", "O2")
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_mechanisms_are_nowhere(module: Client, home: Path, kind: str) -> None:
    """A mechanism that the configuration hides is not listed, has no information, and is refused in every function."""
    hide = ("CKM_RSA_PKCS_KEY_PAIR_GEN", "EC_KEY_PAIR_GEN", "CKM_NO_SUCH_THING")
    slot = start_on(module, home, kind, hide=hide)
    for mechanism in (CKM.RSA_PKCS_KEY_PAIR_GEN, CKM.EC_KEY_PAIR_GEN):
        assert mechanism not in slot.mechanisms
        info = ffi.new("CK_MECHANISM_INFO *")
        assert module.call("C_GetMechanismInfo", slot.id, mechanism, info) == CKR.MECHANISM_INVALID
    with slot.rw() as session, pytest.raises(RvError) as refusal:
        module.generate_pair(session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], [])
    assert refusal.value.rv == CKR.MECHANISM_INVALID
    assert "CKM_NO_SUCH_THING is no mechanism" in (home / "keyfob.log").read_text()


def session_key(key_type: int, value: bytes) -> Template:
    return [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type), (CKA.VALUE, value)]


KEPT: tuple[Template, ...] = (
    [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.LABEL, "note"), (CKA.VALUE, b"text")],
    [(CKA.CLASS, CKO.NSS_TRUST), (CKA.TOKEN, True), (CKA.ISSUER, b"i"), (CKA.SERIAL_NUMBER, b"\x02\x01\x05")],
    [(CKA.CLASS, CKO.NSS_CRL), (CKA.TOKEN, True), (CKA.SUBJECT, b"s"), (CKA.VALUE, b"crl")],
    [
        (CKA.CLASS, CKO.CERTIFICATE),
        (CKA.CERTIFICATE_TYPE, 0),
        (CKA.TOKEN, True),
        (CKA.SUBJECT, b"s"),
        (CKA.VALUE, b"v"),
    ],
)


def encrypt(modulus: bytes, exponent: bytes, data: bytes) -> bytes:
    """As whoever writes to the key's owner does: PKCS #1 v1.5, in software."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    numbers = RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big"))
    return numbers.public_key().encrypt(data, PKCS1v15())
