"""Why a certificate of a token is not offered by NSS and Firefox: the causes of pitfall P3, and what else hides one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from keyfob.cli import tables
from keyfob.spec.constants import CKA, CKO
from keyfob.token.object import FALSE, TRUE, ulong
from keyfob.token.token import Token

HINT, WRONG = "note", "wrong"
NEEDED = {CKA.VALUE: "value", CKA.ISSUER: "issuer", CKA.SERIAL_NUMBER: "serial number", CKA.SUBJECT: "subject"}

Result = Iterator[tuple[str, str, str]]


def of_token(token: Token) -> Result:
    """(level, what, what to do) for each certificate; private keys are only seen after login."""
    store = token.store
    if store is None:
        return
    for number in store.find([(CKA.CLASS, ulong(CKO.CERTIFICATE))]):
        attributes = store.get(number)
        if attributes is not None:
            name = tables.printable(attributes.get(CKA.LABEL, b"").decode(errors="replace")) or "without a label"
            yield from _links(token, attributes, f"certificate {name!r}")
            yield from _content(attributes, f"certificate {name!r}")


def _links(token: Token, attributes: dict[int, bytes], name: str) -> Result:
    """What NSS needs to see the certificate and to find its key."""
    store = token.store
    assert store is not None  # of_token
    missing = [what for attribute, what in NEEDED.items() if not attributes.get(attribute)]
    if missing:
        yield (
            WRONG,
            f"{name} has no {' and no '.join(missing)}: NSS does not see it",
            "import it anew: keyfob cert import",
        )
    if attributes.get(CKA.PRIVATE) == TRUE and not token.general_access:
        yield WRONG, f"{name} is private: nobody sees it before the PIN is given", "import it anew: keyfob cert import"
    identifier = attributes.get(CKA.ID, b"")
    if not identifier:
        yield WRONG, f"{name} has no ID, by which NSS finds its key", "import it anew: keyfob cert import"
        return
    same = (CKA.ID, identifier)
    public = store.find([same, (CKA.CLASS, ulong(CKO.PUBLIC_KEY)), (CKA.PRIVATE, FALSE)])
    private = store.find([same, (CKA.CLASS, ulong(CKO.PRIVATE_KEY))]) if token.sees_private else None
    if private == []:
        other = _key_with_another_id(token, attributes)
        if other:
            text = f"{name} has another ID than its private key {other!r}"
            yield WRONG, text, "import it anew, with the PIN: keyfob cert import --pin-file"
        elif public:
            yield WRONG, f"{name} has a public key here but no private one", "import the private key: keyfob import"
        else:
            yield HINT, f"{name} has no private key on this token", ""
    elif not public and (private or private is None):
        known = "" if private else " (its private key is not seen without the PIN)"
        text = (
            f"{name} has no public key object{known}: before the PIN is given NSS does not take it for the user's own"
        )
        yield WRONG if private else HINT, text, "import it anew, with the PIN: keyfob cert import --pin-file"


def _key_with_another_id(token: Token, attributes: dict[int, bytes]) -> str:
    """The label or ID of a private key that belongs to the certificate's public key, whatever its CKA_ID."""
    store, info = token.store, attributes.get(CKA.PUBLIC_KEY_INFO)
    if store is None or not info:
        return ""
    for number in store.find([(CKA.CLASS, ulong(CKO.PRIVATE_KEY)), (CKA.PUBLIC_KEY_INFO, info)]):
        found = store.get(number)
        if found is not None:
            return found.get(CKA.LABEL, b"").decode(errors="replace") or found.get(CKA.ID, b"").hex()
    return ""


def _content(attributes: dict[int, bytes], name: str) -> Result:
    """Validity and purpose."""
    try:
        certificate = x509.load_der_x509_certificate(attributes.get(CKA.VALUE, b""))
    except ValueError:
        yield HINT, f"{name} is no X.509 certificate that can be read", ""
        return
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        yield (
            WRONG,
            f"{name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            "get a new one: keyfob cert request",
        )
    elif now < certificate.not_valid_before_utc:
        yield WRONG, f"{name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}", "check the clock"
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in purposes:
        yield HINT, f"{name} is not for client authentication: Firefox does not offer it to servers", ""
