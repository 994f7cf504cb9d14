"""An object of a token as the process sees it: its attributes, its handle, and its key made ready for use."""

from __future__ import annotations

import os

from keyfob._held import hold
from keyfob.mechanisms import key_class, load_key
from keyfob.spec.constants import CKA, CKO
from keyfob.spec.traits import SECRETS, has_secrets, hides

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from keyfob.mechanisms.base import Key
    from keyfob.token.token import Token

TRUE = b"\x01"
FALSE = b"\x00"


def ulong(value: int) -> bytes:
    """A CK_ULONG attribute value: 8 bytes, little-endian."""
    return value.to_bytes(8, "little")


def number(value: bytes) -> int:
    """The int of a CK_ULONG attribute value."""
    return int.from_bytes(value, "little")


def size_of(attributes: Mapping[int, bytes]) -> int:
    """The bytes of all values."""
    return sum(map(len, attributes.values()))


PRIVATE_KEY = ulong(CKO.PRIVATE_KEY)
SECRET_KEY = ulong(CKO.SECRET_KEY)
PUBLIC_KEY = ulong(CKO.PUBLIC_KEY)
CERTIFICATE = ulong(CKO.CERTIFICATE)
KEY_CLASSES = (PRIVATE_KEY, SECRET_KEY, PUBLIC_KEY)


def is_veiled(attributes: dict[int, bytes]) -> bool:
    """Whether it is a token's key that can be seen, and whose hidden value only a login opens (store/rows.py)."""
    return hides(attributes) and SECRETS.isdisjoint(attributes)


def held(attributes: dict[int, bytes]) -> dict[int, bytes]:
    """The same, the values of a secret or private key where secrets are held."""
    if not has_secrets(attributes):
        return attributes
    return {a: hold(value) if a in SECRETS else value for a, value in attributes.items()}


class Object:
    """One state of an object: its attributes, its key, and what was found to be allowed with them, never changed.

    C_SetAttributeValue puts another Object in its place (objects.py). A call works on the one that it looked up: what
    it has checked is true of the key that it uses, whatever other threads do meanwhile.

    `owner` is the handle of the session that a session object dies with, 0 for token objects. `stored` is the object's
    number in the token's store, 0 for session objects. `uses`: operations that hold no state, made once, by mechanism
    and CKF_* flag (functions/begin.py).
    """

    __slots__ = (
        "_key",
        "always_authenticate",
        "attributes",
        "checked_at",
        "handle",
        "owner",
        "private",
        "stored",
        "token",
        "uses",
        "veiled",
    )

    def __init__(
        self, token: Token, handle: int, attributes: dict[int, bytes], *, owner: int = 0, stored: int = 0
    ) -> None:
        self.token = token
        self.handle = handle
        self.owner = owner
        self.stored = stored
        self.attributes = attributes
        self.private = attributes.get(CKA.PRIVATE) == TRUE
        self.veiled = stored != 0 and not self.private and is_veiled(attributes)
        self.always_authenticate = attributes.get(CKA.ALWAYS_AUTHENTICATE) == TRUE
        self.checked_at = -1  # the store's change counter when the attributes were last known to hold
        self._key: Key | None = None
        self.uses: dict[tuple[int, int], Any] = {}

    def changed_to(self, attributes: dict[int, bytes]) -> Object:
        """The same object with other attributes."""
        return Object(self.token, self.handle, attributes, owner=self.owner, stored=self.stored)

    @property
    def size(self) -> int:
        return size_of(self.attributes)

    @property
    def key(self) -> Key:
        """The key for mechanisms, made once."""
        key = self._key
        if key is None:
            key = self._key = load_key(self.attributes)
        return key

    def is_true(self, attribute: int) -> bool:
        return self.attributes.get(attribute) == TRUE

    @property
    def hides_secrets(self) -> bool:
        return hides(self.attributes)

    @property
    def ends_with_login(self) -> bool:
        """After C_Logout it is invisible, or a token's key whose value is sealed: nothing goes on with it."""
        return self.private or (self.stored != 0 and self.hides_secrets)


def prepare(attributes: dict[int, bytes]) -> None:
    """Root's programs read their keys, then many give up their rights: what a key needs is imported while it can be.

    abi/imports.py does the rest where they fork before that; stunnel, for one, forks afterwards.
    """
    if attributes.get(CKA.CLASS) == PRIVATE_KEY and os.geteuid() == 0:
        try:
            key_class(CKO.PRIVATE_KEY, number(attributes.get(CKA.KEY_TYPE, b"")))
        except ImportError:  # the rights are gone already; whoever uses the key will be told (abi/answers.py)
            return
