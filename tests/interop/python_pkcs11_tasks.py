"""What python-pkcs11 does in one session of the user: one function for each thing, run by python_pkcs11_client.

Each result is checked by OpenSSL (pyca/cryptography), or the token must refuse what it has to refuse.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING, Any

import pkcs11
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import KDF, MGF, Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.mechanisms import GCMParams
from pkcs11.util.ec import encode_ec_public_key, encode_ecdsa_signature, encode_named_curve_parameters
from pkcs11.util.rsa import encode_rsa_public_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


Key = Any
Session = Any
Token = Any
"""python-pkcs11's own types do not say that its keys can sign, encrypt and wrap: that depends on their attributes."""

MESSAGE = b"a message of some length, not a multiple of anything"
CURVES = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1(), "secp521r1": ec.SECP521R1()}
EDWARDS_FORMS = {"OID": bytes.fromhex("06032b6570"), "name": b"\x13\x0cedwards25519"}
EXTRACTABLE = {Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False}


def refused(error: type[Exception], call: Callable[[], object]) -> None:
    """Fail unless `call` raises `error`."""
    try:
        call()
    except error:
        return
    reason = f"{error.__name__} was expected"
    raise AssertionError(reason)


def change(key: Key, attribute: Attribute, *, to: bool) -> None:
    """Set one attribute, as an expression."""
    key[attribute] = to


