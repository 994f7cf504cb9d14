"""Keys on their way: session keys from raw data, private keys from PKCS #12 files onto the token, and off it again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from keyfob.nss import keys, material
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import CallFailed, Reply, Template
from keyfob.nss.driver.mechanism import Mechanism
from keyfob.nss.material import PrivateKey, Wrapping
from keyfob.nss.options import LABEL
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import name_of

DATA = b"keyfob check signs this with a key that came from outside"
SECRET = bytes(range(32))
IMPORT_RULES = (*("O1", "O2", "O3", "O9", "O18", "K8", "N9", "N10", "N11", "P1", "P20", "P33", "P34", "P38"),)
KEEPS_ITS_KEYS = "the token has no mechanism that wraps private keys: what is on it stays there"
RSA_TRANSPORT = (CKM.RSA_PKCS, CKM.RSA_PKCS_OAEP, CKM.RSA_X_509)
GENERATORS = (CKM.RSA_PKCS_KEY_PAIR_GEN, CKM.EC_KEY_PAIR_GEN)


@contextmanager
def removing(context: Context, slot: NssSlot) -> Iterator[list[int]]:
    """A list of handles that are destroyed at the end, whatever happened."""
    handles: list[int] = []
    try:
        yield handles
    finally:
        if handles:
            with suppress(CallFailed):
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
    with context.step("the key to another slot"), context.checking("O5") as check:
        template = material.secret_key_template(CKK.AES, CKA.ENCRYPT, SECRET)
        with check.setup("make a session key"):
            key = context.module.C_CreateObject(session, template).ok()
        _moves(context, slot, session, key, check)
    nss.close(slot, session)


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
        reply = run(session, block, 32)
        cipher = Cipher(algorithms.AES(SECRET), modes.CBC(iv))
        software = cipher.encryptor() if usage == CKA.ENCRYPT else cipher.decryptor()
        right = reply.ok() == software.update(block) + software.finalize()
        check.expect(right, "an AES session key does not encrypt and decrypt as its value does", reply)
        module.C_DestroyObject(session, key.value)


def _moves(context: Context, slot: NssSlot, session: int, key: int, check: Check) -> None:
    """pk11_CopyToSlotPerm: by CKA_VALUE, else under an RSA key of the other slot."""
    nss, module = context.nss(), context.module
    value = nss.read_one(session, key, CKA.VALUE)
    read = module.C_GetAttributeValue(session, key, [(CKA.VALUE, 64)])
    if value is not None:
        check.expect(value == SECRET, "CKA_VALUE of a session key is not the value that it was made with", read)
        return
    if not claims(context, slot, CKM.RSA_PKCS, CKF.WRAP):
        check.fail("a session key neither shows its CKA_VALUE nor can it be wrapped with RSA", read)
        return
    target = material.rsa_key()
    public = module.C_CreateObject(session, material.public_key_template(target, token=False)).ok()
    reply = module.C_WrapKey(session, Mechanism(CKM.RSA_PKCS), public, key, 256)
    if check.expect_rv(reply, CKR.OK, because="to a session key that does not show its CKA_VALUE"):
        try:
            right = target.decrypt(reply.value, padding.PKCS1v15()) == SECRET
        except ValueError:
            right = False
        check.expect(right, "a session key wrapped with RSA is not the key", reply)


# Import


@scenario("import", "Bring private keys onto the token as pk12util -i does", rules=IMPORT_RULES, needs=("write",))
def importing(context: Context) -> None:
    slot = context.ready()
    if slot.read_only:
        context.skip("the token is write-protected", *IMPORT_RULES, applicable=False)
        return
    if all(mechanism in slot.mechanisms for mechanism in GENERATORS):
        context.skip("the token generates keys itself", "K8", applicable=False)
    for name, key in (("RSA", material.rsa_key()), ("EC", material.ec_key())):
        if not _is_of_use(slot, key):
            continue
        with context.step(f"pk12util -i, {name}"):
            created = _pkcs12(context, slot, key, name)
        if not created:
            continue
        if isinstance(key, rsa.RSAPrivateKey):
            with context.step("NSS 3.116 to 3.124, RSA"):
                _twice(context, slot, key)
        with context.step(f"a key bag without encryption, {name}"):
            _key_bag(context, slot, key, name)
        with context.step(f"the key and its certificate, {name}"):
            _named(context, slot, key, name)


def _is_of_use(slot: NssSlot, key: PrivateKey) -> bool:
    """Nobody brings an RSA key to a token that does nothing with RSA."""
    wanted = (CKM.RSA_PKCS, CKM.RSA_PKCS_PSS) if isinstance(key, rsa.RSAPrivateKey) else (CKM.ECDSA, CKM.ECDH1_DERIVE)
    return any(mechanism in slot.mechanisms for mechanism in wanted)


def created(context: Context, slot: NssSlot, template: Template) -> Reply[int]:
    """A token object in a read-write session of its own."""
    session = context.nss().open_rw(slot)
    reply = context.module.C_CreateObject(session, template)
    context.nss().close(slot, session)
    return reply


def _pkcs12(context: Context, slot: NssSlot, key: PrivateKey, name: str) -> bool:
    """C_UnwrapKey, and what NSS does when it fails: C_CreateObject; whether the latter is taken."""
    nss = context.nss()
    nss.find(slot.session, [(CKA.ID, material.identifier(key)), (CKA.CLASS, CKO.PRIVATE_KEY)])
    with context.checking("O3") as check:
        refused: list[Reply[int]] = []
        for wrapping in (material.AES, material.DES3):
            with removing(context, slot) as made:
                reply = _unwrapped(context, slot, key, wrapping)
                if reply is not None and reply.is_ok:
                    made.append(reply.value)
                    _expect_key(context, slot, check, reply, key, f"unwrapped with {wrapping.name}")
                elif reply is not None and claims(context, slot, wrapping.mechanism, CKF.UNWRAP):
                    mechanism = name_of("CKM", wrapping.mechanism)
                    check.warn(
                        f"C_UnwrapKey answered {reply.name} to an {name} key under {mechanism}, which claims CKF_UNWRAP",
                        reply,
                        user="Nothing, as long as the key can be created instead.",
                    )
                if reply is not None and not reply.is_ok:
                    refused.append(reply)
        # The fall-back of all versions; what newer ones add to it is P1's matter.
        reply = _create(context, slot, key, name)
        if len(refused) == 2 and not reply.is_ok:
            check.fail(f"an {name} key can be neither unwrapped nor created on the token", refused[0], reply)
        elif refused:
            check.passed(f"what C_UnwrapKey refuses ({refused[0].name}), C_CreateObject takes")
    return reply.is_ok


def _unwrapped(context: Context, slot: NssSlot, key: PrivateKey, wrapping: Wrapping) -> Reply[int] | None:
    """The key's PKCS #8 under a session key; None when the token does not take that session key."""
    nss, module = context.nss(), context.module
    secret, iv = wrapping.new_key(), os.urandom(wrapping.iv_length)
    ours = nss.open_ro(slot)
    unwrapping = module.C_CreateObject(ours, material.secret_key_template(wrapping.key_type, CKA.UNWRAP, secret))
    reply = None
    if unwrapping.is_ok:
        session = nss.open_rw(slot)
        wrapped = wrapping.encrypted(secret, iv, material.pkcs8(key))
        template = material.unwrap_template(key)
        reply = module.C_UnwrapKey(session, Mechanism(wrapping.mechanism, iv), unwrapping.value, wrapped, template)
        nss.close(slot, session)
        module.C_DestroyObject(ours, unwrapping.value)
    nss.close(slot, ours)
    return reply


