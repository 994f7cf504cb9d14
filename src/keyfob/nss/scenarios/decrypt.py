"""Encrypted mail as NSS opens it: the content key by RSA or ECDH, the text by AES, and the ways round."""

from __future__ import annotations

import os
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyfob.nss import keys, material
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Reply
from keyfob.nss.driver.mechanism import Mechanism
from keyfob.nss.keys import TokenKey
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKA, CKD, CKF, CKG, CKK, CKM, CKO, CKR, CKZ
from keyfob.spec.errors import name_of
from keyfob.spec.parameters import Ecdh1DeriveParams, RsaPkcsOaepParams

TEXT = b"keyfob check encrypts this text. " * 4 + b"To the end.."
IV = bytes(range(16))
# What mail uses: one hash for all, and SHA-256 with the mask of SHA-1 (OpenSSL's default for a mask that is not named).
OAEP: tuple[tuple[str, int, hashes.HashAlgorithm, int, hashes.HashAlgorithm], ...] = (
    ("SHA-1", CKM.SHA_1, hashes.SHA1(), CKG.MGF1_SHA1, hashes.SHA1()),  # noqa: S303 - OAEP's default
    ("SHA-256", CKM.SHA256, hashes.SHA256(), CKG.MGF1_SHA256, hashes.SHA256()),
    ("SHA-384", CKM.SHA384, hashes.SHA384(), CKG.MGF1_SHA384, hashes.SHA384()),
    ("SHA-512", CKM.SHA512, hashes.SHA512(), CKG.MGF1_SHA512, hashes.SHA512()),
    ("SHA-256 and a mask of SHA-1", CKM.SHA256, hashes.SHA256(), CKG.MGF1_SHA1, hashes.SHA1()),  # noqa: S303
)
KDFS: dict[int, hashes.HashAlgorithm | None] = {
    CKD.NULL: None,
    CKD.SHA1_KDF: hashes.SHA1(),  # noqa: S303 - mail of old programs
    CKD.SHA224_KDF: hashes.SHA224(),
    CKD.SHA256_KDF: hashes.SHA256(),
    CKD.SHA384_KDF: hashes.SHA384(),
    CKD.SHA512_KDF: hashes.SHA512(),
}
SHARED_INFO = bytes.fromhex("3015300b060960864801650304012da206040400000100")
"""As long as that of mail under AES-256: 23 bytes of DER (ECC-CMS-SharedInfo)."""
KEK_LENGTH = 32
Opened = tuple[str, Reply[Any]]
"""What is wrong (nothing: empty), and the call that showed it."""


def encrypted(key: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(IV)).encryptor()
    return encryptor.update(TEXT) + encryptor.finalize()


def x963(algorithm: hashes.HashAlgorithm, secret: bytes, shared_info: bytes, length: int) -> bytes:
    """The key derivation of ANSI X9.63: hashes of secret, a counter of four bytes from 1 on, and the shared info."""
    made = b""
    counter = 1
    while len(made) < length:
        made += keys.digest(algorithm, secret + counter.to_bytes(4, "big") + shared_info)
        counter += 1
    return made[:length]


@scenario(
    "decrypt",
    "Open mail: the content key by RSA or ECDH, the text by AES",
    rules=("K4", "K7", "K10", "K12", "N8", "P12", "P13", "P14"),
)
def decrypt(context: Context) -> None:
    slot = context.ready()
    found = keys.token_keys(context, slot)
    if not found:
        context.give_up("the token has no key that decrypts, and takes none")
    for key in found:
        if isinstance(key.public, rsa.RSAPublicKey):
            _rsa(context, slot, key, key.public)
        elif isinstance(key.public, ec.EllipticCurvePublicKey):
            _ecdh(context, slot, key, key.public)
    if not any(isinstance(key.public, rsa.RSAPublicKey) for key in found):
        context.skip("there is no RSA key to decrypt with", "K7", "K10", "K12", "P14")
    if not any(isinstance(key.public, ec.EllipticCurvePublicKey) for key in found):
        context.skip("there is no EC key to derive with", "P13")
    keys.remove(context, slot, found)


