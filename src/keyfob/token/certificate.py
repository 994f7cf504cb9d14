"""What a certificate object takes from its own DER: names, serial number, validity, public key, e-mail addresses.

NSS does not see a certificate without VALUE, ISSUER and SERIAL_NUMBER, and links it to its key by CKA_ID alone
(P3, N13, N14), so whatever a caller leaves out is read from the value. A walk over the outer DER is enough; importing
a parser of X.509 would cost every C_Initialize of every NSS tool 18 ms.
"""

from __future__ import annotations

from keyfob.mechanisms.der import (
    BIT_STRING,
    CONTEXT_0,
    INTEGER,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    Reader,
    element,
)
from keyfob.mechanisms.hashes import sha1
from keyfob.spec.constants import CKA

UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
SET = 0x31
EXTENSIONS, RFC822_NAME, DIRECTORY_NAME = 0xA3, 0x81, 0xA4  # [3] of a certificate, [1] and [4] of a GeneralName
RSA_OID = bytes.fromhex("06092a864886f70d010101")
SUBJECT_ALT_NAME = bytes.fromhex("551d11")
# emailAddress of PKCS #9, and RFC 1274's mail: where NSS looks for addresses in a name.
MAIL_ATTRIBUTES = (bytes.fromhex("2a864886f70d010901"), bytes.fromhex("0992268993f22c640103"))
MOST_ADDRESSES = 32


def date(times: Reader) -> bytes:
    """CK_DATE (YYYYMMDD) of the UTCTime or GeneralizedTime that comes next."""
    if times.next_tag() == GENERALIZED_TIME:
        return times.read(GENERALIZED_TIME)[:8]
    content = times.read(UTC_TIME)
    return (b"19" if content[:2] >= b"50" else b"20") + content[:6]


def key_bits(info: bytes) -> bytes:
    """The bits of the key in a SubjectPublicKeyInfo."""
    fields = Reader(info).enter(SEQUENCE)
    fields.read(SEQUENCE)
    return fields.read(BIT_STRING)[1:]


def public_value(info: bytes) -> bytes:
    """What CKA_ID's SHA-1 is taken over (O10): an RSA key's modulus, else the bits of the key (a point, 32 bytes)."""
    fields = Reader(info).enter(SEQUENCE)
    algorithm = fields.read(SEQUENCE)
    value = fields.read(BIT_STRING)[1:]
    if algorithm.startswith(RSA_OID):
        return Reader(value).enter(SEQUENCE).read(INTEGER).lstrip(b"\0")
    return value


def anything(reader: Reader) -> bytes:
    """The content of the next element, whatever its tag."""
    tag = reader.next_tag()
    if tag is None:
        raise ValueError("a DER element is missing")
    return reader.read(tag)


def addresses_in_name(name: bytes) -> list[bytes]:
    """The e-mail addresses of a Name: of PKCS #9 first, as NSS has them."""
    found: dict[bytes, list[bytes]] = {kind: [] for kind in MAIL_ATTRIBUTES}
    sets = Reader(name).enter(SEQUENCE)
    while sets.next_tag() is not None:
        pairs = sets.enter(SET)
        while pairs.next_tag() is not None:
            pair = pairs.enter(SEQUENCE)
            kind = pair.read(OBJECT_IDENTIFIER)
            if kind in found:
                found[kind].append(anything(pair))
    return [address for addresses in found.values() for address in addresses]


def alternative_addresses(rest: Reader) -> list[bytes]:
    """The e-mail addresses in the subjectAltName among a certificate's extensions."""
    while rest.next_tag() not in (EXTENSIONS, None):
        anything(rest)
    if rest.next_tag() is None:
        return []
    found: list[bytes] = []
    extensions = rest.enter(EXTENSIONS).enter(SEQUENCE)
    while extensions.next_tag() is not None:
        extension = extensions.enter(SEQUENCE)
        if extension.read(OBJECT_IDENTIFIER) != SUBJECT_ALT_NAME:
            continue
        if extension.next_tag() != OCTET_STRING:
            anything(extension)  # critical
        names = extension.enter(OCTET_STRING).enter(SEQUENCE)
        while names.next_tag() is not None:
            if names.next_tag() == RFC822_NAME:
                found.append(names.read(RFC822_NAME))
            elif names.next_tag() == DIRECTORY_NAME:
                found.extend(addresses_in_name(names.read(DIRECTORY_NAME)))
            else:
                anything(names)
    return found


def normal_address(address: bytes) -> bytes:
    """As NSS looks for it: in lower case (ASCII's), without the trailing NUL that it adds in its second attempt."""
    return address.rstrip(b"\0").lower()


def email_addresses(subject: bytes, rest: Reader) -> bytes:
    """CKA_NSS_EMAIL: the addresses of subject and subjectAltName, each once, NUL between them as in NSS's own lists."""
    try:
        found = [*addresses_in_name(subject), *alternative_addresses(rest)]
    except ValueError:
        return b""
    normal = dict.fromkeys(normal_address(address) for address in found if address and b"\0" not in address)
    return b"\0".join(list(normal)[:MOST_ADDRESSES])


def other_serials(serial: bytes) -> tuple[bytes, ...]:
    """The other ways to write a serial number: as DER INTEGER, raw, and raw without the byte for its sign (O21)."""
    reader = Reader(serial)
    try:
        raw = reader.read(INTEGER)
        reader.finish()
    except ValueError:
        raw = serial
    magnitude = raw.lstrip(b"\0") or b"\0"
    signed = b"\0" + magnitude if magnitude[:1] >= b"\x80" else magnitude
    return tuple(form for form in dict.fromkeys((element(INTEGER, signed), signed, magnitude)) if form != serial)


def attributes_of(value: bytes) -> dict[int, bytes]:
    """{CKA_SUBJECT, CKA_ISSUER, CKA_SERIAL_NUMBER (DER), CKA_START_DATE, CKA_END_DATE, CKA_PUBLIC_KEY_INFO, CKA_ID}.

    And CKA_NSS_EMAIL where there are addresses. Empty when the value is not an X.509 certificate: such an object is
    stored as it is (P19).
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
        found = {
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
    addresses = email_addresses(subject, fields)
    if addresses:
        found[CKA.NSS_EMAIL] = addresses
    return found