def _create(context: Context, slot: NssSlot, key: PrivateKey, name: str) -> Reply[int]:
    """All components of the key, as every version up to 3.115 gives them."""
    template = material.private_key_template(key)
    because = f"to an {name} key with NSS's {len(template)} attributes"
    with removing(context, slot) as made:
        reply = created(context, slot, template)
        if reply.is_ok:
            made.append(reply.value)
        rules = ["O1", "O2"]
        if isinstance(key, rsa.RSAPrivateKey):
            rules.append("N9")
        if not all(mechanism in slot.mechanisms for mechanism in GENERATORS):
            rules.append("K8")
        for rule in rules:
            with context.checking(rule) as check:
                if check.expect_rv(reply, CKR.OK, because=because):
                    _expect_key(context, slot, check, reply, key, "created")
        if reply.is_ok:
            _read_back(context, slot, reply, key, name)
    return reply


def _expect_key(context: Context, slot: NssSlot, check: Check, made: Reply[int], key: PrivateKey, how: str) -> None:
    """It is a private token object now that the session is closed, and signs what the key's public half verifies."""
    nss, module = context.nss(), context.module
    flags = {name: nss.read_flag(slot.session, made.value, attribute) for name, attribute in PLACE}
    if not all(flags.values()):
        read = module.C_GetAttributeValue(slot.session, made.value, [(attribute, 1) for _name, attribute in PLACE])
        missing = " and ".join(name for name, has in flags.items() if not has)
        saw = f"a key that was {how} is gone" if read.rv == CKR.OBJECT_HANDLE_INVALID else f"{missing} is not TRUE"
        check.fail(f"{saw} when the session that made it is closed", made, read)
        return
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    signer = CKM.RSA_PKCS if is_rsa else CKM.ECDSA
    if not claims(context, slot, signer, CKF.SIGN):
        return
    session = nss.open_ro(slot)
    begun = module.C_SignInit(session, Mechanism(signer), made.value)
    data = keys.digest_info(DATA) if is_rsa else keys.digest(hashes.SHA256(), DATA)
    signed = module.C_Sign(session, data, 256 if is_rsa else 64) if begun.is_ok else begun
    nss.close(slot, session)
    if check.expect_rv(signed, CKR.OK, because=f"with a key that was {how}"):
        right = keys.verifies(key.public_key(), signed.value or b"", DATA)
        check.expect(right, f"a key that was {how} signs wrongly", made, signed)


