"""Keys on their way: session keys from raw data, the keys of PKCS #12 files, and private keys that leave the token."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from keyfob.nss import material
from keyfob.nss.client import NssSlot, Unusable
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import CallFailed, Reply, Template
from keyfob.nss.driver.mechanism import Mechanism
from keyfob.nss.material import PrivateKey, Wrapping
from keyfob.nss.options import LABEL
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import name_of

SECRET = bytes(range(32))
Say = Callable[..., None]
KEEPS_ITS_KEYS = "the token has no mechanism that wraps private keys: what is on it stays there"
RSA_TRANSPORT = (CKM.RSA_PKCS, CKM.RSA_PKCS_OAEP, CKM.RSA_X_509)


@contextmanager
def removing(context: Context, slot: NssSlot) -> Iterator[list[int]]:
    """A list of handles that are destroyed at the end, whatever happened."""
    handles: list[int] = []
    try:
        yield handles
    finally:
        if handles:
            with suppress(CallFailed, Unusable):
                session = context.nss().open_rw(slot)
                for handle in handles:
                    context.module.C_DestroyObject(session, handle)
                context.nss().close(slot, session)


def claims(context: Context, slot: NssSlot, mechanism: int, flag: int) -> bool:
    info = context.module.C_GetMechanismInfo(slot.id, mechanism)
    return info.is_ok and bool(info.value.flags & flag)


def wraps_private_keys(context: Context, slot: NssSlot) -> bool:
    """Whether any symmetric mechanism claims CKF_WRAP: a token that wraps nothing keeps its keys by design."""
    with context.module.recorder.quietly("look for a mechanism that wraps private keys"):
        return any(
            claims(context, slot, mechanism, CKF.WRAP)
            for mechanism in slot.mechanisms
            if mechanism not in RSA_TRANSPORT
        )


def created(context: Context, slot: NssSlot, template: Template) -> Reply[int]:
    """A token object in a read-write session of its own."""
    session = context.nss().open_rw(slot)
    reply = context.module.C_CreateObject(session, template)
    context.nss().close(slot, session)
    return reply


def is_of_use(slot: NssSlot, key: PrivateKey) -> bool:
    """Nobody brings an RSA key to a token that does nothing with RSA."""
    wanted = (CKM.RSA_PKCS, CKM.RSA_PKCS_PSS) if isinstance(key, rsa.RSAPrivateKey) else (CKM.ECDSA, CKM.ECDH1_DERIVE)
    return any(mechanism in slot.mechanisms for mechanism in wanted)


def brought_key(context: Context, session: int, key_type: int, usage: int, secret: bytes) -> Reply[int]:
    """A session key that NSS made or derived itself."""
    return context.module.C_CreateObject(session, material.secret_key_template(key_type, usage, secret))


# Session keys


@scenario("session keys", "Secret keys from raw data, in a read-only session", rules=("O4", "O5"))
def session_keys(context: Context) -> None:
    """What PKCS #12 and every default token need first; nothing is written to the token."""
    slot = context.ready()
    used = [mechanism for mechanism in (CKM.AES_CBC, CKM.AES_CBC_PAD, CKM.AES_KEY_WRAP) if mechanism in slot.mechanisms]
    if not used:
        reason = "the token has no use for secret keys: it lists no mechanism of AES"
        context.skip(reason, "O4", "O5", applicable=False)
        return
    nss = context.nss()
    session = nss.open_ro(slot)
    with context.step("a key from another slot"), context.checking("O4") as check:
        _works(context, slot, session, check)
    with context.step("a key to another slot"), context.checking("O5") as check:
        with check.setup("make a session key"):
            key = _unwrapped_key(context, slot, session)
        _moves(context, slot, session, key, check)
    nss.close(slot, session)


