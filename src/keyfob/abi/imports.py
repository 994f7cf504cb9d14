"""What a fork does about imports: it waits for those of other threads, and root's brings in what is still missing.

A child has the thread that forks and no other: a module that another thread was importing stays locked in it for ever.
Families of mechanisms are imported when they are first used, which can be at any moment. (In an interpreter of our own
interpreter.c waits for every import; a host that is Python itself is not made to wait for its own ones.)

And a server that root has started (Apache, nginx, stunnel) gives up its rights in its children, or moves them to
another root folder: what they have not imported by then they may never be able to read, Python's own library included.
So the first fork of a process of root's imports all that a server may need later.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import get_ident
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 5.0  # seconds: an import can wait for one of the thread that forks
PAUSE = 0.0005
PACKAGE = __name__.partition(".")[0]

MECHANISMS = ("rsa", "ec", "edwards", "aes", "des3", "digest", "hmac", "secret", "hashes")
STORE = ("calibration", "folder", "key_file", "pepper", "seal", "turns")
# What is imported when it is first needed, but for what asks a person and for other stores than files.
LATER = (
    *(f"{PACKAGE}.mechanisms.{name}" for name in MECHANISMS),
    *(f"{PACKAGE}.store.{name}" for name in STORE),
    f"{PACKAGE}.spec.names",
    f"{PACKAGE}.token.audit",
    "fcntl",
)

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
    if os.geteuid() == 0:
        _import_the_rest()


def _import_the_rest() -> None:
    for name in LATER:
        try:
            import_module(name)
        except ImportError:  # its rights are gone already; the call that needs this will say so (answers.py)
            return


os.register_at_fork(before=_before_fork)
