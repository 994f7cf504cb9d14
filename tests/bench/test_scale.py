"""How long filling would have taken, and that figures are compared from the smallest to the largest size."""

from __future__ import annotations

import pytest

from bench.scale import Results, seconds_for


def answer(made: int, seconds: float, half_made: int, half: float) -> dict[str, int]:
    return {"made": made, "nanoseconds": int(seconds * 1e9), "half_made": half_made, "half": int(half * 1e9)}


@pytest.mark.parametrize(
    ("filled", "expected"),
    [
        (answer(1000, 10, 500, 5), 100.0),  # linear
        (answer(1000, 10, 500, 2.5), 1000.0),  # quadratic
        (answer(1000, 11, 500, 3), 1010.0),  # 0.001 n + 0.00001 n * n
        (answer(1000, 10, 900, 1), 1000.0),  # a stall of the disk: no worse than quadratic
        (answer(1000, 10, 0, 0), 100.0),
    ],
)
def test_the_time_for_more_objects_follows_from_the_halves(filled: dict[str, int], expected: float) -> None:
    assert seconds_for(10_000, filled) == pytest.approx(expected, rel=0.01)


def test_a_factor_needs_two_sizes() -> None:
    results = Results()
    results.put("keyfob", "find-id", 100, 10.0)
    assert results.factor("keyfob", "find-id") is None
    results.put("keyfob", "find-id", 100_000, 15.0)
    assert results.factor("keyfob", "find-id") == 1.5
