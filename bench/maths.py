"""From raw batches to medians, spreads, ratios and words. Times are nanoseconds of one operation, rates per second."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Unit = Literal["time", "rate", "ratio"]  # a time is better when small, the other two when large
EQUAL = 0.03  # closer than this, two figures are called equal: the machine's noise is about as large


@dataclass
class Series:
    """All values of one figure of one module, or the reason why there is none (`unsupported`, `failure`)."""

    unit: Unit
    values: list[float] = field(default_factory=list)
    unsupported: str = ""
    failure: str = ""

    @property
    def median(self) -> float | None:
        """The middle value; None without values."""
        return statistics.median(self.values) if self.values and not self.failure else None

    @property
    def spread(self) -> float | None:
        """Half of the distance between the quartiles, as a fraction of the median; None for fewer than 4 values."""
        middle = self.median
        if middle is None or len(self.values) < 4 or middle == 0:
            return None
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return (high - low) / 2 / middle

    def add(self, answer: dict[str, Any]) -> None:
        """Take in one batch as p11bench reports it: `samples` one by one, else one value of all `lanes` together."""
        if "nanoseconds" in answer:
            self.values.append(float(answer["nanoseconds"]))
        elif "samples" in answer:
            self.values.extend(map(float, answer["samples"]))
        else:
            per_second = lane_rate(answer["lanes"])
            self.values.append(per_second if self.unit == "rate" else 1e9 / per_second)


def lane_rate(lanes: Sequence[Sequence[int]]) -> float:
    """Operations in a second of all lanes together, each [operations, nanoseconds]; lanes end a chunk apart."""
    return sum(operations * 1e9 / nanoseconds for operations, nanoseconds in lanes)


def advantage(unit: Unit, ours: float, theirs: float) -> float:
    """How many times better `ours` is: above 1 better, whatever the unit."""
    return theirs / ours if unit == "time" else ours / theirs


def compare(unit: Unit, ours: float, theirs: float) -> str:
    """`ours` in words beside `theirs`: "3.2x faster", "1.4x slower", "equal"."""
    times = advantage(unit, ours, theirs)
    if abs(times - 1) <= EQUAL:
        return "equal"
    word = "faster" if times > 1 else "slower"
    return f"{_significant(max(times, 1 / times))}x {word}"


def _significant(value: float) -> str:
    """Three digits that mean something, thousands separated: 0.524, 5.24, 52.4, 524, 52,400."""
    for digits, limit in enumerate((99.95, 9.995, 0.9995)):  # from here on, rounding leads to the next power of ten
        if value >= limit:
            return f"{value:,.{digits}f}"
    return f"{value:.3f}"


def show(unit: Unit, value: float) -> str:
    """A value with its unit: "524 ns", "5.24 us", "35.1 ms", "1.20 s", "1,402 /s", "1.95 x"."""
    if unit == "rate":
        return f"{value:,.0f} /s"
    if unit == "ratio":
        return f"{value:.2f} x" if value < 100 else f"{value:,.0f} x"
    for limit, size, name in ((1e3, 1, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms")):
        if value < limit:
            return f"{_significant(value / size)} {name}"
    return f"{_significant(value / 1e9)} s"


def show_spread(spread: float | None) -> str:
    """The spread as "±2%"; nothing where it is unknown."""
    return "" if spread is None else f"±{spread * 100:.0f}%"
