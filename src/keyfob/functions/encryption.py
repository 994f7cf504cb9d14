"""Encryption and decryption (sections 5.8 and 5.10)."""

from __future__ import annotations

from keyfob.functions.begin import begin
from keyfob.spec.constants import CKF, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token.session import DECRYPT, ENCRYPT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.functions.begin import MechanismValue
    from keyfob.token.session import Session


def C_EncryptInit(session: Session, mechanism: MechanismValue, key: int) -> None:
    begin(session, ENCRYPT, CKF.ENCRYPT, mechanism, key)


def C_DecryptInit(session: Session, mechanism: MechanismValue, key: int) -> None:
    begin(session, DECRYPT, CKF.DECRYPT, mechanism, key)


def C_Encrypt(session: Session, data: bytes, room: int | None) -> bytes | int:
    return _whole(session, ENCRYPT, data, room)


def C_Decrypt(session: Session, data: bytes, room: int | None) -> bytes | int:
    return _whole(session, DECRYPT, data, room)


def C_EncryptUpdate(session: Session, part: bytes, room: int | None) -> bytes | int:
    return update(session, ENCRYPT, part, room)


def C_DecryptUpdate(session: Session, part: bytes, room: int | None) -> bytes | int:
    return update(session, DECRYPT, part, room)


def C_EncryptFinal(session: Session, room: int | None) -> bytes | int:
    return _final(session, ENCRYPT, room)


def C_DecryptFinal(session: Session, room: int | None) -> bytes | int:
    return _final(session, DECRYPT, room)


def _whole(session: Session, kind: str, data: bytes, room: int | None) -> bytes | int:
    """Single part.

    Where the output's length is known beforehand a short buffer costs nothing; where not (padding), the result is kept
    until the caller comes back with a buffer that is large enough. Other data would be another use: a key that asks for
    the PIN at each use does not take it.
    """
    operation = session.single(kind)
    run = operation.run
    largest: int = run.size(len(data))
    if room is None:
        return largest
    key = operation.key
    if operation.ready is not None and operation.ready[0] != data and key is not None and key.always_authenticate:
        raise PKCS11Error(CKR.OPERATION_NOT_INITIALIZED, "the PIN was given for the data of the first call")
    if room < largest:
        if run.exact:
            return largest
        if operation.ready is None or operation.ready[0] != data:
            operation.ready = (data, run.run(data))
        result = operation.ready[1]
        if len(result) > room:
            return len(result)
        session.end(kind)
        return result
    session.end(kind)
    if operation.ready is not None and operation.ready[0] == data:
        return operation.ready[1]
    output: bytes = run.run(data)
    return output


def update(session: Session, kind: str, part: bytes, room: int | None) -> bytes | int:
    """One part. A buffer below the upper bound is refused before the part is taken, so that it is never taken twice.

    Who asks for the size of nothing is told 1: many clients make a buffer of that size, one of no bytes has no address
    in C++, and the call that brings the part would be taken for another question (PyKCS11 loses parts of GCM so).
    """
    operation = session.active(kind)
    run = operation.run
    largest: int = run.update_size(len(part))
    if room is None:
        return largest or 1
    if room < largest:
        return largest
    operation.started = True
    output: bytes = run.update(part)
    return output


def _final(session: Session, kind: str, room: int | None) -> bytes | int:
    operation = session.active(kind)
    largest: int = operation.run.final_size()
    if room is None:
        return largest
    if room < largest:
        if operation.ready is None:
            operation.ready = (b"", operation.run.final())
        result = operation.ready[1]
        if len(result) > room:
            return len(result)
        session.end(kind)
        return result
    session.end(kind)
    if operation.ready is not None:
        return operation.ready[1]
    output: bytes = operation.run.final()
    return output
