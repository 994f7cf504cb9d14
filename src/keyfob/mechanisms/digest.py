"""Digests: CKM_MD5, CKM_SHA_1, SHA-2 and SHA-3 (section 6.20)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from keyfob.mechanisms.base import Key, Mechanism
from keyfob.mechanisms.hashes import HASHES, HashFunction
from keyfob.mechanisms.secret_key import no_parameter
from keyfob.spec.constants import CKF

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import Hash


class Digest:
    """Digester. Its context is made with the first part, because `digest` (C_Digest) needs none to be kept."""

    __slots__ = ("_context", "_hash", "output_size")

    def __init__(self, hash_function: HashFunction, parameter: object) -> None:
        no_parameter(parameter)
        self._hash = hash_function
        self._context: Hash | None = None
        self.output_size = hash_function.size

    def digest(self, data: bytes) -> bytes:
        """The whole message in one call."""
        return self._hash.digest(data)

    def update(self, part: bytes) -> None:
        if self._context is None:
            self._context = self._hash.start()
        self._context.update(part)

    def final(self) -> bytes:
        return self._context.finalize() if self._context is not None else self._hash.digest(b"")

    def copy(self) -> Digest:
        """An independent digest of the same data so far (C_GetOperationState)."""
        other = Digest(self._hash, None)
        if self._context is not None:
            other._context = self._context.copy()
        return other


MECHANISMS = tuple(
    Mechanism(mechanism, {CKF.DIGEST: partial(Digest, hash_function)}) for mechanism, hash_function in HASHES.items()
)
KEYS: dict[tuple[int, int], type[Key]] = {}
