"""Dual-function cryptographic functions (section 5.17): two active operations fed by one call."""

from __future__ import annotations

from keyfob.functions.encryption import update
from keyfob.token.session import DECRYPT, DIGEST, ENCRYPT, SIGN, VERIFY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.token.session import Session


def C_DigestEncryptUpdate(session: Session, part: bytes, room: int | None) -> bytes | int:
    return _plain_first(session, DIGEST, part, room)


def C_SignEncryptUpdate(session: Session, part: bytes, room: int | None) -> bytes | int:
    return _plain_first(session, SIGN, part, room)


def C_DecryptDigestUpdate(session: Session, part: bytes, room: int | None) -> bytes | int:
    return _plain_last(session, DIGEST, part, room)


def C_DecryptVerifyUpdate(session: Session, part: bytes, room: int | None) -> bytes | int:
    return _plain_last(session, VERIFY, part, room)


def _plain_first(session: Session, kind: str, part: bytes, room: int | None) -> bytes | int:
    other = session.active(kind)
    output = update(session, ENCRYPT, part, room)
    if isinstance(output, bytes):
        other.run.update(part)
        other.started = True
    return output


def _plain_last(session: Session, kind: str, part: bytes, room: int | None) -> bytes | int:
    other = session.active(kind)
    output = update(session, DECRYPT, part, room)
    if isinstance(output, bytes):
        other.run.update(output)
        other.started = True
    return output
