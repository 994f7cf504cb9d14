"""Private keys from PKCS #12 files and from NSS itself: unwrapped or created, read, named, deleted, brought again."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from keyfob.nss import keys, material
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Reply, Template
from keyfob.nss.driver.mechanism import Mechanism
from keyfob.nss.material import PrivateKey, Wrapping
from keyfob.nss.options import LABEL
from keyfob.nss.scenario import scenario
from keyfob.nss.scenarios.transfer import brought_key, claims, created, is_of_use, removing
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import name_of

RULES = ("O1", "O2", "O3", "O9", "O18", "K8", "N9", "N10", "N11", "P1", "P20", "P33", "P34", "P38")
GENERATORS = (CKM.RSA_PKCS_KEY_PAIR_GEN, CKM.EC_KEY_PAIR_GEN)
PLACE = (("CKA_TOKEN", CKA.TOKEN), ("CKA_PRIVATE", CKA.PRIVATE))
DATA = b"keyfob check signs this with a key that came from outside"


@scenario("import", "Bring private keys onto the token as pk12util -i does", rules=RULES, needs=("write",))
def importing(context: Context) -> None:
    slot = context.ready()
    if slot.read_only:
        context.skip("the token is write-protected", *RULES, applicable=False)
        return
    if all(mechanism in slot.mechanisms for mechanism in GENERATORS):
        context.skip("the token generates keys itself", "K8", applicable=False)
    for name, key in (("RSA", material.rsa_key()), ("EC", material.ec_key())):
        if not is_of_use(slot, key):
            continue
        with context.step(f"pk12util -i, {name}"):
            created, unwraps = _pkcs12(context, slot, key, name)
        if not created:
            continue
        if isinstance(key, rsa.RSAPrivateKey):
            with context.step("NSS 3.116 to 3.124, RSA"):
                _twice(context, slot, key, unwraps)
        with context.step(f"a key bag without encryption, {name}"):
            _key_bag(context, slot, key, name)
        with context.step(f"the key and its certificate, {name}"):
            _named(context, slot, key, name)


def _pkcs12(context: Context, slot: NssSlot, key: PrivateKey, name: str) -> tuple[bool, list[str]]:
    """C_UnwrapKey, and what NSS does when it fails: C_CreateObject; (the latter is taken, what the former unwraps)."""
    nss = context.nss()
    nss.find(slot.session, [(CKA.ID, material.identifier(key)), (CKA.CLASS, CKO.PRIVATE_KEY)])
    taken = False
    unwraps: list[str] = []
    with context.checking("O3") as check:
        refused: dict[str, Reply[int]] = {}
        for wrapping in (material.AES, material.DES3):
            with removing(context, slot) as made:
                reply = _unwrapped(context, slot, key, wrapping)
                if reply.is_ok:
                    made.append(reply.value)
                    unwraps.append(wrapping.name)
                    _expect_key(context, slot, check, reply, key, f"unwrapped with {wrapping.name}")
                    continue
                refused[wrapping.name] = reply
                if claims(context, slot, wrapping.mechanism, CKF.UNWRAP):
                    mechanism = name_of("CKM", wrapping.mechanism)
                    check.warn(
                        f"{reply.call.function} answered {reply.name} to an {name} key in {mechanism}, "
                        "which claims CKF_UNWRAP",
                        reply,
                        user="Nothing, but the key passes through NSS in the clear: it is created instead.",
                    )
        # The fall-back of all versions; what newer ones add to it is P1's matter.
        reply = _create(context, slot, key, name)
        taken = reply.is_ok
        if refused and reply.is_ok:
            reasons = ", ".join(f"{cipher}: {each.name}" for cipher, each in refused.items())
            check.passed(f"what is not unwrapped ({reasons}) can be created")
        elif refused:
            say = check.fail if len(refused) > 1 else check.warn
            ciphers = " nor ".join(refused)
            say(f"an {name} key can neither be unwrapped from {ciphers} nor created", *refused.values(), reply)
    return taken, unwraps


def _unwrapped(context: Context, slot: NssSlot, key: PrivateKey, wrapping: Wrapping) -> Reply[int]:
    """The key's PKCS #8 under the key of a PKCS #12 file; the reply is the first that was not CKR_OK."""
    nss, module = context.nss(), context.module
    secret, iv = wrapping.new_key(), os.urandom(wrapping.iv_length)
    ours = nss.open_ro(slot)
    held = brought_key(context, ours, wrapping.key_type, CKA.UNWRAP, secret)
    reply = held
    if held.is_ok:
        session = nss.open_rw(slot)
        wrapped = wrapping.encrypted(secret, iv, material.pkcs8(key))
        template = material.unwrap_template(key)
        reply = module.C_UnwrapKey(session, Mechanism(wrapping.mechanism, iv), held.value, wrapped, template)
        nss.close(slot, session)
        module.C_DestroyObject(ours, held.value)
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
    if not claims(context, slot, signer, CKF.SIGN) or not keys.may_sign(context, CKK.RSA if is_rsa else CKK.EC):
        return
    session = nss.open_ro(slot)
    begun = module.C_SignInit(session, Mechanism(signer), made.value)
    data = keys.digest_info(DATA) if is_rsa else keys.digest(hashes.SHA256(), DATA)
    signed = module.C_Sign(session, data, 256 if is_rsa else 64) if begun.is_ok else begun
    nss.close(slot, session)
    if check.expect_rv(signed, CKR.OK, because=f"with a key that was {how}"):
        right = keys.verifies(key.public_key(), signed.value or b"", DATA)
        check.expect(right, f"a key that was {how} signs wrongly", made, signed)


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


def _twice(context: Context, slot: NssSlot, key: rsa.RSAPrivateKey, unwraps: list[str]) -> None:
    """What newer versions create after a failed C_UnwrapKey (obj:1343): of less weight where that works with AES."""
    with context.checking("P1") as check, removing(context, slot) as made:
        reply = created(context, slot, material.private_key_template_of_3_116(key))
        if not reply.is_ok:
            saw = (
                f"C_CreateObject answered {reply.name} to NSS's 22 attributes: CKA_DECAPSULATE = FALSE, and TOKEN and "
                "PRIVATE first FALSE, then TRUE"
            )
            if material.AES.name in unwraps and CKM.RSA_PKCS_KEY_PAIR_GEN in slot.mechanisms:
                ciphers = " and ".join(unwraps)
                check.warn(saw, reply, user=f"RSA keys of files in other ciphers than {ciphers} are not imported.")
            else:
                check.fail(saw, reply)
        else:
            made.append(reply.value)
            _expect_key(context, slot, check, reply, key, "created with NSS's 22 attributes")


def _key_bag(context: Context, slot: NssSlot, key: PrivateKey, name: str) -> None:
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    with context.checking("O1" if is_rsa else "P33") as check, removing(context, slot) as made:
        reply = created(context, slot, material.key_bag_template(key))
        more = "" if is_rsa else ", whose CKA_EC_POINT is raw"
        because = f"to an {name} key from a PKCS #12 key bag{more}"
        user = f"A PKCS #12 file with an {name} key that is not encrypted (a key bag) is not imported."
        if check.expect_rv(reply, CKR.OK, because=because, user=user):
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
