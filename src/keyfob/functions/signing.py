"""Signing, MACing and verifying (sections 5.13 to 5.15), and v3.2's C_VerifySignature family."""

from __future__ import annotations

from keyfob.functions.begin import begin
from keyfob.spec.constants import CKF
from keyfob.token.session import SIGN, SIGN_RECOVER, VERIFY, VERIFY_RECOVER, VERIFY_SIGNATURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.functions.begin import MechanismValue
    from keyfob.token.session import Session


def C_SignInit(session: Session, mechanism: MechanismValue, key: int) -> None:
    begin(session, SIGN, CKF.SIGN, mechanism, key)


def C_Sign(session: Session, data: bytes, room: int | None) -> bytes | int:
    run = session.single(SIGN).run
    size: int = run.output_size
    if room is None or room < size:
        return size
    session.end(SIGN)
    signature: bytes = run.sign(data)
    return signature


def C_SignUpdate(session: Session, part: bytes) -> None:
    operation = session.active(SIGN)
    operation.run.update(part)
    operation.started = True


def C_SignFinal(session: Session, room: int | None) -> bytes | int:
    run = session.active(SIGN).run
    size: int = run.output_size
    if room is None or room < size:
        return size
    session.end(SIGN)
    signature: bytes = run.final()
    return signature


def C_SignRecoverInit(session: Session, mechanism: MechanismValue, key: int) -> None:
    begin(session, SIGN_RECOVER, CKF.SIGN_RECOVER, mechanism, key)


def C_SignRecover(session: Session, data: bytes, room: int | None) -> bytes | int:
    run = session.active(SIGN_RECOVER).run
    size: int = run.output_size
    if room is None or room < size:
        return size
    session.end(SIGN_RECOVER)
    signature: bytes = run.sign(data)
    return signature


def C_VerifyInit(session: Session, mechanism: MechanismValue, key: int) -> None:
    begin(session, VERIFY, CKF.VERIFY, mechanism, key)


def C_Verify(session: Session, data: bytes, signature: bytes) -> None:
    run = session.single(VERIFY).run
    session.end(VERIFY)
    run.verify(data, signature)


def C_VerifyUpdate(session: Session, part: bytes) -> None:
    operation = session.active(VERIFY)
    operation.run.update(part)
    operation.started = True


def C_VerifyFinal(session: Session, signature: bytes) -> None:
    run = session.active(VERIFY).run
    session.end(VERIFY)
    run.final(signature)


def C_VerifyRecoverInit(session: Session, mechanism: MechanismValue, key: int) -> None:
    begin(session, VERIFY_RECOVER, CKF.VERIFY_RECOVER, mechanism, key)


def C_VerifyRecover(session: Session, signature: bytes, room: int | None) -> bytes | int:
    """The data is known only after the work, so a short buffer keeps it until the caller comes back."""
    operation = session.active(VERIFY_RECOVER)
    if room is None:
        size: int = operation.run.output_size
        return size
    if operation.ready is None or operation.ready[0] != signature:
        operation.ready = (signature, operation.run.recover(signature))
    data = operation.ready[1]
    if len(data) > room:
        return len(data)
    session.end(VERIFY_RECOVER)
    return data


def C_VerifySignatureInit(session: Session, mechanism: MechanismValue, key: int, signature: bytes) -> None:
    """v3.2: the signature comes first, the data after."""
    begin(session, VERIFY_SIGNATURE, CKF.VERIFY, mechanism, key)
    if mechanism is not None:
        session.operations[VERIFY_SIGNATURE].ready = (signature, b"")


def C_VerifySignature(session: Session, data: bytes) -> None:
    operation = session.single(VERIFY_SIGNATURE)
    session.end(VERIFY_SIGNATURE)
    operation.run.verify(data, _signature(operation.ready))


def C_VerifySignatureUpdate(session: Session, part: bytes) -> None:
    operation = session.active(VERIFY_SIGNATURE)
    operation.run.update(part)
    operation.started = True


def C_VerifySignatureFinal(session: Session) -> None:
    operation = session.active(VERIFY_SIGNATURE)
    session.end(VERIFY_SIGNATURE)
    operation.run.final(_signature(operation.ready))


def _signature(ready: tuple[bytes, bytes] | None) -> bytes:
    return ready[0] if ready else b""
