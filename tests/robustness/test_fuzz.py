"""Every function with arguments of the right types and no sense: no crash, no hang, no stray byte, no wrong error."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.conftest import PIN
from tests.robustness.conftest import Programs
from tests.robustness.hosts import run

# A failure prints its seed; with it the calls of one thread come again in the same order.
SEED = 20261201


def _faults(log: Path) -> list[str]:
    """What the module's log calls unexpected: an exception that no line of the code foresaw."""
    return [line for line in log.read_text(encoding="utf-8").splitlines() if "unexpected" in line]


@pytest.mark.parametrize(
    ("calls", "threads", "seeds"),
    [
        (4_000, 1, 1),
        (2_000, 3, 1),
        pytest.param(60_000, 1, 4, marks=pytest.mark.long),
        pytest.param(30_000, 4, 3, marks=pytest.mark.long),
    ],
)
def test_typed_calls_of_every_function_do_no_harm(
    programs: Programs, token: Path, home: Path, calls: int, threads: int, seeds: int
) -> None:
    first = SEED if calls < 10_000 else random.SystemRandom().randrange(1 << 32)
    answered: dict[str, int] = {}
    for seed in range(first, first + seeds):
        done = run(programs("fuzz"), PIN.decode(), str(seed), str(calls), str(threads), timeout=900)
        assert done.stderr == "", f"seed {seed}"
        for line in done.stdout.splitlines():
            name, well, _ = line.split()
            answered[name] = answered.get(name, 0) + int(well)
        assert _faults(home / "keyfob.log") == [], f"seed {seed}"
    print(dict(sorted(answered.items())))
    if calls * seeds > 100_000 and threads == 1:  # the arguments make sense often enough to get behind the first checks
        reached = {name for name, well in answered.items() if well}
        assert {"C_SignFinal", "C_UnwrapKey", "C_DeriveKey", "C_DecryptUpdate", "C_SetOperationState"} <= reached