PLACE = (("CKA_TOKEN", CKA.TOKEN), ("CKA_PRIVATE", CKA.PRIVATE))


def _read_back(context: Context, slot: NssSlot, made: Reply[int], key: PrivateKey, name: str) -> None:
    """What NSS reads of a private key before it uses it (section 3.11)."""
    nss, module = context.nss(), context.module
    wanted = {CKA.CLASS: material.ulong(CKO.PRIVATE_KEY), CKA.ID: material.identifier(key)}
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        wanted |= {CKA.KEY_TYPE: material.ulong(CKK.RSA), CKA.MODULUS: material.number(numbers.n)}
        wanted |= {CKA.PUBLIC_EXPONENT: material.number(numbers.e)}
    else:
        wanted |= {CKA.KEY_TYPE: material.ulong(CKK.EC), CKA.EC_PARAMS: material.P256}
    with context.checking("N10") as check:
        for attribute, value in wanted.items():
            found = nss.read_one(slot.session, made.value, attribute)
            read = module.C_GetAttributeValue(slot.session, made.value, [(attribute, 512)])
            attribute_name = name_of("CKA", attribute)
            if check.expect(found, f"{attribute_name} of a created {name} key cannot be read", read):
                check.expect(found == value, f"{attribute_name} of a created {name} key is not what was given", read)
        always = module.C_GetAttributeValue(slot.session, made.value, [(CKA.ALWAYS_AUTHENTICATE, 1)])
        # SignWithMechanism takes an error for FALSE.
        check.expect(not always.is_ok or always.value[0][2] == b"\0", "CKA_ALWAYS_AUTHENTICATE is TRUE unasked", always)


def _twice(context: Context, slot: NssSlot, key: rsa.RSAPrivateKey) -> None:
    with context.checking("P1") as check, removing(context, slot) as made:
        reply = created(context, slot, material.private_key_template_of_3_116(key))
        because = "to NSS's 22 attributes: CKA_DECAPSULATE = FALSE, and TOKEN and PRIVATE first FALSE, then TRUE"
        if check.expect_rv(reply, CKR.OK, because=because):
            made.append(reply.value)
            _expect_key(context, slot, check, reply, key, "created with NSS's 22 attributes")


def _key_bag(context: Context, slot: NssSlot, key: PrivateKey, name: str) -> None:
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    with context.checking("O1" if is_rsa else "P33") as check, removing(context, slot) as made:
        reply = created(context, slot, material.key_bag_template(key))
        more = "" if is_rsa else ", whose CKA_EC_POINT is raw"
        if check.expect_rv(reply, CKR.OK, because=f"to an {name} key from a PKCS #12 key bag{more}"):
            made.append(reply.value)
            _expect_key(context, slot, check, reply, key, "created from a key bag")


def _named(context: Context, slot: NssSlot, key: PrivateKey, name: str) -> None:
    """The public key, twice, then label, ID and subject: the end of an import; and the key alone deleted and back."""
    nss, module = context.nss(), context.module
    with removing(context, slot) as made:
        private = created(context, slot, material.private_key_template(key))
        if not private.is_ok:
            return
        made.append(private.value)
        publics = []
        with context.checking("P34") as check:
            first = created(context, slot, material.public_key_template(key))
            with check.setup("store a public key"):
                publics.append(first.ok())
            made.append(first.value)
            second = created(context, slot, material.public_key_template(key))
            if check.expect_rv(second, CKR.OK, because="to the same public key once more"):
                made.append(second.value)
        if not isinstance(key, rsa.RSAPrivateKey) and publics:
            _point(context, slot, publics[0], key)
        _set(context, slot, private, key, name)
        with context.step(f"certutil -F -k, and the key again, {name}"), context.checking("P38") as check:
            session = nss.open_rw(slot)
            module.C_DestroyObject(session, private.value).ok()
            nss.close(slot, session)
            again = created(context, slot, material.private_key_template(key))
            if check.expect_rv(again, CKR.OK, because="to a private key whose public key was left behind"):
                made.append(again.value)
                search: Template = [(CKA.ID, material.identifier(key)), (CKA.CLASS, CKO.PRIVATE_KEY)]
                searched, found = nss.search(slot.session, search)
                check.expect(found == [again.value], "the new private key is not found by its CKA_ID", searched)


