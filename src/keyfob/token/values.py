"""What C_GetAttributeValue and C_FindObjects take for an object's attributes: what it holds, and what it need not hold.

An attribute that follows from the others, or whose default the standard says is empty, is answered without being
stored; objects of older tokens lack some that are stored today. Searches ask here, too, so that whatever is answered is
found. An attribute that the object's class and key type do not have is none: it is never answered as an empty value.
"""

from __future__ import annotations

from keyfob.mechanisms import check_value
from keyfob.spec.constants import CKA
from keyfob.spec.traits import EMPTY_BY_DEFAULT, SECRETS
from keyfob.token.object import PRIVATE_KEY, number
from keyfob.token.templates import rows_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.token.object import Object
    from keyfob.token.objects import Objects

# What keys of older tokens are answered with and do not hold (Key.computed).
COMPUTED = frozenset((CKA.EC_POINT,))


def value_of(found: Object, attribute: int) -> bytes | None:
    """The attribute's value, or None where the object has no such attribute. Whether it is secret, the caller asks."""
    attributes = found.attributes
    value = attributes.get(attribute)
    if value is not None:
        return value
    if attribute == CKA.CHECK_VALUE:
        return None if found.veiled else check_value(attributes)
    is_key = CKA.KEY_TYPE in attributes
    if is_key and not found.veiled:
        value = found.key.computed(attribute)
        if value is not None:
            return value
    if attribute not in EMPTY_BY_DEFAULT:
        return None
    key_type = number(attributes[CKA.KEY_TYPE]) if is_key else None
    return b"" if attribute in rows_of(number(attributes[CKA.CLASS]), key_type) else None


def not_stored(wanted: dict[int, bytes]) -> dict[int, bytes]:
    """The part of a search's template that `value_of` has to compare, object by object: what need not be held.

    COMPUTED values are no part of it: almost every object holds them, and the store finds those at once.
    """
    if all(wanted.values()) and CKA.CHECK_VALUE not in wanted:
        return {}
    return {a: v for a, v in wanted.items() if a == CKA.CHECK_VALUE or (not v and a in EMPTY_BY_DEFAULT)}


def not_held(wanted: dict[int, bytes]) -> dict[int, bytes]:
    """The same for objects in memory, which are compared one by one anyway."""
    rest = not_stored(wanted)
    return rest if COMPUTED.isdisjoint(wanted) else {**rest, **{a: wanted[a] for a in COMPUTED if a in wanted}}


def has(found: Object, wanted: dict[int, bytes]) -> bool:
    return all(value_of(found, attribute) == value for attribute, value in wanted.items())


class Incomplete:
    """The keys in a token's store that lack COMPUTED values: those that older versions made, and none is made now.

    So that a search by such a value costs no walk through all keys, they are looked for once in each process.
    """

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers: list[int] | None = None

    def matching(self, objects: Objects, wanted: dict[int, bytes]) -> list[int]:
        """The handles of those that a search for `wanted` must find although the store does not."""
        if COMPUTED.isdisjoint(wanted) or wanted.get(CKA.CLASS, PRIVATE_KEY) != PRIVATE_KEY:
            return []
        asks_secrets = not SECRETS.isdisjoint(wanted)
        visible = filter(None, map(objects.stored_visible, self._all(objects)))
        return [one.handle for one in visible if not (asks_secrets and one.hides_secrets) and has(one, wanted)]

    def _all(self, objects: Objects) -> list[int]:
        if self._numbers is not None:
            return self._numbers
        sees_private = objects.token.sees_private
        found = [one for one in map(objects.stored_visible, objects.stored_private_keys()) if one is not None]
        numbers = [
            one.stored
            for one in found
            if any(a not in one.attributes and value_of(one, a) is not None for a in COMPUTED)
        ]
        if sees_private:  # else there may be more after a login
            self._numbers = numbers
        return numbers
