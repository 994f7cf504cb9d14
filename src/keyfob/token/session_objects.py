"""The session objects of one token: in memory alone, each as long as its session, and bounded in number and size.

A host that makes them in a loop and never destroys one is refused with CKR_DEVICE_MEMORY, before the process has no
memory left for anybody. What ends them needs no memory itself: the objects of a session are known by the session.
"""

from __future__ import annotations

from _thread import allocate_lock

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import ItemsView, Sequence, ValuesView

    from keyfob.token.object import Object


class SessionObjects:
    """By handle, as a dict is read. `most` objects with `most_bytes` of values."""

    __slots__ = ("_by_handle", "_by_owner", "_bytes", "_lock", "most", "most_bytes")

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self._by_handle: dict[int, Object] = {}
        self._by_owner: dict[int, dict[int, Object]] = {}
        self._bytes = 0
        self._lock = allocate_lock()

    def __bool__(self) -> bool:
        return bool(self._by_handle)

    def get(self, handle: int) -> Object | None:
        return self._by_handle.get(handle)

    def items(self) -> ItemsView[int, Object]:
        return self._by_handle.items()

    def values(self) -> ValuesView[Object]:
        return self._by_handle.values()

    def _check_room(self, number: int, size: int) -> None:
        """CKR_DEVICE_MEMORY unless so many more, with values of so many bytes, may be kept."""
        if len(self._by_handle) + number > self.most:
            raise PKCS11Error(CKR.DEVICE_MEMORY, f"the token keeps at most {self.most} session objects")
        if self._bytes + size > self.most_bytes:
            raise PKCS11Error(
                CKR.DEVICE_MEMORY, f"the session objects of the token have at most {self.most_bytes} bytes"
            )

    def add(self, objects: Sequence[Object]) -> None:
        """All or none."""
        if not objects:
            return
        with self._lock:
            self._check_room(len(objects), sum(found.size for found in objects))
            for found in objects:
                self._by_owner.setdefault(found.owner, {})[found.handle] = found
                self._by_handle[found.handle] = found
                self._bytes += found.size

    def put(self, old: Object, new: Object) -> bool:
        """Put one state of an object in place of another; False when that is not the present one any more."""
        with self._lock:
            if self._by_handle.get(old.handle) is not old:
                return False
            more = new.size - old.size
            self._check_room(0, more)
            self._by_handle[new.handle] = self._by_owner[new.owner][new.handle] = new
            self._bytes += more
            return True

    def drop(self, handle: int) -> None:
        with self._lock:
            self._drop(handle)

    def _drop(self, handle: int) -> None:
        found = self._by_handle.pop(handle, None)
        if found is None:
            return
        self._bytes -= found.size
        of_session = self._by_owner[found.owner]
        del of_session[handle]
        if not of_session:
            del self._by_owner[found.owner]

    def end(self, owner: int) -> None:
        """The session is closed."""
        with self._lock:
            for handle, found in self._by_owner.pop(owner, {}).items():
                self._by_handle.pop(handle, None)
                self._bytes -= found.size

    def forget_private(self) -> None:
        with self._lock:
            for found in list(self._by_handle.values()):
                if found.private:
                    self._drop(found.handle)