def _unwrapped_key(context: Context, slot: NssSlot, session: int) -> int:
    """SECRET as a key that only the token knows, as far as NSS can tell: of those NSS brought it keeps the value."""
    if not claims(context, slot, CKM.AES_KEY_WRAP, CKF.UNWRAP):
        return brought_key(context, session, CKK.AES, CKA.DECRYPT, SECRET).ok()
    unwrapping = os.urandom(32)
    handle = brought_key(context, session, CKK.AES, CKA.UNWRAP, unwrapping).ok()
    template: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.DECRYPT, True)]
    wrapped = aes_key_wrap(unwrapping, SECRET)
    return context.module.C_UnwrapKey(session, Mechanism(CKM.AES_KEY_WRAP), handle, wrapped, template).ok()


def _works(context: Context, slot: NssSlot, session: int, check: Check) -> None:
    """The key is made in a read-only session and does what its template says."""
    module = context.module
    for kind, usage in ((CKK.AES, CKA.UNWRAP), (CKK.AES, CKA.WRAP), (CKK.GENERIC_SECRET, CKA.SIGN)):
        reply = module.C_CreateObject(session, material.secret_key_template(kind, usage, SECRET))
        what = f"to a session key of type {name_of('CKK', kind)} with {name_of('CKA', usage)}, in a read-only session"
        check.expect_rv(reply, CKR.OK, because=what)
        if reply.is_ok:
            module.C_DestroyObject(session, reply.value)
    iv, block = bytes(16), bytes(range(16))
    for usage, flag, begin, run in (
        (CKA.ENCRYPT, CKF.ENCRYPT, module.C_EncryptInit, module.C_Encrypt),
        (CKA.DECRYPT, CKF.DECRYPT, module.C_DecryptInit, module.C_Decrypt),
    ):
        if not claims(context, slot, CKM.AES_CBC, flag):
            continue
        key = module.C_CreateObject(session, material.secret_key_template(CKK.AES, usage, SECRET))
        if not check.expect_rv(key, CKR.OK, because=f"to an AES session key with {name_of('CKA', usage)}"):
            continue
        begin(session, Mechanism(CKM.AES_CBC, iv), key.value).ok()
        answer: Reply[Any] = run(session, block, 32)
        cipher = Cipher(algorithms.AES(SECRET), modes.CBC(iv))
        software = cipher.encryptor() if usage == CKA.ENCRYPT else cipher.decryptor()
        right = answer.ok() == software.update(block) + software.finalize()
        check.expect(right, "an AES session key does not encrypt and decrypt as its value does", answer)
        module.C_DestroyObject(session, key.value)


def _moves(context: Context, slot: NssSlot, session: int, key: int, check: Check) -> None:
    """pk11_CopyToSlotPerm: by CKA_VALUE, else under an RSA key of the other slot."""
    nss, module = context.nss(), context.module
    value = nss.read_one(session, key, CKA.VALUE)
    read = module.C_GetAttributeValue(session, key, [(CKA.VALUE, 64)])
    if value is not None:
        check.expect(value == SECRET, "CKA_VALUE of a session key is not its value", read)
        return
    user = "Mail in a cipher that this token does not have cannot be read, though the key of the mail was unwrapped."
    if not claims(context, slot, CKM.RSA_PKCS, CKF.WRAP):
        check.warn("a session key neither shows its CKA_VALUE nor can it be wrapped with RSA", read, user=user)
        return
    target = material.rsa_key()
    public = module.C_CreateObject(session, material.public_key_template(target, token=False)).ok()
    reply = module.C_WrapKey(session, Mechanism(CKM.RSA_PKCS), public, key, 256)
    if not reply.is_ok:
        saw = f"a session key does not show its CKA_VALUE, and C_WrapKey with CKM_RSA_PKCS answered {reply.name}"
        check.warn(saw, read, reply, user=user)
        return
    try:
        right = target.decrypt(reply.value, padding.PKCS1v15()) == SECRET
    except (ValueError, TypeError):
        right = False
    check.expect(right, "a session key wrapped with RSA is not the key", reply)


# Export


@scenario("export", "Take private keys off the token as pk12util -o does", rules=("P15",), needs=("write",))
def exporting(context: Context) -> None:
    slot = context.ready()
    if slot.read_only:
        context.skip("the token is write-protected: there is no key to try it with", "P15")
        return
    if not wraps_private_keys(context, slot):
        context.skip(KEEPS_ITS_KEYS, "P15", applicable=False)
        return
    for name, key, lengths in (("RSA", material.rsa_key(), (32, 16)), ("EC", material.ec_key(), (32, 24))):
        if is_of_use(slot, key):
            with context.step(f"pk12util -o, {name}"), context.checking("P15") as check:
                _export(context, slot, key, name, lengths, check)


