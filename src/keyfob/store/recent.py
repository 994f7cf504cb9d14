"""A bounded memory of objects read lately."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store.record import Attributes, Record

CAPACITY = 8192


class Recent:
    """Two generations: what is used moves to the young one; when that is full the old one is dropped.

    As good as a list in order of use, but a hit is one look-up that changes nothing, so it needs no lock. What only a
    search has met is there as its record, until somebody wants the attributes.
    """

    __slots__ = ("_old", "young")

    def __init__(self) -> None:
        self.young: dict[int, Attributes | Record] = {}
        self._old: dict[int, Attributes | Record] = {}

    def get(self, object_id: int) -> Attributes | Record | None:
        found = self.young.get(object_id)
        if found is None and (found := self._old.get(object_id)) is not None:
            self.put(object_id, found)
        return found

    def put(self, object_id: int, found: Attributes | Record) -> None:
        if len(self.young) >= CAPACITY:
            self._old = self.young
            self.young = {}
        self.young[object_id] = found

    def drop(self, object_id: int) -> None:
        self.young.pop(object_id, None)
        self._old.pop(object_id, None)

    def clear(self) -> None:
        self.young = {}
        self._old = {}
