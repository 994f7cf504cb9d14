"""The hash functions, by the number of their digest mechanism.

All of them are cryptography's, that is its own OpenSSL: importing hashlib would pull the system's libcrypto into the
host. A fresh context costs 1.2 us, nearly all of it OpenSSL's look-up of the algorithm; a copy of one that was made
before costs 0.3 us, which brings SHA-256 of 64 bytes to 1.1 us (CPython's own `_sha256`: 0.9 us) and of 16 KiB to 11 us
(72 us). So every hash keeps an unused context and gives out copies; a second implementation would gain nothing.
"""

from __future__ import annotations

from keyfob.spec.constants import CKM, CKR
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import Hash, HashAlgorithm


class HashFunction:
    """One hash: `size` and `block_size` in bytes. The library is loaded when it is first used."""

    __slots__ = ("_algorithm", "_unused", "block_size", "name", "size")

    def __init__(self, name: str, size: int, block_size: int) -> None:
        self.name = name
        self.size = size
        self.block_size = block_size
        self._algorithm: HashAlgorithm | None = None
        self._unused: Hash | None = None

    @property
    def algorithm(self) -> HashAlgorithm:
        """The library's object, without state: for HMAC, key derivation and signature schemes."""
        if self._algorithm is None:
            from cryptography.hazmat.primitives import hashes

            self._algorithm = getattr(hashes, self.name)()
        return self._algorithm

    def start(self) -> Hash:
        """A new context: update(), finalize(), copy()."""
        unused = self._unused
        if unused is None:
            from cryptography.hazmat.primitives.hashes import Hash

            unused = self._unused = Hash(self.algorithm)
        return unused.copy()

    def digest(self, data: bytes) -> bytes:
        context = self.start()
        context.update(data)
        return context.finalize()


HASHES: dict[int, HashFunction] = {
    CKM.MD5: HashFunction("MD5", 16, 64),
    CKM.SHA_1: HashFunction("SHA1", 20, 64),
    CKM.SHA224: HashFunction("SHA224", 28, 64),
    CKM.SHA256: HashFunction("SHA256", 32, 64),
    CKM.SHA384: HashFunction("SHA384", 48, 128),
    CKM.SHA512: HashFunction("SHA512", 64, 128),
    CKM.SHA512_224: HashFunction("SHA512_224", 28, 128),
    CKM.SHA512_256: HashFunction("SHA512_256", 32, 128),
    CKM.SHA3_224: HashFunction("SHA3_224", 28, 144),
    CKM.SHA3_256: HashFunction("SHA3_256", 32, 136),
    CKM.SHA3_384: HashFunction("SHA3_384", 48, 104),
    CKM.SHA3_512: HashFunction("SHA3_512", 64, 72),
}


def hash_of(mechanism: int) -> HashFunction:
    """The hash that a parameter names by its CKM_*; CKR_MECHANISM_PARAM_INVALID when there is none of that number."""
    found = HASHES.get(mechanism)
    if found is None:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the parameter names no hash that this module has")
    return found


def sha1(data: bytes) -> bytes:
    """SHA-1 as an identifier (CKA_ID, CKA_CHECK_VALUE), not for security."""
    return HASHES[CKM.SHA_1].digest(data)
