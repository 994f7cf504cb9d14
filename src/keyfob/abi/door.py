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
    ffi.def_extern(name=f"keyfob_{entry.__name__}", error=CKR.GENERAL_ERROR)(entry)
    return entry
