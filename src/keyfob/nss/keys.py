"""Keys of a token that scenarios sign and decrypt with, and their public halves for the cryptography library.

With --write they are made; without it the token's own keys serve, as they would in TLS client authentication.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from keyfob.nss import material
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Context
from keyfob.nss.driver import Template
from keyfob.nss.driver.mechanism import Mechanism
from keyfob.nss.options import LABEL
from keyfob.spec.constants import CKA, CKK, CKM, CKO

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
CURVES: dict[bytes, ec.EllipticCurve] = {
    material.P256: ec.SECP256R1(),
    bytes.fromhex("06052b81040022"): ec.SECP384R1(),
    bytes.fromhex("06052b81040023"): ec.SECP521R1(),
}
ED25519 = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")
OWN_KEYS = 8
"""Of a token's own keys no more are looked at."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A private key: its handle, its public half, and the handles that the checker made (empty: the token's own)."""

    private: int
    public: PublicKey
    made: tuple[int, ...]
    identifier: bytes

    @property
    def name(self) -> str:
        if isinstance(self.public, rsa.RSAPublicKey):
            return f"RSA-{self.public.key_size}"
        return self.public.curve.name if isinstance(self.public, ec.EllipticCurvePublicKey) else "Ed25519"

    @property
    def length(self) -> int:
        """Of a signature, in bytes, as NSS reckons it from CKA_MODULUS or CKA_EC_PARAMS (obj:550)."""
        if isinstance(self.public, rsa.RSAPublicKey):
            return (self.public.key_size + 7) // 8
        return 2 * ((self.public.curve.key_size + 7) // 8) if isinstance(self.public, ec.EllipticCurvePublicKey) else 64


def token_keys(context: Context, slot: NssSlot) -> list[TokenKey]:
    """One RSA and one EC key, as far as the token can have them."""
    if not context.options.write or slot.read_only:
        return [key for key in own_keys(context, slot) if not isinstance(key.public, ed25519.Ed25519PublicKey)]
    found = []
    for make in (material.rsa_key, material.ec_key):
        key = imported(context, slot, make()) or generated(context, slot, rsa_wanted=make is material.rsa_key)
        if key is not None:
            found.append(key)
    return found


def imported(context: Context, slot: NssSlot, key: material.PrivateKey, *more: tuple[int, bool]) -> TokenKey | None:
    """A key put on the token with NSS's template, and attributes beside; None when the token refuses it."""
    nss, module = context.nss(), context.module
    session = nss.open_rw(slot)
    private = module.C_CreateObject(session, [*material.private_key_template(key), (CKA.LABEL, LABEL), *more])
    made = (private.value,) if private.is_ok else ()
    nss.close(slot, session)
    return TokenKey(private.value, key.public_key(), made, material.identifier(key)) if made else None


def generated(context: Context, slot: NssSlot, *, rsa_wanted: bool) -> TokenKey | None:
    """A key pair made by the token with NSS's templates (section 4, certutil -G); None when it makes none."""
    if rsa_wanted:
        parameters: Template = [(CKA.MODULUS_BITS, 2048), (CKA.PUBLIC_EXPONENT, b"\x01\x00\x01")]
        usage: Template = [(CKA.DECRYPT, True), (CKA.UNWRAP, True)]
        return _pair(context, slot, CKM.RSA_PKCS_KEY_PAIR_GEN, parameters, usage)
    return _pair(context, slot, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, material.P256)], [(CKA.DERIVE, True)])


def edwards(context: Context, slot: NssSlot) -> TokenKey | None:
    """An Ed25519 key: made by the token, or without --write one of its own; None when there is none to be had."""
    if not context.options.write or slot.read_only:
        own = [key for key in own_keys(context, slot) if isinstance(key.public, ed25519.Ed25519PublicKey)]
        return own[0] if own else None
    return _pair(context, slot, CKM.EC_EDWARDS_KEY_PAIR_GEN, [(CKA.EC_PARAMS, ED25519[0])], [])


def _pair(context: Context, slot: NssSlot, kind: int, parameters: Template, usage: Template) -> TokenKey | None:
    nss, module = context.nss(), context.module
    if kind not in slot.mechanisms:
        return None
    session = nss.open_rw(slot)
    reply = module.C_GenerateKeyPair(
        session,
        Mechanism(kind),
        [*parameters, (CKA.TOKEN, True), (CKA.VERIFY, True), (CKA.LABEL, LABEL)],
        [(CKA.TOKEN, True), (CKA.PRIVATE, True), (CKA.SENSITIVE, True), (CKA.SIGN, True), *usage, (CKA.LABEL, LABEL)],
    )
    key = None
    if reply.is_ok:
        public, private = reply.value
        half = public_half(context, session, public, CKK.RSA if kind == CKM.RSA_PKCS_KEY_PAIR_GEN else CKK.EC)
        if half is not None:
            key = TokenKey(private, half, (public, private), b"")
        else:
            for handle in (public, private):
                module.C_DestroyObject(session, handle)
    nss.close(slot, session)
    if key is not None and nss.read_number(slot.session, key.private, CKA.CLASS) is None:
        remove(context, slot, [key])  # it went with its session (O13): nobody can work with it
        return None
    return key


