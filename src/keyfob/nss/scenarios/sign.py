"""Signatures as NSS makes them for TLS, mail and certificates; what it reads before each; calls in between."""

from __future__ import annotations

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
PSS = {
    CKM.SHA256: (CKG.MGF1_SHA256, CKM.SHA256_RSA_PKCS_PSS),
    CKM.SHA384: (CKG.MGF1_SHA384, CKM.SHA384_RSA_PKCS_PSS),
    CKM.SHA512: (CKG.MGF1_SHA512, CKM.SHA512_RSA_PKCS_PSS),
}


def pss(hash_algorithm: int, mechanism: int = CKM.RSA_PKCS_PSS) -> Mechanism:
    """PSS as TLS uses it: MGF1 with the same hash, the salt as long as the hash."""
    size = keys.HASHES[hash_algorithm].digest_size
    return Mechanism(mechanism, RsaPkcsPssParams(hash_algorithm, PSS[hash_algorithm][0], size))


def signed(context: Context, slot: NssSlot, key: TokenKey, mechanism: Mechanism, data: bytes) -> Reply[bytes]:
    """PK11_Sign: a session of its own, the look at CKA_ALWAYS_AUTHENTICATE, a buffer of exactly the right size."""
    nss, module = context.nss(), context.module
    session = nss.open_ro(slot)
    begun = module.C_SignInit(session, mechanism, key.private)
    if begun.is_ok:
        nss.read_flag(slot.session, key.private, CKA.ALWAYS_AUTHENTICATE)
        reply: Reply[bytes] = module.C_Sign(session, data, key.length)
    else:
        reply = begun  # type: ignore[assignment]  # of a failure only the code counts
    nss.close(slot, session)
    return reply


def expect_signature(
    check: Check, key: TokenKey, reply: Reply[bytes], what: str, data: bytes = TEXT, hash_: int | None = None
) -> None:
    if not check.expect_rv(reply, CKR.OK, because=f"to {what} with an {key.name} key"):
        return
    length = len(reply.value)
    check.expect(length == key.length, f"{what} with an {key.name} key gives {length} bytes, not {key.length}", reply)
    if length == key.length:
        right = verifies(key.public, reply.value, data, pss=hash_)
        check.expect(right, f"the signature of {what} with an {key.name} key is wrong", reply)


@scenario(
    "sign",
    "Sign as NSS does for TLS, mail and certificates",
    rules=("K3", "K7", "K9", "N10", "P4", "P22", "P29", "SE3", "S17"),
    needs=("pin",),
)
def sign(context: Context) -> None:
    slot = context.ready()
    found = keys.token_keys(context, slot)
    if not found:
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
            reply = signed(context, slot, key, Mechanism(CKM.RSA_PKCS), digest_info(TEXT))
            for each in (check, older):
                expect_signature(each, key, reply, "CKM_RSA_PKCS over a DigestInfo")
            tls10 = signed(context, slot, key, Mechanism(CKM.RSA_PKCS), b"\x5a" * 36)
            if check.expect_rv(tls10, CKR.OK, because="to CKM_RSA_PKCS over 36 bytes, as TLS 1.1 signs"):
                recovered = key.public.recover_data_from_signature(tls10.value, padding.PKCS1v15(), None)  # type: ignore[union-attr]
                check.expect(
                    recovered == b"\x5a" * 36, "CKM_RSA_PKCS does not sign the 36 bytes that it is given", tls10
                )
        with context.checking("P4") as check:
            listed = CKM.RSA_PKCS_PSS in slot.mechanisms
            asked = module.C_GetMechanismInfo(slot.id, CKM.RSA_PKCS_PSS)
            if not listed and CKM.RSA_PKCS not in slot.mechanisms:
                check.not_applicable("the token does not sign with RSA")
            check.expect(listed, "C_GetMechanismList lacks CKM_RSA_PKCS_PSS, so TLS 1.3 does not use an RSA key", asked)
            for algorithm, kind in keys.HASHES.items():
                reply = signed(context, slot, key, pss(algorithm), digest(kind, TEXT))
                what = f"CKM_RSA_PKCS_PSS over {name_of('CKM', algorithm).removeprefix('CKM_')}"
                expect_signature(check, key, reply, what, hash_=algorithm)
    with context.step("hash and sign"), context.checking("K9") as check:
        if _signs(context, slot, CKM.SHA256_RSA_PKCS):
            reply = signed(context, slot, key, Mechanism(CKM.SHA256_RSA_PKCS), TEXT)
            expect_signature(check, key, reply, "CKM_SHA256_RSA_PKCS")
        for algorithm, (_mgf, combined) in PSS.items():
            if _signs(context, slot, combined):
                reply = _streamed(context, slot, key, pss(algorithm, combined))
                expect_signature(check, key, reply, f"{name_of('CKM', combined)} in parts", hash_=algorithm)


