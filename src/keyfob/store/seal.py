"""From PIN to master key, and what the master key seals. Imported when a PIN is used, not before.

    PIN --Argon2id, salt--> wrapping key --AES-256-GCM--> master key (32 random bytes, new with each C_InitToken)
    master key --keyed BLAKE2b, one purpose each--> seal key     AES-256-GCM of private objects' records
                                                    MAC key      over every object and every fact about the token
                                                    index key    look-up digests of private objects
                                                    key ID       tells whether the master key is still the same

The master key is wrapped once for each way in (user PIN, SO PIN, key file), each with a salt of its own, so a PIN
changes without touching any object. The associated data name the way in, so that one wrapping cannot stand in for
another; what it opens must then have the token's key ID, so a wrapping of another token is noticed. The serial number
is not among them: it has a MAC under the master key itself, and a spoilt byte in it must not cost all keys.

A PIN's wrapping that was made with a pepper (pepper.py) has PEPPERED in its number of lanes, which a keyfob that
knows nothing of peppers refuses, and the pepper's identity behind it. The SO's wrapping may have something more behind
it, see handover.py.
"""

from __future__ import annotations

import os
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from keyfob import libraries
from keyfob._held import hold, wipe
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store.hardening import Hardening, least
from keyfob.store.integrity import Hasher, keyed
from keyfob.store.pepper import IDENTITY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store.pepper import Pepper

KEY_SIZE = 32
NONCE_SIZE = 12
SEALED = 0x81  # first byte of a sealed record; a plain one starts with record.FORMAT
WRAPPING = Struct("<III16s12s48s")  # memory in KiB, iterations, lanes; salt; nonce; master key and tag
PEPPERED = 1 << 31
PLACE = Struct("<QQ")
WRAP_CONTEXT = b"keyfob wrap 1 "
SEAL_CONTEXT = b"keyfob object 1 "
OVERHEAD = 1 + NONCE_SIZE + 16

libraries.loaded()  # cryptography, by the imports above


class Keys:
    """The master key and what follows from it, between login and logout."""

    __slots__ = ("_aead", "index", "key_id", "mac", "mac_meta", "master", "roster")

    def __init__(self, master: bytes) -> None:
        self.master = hold(master)
        self._aead = AESGCM(hold(keyed(b"keyfob seal", self.master)))
        mac_key = keyed(b"keyfob mac", self.master)
        self.mac = Hasher(b"keyfob object", mac_key)
        self.mac_meta = Hasher(b"keyfob meta", mac_key)
        self.index = Hasher(b"keyfob index", keyed(b"keyfob index", self.master))
        self.roster = hold(keyed(b"keyfob roster", mac_key))
        self.key_id = keyed(b"keyfob key id", self.master, 16)

    @classmethod
    def generate(cls) -> Keys:
        return cls(os.urandom(KEY_SIZE))

    def seal(self, object_id: int, version: int, record: bytes) -> bytes:
        """Seal a private record for its place: in another row, or as another version, it does not open.

        One key and random nonces: their collision is worth a thought after 2**32 writes, and each write is a durable
        commit. A nonce counted from the row's version would repeat when an older copy of the file is put back.
        """
        nonce = os.urandom(NONCE_SIZE)
        context = SEAL_CONTEXT + PLACE.pack(object_id, version)
        return bytes((SEALED,)) + nonce + self._aead.encrypt(nonce, record, context)

    def open(self, object_id: int, version: int, sealed: bytes) -> bytes:
        """The record again; ValueError when it was not sealed by this key for this place."""
        if len(sealed) < OVERHEAD or sealed[0] != SEALED:
            raise ValueError("the record is not a sealed one")
        context = SEAL_CONTEXT + PLACE.pack(object_id, version)
        try:
            return self._aead.decrypt(sealed[1 : 1 + NONCE_SIZE], sealed[1 + NONCE_SIZE :], context)
        except InvalidTag:
            raise ValueError("the sealed record does not open") from None

    def wipe(self) -> None:
        """Overwrite what is held, whoever may still refer to it; the rest goes with its last reference."""
        wipe(self.master)
        wipe(self.roster)


def harden(
    pin: bytes, salt: bytes, hardening: Hardening, pepper: Pepper | None = None, *, length: int = KEY_SIZE
) -> bytes:
    """The wrapping key of a PIN (Argon2id, RFC 9106). Takes its time, with the GIL released."""
    try:
        return Argon2id(
            salt=salt,
            length=length,
            iterations=hardening.iterations,
            lanes=hardening.lanes,
            memory_cost=hardening.memory_kib,
            secret=None if pepper is None else pepper.secret,
        ).derive(pin)
    except MemoryError:
        raise PKCS11Error(CKR.HOST_MEMORY, f"no {hardening.memory_kib} KiB of memory to check a PIN") from None


