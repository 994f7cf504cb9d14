"""One search of a session, from C_FindObjectsInit to C_FindObjectsFinal: its answer, made as it is asked for.

The first objects are found at the start, so that short answers are those of that moment. Of a long one the store gives
the rest in parts, each object read, checked and compared when its handle is about to be told; it keeps nothing open in
between. What is made during a search may be left out, and what is destroyed is, as section 5.7.7 leaves free.
"""

from __future__ import annotations

from keyfob.spec.constants import CKA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.token.objects import Objects, Template

FIRST = 8  # objects
PART = 256
FALSE = b"\x00"


class Search:
    """What is left of the answer. Not for two threads at once, as no operation of a session is."""

    __slots__ = ("_after", "_hits", "_in_memory", "_objects", "_values", "_wanted")

    def __init__(self, objects: Objects, wanted: Template | None) -> None:
        """`wanted` in normal form; None: nothing can match."""
        self._objects = objects
        self._after: int | None = None
        self._hits: list[int] = []
        if wanted is None:
            return
        self._wanted = wanted
        self._values = values = dict(wanted)
        if len(values) < len(wanted) and any(values[attribute] != value for attribute, value in wanted):
            return  # no object has two values for one attribute
        self._in_memory = objects.matching_in_memory(values)
        self._after = 0
        self._go_on(FIRST)

    def __bool__(self) -> bool:
        """Whether there is anything left."""
        return bool(self._hits)

    def take(self, count: int) -> list[int]:
        """Up to `count` handles more; fewer only when no more are left (P23)."""
        while self._after is not None and len(self._hits) < count:
            self._go_on(PART)
        taken = self._hits[:count]
        del self._hits[:count]
        return taken

    def take_all(self) -> list[int]:
        while self._after is not None:
            self._go_on(PART)
        return self._hits

    def _go_on(self, most: int) -> None:
        """Find at least one handle more, or come to the end."""
        before = len(self._hits)
        while self._after is not None and len(self._hits) == before:
            found, self._after = self._objects.stored_matching(self._wanted, self._values, self._after, most)
            self._hits += found
            if self._after is None:
                self._hits += self._in_memory


def visible_to_all(wanted: Template) -> Template:
    """The same search without private objects: the SO's login opens the store, but they are not the SO's to see."""
    return [*wanted, (CKA.PRIVATE, FALSE)]
