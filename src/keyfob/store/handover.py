"""The first user PIN that NSS sets without the SO PIN, and how the SO still gets in afterwards (P6). Rarely imported.

While a token waits for its first user PIN the master key that C_InitToken made is open to the SO PIN alone, and NSS
gives an empty one. Whoever sets the PIN then makes a new master key, and seals it for the SO without knowing the SO's:

    SO PIN --Argon2id--> first master key --keyed BLAKE2b--> X25519 private key; its public half lies open in `so_key`
    first user PIN: a new master key, wrapped by that PIN, and sealed to `so_key` behind the wrapping of the first one
    SO PIN --Argon2id--> first master key --> X25519 private key --> new master key, wrapped by the SO PIN from now on

Sealed is HPKE's base mode (RFC 9180) with X25519, HKDF-SHA256 and AES-256-GCM, whose key schedule binds both public
keys. The SO's is new with each C_InitToken and so names this incarnation of this token: serial number and epoch would
add nothing, and a spoilt byte in them must not cost all keys (seal.py).

Anybody can seal to a public key, so what opens here proves nothing about who sealed it; it stands behind the SO's own
wrapping only, and never behind the user's.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store.integrity import keyed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import Suite

CONTEXT = b"keyfob first PIN 1"
SIZE = 32 + 32 + 16  # what is sealed: ephemeral public key, master key, tag


def public_key(master: bytes | bytearray) -> bytes:
    """What another master key can be sealed to, so that who has this one opens it."""
    return _private_key(master).public_key().public_bytes_raw()


def seal(master: bytes, public: bytes) -> bytes:
    """The new master key for whoever has the master key that `public` belongs to; CKR_DEVICE_ERROR if it is no key."""
    try:
        return _suite().encrypt(master, X25519PublicKey.from_public_bytes(public), info=CONTEXT)
    except ValueError:  # of the wrong length, or a point that gives every private key the same secret
        raise PKCS11Error(CKR.DEVICE_ERROR, "meta so_key: no public key") from None


def unseal(sealed: bytes, first: bytes) -> bytes:
    """The new master key, with the first one; ValueError when it was not sealed for that."""
    try:
        return _suite().decrypt(sealed, _private_key(first), info=CONTEXT)
    except (InvalidTag, ValueError):
        raise ValueError("what the first user PIN left for the SO does not open") from None


def _private_key(master: bytes | bytearray) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(keyed(b"keyfob so key", master))


def _suite() -> Suite:
    from cryptography.hazmat.primitives import hpke

    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
