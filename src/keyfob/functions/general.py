"""General-purpose functions (section 5.4): C_Initialize, C_Finalize, C_GetInfo."""

from __future__ import annotations

from keyfob import __version__, config
from keyfob.functions.state import STATE, library
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token.library import Library

CRYPTOKI_VERSION = (3, 2)
MANUFACTURER = "keyfob"
DESCRIPTION = "keyfob PKCS #11 token"  # NSS's default module name: no quotes (G7)


class InitializeArguments:
    """CK_C_INITIALIZE_ARGS: how many of the four mutex callbacks are set, and the flags.

    pReserved is not looked at: NSS's struct has its module parameters there, and pReserved after it (G2).
    """

    __slots__ = ("callbacks", "flags")

    def __init__(self, callbacks: int, flags: int) -> None:
        self.callbacks = callbacks
        self.flags = flags


def C_Initialize(arguments: InitializeArguments | None) -> None:
    """Open every token. Mutex callbacks are accepted and not needed: locking is the interpreter's own (P9)."""
    if arguments is not None and arguments.callbacks not in (0, 4):
        raise PKCS11Error(CKR.ARGUMENTS_BAD, "of the four mutex callbacks all or none must be set")
    with STATE.lock:
        if STATE.library is not None:
            raise PKCS11Error(CKR.CRYPTOKI_ALREADY_INITIALIZED)
        STATE.library = Library(config.present())


def C_Finalize() -> None:
    """Close everything and wake whoever waits for a slot event (P28)."""
    with STATE.lock:
        current = library()
        STATE.library = None
        try:
            current.close()
        finally:
            STATE.wake()


def C_GetInfo() -> tuple[tuple[int, int], str, int, str, tuple[int, int]]:
    """(cryptokiVersion, manufacturerID, flags, libraryDescription, libraryVersion)."""
    library()
    major, minor = __version__.split(".")[:2]
    return CRYPTOKI_VERSION, MANUFACTURER, 0, DESCRIPTION, (int(major), int(minor))
