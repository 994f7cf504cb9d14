"""A token that "modutil -default" made the default for all: a TLS handshake's secrets, as NSS derives them on it.

The accelerator's verdict (N4). NSS makes the key share of a handshake on the default token for ECC, whosever keys the
handshake is about, and the secrets then stay there: what goes wrong ends every connection. Nothing of it is a token
object; everything is compared with the cryptography library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from keyfob.nss import material
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Mechanism, Reply
from keyfob.nss.driver.values import Template
from keyfob.nss.scenario import scenario
from keyfob.nss.scenarios.transfer import brought_key, claims
from keyfob.spec.constants import CKA, CKD, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.parameters import Ecdh1DeriveParams, GcmParams, HkdfParams

SHA256 = hashes.SHA256()
SALT, INFO, ZEROS, TEXT = b"\x5a" * 32, b"\0\x20\x0ctls13 keyfob\0", bytes(32), b"a record of the handshake"
# What the private half of a key share is asked for: first open, as softoken takes it; hidden where that is refused.
OPEN = ((CKA.PRIVATE, False), (CKA.SENSITIVE, False))
HIDDEN = ((CKA.PRIVATE, True), (CKA.SENSITIVE, True))
TLS_1_2 = (CKM.TLS12_MASTER_KEY_DERIVE, CKM.TLS12_KEY_AND_MAC_DERIVE)


@dataclass(frozen=True)
class Secret:
    """A secret on the token, and what it is."""

    handle: int
    value: bytes


@scenario("accelerator", "A TLS handshake's secrets on a token that was made the default for all", rules=("N4",))
def accelerator(context: Context) -> None:
    slot = context.slot()
    shares = claims(context, slot, CKM.EC_KEY_PAIR_GEN, CKF.GENERATE_KEY_PAIR)
    agrees = shares and claims(context, slot, CKM.ECDH1_DERIVE, CKF.DERIVE)
    expands = claims(context, slot, CKM.HKDF_DERIVE, CKF.DERIVE)
    if not agrees and not expands:
        context.skip("NSS asks a token without ECDH and HKDF for no part of a handshake", "N4", applicable=False)
        return
    with context.step("before a login"), context.checking("N4") as check:
        _before_login(context, check, slot)
    slot = context.ready()
    with context.step("the secrets of TLS 1.3"), context.checking("N4") as check:
        agreed = _agreed(context, check, slot) if agrees else None
        if expands:
            _schedule(context, check, slot, agreed)


def _before_login(context: Context, check: Check, slot: NssSlot) -> None:
    """A default token is asked before anybody has given a PIN: programs that need no key of it never will."""
    session = context.nss().open_ro(slot)
    key = brought_key(context, session, CKK.GENERIC_SECRET, CKA.SIGN, SALT)
    if not key.is_ok and key.rv != CKR.SESSION_READ_ONLY:  # N8's matter
        check.warn(
            f"a session key before the login: C_CreateObject answered {key.name}",
            key,
            user="Each program asks for the token's PIN, also those that want nothing of it.",
        )
    context.nss().close(slot, session)


def _agreed(context: Context, check: Check, slot: NssSlot) -> Secret | None:
    """ssl/ssl3ecc.c: a key share on the default session, then the secret that both sides have."""
    module = context.module
    others = (CKA.WRAP, CKA.VERIFY, CKA.VERIFY_RECOVER, CKA.ENCRYPT)
    public: Template = [
        (CKA.EC_PARAMS, material.P256),
        (CKA.TOKEN, False),
        (CKA.DERIVE, True),
        *((use, False) for use in others),
    ]
    uses = [(CKA.DERIVE, True), *((use, False) for use in (CKA.UNWRAP, CKA.SIGN, CKA.DECRYPT))]
    for secrecy in (OPEN, HIDDEN):
        share = module.C_GenerateKeyPair(
            slot.session, Mechanism(CKM.EC_KEY_PAIR_GEN), public, [(CKA.TOKEN, False), *secrecy, *uses]
        )
        if share.is_ok:
            break
    if not check.expect_rv(share, CKR.OK, because="to a key share, a pair of session objects in a read-only session"):
        return None
    peer = ec.generate_private_key(ec.SECP256R1())
    point = peer.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    own = context.nss().read_one(slot.session, share.value[0], CKA.EC_POINT) or b""
    mechanism = Mechanism(CKM.ECDH1_DERIVE, Ecdh1DeriveParams(CKD.NULL, b"", point))
    made = module.C_DeriveKey(slot.session, mechanism, share.value[1], _derived(CKK.HKDF, 32))
    if not check.expect_rv(made, CKR.OK, because="to ECDH whose secret is a key for HKDF"):
        return None
    try:
        wanted = peer.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), own[-65:]))
    except ValueError:
        check.fail("CKA_EC_POINT of the key share is no point", share)
        return None
    _takes_out(context, check, slot, made, wanted)
    return Secret(made.value, wanted)


def _derived(key_type: int, length: int | None = None, *uses: int) -> Template:
    """PK11_DeriveWithTemplate."""
    sized = [(CKA.VALUE_LEN, length)] if length is not None else []
    kind = ((CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type))
    return [*((use, True) for use in uses), *kind, *sized, (CKA.DERIVE, True)]


def _takes_out(context: Context, check: Check, slot: NssSlot, made: Reply[int], wanted: bytes) -> None:
    """What the token cannot go on with NSS moves to its own: PK11_ExtractKeyValue."""
    value = context.nss().read_one(slot.session, made.value, CKA.VALUE)
    if value is not None:
        check.expect(value == wanted, "ECDH gives another secret than it should", made)
        return
    needed = [CKM.HKDF_DERIVE, *TLS_1_2]
    lacks = [mechanism for mechanism in needed if not claims(context, slot, mechanism, CKF.DERIVE)]
    check.expect(
        not lacks,
        "the secret of a key share does not show its CKA_VALUE, and the token has not all mechanisms to go on with it",
        made,
    )


def _hkdf(*, extract: bool, salt: int = 0, info: bytes = b"", kind: int = CKM.HKDF_DERIVE) -> Mechanism:
    """NSS sets what counts, and leaves the rest of the struct as the stack had it (ssl/tls13hkdf.c)."""
    parameter = HkdfParams(
        extract=extract,
        expand=not extract,
        prf_hash_mechanism=CKM.SHA256,
        salt_type=CKF.HKDF_SALT_KEY if extract else 0,
        salt=b"",
        salt_key=salt,
        info=info,
    )
    return Mechanism(kind, parameter, unset=not extract)


def _schedule(context: Context, check: Check, slot: NssSlot, agreed: Secret | None) -> None:
    """ssl/tls13hkdf.c: extract with a key for the salt, and with data for the key; expand; take data out."""
    module = context.module
    salt = brought_key(context, slot.session, CKK.HKDF, CKA.DERIVE, SALT)
    if not check.expect_rv(salt, CKR.OK, because="to a key of CKK_HKDF from raw data"):
        return
    if agreed is None:
        brought = brought_key(context, slot.session, CKK.HKDF, CKA.DERIVE, SALT[::-1])
        agreed = Secret(brought.ok(), SALT[::-1])
    made = module.C_DeriveKey(slot.session, _hkdf(extract=True, salt=salt.value), agreed.handle, _derived(CKK.HKDF))
    if not check.expect_rv(made, CKR.OK, because="to CKM_HKDF_DERIVE with a key as salt (CKF_HKDF_SALT_KEY)"):
        return
    root = Secret(made.value, HKDF.extract(SHA256, SALT, agreed.value))
    zeros = module.C_CreateObject(slot.session, [(CKA.CLASS, CKO.DATA), (CKA.VALUE, ZEROS)])
    if check.expect_rv(zeros, CKR.OK, because="to data as a session object"):
        mechanism = _hkdf(extract=True, salt=root.handle)
        made = module.C_DeriveKey(slot.session, mechanism, zeros.value, _derived(CKK.HKDF))
        if check.expect_rv(made, CKR.OK, because="to CKM_HKDF_DERIVE of data (the standard's section 6.62.3)"):
            _proved(context, check, slot, Secret(made.value, HKDF.extract(SHA256, root.value, ZEROS)))
    _proved(context, check, slot, root)


def _proved(context: Context, check: Check, slot: NssSlot, secret: Secret) -> None:
    """Whether the secret is the right one: by what HKDF makes of it for MACs, for records and as data."""
    finished = _expanded(context, check, slot, secret, CKK.GENERIC_SECRET, 32)
    if finished is not None and claims(context, slot, CKM.SHA256_HMAC, CKF.SIGN):
        mac = hmac.HMAC(finished.value, SHA256)
        mac.update(TEXT)
        module = context.module
        begun = module.C_SignInit(slot.session, Mechanism(CKM.SHA256_HMAC), finished.handle)
        reply = _one_call(begun, module.C_Sign, slot)
        if check.expect_rv(reply, CKR.OK, because="to CKM_SHA256_HMAC with a derived key"):
            check.expect(reply.value == mac.finalize(), "a derived key makes another MAC than it should", reply)
    traffic = _expanded(context, check, slot, secret, CKK.AES, 16)
    if traffic is not None and claims(context, slot, CKM.AES_GCM, CKF.ENCRYPT):
        module = context.module
        gcm = Mechanism(CKM.AES_GCM, GcmParams(ZEROS[:12], 96, b"header", 128))
        reply = _one_call(module.C_EncryptInit(slot.session, gcm, traffic.handle), module.C_Encrypt, slot)
        wanted = AESGCM(traffic.value).encrypt(ZEROS[:12], TEXT, b"header")
        if check.expect_rv(reply, CKR.OK, because="to CKM_AES_GCM with a derived key"):
            check.expect(reply.value == wanted, "a derived key encrypts otherwise than it should", reply)
    if claims(context, slot, CKM.HKDF_DATA, CKF.DERIVE):
        _data(context, check, slot, secret)


def _one_call(begun: Reply[None], end: Callable[..., Reply[bytes]], slot: NssSlot) -> Reply[bytes]:
    return end(slot.session, TEXT, len(TEXT) + 32) if begun.is_ok else begun  # type: ignore[return-value]


def _expanded(
    context: Context, check: Check, slot: NssSlot, secret: Secret, key_type: int, length: int
) -> Secret | None:
    made = context.module.C_DeriveKey(
        slot.session,
        _hkdf(extract=False, info=INFO),
        secret.handle,
        _derived(key_type, length, CKA.SIGN, CKA.VERIFY),
    )
    if not check.expect_rv(made, CKR.OK, because="to CKM_HKDF_DERIVE that expands, and whose salt nobody set"):
        return None
    return Secret(made.value, HKDFExpand(SHA256, length, INFO).derive(secret.value))


def _data(context: Context, check: Check, slot: NssSlot, secret: Secret) -> None:
    """The nonce of the records: NSS's template is that of a key."""
    mechanism = _hkdf(extract=False, info=INFO, kind=CKM.HKDF_DATA)
    made = context.module.C_DeriveKey(
        slot.session, mechanism, secret.handle, _derived(CKK.HKDF, 12, CKA.SIGN, CKA.VERIFY)
    )
    if check.expect_rv(made, CKR.OK, because="to CKM_HKDF_DATA with NSS's template, which is that of a key"):
        value = context.nss().read_one(slot.session, made.value, CKA.VALUE)
        wanted = HKDFExpand(SHA256, 12, INFO).derive(secret.value)
        check.expect(value == wanted, "CKM_HKDF_DATA gives something else than it should, or does not show it", made)
