"""Hangs Python functions into the slots of the C function lists."""

from __future__ import annotations

from keyfob._abi import ffi
from keyfob.spec.constants import CKR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Entry = Callable[..., int]


def export(entry: Entry) -> Entry:
    """Make the function the C function of its name. Should even its error handling fail, C sees CKR_GENERAL_ERROR."""
    ffi.def_extern(name=f"keyfob_{entry.__name__}", error=CKR.GENERAL_ERROR, onerror=_say_nothing)(entry)
    return entry


def _say_nothing(*_: object) -> None:
    """In place of cffi's traceback on the host's stderr: the text of an exception can hold a secret."""
