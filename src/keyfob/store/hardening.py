"""How hard guessing a PIN is made: the parameters of Argon2id. Light, because opening a token needs no cryptography."""

from __future__ import annotations

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

LEAST_MEMORY_KIB = 8 * 1024
MOST_MEMORY_KIB = 4 * 1024 * 1024
MOST_ITERATIONS = 1024
MOST_LANES = 64


class Hardening:
    """Memory in KiB, passes over it, and lanes. The default takes 64 MiB and 100 to 150 ms of a 2020s server core.

    It is the least that new tokens get unless somebody configures less, see calibration.py.

    Two passes: half of the time of a single one goes into fetching pages, which an attacker does once for all guesses.

    One lane, because pyca/cryptography computes lanes one after the other: more of them would help only an attacker,
    who would compute them side by side.
    """

    __slots__ = ("iterations", "lanes", "memory_kib")

    def __init__(self, memory_kib: int = 64 * 1024, iterations: int = 2, lanes: int = 1) -> None:
        if memory_kib < LEAST_MEMORY_KIB:
            raise PKCS11Error(CKR.ARGUMENTS_BAD, f"PINs are hardened with at least {LEAST_MEMORY_KIB} KiB of memory")
        self.memory_kib = memory_kib
        self.iterations = iterations
        self.lanes = lanes
        self._check()

    def _check(self) -> None:
        if (
            not 1 <= self.lanes <= MOST_LANES
            or not 1 <= self.iterations <= MOST_ITERATIONS
            or not 8 * self.lanes <= self.memory_kib <= MOST_MEMORY_KIB
        ):
            raise PKCS11Error(CKR.ARGUMENTS_BAD, "these parameters of Argon2id are out of bounds")

    @classmethod
    def stored(cls, memory_kib: int, iterations: int, lanes: int) -> Hardening:
        """As read from a token: what `for_tests` wrote is taken too; absurd numbers (damage, a trap) are refused."""
        found = cls.__new__(cls)
        found.memory_kib, found.iterations, found.lanes = memory_kib, iterations, lanes
        found._check()  # noqa: SLF001 - our own class
        return found

    def raised_to(self, least: Hardening) -> Hardening:
        """What is at least `least` and lower than neither in any way; `self` where that is enough already."""
        enough = self.memory_kib >= least.memory_kib
        if enough and self.memory_kib * self.iterations >= least.memory_kib * least.iterations:
            return self
        memory_kib, iterations = max(self.memory_kib, least.memory_kib), max(self.iterations, least.iterations)
        return Hardening(memory_kib, iterations, self.lanes)

    @classmethod
    def for_tests(cls) -> Hardening:
        """Almost no hardening: 0.1 ms a guess. Never for a token that holds anything."""
        return cls.stored(8, 1, 1)