def wrap(master: bytes | bytearray, role: str, pin: bytes, hardening: Hardening, pepper: Pepper | None = None) -> bytes:
    """The master key wrapped under a PIN, with the parameters and salt that unwrapping needs.

    `hardening`: as the token says; it is raised to what this process demands.
    The empty PIN gets no pepper: what is under it is open to everybody, and shall be.
    """
    hardening = hardening.raised_to(least())
    used, lanes = (None, hardening.lanes) if pepper is None or not pin else (pepper, hardening.lanes | PEPPERED)
    identity = b"" if used is None else used.identity
    salt, nonce = os.urandom(16), os.urandom(NONCE_SIZE)
    context = WRAP_CONTEXT + role.encode() + identity
    sealed = AESGCM(harden(pin, salt, hardening, used)).encrypt(nonce, bytes(master), context)
    return WRAPPING.pack(hardening.memory_kib, hardening.iterations, lanes, salt, nonce, sealed) + identity


def unwrap(wrapping: bytes, role: str, pin: bytes, pepper: Pepper | None = None) -> bytes | None:
    """The master key, or None when the PIN is wrong; ValueError when this is no wrapping at all.

    `pepper`: the one that `pepper_identity` names.
    """
    end = WRAPPING.size + len(pepper_identity(wrapping))
    handed_over = wrapping[end:] if is_handed_over(wrapping, role) else b""
    if len(wrapping) != end + len(handed_over):
        raise ValueError("the wrapped master key has the wrong length")
    _, _, _, salt, nonce, sealed = WRAPPING.unpack_from(wrapping)
    try:
        hardening = hardening_of(wrapping)
    except PKCS11Error as problem:
        raise ValueError(problem.reason) from None
    master = _opened(harden(pin, salt, hardening, pepper), nonce, sealed, role, wrapping[WRAPPING.size : end])
    if master is None or not handed_over:
        return master
    from keyfob.store import handover

    return handover.unseal(handed_over, master)


def pin_mark(wrapping: bytes, pin: bytes, pepper: Pepper | None) -> bytes:
    """By what a PIN that did not open this wrapping is known again; as hard to guess from as the wrapping itself."""
    salt: bytes = WRAPPING.unpack_from(wrapping)[3]
    return keyed(b"keyfob wrong pin", harden(pin, salt, hardening_of(wrapping), pepper), 16)


def hardening_of(wrapping: bytes) -> Hardening:
    """What the PIN of this wrapping was hardened with; CKR_DEVICE_ERROR when this is none."""
    if len(wrapping) < WRAPPING.size:
        raise PKCS11Error(CKR.DEVICE_ERROR, "the wrapped master key has the wrong length")
    memory_kib, iterations, lanes = WRAPPING.unpack_from(wrapping)[:3]
    return Hardening.stored(memory_kib, iterations, lanes & ~PEPPERED if pepper_identity(wrapping) else lanes)


def pepper_identity(wrapping: bytes) -> bytes:
    """Of the pepper that its PIN needs; empty where it needs none."""
    if len(wrapping) < WRAPPING.size + IDENTITY or not WRAPPING.unpack_from(wrapping)[2] & PEPPERED:
        return b""
    return wrapping[WRAPPING.size : WRAPPING.size + IDENTITY]


def is_handed_over(wrapping: bytes, role: str) -> bool:
    """Whether the PIN opens the token's first master key and that one the present one (handover.py); the SO's only."""
    return role == "so" and len(wrapping) > WRAPPING.size + len(pepper_identity(wrapping))


def wrap_with_key(master: bytes | bytearray, role: str, key: bytes) -> bytes:
    """The master key wrapped under a random key of 32 bytes: nothing to harden."""
    nonce = os.urandom(NONCE_SIZE)
    return nonce + AESGCM(key).encrypt(nonce, bytes(master), WRAP_CONTEXT + role.encode())


def unwrap_with_key(wrapping: bytes, role: str, key: bytes) -> bytes | None:
    """The master key, or None when the key is another one."""
    return _opened(key, wrapping[:NONCE_SIZE], wrapping[NONCE_SIZE:], role)


def _opened(key: bytes, nonce: bytes, sealed: bytes, role: str, identity: bytes = b"") -> bytes | None:
    try:
        return AESGCM(key).decrypt(nonce, sealed, WRAP_CONTEXT + role.encode() + identity)
    except (InvalidTag, ValueError):  # ValueError: a nonce or key of impossible length, put there by somebody
        return None
