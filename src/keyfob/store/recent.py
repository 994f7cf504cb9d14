"""A bounded memory of objects read lately: bounded in number, and in size."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store.record import Attributes, Record

CAPACITY = 8192
LARGE = 4096  # bytes: what is larger counts for several, so that a generation has 32 MiB at most


class Recent:
    """Two generations: what is used moves to the young one; when that is full the old one is dropped.

    As good as a list in order of use, but a hit is one look-up that changes nothing, so it needs no lock. What only a
    search has met is there as its record, until somebody wants the attributes.
    """

    __slots__ = ("_old", "_room", "young")

    def __init__(self) -> None:
        self.young: dict[int, Attributes | Record] = {}
        self._old: dict[int, Attributes | Record] = {}
        self._room = CAPACITY

    def get(self, object_id: int) -> Attributes | Record | None:
        found = self.young.get(object_id)
        if found is None and (found := self._old.get(object_id)) is not None:
            self.put(object_id, found)
        return found

    def put(self, object_id: int, found: Attributes | Record) -> None:
        cost = 1 + _size_of(found) // LARGE
        if self._room < cost:
            self._old = self.young
            self.young = {}
            self._room = CAPACITY
        self._room -= cost
        self.young[object_id] = found

    def drop(self, object_id: int) -> None:
        self.young.pop(object_id, None)
        self._old.pop(object_id, None)

    def clear(self) -> None:
        self.young = {}
        self._old = {}
        self._room = CAPACITY


def _size_of(found: Attributes | Record) -> int:
    return sum(map(len, found.values())) if isinstance(found, dict) else found.size
