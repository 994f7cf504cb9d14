"""Saved states of operations: what C_GetOperationState gives and C_SetOperationState takes (section 5.6; SE5).

NSS saves the state of every operation after each step, and restores it before the next, when it has run out of sessions
and several operations must share one. The states themselves stay here: an operation is kept as a copy that stands where
the saved one stood, and the caller gets a reference to it, random bytes that tell nothing of data or keys. So a state
is good in this process and for this token only, as the standard allows. Of one token the newest 4096 are kept, or fewer
where they hold much data; one that is restored counts as new. A state dies with the key that it uses: at C_Logout for
private keys, at the end of a session for its session keys.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from keyfob.spec.constants import CKF, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token import policy
from keyfob.token.session import DECRYPT, DIGEST, ENCRYPT, SIGN, VERIFY, VERIFY_SIGNATURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.token.object import Object
    from keyfob.token.session import Operation, Session

MARK = b"keyfob\x00\x01"
SIZE = len(MARK) + 24
MOST_STATES = 4096
MOST_HELD = 1 << 26  # bytes, of data that operations keep until they have it all (Parts in mechanisms/base.py)
CIPHERS = (ENCRYPT, DECRYPT)
AUTHENTICATORS = (SIGN, VERIFY, VERIFY_SIGNATURE)
FLAGS = {ENCRYPT: CKF.ENCRYPT, DECRYPT: CKF.DECRYPT, SIGN: CKF.SIGN, VERIFY: CKF.VERIFY, VERIFY_SIGNATURE: CKF.VERIFY}
SAVEABLE = (DIGEST, *CIPHERS, *AUTHENTICATORS)  # no searches, and nothing with message recovery (section 5.6)


class SavedStates:
    """The states of one token by their references, the newest last."""

    __slots__ = ("_held", "_lock", "_states")

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._states: dict[bytes, dict[str, Operation]] = {}
        self._held = 0

    def save(self, operations: dict[str, Operation]) -> bytes:
        """A reference to copies of these operations."""
        reference = MARK + os.urandom(SIZE - len(MARK))
        copies = {kind: operation.copy() for kind, operation in operations.items()}
        with self._lock:
            self._held += _held(copies)
            while self._states and (len(self._states) >= MOST_STATES or self._held > MOST_HELD):
                self._drop(next(iter(self._states)))
            self._states[reference] = copies
        return reference

    def _drop(self, reference: bytes) -> None:
        self._held -= _held(self._states.pop(reference))

    def restore(self, reference: bytes) -> dict[str, Operation]:
        """Copies of what was saved, because a state may be restored more than once; CKR_SAVED_STATE_INVALID."""
        with self._lock:
            saved = self._states.pop(reference, None)
            if saved is None:
                raise PKCS11Error(CKR.SAVED_STATE_INVALID, "no state of this token, or one that is no longer kept")
            self._states[reference] = saved
        return {kind: operation.copy() for kind, operation in saved.items()}

    def forget(self, gone: Callable[[Object], bool]) -> None:
        """Drop the states that use a key which is gone."""
        with self._lock:
            for reference, operations in list(self._states.items()):
                if any(operation.key is not None and gone(operation.key) for operation in operations.values()):
                    self._drop(reference)


def _held(operations: dict[str, Operation]) -> int:
    """Bytes of data."""
    return sum(getattr(operation.run, "held", 0) for operation in operations.values())


def to_save(session: Session) -> dict[str, Operation]:
    """The operations whose state C_GetOperationState is to save.

    One that was saved and has not moved since is left out beside others that have: NSS never ends it, and it is no part
    of what the caller now does in this session.
    """
    active: dict[str, Operation] = {kind: session.operations[kind] for kind in SAVEABLE if kind in session.operations}
    if not active:
        raise PKCS11Error(CKR.OPERATION_NOT_INITIALIZED, "no operation that can be saved is active in this session")
    moved = {kind: operation for kind, operation in active.items() if not operation.saved}
    chosen = moved or active
    for kind, operation in chosen.items():
        if not hasattr(operation.run, "copy"):
            raise PKCS11Error(CKR.STATE_UNSAVEABLE, f"the mechanism of this {kind} operation cannot be saved")
    return chosen


def check_keys(session: Session, operations: dict[str, Operation], encryption: int, authentication: int) -> None:
    """CKR_KEY_NEEDED, CKR_KEY_NOT_NEEDED, CKR_KEY_CHANGED, by the handles that C_SetOperationState was given.

    NSS gives every key as the one for encryption, also that of a MAC or signature.
    """
    ciphers = [kind for kind in CIPHERS if kind in operations]
    authenticators = [kind for kind in AUTHENTICATORS if kind in operations]
    if authenticators and not ciphers and not authentication:
        encryption, authentication = 0, encryption
    for handle, users in ((encryption, ciphers), (authentication, authenticators)):
        if handle and not users:
            raise PKCS11Error(CKR.KEY_NOT_NEEDED, "the saved state has no operation that this key is for")
        for kind in users:
            if not handle:
                raise PKCS11Error(CKR.KEY_NEEDED, "the saved state does not hold the key")
            key, mechanism = operations[kind].key, operations[kind].mechanism
            if key is None or key.handle != handle or not _may_go_on(session, handle, FLAGS[kind], mechanism):
                raise PKCS11Error(CKR.KEY_CHANGED, "not the key that the saved operation used, or not allowed any more")


def _may_go_on(session: Session, handle: int, flag: int, mechanism: int) -> bool:
    """Whether the key is there and would allow the operation today: restored, it begins again."""
    try:
        policy.may_use(session.token.objects.key(handle).attributes, flag, mechanism)
    except PKCS11Error:
        return False
    return True
