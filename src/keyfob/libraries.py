"""Libraries that are loaded when they are first needed, and work with keys: what they free is overwritten first.

They leave copies of PINs and keys in the memory that they give back to the C library. Where the interpreter is ours
abi/libraries.c sees to that; it is told here when there is one more.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _nobody() -> None:
    """The caller came by another way than the C ABI."""


_keep_clean: Callable[[], None] = _nobody


def call(keep_clean: Callable[[], None]) -> None:
    """From now on this sees to the libraries."""
    global _keep_clean  # one for the process, as there is one C library
    _keep_clean = keep_clean


def loaded() -> None:
    """A module has been imported that may have brought a library."""
    _keep_clean()