def ec_pair(session: Session, curve: str, *, label: str | None = None) -> tuple[Key, Key]:
    """Make an EC key pair, on the token if it gets a `label`."""
    named = {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
    parameters = session.create_domain_parameters(KeyType.EC, named, local=True)
    pair: tuple[Key, Key] = parameters.generate_keypair(store=label is not None, label=label)
    return pair


def rsa_pair(session: Session) -> tuple[Key, Key, rsa.RSAPublicKey]:
    """Make an RSA-2048 key pair in the session; the public key once more as OpenSSL sees it."""
    public, private = session.generate_keypair(KeyType.RSA, 2048)
    outside = load_der_public_key(encode_rsa_public_key(public))
    assert isinstance(outside, rsa.RSAPublicKey)
    assert outside.key_size == 2048
    return public, private, outside


def rsa_signs(session: Session) -> None:
    """PKCS #1 v1.5 and PSS, at once and in parts."""
    public, private, outside = rsa_pair(session)
    signature = private.sign(MESSAGE)
    outside.verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA512())
    assert public.verify(MESSAGE, signature)
    assert not public.verify(MESSAGE + b"!", signature)

    pss = {"mechanism": Mechanism.SHA256_RSA_PKCS_PSS, "mechanism_param": (Mechanism.SHA256, MGF.SHA256, 32)}
    signature = private.sign(MESSAGE, **pss)
    outside.verify(signature, MESSAGE, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    signature = private.sign(iter([MESSAGE[:9], MESSAGE[9:]]), **pss)
    outside.verify(signature, MESSAGE, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def rsa_encrypts(session: Session) -> None:
    """OAEP with its default and with SHA-1 by name, PKCS #1 v1.5; both directions with OpenSSL on the other side."""
    public, private, outside = rsa_pair(session)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    assert private.decrypt(outside.encrypt(MESSAGE, oaep)) == MESSAGE
    assert private.decrypt(public.encrypt(MESSAGE)) == MESSAGE
    sealed = outside.encrypt(MESSAGE, padding.PKCS1v15())
    assert private.decrypt(sealed, mechanism=Mechanism.RSA_PKCS) == MESSAGE
    refused(pkcs11.PKCS11Error, lambda: private.decrypt(sealed))


def rsa_oaep_with_label(session: Session) -> None:
    """OAEP with SHA-256 and an encoding parameter."""
    _, private, outside = rsa_pair(session)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"label")
    sealed = outside.encrypt(MESSAGE, oaep)
    assert private.decrypt(sealed, mechanism_param=(Mechanism.SHA256, MGF.SHA256, b"label")) == MESSAGE
    other = (Mechanism.SHA256, MGF.SHA256, b"other")
    refused(pkcs11.PKCS11Error, lambda: private.decrypt(sealed, mechanism_param=other))


def ec_signs_digests(session: Session) -> None:
    """CKM_ECDSA on every curve."""
    digest = hashlib.sha256(MESSAGE).digest()
    for curve in CURVES:
        public, private = ec_pair(session, curve)
        outside = load_der_public_key(encode_ec_public_key(public))
        assert isinstance(outside, ec.EllipticCurvePublicKey)
        assert outside.curve.name == curve
        signature = private.sign(digest, mechanism=Mechanism.ECDSA)
        outside.verify(encode_ecdsa_signature(signature), digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        assert public.verify(digest, signature, mechanism=Mechanism.ECDSA)
        assert not public.verify(digest[::-1], signature, mechanism=Mechanism.ECDSA)


def ec_signs_messages(session: Session) -> None:
    """CKM_ECDSA_SHA512, python-pkcs11's default, at once and in parts."""
    public, private = ec_pair(session, "secp384r1")
    outside = load_der_public_key(encode_ec_public_key(public))
    assert isinstance(outside, ec.EllipticCurvePublicKey)
    for signature in (private.sign(MESSAGE), private.sign(iter([MESSAGE[:5], MESSAGE[5:]]))):
        outside.verify(encode_ecdsa_signature(signature), MESSAGE, ec.ECDSA(hashes.SHA512()))


def edwards_signs(session: Session) -> None:
    """Ed25519 with the curve given as an OID and as the standard's name."""
    for parameters in EDWARDS_FORMS.values():
        domain = session.create_domain_parameters(KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: parameters}, local=True)
        public, private = domain.generate_keypair(mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN)
        signature = private.sign(MESSAGE, mechanism=Mechanism.EDDSA)
        point = public[Attribute.EC_POINT]
        ed25519.Ed25519PublicKey.from_public_bytes(point[-32:]).verify(signature, MESSAGE)
        assert public.verify(MESSAGE, signature, mechanism=Mechanism.EDDSA)


def ecdh_agrees(session: Session) -> None:
    """Two keys on the token and one outside derive the same AES key; with the plain secret and with a KDF."""
    public, private = ec_pair(session, "secp256r1")
    peer = ec.generate_private_key(ec.SECP256R1())
    numbers = peer.public_key().public_numbers()
    point = b"\x04" + numbers.x.to_bytes(32) + numbers.y.to_bytes(32)
    inside = load_der_public_key(encode_ec_public_key(public))
    assert isinstance(inside, ec.EllipticCurvePublicKey)
    secret = peer.exchange(ec.ECDH(), inside)

    key = private.derive_key(KeyType.AES, 256, mechanism_param=(KDF.NULL, None, point), template=EXTRACTABLE)
    assert key[Attribute.VALUE] == secret


def ecdh_with_kdf(session: Session) -> None:
    """ANSI X9.63 with SHA-256 and shared data, as CMS uses it."""
    public, private = ec_pair(session, "secp256r1")
    peer = ec.generate_private_key(ec.SECP256R1())
    numbers = peer.public_key().public_numbers()
    point = b"\x04" + numbers.x.to_bytes(32) + numbers.y.to_bytes(32)
    inside = load_der_public_key(encode_ec_public_key(public))
    assert isinstance(inside, ec.EllipticCurvePublicKey)
    secret = peer.exchange(ec.ECDH(), inside)

    parameters = (KDF.SHA256, b"shared", point)
    key = private.derive_key(KeyType.AES, 256, mechanism_param=parameters, template=EXTRACTABLE)
    assert key[Attribute.VALUE] == hashlib.sha256(secret + b"\x00\x00\x00\x01" + b"shared").digest()


def aes_encrypts(session: Session) -> None:
    """CBC with padding at once and in parts, ECB; equal to OpenSSL under the same key."""
    key = session.generate_key(KeyType.AES, 256, template=EXTRACTABLE)
    value = key[Attribute.VALUE]
    iv = session.generate_random(128)
    padder = PKCS7(128).padder()
    whole = padder.update(MESSAGE) + padder.finalize()
    reference = Cipher(AES(value), CBC(iv)).encryptor()
    expected = reference.update(whole) + reference.finalize()

    assert key.encrypt(MESSAGE, mechanism_param=iv) == expected
    parts = [MESSAGE[:3], MESSAGE[3:20], MESSAGE[20:]]
    assert b"".join(key.encrypt(iter(parts), mechanism_param=iv)) == expected
    assert key.decrypt(expected, mechanism_param=iv) == MESSAGE
    assert b"".join(key.decrypt(iter([expected[:5], expected[5:]]), mechanism_param=iv)) == MESSAGE
    bare = Cipher(AES(value), ECB()).encryptor()
    assert key.encrypt(whole, mechanism=Mechanism.AES_ECB) == bare.update(whole) + bare.finalize()
    refused(pkcs11.EncryptedDataLenRange, lambda: key.decrypt(expected[:-1], mechanism_param=iv))


def aes_gcm_authenticates(session: Session) -> None:
    """AES-GCM with associated data; a changed byte anywhere is refused."""
    key = session.generate_key(KeyType.AES, 256, template=EXTRACTABLE)
    nonce = os.urandom(12)
    gcm = {"mechanism": Mechanism.AES_GCM, "mechanism_param": GCMParams(nonce, b"associated")}
    sealed = key.encrypt(MESSAGE, **gcm)
    assert AESGCM(key[Attribute.VALUE]).decrypt(nonce, sealed, b"associated") == MESSAGE
    assert key.decrypt(sealed, **gcm) == MESSAGE
    damaged = bytes([sealed[0] ^ 1]) + sealed[1:]
    refused(pkcs11.PKCS11Error, lambda: key.decrypt(damaged, **gcm))
    other = {"mechanism": Mechanism.AES_GCM, "mechanism_param": GCMParams(nonce, b"other")}
    refused(pkcs11.PKCS11Error, lambda: key.decrypt(sealed, **other))


def keys_wrap_keys(session: Session) -> None:
    """AES under AES (RFC 3394) and AES under RSA (OAEP), out and back in."""
    wrapping = session.generate_key(KeyType.AES, 256, template=EXTRACTABLE)
    wrapped_key = session.generate_key(KeyType.AES, 128, template=EXTRACTABLE)
    value = wrapped_key[Attribute.VALUE]
    wrapped = wrapping.wrap_key(wrapped_key)
    assert aes_key_unwrap(wrapping[Attribute.VALUE], wrapped) == value
    back = wrapping.unwrap_key(ObjectClass.SECRET_KEY, KeyType.AES, wrapped, template=EXTRACTABLE)
    assert back[Attribute.VALUE] == value

    public, private, _ = rsa_pair(session)
    back = private.unwrap_key(ObjectClass.SECRET_KEY, KeyType.AES, public.wrap_key(wrapped_key), template=EXTRACTABLE)
    assert back[Attribute.VALUE] == value


def private_keys_are_wrapped(session: Session) -> None:
    """An EC private key goes out under AES-CBC with padding as PKCS #8 and comes back to sign."""
    wrapping = session.generate_key(KeyType.AES, 256)
    named = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    parameters = session.create_domain_parameters(KeyType.EC, named, local=True)
    public, private = parameters.generate_keypair(private_template=EXTRACTABLE)
    iv = os.urandom(16)
    cbc = {"mechanism": Mechanism.AES_CBC_PAD, "mechanism_param": iv}
    back = wrapping.unwrap_key(
        ObjectClass.PRIVATE_KEY, KeyType.EC, wrapping.wrap_key(private, **cbc), **cbc, template={Attribute.SIGN: True}
    )
    digest = hashlib.sha256(MESSAGE).digest()
    assert public.verify(digest, back.sign(digest, mechanism=Mechanism.ECDSA), mechanism=Mechanism.ECDSA)


def hmac_authenticates(session: Session) -> None:
    """HMAC-SHA256 with a generic secret that was brought in."""
    value = os.urandom(40)
    key = session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
            Attribute.VALUE: value,
            Attribute.SIGN: True,
            Attribute.VERIFY: True,
        }
    )
    code = key.sign(MESSAGE, mechanism=Mechanism.SHA256_HMAC)
    assert code == hmac.digest(value, MESSAGE, "sha256")
    assert key.verify(MESSAGE, code, mechanism=Mechanism.SHA256_HMAC)
    assert not key.verify(MESSAGE, code[::-1], mechanism=Mechanism.SHA256_HMAC)


