"""Random number generation (section 5.16): the operating system's, without login (N2), never blocking (P27).

Table 1.2 has it for multipurpose tokens; the other kinds answer CKR_RANDOM_NO_RNG and do not set CKF_RNG.
"""

from __future__ import annotations

import os

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token import kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.token.session import Session


def C_SeedRandom(session: Session, seed: bytes) -> None:
    """Mix the seed into the kernel's pool; where that is not permitted the kernel's own entropy is as good."""
    _require_generator(session)
    try:
        with open("/dev/urandom", "wb", buffering=0) as pool:
            pool.write(seed)
    except OSError:
        return


def C_GenerateRandom(session: Session, length: int) -> bytes:
    _require_generator(session)
    return os.urandom(length)


def _require_generator(session: Session) -> None:
    if not kinds.has_random(session.token):
        raise PKCS11Error(CKR.RANDOM_NO_RNG, f"tokens of the kind {session.token.kind} give no random numbers")
