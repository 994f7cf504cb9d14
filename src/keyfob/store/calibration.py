"""How long a guess at a PIN takes on this machine, and the hardening that a new token gets. Imported for these only.

The default of a new token is measured, not guessed: about TARGET seconds, never less than 64 MiB and two passes.
"""

from __future__ import annotations

import time

from keyfob.store.hardening import Hardening

TARGET = 0.1  # seconds that a login may take
FEWEST_PASSES = 2
USUAL_PASSES = 3  # RFC 9106, section 4: the second recommended option
SAMPLE_KIB = 16 * 1024
LARGEST_KIB = 256 * 1024  # a fast machine's; more would hurt hosts with many processes


def chosen(configured: tuple[int, int] | None) -> Hardening:
    """For a new token: what `[pin]` of the configuration says, (memory in KiB, iterations), else what is measured."""
    return Hardening(*configured) if configured else calibrated()


def calibrated() -> Hardening:
    """The hardening that takes about TARGET seconds here. Two runs of a quarter of the memory: some 50 ms."""
    one = seconds_per_guess(Hardening(SAMPLE_KIB, 1))
    three = seconds_per_guess(Hardening(SAMPLE_KIB, 3))
    return fitting(one, three)


def fitting(one: float, three: float) -> Hardening:
    """From the seconds of one and of three passes over SAMPLE_KIB: the first also fetches the pages."""
    floor = Hardening()
    one_pass = max((three - one) / 2, one / 8, 1e-6)  # the second guards against a first run that was held up
    fetching = max(one - one_pass, 0.0)
    memory_kib = floor.memory_kib
    while memory_kib < LARGEST_KIB and _takes(2 * memory_kib, USUAL_PASSES, one_pass, fetching) <= TARGET:
        memory_kib *= 2
    passes = FEWEST_PASSES
    while passes < USUAL_PASSES and _takes(memory_kib, passes + 1, one_pass, fetching) <= TARGET:
        passes += 1
    return Hardening(memory_kib, passes)


def _takes(memory_kib: int, passes: int, one_pass: float, fetching: float) -> float:
    return memory_kib / SAMPLE_KIB * (fetching + passes * one_pass)


def seconds_per_guess(hardening: Hardening, runs: int = 1) -> float:
    """What one guess at a PIN costs one core of this machine, however busy it is; the fastest of `runs`."""
    from keyfob.store import seal

    def run() -> float:
        start = time.thread_time()  # one lane is computed in the calling thread
        seal.harden(b"123456", bytes(16), hardening)
        return time.thread_time() - start

    return min(run() for _ in range(runs))


def guesses_per_second(hardening: Hardening) -> float:
    """The offline guess rate of one core, for somebody who has a copy of the token's file."""
    return 1 / seconds_per_guess(hardening, 2)
