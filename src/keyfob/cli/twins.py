"""Whether a token has an object already: what makes two objects of different tokens the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyfob.spec.constants import CKA, CKO
from keyfob.token.object import KEY_CLASSES, number

if TYPE_CHECKING:
    from keyfob.store import Attributes, Store

KEY = (CKA.CLASS, CKA.KEY_TYPE, CKA.ID, CKA.MODULUS, CKA.EC_PARAMS, CKA.VALUE)
CERTIFICATE = (CKA.CLASS, CKA.ID, CKA.VALUE)
ELSEWHERE = (CKA.CLASS, CKA.ID, CKA.URL)  # of a certificate that is not on the token: its value is empty
TRUST = (CKA.CLASS, CKA.ISSUER, CKA.SERIAL_NUMBER)


def identity(attributes: Attributes) -> list[tuple[int, bytes]]:
    """The attributes by which an object is the same as another one.

    Keys and certificates: class, CKA_ID and value, whatever they are called. Trust: whose it is, so that what a token
    trusts is not changed by an older opinion. Anything else: all but CKA_UNIQUE_ID.
    """
    object_class = number(attributes[CKA.CLASS])
    if attributes[CKA.CLASS] in KEY_CLASSES:
        wanted: tuple[int, ...] = KEY
        if object_class == CKO.PUBLIC_KEY:
            wanted = (*KEY, CKA.PUBLIC_KEY_INFO)  # not CKA_EC_POINT, which has two forms (P33)
    elif object_class == CKO.CERTIFICATE:
        wanted = CERTIFICATE if attributes.get(CKA.VALUE) else ELSEWHERE
    elif object_class in (CKO.TRUST, CKO.NSS_TRUST):
        wanted = TRUST
    else:
        wanted = tuple(each for each in attributes if each != CKA.UNIQUE_ID)
    return [(attribute, attributes[attribute]) for attribute in wanted if attribute in attributes]


def has_twin(store: Store, attributes: Attributes) -> bool:
    return store.exists(identity(attributes))
