"""What makes two objects of different tokens the same, so that moving again moves nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyfob.cli import twins
from keyfob.spec.constants import CKA, CKK, CKO
from keyfob.store import MemoryStore
from keyfob.token.object import FALSE, ulong

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyfob.store import Attributes

CERTIFICATE: Attributes = {
    CKA.CLASS: ulong(CKO.CERTIFICATE),
    CKA.PRIVATE: FALSE,
    CKA.ID: b"1",
    CKA.VALUE: b"the certificate",
    CKA.LABEL: b"mine",
}
ELSEWHERE = CERTIFICATE | {CKA.VALUE: b"", CKA.URL: b"https://a"}
TRUST: Attributes = {CKA.CLASS: ulong(CKO.NSS_TRUST), CKA.PRIVATE: FALSE, CKA.ISSUER: b"i", CKA.SERIAL_NUMBER: b"1"}
KEY: Attributes = {CKA.CLASS: ulong(CKO.PUBLIC_KEY), CKA.PRIVATE: FALSE, CKA.KEY_TYPE: ulong(CKK.EC), CKA.ID: b"1"}
KEY |= {CKA.EC_PARAMS: b"curve", CKA.EC_POINT: b"point", CKA.PUBLIC_KEY_INFO: b"info of point"}


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    made = MemoryStore(label="a token", serial="1")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("there", "arriving"),
    [
        (CERTIFICATE, CERTIFICATE | {CKA.LABEL: b"another name"}),
        (CERTIFICATE, CERTIFICATE | {CKA.URL: b""}),  # one module shows an empty URL, another none
        (CERTIFICATE | {CKA.URL: b""}, CERTIFICATE),
        (ELSEWHERE, ELSEWHERE | {CKA.LABEL: b"another name"}),
        (TRUST, TRUST | {CKA.NSS_TRUST_SERVER_AUTH: ulong(1)}),
        (KEY, KEY | {CKA.LABEL: b"another name", CKA.UNIQUE_ID: b"another"}),
        (KEY, KEY | {CKA.EC_POINT: b"\4\5point"}),  # in DER
    ],
)
def test_the_same_object_is_known_again(store: MemoryStore, there: Attributes, arriving: Attributes) -> None:
    assert not twins.has_twin(store, arriving)
    store.insert([there])
    assert twins.has_twin(store, arriving)


@pytest.mark.parametrize(
    ("there", "arriving"),
    [
        (CERTIFICATE, CERTIFICATE | {CKA.ID: b"2"}),
        (CERTIFICATE, CERTIFICATE | {CKA.VALUE: b"another certificate"}),
        (ELSEWHERE, ELSEWHERE | {CKA.URL: b"https://b"}),
        (TRUST, TRUST | {CKA.SERIAL_NUMBER: b"2"}),
        (KEY, KEY | {CKA.PUBLIC_KEY_INFO: b"info of another point"}),
        (KEY, KEY | {CKA.CLASS: ulong(CKO.PRIVATE_KEY)}),
    ],
)
def test_another_object_is_not_taken_for_it(store: MemoryStore, there: Attributes, arriving: Attributes) -> None:
    store.insert([there])
    assert not twins.has_twin(store, arriving)
