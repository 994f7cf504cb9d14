"""`python -m bench`: measure, print the table, write the results."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from . import catalogue, machine
from .driver import HERE, BenchError, CallError, compile_program
from .keys import Keys
from .modules import Module, installed, on_postgresql
from .report import WIDTH, as_json, print_report, write_json
from .runner import FULL, QUICK, run

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = HERE / "results"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare keyfob with SoftHSM 2 and NSS's softoken on this machine, in one run of some minutes.",
        epilog="Targets are shown as met or not met but never make the run fail; only an error does.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="under a minute, for a first look and for CI: coarse figures"
    )
    parser.add_argument(
        "--modules", metavar="NAMES", help="of keyfob,softhsm,softoken; all that are installed if absent"
    )
    parser.add_argument(
        "--postgresql",
        metavar="URL",
        help="measure keyfob on this prepared database, too, as postgresql",
    )
    parser.add_argument("--only", metavar="NAMES", help='figures by name, comma-separated, "*" matches: sign-*,start')
    parser.add_argument("--list", action="store_true", help="show the names of the figures and end")
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        help="write the results there; a full run writes bench/results/DATE-MACHINE.json if absent",
    )
    return parser.parse_args(argv)


def _chosen_modules(names: str | None, found: list[Module]) -> list[Module]:
    if names is None:
        return found
    wanted = [name.strip() for name in names.split(",")]
    unknown = set(wanted) - {module.name for module in found}
    if unknown:
        raise BenchError(f"not installed or unknown: {', '.join(sorted(unknown))}")
    return [module for module in found if module.name in wanted]


def _chosen_figures(names: str | None, found: Sequence[catalogue.Figure]) -> list[catalogue.Figure]:
    patterns = [name.strip() for name in (names or "*").split(",")]
    for pattern in patterns:
        if not any(fnmatch(figure.name, pattern) for figure in found):
            raise BenchError(f"no figure is called {pattern}; --list shows them")
    return [figure for figure in found if any(fnmatch(figure.name, pattern) for pattern in patterns)]


def _measure(arguments: argparse.Namespace, console: Console, progress: Console) -> int:
    settings = QUICK if arguments.quick else FULL
    material = Keys()
    everything = catalogue.figures(material, settings.many)
    if arguments.list:
        for figure in everything:
            console.print(f"{figure.name:18} {figure.title}", highlight=False)
        return 0
    found, absent = installed()
    if arguments.postgresql and (shared := on_postgresql(arguments.postgresql)) is not None:
        found.append(shared)
    modules = _chosen_modules(arguments.modules, found)
    figures = _chosen_figures(arguments.only, everything)
    if not modules:
        raise BenchError("no module to measure: " + "; ".join(absent))
    facts = machine.facts()
    with progress.status("compiling") as status:
        compile_program()
        outcome = run(modules, figures, material, settings, status.update)
    outcome.notes += absent
    if facts["load_before"][0] > facts["cores"] / 4:
        outcome.notes.append(
            f"the machine was busy before the run (load {facts['load_before'][0]} on {facts['cores']} cores): "
            "do not publish these figures"
        )
    titles = {module.name: module.title for module in modules}
    print_report(console, outcome, figures, titles, facts, settings)
    file = arguments.json
    if file is None and settings is FULL and figures == list(everything) and modules == found:
        file = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{machine.slug(facts)}.json"
    if file is not None:
        described = {
            module.name: {
                "title": module.title,
                "file": module.path.name,
                "package": machine.package_version(module.package) if module.package else None,
            }
            for module in modules
        }
        write_json(file, as_json(outcome, figures, described, facts, settings))
        progress.print(f"Written to {file}", highlight=False)
    return 1 if outcome.failures else 0


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything could be measured, 1 when a module failed, 2 when there was nothing to measure with."""
    console, progress = Console(width=WIDTH), Console(stderr=True)
    try:
        return _measure(_arguments(argv), console, progress)
    except (BenchError, CallError) as error:
        progress.print(f"bench: {error}", style="bold red", highlight=False)
        return 2
    except KeyboardInterrupt:
        progress.print("bench: interrupted", highlight=False)
        return 130


if __name__ == "__main__":
    sys.exit(main())
