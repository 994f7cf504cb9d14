"""A search of a session holds a part of its answer at most."""

from __future__ import annotations

import pytest

from keyfob.token.search import FIRST, PART, Search


class Many:
    """As a token with so many objects, all of which match."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[int] = []

    def matching_in_memory(self, _: object) -> list[int]:
        return [-1]

    def stored_matching(self, _: object, __: object, after: int, most: int) -> tuple[list[int], int | None]:
        self.asked.append(most)
        found = list(range(after + 1, min(after + most, self.count) + 1))
        return found, found[-1] if found and found[-1] < self.count else None


@pytest.mark.parametrize("at_once", [1, 10, 300])
def test_a_long_answer_is_never_held_as_a_whole(at_once: int) -> None:
    many = Many(10_000)
    search = Search(many, [])  # type: ignore[arg-type]
    assert many.asked == [FIRST]
    told: list[int] = []
    while taken := search.take(at_once):
        told += taken
        assert len(search._hits) <= PART + FIRST
        assert sum(many.asked) <= len(told) + PART + FIRST
    assert told == [*range(1, 10_001), -1]
