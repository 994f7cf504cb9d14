"""Object management (section 5.7)."""

from __future__ import annotations

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.traits import SECRETS
from keyfob.token.session import FIND
from keyfob.token.values import value_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.token.object import Object
    from keyfob.token.search import Search
    from keyfob.token.session import Session

Template = list[tuple[int, bytes]]

OBJECT_OVERHEAD = 64


def C_CreateObject(session: Session, template: Template) -> int:
    return session.token.objects.create(session, template)


def C_CopyObject(session: Session, handle: int, template: Template) -> int:
    objects = session.token.objects
    return objects.copy(session, objects.get(handle), template)


def C_DestroyObject(session: Session, handle: int) -> None:
    objects = session.token.objects
    objects.destroy(session, objects.get(handle))


def C_GetObjectSize(session: Session, handle: int) -> int:
    """Bytes that the object's attributes take, about."""
    attributes = session.token.objects.get(handle).attributes
    return OBJECT_OVERHEAD + sum(16 + len(value) for value in attributes.values())


def attribute_of(found: Object, attribute: int) -> tuple[bytes, int]:
    """(value, 0), or (b"", why there is none: CKR_ATTRIBUTE_SENSITIVE or CKR_ATTRIBUTE_TYPE_INVALID).

    abi/ reads the attributes of a C_GetAttributeValue one by one, all of them even where some fail (P24).
    """
    if attribute in SECRETS and found.hides_secrets:
        return b"", CKR.ATTRIBUTE_SENSITIVE
    value = found.attributes.get(attribute)
    if value is not None:
        if attribute in SECRETS and found.stored:
            from keyfob.token import audit

            audit.secret_read(found, attribute)
        return value, CKR.OK
    value = value_of(found, attribute)
    return (b"", CKR.ATTRIBUTE_TYPE_INVALID) if value is None else (value, CKR.OK)


def C_SetAttributeValue(session: Session, handle: int, template: Template) -> None:
    objects = session.token.objects
    objects.change(session, objects.get(handle), template)


def C_FindObjectsInit(session: Session, template: Template) -> None:
    """The search begins here; C_FindObjects makes the rest of a long answer."""
    session.require_idle(FIND)
    token = session.token
    while True:
        logouts = token.logouts
        session.begin(FIND, token.objects.search(template))
        if token.logouts == logouts:
            return
        session.end(FIND)  # it may have begun before a logout in another thread: it begins again


def C_FindObjects(session: Session, count: int) -> list[int]:
    """Up to `count` handles more; fewer only when no more are left (P23)."""
    search: Search | None = session.operations.get(FIND)
    if search is None:
        raise PKCS11Error(CKR.OPERATION_NOT_INITIALIZED, "no search is active in this session")
    return search.take(count)


def C_FindObjectsFinal(session: Session) -> None:
    if session.operations.pop(FIND, None) is None:
        raise PKCS11Error(CKR.OPERATION_NOT_INITIALIZED, "no search is active in this session")
