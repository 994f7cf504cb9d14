"""The counters of a token that change without login: writes to objects, and attempts at PINs."""

from __future__ import annotations

import struct

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ROLES = ("user", "so")
# Where `encode` writes 0 an older keyfob kept when an attempt had begun, and those that were not settled, by role.
ROW = struct.Struct("<QdIIIIQ")
OLD_ROW = struct.Struct("<QdIIII")  # until schema 3, without `tries`
PARDON = 48 + 64  # bytes, behind the row where there is one: a claim and its signature (pardon.py)
MOST_VERSIONS = 1 << 62
MOST_FAILURES = 0xFFFF_FFFF


class Counters:
    """`version`: writes to objects so far. `tries`: attempts at a PIN so far, which no right one sets back.

    `failed`, by role: wrong PINs since the last right one. `pardon`: who set them back last (pardon.py); or empty.
    """

    __slots__ = ("failed", "pardon", "tries", "version")

    def __init__(self, version: int = 0) -> None:
        self.version = version
        self.tries = 0
        self.failed = dict.fromkeys(ROLES, 0)
        self.pardon = b""

    def encode(self) -> bytes:
        return ROW.pack(self.version, 0.0, self.failed["user"], 0, self.failed["so"], 0, self.tries) + self.pardon

    def copy(self) -> Counters:
        return Counters.decode(self.encode())

    @classmethod
    def decode(cls, value: bytes) -> Counters:
        """ValueError unless `encode` could have written it, here or in an older keyfob."""
        counters = cls()
        try:
            if len(value) == ROW.size + PARDON:
                value, counters.pardon = value[: ROW.size], value[ROW.size :]
            padded = value + bytes(ROW.size - OLD_ROW.size) if len(value) == OLD_ROW.size else value
            version, _, user, user_unsettled, so, so_unsettled, counters.tries = ROW.unpack(padded)
        except struct.error as problem:
            raise ValueError(str(problem)) from None
        if version > MOST_VERSIONS or counters.tries > MOST_VERSIONS:
            raise ValueError("a counter is out of bounds")
        counters.version = version
        counters.failed.update(user=min(user + user_unsettled, MOST_FAILURES), so=min(so + so_unsettled, MOST_FAILURES))
        return counters

    def next_version(self) -> int:
        if self.version >= MOST_VERSIONS:
            raise PKCS11Error(CKR.DEVICE_ERROR, "the counter of versions is used up")
        self.version += 1
        return self.version

    def next_try(self) -> None:
        self.tries = min(self.tries + 1, MOST_VERSIONS)

    def refuse_if_locked(self, role: str, max_failures: int, failed_here: int = 0, least: int = 0) -> None:
        """CKR_PIN_LOCKED after too many wrong PINs. `failed_here`: those that could not be written down.

        `least`: those that this machine has counted, whatever the token says (guesses.py).
        """
        failed = max(self.failed[role] + failed_here, least)
        if failed >= max_failures:
            raise PKCS11Error(CKR.PIN_LOCKED, f"the {role} PIN is locked after {failed} wrong ones")

    def succeed(self, role: str) -> bool:
        """Whether wrong PINs are forgotten by that."""
        forgotten = self.failed[role] > 0
        self.failed[role] = 0
        return forgotten

    def add(self, failed: Mapping[str, int]) -> None:
        """Wrong PINs that were counted elsewhere."""
        for role in ROLES:
            self.failed[role] = min(self.failed[role] + failed[role], MOST_FAILURES)

    def fail(self, role: str) -> None:
        self.failed[role] = min(self.failed[role] + 1, MOST_FAILURES)
