"""Whether the process is between C_Initialize and C_Finalize, and the library of that time."""

from __future__ import annotations

import os
from _thread import RLock, allocate_lock

from keyfob.aside import ASIDE
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType

    from keyfob.token.library import Library


class State:
    """`library` is None outside C_Initialize ... C_Finalize.

    `waiting` holds a lock for each call that waits for a slot event; releasing it wakes the call. (Plain locks:
    importing threading costs the start 3 ms and would make whatever thread came first Python's "main" one.)
    """

    __slots__ = ("library", "lock", "waiting")

    def __init__(self) -> None:
        self.library: Library | None = None
        self.lock = RLock()
        self.waiting: list[LockType] = []

    def wait(self, seconds: float) -> None:
        """Until `wake`, at most so long."""
        gate = allocate_lock()
        gate.acquire()
        with self.lock:
            library()
            self.waiting.append(gate)
        with ASIDE:
            woken = gate.acquire(timeout=seconds)
        if not woken:
            with self.lock:
                if gate in self.waiting:
                    self.waiting.remove(gate)

    def wake(self) -> None:
        with self.lock:
            while self.waiting:
                self.waiting.pop().release()


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
