"""Many real objects: for each person a P-256 key pair and its certificate, as the token of a CA or mail server has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from keyfob.spec.constants import CKA, CKC, CKK, CKO
from keyfob.store import SqliteStore
from keyfob.token import templates

from .keys import FALSE, P256, TRUE, Template, ulong

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PER_PERSON = 3
BATCH = 3000  # objects of one transaction
VALID_FROM = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Person:
    """One certificate with its keys, and what it is found by."""

    certificate: Template
    public: Template
    private: Template

    @property
    def objects(self) -> tuple[Template, Template, Template]:
        """In the order in which programs write them."""
        return self.private, self.public, self.certificate


def _serial(number: int) -> bytes:
    """DER of an INTEGER, scattered as CAs' serial numbers are."""
    content = (1 << 62 | int.from_bytes(hashlib.sha256(b"%d" % number).digest()[:7], "big")).to_bytes(8, "big")
    return bytes((2, len(content))) + content


def people(first: int = 0) -> Iterator[Person]:
    """One after another, all different, with certificates of one issuer."""
    issuer_key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Scale CA")])
    number = first
    while True:
        key = ec.generate_private_key(ec.SECP256R1())
        label = f"Person {number}"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
        serial = _serial(number)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(int.from_bytes(serial[2:], "big"))
            .not_valid_before(VALID_FROM)
            .not_valid_after(VALID_FROM + timedelta(days=825))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(issuer_key, SHA256())
        )
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        named = {
            CKA.TOKEN: TRUE,
            CKA.LABEL: label.encode(),
            CKA.ID: hashlib.sha1(point, usedforsecurity=False).digest(),
        }
        of_key = {CKA.KEY_TYPE: ulong(CKK.EC), CKA.EC_PARAMS: P256}
        yield Person(
            {
                CKA.CLASS: ulong(CKO.CERTIFICATE),
                **named,
                CKA.PRIVATE: FALSE,
                CKA.CERTIFICATE_TYPE: ulong(CKC.X_509),
                CKA.SUBJECT: subject.public_bytes(),
                CKA.ISSUER: issuer.public_bytes(),
                CKA.SERIAL_NUMBER: serial,
                CKA.VALUE: certificate.public_bytes(Encoding.DER),
            },
            {
                CKA.CLASS: ulong(CKO.PUBLIC_KEY),
                **named,
                **of_key,
                CKA.PRIVATE: FALSE,
                CKA.VERIFY: TRUE,
                CKA.EC_POINT: bytes((4, len(point))) + point,
            },
            {
                CKA.CLASS: ulong(CKO.PRIVATE_KEY),
                **named,
                **of_key,
                CKA.PRIVATE: TRUE,
                CKA.SENSITIVE: TRUE,
                CKA.EXTRACTABLE: FALSE,
                CKA.SIGN: TRUE,
                CKA.VALUE: key.private_numbers().private_value.to_bytes(32, "big"),
            },
        )
        number += 1


def objects(everybody: Sequence[Person], count: int) -> list[Template]:
    """So many objects; the last person's may be cut off."""
    return [template for person in everybody for template in person.objects][:count]


def fill_keyfob(file: Path, pin: str, population: Sequence[Template]) -> None:
    """Write them into a token's file, complete as C_CreateObject would make them, some thousand to a transaction."""
    store = SqliteStore.open(file)
    store.login("user", pin.encode())
    for start in range(0, len(population), BATCH):
        store.insert(
            [
                templates.complete(templates.read(list(template.items())), templates.CREATE, private_default=True)
                for template in population[start : start + BATCH]
            ]
        )
    store.close()