def _flags(context: Context, slot: NssSlot, mechanism: int) -> int:
    """NSS asks without looking at the list; an error is the same as no flags (skey:2781)."""
    reply = context.module.C_GetMechanismInfo(slot.id, mechanism)
    return int(reply.value.flags) if reply.is_ok else 0


# RSA


def _rsa(context: Context, slot: NssSlot, key: TokenKey, public: rsa.RSAPublicKey) -> None:
    flags = _flags(context, slot, CKM.RSA_PKCS)
    content = os.urandom(16)
    wrapped = public.encrypt(content, padding.PKCS1v15())
    with context.step("open mail: RSA"):
        unwrapped = _unwrap_and_open(context, slot, key, Mechanism(CKM.RSA_PKCS), wrapped, content)
        by_hand = _decrypt_key(context, slot, key, Mechanism(CKM.RSA_PKCS), wrapped, content)
        if not (flags & (CKF.DECRYPT | CKF.UNWRAP)) and unwrapped[0] and by_hand[0]:
            reason = "the token does not decrypt with RSA"
            context.skip(reason, "K4", "K7", "K10", "K12", "P14", applicable=False)
            return
        if not key.made and {unwrapped[1].rv, by_hand[1].rv} == {CKR.KEY_FUNCTION_NOT_PERMITTED}:
            context.skip("the token's own RSA key is not for decryption", "K4", "K7", "K10", "K12", "P14")
            return
        _judge_rsa(context, slot, flags, unwrapped, by_hand)
    with context.step("open mail: RSA-OAEP"), context.checking("P14") as check:
        _oaep(context, check, slot, key, public)
    if CKM.AES_CBC not in slot.mechanisms:
        context.skip("the token has no CKM_AES_CBC: content keys do not stay on it", "P12", applicable=False)
        return
    if unwrapped[0]:
        return
    with context.step("a key with another usage than it needs"), context.checking("P12") as check:
        opened = _unwrap_and_open(context, slot, key, Mechanism(CKM.RSA_PKCS), wrapped, content, CKA.UNWRAP)
        check.expect(not opened[0], f"a key unwrapped with CKA_UNWRAP alone does not decrypt: {opened[0]}", opened[1])


def _judge_rsa(context: Context, slot: NssSlot, flags: int, unwrapped: Opened, by_hand: Opened) -> None:
    refused = unwrapped[1].call.function == "C_UnwrapKey" and not unwrapped[1].is_ok
    with context.checking("K12") as check:
        if not flags & CKF.UNWRAP:
            check.not_applicable("the flags of CKM_RSA_PKCS do not promise C_UnwrapKey")
        if unwrapped[1].rv == CKR.SESSION_READ_ONLY:
            check.not_tested("C_UnwrapKey wants a read-write session: see N8")
        check.expect(not refused, f"the flags of CKM_RSA_PKCS say UNWRAP, but {unwrapped[0]}", unwrapped[1])
    for rule_id in ("K7", "K10"):
        with context.checking(rule_id) as check:
            if not flags & CKF.DECRYPT:
                check.not_applicable("the flags of CKM_RSA_PKCS do not promise C_Decrypt")
            check.expect(not by_hand[0], f"the flags of CKM_RSA_PKCS say DECRYPT, but {by_hand[0]}", by_hand[1])
            if rule_id == "K10" and refused and unwrapped[1].rv == CKR.DEVICE_ERROR:
                saw = "C_UnwrapKey answered CKR_DEVICE_ERROR, after which NSS does not try C_Decrypt"
                check.fail(saw, unwrapped[1])
    # Without AES on the token NSS decrypts the key where it can, and unwraps second (skey:2781).
    decrypts_first = flags & CKF.DECRYPT and CKM.AES_CBC not in slot.mechanisms
    right = not by_hand[0] if decrypts_first or refused else not unwrapped[0]
    right = right or bool(decrypts_first and not unwrapped[0])
    with context.checking("K4") as check:
        if not right and unwrapped[1].rv == by_hand[1].rv == CKR.SESSION_READ_ONLY:
            check.not_tested("keys want a read-write session: see N8")
        check.expect(right, f"mail to an RSA key cannot be opened: {unwrapped[0] or by_hand[0]}", unwrapped[1])
    context.fact("decrypts with RSA", right)
    with context.checking("N8") as check:
        _expect_in_any_session(check, unwrapped[1])


