"""How a machine is told without a PIN that wrong PINs were rightly forgotten. Imported when a count went down.

The counters of a token have no MAC that could be checked before a login, so a machine believes its own memory
(witness.py) where that says more wrong PINs than the token does. But a right PIN on another machine sets the count
back, too. So whoever sets it back leaves a signature beside it, of Ed25519 by a key that follows from the master key:
"at attempt number N the counts were these". The public half is part of the token's state, and of what each machine
remembers of it; what it met first is what it goes by.

A new master key has another key pair, which the old one signs for.
"""

from __future__ import annotations

from struct import Struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keyfob.store.counters import ROLES
from keyfob.store.integrity import keyed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store.counters import Counters
    from keyfob.store.seal import Keys

CONTEXT = b"keyfob pardon 1 "
CLAIM = Struct("<QII32s")  # tries, wrong PINs of user and SO, the public key from now on


class Pardon:
    """The counts of wrong PINs, by role, as they were after the attempt number `tries`."""

    __slots__ = ("failed", "public", "tries")

    def __init__(self, tries: int, public: bytes, *failed: int) -> None:
        self.tries = tries
        self.public = public
        self.failed = dict(zip(ROLES, failed, strict=True))


def public_key(keys: Keys) -> bytes:
    """What pardons by these keys are verified with."""
    return _private_key(keys).public_key().public_bytes_raw()


def issue(keys: Keys, serial: str, counters: Counters, public: bytes) -> bytes:
    """For the counts as they are now; `public` is the key of whoever has the say from now on."""
    claim = CLAIM.pack(counters.tries, *(counters.failed[role] for role in ROLES), public)
    return claim + _private_key(keys).sign(CONTEXT + serial.encode() + claim)


def read(pardon: bytes, serial: str, public: bytes) -> Pardon | None:
    """None where it was not issued by whoever has the private half of `public`."""
    claim, signature = pardon[: CLAIM.size], pardon[CLAIM.size :]
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, CONTEXT + serial.encode() + claim)
    except (InvalidSignature, ValueError):
        return None
    tries, user, so, following = CLAIM.unpack(claim)
    return Pardon(tries, following, user, so)


def _private_key(keys: Keys) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(keyed(b"keyfob pardon", keys.roster))
