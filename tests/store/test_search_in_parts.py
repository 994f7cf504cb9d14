"""Long answers of the store come in parts, each object once, whatever happens in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKA, CKO, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store.search import Finder
from tests.store.samples import TRUE, USER_PIN, certificate, private_key, ulong

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyfob.store import Store

Template = list[tuple[int, bytes]]
CERTIFICATES: Template = [(CKA.CLASS, ulong(CKO.CERTIFICATE))]
TEMPLATES: list[Template] = [
    [],
    [(CKA.TOKEN, TRUE)],
    CERTIFICATES,
    [(CKA.CLASS, ulong(CKO.PRIVATE_KEY))],
    [(CKA.ISSUER, b"the issuer")],
    [*CERTIFICATES, (CKA.ISSUER, b"the issuer")],
    [(CKA.ID, (7).to_bytes(20, "big"))],
    [(CKA.SENSITIVE, TRUE)],
    [(CKA.LABEL, b"nobody's")],
    [(CKA.LABEL, b"one"), (CKA.LABEL, b"two")],
]


def parts_of(store: Store, template: Sequence[tuple[int, bytes]], most: int) -> list[list[int]]:
    parts: list[list[int]] = []
    after: int | None = 0
    while after is not None:
        found, after = store.find_some(template, after, most)
        parts.append(found)
    return parts


@pytest.mark.parametrize("logged_in", [False, True])
@pytest.mark.parametrize("most", [1, 3, 20, 500])
def test_the_parts_are_the_whole_in_order(store: Store, most: int, logged_in: bool) -> None:
    store.login("user", USER_PIN)
    store.insert([kind(number) for number in range(20) for kind in (private_key, certificate)])
    if not logged_in:
        store.logout()
    for template in TEMPLATES:
        parts = parts_of(store, template, most)
        assert [number for part in parts for number in part] == store.find(template)
        assert all(len(part) >= most for part in parts[:-1])


def test_objects_removed_between_two_parts_are_left_out_and_no_other(store: Store) -> None:
    store.login("user", USER_PIN)
    numbers = store.insert([certificate(number) for number in range(20)])
    first, after = store.find_some(CERTIFICATES, 0, 5)
    assert after is not None
    store.delete([numbers[2], numbers[9]])
    rest, end = store.find_some(CERTIFICATES, after, 500)
    assert end is None
    assert first + rest == numbers[:9] + numbers[10:]


class Damaged:
    """A database whose b-tree leads to the same numbers again and again, as one flipped byte of a page can make it."""

    def __init__(self, *numbers: object) -> None:
        self.numbers = numbers

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object]]:
        return [(number,) for number in self.numbers]


@pytest.mark.parametrize(
    "numbers", [(3, 4, 3, 4), (4, 3, 2, 1), (0, 0, 0, 0), (1, 2, None, 4), (1, 2, "3", 4)], ids=str
)
def test_numbers_that_are_not_in_order_end_a_search_instead_of_going_on_for_ever(numbers: tuple[object, ...]) -> None:
    finder = Finder(Damaged(*numbers))  # type: ignore[arg-type]
    with pytest.raises(PKCS11Error, match="not in order") as refusal:
        finder.find_some([], None, lambda row: None, 0, 4, by_number=True)
    assert refusal.value.rv == CKR.DEVICE_ERROR
