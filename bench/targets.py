"""What the project expects of keyfob's figures, and what follows from them. Printed, never asserted."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .maths import Series, Unit, show

OURS = "keyfob"
NOT_MEASURED = "not measured"
FLAT = 1.25  # a look-up that takes at most this many times as long counts as flat

Results = Mapping[str, Mapping[str, Series]]


@dataclass(frozen=True)
class Verdict:
    """One target and the figures that it needs. `met` is None where there is no verdict."""

    target: str
    figures: tuple[str, ...]
    measured: str
    met: bool | None


def medians_of_ratios(above: Series | None, below: Series | None) -> float | None:
    """The median of one series over another, batch by batch of the same round, so that slow drifts cancel out.

    Series of unequal length (something failed on the way) have their medians divided instead.
    """
    if above is None or below is None or above.median is None or below.median is None:
        return None
    if len(above.values) == len(below.values):
        return statistics.median(a / b for a, b in zip(above.values, below.values, strict=True))
    return above.median / below.median


def scaling(results: Results, kind: str, module: str) -> float | None:
    """How many times the rate of one thread two threads reach; `kind` is "rsa" or "ec"."""
    one = results.get(f"sign-{kind}", {}).get(module)
    two = results.get(f"sign-{kind}-2", {}).get(module)
    if one is None:
        return None
    rate = Series("rate", [1e9 / value for value in one.values], one.unsupported, one.failure)
    return medians_of_ratios(two, rate)


def growth(results: Results, module: str) -> float | None:
    """How many times as long a look-up takes among many objects as among few."""
    return medians_of_ratios(results.get("find-many", {}).get(module), results.get("find-few", {}).get(module))


def _median(results: Results, figure: str, module: str = OURS) -> float | None:
    series = results.get(figure, {}).get(module)
    return None if series is None else series.median


def _limit(target: str, figures: tuple[str, ...], value: float | None, limit: float, unit: Unit) -> Verdict:
    """A time must stay below its limit, a ratio must reach it."""
    if value is None:
        return Verdict(target, figures, NOT_MEASURED, None)
    return Verdict(target, figures, show(unit, value), value < limit if unit == "time" else value >= limit)


def _faster_than_peers(results: Results, peers: Mapping[str, str]) -> Iterator[Verdict]:
    """Against the better of a peer's two ways to sign, for softoken's token keys are slow and NSS works around that."""
    ours = _median(results, "sign-ec")
    for name, title in peers.items():
        theirs = [_median(results, figure, name) for figure in ("sign-ec", "sign-ec-session")]
        best = min((value for value in theirs if value is not None), default=None)
        target, figures = f"ECDSA P-256 sign faster than {title}'s best", ("sign-ec",)
        if ours is None or best is None:
            yield Verdict(target, figures, NOT_MEASURED, None)
        else:
            yield Verdict(target, figures, f"{show('time', ours)} against {show('time', best)}", ours < best)


def _beside_bare(results: Results, kind: str) -> tuple[str, float | None]:
    """How much longer keyfob takes than cryptography alone, in words and as a ratio; `kind` is "rsa" or "ec"."""
    figures = results.get(f"sign-{kind}", {})
    over = medians_of_ratios(figures.get(OURS), figures.get("bare"))
    return NOT_MEASURED if over is None else f"{(over - 1) * 100:+.1f} %", over


def _threads(results: Results, kind: str, title: str, cores: int) -> Verdict:
    target, figures = f"{title}: 2 threads at least 1.8 times 1", (f"sign-{kind}", f"sign-{kind}-2")
    if cores < 2:
        return Verdict(target, figures, "needs 2 cores", None)
    return _limit(target, figures, scaling(results, kind, OURS), 1.8, "ratio")


def verdicts(results: Results, peers: Mapping[str, str], cores: int) -> list[Verdict]:
    """The targets whose figures were asked for; a figure that failed leaves its target without a verdict.

    `peers` are the other modules' titles by name; `cores` is what the process may run on.
    """
    rsa, rsa_over = _beside_bare(results, "rsa")
    ec, _ = _beside_bare(results, "ec")
    slope = growth(results, OURS)
    flat, flat_figures = f"find by CKA_ID flat: many at most {FLAT} times few", ("find-few", "find-many")
    found = (
        _limit("start in 50 ms", ("start",), _median(results, "start"), 50e6, "time"),
        _limit("read of 3 attributes under 4 us", ("attributes",), _median(results, "attributes"), 4e3, "time"),
        _limit("find by CKA_ID among many under 20 us", ("find-many",), _median(results, "find-many"), 20e3, "time"),
        Verdict(flat, flat_figures, NOT_MEASURED, None)
        if slope is None
        else Verdict(flat, flat_figures, show("ratio", slope), slope <= FLAT),
        _limit("ECDSA P-256 sign under 30 us", ("sign-ec",), _median(results, "sign-ec"), 30e3, "time"),
        *_faster_than_peers(results, peers),
        Verdict(
            "RSA-2048 sign within 5 % of bare cryptography",
            ("sign-rsa",),
            rsa,
            None if rsa_over is None else rsa_over <= 1.05,
        ),
        Verdict("(ECDSA P-256 sign beside bare cryptography)", ("sign-ec",), ec, None),
        _threads(results, "rsa", "RSA-2048", cores),
        _threads(results, "ec", "ECDSA P-256", cores),
    )
    return [verdict for verdict in found if all(figure in results for figure in verdict.figures)]
