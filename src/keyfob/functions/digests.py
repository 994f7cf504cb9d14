"""Message digesting (section 5.12)."""

from __future__ import annotations

from keyfob.functions.begin import cancel, offered
from keyfob.spec.constants import CKA, CKF
from keyfob.token import policy
from keyfob.token.session import DIGEST, Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.functions.begin import MechanismValue
    from keyfob.token.session import Session


def C_DigestInit(session: Session, mechanism: MechanismValue) -> None:
    if mechanism is None:
        cancel(session, DIGEST)
        return
    session.require_idle(DIGEST)
    _, make = offered(session, mechanism[0], CKF.DIGEST)
    session.begin(DIGEST, Operation(make(mechanism[1]), mechanism[0]))


def C_Digest(session: Session, data: bytes, room: int | None) -> bytes | int:
    run = session.single(DIGEST).run
    size: int = run.output_size
    if room is None or room < size:
        return size
    session.end(DIGEST)
    result: bytes = run.digest(data)
    return result


def C_DigestUpdate(session: Session, part: bytes) -> None:
    operation = session.active(DIGEST)
    operation.started = True
    operation.run.update(part)


def C_DigestKey(session: Session, handle: int) -> None:
    """The value of a secret key as a part; a key that hides its value is not indigestible: only its hash comes out."""
    operation = session.active(DIGEST)
    logouts = session.token.logouts
    found = session.token.objects.key(handle)
    policy.may_digest(found.attributes)
    operation.started = True
    operation.run.update(found.attributes[CKA.VALUE])
    if found.ends_with_login:
        operation.key = found
        session.still_allowed(logouts)


def C_DigestFinal(session: Session, room: int | None) -> bytes | int:
    run = session.active(DIGEST).run
    size: int = run.output_size
    if room is None or room < size:
        return size
    session.end(DIGEST)
    result: bytes = run.final()
    return result
