"""How hard guessing a PIN is made: the parameters of Argon2id. Light, because opening a token needs no cryptography.

What a file says is nobody's word until a PIN has opened something by it. So what is read from one goes through
`Hardening.stored`, which has a ceiling, and what a PIN is wrapped with (seal.py) is never below `least()`. Both follow
the configuration, which is the user's word: what `[pin]` asks for is the floor, and may be above the usual ceiling.
"""

from __future__ import annotations

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

LEAST_MEMORY_KIB = 8 * 1024
# What anybody can ask for.
MOST_MEMORY_KIB = 4 * 1024 * 1024
MOST_ITERATIONS = 1024
MOST_LANES = 64
# What a file can ask for: 1 GiB, and some four seconds of a core.
CEILING_MEMORY_KIB = 1024 * 1024
CEILING_WORK = 4 * 1024 * 1024  # KiB times all passes but the last
CEILING_ITERATIONS = 64
CEILING_LANES = 16


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
        if not self._is_possible():
            raise PKCS11Error(CKR.ARGUMENTS_BAD, "these parameters of Argon2id are out of bounds")

    @property
    def work(self) -> int:
        """What a guess costs, in KiB that are filled."""
        return self.memory_kib * self.iterations

    def _is_possible(self) -> bool:
        return (
            1 <= self.lanes <= MOST_LANES
            and 1 <= self.iterations <= MOST_ITERATIONS
            and 8 * self.lanes <= self.memory_kib <= MOST_MEMORY_KIB
        )

    def _is_below_ceiling(self) -> bool:
        return (
            self.lanes <= CEILING_LANES
            and self.iterations <= max(CEILING_ITERATIONS, _least.iterations)
            and self.memory_kib <= max(CEILING_MEMORY_KIB, _least.memory_kib)
            and self.work - self.memory_kib < max(CEILING_WORK, _least.work)
        )

    @classmethod
    def stored(cls, memory_kib: int, iterations: int, lanes: int) -> Hardening:
        """As read from a file, of whoever wrote it: CKR_DEVICE_ERROR where it asks for too much, or for nonsense.

        What is too little may still open what was wrapped with it.
        """
        found = cls._unchecked(memory_kib, iterations, lanes)
        if not found._is_possible():  # noqa: SLF001 - our own class
            raise PKCS11Error(CKR.DEVICE_ERROR, "the parameters of Argon2id are damaged")
        if not found._is_below_ceiling():  # noqa: SLF001
            text = (
                f"it asks for {iterations} passes over {memory_kib // 1024} MiB for each PIN: more than a file may ask"
                " for, unless memory_kib and iterations in [pin] of config.toml allow it"
            )
            raise PKCS11Error(CKR.DEVICE_ERROR, text)
        return found

    @classmethod
    def _unchecked(cls, memory_kib: int, iterations: int, lanes: int) -> Hardening:
        found = cls.__new__(cls)
        found.memory_kib, found.iterations, found.lanes = memory_kib, iterations, lanes
        return found

    def raised_to(self, least: Hardening) -> Hardening:
        """What has the memory and the work of both, and no more lanes than `least`; `self` where that is so already."""
        if self.memory_kib >= least.memory_kib and self.work >= least.work and self.lanes <= least.lanes:
            return self
        memory_kib, work = max(self.memory_kib, least.memory_kib), max(self.work, least.work)
        return self._unchecked(memory_kib, -(-work // memory_kib), min(self.lanes, least.lanes))

    @classmethod
    def for_tests(cls) -> Hardening:
        """Almost no hardening: 0.1 ms a guess. Never for a token that holds anything."""
        return cls._unchecked(8, 1, 1)


_least = Hardening()


def agree(configured: tuple[int, int] | None) -> None:
    """What this process's PINs are hardened with at least: the configuration's (memory in KiB, iterations) if any."""
    require(Hardening(*configured) if configured else Hardening())


def require(floor: Hardening) -> None:
    global _least  # a process has one configuration, as it has one log
    _least = floor


def least() -> Hardening:
    """No PIN is wrapped with less, whatever a token says; a login raises what has less."""
    return _least