def _expect_in_any_session(check: Check, reply: Reply[Any]) -> None:
    check.expect(
        reply.rv != CKR.SESSION_READ_ONLY,
        f"{reply.call.function} makes no session object in a read-only session",
        reply,
    )


def _unwrap_and_open(
    context: Context,
    slot: NssSlot,
    key: TokenKey,
    mechanism: Mechanism,
    wrapped: bytes,
    content: bytes,
    usage: int = CKA.DECRYPT,
) -> Opened:
    """PK11_PubUnwrapSymKey and what follows: the key keeps its session as long as it lives."""
    nss, module = context.nss(), context.module
    session = nss.open_ro(slot)
    template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (usage, True)]
    reply = module.C_UnwrapKey(session, mechanism, key.private, wrapped, template)
    opened: Opened = (f"C_UnwrapKey answered {reply.name}", reply)
    if reply.is_ok:
        nss.read_number(slot.session, reply.value, CKA.KEY_TYPE)
        opened = _open_text(context, slot, reply.value, content)
        module.C_DestroyObject(session, reply.value)
    nss.close(slot, session)
    return opened


def _open_text(context: Context, slot: NssSlot, handle: int, content: bytes) -> Opened:
    """The text with AES on the token; a token without it gives the key's value, with which NSS goes on (skey:902)."""
    nss, module = context.nss(), context.module
    value = module.C_GetAttributeValue(slot.session, handle, [(CKA.VALUE, len(content))])
    if value.is_ok and value.value[0][2] != content:
        return "another key came out than was wrapped", value
    if CKM.AES_CBC not in slot.mechanisms:
        problem = f"the key's value cannot be read ({value.name}), and the token has no CKM_AES_CBC"
        return "" if value.is_ok else problem, value
    # CKR_ATTRIBUTE_SENSITIVE is as good: the key stays where it is.
    nss.read_number(slot.session, handle, CKA.VALUE_LEN)
    session = nss.open_ro(slot)
    reply: Reply[Any] = module.C_DecryptInit(session, Mechanism(CKM.AES_CBC, IV), handle)
    if reply.is_ok:
        reply = module.C_DecryptUpdate(session, encrypted(content), len(TEXT))
    nss.close(slot, session)
    if not reply.is_ok:
        return f"{reply.call.function} with CKM_AES_CBC answered {reply.name}", reply
    return "" if reply.value == TEXT else "CKM_AES_CBC decrypts the text wrongly", reply


def _decrypt_key(
    context: Context, slot: NssSlot, key: TokenKey, mechanism: Mechanism, wrapped: bytes, content: bytes
) -> Opened:
    """pk11_HandUnwrap: C_Decrypt in a session of its own, into as much room as the wrapped key takes."""
    nss, module = context.nss(), context.module
    session = nss.open_ro(slot)
    reply: Reply[Any] = module.C_DecryptInit(session, mechanism, key.private)
    if reply.is_ok:
        reply = module.C_Decrypt(session, wrapped, len(wrapped))
    nss.close(slot, session)
    if not reply.is_ok:
        return f"{reply.call.function} answered {reply.name}", reply
    return "" if reply.value == content else "C_Decrypt gave another key than was wrapped", reply


def _oaep(context: Context, check: Check, slot: NssSlot, key: TokenKey, public: rsa.RSAPublicKey) -> None:
    flags = _flags(context, slot, CKM.RSA_PKCS_OAEP)
    if not flags & (CKF.DECRYPT | CKF.UNWRAP):
        check.not_applicable("the token does not offer CKM_RSA_PKCS_OAEP")
    content = os.urandom(32)
    for name, algorithm, hash_, mask, mask_hash in OAEP:
        form = padding.OAEP(padding.MGF1(mask_hash), hash_, None)
        mechanism = Mechanism(CKM.RSA_PKCS_OAEP, RsaPkcsOaepParams(algorithm, mask, CKZ.DATA_SPECIFIED, b""))
        wrapped = public.encrypt(content, form)
        opened = _unwrap_and_open(context, slot, key, mechanism, wrapped, content)
        if not opened[0]:
            continue
        if opened[1].call.function != "C_UnwrapKey" or opened[1].is_ok:
            check.fail(f"with OAEP of {name} {opened[0]}", opened[1])
            continue
        again = _decrypt_key(context, slot, key, mechanism, wrapped, content)
        check.expect(not again[0], f"with OAEP of {name} {opened[0]}, and {again[0]}", opened[1], again[1])


