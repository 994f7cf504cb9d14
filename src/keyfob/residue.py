"""What libraries leave of a secret in memory that they have given back to the C library.

OpenSSL and cryptography overwrite keys, but not every copy that they make on the way: the block in which Argon2id's
parameters are handed over, for one, is freed with the PIN in it. What was freed is what the next block of its size is
made of. So once a secret is used up the ABI asks for blocks of all small sizes and overwrites them (abi/build.py).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _nothing() -> None:
    """The caller came by another way than the C ABI."""


class Residue:
    """`clear` is the C ABI's."""

    __slots__ = ("clear",)

    def __init__(self) -> None:
        self.clear: Callable[[], None] = _nothing


RESIDUE = Residue()
