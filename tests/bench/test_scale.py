"""How long filling would have taken, that figures are compared round by round, and that a page keeps what it had."""

from __future__ import annotations

import pytest

from bench.scale import seconds_for
from bench.scale_report import END, Results, document, verdicts, written_by_hand


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


def results(*rounds: tuple[float, float], figure: str = "find-id") -> Results:
    """What each round measured among 100 and among 100,000 objects."""
    made = Results()
    for small, large in rounds:
        made.put("keyfob", figure, 100, small)
        made.put("keyfob", figure, 100_000, large)
    return made


def test_a_factor_needs_two_sizes() -> None:
    made = Results()
    made.put("keyfob", "find-id", 100, 10.0)
    assert made.factor("keyfob", "find-id") is None
    assert results((10.0, 15.0)).factor("keyfob", "find-id") == 1.5


def test_a_machine_that_is_slow_for_a_while_changes_no_factor() -> None:
    made = results((10.0, 15.0), (40.0, 60.0), (100.0, 150.0))
    assert made.factor("keyfob", "find-id") == 1.5
    assert made.value("keyfob", "find-id", 100) == 40.0


def test_a_round_that_failed_for_one_size_leaves_the_ratio_of_the_medians() -> None:
    made = results((10.0, 20.0), (10.0, 20.0))
    made.put("keyfob", "find-id", 100, 40.0)
    assert made.factor("keyfob", "find-id") == 2.0


@pytest.mark.parametrize(
    ("large", "flat", "fast"), [(14_000.0, True, True), (16_000.0, False, True), (21_000.0, False, False)]
)
def test_targets_are_met_or_not(large: float, flat: bool, fast: bool) -> None:
    assert [met for _, met in verdicts(results((10_000.0, large)))] == [flat, fast]


def test_a_new_page_keeps_what_was_written_behind_the_figures() -> None:
    facts = {"cpu": "a CPU", "cores": 2, "system": "a system", "filesystem": "ext4", "python": "CPython"}
    facts |= {"load_before": [0.5], "load_after": [1.5]}
    modules = {"keyfob": {"title": "keyfob", "package": None}}
    first = document(results((10.0, 15.0)), modules, (100, 100_000), facts, f"{END}\n\nBecause.\n")
    again = document(results((20.0, 90.0)), modules, (100, 100_000), facts, written_by_hand(first))
    assert "| find by CKA_ID | 20.0 ns | 90.0 ns | 4.50 |" in again
    assert "15.0 ns" not in again
    assert again.endswith(f"{END}\n\nBecause.\n")
    assert again.count(END) == 1
