"""Hangs Python functions into the slots of the C function lists."""

from __future__ import annotations

from keyfob._abi import ffi
from keyfob.spec.constants import CKR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Entry = Callable[..., int]


def export(entry: Entry) -> Entry:
    """Make the function the C function of its name.

    Where even its error handling fails, for want of memory most likely, C sees CKR_HOST_MEMORY: that needs no memory.
    """
    ffi.def_extern(name=f"keyfob_{entry.__name__}", error=CKR.HOST_MEMORY, onerror=_otherwise)(entry)
    return entry


def _otherwise(kind: type[BaseException], *_: object) -> int | None:
    """In place of cffi's traceback on the host's stderr: the text of an exception can hold a secret."""
    return None if issubclass(kind, MemoryError) else CKR.GENERAL_ERROR
