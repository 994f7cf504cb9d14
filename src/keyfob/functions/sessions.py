"""Session management (section 5.6), and C_SessionCancel, C_LoginUser, C_GetSessionValidationFlags of v3."""

from __future__ import annotations

from keyfob.functions.state import library
from keyfob.spec.constants import CKF, CKR, CKS
from keyfob.spec.errors import PKCS11Error
from keyfob.token import kinds, operation_state
from keyfob.token.session import (
    DECRYPT,
    DIGEST,
    ENCRYPT,
    FIND,
    SIGN,
    SIGN_RECOVER,
    VERIFY,
    VERIFY_RECOVER,
    VERIFY_SIGNATURE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.token.session import Session

CANCELLED_BY = {
    CKF.ENCRYPT: (ENCRYPT,),
    CKF.DECRYPT: (DECRYPT,),
    CKF.DIGEST: (DIGEST,),
    CKF.SIGN: (SIGN,),
    CKF.SIGN_RECOVER: (SIGN_RECOVER,),
    CKF.VERIFY: (VERIFY, VERIFY_SIGNATURE),
    CKF.VERIFY_RECOVER: (VERIFY_RECOVER,),
    CKF.FIND_OBJECTS: (FIND,),
}


def C_OpenSession(slot_id: int, flags: int) -> int:
    """The new session's handle. Notify callbacks are never made: there is nothing to surrender to or to announce."""
    return library().token(slot_id).open_session(flags).handle


def C_CloseSession(session: Session) -> None:
    session.token.close_session(session)


def C_CloseAllSessions(slot_id: int) -> None:
    library().slot(slot_id).close_all_sessions()


def C_GetSessionInfo(session: Session) -> tuple[int, int, int]:
    """(slotID, state, flags)."""
    return session.token.slot_id, session.state, session.flags


def C_Login(session: Session, user_type: int, pin: bytes | None) -> None:
    session.token.login(session, user_type, pin)


def C_LoginUser(session: Session, user_type: int, pin: bytes | None, username: bytes) -> None:
    """v3.0: a token without named users takes the empty name only."""
    if username:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, "the token has no named users")
    session.token.login(session, user_type, pin)


def C_Logout(session: Session) -> None:
    session.token.logout()


def C_SessionCancel(session: Session, flags: int) -> None:
    """v3.0: end the active operations of these kinds; those that are not active do not matter."""
    for flag, cancelled in CANCELLED_BY.items():
        if flags & flag:
            for kind in cancelled:
                session.end(kind)


def C_GetSessionValidationFlags(session: Session, kind: int) -> int:
    """v3.2: no operation of this token is validated under any scheme."""
    if kind != CKS.LAST_VALIDATION_OK:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, f"{kind} is not a type of validation flags")
    return 0


def C_GetOperationState(session: Session, room: int | None) -> bytes | int:
    """A reference to the state of all operations that the session has under way; they stay active.

    Afterwards a C_*Init may take the place of each until its next step: NSS, short of sessions, does just that (SE5).
    """
    token, logouts = session.token, session.token.logouts
    chosen = operation_state.to_save(session)
    if not kinds.saves_operations(token):
        raise PKCS11Error(CKR.STATE_UNSAVEABLE, f"tokens of the kind {token.kind} save no operations")
    if room is None or room < operation_state.SIZE:
        return operation_state.SIZE
    reference = token.objects.states.save(chosen)
    if token.logouts != logouts:  # in another thread, which did not see this state
        token.objects.states.forget(lambda key: key.ends_with_login)
    for operation in chosen.values():
        operation.saved = True
    return reference


def C_SetOperationState(session: Session, state: bytes, encryption_key: int, authentication_key: int) -> None:
    """Whatever the session is doing is cancelled, searches too, and the saved operations are active instead."""
    logouts = session.token.logouts
    operations = session.token.objects.states.restore(state)
    operation_state.check_keys(session, operations, encryption_key, authentication_key)
    session.operations.clear()
    session.operations.update(operations)
    session.still_allowed(logouts)


def C_GetFunctionStatus(session: Session) -> None:
    raise PKCS11Error(CKR.FUNCTION_NOT_PARALLEL)


def C_CancelFunction(session: Session) -> None:
    raise PKCS11Error(CKR.FUNCTION_NOT_PARALLEL)
