"""`make bench-scale`: what the number of objects on a token costs, from 100 to 100,000, beside SoftHSM 2 and softoken.

All tokens are filled first and then measured in turns. Peers are filled through C_CreateObject as far as the time
allows; how long the rest would have taken is worked out from the first and the second half (their creation is partly
quadratic) and stands in place of their figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from . import machine
from .cells import STEPS, Cell, Step
from .driver import BUILD, HERE, BenchError, CallError, compile_program
from .modules import PIN, Module, installed
from .population import PER_PERSON, fill_keyfob, objects, people
from .runner import rotated
from .scale_report import DOCUMENT, OURS, Results, as_json, document, print_tables, written_by_hand

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .population import Person


@dataclass(frozen=True)
class Settings:
    """`budget`: seconds for filling one token of a peer. `starts`, `rounds`: how often."""

    sizes: tuple[int, ...]
    budget: float
    starts: int
    rounds: int

    def times(self, often: str) -> int:
        return {"once": 1, "starts": self.starts}.get(often, self.rounds)


FULL = Settings((100, 1_000, 10_000, 100_000), budget=90, starts=9, rounds=7)
QUICK = Settings((100, 1_000, 10_000), budget=6, starts=3, rounds=3)


def seconds_for(count: int, answer: dict[str, Any]) -> float:
    """How long filling would take: a*n + b*n*n through what was made in half of the time and in all of it."""
    made, took = answer["made"], answer["nanoseconds"] / 1e9
    half, half_took = answer["half_made"], answer["half"] / 1e9
    if not half or half == made:
        return float(took * count / made)
    # Noise must not make it worse than quadratic altogether.
    bend = min(max((took / made - half_took / half) / (made - half), 0), took / made**2)
    slope = took / made - bend * made
    return float(slope * count + bend * count * count)


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:,.0f} min"


def run(modules: Sequence[Module], settings: Settings, say: Callable[[str], None]) -> Results:
    """Fill all tokens, then measure each step of all of them before the next step."""
    say(f"making {max(settings.sizes) // PER_PERSON:,} persons with keys and certificates")
    everybody = list(islice(people(), max(settings.sizes) // PER_PERSON + 1))
    results = Results()
    BUILD.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-", dir=BUILD)))
        cells: list[Cell] = []
        for module in modules:
            cells += _filled(module, place, everybody, settings, results, say)
        for cell in cells:
            stack.callback(cell.close)
        for often, steps in groupby(STEPS, key=lambda step: step.often):
            _measure(list(steps), cells, settings.times(often), results, say)
    return results


def _filled(
    module: Module,
    place: Path,
    everybody: Sequence[Person],
    settings: Settings,
    results: Results,
    say: Callable[[str], None],
) -> list[Cell]:
    """A module's tokens, as many as can be filled in time."""
    cells: list[Cell] = []
    absent = results.absent.setdefault(module.name, {})
    answer: dict[str, Any] = {}
    for size in settings.sizes:
        if absent:
            absent[size] = f"not measured, filling would take {duration(seconds_for(size, answer))}"
            continue
        folder = place / f"{module.name}-{size}"
        folder.mkdir()
        cell = Cell(module, module.prepare(folder), folder, everybody, size)
        population = objects(everybody, size)
        say(f"{module.title}: filling with {size:,} objects")
        try:
            if module.name == OURS:
                fill_keyfob(next(folder.glob("tokens/*.keyfob")), PIN, population)
            else:
                answer = cell.fill(population, settings.budget)
                if answer["made"] < size:
                    absent[size] = f"not measured, filling would take {duration(seconds_for(size, answer))}"
                    continue
        except CallError as failure:
            results.failures.append(f"{module.title}, filling with {size:,} objects: {failure}")
            break
        cells.append(cell)
    return cells


def _measure(
    steps: Sequence[Step], cells: Sequence[Cell], rounds: int, results: Results, say: Callable[[str], None]
) -> None:
    failed: set[tuple[Step, Cell]] = set()
    for turn in range(rounds):
        for step in steps:
            say(f"round {turn + 1} of {rounds}: {', '.join(step.figures)}")
            for cell in rotated(cells, turn):
                if (step, cell) in failed:
                    continue
                try:
                    values = step.take(cell)
                except CallError as failure:
                    failed.add((step, cell))
                    where = f"{cell.module.title}, {cell.size:,} objects, {step.figures[0]}"
                    results.failures.append(f"{where}: {failure}")
                    continue
                for figure, value in zip(step.figures, values, strict=True):
                    results.put(cell.module.name, figure, cell.size, value)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes: up to 10,000 objects, few rounds")
    parser.add_argument("--sizes", help="numbers of objects, comma-separated")
    parser.add_argument("--modules", help="of keyfob,softhsm,softoken; all that are installed if absent")
    parser.add_argument("--budget", type=float, help="seconds for filling one token of a peer")
    parser.add_argument(
        "--json", type=Path, help="of the results; a full run's goes to bench/results, see docs/scale.md"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything could be measured, 1 when a module failed, 2 when there was nothing to measure with."""
    arguments = _arguments(argv)
    console, progress = Console(width=100), Console(stderr=True)
    settings = QUICK if arguments.quick else FULL
    sizes = tuple(sorted(int(size) for size in arguments.sizes.split(","))) if arguments.sizes else settings.sizes
    budget = arguments.budget if arguments.budget is not None else settings.budget
    found, absent = installed()
    modules = [module for module in found if arguments.modules is None or module.name in arguments.modules.split(",")]
    is_full = settings is FULL and sizes == FULL.sizes and modules == found
    try:
        if not modules or min(sizes) < FULL.sizes[0]:
            raise BenchError(f"nothing to measure: no such module, or fewer than {FULL.sizes[0]} objects")
        facts = machine.facts() | {"filesystem": machine.filesystem(HERE)}
        with progress.status("compiling") as status:
            compile_program()
            results = run(modules, Settings(sizes, budget, settings.starts, settings.rounds), status.update)
        facts["load_after"] = [round(load, 2) for load in os.getloadavg()]
    except (BenchError, CallError) as error:
        progress.print(f"bench: {error}", style="bold red", highlight=False)
        return 2
    titles = {module.name: module.title for module in modules}
    print_tables(console, results, titles, sizes)
    for line in absent:
        console.print(line, highlight=False)
    console.print(f"load {facts['load_before'][0]} before, {facts['load_after'][0]} after", highlight=False)
    described = {
        module.name: {
            "title": module.title,
            "package": machine.package_version(module.package) if module.package else None,
        }
        for module in modules
    }
    file = arguments.json
    if is_full:
        name = f"scale-{datetime.now(UTC):%Y-%m-%d}-{machine.slug(facts)}.json"
        file = file or HERE / "results" / name
        rest = written_by_hand(DOCUMENT.read_text()) if DOCUMENT.exists() else ""
        DOCUMENT.write_text(document(results, described, sizes, facts, rest))
    if file is not None:
        file.write_text(json.dumps(as_json(results, described, sizes, facts), indent=1) + "\n")
        progress.print(f"Written to {file}", highlight=False)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
