"""A long life costs a host nothing: no memory, no descriptors, no threads; and its stdout is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import PIN
from tests.robustness.conftest import Programs
from tests.robustness.hosts import run

WORK = {
    "sessions",
    "signatures",
    "searches",
    "failures",
    "session-objects",
    "token-objects",
    "beginnings",
    "threads-left",
}
MOST_KIB = 2048


@pytest.mark.rule("SE2", "G1")
@pytest.mark.parametrize("times", [200, pytest.param(1000, marks=pytest.mark.long)])
def test_a_host_grows_by_no_memory_descriptors_and_threads(programs: Programs, key: Path, times: int) -> None:
    """Leaves no memory, descriptors or threads behind after 10,000 sessions and 100 starts and ends."""
    done = run(programs("leaks"), PIN.decode(), str(times), timeout=300)
    assert done.stderr == ""
    grown = {line.split()[0]: [int(number) for number in line.split()[1:]] for line in done.stdout.splitlines()}
    print(grown)
    assert set(grown) == WORK, "something else was printed"
    for what, (memory, descriptors, threads) in grown.items():
        assert memory < MOST_KIB, f"{what}: {memory} KiB more"
        assert (descriptors, threads) == (0, 0), what
    assert grown["threads-left"] == [0, 0, 0]