def may_sign(context: Context, kind: int) -> bool:
    """Whether a signature proves anything of a key (CKK_RSA or CKK_EC): not where the token's signatures fail (K3)."""
    return context.known.get("signs with RSA" if kind == CKK.RSA else "signs with EC") is not False


def own_keys(context: Context, slot: NssSlot) -> list[TokenKey]:
    """The first of the token's own RSA and EC keys whose public half can be told."""
    nss = context.nss()
    found: dict[int, TokenKey] = {}
    for handle in nss.find_objects(slot, [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.TOKEN, True)])[:OWN_KEYS]:
        kind = nss.read_number(slot.session, handle, CKA.KEY_TYPE)
        if kind is None or kind in found or nss.read_flag(slot.session, handle, CKA.ALWAYS_AUTHENTICATE):
            continue
        identifier = nss.read_one(slot.session, handle, CKA.ID) or b""
        source = handle
        if kind != CKK.RSA:
            publics = nss.find(slot.session, [(CKA.ID, identifier), (CKA.CLASS, CKO.PUBLIC_KEY)])
            if not identifier or not publics:
                continue
            source = publics[0]
        half = public_half(context, slot.session, source, kind)
        if half is not None:
            found[kind] = TokenKey(handle, half, (), identifier)
    return list(found.values())


def public_half(context: Context, session: int, handle: int, kind: int) -> PublicKey | None:
    """The public key as the object's attributes give it; None when they do not."""
    nss = context.nss()
    if kind == CKK.RSA:
        modulus = nss.read_one(session, handle, CKA.MODULUS)
        exponent = nss.read_one(session, handle, CKA.PUBLIC_EXPONENT)
        if not modulus or not exponent:
            return None
        return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
    curve = nss.read_one(session, handle, CKA.EC_PARAMS)
    point = nss.read_one(session, handle, CKA.EC_POINT)
    return _on_curve(curve, point) if curve and point else None


def _on_curve(curve: bytes, point: bytes) -> PublicKey | None:
    try:
        if curve in ED25519:
            return ed25519.Ed25519PublicKey.from_public_bytes(point[-32:])
        if curve in CURVES:
            # DER on the outside or not (P33): only the length tells, a raw point may begin as DER does.
            raw_length = 1 + 2 * ((CURVES[curve].key_size + 7) // 8)
            raw = point if len(point) == raw_length else _inner(point)
            return ec.EllipticCurvePublicKey.from_encoded_point(CURVES[curve], raw)
    except ValueError:
        return None
    return None


def _inner(point: bytes) -> bytes:
    return point[3:] if point[1] == 0x81 else point[2:]


def remove(context: Context, slot: NssSlot, keys: list[TokenKey]) -> None:
    """Destroy what the checker made of them."""
    handles = [handle for key in keys for handle in key.made]
    if handles:
        session = context.nss().open_rw(slot)
        for handle in handles:
            context.module.C_DestroyObject(session, handle)
        context.nss().close(slot, session)


# Software's opinion of a signature

HASHES: dict[int, hashes.HashAlgorithm] = {
    CKM.SHA256: hashes.SHA256(),
    CKM.SHA384: hashes.SHA384(),
    CKM.SHA512: hashes.SHA512(),
}


def digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    made = hashes.Hash(algorithm)
    made.update(data)
    return made.finalize()


def digest_info(data: bytes) -> bytes:
    """DER DigestInfo of SHA-256, as NSS gives it to CKM_RSA_PKCS: 51 bytes."""
    return bytes.fromhex("3031300d060960864801650304020105000420") + digest(hashes.SHA256(), data)


def verifies(key: PublicKey, signature: bytes, data: bytes, *, pss: int | None = None) -> bool:
    """Whether it is a signature of the data with SHA-256 (or, for PSS, with the given hash, the salt as long)."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            half = len(signature) // 2
            numbers = (int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
            key.verify(utils.encode_dss_signature(*numbers), data, ec.ECDSA(hashes.SHA256()))
        elif pss is None:
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        else:
            algorithm = HASHES[pss]
            form = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
            key.verify(signature, data, form, algorithm)
    except (InvalidSignature, ValueError):
        return False
    return True