def _export(
    context: Context, slot: NssSlot, key: PrivateKey, name: str, lengths: tuple[int, ...], check: Check
) -> None:
    nss, module = context.nss(), context.module
    with removing(context, slot) as made:
        reply = created(context, slot, [*material.private_key_template(key, extractable=True), (CKA.LABEL, LABEL)])
        with check.setup(f"put an extractable {name} key on the token"):
            made.append(reply.ok())
        if not nss.read_flag(slot.session, reply.value, CKA.EXTRACTABLE):
            check.not_applicable("the token makes every private key unextractable")
        # A token that has PBKDF2 derives an AES key itself (pk11wrap/pk11pbe.c PK11_PBEKeyGen). To others NSS brings
        # a key, which it takes for a generic secret: PBES2 does not say what its key is for.
        derives = CKM.PKCS5_PBKD2 in slot.mechanisms
        if derives:
            _wrapped(context, slot, reply.value, key, material.AES, CKK.AES, 32, check.fail)
        told = "Nothing in pk12util, which has this token derive its key; programs that bring one cannot export."
        say = partial(check.warn, user=told) if derives else check.fail
        for length in lengths:
            _wrapped(context, slot, reply.value, key, material.AES, CKK.GENERIC_SECRET, length, say)
        if claims(context, slot, CKM.DES3_CBC_PAD, CKF.WRAP):
            _wrapped(context, slot, reply.value, key, material.DES3, CKK.DES3, 24, check.fail)
    with removing(context, slot) as made:
        brought = created(context, slot, [*material.private_key_template(key), (CKA.LABEL, LABEL)])
        if brought.is_ok:
            made.append(brought.value)
            if not nss.read_flag(slot.session, brought.value, CKA.EXTRACTABLE):
                read = module.C_GetAttributeValue(slot.session, brought.value, [(CKA.EXTRACTABLE, 1)])
                check.warn(
                    f"an {name} key that came with NSS's template, which has no CKA_EXTRACTABLE, is not extractable",
                    read,
                    user="What pk12util -i brought, pk12util -o cannot take off the token again.",
                )


def _wrapped(
    context: Context,
    slot: NssSlot,
    private: int,
    key: PrivateKey,
    wrapping: Wrapping,
    key_type: int,
    length: int,
    say: Say,
) -> None:
    """PK11_ExportEncryptedPrivKeyInfoV2: a wrapping key of a session of its own, C_WrapKey on the default session.

    `length` in bytes is the wrapping key's. `say` tells what is wrong: Check.fail or Check.warn.
    """
    nss, module = context.nss(), context.module
    secret, iv = wrapping.new_key(length), os.urandom(wrapping.iv_length)
    kind = f"a {name_of('CKK', key_type)} of {length} bytes"
    wrapped = f"{name_of('CKM', wrapping.mechanism)} under {kind}"
    session = nss.open_ro(slot)
    held = brought_key(context, session, key_type, CKA.WRAP, secret)
    if not held.is_ok:
        say(f"C_CreateObject answered {held.name} to {kind} for wrapping, in a read-only session", held)
    else:
        mechanism = Mechanism(wrapping.mechanism, iv)
        reply = module.C_WrapKey(slot.session, mechanism, held.value, private, None)
        if reply.is_ok:
            reply = module.C_WrapKey(slot.session, mechanism, held.value, private, reply.value)
        plain = wrapping.decrypted(secret, iv, reply.value) if isinstance(reply.value, bytes) else None
        if not reply.is_ok:
            say(f"C_WrapKey answered {reply.name} to {wrapped}, on the read-only default session", reply)
        elif plain is None or not material.is_pkcs8_of(key, plain):
            say(f"what C_WrapKey gives for {wrapped} is not the key's PKCS #8", reply)
        module.C_DestroyObject(session, held.value)
    nss.close(slot, session)
