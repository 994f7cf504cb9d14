"""A private key on the token in the shape of pyca/cryptography's private keys, so that its X.509 builders sign with it.

The library offers its abstract key classes for keys kept elsewhere ("Cloud KMS and HSM Asymmetric Keys" in its manual).
Only signing is there: everything else would need the key itself.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keyfob.cli import objects, tokens
from keyfob.cli.errors import Refusal
from keyfob.functions.signing import C_Sign, C_SignInit
from keyfob.spec.constants import CKA, CKM, CKO, CKU

if TYPE_CHECKING:
    from collections.abc import Generator

    from keyfob.cli.pins import Secret
    from keyfob.token.object import Object
    from keyfob.token.session import Session

RSA_MECHANISMS = {
    "sha256": CKM.SHA256_RSA_PKCS,
    "sha384": CKM.SHA384_RSA_PKCS,
    "sha512": CKM.SHA512_RSA_PKCS,
}
ECDSA_MECHANISMS = {"sha256": CKM.ECDSA_SHA256, "sha384": CKM.ECDSA_SHA384, "sha512": CKM.ECDSA_SHA512}
LARGEST_SIGNATURE = 4096  # bytes, far above any key's


def stays(*_: object, **__: object) -> NoReturn:
    """In the place of every method that would need the key itself."""
    raise Refusal("the private key stays on the token")


class Kept:
    """What every key class below has: the object, its session, and the PIN for keys that ask for it at each use."""

    session: Session
    found: Object
    _pin: Secret

    def __init__(self, session: Session, found: Object, pin: Secret) -> None:
        self.session = session
        self.found = found
        self._pin = pin

    def _signature(self, mechanism: int, data: bytes) -> bytes:
        C_SignInit(self.session, (mechanism, None), self.found.handle)
        if self.found.always_authenticate:
            token = self.session.token
            token.login(self.session, CKU.CONTEXT_SPECIFIC, b"" if token.general_access else self._pin.read())
        signature = C_Sign(self.session, data, LARGEST_SIGNATURE)
        if isinstance(signature, int):
            raise Refusal(f"the token's signature takes {signature} bytes, more than any certificate holds")
        return signature

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, _: Any) -> Any:
        return self

    @property
    def _public(self) -> Any:
        return load_der_public_key(self.found.attributes[CKA.PUBLIC_KEY_INFO])

    def public_key(self) -> Any:
        return self._public


class RsaTokenKey(Kept, rsa.RSAPrivateKey):
    """Signs with PKCS #1 v1.5."""

    @property
    def key_size(self) -> int:
        size: int = self._public.key_size
        return size

    def sign(self, data: Any, padding_: Any, algorithm: Any) -> bytes:
        if not isinstance(padding_, padding.PKCS1v15) or algorithm.name not in RSA_MECHANISMS:
            raise Refusal("the token signs certificates with PKCS #1 v1.5 and SHA-2 only")
        return self._signature(RSA_MECHANISMS[algorithm.name], bytes(data))

    decrypt = private_numbers = private_bytes = stays


class EcTokenKey(Kept, ec.EllipticCurvePrivateKey):
    """Signs with ECDSA: Cryptoki's r and s side by side become the DER of X.509."""

    @property
    def curve(self) -> ec.EllipticCurve:
        curve: ec.EllipticCurve = self._public.curve
        return curve

    @property
    def key_size(self) -> int:
        return self.curve.key_size

    def sign(self, data: Any, signature_algorithm: Any) -> bytes:
        plain = self._signature(ECDSA_MECHANISMS[signature_algorithm.algorithm.name], bytes(data))
        half = len(plain) // 2
        return encode_dss_signature(int.from_bytes(plain[:half], "big"), int.from_bytes(plain[half:], "big"))

    exchange = private_numbers = private_bytes = stays


class Ed25519TokenKey(Kept, ed25519.Ed25519PrivateKey):
    """Signs with pure EdDSA."""

    def sign(self, data: Any) -> bytes:
        return self._signature(CKM.EDDSA, bytes(data))

    private_bytes = private_bytes_raw = stays


TokenKey = RsaTokenKey | EcTokenKey | Ed25519TokenKey


def token_key(session: Session, found: Object, pin: Secret) -> TokenKey:
    """The key object for the library's builders; refused for keys that sign no certificates."""
    public = load_der_public_key(found.attributes[CKA.PUBLIC_KEY_INFO])
    if isinstance(public, rsa.RSAPublicKey):
        return RsaTokenKey(session, found, pin)
    if isinstance(public, ec.EllipticCurvePublicKey):
        return EcTokenKey(session, found, pin)
    if isinstance(public, ed25519.Ed25519PublicKey):
        return Ed25519TokenKey(session, found, pin)
    raise Refusal("keys of this type do not sign certificates or requests: take an RSA, EC or Ed25519 key")


@contextmanager
def signing(label: str, name: str, pin: Secret, *, writing: bool = False) -> Generator[TokenKey]:
    """The private key called `name` of the token `label`, ready to sign; the token closes at the end."""
    with tokens.opened(label, pin, writing=writing) as session:
        yield token_key(session, objects.single(session, name, CKO.PRIVATE_KEY), pin)


def hash_for(key: TokenKey) -> HashAlgorithm | None:
    """The hash that suits the key's strength; Ed25519 has its own."""
    if isinstance(key, Ed25519TokenKey):
        return None
    if isinstance(key, EcTokenKey) and key.key_size > 256:
        return SHA384() if key.key_size <= 384 else SHA512()
    return SHA256()
