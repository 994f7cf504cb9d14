"""What imports in a call must not change, and what a fork does about imports.

Libraries change the process when they are loaded: handlers of signals, the locale, the umask and so on (process.h). The
host owns all that. So whichever extension module a call of the host's loads, keyfob's own or another's, however deep in
whose package, is loaded here, and what it changed is put back: nobody who writes an import need think of it.

A fork waits for the imports of other threads, and root's brings in what is still missing.

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

from keyfob._abi import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
    from types import ModuleType
    from typing import Any
else:
    ExtensionFileLoader = sys.modules["_frozen_importlib_external"].ExtensionFileLoader
    PathFinder = sys.modules["_frozen_importlib_external"].PathFinder

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


class Careful(ExtensionFileLoader):
    """Loads an extension module, and leaves the process as it was."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The library is loaded, and its first function called."""
        noted = lib.keyfob_note_process()
        try:
            return super().create_module(spec)
        finally:
            lib.keyfob_put_back_process(noted)

    def exec_module(self, module: ModuleType) -> None:
        """Its second function, where it has two."""
        noted = lib.keyfob_note_process()
        try:
            super().exec_module(module)
        finally:
            lib.keyfob_put_back_process(noted)


class Finder:
    """Finds as the path's own finder does, and only while this thread is inside a call of the host's."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """None is for the finders that follow."""
        if not lib.keyfob_is_inside():
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is ExtensionFileLoader:
            spec.loader = Careful(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Before the path's own finder, behind those of built-in and frozen modules."""
    place = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else len(sys.meta_path)
    sys.meta_path.insert(place, Finder)


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
