"""The one exception that carries a CK_RV out of any room, and the names of constants for people."""

from __future__ import annotations


def name_of(prefix: str, value: int) -> str:
    """The standard's name of a constant, e.g. ("CKR", 0xA0) -> "CKR_PIN_INCORRECT"; unknown numbers stay numbers."""
    try:
        from keyfob.spec.names import NAMES
    except (ImportError, OSError):  # no descriptor is free to read it with, and an error must be told all the same
        return f"{prefix}_0x{value:08X}"
    return NAMES[prefix].get(value) or f"{prefix}_0x{value:08X}"


class PKCS11Error(Exception):
    """A call must answer `rv` (a CKR_* value, known or not). `reason` goes to the log: it never holds a secret."""

    def __init__(self, rv: int, reason: str = "") -> None:
        super().__init__(rv, reason)
        self.rv = rv
        self.reason = reason

    def __str__(self) -> str:
        name = name_of("CKR", self.rv)
        return f"{name}: {self.reason}" if self.reason else name
