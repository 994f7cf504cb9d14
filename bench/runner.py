"""The order of the measurements: batches of all modules in turns, so that the machine's noise hits all alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from keyfob.spec.constants import CKM

from . import keys
from .driver import BUILD, BenchError, CallError
from .machine import filesystem
from .maths import Series
from .workers import Baseline, Worker, memory_folder, population_of

if TYPE_CHECKING:
    from .catalogue import Figure, Stage
    from .modules import Module

Results = dict[str, dict[str, Series]]  # figure -> module -> its values
Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How long and how often. A batch lasts `batch` microseconds; `limit` is seconds for filling one token."""

    rounds: int
    starts: int
    batch: int
    many: int
    limit: float


FULL = Settings(rounds=15, starts=21, batch=100_000, many=10_000, limit=90)
QUICK = Settings(rounds=5, starts=6, batch=25_000, many=2_000, limit=4)


@dataclass
class Outcome:
    """Everything that was measured. `libraries`: what each module says of itself; `notes`: what a reader must know."""

    results: Results = field(default_factory=dict)
    filesystems: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def fail(self, series: Series, module: str, figure: Figure, failure: CallError) -> None:
        """Record why there is no value; what a module does not offer is no error."""
        if failure.unsupported:
            series.unsupported = str(failure)
        else:
            series.failure = str(failure)
            self.failures.append(f"{module}, {figure.title}: {failure}")


def rotated(items: Sequence[T], turn: int) -> list[T]:
    """The items beginning with another one each turn: nobody is always first after the pause."""
    start = turn % len(items) if items else 0
    return [*items[start:], *items[:start]]


def run(
    modules: Sequence[Module], figures: Sequence[Figure], material: keys.Keys, settings: Settings, say: Progress
) -> Outcome:
    """Measure the figures on fresh tokens of all modules. `say` is told what is going on."""
    outcome = Outcome({figure.name: {} for figure in figures})
    BUILD.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokens-", dir=BUILD)))
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=memory_folder(disk))))
        outcome.filesystems = {"tokens": filesystem(disk), "filled tokens": filesystem(memory)}
        able, workers = _prepare(modules, figures, material, settings, outcome, disk, memory, say)
        for worker in workers.values():
            stack.callback(worker.close)
        starts = [figure for figure in figures if figure.stage == "start"]
        for turn in range(settings.starts if starts else 0):
            say(f"start {turn + 1} of {settings.starts}")
            for module in rotated(able, turn):
                _start(workers["main", module.name], module, starts, outcome, keep=turn > 0)
        batches = [figure for figure in figures if figure.stage != "start"]
        baseline = None
        if any(figure.baseline for figure in batches):
            baseline = Baseline(disk, material)
            stack.callback(baseline.close)
        for turn in range(settings.rounds if batches else 0):
            for figure in batches:
                say(f"round {turn + 1} of {settings.rounds}: {figure.title}")
                entrants: list[Worker | Baseline] = [workers[figure.stage, module.name] for module in able]
                if baseline and figure.baseline:
                    entrants.append(baseline)
                for entrant in rotated(entrants, turn):
                    _batch(entrant, figure, settings, outcome)
    return outcome


def _prepare(
    modules: Sequence[Module],
    figures: Sequence[Figure],
    material: keys.Keys,
    settings: Settings,
    outcome: Outcome,
    disk: Path,
    memory: Path,
    say: Progress,
) -> tuple[list[Module], dict[tuple[str, str], Worker]]:
    """The modules that can take part, and their workers by stage and module. Starts no process that goes on running."""
    able: list[Module] = []
    workers: dict[tuple[str, str], Worker] = {}
    places = dict.fromkeys("main" if figure.stage == "start" else figure.stage for figure in figures)
    for module in modules:
        try:
            for place in places:
                say(f"token of {module.title} ({place})")
                folder = (disk if place == "main" else memory) / f"{place}-{module.name}"
                workers[place, module.name] = _prepared(module, place, folder, material, settings, outcome)
            able.append(module)
        except BenchError as error:
            outcome.failures.append(f"{module.title} takes no part: {error}")
    return able, workers


def _prepared(
    module: Module, stage: Stage, folder: Path, material: keys.Keys, settings: Settings, outcome: Outcome
) -> Worker:
    """A worker on a fresh token with its objects. Without them the bench goes on: then each figure says what failed."""
    folder.mkdir()
    worker = Worker(module, module.prepare(folder), stage, folder.with_suffix(".log"), material)
    wanted = population_of(stage, settings.many)
    try:
        worker.prepare(wanted, settings.limit)
    except CallError as failure:
        outcome.failures.append(f"{module.title}, token with {wanted:,} objects: {failure}")
        return worker
    if worker.population < wanted:
        outcome.notes.append(
            f"{module.title} stored {worker.population:,} of {wanted:,} objects in {settings.limit:.0f} s: "
            "its figures are of that many"
        )
    return worker


def _series(outcome: Outcome, figure: Figure, module: str) -> Series:
    return outcome.results[figure.name].setdefault(module, Series(figure.unit))


def _start(worker: Worker, module: Module, figures: Sequence[Figure], outcome: Outcome, *, keep: bool) -> None:
    """One fresh process up to its first signature; the first of all fills the machine's caches and is not kept."""
    series = {figure.name: _series(outcome, figure, module.name) for figure in figures}
    step = "start"
    process = None
    try:
        process = worker.start()
        took = {"start": process.greeting}
        outcome.libraries[module.name] = {key: process.greeting[key] for key in ("library", "version", "cryptoki")}
        step = "login"
        took[step] = worker.log_in(process)
        step = "first-sign"
        handle = process.ask(f"find {keys.words(keys.key_of_id(keys.EC_ID))}")["handle"]
        signed = process.ask(f"measure sign 1 0 {CKM.ECDSA} {handle} {keys.DIGEST.hex()}")
        took[step] = {"lanes": signed["lanes"]}
        if keep:
            for name, answer in took.items():
                if name in series:
                    series[name].add(answer)
    except CallError as failure:
        for figure in figures:
            if figure.name == step and not series[step].failure:
                outcome.fail(series[step], module.title, figure, failure)
    finally:
        if process is not None:
            process.close()


def _batch(entrant: Worker | Baseline, figure: Figure, settings: Settings, outcome: Outcome) -> None:
    """One batch of one figure of one entrant, unless it failed before."""
    series = _series(outcome, figure, entrant.name)
    if series.failure or series.unsupported:
        return
    try:
        series.add(entrant.measure(figure, int(settings.batch * figure.budget)))
    except CallError as failure:
        outcome.fail(series, entrant.name, figure, failure)
