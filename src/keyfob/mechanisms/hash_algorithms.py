"""The library's hash objects by the number of the digest mechanism, made once: they hold no state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyfob.mechanisms import hashes
from keyfob.spec.constants import CKM

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

HASHES: dict[int, HashAlgorithm] = {
    mechanism: function.algorithm
    for mechanism, function in hashes.HASHES.items()
    if mechanism not in (CKM.SHA512_224, CKM.SHA512_256)  # no signature scheme of the standard names them
}
