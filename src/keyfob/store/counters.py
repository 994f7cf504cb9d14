"""The counters of a token that change without login: writes to objects, and wrong PINs.

An attempt is counted before its PIN is looked at and settled afterwards, so that killing the process in between gives
no free guess. Yet ten processes that log in at the same moment with the right PIN must not lock each other out: what
has begun but is not settled is counted apart, as `pending`, and an attempt that these alone would forbid waits for
them.
"""

from __future__ import annotations

import struct

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

ROLES = ("user", "so")
ROW = struct.Struct("<QdIIIIQ")
OLD_ROW = struct.Struct("<QdIIII")  # until schema 3, without `tries`
MOST_VERSIONS = 1 << 62
MOST_FAILURES = 0xFFFF_FFFF
PATIENCE = 5.0  # seconds after which an unsettled attempt is one of a dead process


class Counters:
    """`version`: writes to objects so far. `tries`: attempts at a PIN so far, which no right one sets back.

    `begun`: when a PIN was tried last, in seconds since 1970.

    `failed` and `pending`, by role: wrong PINs since the last right one, and attempts not settled.
    """

    __slots__ = ("begun", "failed", "pending", "tries", "version")

    def __init__(self, version: int = 0) -> None:
        self.version = version
        self.tries = 0
        self.begun = 0.0
        self.failed = dict.fromkeys(ROLES, 0)
        self.pending = dict.fromkeys(ROLES, 0)

    def encode(self) -> bytes:
        numbers = (self.failed["user"], self.pending["user"], self.failed["so"], self.pending["so"])
        return ROW.pack(self.version, self.begun, *numbers, self.tries)

    @classmethod
    def decode(cls, value: bytes) -> Counters:
        """ValueError unless `encode` could have written it."""
        counters = cls()
        try:
            padded = value + bytes(ROW.size - OLD_ROW.size) if len(value) == OLD_ROW.size else value
            version, counters.begun, user, user_pending, so, so_pending, counters.tries = ROW.unpack(padded)
        except struct.error as problem:
            raise ValueError(str(problem)) from None
        if version > MOST_VERSIONS:
            raise ValueError("the counter of versions is out of bounds")
        counters.version = version
        counters.failed.update(user=user, so=so)
        counters.pending.update(user=user_pending, so=so_pending)
        return counters

    def next_version(self) -> int:
        if self.version >= MOST_VERSIONS:
            raise PKCS11Error(CKR.DEVICE_ERROR, "the counter of versions is used up")
        self.version += 1
        return self.version

    def admit(self, role: str, max_failures: int, now: float) -> bool:
        """Count an attempt; CKR_PIN_LOCKED when there were too many. False: wait for those that are under way."""
        failed, pending = self.failed[role], self.pending[role]
        if failed >= max_failures:
            raise PKCS11Error(CKR.PIN_LOCKED, f"the {role} PIN is locked after {failed} wrong ones")
        if failed + pending >= max_failures:
            if 0.0 <= now - self.begun < PATIENCE:
                return False
            text = f"the {role} PIN is locked after {failed} wrong ones and {pending} attempts cut short"
            raise PKCS11Error(CKR.PIN_LOCKED, text)
        self.pending[role] = pending + 1
        self.tries += 1
        self.begun = now
        return True

    def succeed(self, role: str) -> None:
        self.failed[role] = self.pending[role] = 0

    def fail(self, role: str) -> None:
        self.failed[role] = min(self.failed[role] + 1, MOST_FAILURES)
        self.withdraw(role)

    def withdraw(self, role: str) -> None:
        """An attempt ended without an answer about its PIN."""
        self.pending[role] = max(self.pending[role] - 1, 0)
