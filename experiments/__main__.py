"""`python -m experiments`: run them, print the table, write the results and docs/experiments.md."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import machine
from bench.driver import BenchError
from bench.modules import Module, installed
from keyfob import __version__

from . import damage, kills, pins, places, sharing
from .document import DOCUMENT, document
from .outcome import Experiment, Outcome
from .subjects import BUILD, HERE, Refused, Subject, compiled, prepare

RESULTS = HERE / "results"


def catalogue() -> list[Experiment]:
    found: list[Experiment] = []
    for room in (kills, damage, pins, sharing, places):
        found += room.experiments()
    return found


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description="What people fear of software tokens, tried on keyfob, SoftHSM 2 and NSS's softoken.",
    )
    parser.add_argument("names", nargs="*", help='experiments, "kill" for all that begin so; all if absent')
    parser.add_argument("--quick", action="store_true", help="few trials, in about a minute")
    parser.add_argument("--trials", type=int, help="as many, with each module")
    parser.add_argument("--modules", default="keyfob,softhsm,softoken", help="keyfob,softhsm,softoken")
    parser.add_argument("--list", action="store_true", help="show the experiments and end")
    return parser.parse_args(argv)


def trials_of(experiment: Experiment, module: str, arguments: argparse.Namespace) -> int:
    if arguments.trials:
        return int(arguments.trials)
    if arguments.quick:
        return experiment.quick
    return experiment.full if module == "keyfob" else experiment.peers


def measure(experiment: Experiment, template: Subject, trials: int) -> dict[str, Any]:
    """One cell of the table, as it is written down."""
    folder = BUILD / "work" / template.name / experiment.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    try:
        found = experiment.run(template, folder, trials)
    except Refused as refused:
        found = Outcome(0, 0, {"not offered:": str(refused)})
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "trials": found.trials,
        "defects": found.bad,
        "figures": found.figures,
        "details": found.details,
        "shown": found.cell(),
        "seconds": round(time.monotonic() - began, 1),
    }


def run(
    modules: list[Module], chosen: list[Experiment], arguments: argparse.Namespace, progress: Console
) -> dict[str, Any]:
    """{experiment: {module: cell}}."""
    templates = {}
    for module in modules:
        for cheap in (True, False):
            folder = BUILD / "templates" / f"{module.name}-{'cheap' if cheap else 'real'}"
            shutil.rmtree(folder, ignore_errors=True)
            templates[module.name, cheap] = prepare(module, folder, cheap=cheap)
    cells: dict[str, Any] = {}
    for experiment in chosen:
        cells[experiment.name] = {"title": experiment.title, "method": experiment.method, "modules": {}}
        for module in modules:
            with progress.status(f"{experiment.title}: {module.title}"):
                cell = measure(
                    experiment, templates[module.name, experiment.cheap], trials_of(experiment, module.name, arguments)
                )
            cells[experiment.name]["modules"][module.name] = cell
            progress.print(
                f"{experiment.name:14} {module.name:9} {cell['shown']}  ({cell['seconds']} s)", highlight=False
            )
    return cells


def show(console: Console, results: dict[str, Any]) -> None:
    table = Table(title="What happened", show_lines=True)
    titles = {name: facts["title"] for name, facts in results["modules"].items()}
    for column in ("", *titles.values()):
        table.add_column(column)
    for row in results["experiments"].values():
        cells = []
        for name in titles:
            cell = row["modules"][name]
            cells.append(f"[red]{cell['shown']}[/red]" if cell["defects"] else cell["shown"])
        table.add_row(row["title"], *cells)
    console.print(table)


def _chosen(names: Sequence[str]) -> list[Experiment]:
    every = catalogue()
    if not names:
        return every
    for name in names:
        if not any(fnmatch(each.name, f"{name}*") for each in every):
            raise BenchError(f"no experiment is called {name}; --list shows them")
    return [each for each in every if any(fnmatch(each.name, f"{name}*") for name in names)]


def main(argv: Sequence[str] | None = None) -> int:
    """0 when keyfob showed no defect, 1 when it did, 2 when there was nothing to experiment with."""
    arguments = _arguments(argv)
    console, progress = Console(width=160), Console(stderr=True)
    try:
        chosen = _chosen(arguments.names)
        if arguments.list:
            for each in chosen:
                console.print(f"{each.name:14} {each.title}", highlight=False)
            return 0
        found, absent = installed()
        modules = [each for each in found if each.name in arguments.modules.split(",")]
        compiled("host.c")
        facts = machine.facts() | {"filesystem": machine.filesystem(HERE)}
        results: dict[str, Any] = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": facts,
            "modules": {
                each.name: {
                    "title": each.title,
                    "version": machine.package_version(each.package) if each.package else __version__,
                }
                for each in modules
            },
            "notes": absent,
            "experiments": run(modules, chosen, arguments, progress),
        }
    except (BenchError, Refused) as problem:
        progress.print(str(problem))
        return 2
    show(console, results)
    whole = not arguments.names and not arguments.quick and not arguments.trials and modules == found
    if whole:
        file = RESULTS / f"{results['date']}-{machine.slug(facts)}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        Path(DOCUMENT).write_text(document(results))
        progress.print(f"Written to {file.relative_to(HERE.parent)} and docs/experiments.md", highlight=False)
    return int(any(row["modules"].get("keyfob", {}).get("defects") for row in results["experiments"].values()))


if __name__ == "__main__":
    sys.exit(main())
