"""Whether the process is between C_Initialize and C_Finalize, and the library of that time."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from keyfob.token.library import Library


class State:
    """`library` is None outside C_Initialize ... C_Finalize. `event` wakes those who wait for slot events."""

    __slots__ = ("event", "library", "lock")

    def __init__(self) -> None:
        self.library: Library | None = None
        self.lock = threading.RLock()
        self.event = threading.Condition()


STATE = State()


def library() -> Library:
    current = STATE.library
    if current is None:
        raise PKCS11Error(CKR.CRYPTOKI_NOT_INITIALIZED)
    return current


def forget_in_child() -> None:
    """After fork: the child is not initialised (P39) and must not touch locks or connections of its parent."""
    current = STATE.library
    STATE.__init__()  # type: ignore[misc]  # fresh locks: another thread may have held the old ones at the fork
    if current is not None:
        current.abandon()


os.register_at_fork(after_in_child=forget_in_child)
