"""What an experiment found, and what a host saw of a token."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .subjects import Run, Subject

T = TypeVar("T")


@dataclass
class Outcome:
    """`bad` of `trials` showed a defect; `figures` are what the table shows."""

    trials: int
    bad: int
    figures: dict[str, int | float | str] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)

    def cell(self) -> str:
        return ", ".join(
            f"{name} {value}" if isinstance(value, str) else f"{value:g} {name}" for name, value in self.figures.items()
        )


@dataclass(frozen=True)
class Experiment:
    """A row of the table. `run(template, folder, trials)`: a token to copy, an empty folder to work in.

    `full` and `quick` are trials with keyfob; `peers` those with the others in a full run. `limit`: seconds for a
    module. `cheap`: keyfob's PIN hardening does not matter here.
    """

    name: str
    title: str
    method: str
    run: Callable[[Subject, Path, int], Outcome]
    full: int = 1
    quick: int = 1
    peers: int = 1
    cheap: bool = True


@dataclass(frozen=True)
class Seen:
    """An object as `host look` shows it: its ID, and (value, CK_RV) of each attribute."""

    kind: int
    name: str
    values: dict[str, tuple[str, str]]

    @property
    def label(self) -> str:
        return bytes.fromhex(self.values["3"][0]).decode(errors="replace")

    def errors(self) -> set[tuple[str, str]]:
        return {(attribute, rv) for attribute, (_, rv) in self.values.items() if rv != "0"}


def objects(run: Run) -> list[Seen]:
    found = []
    for line in run.lines:
        first, _, rest = line.partition(" ")
        if first == "object":
            kind, *fields = rest.split(" ")
            values = {}
            for each in fields:
                attribute, _, value = each.partition("=")
                text, _, rv = value.partition(":")
                values[attribute] = (text, rv)
            name = bytes.fromhex(values.pop("id")[0]).decode(errors="replace")
            found.append(Seen(int(kind), name, values))
    return found


def in_parallel(work: Callable[[int], T], trials: int) -> list[T]:
    """`work(trial)` for all trials, as many at a time as there are cores."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(work, range(trials)))


def count(found: Iterable[str]) -> dict[str, int]:
    return dict(Counter(found).most_common())
