"""The table for people and the JSON for machines."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .maths import Series, Unit, advantage, compare, show, show_spread
from .targets import OURS, growth, scaling, verdicts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from .catalogue import Figure
    from .runner import Outcome, Settings

WIDTH = 100
DERIVED = {"find-many": "many to few", "sign-rsa-2": "2 threads to 1", "sign-ec-2": "2 threads to 1"}
STYLES = {"faster": "green", "slower": "red", "met": "green", "NOT MET": "bold red"}


def cell(series: Series | None) -> str:
    """A module's figure as the table shows it."""
    if series is None:
        return "-"
    if series.failure:
        return "failed"
    if series.median is None:
        return "n/a" if series.unsupported else "-"
    return show(series.unit, series.median)


def comparison(ours: Series | None, theirs: Series | None) -> str:
    """keyfob beside a peer in words; nothing where one is missing, or for ratios, which speak of one module alone."""
    if ours is None or theirs is None or ours.median is None or theirs.median is None or ours.unit == "ratio":
        return ""
    return compare(ours.unit, ours.median, theirs.median)


def derived(outcome: Outcome, titles: Mapping[str, str]) -> dict[str, dict[str, Series]]:
    """Rows that follow from others, by the figure behind which each stands; DERIVED has their titles."""
    rows: dict[str, dict[str, Series]] = {}
    for name in titles:
        for after, ratio in (
            ("find-many", growth(outcome.results, name)),
            ("sign-rsa-2", scaling(outcome.results, "rsa", name)),
            ("sign-ec-2", scaling(outcome.results, "ec", name)),
        ):
            if ratio is not None:
                rows.setdefault(after, {})[name] = Series("ratio", [ratio])
    return rows


def _styled(text: str) -> Text:
    style = next((style for word, style in STYLES.items() if text.endswith(word)), "")
    return Text(text, style=style, justify="right")


def _row(title: str, by_module: Mapping[str, Series], titles: Mapping[str, str]) -> list[Text]:
    ours = by_module.get(OURS)
    cells = [Text(title)]
    spreads = []
    for name in titles:
        series = by_module.get(name)
        cells.append(Text(cell(series)))
        if OURS in titles and name != OURS:
            cells.append(_styled(comparison(ours, series)))
        if series is not None and series.spread is not None:
            spreads.append(series.spread)
    return [*cells, Text(show_spread(max(spreads, default=None)))]


def figures_table(outcome: Outcome, figures: Sequence[Figure], titles: Mapping[str, str]) -> Table:
    """One row for each figure; `titles` are the modules' by name, keyfob first if it was measured."""
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for name, title in titles.items():
        table.add_column(title, justify="right", no_wrap=True)
        if OURS in titles and name != OURS:
            table.add_column(f"{OURS} is", justify="right", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True, style="dim")
    extra = derived(outcome, titles)
    section = ""
    for figure in figures:
        if figure.section != section:
            section = figure.section
            table.add_row(Text(section, style="bold"))
        table.add_row(*_row(f"  {figure.title}", outcome.results[figure.name], titles))
        if figure.name in extra:
            table.add_row(*_row(f"    {DERIVED[figure.name]}", extra[figure.name], titles))
    return table


def targets_table(outcome: Outcome, titles: Mapping[str, str], cores: int) -> Table:
    """What the project expects beside what was measured."""
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("Target of keyfob", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    peers = {name: title for name, title in titles.items() if name != OURS}
    for verdict in verdicts(outcome.results, peers, cores):
        word = {True: "met", False: "NOT MET", None: ""}[verdict.met]
        table.add_row(verdict.target, verdict.measured, _styled(word))
    return table


def print_report(
    console: Console,
    outcome: Outcome,
    figures: Sequence[Figure],
    titles: Mapping[str, str],
    machine: Mapping[str, Any],
    settings: Settings,
) -> None:
    """Everything a person reads, 100 columns wide."""
    console.print(f"[bold]{machine['cpu']}[/], {machine['cores']} cores, {machine['system']}, {machine['python']}")
    console.print(
        f"Median of {settings.rounds} rounds of {settings.batch / 1000:.0f} ms in turns. ±: half the distance of the "
        "quartiles, the row's widest.",
        style="dim",
    )
    console.print()
    console.print(figures_table(outcome, figures, titles))
    console.print()
    bare = [
        (figure.title, series.median)
        for figure in figures
        if (series := outcome.results[figure.name].get("bare")) and series.median is not None
    ]
    for title, median in bare:
        console.print(f"Bare cryptography in a Python loop, {title}: {show('time', median)}")
    if OURS in titles and (table := targets_table(outcome, titles, machine["cores"])).row_count:
        console.print()
        console.print(table)
    if any(series.unsupported for by_module in outcome.results.values() for series in by_module.values()):
        console.print("n/a: the module says that it does not offer this.")
    for note in outcome.notes:
        console.print(f"Note: {note}.")
    for failure in outcome.failures:
        console.print(f"[bold red]Failed:[/] {failure}", highlight=False)


def _series_json(unit: Unit, series: Series, ours: Series | None) -> dict[str, Any]:
    if series.median is None:
        return {"unsupported": series.unsupported} if series.unsupported else {"failed": series.failure}
    found: dict[str, Any] = {
        "median": round(series.median, 3),
        "spread": None if series.spread is None else round(series.spread, 4),
        "values": [round(value, 3) for value in series.values],
    }
    if ours is not None and ours is not series and ours.median is not None:
        found["keyfob_is_times_better"] = round(advantage(unit, ours.median, series.median), 4)
    return found


def as_json(
    outcome: Outcome,
    figures: Sequence[Figure],
    modules: Mapping[str, Mapping[str, Any]],
    machine: Mapping[str, Any],
    settings: Settings,
) -> dict[str, Any]:
    """The whole result: facts, raw figures (nanoseconds, or operations in a second) and ratios."""
    titles = {name: str(facts["title"]) for name, facts in modules.items()}
    peers = {name: title for name, title in titles.items() if name != OURS}
    return {
        "format": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**machine, "filesystems": outcome.filesystems},
        "settings": vars(settings),
        "modules": {name: {**facts, **outcome.libraries.get(name, {})} for name, facts in modules.items()},
        "figures": {
            figure.name: {
                "title": figure.title,
                "unit": {"time": "ns", "rate": "1/s", "ratio": "1"}[figure.unit],
                "threads": figure.lanes,
                "modules": {
                    name: _series_json(figure.unit, series, outcome.results[figure.name].get(OURS))
                    for name, series in outcome.results[figure.name].items()
                },
            }
            for figure in figures
        },
        "ratios": {
            f"{after}, {DERIVED[after]}": {name: round(series.values[0], 4) for name, series in values.items()}
            for after, values in derived(outcome, titles).items()
        },
        "targets": [vars(verdict) for verdict in verdicts(outcome.results, peers, machine["cores"])],
        "notes": outcome.notes,
        "failures": outcome.failures,
    }


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """One file, readable, with the raw values on one line each so that a diff shows what changed."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_numbers_on_one_line(text) + "\n", encoding="utf-8")


def _numbers_on_one_line(text: str) -> str:
    return re.sub(r"\[\s*([-\d.,\s e+]+?)\s*\]", lambda found: "[" + " ".join(found.group(1).split()) + "]", text)
