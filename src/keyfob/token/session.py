"""Sessions and their operations: the state machine of one C_OpenSession ... C_CloseSession.

A session has at most one active operation of each kind (section 5: C_*Init ... C_*Final). An operation is between
C_*Init and the call that ends it; `started` tells that a part was taken, so that single-part calls are refused.

    C_*Init          none -> active                       CKR_OPERATION_ACTIVE when one is active whose state is not
                                                          saved (C_GetOperationState, SE5)
    C_*Update        active -> active, started
    C_* single part  active (not started) -> none
    C_*Final         active -> none
    size query, CKR_BUFFER_TOO_SMALL                      no change
    any other error                                       -> none (abi/answers.py)
"""

from __future__ import annotations

from itertools import count

from keyfob.spec.constants import CKF, CKR, CKS
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyfob.token.object import Object
    from keyfob.token.token import Token

FIND, ENCRYPT, DECRYPT, DIGEST, SIGN, SIGN_RECOVER, VERIFY, VERIFY_RECOVER, VERIFY_SIGNATURE = (
    "find",
    "encrypt",
    "decrypt",
    "digest",
    "sign",
    "sign_recover",
    "verify",
    "verify_recover",
    "verify_signature",
)

# Every open session of the process by its handle. Handles are never reused (SE10). Those of removable tokens are apart:
# they are looked up through session_that_may_be_gone(), so that the others pay nothing for it.
SESSIONS: dict[int, Session] = {}
REMOVABLE: dict[int, Session] = {}
_handles = count(1)


class Operation:
    """An active operation: what the mechanism made (`run`), the key it uses, and how far it has come.

    `key`: also of a digest, where it has taken the value of one that a logout puts out of reach.
    `needs_login`: the key has CKA_ALWAYS_AUTHENTICATE and no CKU_CONTEXT_SPECIFIC login came yet.
    `ready`: a finished result that the caller's buffer was too small for, with the input it belongs to.
    `saved`: C_GetOperationState gave out its state (or it was restored from one), and it has not moved since.
    """

    __slots__ = ("key", "mechanism", "needs_login", "ready", "run", "saved", "started")

    def __init__(self, run: Any, mechanism: int, key: Object | None = None) -> None:
        self.run = run
        self.mechanism = mechanism
        self.key = key
        self.started = False
        self.needs_login = key is not None and key.always_authenticate
        self.ready: tuple[bytes, bytes] | None = None
        self.saved = False

    def copy(self) -> Operation:
        """An independent one that stands where this one stands (token/operation_state.py).

        A PIN that its key asks for was given for this one alone: the other needs one of its own.
        """
        other = Operation(self.run.copy(), self.mechanism, self.key)
        other.started = self.started
        other.ready = self.ready
        other.saved = True
        return other


class Session:
    """One session: `read_write` and the token's login give its state."""

    __slots__ = ("flags", "handle", "operations", "read_write", "token")

    def __init__(self, token: Token, flags: int) -> None:
        self.handle = next(_handles)  # in one step, whatever other threads do
        self.token = token
        self.flags = flags
        self.read_write = bool(flags & CKF.RW_SESSION)
        self.operations: dict[str, Any] = {}

    @property
    def state(self) -> int:
        """CKS_* (section 5.6, figures 3 and 4): the same login for all sessions of the token (P11)."""
        role = self.token.role
        if role == "so":
            return CKS.RW_SO_FUNCTIONS
        if role == "user":
            return CKS.RW_USER_FUNCTIONS if self.read_write else CKS.RO_USER_FUNCTIONS
        return CKS.RW_PUBLIC_SESSION if self.read_write else CKS.RO_PUBLIC_SESSION

    def begin(self, kind: str, operation: Any) -> None:
        self.operations[kind] = operation

    def require_idle(self, kind: str) -> None:
        operation = self.operations.get(kind)
        if operation is None:
            return
        if kind != FIND and operation.saved:  # SE5: NSS has its state, and never ends it
            self.end(kind)
        else:
            raise PKCS11Error(CKR.OPERATION_ACTIVE, f"a {kind} operation is active in this session")

    def active(self, kind: str) -> Operation:
        """The active operation, authenticated where its key asks for each use."""
        operation: Operation | None = self.operations.get(kind)
        if operation is None:
            raise PKCS11Error(CKR.OPERATION_NOT_INITIALIZED, f"no {kind} operation is active in this session")
        if operation.needs_login:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "the key asks for CKU_CONTEXT_SPECIFIC before each use")
        operation.saved = False
        return operation

    def single(self, kind: str) -> Operation:
        """The active operation for a call that takes all data at once."""
        operation: Operation | None = self.operations.get(kind)
        if operation is None or operation.needs_login:
            return self.active(kind)
        if operation.started:
            raise PKCS11Error(CKR.OPERATION_ACTIVE, f"the {kind} operation has already taken a part")
        operation.saved = False
        return operation

    def end(self, kind: str) -> None:
        self.operations.pop(kind, None)

    def end_private(self) -> bool:
        """End the operations that nothing may go on with after a logout; whether there were any."""
        ended = False
        for kind, operation in list(self.operations.items()):
            if kind == FIND or (operation.key is not None and operation.key.ends_with_login):
                self.end(kind)
                ended = True
        return ended

    def still_allowed(self, logouts: int) -> None:
        """After an operation became active for whose key the token was asked when it had seen so many logouts.

        One in another thread meanwhile has ended the operations that were there then, and not this one.
        """
        if self.token.logouts != logouts and self.end_private():
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "somebody has logged out meanwhile")

    def require_read_write(self) -> None:
        if not self.read_write:
            raise PKCS11Error(CKR.SESSION_READ_ONLY, "this needs a session opened with CKF_RW_SESSION")


def session_that_may_be_gone(handle: int) -> Session | None:
    """A session of a removable token, if the token is still the one that it was opened on (SE9, SE10)."""
    session = REMOVABLE.get(handle)
    if session is None:
        return None
    session.token.look()
    return REMOVABLE.get(handle)


def is_open(session: Session) -> bool:
    return session.handle in SESSIONS or session.handle in REMOVABLE
