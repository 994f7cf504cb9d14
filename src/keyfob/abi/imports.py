"""A fork waits until no other thread is importing a module of keyfob.

A child has the thread that forks and no other: a module that another thread was importing stays locked in it for ever.
Families of mechanisms are imported when they are first used, which can be at any moment. (In an interpreter of our own
interpreter.c waits for every import; a host that is Python itself is not made to wait for its own ones.)
"""

from __future__ import annotations

import os
import sys
import time
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 5.0  # seconds: an import can wait for one of the thread that forks
PAUSE = 0.0005
PACKAGE = __name__.partition(".")[0]

# importlib's own: module name -> weak reference to its lock.
_locks: dict[str, Any] = getattr(sys.modules["_frozen_importlib"], "_module_locks", {})


def _others_import() -> bool:
    here = (None, get_ident())
    return any(
        getattr(reference(), "owner", None) not in here
        for name, reference in list(_locks.items())
        if name.startswith(PACKAGE)
    )


def _before_fork() -> None:
    end = time.monotonic() + LIMIT
    while _others_import() and time.monotonic() < end:
        time.sleep(PAUSE)


os.register_at_fork(before=_before_fork)