def _ec(context: Context, slot: NssSlot, key: TokenKey) -> None:
    with context.step("sign with EC"):
        with context.checking("K3") as check:
            reply = signed(context, slot, key, Mechanism(CKM.ECDSA), digest(hashes.SHA256(), TEXT))
            expect_signature(check, key, reply, "CKM_ECDSA over a SHA-256 hash")
        with context.checking("K9") as check:
            if not _signs(context, slot, CKM.ECDSA_SHA256):
                check.passed("CKM_ECDSA_SHA256 is not offered: NSS hashes itself")
                return
            whole = signed(context, slot, key, Mechanism(CKM.ECDSA_SHA256), TEXT)
            expect_signature(check, key, whole, "CKM_ECDSA_SHA256")
            parts = _streamed(context, slot, key, Mechanism(CKM.ECDSA_SHA256))
            expect_signature(check, key, parts, "CKM_ECDSA_SHA256 in parts")


def _signs(context: Context, slot: NssSlot, mechanism: int) -> bool:
    """NSS asks without looking at the list; an error means that the token cannot (sgn:149)."""
    reply = context.module.C_GetMechanismInfo(slot.id, mechanism)
    return reply.is_ok and bool(reply.value.flags & CKF.SIGN)


def _streamed(context: Context, slot: NssSlot, key: TokenKey, mechanism: Mechanism) -> Reply[bytes]:
    """TLS 1.3 CertificateVerify: three parts, and the modulus read in between (section 4, TLS server)."""
    nss, module = context.nss(), context.module
    session = nss.open_ro(slot)
    reply: Reply[bytes] = module.C_SignInit(session, mechanism, key.private)  # type: ignore[assignment]
    for part in (TEXT[:64], TEXT[64:98], TEXT[98:]):
        if reply.is_ok:
            reply = module.C_SignUpdate(session, part)  # type: ignore[assignment]
    if reply.is_ok:
        nss.read_one(slot.session, key.private, CKA.MODULUS)
        reply = module.C_SignFinal(session, key.length)
    nss.close(slot, session)
    return reply


def _in_the_middle(context: Context, slot: NssSlot, key: TokenKey) -> None:
    """Between C_SignInit and C_Sign other sessions ask for their state, search and read (P29, SE3, OpenSC #1071)."""
    nss, module = context.nss(), context.module
    is_rsa = isinstance(key.public, rsa.RSAPublicKey)
    mechanism = Mechanism(CKM.RSA_PKCS if is_rsa else CKM.ECDSA)
    data = digest_info(TEXT) if is_rsa else digest(hashes.SHA256(), TEXT)
    with context.checking("P29") as check, context.checking("SE3") as sessions:
        if slot.single_session:
            sessions.not_applicable("NSS has only one session of this token")
        with check.setup("begin to sign"):
            session = nss.open_ro(slot)
            module.C_SignInit(session, mechanism, key.private).ok()
        module.C_GetSessionInfo(slot.session)
        nss.find(slot.session, [(CKA.LABEL, b"keyfob check, never stored")])
        nss.read_flag(slot.session, key.private, CKA.ALWAYS_AUTHENTICATE)
        reply = module.C_Sign(session, data, key.length)
        for each in (check, sessions):
            each.expect_rv(reply, CKR.OK, because="after other sessions searched, read and asked for their state")
        nss.close(slot, session)


def _unknown_mechanism(context: Context, slot: NssSlot, key: TokenKey) -> None:
    with context.step("a mechanism that nobody has"), context.checking("S17") as check:
        session = context.nss().open_ro(slot)
        reply = context.module.C_SignInit(session, Mechanism(NO_MECHANISM), key.private)
        check.expect_rv(reply, CKR.MECHANISM_INVALID, because="to an unknown mechanism")
        context.nss().close(slot, session)


@scenario(
    "sign: always authenticate",
    "A key that asks for the PIN each time (CKA_ALWAYS_AUTHENTICATE)",
    rules=("P5", "P29"),
    needs=("pin", "write"),
)
def always_authenticate(context: Context) -> None:
    nss, module = context.nss(), context.module
    slot = context.ready()
    if not slot.needs_login or slot.protected_path:
        context.skip("the token's PIN is not NSS's to give", "P5", "P29", applicable=False)
        return
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
        check.expect_rv(login, CKR.OK, because="to CKU_CONTEXT_SPECIFIC between C_SignInit and C_Sign")
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