# ECDH


def _ecdh(context: Context, slot: NssSlot, key: TokenKey, public: ec.EllipticCurvePublicKey) -> None:
    if not _flags(context, slot, CKM.ECDH1_DERIVE) & CKF.DERIVE:
        context.skip("the token does not derive with CKM_ECDH1_DERIVE", "P13", applicable=False)
        return
    sender = ec.generate_private_key(public.curve)
    secret = sender.exchange(ec.ECDH(), public)
    point = sender.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    nss, module = context.nss(), context.module
    with context.step("open mail: ECDH"):
        with context.checking("P13") as check:
            usable = _derivations(context, check, slot, key, secret, point)
        if not usable:
            context.fact("decrypts with EC", False)
            return
        session = nss.open_ro(slot)
        derived = _derive(context, session, key, CKD.SHA256_KDF, point)
        kek = x963(hashes.SHA256(), secret, SHARED_INFO, KEK_LENGTH)
        content = os.urandom(32)
        wrapped = aes_key_wrap(kek, content)
        problem, reply = _unwrap_by_kek(context, slot, derived.value, wrapped, content)
        wrong_usage = reply.rv == CKR.KEY_FUNCTION_NOT_PERMITTED or (
            bool(problem) and not reply.is_ok and _is_for_usage(context, slot, session, key, point, kek)
        )
        with context.checking("P12") as check:
            check.expect(not wrong_usage, f"a key made for one usage, {problem}", reply)
        with context.checking("N8") as check:
            _expect_in_any_session(check, reply)
        if not wrong_usage and reply.rv != CKR.SESSION_READ_ONLY:
            with context.checking("K4") as check:
                check.expect(not problem, f"mail to an EC key cannot be opened: {problem}", reply)
        context.fact("decrypts with EC", not problem)
        module.C_DestroyObject(session, derived.value)
        nss.close(slot, session)


def _is_for_usage(context: Context, slot: NssSlot, session: int, key: TokenKey, point: bytes, kek: bytes) -> bool:
    """Whether a key does with CKA_UNWRAP what the same one, made as NSS makes it, does not do."""
    named = _derive(context, session, key, CKD.SHA256_KDF, point, (CKA.UNWRAP, True))
    if not named.is_ok:
        return False
    content = os.urandom(32)
    problem, reply = _unwrap_by_kek(context, slot, named.value, aes_key_wrap(kek, content), content)
    # The content key has a usage of its own, and no other.
    return not problem or reply.rv == CKR.KEY_FUNCTION_NOT_PERMITTED


def _derivations(context: Context, check: Check, slot: NssSlot, key: TokenKey, secret: bytes, point: bytes) -> bool:
    """Every key derivation function; whether that of today's mail, with SHA-256, gives the right key."""
    nss = context.nss()
    usable = False
    refused: dict[int, Reply[int]] = {}
    for kdf, algorithm in KDFS.items():
        name = name_of("CKD", kdf)
        if algorithm is None and len(secret) < KEK_LENGTH:
            continue
        kek = secret[-KEK_LENGTH:] if algorithm is None else x963(algorithm, secret, SHARED_INFO, KEK_LENGTH)
        session = nss.open_ro(slot)
        reply = _derive(context, session, key, kdf, point)
        if reply.is_ok:
            problem, shown = _key_is(context, slot, reply.value, kek)
            if problem and not shown.is_ok:
                problem = _with_every_usage(context, slot, session, key, kdf, point, kek)
            check.expect(not problem, f"CKM_ECDH1_DERIVE with {name} gives a wrong key: {problem}", reply, shown)
            usable = usable or (kdf == CKD.SHA256_KDF and not problem)
            context.module.C_DestroyObject(session, reply.value)
        else:
            refused[kdf] = reply
        nss.close(slot, session)
    _judge_refusals(context, check, slot, key, refused, point)
    return usable


