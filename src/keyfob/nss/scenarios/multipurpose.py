"""A token that was made the default for NSS's own cryptography: digests, ciphers, MACs, keys, random, signatures.

Everything happens with session objects in a read-only session, and is compared with the cryptography library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyfob.nss import keys, material
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Mechanism, Module, Reply
from keyfob.nss.kinds import kinds_of
from keyfob.nss.scenario import scenario
from keyfob.nss.scenarios.transfer import brought_key, claims
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKR
from keyfob.spec.errors import name_of
from keyfob.spec.parameters import GcmParams

TEXT = b"keyfob check gives this to a token that was made the default. " * 4
PARTS = (TEXT[:7], TEXT[7:80], TEXT[80:])
SECRET, IV = bytes(range(32)), bytes(range(16))
DIGESTS: dict[int, hashes.HashAlgorithm] = {
    CKM.MD5: hashes.MD5(),  # noqa: S303 - NSS still takes it from a token
    CKM.SHA_1: hashes.SHA1(),  # noqa: S303
    CKM.SHA224: hashes.SHA224(),
    CKM.SHA256: hashes.SHA256(),
    CKM.SHA384: hashes.SHA384(),
    CKM.SHA512: hashes.SHA512(),
}
MACS: dict[int, hashes.HashAlgorithm] = {
    CKM.SHA256_HMAC: hashes.SHA256(),
    CKM.SHA384_HMAC: hashes.SHA384(),
    CKM.SHA512_HMAC: hashes.SHA512(),
}
REFUSED = (CKR.SIGNATURE_INVALID, CKR.SIGNATURE_LEN_RANGE)


@scenario(
    "multipurpose",
    "All of NSS's cryptography on a token that was made the default for it",
    rules=("K5", "K11"),
)
def multipurpose(context: Context) -> None:
    slot = context.ready()
    lacks = _lacks(context, slot)
    if lacks:
        context.skip(f"it is no multipurpose token: it lacks {', '.join(lacks)}", "K5", "K11", applicable=False)
        return
    session = context.nss().open_ro(slot)
    if brought_key(context, session, CKK.AES, CKA.ENCRYPT, SECRET).rv == CKR.SESSION_READ_ONLY:
        context.skip("session objects want a read-write session: see N8", "K5", "K11")
        return
    with context.checking("K5") as check:
        with context.step("digests"):
            _digests(context, check, slot, session)
        with context.step("ciphers"):
            _ciphers(context, check, slot)
        with context.step("MACs"):
            _macs(context, check, slot, session)
        with context.step("random numbers"):
            drawn = [context.module.C_GenerateRandom(session, 32) for _ in range(2)]
            # One that fails is P27's matter.
            same = all(reply.is_ok for reply in drawn) and drawn[0].value == drawn[1].value
            check.expect(not same, "C_GenerateRandom gives the same bytes twice", *drawn)
    with context.checking("K11") as check:
        with context.step("keys"):
            _generated(context, check, slot, session)
        for key in (material.rsa_key(), material.ec_key()):
            with context.step(f"verify with {'RSA' if isinstance(key, rsa.RSAPrivateKey) else 'EC'}"):
                _verify(context, check, slot, session, key)
    context.nss().close(slot, session)


def _lacks(context: Context, slot: NssSlot) -> tuple[str, ...]:
    """What keeps it from being a multipurpose token (K1)."""
    with context.module.recorder.quietly("read the flags of all mechanisms"):
        infos = {mechanism: context.module.C_GetMechanismInfo(slot.id, mechanism) for mechanism in slot.mechanisms}
    flags = {mechanism: int(reply.value.flags) for mechanism, reply in infos.items() if reply.is_ok}
    return next(kind.lacks for kind in kinds_of(flags, slot.flags) if kind.name == "multipurpose")


def _expect_value(check: Check, reply: Reply[Any], wanted: bytes, what: str) -> None:
    if check.expect_rv(reply, CKR.OK, because=f"to {what}"):
        check.expect(reply.value == wanted, f"{what} gives something else than it should", reply)


def _in_parts(reply: Reply[Any], session: int, update: Callable[[int, bytes], Reply[Any]]) -> Reply[Any]:
    """The reply of the first part that fails, else of the last."""
    for part in PARTS:
        if reply.is_ok:
            reply = update(session, part)
    return reply


def _digests(context: Context, check: Check, slot: NssSlot, session: int) -> None:
    module = context.module
    for mechanism, algorithm in DIGESTS.items():
        if not claims(context, slot, mechanism, CKF.DIGEST):
            continue
        name, wanted = name_of("CKM", mechanism), keys.digest(algorithm, TEXT)
        reply: Reply[Any] = module.C_DigestInit(session, Mechanism(mechanism))
        _expect_value(check, module.C_Digest(session, TEXT, 64) if reply.is_ok else reply, wanted, name)
        reply = _in_parts(module.C_DigestInit(session, Mechanism(mechanism)), session, module.C_DigestUpdate)
        _expect_value(check, module.C_DigestFinal(session, 64) if reply.is_ok else reply, wanted, f"{name} in parts")


def _ciphers(context: Context, check: Check, slot: NssSlot) -> None:
    """What TLS and mail encrypt with, and back again; in parts, too, but for GCM (cxt:1580)."""
    block = 16
    aes = algorithms.AES(SECRET)
    padded = TEXT + bytes([block - len(TEXT) % block]) * (block - len(TEXT) % block)
    whole = TEXT[: len(TEXT) // block * block]
    gcm = GcmParams(IV[:12], 96, b"header", 128)
    ways: tuple[tuple[Mechanism, bytes, bytes], ...] = (
        (Mechanism(CKM.AES_ECB), whole, _encrypted(Cipher(aes, modes.ECB()), whole)),  # noqa: S305 - NSS wraps with it
        (Mechanism(CKM.AES_CBC, IV), whole, _encrypted(Cipher(aes, modes.CBC(IV)), whole)),
        (Mechanism(CKM.AES_CBC_PAD, IV), TEXT, _encrypted(Cipher(aes, modes.CBC(IV)), padded)),
        (Mechanism(CKM.AES_GCM, gcm), TEXT, AESGCM(SECRET).encrypt(gcm.iv, TEXT, gcm.aad)),
    )
    for mechanism, plain, secret in ways:
        if claims(context, slot, mechanism.kind, CKF.ENCRYPT):
            _cipher(context, check, slot, mechanism, CKA.ENCRYPT, plain, secret)
        if claims(context, slot, mechanism.kind, CKF.DECRYPT):
            _cipher(context, check, slot, mechanism, CKA.DECRYPT, secret, plain)


def _encrypted(cipher: Cipher[Any], plain: bytes) -> bytes:
    encryptor = cipher.encryptor()
    return encryptor.update(plain) + encryptor.finalize()


def _cipher(
    context: Context, check: Check, slot: NssSlot, mechanism: Mechanism, usage: int, given: bytes, wanted: bytes
) -> None:
    module = context.module
    encrypts = usage == CKA.ENCRYPT
    what = f"{name_of('CKM', mechanism.kind)} {'encrypting' if encrypts else 'decrypting'}"
    session = context.nss().open_ro(slot)
    key = brought_key(context, session, CKK.AES, usage, SECRET)
    if check.expect_rv(key, CKR.OK, because="to an AES session key from raw data"):
        begin, once = (module.C_EncryptInit, module.C_Encrypt) if encrypts else (module.C_DecryptInit, module.C_Decrypt)
        reply: Reply[Any] = begin(session, mechanism, key.value)
        _expect_value(check, once(session, given, len(given) + 32) if reply.is_ok else reply, wanted, what)
        if mechanism.kind != CKM.AES_GCM:
            reply, made = _streamed(module, session, mechanism, key.value, given, encrypts=encrypts)
            if check.expect_rv(reply, CKR.OK, because=f"to {what} in parts"):
                check.expect(made == wanted, f"{what} in parts gives something else than it should", reply)
    context.nss().close(slot, session)


def _streamed(
    module: Module, session: int, mechanism: Mechanism, key: int, given: bytes, *, encrypts: bool
) -> tuple[Reply[Any], bytes]:
    """The reply that was not CKR_OK, else the last; what came out in all."""
    begin, update, end = (
        (module.C_EncryptInit, module.C_EncryptUpdate, module.C_EncryptFinal)
        if encrypts
        else (module.C_DecryptInit, module.C_DecryptUpdate, module.C_DecryptFinal)
    )
    room, made = len(given) + 32, b""
    reply: Reply[Any] = begin(session, mechanism, key)
    for part in (given[:16], given[16:48], given[48:], None):
        if reply.is_ok:
            reply = end(session, room) if part is None else update(session, part, room)
            made += reply.value if isinstance(reply.value, bytes) else b""
    return reply, made


def _macs(context: Context, check: Check, slot: NssSlot, session: int) -> None:
    module = context.module
    for mechanism, algorithm in MACS.items():
        if not claims(context, slot, mechanism, CKF.SIGN):
            continue
        name = name_of("CKM", mechanism)
        # As long as the hash, as keys for MACs are in TLS and PKCS #12: some tokens take no shorter ones.
        secret = b"\x5a" * algorithm.digest_size
        key = brought_key(context, session, CKK.GENERIC_SECRET, CKA.SIGN, secret)
        if not check.expect_rv(key, CKR.OK, because="to a generic secret from raw data"):
            return
        made = hmac.HMAC(secret, algorithm)
        made.update(TEXT)
        begun = module.C_SignInit(session, Mechanism(mechanism), key.value)
        reply = _in_parts(begun, session, module.C_SignUpdate)
        reply = module.C_SignFinal(session, algorithm.digest_size) if reply.is_ok else reply
        _expect_value(check, reply, made.finalize(), name)
        module.C_DestroyObject(session, key.value)


def _generated(context: Context, check: Check, slot: NssSlot, session: int) -> None:
    """PK11_KeyGen: two AES keys, each of which decrypts what it encrypts, and not what the other does."""
    if not claims(context, slot, CKM.AES_KEY_GEN, CKF.GENERATE):
        return
    module = context.module
    template = [(CKA.VALUE_LEN, 32), (CKA.ENCRYPT, True), (CKA.DECRYPT, True)]
    made = [module.C_GenerateKey(session, Mechanism(CKM.AES_KEY_GEN), template) for _ in range(2)]
    for reply in made:
        check.expect_rv(reply, CKR.OK, because="to an AES key of 32 bytes")
    crypts = all(claims(context, slot, CKM.AES_CBC, flag) for flag in (CKF.ENCRYPT, CKF.DECRYPT))
    if not crypts or not all(reply.is_ok for reply in made):
        return
    secrets: list[bytes] = []
    for reply in made:
        module.C_EncryptInit(session, Mechanism(CKM.AES_CBC, IV), reply.value).ok()
        encrypted = module.C_Encrypt(session, TEXT[:64], 64)
        if not check.expect(isinstance(encrypted.ok(), bytes), "C_Encrypt says a length that cannot be", encrypted):
            return
        module.C_DecryptInit(session, Mechanism(CKM.AES_CBC, IV), reply.value).ok()
        back = module.C_Decrypt(session, encrypted.value, 64)
        _expect_value(check, back, TEXT[:64], "an AES key that the token made, decrypting what it encrypted,")
        secrets.append(encrypted.value)
        module.C_DestroyObject(session, reply.value)
    check.expect(secrets[0] != secrets[1], "two AES keys that the token made are the same", *made)


def _verify(context: Context, check: Check, slot: NssSlot, session: int, key: material.PrivateKey) -> None:
    """PK11_Verify with a public key as a session object (obj:718): right signatures pass, and no others."""
    if isinstance(key, rsa.RSAPrivateKey):
        mechanism, data = CKM.RSA_PKCS, keys.digest_info(TEXT)
        signature = key.sign(TEXT, padding.PKCS1v15(), hashes.SHA256())
    else:
        mechanism, data = CKM.ECDSA, keys.digest(hashes.SHA256(), TEXT)
        pair = utils.decode_dss_signature(key.sign(TEXT, ec.ECDSA(hashes.SHA256())))
        signature = b"".join(half.to_bytes(32, "big") for half in pair)
    if not claims(context, slot, mechanism, CKF.VERIFY):
        return
    module, name = context.module, name_of("CKM", mechanism)
    public = module.C_CreateObject(session, material.public_key_template(key, token=False))
    if not check.expect_rv(public, CKR.OK, because="to a public key as a session object"):
        return
    wrong = bytes([*signature[:-1], signature[-1] ^ 1])

    def verify(given: bytes) -> Reply[Any]:
        begun = module.C_VerifyInit(session, Mechanism(mechanism), public.value)
        return module.C_Verify(session, data, given) if begun.is_ok else begun

    def verify_signature(given: bytes) -> Reply[Any]:
        return module.verify_signature(session, Mechanism(mechanism), public.value, data, given)

    # Of lists from 3.2 on NSS takes the newer functions (obj:718).
    for way in (verify, verify_signature) if module.has("C_VerifySignatureInit") else (verify,):
        check.expect_rv(way(signature), CKR.OK, because=f"to a right signature with {name}")
        check.expect_rv(way(wrong), *REFUSED, because=f"to a wrong signature with {name}")
    if mechanism == CKM.RSA_PKCS and claims(context, slot, mechanism, CKF.VERIFY_RECOVER):
        reply = module.verify_recover(session, Mechanism(mechanism), public.value, signature, len(signature))
        _expect_value(check, reply, data, f"{name} recovering what was signed")
    module.C_DestroyObject(session, public.value)