def _set(context: Context, slot: NssSlot, private: Reply[int], key: PrivateKey, name: str) -> None:
    """PK11_ImportCert: {LABEL, ID, SUBJECT} of the private key in one call."""
    nss, module = context.nss(), context.module
    made = material.certificate("imported", key)
    values = {CKA.LABEL: LABEL.encode(), CKA.ID: made.id, CKA.SUBJECT: made.subject}
    session = nss.open_rw(slot)
    together = module.C_SetAttributeValue(session, private.value, list(values.items()))
    # Whose fault is it?
    alone = {}
    if not together.is_ok:
        alone = {row[0]: module.C_SetAttributeValue(session, private.value, [row]) for row in values.items()}
    nss.close(slot, session)
    guilty = [attribute for attribute, reply in alone.items() if not reply.is_ok]
    what = f"to {{CKA_LABEL, CKA_ID, CKA_SUBJECT}} of a private {name} key"
    for rule, its_own in (
        ("O9", (CKA.LABEL, CKA.ID)),
        ("N11", (CKA.LABEL, CKA.SUBJECT)),
        ("O18", values),
        ("P20", values),
    ):
        with context.checking(rule) as check:
            if not together.is_ok and (not guilty or any(attribute in its_own for attribute in guilty)):
                check.expect_rv(together, CKR.OK, because=what)
                continue
            if rule not in ("O9", "N11"):
                continue
            for attribute in its_own:
                found = nss.read_one(slot.session, private.value, attribute)
                read = module.C_GetAttributeValue(slot.session, private.value, [(attribute, 512)])
                saw = f"{name_of('CKA', attribute)} of a private {name} key is not what was set"
                check.expect(found == values[attribute], saw, read)


def _point(context: Context, slot: NssSlot, public: int, key: PrivateKey) -> None:
    """P33: the point that was given as DER comes back in a form that NSS reads, and the raw one finds the key."""
    nss, module = context.nss(), context.module
    assert not isinstance(key, rsa.RSAPrivateKey)
    raw = material.point(key)
    with context.checking("P33") as check:
        found = nss.read_one(slot.session, public, CKA.EC_POINT)
        read = module.C_GetAttributeValue(slot.session, public, [(CKA.EC_POINT, 256)])
        known = (raw, material.octet_string(raw))
        check.expect(found in known, "CKA_EC_POINT of a public key is neither the point nor its DER OCTET STRING", read)
        searched, hits = nss.search(slot.session, [(CKA.EC_POINT, raw)])
        if not hits:
            check.warn(
                "a key is not found by its raw point",
                searched,
                nss="PK11_IsUserCert searches so, where the key's CKA_ID is not its certificate's.",
                user="Such a certificate does not count as the user's own.",
            )


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
        if _is_of_use(slot, key):
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
        for length in lengths:
            _wrapped(context, slot, reply.value, key, material.AES, length, check)
        if claims(context, slot, CKM.DES3_CBC_PAD, CKF.WRAP):
            _wrapped(context, slot, reply.value, key, material.DES3, 24, check)
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
    context: Context, slot: NssSlot, private: int, key: PrivateKey, wrapping: Wrapping, length: int, check: Check
) -> None:
    """PK11_ExportEncryptedPrivKeyInfoV2: a wrapping key of a session of its own, C_WrapKey on the default session."""
    nss, module = context.nss(), context.module
    # PBES2 does not say what its key is for: NSS takes it for a generic secret.
    key_type = CKK.GENERIC_SECRET if wrapping is material.AES else wrapping.key_type
    secret, iv = wrapping.new_key(length), os.urandom(wrapping.iv_length)
    session = nss.open_ro(slot)
    held = module.C_CreateObject(session, material.secret_key_template(key_type, CKA.WRAP, secret))
    kind = f"{name_of('CKK', key_type)} of {length} bytes"
    if check.expect_rv(held, CKR.OK, because=f"to a wrapping key, {kind}, in a read-only session"):
        mechanism = Mechanism(wrapping.mechanism, iv)
        because = f"to {name_of('CKM', wrapping.mechanism)} with a {kind}, on the read-only default session"
        sized = module.C_WrapKey(slot.session, mechanism, held.value, private, None)
        if check.expect_rv(sized, CKR.OK, because=because):
            reply = module.C_WrapKey(slot.session, mechanism, held.value, private, sized.value)
            if check.expect_rv(reply, CKR.OK, because=f"{because}, with the room that it asked for"):
                plain = wrapping.decrypted(secret, iv, reply.value)
                right = plain is not None and material.is_pkcs8_of(key, plain)
                check.expect(right, f"what {name_of('CKM', wrapping.mechanism)} wraps is not the key's PKCS #8", reply)
        module.C_DestroyObject(session, held.value)
    nss.close(slot, session)