def _judge_refusals(
    context: Context, check: Check, slot: NssSlot, key: TokenKey, refused: dict[int, Reply[int]], point: bytes
) -> None:
    """What was refused: for the function, or for the encoding of the point, which NSS tries as DER next (skey:2363)."""
    if not refused:
        return
    names = ", ".join(name_of("CKD", kdf) for kdf in refused)
    first = next(iter(refused.values()))
    if not key.made and first.rv == CKR.KEY_FUNCTION_NOT_PERMITTED:
        check.not_tested("the token's own EC key is not for derivation")
    nss = context.nss()
    session = nss.open_ro(slot)
    again = _derive(context, session, key, next(iter(refused)), material.octet_string(point))
    nss.close(slot, session)
    if again.is_ok:
        check.fail(f"C_DeriveKey takes the public point as DER only, and answered {first.name} to the raw one", first)
        return
    answers = ", ".join(sorted({reply.name for reply in refused.values()}))
    check.fail(f"C_DeriveKey answered {answers} to CKM_ECDH1_DERIVE with {names}", *refused.values())


def _with_every_usage(
    context: Context, slot: NssSlot, session: int, key: TokenKey, kdf: int, point: bytes, kek: bytes
) -> str:
    """What is wrong with the key where its template allows what comes next: for want of that is P12's matter."""
    reply = _derive(context, session, key, kdf, point, (CKA.UNWRAP, True))
    return _key_is(context, slot, reply.value, kek)[0] if reply.is_ok else ""


def _derive(
    context: Context, session: int, key: TokenKey, kdf: int, point: bytes, *more: tuple[int, bool]
) -> Reply[int]:
    """pk11_PubDeriveECKeyWithKDF: the only usage is CKA_WRAP, whatever comes next."""
    shared_info = b"" if kdf == CKD.NULL else SHARED_INFO
    template = [
        *((CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES)),
        *((CKA.WRAP, True), (CKA.VALUE_LEN, KEK_LENGTH), *more),
    ]
    mechanism = Mechanism(CKM.ECDH1_DERIVE, Ecdh1DeriveParams(kdf, shared_info, point))
    return context.module.C_DeriveKey(session, mechanism, key.private, template)


def _key_is(context: Context, slot: NssSlot, handle: int, kek: bytes) -> Opened:
    """Whether a derived key is the one that it should be, by its value or by what it unwraps."""
    value = context.module.C_GetAttributeValue(slot.session, handle, [(CKA.VALUE, len(kek))])
    if value.is_ok:
        return "" if value.value[0][2] == kek else "its value is another", value
    content = os.urandom(32)
    problem, reply = _unwrap_by_kek(context, slot, handle, aes_key_wrap(kek, content), content)
    # A key that may not be used is not a wrong key: see P12 and N8.
    allowed = reply.rv not in (CKR.KEY_FUNCTION_NOT_PERMITTED, CKR.SESSION_READ_ONLY)
    return problem if allowed else "", reply


def _unwrap_by_kek(context: Context, slot: NssSlot, kek: int, wrapped: bytes, content: bytes) -> Opened:
    """The content key under AES-KEY-WRAP, with CKA_UNWRAP as its only usage, and the text with that key."""
    nss, module = context.nss(), context.module
    if CKM.AES_KEY_WRAP not in slot.mechanisms:
        value = module.C_GetAttributeValue(slot.session, kek, [(CKA.VALUE, KEK_LENGTH)])
        problem = f"the key's value cannot be read ({value.name}), and the token has no CKM_AES_KEY_WRAP"
        return "" if value.is_ok else problem, value
    session = nss.open_ro(slot)
    template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.UNWRAP, True)]
    reply = module.C_UnwrapKey(session, Mechanism(CKM.AES_KEY_WRAP), kek, wrapped, template)
    opened: Opened = (f"C_UnwrapKey with CKM_AES_KEY_WRAP answered {reply.name}", reply)
    if reply.is_ok:
        opened = _open_text(context, slot, reply.value, content)
        module.C_DestroyObject(session, reply.value)
    nss.close(slot, session)
    return opened
