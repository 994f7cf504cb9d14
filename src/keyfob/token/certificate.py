"""What a certificate object takes from its own DER: subject, issuer, serial number, validity, public key.

NSS does not see a certificate without VALUE, ISSUER and SERIAL_NUMBER, and links it to its key by CKA_ID alone
(P3, N13, N14), so whatever a caller leaves out is read from the value. A walk over the outer DER is enough; importing
a parser of X.509 would cost every C_Initialize of every NSS tool 18 ms.
"""

from __future__ import annotations

from keyfob.mechanisms.der import BIT_STRING, CONTEXT_0, INTEGER, SEQUENCE, Reader
from keyfob.mechanisms.hashes import sha1
from keyfob.spec.constants import CKA

UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
RSA_OID = bytes.fromhex("06092a864886f70d010101")


def date(times: Reader) -> bytes:
    """CK_DATE (YYYYMMDD) of the UTCTime or GeneralizedTime that comes next."""
    if times.next_tag() == GENERALIZED_TIME:
        return times.read(GENERALIZED_TIME)[:8]
    content = times.read(UTC_TIME)
    return (b"19" if content[:2] >= b"50" else b"20") + content[:6]


def public_value(info: bytes) -> bytes:
    """What CKA_ID's SHA-1 is taken over (O10): an RSA key's modulus, else the bits of the key (a point, 32 bytes)."""
    fields = Reader(info).enter(SEQUENCE)
    algorithm = fields.read(SEQUENCE)
    value = fields.read(BIT_STRING)[1:]
    if algorithm.startswith(RSA_OID):
        return Reader(value).enter(SEQUENCE).read(INTEGER).lstrip(b"\0")
    return value


def attributes_of(value: bytes) -> dict[int, bytes]:
    """{CKA_SUBJECT, CKA_ISSUER, CKA_SERIAL_NUMBER (DER), CKA_START_DATE, CKA_END_DATE, CKA_PUBLIC_KEY_INFO, CKA_ID}.

    Empty when the value is not an X.509 certificate: such an object is stored as it is (P19).
    """
    try:
        fields = Reader(value).enter(SEQUENCE).enter(SEQUENCE)
        if fields.next_tag() == CONTEXT_0:
            fields.read(CONTEXT_0)
        serial = fields.read_whole(INTEGER)
        fields.read(SEQUENCE)
        issuer = fields.read_whole(SEQUENCE)
        validity = fields.enter(SEQUENCE)
        start, end = date(validity), date(validity)
        subject = fields.read_whole(SEQUENCE)
        info = fields.read_whole(SEQUENCE)
        return {
            CKA.SUBJECT: subject,
            CKA.ISSUER: issuer,
            CKA.SERIAL_NUMBER: serial,
            CKA.START_DATE: start,
            CKA.END_DATE: end,
            CKA.PUBLIC_KEY_INFO: info,
            CKA.ID: sha1(public_value(info)),
        }
    except ValueError:
        return {}
