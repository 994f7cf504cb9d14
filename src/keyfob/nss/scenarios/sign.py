"""Signatures as NSS makes them for TLS, mail and certificates; what it reads before each; calls in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from keyfob.nss import keys, material
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import NO_MECHANISM, Reply
from keyfob.nss.driver.mechanism import Mechanism
from keyfob.nss.keys import TokenKey, digest, digest_info, verifies
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKA, CKF, CKG, CKM, CKR, CKU
from keyfob.spec.errors import name_of
from keyfob.spec.parameters import RsaPkcsPssParams

TEXT = b"keyfob check signs this, " * 9
Way = Callable[[Context, NssSlot, TokenKey, Mechanism], Reply[Any]]
MD5_AND_SHA1 = b"\x5a" * 36
"""As long as what TLS 1.1 signs with RSA: two hashes, no DigestInfo."""
PSS = {
    CKM.SHA256: (CKG.MGF1_SHA256, CKM.SHA256_RSA_PKCS_PSS),
    CKM.SHA384: (CKG.MGF1_SHA384, CKM.SHA384_RSA_PKCS_PSS),
    CKM.SHA512: (CKG.MGF1_SHA512, CKM.SHA512_RSA_PKCS_PSS),
}


def pss(hash_algorithm: int, mechanism: int = CKM.RSA_PKCS_PSS) -> Mechanism:
    """PSS as TLS uses it: MGF1 with the same hash, the salt as long as the hash."""
    size = keys.HASHES[hash_algorithm].digest_size
    return Mechanism(mechanism, RsaPkcsPssParams(hash_algorithm, PSS[hash_algorithm][0], size))


def raw(key: TokenKey, data: bytes) -> tuple[Mechanism, bytes]:
    """The mechanism that signs what it is given, and what NSS gives it for these data: see verifies()."""
    if isinstance(key.public, rsa.RSAPublicKey):
        return Mechanism(CKM.RSA_PKCS), digest_info(data)
    if isinstance(key.public, ec.EllipticCurvePublicKey):
        return Mechanism(CKM.ECDSA), digest(hashes.SHA256(), data)
    return Mechanism(CKM.EDDSA), data


def signed(context: Context, slot: NssSlot, key: TokenKey, mechanism: Mechanism, data: bytes) -> Reply[Any]:
    """PK11_Sign: a session of its own, the look at CKA_ALWAYS_AUTHENTICATE, a buffer of exactly the right size."""
    nss, module = context.nss(), context.module
    session = nss.open_ro(slot)
    reply: Reply[Any] = module.C_SignInit(session, mechanism, key.private)
    if reply.is_ok:
        nss.read_flag(slot.session, key.private, CKA.ALWAYS_AUTHENTICATE)
        reply = module.C_Sign(session, data, key.length)
    nss.close(slot, session)
    return reply


def expect_signature(
    check: Check, key: TokenKey, reply: Reply[Any], what: str, data: bytes = TEXT, hash_: int | None = None
) -> bool:
    """Fail unless the reply holds a signature of the data, of the length that NSS reckons; whether it does."""
    if not check.expect_rv(reply, CKR.OK, because=f"to {what} with an {key.name} key"):
        return False
    length = reply.value if isinstance(reply.value, int) else len(reply.value)
    if not check.expect(
        length == key.length, f"{what} with an {key.name} key gives {length} bytes, not {key.length}", reply
    ):
        return False
    right = verifies(key.public, reply.value, data, pss=hash_)
    return check.expect(right, f"the signature of {what} with an {key.name} key is wrong", reply)


def is_signature(key: TokenKey, reply: Reply[Any], data: bytes = TEXT, hash_: int | None = None) -> bool:
    return reply.is_ok and isinstance(reply.value, bytes) and verifies(key.public, reply.value, data, pss=hash_)


@scenario(
    "sign",
    "Sign as NSS does for TLS, mail and certificates",
    rules=("K3", "K7", "K9", "N10", "P4", "P22", "P29", "SE3", "SE8", "S17"),
)
def sign(context: Context) -> None:
    slot = context.ready()
    found = keys.token_keys(context, slot)
    edwards = keys.edwards(context, slot) if _signs(context, slot, CKM.EDDSA) else None
    if not found and edwards is None:
        context.give_up("the token has no key that signs, and takes none")
    for key in found:
        with context.step(f"what NSS reads of an {key.name} key"):
            _public_part(context, slot, key)
        if isinstance(key.public, rsa.RSAPublicKey):
            _rsa(context, slot, key)
        elif isinstance(key.public, ec.EllipticCurvePublicKey):
            _ec(context, slot, key)
        with context.step("calls in the middle"):
            _in_the_middle(context, slot, key)
    if not any(isinstance(key.public, rsa.RSAPublicKey) for key in found):
        context.skip("there is no RSA key to sign with", "P4", "K7")
    if edwards is not None:
        found.append(edwards)
        with context.step("sign with Ed25519"), context.checking("K3") as check:
            reply = signed(context, slot, edwards, Mechanism(CKM.EDDSA), TEXT)
            context.fact("signs with Ed25519", expect_signature(check, edwards, reply, "CKM_EDDSA"))
    _unknown_mechanism(context, slot, found[0])
    keys.remove(context, slot, found)


def _public_part(context: Context, slot: NssSlot, key: TokenKey) -> None:
    nss, module = context.nss(), context.module
    wanted = {CKA.EC_PARAMS: "CKA_EC_PARAMS"}
    if isinstance(key.public, rsa.RSAPublicKey):
        wanted = {CKA.MODULUS: "CKA_MODULUS", CKA.PUBLIC_EXPONENT: "CKA_PUBLIC_EXPONENT"}
    with context.checking("N10") as check, context.checking("P22") as pitfall:
        for attribute, name in wanted.items():
            value = nss.read_one(slot.session, key.private, attribute)
            read = module.C_GetAttributeValue(slot.session, key.private, [(attribute, 1024)])
            for each in (check, pitfall):
                each.expect(value, f"{name} of a private {key.name} key cannot be read", read)
            if value and attribute == CKA.MODULUS and isinstance(key.public, rsa.RSAPublicKey):
                number = material.number(key.public.public_numbers().n)
                check.expect(value.lstrip(b"\0") == number, "CKA_MODULUS of a private key is not its modulus", read)
        if key.identifier:
            value = nss.read_one(slot.session, key.private, CKA.ID)
            read = module.C_GetAttributeValue(slot.session, key.private, [(CKA.ID, 64)])
            check.expect(value == key.identifier, "CKA_ID of a private key is not what it was made with", read)


def _rsa(context: Context, slot: NssSlot, key: TokenKey) -> None:
    module = context.module
    with context.step("sign with RSA"):
        with context.checking("K3") as check, context.checking("K7") as older:
            reply = signed(context, slot, key, *raw(key, TEXT))
            right = [expect_signature(each, key, reply, "CKM_RSA_PKCS over a DigestInfo") for each in (check, older)]
            context.fact("signs with RSA", all(right))
            tls11 = signed(context, slot, key, Mechanism(CKM.RSA_PKCS), MD5_AND_SHA1)
            if check.expect_rv(tls11, CKR.OK, because="to CKM_RSA_PKCS over 36 bytes, as TLS 1.1 signs"):
                right_one = _recovered(key, tls11.value) == MD5_AND_SHA1
                # Any other signature than that of a DigestInfo is only looked at when that one is right.
                check.expect(
                    right_one or not all(right), "CKM_RSA_PKCS does not sign the 36 bytes that it is given", tls11
                )
        with context.checking("P4") as check:
            listed = CKM.RSA_PKCS_PSS in slot.mechanisms
            asked = module.C_GetMechanismInfo(slot.id, CKM.RSA_PKCS_PSS)
            if not listed and CKM.RSA_PKCS not in slot.mechanisms:
                check.not_applicable("the token does not sign with RSA")
            check.expect(listed, "C_GetMechanismList lacks CKM_RSA_PKCS_PSS, so TLS 1.3 does not use an RSA key", asked)
            made = {
                algorithm: signed(context, slot, key, pss(algorithm), digest(kind, TEXT))
                for algorithm, kind in keys.HASHES.items()
            }
            if not any((*right, *(is_signature(key, reply, hash_=algorithm) for algorithm, reply in made.items()))):
                check.not_tested("the key does not sign with CKM_RSA_PKCS either")
            for algorithm, reply in made.items():
                what = f"CKM_RSA_PKCS_PSS over {name_of('CKM', algorithm).removeprefix('CKM_')}"
                expect_signature(check, key, reply, what, hash_=algorithm)
    offered = [(_streamed, pss(algorithm, combined), algorithm) for algorithm, (_mgf, combined) in PSS.items()]
    _hash_and_sign(context, slot, key, all(right), [(_whole, Mechanism(CKM.SHA256_RSA_PKCS), None), *offered])


def _hash_and_sign(
    context: Context, slot: NssSlot, key: TokenKey, signs: bool, ways: list[tuple[Way, Mechanism, int | None]]
) -> None:
    """The mechanisms that hash and sign, as far as the flags offer them; `signs`: the plain mechanism does."""
    with context.step("hash and sign"), context.checking("K9") as check:
        offered = [way for way in ways if _signs(context, slot, way[1].kind)]
        made = [(way(context, slot, key, mechanism), mechanism, hash_) for way, mechanism, hash_ in offered]
        if not offered:
            check.passed(f"no mechanism that hashes and signs with an {key.name} key is offered: NSS hashes itself")
        elif not signs and not any(is_signature(key, reply, hash_=hash_) for reply, _mechanism, hash_ in made):
            check.not_tested("the key does not sign with the plain mechanism either")
        for reply, mechanism, hash_ in made:
            how = "" if reply.call.function == "C_Sign" else " in parts"
            expect_signature(check, key, reply, f"{name_of('CKM', mechanism.kind)}{how}", hash_=hash_)


def _recovered(key: TokenKey, signature: Any) -> bytes:
    """What an RSA signature was made of; empty when it is none."""
    try:
        return key.public.recover_data_from_signature(signature, padding.PKCS1v15(), None)  # type: ignore[union-attr]
    except (InvalidSignature, ValueError, TypeError):
        return b""


def _ec(context: Context, slot: NssSlot, key: TokenKey) -> None:
    with context.step("sign with EC"), context.checking("K3") as check:
        reply = signed(context, slot, key, *raw(key, TEXT))
        right = expect_signature(check, key, reply, "CKM_ECDSA over a SHA-256 hash")
        context.fact("signs with EC", right)
    combined = Mechanism(CKM.ECDSA_SHA256)
    _hash_and_sign(context, slot, key, right, [(_whole, combined, None), (_streamed, combined, None)])


def _signs(context: Context, slot: NssSlot, mechanism: int) -> bool:
    """NSS asks without looking at the list; an error means that the token cannot (sgn:149)."""
    reply = context.module.C_GetMechanismInfo(slot.id, mechanism)
    return reply.is_ok and bool(reply.value.flags & CKF.SIGN)


def _whole(context: Context, slot: NssSlot, key: TokenKey, mechanism: Mechanism) -> Reply[Any]:
    return signed(context, slot, key, mechanism, TEXT)


def _streamed(context: Context, slot: NssSlot, key: TokenKey, mechanism: Mechanism) -> Reply[Any]:
    """TLS 1.3 CertificateVerify: three parts, and the modulus read in between (section 4, TLS server)."""
    nss, module = context.nss(), context.module
    session = nss.open_ro(slot)
    reply: Reply[Any] = module.C_SignInit(session, mechanism, key.private)
    for part in (TEXT[:64], TEXT[64:98], TEXT[98:]):
        if reply.is_ok:
            reply = module.C_SignUpdate(session, part)
    if reply.is_ok:
        nss.read_one(slot.session, key.private, CKA.MODULUS)
        reply = module.C_SignFinal(session, key.length)
    nss.close(slot, session)
    return reply


def _in_the_middle(context: Context, slot: NssSlot, key: TokenKey) -> None:
    """Between C_SignInit and C_Sign other sessions ask for their state, search and read (P29, SE3, OpenSC #1071)."""
    nss, module = context.nss(), context.module
    if slot.single_session:
        context.skip("NSS has only one session of this token", "P29", "SE3", "SE8", applicable=False)
        return

    def ask() -> None:
        module.C_GetSessionInfo(slot.session)

    def search_and_read() -> None:
        nss.find(slot.session, [(CKA.LABEL, b"keyfob check, never stored")])
        nss.read_flag(slot.session, key.private, CKA.ALWAYS_AUTHENTICATE)

    mechanism, data = raw(key, TEXT)
    with context.checking("P29") as check:
        alone = signed(context, slot, key, mechanism, data)
        if not alone.is_ok:
            with context.checking("SE3") as sessions:
                saw = f"{alone.call.function} wants a read-write session for a signature"
                sessions.expect(alone.rv != CKR.SESSION_READ_ONLY, saw, alone)
                sessions.not_tested("the key does not sign")
            context.skip("the key does not sign", "SE8")
            check.not_tested("the key does not sign")
        for rule_id, what, disturb in (
            ("SE8", "after C_GetSessionInfo of another session", ask),
            ("SE3", "after another session searched and read attributes", search_and_read),
        ):
            with context.checking(rule_id) as sessions:
                session = nss.open_ro(slot)
                module.C_SignInit(session, mechanism, key.private).ok()
                disturb()
                reply = module.C_Sign(session, data, key.length)
                for each in (check, sessions):
                    each.expect_rv(reply, CKR.OK, because=what)
                nss.close(slot, session)


def _unknown_mechanism(context: Context, slot: NssSlot, key: TokenKey) -> None:
    with context.step("a mechanism that nobody has"), context.checking("S17") as check:
        known = signed(context, slot, key, *raw(key, TEXT))
        reply = signed(context, slot, key, Mechanism(NO_MECHANISM), TEXT)
        if not reply.is_ok and reply.rv == known.rv:
            check.not_tested(f"the key signs with no mechanism: {known.name}")
        check.expect_rv(reply, CKR.MECHANISM_INVALID, because="to an unknown mechanism")


@scenario(
    "sign: always authenticate",
    "A key that asks for the PIN each time (CKA_ALWAYS_AUTHENTICATE)",
    rules=("P5", "P29"),
    needs=("write",),
)
def always_authenticate(context: Context) -> None:
    nss, module = context.nss(), context.module
    slot = context.ready()
    if not slot.needs_login or slot.protected_path:
        context.skip("the token's PIN is not NSS's to give", "P5", "P29", applicable=False)
        return
    if context.known.get("signs with RSA") is False:
        context.give_up("the token does not sign with RSA, not even with keys that do not ask")
    key = keys.imported(context, slot, material.rsa_key(), (CKA.ALWAYS_AUTHENTICATE, True))
    if key is None or not nss.read_flag(slot.session, key.private, CKA.ALWAYS_AUTHENTICATE):
        context.skip("the token has no keys that ask for the PIN each time", "P5", "P29", applicable=False)
        keys.remove(context, slot, [key] if key else [])
        return
    with context.step("sign, with the PIN between C_SignInit and C_Sign"), context.checking("P29") as check:
        session = nss.open_ro(slot)
        module.C_SignInit(session, Mechanism(CKM.RSA_PKCS), key.private).ok()
        nss.read_flag(slot.session, key.private, CKA.ALWAYS_AUTHENTICATE)
        login = module.C_Login(session, CKU.CONTEXT_SPECIFIC, context.pin)
        context.judge_pin(login, "pin")
        # NSS takes both for success (auth:74).
        wanted = (CKR.OK, CKR.USER_ALREADY_LOGGED_IN)
        check.expect_rv(login, *wanted, because="to CKU_CONTEXT_SPECIFIC between C_SignInit and C_Sign")
        reply = module.C_Sign(session, digest_info(TEXT), key.length)
        expect_signature(check, key, reply, "CKM_RSA_PKCS after CKU_CONTEXT_SPECIFIC")
        nss.close(slot, session)
    with context.step("hash and sign in parts, without the PIN"), context.checking("P5") as check:
        if not _signs(context, slot, CKM.SHA256_RSA_PKCS_PSS):
            check.passed("CKM_SHA256_RSA_PKCS_PSS does not claim CKF_SIGN: NSS hashes itself and asks for the PIN")
        else:
            streamed = _streamed(context, slot, key, pss(CKM.SHA256, CKM.SHA256_RSA_PKCS_PSS))
            check.expect_rv(
                streamed,
                CKR.OK,
                because="to hashing and signing in parts, where NSS never gives the PIN again",
                user="TLS 1.3 with such a key fails: SEC_ERROR_TOKEN_NOT_LOGGED_IN.",
            )
    keys.remove(context, slot, [key])
