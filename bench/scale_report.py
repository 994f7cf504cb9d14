"""What `make bench-scale` says: tables on the screen, JSON for machines, docs/scale.md for readers."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .cells import SEARCHES
from .driver import HERE
from .maths import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

OURS = "keyfob"
FLAT = 1.5
FIND_LIMIT = 20_000  # nanoseconds
DOCUMENT = HERE.parent / "docs" / "scale.md"

# name: title, unit, whether it is to stay flat
FIGURES: dict[str, tuple[str, str, bool]] = {
    "start": ("start, to the first C_GetInfo", "time", False),
    "login": ("C_Login", "time", False),
    "start-login": ("start and login", "time", True),
    **{f"public-{name}": (f"{title}, no login", "time", True) for name, (title, _) in SEARCHES.items()},
    "public-class-first": ("find by class, first handle, no login", "time", True),
    **{name: (title, "time", True) for name, (title, _) in SEARCHES.items()},
    "find-private": ("find private key by CKA_ID", "time", True),
    "class-first": ("find by class, first handle", "time", True),
    "class-whole": ("find by class, all handles", "time", False),
    "create": ("C_CreateObject, certificate", "time", True),
    "destroy": ("C_DestroyObject, certificate", "time", True),
    "sign": ("ECDSA sign, 16 keys in turn", "time", True),
    "memory-login": ("memory after login", "bytes", True),
    "memory-searched": ("memory after a search for everything", "bytes", False),
    "disk": ("bytes on disk", "bytes", False),
}


@dataclass
class Results:
    """`values`: module -> figure -> size -> a value for each round; `absent`: module -> size -> why there are none."""

    values: dict[str, dict[str, dict[int, list[float]]]] = field(default_factory=dict)
    absent: dict[str, dict[int, str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def put(self, module: str, figure: str, size: int, value: float) -> None:
        self.values.setdefault(module, {}).setdefault(figure, {}).setdefault(size, []).append(value)

    def value(self, module: str, figure: str, size: int) -> float | None:
        """The median of all rounds."""
        found = self.values.get(module, {}).get(figure, {}).get(size)
        return statistics.median(found) if found else None

    def factor(self, module: str, figure: str) -> float | None:
        """From the smallest to the largest size that was measured, within the same round: a median of ratios."""
        found = self.values.get(module, {}).get(figure, {})
        if len(found) < 2:
            return None
        small, large = found[min(found)], found[max(found)]
        if len(small) != len(large):
            return statistics.median(large) / statistics.median(small)
        return statistics.median(b / a for a, b in zip(small, large, strict=True))


def shown(unit: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1e6:,.1f} MB" if unit == "bytes" else show("time", value)


def verdicts(results: Results) -> list[tuple[str, bool]]:
    """The targets of keyfob, with what was measured."""
    found = []
    for figure, (label, unit, flat) in FIGURES.items():
        factor = results.factor(OURS, figure)
        if flat and factor is not None:
            found.append((f"{label}: at most {FLAT} times; {factor:.2f}", factor <= FLAT))
        sizes = results.values.get(OURS, {}).get(figure, {})
        if "find-" in figure and sizes:
            most = max(statistics.median(values) for values in sizes.values())
            found.append((f"{label}: under {shown(unit, FIND_LIMIT)}; {shown(unit, most)}", most < FIND_LIMIT))
    return found


def _rows(results: Results, module: str, sizes: Sequence[int]) -> list[list[str]]:
    rows = []
    for figure, (label, unit, _) in FIGURES.items():
        factor = results.factor(module, figure)
        cells = [shown(unit, results.value(module, figure, size)) for size in sizes]
        rows.append([label, *cells, "-" if factor is None else f"{factor:,.2f}"])
    return rows


def print_tables(console: Console, results: Results, titles: dict[str, str], sizes: Sequence[int]) -> None:
    """One table for each module, then the targets."""
    for name, title in titles.items():
        table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
        table.add_column("token objects")
        for column in (*(f"{size:,}" for size in sizes), "factor"):
            table.add_column(column, justify="right")
        for row in _rows(results, name, sizes):
            table.add_row(*row)
        console.print(table)
        for size, reason in results.absent.get(name, {}).items():
            console.print(f"{title}, {size:,} objects: {reason}", highlight=False)
    for line, met in verdicts(results):
        console.print(f"{'met' if met else 'NOT MET':8} {line}", style=None if met else "bold red", highlight=False)
    for failure in results.failures:
        console.print(failure, style="bold red", highlight=False)


def as_json(
    results: Results, modules: dict[str, dict[str, str | None]], sizes: Sequence[int], facts: dict[str, Any]
) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": facts,
        "sizes": list(sizes),
        "units": {"time": "nanoseconds", "bytes": "bytes"},
        "figures": {name: {"title": title, "unit": unit} for name, (title, unit, _) in FIGURES.items()},
        "modules": {
            name: {
                **described,
                "medians": {
                    figure: {size: statistics.median(values) for size, values in sized.items()}
                    for figure, sized in results.values.get(name, {}).items()
                },
                "rounds": results.values.get(name, {}),
                "absent": results.absent.get(name, {}),
            }
            for name, described in modules.items()
        },
        "targets": [{"target": line, "met": met} for line, met in verdicts(results)],
        "failures": results.failures,
    }


def circumstances(facts: dict[str, Any], modules: dict[str, dict[str, str | None]]) -> str:
    """When, where and beside what else: without this the figures say nothing."""
    versions = ", ".join(f"{each['title']} {each['package'] or ''}".strip() for each in modules.values())
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {facts['cpu']}, {facts['cores']} cores, {facts['system']}, "
        f"files on {facts['filesystem']}, {facts['python']}; load {facts['load_before'][0]} before the run and "
        f"{facts['load_after'][0]} at its end, about 1 of it the run's own. {versions}."
    )


HEAD = """# What the number of objects costs