def digests_and_random(session: Session) -> None:
    """SHA-2 at once and in parts; random bytes that differ."""
    for name, mechanism in (("sha256", Mechanism.SHA256), ("sha512", Mechanism.SHA512)):
        expected = hashlib.new(name, MESSAGE).digest()
        assert session.digest(MESSAGE, mechanism=mechanism) == expected
        assert session.digest(iter([MESSAGE[:7], MESSAGE[7:]]), mechanism=mechanism) == expected
    assert session.generate_random(256) != session.generate_random(256)


def objects_are_found(session: Session) -> None:
    """Search by label, by ID, by class; change, copy, destroy."""
    ec_pair(session, "secp256r1", label="findable")
    found = session.get_key(ObjectClass.PRIVATE_KEY, label="findable")
    assert (found.label, found.key_type) == ("findable", KeyType.EC)
    found[Attribute.ID] = b"\x10\x20"
    assert list(session.get_objects({Attribute.ID: b"\x10\x20"})) == [found]

    found[Attribute.LABEL] = "renamed"
    refused(pkcs11.NoSuchKey, lambda: session.get_key(ObjectClass.PRIVATE_KEY, label="findable"))
    assert session.get_key(label="renamed") == found
    twin = found.copy({Attribute.LABEL: "twin"})
    assert session.get_key(label="twin") == twin
    refused(pkcs11.MultipleObjectsReturned, lambda: session.get_key(ObjectClass.PRIVATE_KEY, id=b"\x10\x20"))
    for key in (found, twin):
        key.destroy()
    assert list(session.get_objects({Attribute.ID: b"\x10\x20"})) == []
    refused(pkcs11.ObjectHandleInvalid, lambda: found[Attribute.LABEL])


