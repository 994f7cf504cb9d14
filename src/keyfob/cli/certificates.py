"""Certificates as objects of the token: linked to their key, named as NSS needs it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from keyfob.cli import objects
from keyfob.cli.errors import Refusal
from keyfob.spec.constants import CKA, CKC
from keyfob.token.certificate import attributes_of
from keyfob.token.object import CERTIFICATE, FALSE, PRIVATE_KEY, PUBLIC_KEY, TRUE, Object, ulong

if TYPE_CHECKING:
    from keyfob.token.session import Session

Template = list[tuple[int, bytes]]


def load(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # The library reads these when asked for them, and finds faults only then.
        _ = certificate.subject, certificate.issuer, certificate.not_valid_after_utc
    except (ValueError, x509.InvalidVersion):
        raise Refusal("this is not an X.509 certificate, or it is damaged") from None
    return certificate


class Arrivals:
    """Certificates on their way to a token: finds each its key and a label that tells it from all others.

    `keys` are keys that arrive with them: label and CKA_ID by CKA_PUBLIC_KEY_INFO. `_labels` are the labels given so
    far, each with its certificate's subject.
    """

    __slots__ = ("_labels", "keys", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.keys: dict[bytes, tuple[str, bytes]] = {}
        self._labels: dict[str, bytes] = {}

    def template(self, der: bytes, *, name: str | None = None, suggested: str = "") -> Template | None:
        """What C_CreateObject needs for a certificate; None when the token has it already.

        The label is `name`, else that of its key, else `suggested`, else the subject's common name.
        """
        certificate, facts = load(der), attributes_of(der)
        if not facts:
            raise Refusal("this is not an X.509 certificate, or it is damaged")
        if objects.search(self.session, (CKA.CLASS, CERTIFICATE), (CKA.VALUE, der)):
            return None
        info, subject = facts[CKA.PUBLIC_KEY_INFO], facts[CKA.SUBJECT]
        key = self.keys.get(info) or self._key_on_token(info)
        label = name or (key[0] if key else "") or suggested or common_name(certificate)
        label = self._unambiguous(label, subject, asked=name is not None)
        self._labels[label] = subject
        return [
            (CKA.CLASS, CERTIFICATE),
            (CKA.CERTIFICATE_TYPE, ulong(CKC.X_509)),
            (CKA.TOKEN, TRUE),
            (CKA.PRIVATE, FALSE),
            (CKA.LABEL, label.encode()),
            (CKA.ID, key[1] if key else facts[CKA.ID]),  # P3: NSS links a certificate to its key by CKA_ID alone
            (CKA.VALUE, der),
        ]

    def _key_on_token(self, info: bytes) -> tuple[str, bytes] | None:
        for object_class in (PUBLIC_KEY, PRIVATE_KEY):
            for hit in objects.search(self.session, (CKA.CLASS, object_class), (CKA.PUBLIC_KEY_INFO, info)):
                return objects.label_of(hit), hit.attributes[CKA.ID]
        return None

    def _unambiguous(self, label: str, subject: bytes, *, asked: bool) -> str:
        """P32: certificates of different subjects must not share a label; those of one subject should."""
        if not self._taken(label, subject):
            return label
        if asked:
            raise Refusal(f"a certificate of another subject is called {label!r} already: choose another --name")
        numbered = (f"{label} #{number}" for number in itertools.count(2))
        return next(candidate for candidate in numbered if not self._taken(candidate, subject))

    def _taken(self, label: str, subject: bytes) -> bool:
        hits = objects.search(self.session, (CKA.CLASS, CERTIFICATE), (CKA.LABEL, label.encode()))
        others = [hit.attributes.get(CKA.SUBJECT) for hit in hits]
        return any(other != subject for other in (*others, self._labels.get(label, subject)))


def common_name(certificate: x509.Certificate) -> str:
    """A label from the subject: its common name, else all of it."""
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        return str(attribute.value)
    return certificate.subject.rfc4514_string() or "certificate"


def of_key(session: Session, found: Object) -> list[x509.Certificate]:
    """The certificates of a key, the one that is valid longest first."""
    hits = objects.search(session, (CKA.CLASS, CERTIFICATE), (CKA.ID, found.attributes[CKA.ID]))
    certificates = []
    for hit in hits:
        facts = attributes_of(hit.attributes[CKA.VALUE])
        if facts.get(CKA.PUBLIC_KEY_INFO) == found.attributes.get(CKA.PUBLIC_KEY_INFO):
            certificates.append(load(hit.attributes[CKA.VALUE]))
    return sorted(certificates, key=lambda certificate: certificate.not_valid_after_utc, reverse=True)


def chain_of(session: Session, certificate: x509.Certificate) -> list[x509.Certificate]:
    """The issuers above a certificate, as far as the token has them."""
    chain: list[x509.Certificate] = []
    below = certificate
    while below.issuer != below.subject:
        subject = below.issuer.public_bytes()
        hits = objects.search(session, (CKA.CLASS, CERTIFICATE), (CKA.SUBJECT, subject))
        candidates = (load(hit.attributes[CKA.VALUE]) for hit in hits)
        above = next((candidate for candidate in candidates if _issued_by(below, candidate)), None)
        if above is None or above in chain:
            break
        chain.append(above)
        below = above
    return chain


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
