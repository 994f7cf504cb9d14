"""Whatever C_GetAttributeValue answers C_FindObjects finds, also of objects of older tokens, which hold less.

They are made here by leaving out, when an object is kept, whatever is answered the same without being held: so what is
computed in the future is tried as well.
"""

from __future__ import annotations

from typing import Any

import pytest

from keyfob.spec.constants import CKA, CKK, CKO
from keyfob.spec.errors import PKCS11Error
from keyfob.token import objects
from keyfob.token.nested import TEMPLATES
from keyfob.token.object import Object
from keyfob.token.templates import rows_of
from keyfob.token.values import COMPUTED, value_of
from tests.client import Template
from tests.conftest import PIN, Fob
from tests.functional.ways import WAYS_OF_CREATION, Way

Attributes = dict[int, bytes]


def bare(token: Any, attributes: Attributes) -> Attributes:
    """What is left of them when everything goes that is answered all the same."""
    left = dict(attributes)
    for attribute, value in attributes.items():
        rest = {a: v for a, v in left.items() if a != attribute}
        if attribute in (CKA.CLASS, CKA.KEY_TYPE):
            continue
        try:
            answer = value_of(Object(token, 0, rest), attribute)
        except (KeyError, PKCS11Error):  # without it, it is no key
            continue
        if answer == value:
            left = rest
    return left


@pytest.fixture
def left_out(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The attributes that objects are kept without, from now on."""
    found: set[int] = set()
    real = objects.Objects.add

    def add(self: objects.Objects, session: Any, *made: Attributes) -> list[int]:
        kept = [bare(self.token, attributes) for attributes in made]
        found.update(*(attributes.keys() - rest.keys() for attributes, rest in zip(made, kept, strict=True)))
        return real(self, session, *kept)

    monkeypatch.setattr(objects.Objects, "add", add)
    return found


@pytest.mark.parametrize("on_token", [True, False])
@pytest.mark.parametrize("way", WAYS_OF_CREATION, ids=lambda way: way.name)
def test_what_is_answered_is_found(fob: Fob, left_out: set[int], way: Way, *, on_token: bool) -> None:
    client, session = fob.client, fob.session
    handle = way.make(client, session, [(CKA.TOKEN, on_token)])
    for attribute in rows_of(way.object_class, way.key_type).keys() - set(TEMPLATES):
        (value,) = client.get(session, handle, attribute)
        if value is not None:
            asked: Template = [(CKA.CLASS, way.object_class), (attribute, value)]
            assert client.find(session, asked) == [handle], hex(attribute)
    assert left_out


@pytest.mark.rule("P33")
def test_a_private_key_that_was_stored_without_its_point_is_found_by_it(fob: Fob, left_out: set[int]) -> None:
    """By the point alone, raw or as DER, and by it and others; after another login, and only if that sees the key."""
    client, session = fob.client, fob.session
    (way,) = (one for one in WAYS_OF_CREATION if (one.object_class, one.key_type) == (CKO.PRIVATE_KEY, CKK.EC))
    key = way.make(client, session, [(CKA.TOKEN, True)])
    assert left_out >= COMPUTED
    (point,) = client.get(session, key, CKA.EC_POINT)
    assert point
    more: Template = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.LABEL, b"")]
    askings: list[Template] = [[(CKA.EC_POINT, point)], [(CKA.EC_POINT, point[2:])], [(CKA.EC_POINT, point), *more]]
    for asked in askings:
        assert client.find(session, asked) == [key]
    assert client.find(session, [(CKA.EC_POINT, point), (CKA.CLASS, CKO.PUBLIC_KEY)]) == []
    assert client.find(session, [(CKA.EC_POINT, point), (CKA.LABEL, b"another")]) == []
    client.ok("C_Logout", session)
    assert client.find(session, [(CKA.EC_POINT, point)]) == []
    client.login(session, PIN)
    assert client.find(session, [(CKA.EC_POINT, point)]) == [key]
    client.ok("C_DestroyObject", session, key)
    assert client.find(session, [(CKA.EC_POINT, point)]) == []
