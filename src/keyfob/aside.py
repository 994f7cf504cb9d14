"""A call that waits for somebody steps aside: a fork in another thread need not wait for it (abi/gate.py).

`with ASIDE: ...` around the waiting and nothing else. A fork can come in between, and the child has no copy of the
thread: so nothing is held there that a child cannot make anew, least of all a lock of a library.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _nothing() -> None:
    """The caller came by another way than the C ABI, which alone counts who is inside."""


class Aside:
    """`leave` and `come_back` are the C ABI's."""

    __slots__ = ("come_back", "leave")

    def __init__(self) -> None:
        self.leave: Callable[[], None] = _nothing
        self.come_back: Callable[[], None] = _nothing

    def __enter__(self) -> None:
        self.leave()

    def __exit__(self, *_: object) -> None:
        self.come_back()


ASIDE = Aside()


def call(leave: Callable[[], None], come_back: Callable[[], None]) -> None:
    """From now on these count who is inside."""
    ASIDE.leave, ASIDE.come_back = leave, come_back
