"""The one place where an exception becomes a CK_RV, with the line in the log that says why.

Which error wins is the standard's order (section 5.1): not initialised, then the session's handle, then the rest. A
call of an operation that fails ends it (rule of section 5.2: only CKR_OK and CKR_BUFFER_TOO_SMALL keep it active).
"""

from __future__ import annotations

import sys
from errno import ENOMEM

from keyfob import log
from keyfob._abi import lib
from keyfob.functions.state import STATE
from keyfob.settled import SETTLED, place
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error, name_of
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
    Session,
    is_open,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The operations that a failing call ends. C_*Init is not among them: it fails before it begins one.
ENDS: dict[str, tuple[str, ...]] = {
    "C_FindObjects": (FIND,),
    "C_Encrypt": (ENCRYPT,),
    "C_EncryptUpdate": (ENCRYPT,),
    "C_EncryptFinal": (ENCRYPT,),
    "C_Decrypt": (DECRYPT,),
    "C_DecryptUpdate": (DECRYPT,),
    "C_DecryptFinal": (DECRYPT,),
    "C_Digest": (DIGEST,),
    "C_DigestUpdate": (DIGEST,),
    "C_DigestKey": (DIGEST,),
    "C_DigestFinal": (DIGEST,),
    "C_Sign": (SIGN,),
    "C_SignUpdate": (SIGN,),
    "C_SignFinal": (SIGN,),
    "C_SignRecover": (SIGN_RECOVER,),
    "C_Verify": (VERIFY,),
    "C_VerifyUpdate": (VERIFY,),
    "C_VerifyFinal": (VERIFY,),
    "C_VerifyRecover": (VERIFY_RECOVER,),
    "C_DigestEncryptUpdate": (DIGEST, ENCRYPT),
    "C_DecryptDigestUpdate": (DECRYPT, DIGEST),
    "C_SignEncryptUpdate": (SIGN, ENCRYPT),
    "C_DecryptVerifyUpdate": (DECRYPT, VERIFY),
    "C_VerifySignature": (VERIFY_SIGNATURE,),
    "C_VerifySignatureUpdate": (VERIFY_SIGNATURE,),
    "C_VerifySignatureFinal": (VERIFY_SIGNATURE,),
}

LARGEST_LIBRARY = 1 << 26  # bytes; more than any that is loaded when it is first needed

# Answers that tell of trouble with the machine or the token's file, and not of what the caller may do otherwise.
TROUBLES = frozenset((CKR.DEVICE_ERROR, CKR.DEVICE_MEMORY, CKR.DEVICE_REMOVED, CKR.FUNCTION_FAILED, CKR.HOST_MEMORY))


def answer(name: str, problem: BaseException, session: Session | None = None) -> int:
    """The return value of a call that raised, after its operation has ended and the log knows why."""
    if STATE.library is None and name != "C_Initialize":
        return CKR.CRYPTOKI_NOT_INITIALIZED
    if session is not None:
        if session.token.removable and _was_removed(session, problem):
            return CKR.DEVICE_REMOVED
        if not is_open(session):  # closed by another thread while this call ran
            return CKR.SESSION_HANDLE_INVALID
        for kind in ENDS.get(name, ()):
            session.end(kind)
    rv = problem.rv if isinstance(problem, PKCS11Error) else CKR.GENERAL_ERROR
    if rv == CKR.GENERAL_ERROR and _is_for_want_of_memory(problem):
        rv = CKR.HOST_MEMORY
    with SETTLED:  # the names of codes are imported when they are first told, and there may be no descriptor, no memory
        _tell(name, problem, rv)
    return rv


def _is_for_want_of_memory(problem: BaseException) -> bool:
    """What others make of it when they get no memory may be any error; the dynamic linker gives no reason at all."""
    if isinstance(problem, MemoryError) or lib.keyfob_present_call().is_urgent:
        return True
    if isinstance(problem, OSError):
        return problem.errno == ENOMEM
    return isinstance(problem, ImportError) and not lib.keyfob_has_room(LARGEST_LIBRARY)


def _tell(name: str, problem: BaseException, rv: int) -> None:
    """The line in the log."""
    if isinstance(problem, PKCS11Error):
        text = str(problem)
    elif rv == CKR.HOST_MEMORY:
        text = "out of memory"
    else:
        text = _not_imported(problem) if isinstance(problem, ImportError) else place(problem)
    log.line("info" if isinstance(problem, PKCS11Error) and rv not in TROUBLES else "error", f"{name}: {text}")


def _was_removed(session: Session, problem: BaseException) -> bool:
    """Whether trouble with the token's file has the token's removal for its reason."""
    if not isinstance(problem, PKCS11Error) or problem.rv not in TROUBLES:
        return False
    session.token.look()
    return not is_open(session)


def _not_imported(problem: ImportError) -> str:
    """What imports.py cannot prevent in a process that never forks, or what is not as keyfob knows it."""
    name = str(problem.name)
    if name in sys.modules:
        return f"{name} in {getattr(sys.modules[name], '__file__', None)} lacks what keyfob needs: was it exchanged?"
    return f"{name} cannot be imported: has this process another user or root folder than when it loaded keyfob?"


def no_session(name: str, handle: int) -> int:
    """For a session handle of nothing: invalid, or the library is not initialised at all."""
    if STATE.library is None:
        return CKR.CRYPTOKI_NOT_INITIALIZED
    with SETTLED:
        log.line("info", f"{name}: {name_of('CKR', CKR.SESSION_HANDLE_INVALID)}: no session has the handle {handle}")
    return CKR.SESSION_HANDLE_INVALID


def not_supported(name: str) -> Callable[..., int]:
    """The entry of a function that this version does not have: the slot is there and says so (G5)."""

    def entry(*_arguments: object) -> int:
        if STATE.library is None:
            return CKR.CRYPTOKI_NOT_INITIALIZED
        return CKR.FUNCTION_NOT_SUPPORTED

    entry.__name__ = name
    return entry
