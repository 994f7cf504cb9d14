"""What a certificate object takes from its own DER: subject, issuer, serial number, validity, public key.

NSS does not see a certificate without VALUE, ISSUER and SERIAL_NUMBER, and links it to its key by CKA_ID alone (P3, N13,
N14), so whatever a caller leaves out is read from the value. A walk over the outer DER is enough; importing a parser of
X.509 would cost every C_Initialize of every NSS tool 18 ms.
"""

from __future__ import annotations

from keyfob.mechanisms.hashes import sha1
from keyfob.spec.constants import CKA

SEQUENCE, INTEGER, BIT_STRING, UTC_TIME, EXPLICIT_0 = 0x30, 0x02, 0x03, 0x17, 0xA0
RSA_OID = bytes.fromhex("06092a864886f70d010101")


class NotDerError(ValueError):
    """The bytes are not the DER that was expected."""


def element(data: bytes, offset: int) -> tuple[int, int, int]:
    """(tag, start of the content, end of the content) of the element at `offset`."""
    try:
        tag, length, start = data[offset], data[offset + 1], offset + 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4:
                raise NotDerError
            length, start = int.from_bytes(data[start : start + count], "big"), start + count
    except IndexError:
        raise NotDerError from None
    if start + length > len(data):
        raise NotDerError
    return tag, start, start + length


def children(data: bytes, start: int, end: int) -> list[tuple[int, bytes, bytes]]:
    """(tag, whole element, content) of each element between start and end."""
    result = []
    while start < end:
        tag, inner, stop = element(data, start)
        if stop > end:
            raise NotDerError
        result.append((tag, data[start:stop], data[inner:stop]))
        start = stop
    return result


def date(content: bytes, *, short: bool) -> bytes:
    """CK_DATE (YYYYMMDD) of a UTCTime or GeneralizedTime."""
    if not short:
        return content[:8]
    return (b"19" if content[:2] >= b"50" else b"20") + content[:6]


def public_value(info: bytes) -> bytes:
    """What CKA_ID's SHA-1 is taken over (O10): an RSA key's modulus, else the bits of the key (an EC point, 32 bytes)."""
    _, start, end = element(info, 0)
    algorithm, bits = children(info, start, end)[:2]
    value = bits[2][1:]
    if algorithm[2].startswith(RSA_OID):
        _, start, end = element(value, 0)
        return children(value, start, end)[0][2].lstrip(b"\0")
    return value


def attributes_of(value: bytes) -> dict[int, bytes]:
    """{CKA_SUBJECT, CKA_ISSUER, CKA_SERIAL_NUMBER (DER), CKA_START_DATE, CKA_END_DATE, CKA_PUBLIC_KEY_INFO, CKA_ID}.

    Empty when the value is not an X.509 certificate: such an object is stored as it is (P19).
    """
    try:
        _, start, end = element(value, 0)
        _, start, end = element(value, start)
        fields = children(value, start, end)
        if fields[0][0] == EXPLICIT_0:
            fields = fields[1:]
        serial, _, issuer, validity, subject, info = fields[:6]
        not_before, not_after = children(validity[2], 0, len(validity[2]))[:2]
        return {
            CKA.SUBJECT: subject[1],
            CKA.ISSUER: issuer[1],
            CKA.SERIAL_NUMBER: serial[1],
            CKA.START_DATE: date(not_before[2], short=not_before[0] == UTC_TIME),
            CKA.END_DATE: date(not_after[2], short=not_after[0] == UTC_TIME),
            CKA.PUBLIC_KEY_INFO: info[1],
            CKA.ID: sha1(public_value(info[1])),
        }
    except (NotDerError, ValueError, IndexError):
        return {}
