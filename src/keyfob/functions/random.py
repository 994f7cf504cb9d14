"""Random number generation (section 5.16): the operating system's, without login (N2), never blocking (P27)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.token.session import Session


def C_SeedRandom(session: Session, seed: bytes) -> None:
    """Mix the seed into the kernel's pool; where that is not permitted the kernel's own entropy is as good."""
    try:
        with open("/dev/urandom", "wb", buffering=0) as pool:
            pool.write(seed)
    except OSError:
        return


def C_GenerateRandom(session: Session, length: int) -> bytes:
    return os.urandom(length)
