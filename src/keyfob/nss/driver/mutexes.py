"""The four mutex callbacks that NSS hands to C_Initialize (rule G2): they work, and say so when they are misused.

The callbacks live as long as the process: a module may call them from any thread of its own until it is unloaded.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import POINTER, c_ulong, c_void_p

from keyfob.spec.constants import CKR

Create = ctypes.CFUNCTYPE(c_ulong, POINTER(c_void_p))
Act = ctypes.CFUNCTYPE(c_ulong, c_void_p)


class Mutexes:
    """Mutexes by number. `created` counts them, `misuses` says what the module did that it must not do."""

    def __init__(self) -> None:
        self.created = 0
        self.misuses: list[str] = []
        self._locks: dict[int, threading.Lock] = {}
        self.create = Create(self._create)
        self.destroy = Act(self._destroy)
        self.lock = Act(self._lock)
        self.unlock = Act(self._unlock)

    def _create(self, place: ctypes._Pointer[c_void_p]) -> int:
        if ctypes.cast(place, c_void_p).value is None:
            self.misuses.append("CreateMutex was called with a NULL pointer")
            return CKR.ARGUMENTS_BAD
        self.created += 1
        self._locks[self.created] = threading.Lock()
        place[0] = c_void_p(self.created)
        return CKR.OK

    def _known(self, name: str, number: int | None) -> threading.Lock | None:
        lock = self._locks.get(number or 0)
        if lock is None:
            self.misuses.append(f"{name} was called with something that CreateMutex did not make")
        return lock

    def _destroy(self, number: int | None) -> int:
        if self._known("DestroyMutex", number) is None:
            return CKR.MUTEX_BAD
        del self._locks[number or 0]
        return CKR.OK

    def _lock(self, number: int | None) -> int:
        lock = self._known("LockMutex", number)
        if lock is None:
            return CKR.MUTEX_BAD
        lock.acquire()
        return CKR.OK

    def _unlock(self, number: int | None) -> int:
        lock = self._known("UnlockMutex", number)
        if lock is None:
            return CKR.MUTEX_BAD
        if not lock.locked():
            self.misuses.append("UnlockMutex was called for a mutex that was not locked")
            return CKR.MUTEX_NOT_LOCKED
        lock.release()
        return CKR.OK


MUTEXES = Mutexes()