`make bench-scale` measures this and writes this page down to "Why"; `BENCH=--quick` takes two minutes and writes
nothing. A token holds people: a P-256 private key, its public key and its certificate each. keyfob's tokens are filled
through its store, SoftHSM's and softoken's through C_CreateObject as far as the time allows. All sizes are measured in
turns, each step of all sizes before the next step, so that what else the machine does meets all alike; a value is the
median of the rounds, the factor the median of the rounds' ratios from the smallest to the largest size.

Every search is for another person at random. Of the 33 persons of the smallest token each was met before, and keyfob
has it in memory; of the 33,333 of the largest nearly none was, so that its row is read, its MAC checked, its record
opened.
"""
END = "## Why"


def document(
    results: Results,
    modules: dict[str, dict[str, str | None]],
    sizes: Sequence[int],
    facts: dict[str, Any],
    rest: str,
) -> str:
    """The page of a run; `rest` is what somebody wrote behind it."""
    lines = [HEAD, circumstances(facts, modules), ""]
    columns = " | ".join(f"{size:,}" for size in sizes)
    for name, described in modules.items():
        lines += [f"## {described['title']}", "", f"| Token objects | {columns} | Factor |"]
        lines.append(f"|---|{'--:|' * (len(sizes) + 1)}")
        lines += [f"| {' | '.join(row)} |" for row in _rows(results, name, sizes)]
        absent = results.absent.get(name, {})
        lines += ["", *(f"- {size:,} objects: {reason}." for size, reason in absent.items()), *([""] if absent else [])]
    lines += ["## Targets", "", "| | |", "|---|---|"]
    lines += [f"| {line} | {'met' if met else '**not met**'} |" for line, met in verdicts(results)]
    return "\n".join([*lines, "", rest])


def written_by_hand(page: str) -> str:
    """What a page has from END on."""
    _, end, rest = page.partition(END)
    return end + rest
