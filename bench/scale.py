"""`make bench-scale`: what the number of objects on a token costs, from 100 to 100,000, beside SoftHSM 2 and softoken.

Peers are filled through C_CreateObject as far as the time allows; how long the rest would have taken is worked out from
the first and the second half (their creation is partly quadratic) and stands in place of their figures.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from keyfob.spec.constants import CKA, CKM, CKO

from . import machine
from .driver import BUILD, HERE, BenchError, CallError, Process, compile_program
from .keys import DIGEST, TRUE, Template, ulong, words
from .maths import show
from .modules import PIN, Module, Token, installed
from .population import PER_PERSON, Person, fill_keyfob, objects, people

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SIZES = (100, 1_000, 10_000, 100_000)
BUDGET = 90  # seconds for filling one token of a peer
NEW_PEOPLE = 40
STARTS = 7
RUNS = 200  # of a search, fewer where one takes long
WARM_UP = 1500  # runs before them that are not counted: what a process meets that has been at work for a second
LONGEST = 1.5  # seconds for all runs of one kind of search
SIGNING_KEYS, ROUNDS = 16, 25
EVERYTHING = 1 << 30
FLAT = 1.5
FIND_LIMIT = 20_000  # nanoseconds
RESULTS = HERE / "results" / "scale.json"
CERTIFICATE, PRIVATE_KEY = ({CKA.CLASS: ulong(each)} for each in (CKO.CERTIFICATE, CKO.PRIVATE_KEY))


def _key_by_id(person: Person) -> Template:
    return {CKA.ID: person.private[CKA.ID], **PRIVATE_KEY}


def _by(*attributes: int) -> Callable[[Person], Template]:
    return lambda person: {**CERTIFICATE, **{each: person.certificate[each] for each in attributes}}


SEARCHES: dict[str, tuple[str, Callable[[Person], Template]]] = {
    "find-id": ("find by CKA_ID", _by(CKA.ID)),
    "find-label": ("find by CKA_LABEL", _by(CKA.LABEL)),
    "find-issuer": ("find by issuer and serial", _by(CKA.ISSUER, CKA.SERIAL_NUMBER)),
    "find-subject": ("find by subject", _by(CKA.SUBJECT)),
}
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
    "memory-searched": ("memory after reading all", "bytes", False),
    "disk": ("bytes on disk", "bytes", False),
}


@dataclass
class Results:
    """`values`: module -> figure -> size -> median; `absent`: module -> size -> why there are none."""

    values: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    absent: dict[str, dict[int, str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def put(self, module: str, figure: str, size: int, value: float) -> None:
        self.values.setdefault(module, {}).setdefault(figure, {})[size] = value

    def factor(self, module: str, figure: str) -> float | None:
        """From the smallest to the largest size that was measured."""
        found = self.values.get(module, {}).get(figure, {})
        return found[max(found)] / found[min(found)] if len(found) > 1 else None


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


class Cell:
    """One module's token with so many objects."""

    def __init__(self, module: Module, token: Token, folder: Path, population: Sequence[Person], size: int) -> None:
        self.module = module
        self.token = token
        self.folder = folder
        self.size = size
        self.whole = population[: size // PER_PERSON]
        self._choice = random.Random(size)

    def start(self) -> Process:
        command = [str(compile_program()), str(self.module.path)]
        if self.token.parameters is not None:
            command.append(self.token.parameters)
        return Process(command, self.token.environment, self.folder.with_suffix(".log"))

    def log_in(self, process: Process) -> int:
        """Nanoseconds of C_Login."""
        label, pin = self.token.label.encode().hex(), PIN.encode().hex()
        return int(process.ask(f"open {label} {pin} 1", 600)["nanoseconds"])

    def fill(self, templates: Sequence[Template], limit: float) -> dict[str, Any]:
        """Through the module, until the time is over."""
        lines = self.folder.with_suffix(".objects")
        with lines.open("w") as file:
            file.writelines(words(template) + "\n" for template in templates)
        process = self.start()
        try:
            self.log_in(process)
            return process.ask(f"fill {limit * 1000:.0f} {lines}", limit + 120)
        finally:
            process.close()
            lines.unlink()

    def disk(self) -> int:
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def some(self, count: int) -> list[Person]:
        """At random; the same ones again only where there are not enough."""
        return (
            self._choice.sample(self.whole, min(count, len(self.whole)))
            if count <= len(self.whole)
            else (self._choice.choices(self.whole, k=count))
        )

    def search(self, process: Process, template_of: Callable[[Person], Template], expected: int = 1) -> float:
        """The median of as many as the time allows, each of another person, after a warm-up."""
        probe = self._searched(process, [template_of(person) for person in self.some(2)], expected)
        runs = int(min(RUNS, max(5, LONGEST * 1e9 / max(probe))))
        if runs == RUNS:
            self._searched(process, [template_of(person) for person in self.some(WARM_UP)], expected)
        return statistics.median(self._searched(process, [template_of(person) for person in self.some(runs)], expected))

    def _searched(self, process: Process, templates: list[Template], expected: int) -> list[int]:
        answer = process.ask(f"search 16 {' / '.join(map(words, templates))}", 600)
        if set(answer["found"]) != {expected}:
            raise CallError(f"a search found {sorted(set(answer['found']))} objects, not {expected}", "")
        samples: list[int] = answer["samples"]
        return samples

    def by_class(self, process: Process, limit: int, runs: int) -> float:
        templates = " / ".join([words({**CERTIFICATE, CKA.TOKEN: TRUE})] * runs)
        samples: list[int] = process.ask(f"search {limit} {templates}", 600)["samples"]
        return statistics.median(samples)

    def handles(self, process: Process, templates: list[Template]) -> str:
        return " ".join(map(str, process.ask(f"search 1 {' / '.join(map(words, templates))}", 600)["handles"]))


def measure(cell: Cell, newcomers: Sequence[Person]) -> Iterator[tuple[str, float]]:
    """(figure, median) of everything in FIGURES."""
    yield "disk", cell.disk()
    starts, logins, resident = [], [], []
    for _ in range(STARTS):
        process = cell.start()
        starts.append(int(process.greeting["nanoseconds"]))
        logins.append(cell.log_in(process))
        resident.append(process.resident())
        process.close()
    yield "start", statistics.median(starts)
    yield "login", statistics.median(logins)
    yield "start-login", statistics.median(map(sum, zip(starts, logins, strict=True)))
    yield "memory-login", statistics.median(resident)
    process = cell.start()
    try:
        process.ask(f"public {cell.token.label.encode().hex()}")
        for name, (_, template_of) in SEARCHES.items():
            yield f"public-{name}", cell.search(process, template_of)
        yield "public-class-first", cell.by_class(process, 1, 5)
    finally:
        process.close()
    process = cell.start()
    try:
        cell.log_in(process)
        for name, (_, template_of) in SEARCHES.items():
            yield name, cell.search(process, template_of)
        yield "find-private", cell.search(process, _key_by_id)
        yield "class-first", cell.by_class(process, 1, 5)
        keys = cell.handles(process, [_key_by_id(person) for person in cell.some(SIGNING_KEYS)])
        signed = process.ask(f"turn {ROUNDS} {CKM.ECDSA} {DIGEST.hex()} {keys}", 600)["samples"]
        yield "sign", statistics.median(signed[SIGNING_KEYS:])
        made = process.ask(f"create {' / '.join(words(person.certificate) for person in newcomers)}", 600)
        yield "create", statistics.median(made["samples"])
        leaving = cell.whole[:: max(1, len(cell.whole) // 30)][:30]
        gone = cell.handles(process, [SEARCHES["find-issuer"][1](person) for person in leaving])
        yield "destroy", statistics.median(process.ask(f"destroy {gone}", 600)["samples"])
        yield "class-whole", cell.by_class(process, EVERYTHING, 1)
        process.ask(f"search {EVERYTHING} {words({CKA.TOKEN: TRUE})}", 600)
        yield "memory-searched", process.resident()
    finally:
        process.close()


def run(modules: Sequence[Module], sizes: Sequence[int], budget: float, say: Callable[[str], None]) -> Results:
    """Each size of all modules before the next size."""
    say(f"making {max(sizes) // PER_PERSON:,} persons with keys and certificates")
    everybody = list(islice(people(), max(sizes) // PER_PERSON + 1))
    newcomers = list(islice(people(1 << 24), NEW_PEOPLE))
    results = Results()
    BUILD.mkdir(parents=True, exist_ok=True)
    last: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="scale-", dir=BUILD) as place:
        for size in sizes:
            for module in modules:
                if module.name in last and last[module.name]["made"] < last[module.name]["wanted"]:
                    took = duration(seconds_for(size, last[module.name]))
                    results.absent.setdefault(module.name, {})[size] = f"not measured: would take {took} to fill"
                    continue
                folder = Path(place) / f"{module.name}-{size}"
                folder.mkdir()
                cell = Cell(module, module.prepare(folder), folder, everybody, size)
                population = objects(everybody, size)
                say(f"{module.title}: filling with {size:,} objects")
                try:
                    if module.name == "keyfob":
                        fill_keyfob(next(folder.glob("tokens/*.keyfob")), PIN, population)
                    else:
                        answer = cell.fill(population, budget)
                        last[module.name] = answer | {"wanted": size}
                        if answer["made"] < size:
                            took = duration(seconds_for(size, answer))
                            results.absent.setdefault(module.name, {})[size] = (
                                f"not measured: would take {took} to fill"
                            )
                            continue
                    for figure, value in measure(cell, newcomers):
                        say(f"{module.title}, {size:,} objects: {FIGURES[figure][0]}")
                        results.put(module.name, figure, size, value)
                except CallError as failure:
                    results.failures.append(f"{module.title}, {size:,} objects: {failure}")
    return results


def _shown(unit: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1e6:,.1f} MB" if unit == "bytes" else show("time", value)


def print_tables(console: Console, results: Results, titles: dict[str, str], sizes: Sequence[int]) -> None:
    """One table for each module, then the targets."""
    for name, title in titles.items():
        table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
        table.add_column("token objects")
        for size in sizes:
            table.add_column(f"{size:,}", justify="right")
        table.add_column("factor", justify="right")
        for figure, (label, unit, _) in FIGURES.items():
            found = results.values.get(name, {}).get(figure, {})
            factor = results.factor(name, figure)
            cells = [_shown(unit, found.get(size)) for size in sizes]
            table.add_row(label, *cells, "-" if factor is None else f"{factor:,.2f}")
        console.print(table)
        for size, reason in results.absent.get(name, {}).items():
            console.print(f"{title}, {size:,} objects: {reason}", highlight=False)
    for line, met in verdicts(results):
        console.print(f"{'met' if met else 'NOT MET':8} {line}", style=None if met else "bold red", highlight=False)
    for failure in results.failures:
        console.print(failure, style="bold red", highlight=False)


def verdicts(results: Results) -> list[tuple[str, bool]]:
    """The targets of keyfob, with what was measured."""
    found = []
    for figure, (label, unit, flat) in FIGURES.items():
        factor = results.factor("keyfob", figure)
        if flat and factor is not None:
            found.append((f"{label}: at most {FLAT} times; {factor:.2f}", factor <= FLAT))
        values = results.values.get("keyfob", {}).get(figure, {})
        if "find-" in figure and values:
            most = max(values.values())
            found.append((f"{label}: under {_shown(unit, FIND_LIMIT)}; {_shown(unit, most)}", most < FIND_LIMIT))
    return found


def as_json(results: Results, titles: dict[str, str], facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": facts,
        "units": {"time": "nanoseconds, medians", "bytes": "bytes"},
        "figures": {name: {"title": title, "unit": unit} for name, (title, unit, _) in FIGURES.items()},
        "modules": {
            name: {"title": title, "values": results.values.get(name, {}), "absent": results.absent.get(name, {})}
            for name, title in titles.items()
        },
        "targets": [{"target": line, "met": met} for line, met in verdicts(results)],
        "failures": results.failures,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything could be measured, 1 when a module failed, 2 when there was nothing to measure with."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of objects, comma-separated")
    parser.add_argument("--modules", help="of keyfob,softhsm,softoken; all that are installed if absent")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for filling one token of a peer")
    parser.add_argument("--json", type=Path, help="of the results; a full run's goes to bench/results")
    arguments = parser.parse_args(argv)
    console, progress = Console(width=100), Console(stderr=True)
    sizes = [int(size) for size in arguments.sizes.split(",")]
    found, absent = installed()
    modules = [module for module in found if arguments.modules is None or module.name in arguments.modules.split(",")]
    try:
        facts = machine.facts()
        with progress.status("compiling") as status:
            compile_program()
            results = run(modules, sizes, arguments.budget, status.update)
    except (BenchError, CallError) as error:
        progress.print(f"bench: {error}", style="bold red", highlight=False)
        return 2
    titles = {module.name: module.title for module in modules}
    print_tables(console, results, titles, sizes)
    for line in absent:
        console.print(line, highlight=False)
    file = arguments.json or (RESULTS if tuple(sizes) == SIZES and arguments.modules is None else None)
    if file is not None:
        file.write_text(json.dumps(as_json(results, titles, facts), indent=1) + "\n")
        progress.print(f"Written to {file}", highlight=False)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