def many_objects_are_listed(session: Session) -> None:
    """A search that needs several C_FindObjects finds each object once."""
    wanted = {Attribute.CLASS: ObjectClass.DATA, Attribute.APPLICATION: "many"}
    for number in range(75):
        session.create_object({**wanted, Attribute.LABEL: f"{number}", Attribute.VALUE: b"x"})
    labels = [found[Attribute.LABEL] for found in session.get_objects(wanted)]
    assert sorted(map(int, labels)) == list(range(75))


def secrets_stay_inside(session: Session) -> None:
    """What is sensitive cannot be read, made insensitive or wrapped; what is not for signing does not sign."""
    _, private = ec_pair(session, "secp256r1")
    refused(pkcs11.AttributeSensitive, lambda: private[Attribute.VALUE])
    refused(pkcs11.PKCS11Error, lambda: change(private, Attribute.SENSITIVE, to=False))
    refused(pkcs11.PKCS11Error, lambda: change(private, Attribute.EXTRACTABLE, to=True))
    wrapping = session.generate_key(KeyType.AES, 256)
    cbc = {"mechanism": Mechanism.AES_CBC_PAD, "mechanism_param": os.urandom(16)}
    refused(pkcs11.PKCS11Error, lambda: wrapping.wrap_key(private, **cbc))
    wrapping[Attribute.ENCRYPT] = False
    refused(pkcs11.PKCS11Error, lambda: wrapping.encrypt(bytes(16), mechanism=Mechanism.AES_ECB))


SESSION_TASKS: Mapping[str, Callable[[Session], None]] = {
    task.__name__: task
    for task in (
        rsa_signs,
        rsa_encrypts,
        rsa_oaep_with_label,
        ec_signs_digests,
        ec_signs_messages,
        edwards_signs,
        ecdh_agrees,
        ecdh_with_kdf,
        aes_encrypts,
        aes_gcm_authenticates,
        keys_wrap_keys,
        private_keys_are_wrapped,
        hmac_authenticates,
        digests_and_random,
        objects_are_found,
        many_objects_are_listed,
        secrets_stay_inside,
    )
}
"""Tasks that need a session of the user."""
